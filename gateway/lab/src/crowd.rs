//! Synthetic voice sessions beside the real ones of a running gateway, and what they heard of a fault.
//!
//! They come in as anybody's do, by the admin API and the packet path, two to a room. Books are kept by page, so that a
//! crowd may live through any number of faults: turn the page before each, and reckon it after.

mod page;
mod plan;
mod reckoning;

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

pub use page::Page;
pub use plan::{Plan, Proof, Speech, Transport};
pub use reckoning::{Detection, FREEZE, Fault, Reckoning, Scope};

use crate::admin::{self, Admin, Identity, Ingress, Opened, QuicOffer};
use crate::client::{Credentials, Fleet, QuicWay, UdpWay, Way};
use crate::clock;
use crate::ledger::{Books, Member};
use crate::relay::Relay;
use crate::watch::Watch;

/// Connections by which sessions are opened.
const CONNECTIONS: u32 = 8;
/// All clients must be able to send within this.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// From when all can send until packets count: the first words of everyone have crossed by then.
const SETTLE: Duration = Duration::from_millis(500);
/// How late the last packet that counts may be.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// Why there is no crowd.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The system has no socket or thread for us.
    #[error("{what}: {error}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What it said.
        error: io::Error,
    },
    /// The gateway did not do as it was asked.
    #[error("{what}: {error}")]
    Gateway {
        /// What it was asked.
        what: &'static str,
        /// What it said.
        error: admin::Failed,
    },
    /// Something was waited for in vain.
    #[error("{what} did not happen within {} s", within.as_secs())]
    InVain {
        /// What.
        what: String,
        /// For how long.
        within: Duration,
    },
}

/// Sessions that stand, and whoever listens to the gateway's events for them.
pub struct Crowd {
    fleet: Fleet,
    books: Books,
    watch: Watch,
    /// By the id that the gateway gave.
    by_id: BTreeMap<String, u64>,
    /// Since when this page's packets count.
    from_ns: u64,
}

/// One session before it is opened: who it is, and its socket.
struct Newcomer {
    session: u64,
    /// Its socket, and where its packets enter a bad network, if by UDP.
    socket: Option<(UdpSocket, Option<SocketAddr>)>,
    ingress: Ingress,
}

impl Crowd {
    /// Opens all sessions and waits until everyone can send. Those by UDP send through a lane of `relay`, if one is
    /// named, with where the gateway listens.
    ///
    /// # Errors
    /// Any [`Failed`].
    pub async fn enter(
        plan: &Plan,
        admin: impl Fn() -> Admin,
        relay: Option<(&Relay, SocketAddr)>,
    ) -> Result<Crowd, Failed> {
        let watch = Watch::begin(&admin()).await;
        let watch =
            watch.map_err(|error| Failed::Gateway { what: "listening to events", error })?;
        let books = Books::default();
        let fleet = Fleet::start(&books).map_err(system("starting clients"))?;
        let mut opening = tokio::task::JoinSet::new();
        for first in 0..CONNECTIONS {
            let sessions = (1..=u64::from(plan.sessions)).skip(first as usize);
            let sessions = sessions.step_by(CONNECTIONS as usize);
            let newcomers: Result<Vec<Newcomer>, Failed> =
                sessions.map(|session| plan.newcomer(session, relay)).collect();
            opening.spawn(open(plan.clone(), newcomers?, admin()));
        }
        let mut by_id = BTreeMap::new();
        while let Some(opened) = opening.join_next().await {
            // A task of ours that panicked panics here.
            let opened = opened.unwrap_or_else(|gone| std::panic::resume_unwind(gone.into_panic()));
            for (session, id, way) in opened? {
                by_id.insert(id, session);
                fleet.join(plan.persona(session), way);
            }
        }
        let mut crowd = Crowd { fleet, books, watch, by_id, from_ns: 0 };
        crowd.wait_ready().await?;
        for session in 1..=u64::from(plan.sessions) {
            let room = plan.room_of(session);
            crowd.books.open().join(Member { session, room, from_ns: 0, until_ns: u64::MAX });
        }
        tokio::time::sleep(SETTLE).await;
        crowd.begin_page();
        Ok(crowd)
    }

    /// What the gateway said since the page was turned.
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// The sessions' numbers by the ids that the gateway gave.
    pub fn by_id(&self) -> &BTreeMap<String, u64> {
        &self.by_id
    }

    /// Begins a page here: what was noted before is forgotten.
    pub fn begin_page(&mut self) {
        drop(self.books.turn());
        drop(self.watch.heard.take());
        self.from_ns = clock::now_ns();
    }

