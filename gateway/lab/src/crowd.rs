//! Synthetic voice sessions at a running gateway, and the packets that they received around a fault.
//!
//! The sessions are opened through the admin API, two per room. Measurements are kept per window, so that one crowd can
//! measure many faults: begin a window before each fault and evaluate it afterwards.

mod effect;
mod plan;
mod window;

use std::collections::BTreeMap;
use std::future::pending;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{Sender, channel};

pub(crate) use effect::FREEZE;
pub use effect::{FaultEffect, InjectedFault, NodeDetection, Scope};
pub use plan::{CrowdPlan, PlannedTransport, Proof, Speech};
pub use window::ObservationWindow;

use crate::client::{ClientFleet, ClientPath, UdpWay};
use crate::clock;
use crate::ledger::{Books, RoomParticipant};
use crate::relay::ImpairmentRelay;
use crate::watch::{EventLog, Watch};
use evenkeel_client::{ApiClient, OfferIdentity, OfferIngress, QuicOffer};

const CONNECTIONS: usize = 8;
/// Time within which all clients must be able to send.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Wait after all clients can send, so that the first packets of every session have arrived.
const SETTLE: Duration = Duration::from_millis(500);
/// Wait for clients that were told to leave.
const LEFT_WITHIN: Duration = Duration::from_millis(50);
/// Wait for the last packets of a window.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// The sessions could not be opened, or did not all become ready.
#[derive(Debug, thiserror::Error)]
pub enum CrowdError {
    /// A system call failed.
    #[error("{0}: {1}")]
    System(&'static str, io::Error),
    /// The gateway's API refused a request, or was not reached.
    #[error("{0}: {1}")]
    Gateway(&'static str, evenkeel_client::ClientError),
    /// A condition did not hold in time.
    #[error("{what} did not happen within {} s", within.as_secs())]
    InVain {
        /// The awaited condition.
        what: String,
        /// The time limit.
        within: Duration,
    },
    /// A signal ended the opening.
    #[error("interrupted")]
    Interrupted,
}

/// Open sessions, and the event log of the gateway.
pub struct Crowd {
    fleet: ClientFleet,
    /// The simulated NAT, if the plan asks for one.
    relay: Option<ImpairmentRelay>,
    books: Books,
    heard: EventLog,
    /// `None` without an admin API.
    watch: Option<Watch>,
    plan: CrowdPlan,
    /// Session numbers by the id that the gateway assigned.
    by_id: BTreeMap<String, u64>,
    /// Start of the current window: nanoseconds since the Unix epoch.
    from_ns: u64,
}

impl Crowd {
    /// Opens all sessions and waits until every client can send.
    pub async fn enter(
        plan: &CrowdPlan,
        admin: impl Fn() -> ApiClient,
    ) -> Result<Crowd, CrowdError> {
        Crowd::enter_unless(plan, admin, pin!(pending())).await
    }

    /// Like [`Crowd::enter`], but fails if `interrupted` resolves first.
    pub(crate) async fn enter_unless(
        plan: &CrowdPlan,
        admin: impl Fn() -> ApiClient,
        mut go: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<Crowd, CrowdError> {
        let watch = Watch::begin(&admin()).await;
        let watch = watch.map_err(|error| CrowdError::Gateway("listening to events", error))?;
        let books = Books::default();
        let fleet = ClientFleet::start(&books).map_err(system("starting clients"))?;
        let relay = plan.natted.then(|| ImpairmentRelay::start(plan.seed)).transpose();
        let relay = relay.map_err(system("starting a relay"))?;
        let (plan, by_id) = (plan.clone(), BTreeMap::new());
        let (heard, watch) = (watch.heard.clone(), Some(watch));
        let mut crowd = Crowd { fleet, relay, books, heard, watch, plan, by_id, from_ns: 0 };
        let newcomers = crowd.newcomers(1)?;
        let entered = match crowd.open(newcomers, &admin, go.as_mut()).await {
            Ok(()) => tokio::select! {
                ready = crowd.wait_ready() => ready,
                () = go => Err(CrowdError::Interrupted),
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
    pub async fn watch_also(&mut self, admin: &ApiClient) -> Result<(), CrowdError> {
        let Some(watch) = &mut self.watch else { return Ok(()) };
        let watched = watch.also(admin).await;
        watched.map_err(|error| CrowdError::Gateway("listening to events", error))
    }

    /// Starts clients that send to this address without an offer. Each one receives its own packets.
    pub async fn enter_at(plan: &CrowdPlan, gateway: SocketAddr) -> Result<Crowd, CrowdError> {
        let bind = |_| {
            let socket = UdpSocket::bind((plan.clients_at, 0));
            let socket = socket.map_err(system("opening a socket"))?;
            Ok(UdpWay { socket, gateway, rtcp: None, ice: None })
        };
        let ways = (0..plan.sessions).map(bind).collect::<Result<_, CrowdError>>()?;
        let plan = CrowdPlan { speech: Speech::BothWays, ..plan.clone() };
        Crowd::enter_by(&plan, ways, |session| session).await
    }

    /// Starts a client for each way, without offers. Members of a room receive each other's packets.
    pub async fn enter_by(
        plan: &CrowdPlan,
        ways: Vec<UdpWay>,
        room_of: impl Fn(u64) -> u64,
    ) -> Result<Crowd, CrowdError> {
        let books = Books::default();
        let fleet = ClientFleet::start(&books).map_err(system("starting clients"))?;
        for (session, way) in (1..).zip(ways) {
            fleet.join(plan.persona(session), ClientPath::Udp(way));
            let room = room_of(session);
            books.open().join(RoomParticipant { session, room, from_ns: 0, until_ns: u64::MAX });
        }
        let (heard, by_id, plan) = (EventLog::default(), BTreeMap::new(), plan.clone());
        let mut crowd =
            Crowd { fleet, relay: None, books, heard, watch: None, plan, by_id, from_ns: 0 };
        crowd.wait_ready().await?;
        crowd.begin_window();
        Ok(crowd)
    }

    /// The planned clients, numbered from `first`, by connection.
    fn newcomers(&self, first: u64) -> Result<Vec<Vec<EnteringClient>>, CrowdError> {
        let sessions = first..first + u64::from(self.plan.sessions);
        let of = |connection| {
            let own = sessions.clone().skip(connection).step_by(CONNECTIONS);
            own.map(|session| newcomer(&self.plan, session)).collect()
        };
        (0..CONNECTIONS).map(of).collect()
    }

    async fn open(
        &mut self,
        newcomers: Vec<Vec<EnteringClient>>,
        admin: impl Fn() -> ApiClient,
        mut go: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<(), CrowdError> {
        let sessions = newcomers.iter().flatten().map(|newcomer| newcomer.session);
        let sessions: Vec<u64> = sessions.collect();
        let (opens, mut opened) = channel(CONNECTIONS);
        let ends = Arc::new(AtomicBool::new(false));
        for own in newcomers {
            let door = Door { opens: opens.clone(), ends: Arc::clone(&ends) };
            tokio::spawn(open(self.plan.clone(), own, admin(), door));
        }
        drop(opens);
        // All openings are awaited, even after an error, so that every open session can be closed.
        let mut outcome = Ok(());
        loop {
            let entered = tokio::select! {
                entered = opened.recv() => entered,
                () = go.as_mut(), if outcome.is_ok() => Some(Err(CrowdError::Interrupted)),
            };
            let Some(entered) = entered else { break };
            let joined = entered.and_then(|(session, id, way)| {
                self.by_id.insert(id, session);
                let way = self.through_relay(session, way)?;
                self.fleet.join(self.plan.persona(session), way);
                Ok(())
            });
            if joined.is_err() {
                ends.store(true, Ordering::Relaxed);
                outcome = outcome.and(joined);
            }
        }
        outcome?;
        for session in sessions {
            let room = self.plan.room_of(session);
            self.books.open().join(RoomParticipant {
                session,
                room,
                from_ns: 0,
                until_ns: u64::MAX,
            });
        }
        Ok(())
    }

    fn through_relay(&self, session: u64, mut way: ClientPath) -> Result<ClientPath, CrowdError> {
        let Some(relay) = &self.relay else { return Ok(way) };
        let gateway = match &mut way {
            ClientPath::Udp(way) => &mut way.gateway,
            ClientPath::Quic(way) => &mut way.gateway,
        };
        let ends = relay.lane(session, *gateway).map_err(system("opening a lane"))?;
        *gateway = ends.near;
        Ok(way)
    }

    /// Assigns new addresses to all clients at the simulated NAT.
    pub fn rebind(&self) -> Result<(), CrowdError> {
        let Some(relay) = &self.relay else { return Ok(()) };
        for &session in self.by_id.values() {
            relay.rebind(session).map_err(system("opening a lane anew"))?;
        }
        Ok(())
    }

    /// Replaces all clients at once by new sessions. The ledger forgets the old ones.
    pub async fn reconnect(&mut self, admin: impl Fn() -> ApiClient) -> Result<(), CrowdError> {
        let first = self.by_id.values().max().map_or(1, |last| last + 1);
        // New sockets are bound before the old are closed, so that no address is used twice.
        let newcomers = self.newcomers(first)?;
        let gone: Vec<u64> = std::mem::take(&mut self.by_id).into_values().collect();
        gone.iter().for_each(|&session| self.fleet.leave(session));
        // During this time the old clients still record packets.
        tokio::time::sleep(LEFT_WITHIN).await;
        self.forget(&gone);
        self.open(newcomers, admin, pin!(pending())).await
    }

    fn forget(&self, gone: &[u64]) {
        let mut books = self.books.open();
        gone.iter().for_each(|&session| books.forget(session));
    }

    /// Events of all watched gateways.
    pub fn heard(&self) -> &EventLog {
        &self.heard
    }

    /// The plan by which the sessions were opened.
    pub fn plan(&self) -> &CrowdPlan {
        &self.plan
    }

    /// Session numbers by the ids that the gateway assigned.
    pub fn by_id(&self) -> &BTreeMap<String, u64> {
        &self.by_id
    }

    /// Begins a window and discards earlier measurements.
    pub fn begin_window(&mut self) {
        drop(self.books.turn());
        drop(self.heard.take());
        self.from_ns = clock::now_ns();
    }

    /// Ends the window after its last packets have arrived, and begins the next window.
    pub async fn end_window(&mut self) -> ObservationWindow {
        let until_ns = clock::now_ns();
        tokio::time::sleep(LAST_WORDS).await;
        let mut ledger = self.books.turn();
        ledger.due_between(self.from_ns, until_ns);
        let span = self.from_ns..until_ns;
        self.from_ns = clock::now_ns();
        let events = self.heard.take();
        ObservationWindow { ledger, events, by_id: self.by_id.clone(), span }
    }

    /// Closes all sessions. An error does not keep the others open.
    pub async fn leave(self, admin: &mut ApiClient) -> Result<(), CrowdError> {
        drop(self.fleet);
        let mut outcome = Ok(());
        for id in self.by_id.keys() {
            match admin.close(id).await {
                Ok(()) | Err(evenkeel_client::ClientError::Refused { status: 404, .. }) => {}
                Err(error) => {
                    // The other sessions are closed even if one cannot be closed.
                    let is_gone = matches!(error, evenkeel_client::ClientError::Unreached(_));
                    let failed = CrowdError::Gateway("closing a session", error);
                    outcome = outcome.and(Err(failed));
                    if is_gone {
                        break;
                    }
                }
            }
        }
        outcome
    }

    async fn wait_ready(&self) -> Result<(), CrowdError> {
        let until = Instant::now() + READY_WITHIN;
        while let Some((session, failed)) = self.fleet.waiting().pop_first() {
            if Instant::now() > until || failed.is_some() {
                let why = failed.unwrap_or_default();
                let what = format!("that session {session} can send {why}");
                return Err(CrowdError::InVain { what, within: READY_WITHIN });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(SETTLE).await;
        Ok(())
    }
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> CrowdError {
    move |error| CrowdError::System(what, error)
}

/// A client before its session is open.
struct EnteringClient {
    session: u64,
    socket: Option<UdpSocket>,
    ingress: OfferIngress,
}

fn newcomer(plan: &CrowdPlan, session: u64) -> Result<EnteringClient, CrowdError> {
    if plan.transport_of(session) == PlannedTransport::Quic {
        let ingress = OfferIngress::Quic(QuicOffer {});
        return Ok(EnteringClient { session, socket: None, ingress });
    }
    let socket = UdpSocket::bind((plan.clients_at, 0)).map_err(system("opening a socket"))?;
    let address = socket.local_addr().map_err(system("opening a socket"))?;
    let identity = match plan.proof {
        Proof::Stun => OfferIdentity::Stun,
        Proof::Declared => OfferIdentity::Declared { address, rtcp: None },
    };
    Ok(EnteringClient { session, socket: Some(socket), ingress: OfferIngress::Udp(identity) })
}

/// Session number, session id, and path of the packets.
type Entered = (u64, String, ClientPath);

/// Receives opened sessions, and can stop further openings.
struct Door {
    opens: Sender<Result<Entered, CrowdError>>,
    ends: Arc<AtomicBool>,
}

/// Opens these sessions one after another until one fails or the door is closed.
async fn open(plan: CrowdPlan, newcomers: Vec<EnteringClient>, mut admin: ApiClient, door: Door) {
    for newcomer in newcomers {
        if door.ends.load(Ordering::Relaxed) {
            return;
        }
        let entered = enter(&plan, newcomer, &mut admin).await;
        let failed = entered.is_err();
        if door.opens.send(entered).await.is_err() || failed {
            return;
        }
    }
}

async fn enter(
    plan: &CrowdPlan,
    newcomer: EnteringClient,
    admin: &mut ApiClient,
) -> Result<Entered, CrowdError> {
    let EnteringClient { session, socket, ingress } = newcomer;
    let opened = admin.open(&plan.offer(session, ingress)).await;
    let opened = opened.map_err(|error| CrowdError::Gateway("opening a session", error))?;
    let id = opened.id.clone();
    let Some(way) = ClientPath::of(&opened, socket) else {
        // Close the session here: no other task knows its id.
        let _ = admin.close(&id).await;
        let what = format!("an address to send to in the answer for session {session}");
        return Err(CrowdError::InVain { what, within: Duration::ZERO });
    };
    Ok((session, id, way))
}

#[cfg(test)]
mod tests;
