//! Synthetic sessions at a running gateway, and the packets that they received around a fault.
//!
//! The sessions are opened through the admin API. Measurements are kept per window, so that one crowd can measure many
//! faults: begin a window before each fault and evaluate it afterwards.

mod plan;
mod window;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::pending;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use evenkeel_process::lock;
use tokio::sync::mpsc::{Sender, channel};

pub use plan::{CrowdPlan, PlannedTransport};
pub(crate) use plan::{PlannedIdentity, PlannedSession, video_media, voice_media};
pub use window::{FaultEffect, InjectedFault, NodeDetection, ObservationWindow, Scope};

use crate::client::{ClientFleet, ClientPath, DeviceFault, UdpWay, WebrtcIdentity, WebrtcTally};
use crate::clock;
use crate::error::LabError;
use crate::ledger::{Books, RoomParticipant};
use crate::links::Conditions;
use crate::relay::{Direction, ImpairmentRelay};
use crate::watch::{EventLog, Watch};
use evenkeel_client::ApiClient;
use evenkeel_contract::offers::{OfferIngress, OfferRequest, OfferSdp};

const CONNECTIONS: usize = 8;
/// Time within which all clients must be able to send.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Wait after all clients can send, so that the first packets of every session have arrived.
const SETTLE: Duration = Duration::from_millis(500);
/// Wait for clients that were told to leave.
const LEFT_WITHIN: Duration = Duration::from_millis(50);
/// Wait for the last packets of a window.
const LAST_WORDS: Duration = Duration::from_millis(300);

pub(crate) struct OpenSessions {
    pub(crate) fleet: ClientFleet,
    /// The simulated network between some of the clients and the gateway.
    pub(crate) relay: ImpairmentRelay,
    pub(crate) books: Books,
    /// Session numbers by the id that the gateway assigned.
    pub(crate) by_id: BTreeMap<String, u64>,
    /// The ICE user fragment of a session, for unauthorised checks.
    pub(crate) ufrag: Option<String>,
    /// The address and certificate of the QUIC listener.
    pub(crate) quic: Option<(SocketAddr, [u8; 32])>,
}

impl OpenSessions {
    pub(crate) fn start(seed: u64) -> Result<OpenSessions, LabError> {
        let books = Books::default();
        let fleet = ClientFleet::start(&books).map_err(LabError::system("starting clients"))?;
        let relay = ImpairmentRelay::start(seed).map_err(LabError::system("starting a relay"))?;
        let by_id = BTreeMap::new();
        Ok(OpenSessions { fleet, relay, books, by_id, ufrag: None, quic: None })
    }

