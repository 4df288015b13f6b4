//! Hundreds of simulated clients. They send, receive and report, obey caps and key-frame requests, and record all
//! packets in the ledger.
//!
//! One thread runs all UDP clients, each with its own socket, by a timer wheel: a task for each takes so much processor time
//! that gaps are measured wrong. On another thread each QUIC client is a task with its own endpoint. The kernel stamps UDP
//! arrivals, the reading thread stamps QUIC arrivals.

mod ice;
mod live;
mod outgoing;
mod quic;
mod srtp;
mod talker;
mod udp;
mod webrtc;
mod webtransport;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::UdpSocket;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use evenkeel_contract::offers::OfferAnswer;
use evenkeel_process::lock;
use nix::sys::epoll::{Epoll, EpollCreateFlags};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::MissedTickBehavior;

pub use ice::{Credentials, answer_check};
pub use live::ClientState;
use live::{ClientReports, FleetCommand, Roster, SharedReports};
pub(crate) use outgoing::{VIDEO_TYPE, VOICE_TYPE};
pub use quic::{QuicProtocol, QuicWay, client_config, config_for};
pub use srtp::SrtpEndpoint;
pub use talker::{ClientTally, DeviceFault, Persona};
pub use udp::UdpWay;
pub use webrtc::{AnswerTransport, WebrtcIdentity, WebrtcTally, WebrtcWay};
pub use webtransport::{connect_frame, control_stream};

use crate::ledger::Books;

/// Interval at which recorded packets are moved to the ledger.
const ENTER_EVERY: Duration = Duration::from_millis(5);

/// The way of a client's packets to the gateway.
pub enum ClientPath {
    /// RTP and RTCP in datagrams, of a WebRTC client by SRTP.
    Udp(UdpWay),
    /// RTP over QUIC (RoQ), or WebTransport.
    Quic(QuicWay),
}

impl ClientPath {
    /// The path from the gateway's answer: UDP if there is a socket, else QUIC.
    pub(crate) fn of(
        opened: &OfferAnswer,
        socket: Option<UdpSocket>,
        webrtc: Option<WebrtcIdentity>,
    ) -> Option<ClientPath> {
        if let Some(socket) = socket {
            if let Some(identity) = webrtc {
                let sdp = &opened.webrtc.as_ref()?.answer;
                return UdpWay::of_answer(identity, sdp, socket).map(ClientPath::Udp);
            }
            let answer = opened.udp.as_ref()?;
            let ice = answer.ufrag.clone().zip(answer.password.clone());
            let ice = ice.map(|(ufrag, password)| Credentials { ufrag, password });
            return Some(ClientPath::Udp(UdpWay {
                socket,
                gateway: *answer.addresses.first()?,
                ice,
                webrtc: None,
            }));
        }
        if let Some(answer) = &opened.webtransport {
            return Some(ClientPath::Quic(QuicWay {
                protocol: QuicProtocol::Webtransport,
                gateway: answer.address()?,
                certificate_sha256: answer.certificate()?,
                flow_to_gateway: answer.flow_to_gateway.parse().ok()?,
                flow_from_gateway: answer.flow_from_gateway.parse().ok()?,
            }));
        }
        let answer = opened.quic.as_ref()?;
        Some(ClientPath::Quic(QuicWay {
            protocol: QuicProtocol::Roq,
            gateway: *answer.addresses.first()?,
            certificate_sha256: answer.certificate()?,
            flow_to_gateway: answer.flow_to_gateway.parse().ok()?,
            flow_from_gateway: answer.flow_from_gateway.parse().ok()?,
        }))
    }
}

/// Clients of this process. Dropping it ends all of them.
pub struct ClientFleet {
    udp: FleetThread<UdpWay>,
    quic: FleetThread<QuicWay>,
    roster: Roster,
}