    /// Ends the page, and begins the next: all that was sent and heard since it began, its last packets waited for.
    pub async fn end_page(&mut self) -> Page {
        let until_ns = clock::now_ns();
        tokio::time::sleep(LAST_WORDS).await;
        let mut ledger = self.books.turn();
        ledger.due_between(self.from_ns, until_ns);
        let span = self.from_ns..until_ns;
        self.from_ns = clock::now_ns();
        let events = self.watch.heard.take();
        Page { ledger, events, by_id: self.by_id.clone(), span }
    }

    /// Closes all sessions.
    ///
    /// # Errors
    /// [`Failed::Gateway`] where it refuses; one that is closed already is none.
    pub async fn leave(self, admin: &mut Admin) -> Result<(), Failed> {
        drop(self.fleet);
        for id in self.by_id.keys() {
            match admin.close(id).await {
                Ok(()) | Err(admin::Failed::Refused { status: 404, .. }) => {}
                Err(error) => return Err(Failed::Gateway { what: "closing a session", error }),
            }
        }
        Ok(())
    }

    async fn wait_ready(&self) -> Result<(), Failed> {
        let until = Instant::now() + READY_WITHIN;
        loop {
            let states = self.fleet.states();
            let mut waiting = states.iter().filter(|(_, state)| state.ready_ns.is_none());
            let Some((session, state)) = waiting.next() else { return Ok(()) };
            if Instant::now() > until || state.failed.is_some() {
                let why = state.failed.clone().unwrap_or_default();
                let what = format!("that session {session} can send {why}");
                return Err(Failed::InVain { what, within: READY_WITHIN });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Plan {
    fn newcomer(
        &self,
        session: u64,
        relay: Option<(&Relay, SocketAddr)>,
    ) -> Result<Newcomer, Failed> {
        if self.transport_of(session) == Transport::Quic {
            let ingress = Ingress::Quic(QuicOffer {});
            return Ok(Newcomer { session, socket: None, ingress });
        }
        let socket = UdpSocket::bind((self.clients_at, 0)).map_err(system("opening a socket"))?;
        let own = socket.local_addr().map_err(system("opening a socket"))?;
        let lane = relay.map(|(relay, gateway)| relay.lane(session, gateway));
        let lane = lane.transpose().map_err(system("opening a lane"))?;
        let identity = match self.proof {
            Proof::Stun => Identity::Stun,
            Proof::Declared => {
                let address = lane.map_or(own, |ends| ends.far);
                Identity::Declared { address, rtcp: None }
            }
        };
        let socket = Some((socket, lane.map(|ends| ends.near)));
        Ok(Newcomer { session, socket, ingress: Ingress::Udp(identity) })
    }
}

/// Opens these one after the other: session, id, and the way its packets go.
async fn open(
    plan: Plan,
    newcomers: Vec<Newcomer>,
    mut admin: Admin,
) -> Result<Vec<(u64, String, Way)>, Failed> {
    let mut all = Vec::with_capacity(newcomers.len());
    for Newcomer { session, socket, ingress } in newcomers {
        let opened = admin.open(&plan.offer(session, ingress)).await;
        let opened =
            opened.map_err(|error| Failed::Gateway { what: "opening a session", error })?;
        let id = opened.id.clone();
        let what = || format!("an address to send to in the answer for session {session}");
        let way = way(opened, socket);
        let way = way.ok_or_else(|| Failed::InVain { what: what(), within: Duration::ZERO })?;
        all.push((session, id, way));
    }
    Ok(all)
}

fn way(opened: Opened, socket: Option<(UdpSocket, Option<SocketAddr>)>) -> Option<Way> {
    if let Some((socket, near)) = socket {
        let answer = opened.udp?;
        let gateway = near.or(answer.addresses.first().copied())?;
        let ice = answer.ufrag.zip(answer.password);
        let ice = ice.map(|(ufrag, password)| Credentials { ufrag, password });
        return Some(Way::Udp(UdpWay { socket, gateway, rtcp: None, ice }));
    }
    let answer = opened.quic?;
    Some(Way::Quic(QuicWay {
        gateway: *answer.addresses.first()?,
        certificate_sha256: answer.certificate()?,
        flow_to_gateway: answer.flow_to_gateway.parse().ok()?,
        flow_from_gateway: answer.flow_from_gateway.parse().ok()?,
    }))
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> Failed {
    move |error| Failed::System { what, error }
}