    /// Opens these sessions over several connections. After an error, sessions may be open: see
    /// [`close`](Self::close).
    pub(crate) async fn open(
        &mut self,
        newcomers: Vec<EnteringClient>,
        admin: impl Fn() -> ApiClient,
        mut go: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<(), LabError> {
        let member = |newcomer: &EnteringClient| RoomParticipant {
            session: newcomer.planned.persona.session,
            room: newcomer.planned.room,
            from_ns: 0,
            until_ns: u64::MAX,
        };
        let members: Vec<RoomParticipant> = newcomers.iter().map(member).collect();
        let waiting = Arc::new(Mutex::new(VecDeque::from(newcomers)));
        let (opens, mut opened) = channel(CONNECTIONS);
        for _ in 0..CONNECTIONS {
            tokio::spawn(open(Arc::clone(&waiting), admin(), opens.clone()));
        }
        drop(opens);
        // All openings are awaited, even after an error, so that every open session can be closed.
        let mut outcome = Ok(());
        loop {
            let entered = tokio::select! {
                entered = opened.recv() => entered,
                () = go.as_mut(), if outcome.is_ok() => Some(Err(LabError::Interrupted)),
            };
            let Some(entered) = entered else { break };
            let joined = entered.and_then(|entered| self.join(entered));
            if joined.is_err() {
                lock(&waiting).clear();
                outcome = outcome.and(joined);
            }
        }
        outcome?;
        let mut books = self.books.open();
        members.into_iter().for_each(|member| books.join(member));
        Ok(())
    }

    fn join(&mut self, (planned, id, mut way): EnteredClient) -> Result<(), LabError> {
        let session = planned.persona.session;
        self.by_id.insert(id, session);
        let gateway = match &mut way {
            ClientPath::Udp(way) => {
                let ufrag = || way.ice.as_ref().map(|ice| ice.ufrag.clone());
                self.ufrag = self.ufrag.take().or_else(ufrag);
                &mut way.gateway
            }
            ClientPath::Quic(way) => {
                self.quic = Some((way.gateway, way.certificate_sha256));
                &mut way.gateway
            }
        };
        if planned.is_relayed {
            let near = self.relay.lane(session, *gateway);
            *gateway = near.map_err(LabError::system("opening a lane"))?;
        }
        self.fleet.join(planned.persona, way);
        Ok(())
    }

    pub(crate) async fn wait_ready(&self) -> Result<(), LabError> {
        let until = Instant::now() + READY_WITHIN;
        loop {
            let mut waiting = self.fleet.states();
            waiting.retain(|_, state| state.ready_ns.is_none());
            if waiting.is_empty() {
                break;
            }
            if Instant::now() > until || waiting.values().any(|state| state.failed.is_some()) {
                let shown = waiting.iter().map(|(session, state)| match &state.failed {
                    Some(why) => format!("{session} ({why})"),
                    None => session.to_string(),
                });
                let shown: Vec<String> = shown.collect();
                let what = format!("readiness of sessions {}", shown.join(", "));
                return Err(LabError::in_vain(what, READY_WITHIN));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(SETTLE).await;
        Ok(())
    }

    /// Closes all sessions. An error does not keep the others open.
    async fn close(self, admin: &mut ApiClient) -> Result<(), LabError> {
        drop(self.fleet);
        let mut outcome = Ok(());
        for id in self.by_id.keys() {
            match admin.close(id).await {
                Ok(()) | Err(evenkeel_client::ClientError::Refused { status: 404, .. }) => {}
                Err(error) => {
                    let is_gone = matches!(error, evenkeel_client::ClientError::Unreached(_));
                    outcome = outcome.and(Err(LabError::gateway("closing a session")(error)));
                    if is_gone {
                        break;
                    }
                }
            }
        }
        outcome
    }
}

/// Open sessions, and the event log of the gateway.
pub struct Crowd {
    sessions: OpenSessions,
    /// Events of all watched gateways.
    pub events: EventLog,
    /// `None` without an admin API.
    watch: Option<Watch>,
    /// The plan by which the sessions were opened.
    pub plan: CrowdPlan,
    /// Start of the current window: nanoseconds since the Unix epoch.
    from_ns: u64,
}

impl Crowd {
    /// Opens all sessions and waits until every client can send.
    pub async fn enter(plan: &CrowdPlan, admin: impl Fn() -> ApiClient) -> Result<Crowd, LabError> {
        Crowd::enter_unless(plan, admin, pin!(pending())).await
    }

    /// Like [`Crowd::enter`], but fails if `interrupted` resolves first.
    pub(crate) async fn enter_unless(
        plan: &CrowdPlan,
        admin: impl Fn() -> ApiClient,
        mut go: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<Crowd, LabError> {
        let watch = Watch::begin(&admin()).await;
        let watch = watch.map_err(LabError::gateway("listening to events"))?;
        let sessions = OpenSessions::start(plan.seed)?;
        if plan.echoes {
            sessions.books.open().expect_echoes();
        }
        let (plan, heard, watch) = (plan.clone(), watch.events.clone(), Some(watch));
        let mut crowd = Crowd { sessions, events: heard, watch, plan, from_ns: 0 };
        let newcomers = crowd.newcomers(1, crowd.plan.sessions)?;
        let entered = match crowd.sessions.open(newcomers, &admin, go.as_mut()).await {
            Ok(()) => tokio::select! {
                ready = crowd.sessions.wait_ready() => ready,
                () = go => Err(LabError::Interrupted),
            },
            failed => failed,
        };
        if let Err(failed) = entered {
            // The first error is more useful than an error of closing.
            let _ = crowd.leave(&mut admin()).await;
            return Err(failed);
        }
        crowd.begin_window();
        Ok(crowd)
    }

    /// Records the events of another gateway as well.
    pub async fn watch_also(&mut self, admin: &ApiClient) -> Result<(), LabError> {
        let Some(watch) = &mut self.watch else { return Ok(()) };
        watch.also(admin).await.map_err(LabError::gateway("listening to events"))
    }

    /// Starts clients that send to this address without an offer. Each one receives its own packets.
    pub async fn enter_at(plan: &CrowdPlan, gateway: SocketAddr) -> Result<Crowd, LabError> {
        let way =
            |_| Ok(UdpWay { socket: bind(plan.clients_at)?, gateway, ice: None, webrtc: None });
        let ways = (0..plan.sessions).map(way).collect::<Result<_, LabError>>()?;
        let plan = CrowdPlan { both_ways: true, ..plan.clone() };
        Crowd::enter_by(&plan, ways, |session| session).await
    }

    /// Starts a client for each way, without offers. Members of a room receive each other's packets.
    pub async fn enter_by(
        plan: &CrowdPlan,
        ways: Vec<UdpWay>,
        room_of: impl Fn(u64) -> u64,
    ) -> Result<Crowd, LabError> {
        let sessions = OpenSessions::start(plan.seed)?;
        for (session, way) in (1..).zip(ways) {
            sessions.fleet.join(plan.persona(session), ClientPath::Udp(way));
            let (room, from_ns, until_ns) = (room_of(session), 0, u64::MAX);
            sessions.books.open().join(RoomParticipant { session, room, from_ns, until_ns });
        }
        sessions.wait_ready().await?;
        let (heard, plan) = (EventLog::default(), plan.clone());
        let mut crowd = Crowd { sessions, events: heard, watch: None, plan, from_ns: 0 };
        crowd.begin_window();
        Ok(crowd)
    }

    /// Opens this many further sessions, in rooms of their own, at another gateway, and waits until every client can send.
    pub async fn enter_also(
        &mut self,
        sessions: u32,
        admin: impl Fn() -> ApiClient,
    ) -> Result<(), LabError> {
        let newcomers = self.newcomers(self.next_session(), sessions)?;
        self.sessions.open(newcomers, admin, pin!(pending())).await?;
        self.sessions.wait_ready().await?;
        self.begin_window();
        Ok(())
    }

    fn next_session(&self) -> u64 {
        self.by_id().values().max().map_or(1, |last| last + 1)
    }

    fn newcomers(&self, first: u64, sessions: u32) -> Result<Vec<EnteringClient>, LabError> {
        let sessions = first..first + u64::from(sessions);
        let newcomer = |session| newcomer(self.plan.planned(session), self.plan.clients_at);
        sessions.map(newcomer).collect()
    }

    /// Assigns new addresses to all clients at the simulated NAT.
    pub fn rebind(&self) -> Result<(), LabError> {
        self.sessions.relay.rebind_all().map_err(LabError::system("opening a lane anew"))
    }

    /// Changes one direction of the simulated network of these sessions.
    pub fn impair(&self, sessions: &BTreeSet<u64>, direction: Direction, conditions: Conditions) {
        self.sessions.relay.set(sessions, direction, conditions);
    }

    /// Sets the fault of these UDP clients' devices.
    pub fn set_device_fault(&self, sessions: &BTreeSet<u64>, fault: DeviceFault) {
        sessions.iter().for_each(|session| self.sessions.fleet.set_device_fault(*session, fault));
    }

    /// Replaces all clients at once by new sessions. The ledger forgets the old ones.
    pub async fn reconnect(&mut self, admin: impl Fn() -> ApiClient) -> Result<(), LabError> {
        // New sockets are bound before the old are closed, so that no address is used twice.
        let newcomers = self.newcomers(self.next_session(), self.plan.sessions)?;
        let gone: Vec<u64> = std::mem::take(&mut self.sessions.by_id).into_values().collect();
        gone.iter().for_each(|&session| self.sessions.fleet.leave(session));
        // During this time the old clients still record packets.
        tokio::time::sleep(LEFT_WITHIN).await;
        self.forget(&gone);
        self.sessions.open(newcomers, admin, pin!(pending())).await
    }

    fn forget(&self, gone: &[u64]) {
        let mut books = self.sessions.books.open();
        gone.iter().for_each(|&session| books.forget(session));
    }

    /// Session numbers by the ids that the gateway assigned.
    pub fn by_id(&self) -> &BTreeMap<String, u64> {
        &self.sessions.by_id
    }

    /// The sum of the events of these sessions' WebRTC transports.
    pub fn webrtc(&self) -> WebrtcTally {
        let states = self.sessions.fleet.states();
        let mut sum = WebrtcTally::default();
        let own = self.by_id().values().filter_map(|session| states.get(session));
        own.for_each(|state| sum.add(state.webrtc));
        sum
    }

    /// Begins a window and discards earlier measurements.
    pub fn begin_window(&mut self) {
        drop(self.sessions.books.turn());
        drop(self.events.take());
        self.from_ns = clock::now_ns();
    }

    /// The window so far, up to packets sent until now.
    pub fn window(&self) -> ObservationWindow {
        let until_ns = clock::now_ns();
        let mut ledger = self.sessions.books.open().clone();
        ledger.due_between(self.from_ns, until_ns);
        let span = self.from_ns..until_ns;
        let events = self.events.all().clone();
        ObservationWindow { ledger, events, by_id: self.by_id().clone(), span }
    }

    /// Ends the window after its last packets have arrived, and begins the next window.
    pub async fn end_window(&mut self) -> ObservationWindow {
        let until_ns = clock::now_ns();
        tokio::time::sleep(LAST_WORDS).await;
        let mut ledger = self.sessions.books.turn();
        ledger.due_between(self.from_ns, until_ns);
        let span = self.from_ns..until_ns;
        self.from_ns = clock::now_ns();
        ObservationWindow { ledger, events: self.events.take(), by_id: self.by_id().clone(), span }
    }

    /// Closes all sessions. An error does not keep the others open.
    pub async fn leave(self, admin: &mut ApiClient) -> Result<(), LabError> {
        self.sessions.close(admin).await
    }
}

/// A client before its session is open.
pub(crate) struct EnteringClient {
    planned: PlannedSession,
    socket: Option<UdpSocket>,
    webrtc: Option<WebrtcIdentity>,
}

/// Binds the client's socket, of which the offer names the address.
pub(crate) fn newcomer(
    mut planned: PlannedSession,
    clients_at: IpAddr,
) -> Result<EnteringClient, LabError> {
    if planned.transport == PlannedTransport::Quic {
        return Ok(EnteringClient { planned, socket: None, webrtc: None });
    }
    let socket = bind(clients_at)?;
    let address = socket.local_addr().map_err(LabError::system("opening a socket"))?;
    planned.offer.ingress = Some(match planned.identity {
        PlannedIdentity::Declared => OfferIngress::declared(address),
        PlannedIdentity::Stun | PlannedIdentity::Webrtc => OfferIngress::stun(),
    });
    let is_webrtc = planned.identity == PlannedIdentity::Webrtc;
    let webrtc = is_webrtc.then(|| WebrtcIdentity::generate(planned.persona.seed)).transpose();
    let webrtc = webrtc.map_err(io::Error::other);
    let webrtc = webrtc.map_err(LabError::system("making a client's certificate"))?;
    Ok(EnteringClient { planned, socket: Some(socket), webrtc })
}

fn bind(at: IpAddr) -> Result<UdpSocket, LabError> {
    UdpSocket::bind((at, 0)).map_err(LabError::system("opening a socket"))
}

/// The session, its id, and the path of its packets.
type EnteredClient = (PlannedSession, String, ClientPath);

/// Opens these sessions one after another until one fails.
async fn open(
    waiting: Arc<Mutex<VecDeque<EnteringClient>>>,
    mut admin: ApiClient,
    opens: Sender<Result<EnteredClient, LabError>>,
) {
    let next = || lock(&waiting).pop_front();
    while let Some(newcomer) = next() {
        let entered = enter(newcomer, &mut admin).await;
        let failed = entered.is_err();
        if opens.send(entered).await.is_err() || failed {
            return;
        }
    }
}

async fn enter(
    EnteringClient { planned, socket, webrtc }: EnteringClient,
    admin: &mut ApiClient,
) -> Result<EnteredClient, LabError> {
    let opened = match &webrtc {
        Some(identity) => {
            let OfferRequest { scenario, room, labels, media, .. } = planned.offer.clone();
            let offer = identity.sdp(&media.unwrap_or_default());
            let webrtc = Some(OfferSdp { offer, direction: None });
            let offer = OfferRequest { scenario, room, labels, webrtc, ..OfferRequest::default() };
            admin.open(&offer).await
        }
        None => admin.open(&planned.offer).await,
    };
    let opened = opened.map_err(LabError::gateway("opening a session"))?;
    let Some(way) = ClientPath::of(&opened, socket, webrtc) else {
        // Close the session here: no other task knows its id.
        let _ = admin.close(&opened.id).await;
        let session = planned.persona.session;
        let what = format!("an address to send to in the answer for session {session}");
        return Err(LabError::in_vain(what, Duration::ZERO));
    };
    Ok((planned, opened.id, way))
}

#[cfg(test)]
mod tests;