impl ClientFleet {
    /// Starts the two threads without clients.
    pub fn start(books: &Books) -> io::Result<Self> {
        let roster = Roster::default();
        let reports = || ClientReports {
            books: books.clone(),
            roster: Arc::clone(&roster),
            sent: Vec::new(),
            arrived: Vec::new(),
        };
        let (udp, quic) = (reports(), reports());
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let udp = FleetThread::start("clients-udp", |orders| udp::run(epoll, orders, udp))?;
        let quic = FleetThread::start("clients-quic", move |orders| {
            LocalSet::new().block_on(&runtime, run(orders, Rc::new(RefCell::new(quic))));
        })?;
        Ok(Self { udp, quic, roster })
    }

    /// Adds a client, which sends media as soon as it can.
    pub fn join(&self, persona: Persona, way: ClientPath) {
        lock(&self.roster).insert(persona.session, ClientState::default());
        match way {
            ClientPath::Udp(way) => self.udp.command(FleetCommand::Join(persona, way)),
            ClientPath::Quic(way) => self.quic.command(FleetCommand::Join(persona, way)),
        }
    }

    /// Ends a client without a message to the gateway.
    pub fn leave(&self, session: u64) {
        self.udp.command(FleetCommand::Leave(session));
        self.quic.command(FleetCommand::Leave(session));
    }

    /// Sets the fault of a UDP client's device.
    pub(crate) fn set_device_fault(&self, session: u64, fault: DeviceFault) {
        self.udp.command(FleetCommand::DeviceFault(session, fault));
    }

    /// The states of all clients, including clients that have left.
    pub(crate) fn states(&self) -> BTreeMap<u64, ClientState> {
        lock(&self.roster).clone()
    }

    /// Returns `None` for a client that has not joined.
    pub fn state(&self, session: u64) -> Option<ClientState> {
        lock(&self.roster).get(&session).cloned()
    }
}

/// A thread of clients. Dropping it ends them.
struct FleetThread<W> {
    commands: Option<UnboundedSender<FleetCommand<W>>>,
    thread: Option<JoinHandle<()>>,
}

impl<W: Send + 'static> FleetThread<W> {
    /// `run` returns once its channel is closed.
    fn start(
        name: &str,
        run: impl FnOnce(UnboundedReceiver<FleetCommand<W>>) + Send + 'static,
    ) -> io::Result<Self> {
        let (commands, orders) = unbounded_channel();
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || run(orders))?;
        Ok(Self { commands: Some(commands), thread: Some(thread) })
    }

    fn command(&self, command: FleetCommand<W>) {
        if let Some(commands) = &self.commands {
            // The thread ends only with this handle.
            let _heard = commands.send(command);
        }
    }
}

impl<W> Drop for FleetThread<W> {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

async fn run(mut orders: UnboundedReceiver<FleetCommand<QuicWay>>, reports: SharedReports) {
    let mut clients = BTreeMap::new();
    let mut tasks = JoinSet::new();
    let mut entering = tokio::time::interval(ENTER_EVERY);
    entering.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(FleetCommand::Join(persona, way)) => {
                    let (stays, left) = oneshot::channel();
                    clients.insert(persona.session, stays);
                    let reports = Rc::clone(&reports);
                    tasks.spawn_local(async move {
                        if let Err(reason) = quic::talk(persona, way, left, &reports).await {
                            let failed = |state: &mut ClientState| state.failed = Some(reason);
                            reports.borrow().tell(persona.session, failed);
                        }
                    });
                }
                Some(FleetCommand::Leave(session)) => drop(clients.remove(&session)),
                // Only UDP clients get it.
                Some(FleetCommand::DeviceFault(..)) => {}
                None => break,
            },
            _tick = entering.tick() => reports.borrow_mut().enter(),
            Some(_ended) = tasks.join_next() => {}
        }
    }
    drop(clients);
    while tasks.join_next().await.is_some() {}
}

#[cfg(test)]
mod tests;
