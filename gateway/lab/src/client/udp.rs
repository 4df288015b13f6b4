//! All UDP clients on one thread: a socket each, one epoll, one timer wheel.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;
use std::time::Duration;

use evenkeel_media::demux::{self, DatagramKind};
use evenkeel_media::stun::{
    BindingBuilder, BindingOutcome, Response, StunKey, Transaction, Username,
};
use fastrand::Rng;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags, EpollTimeout};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::mpsc::error::TryRecvError;

use super::FleetCommand;
use super::live::{ClientReports, LiveClient, SharedReports};
use super::talker::Persona;
use crate::clock;
use crate::datagrams::{self, Datagram, DatagramInbox};
use crate::wheel::Wheel;

/// Maximum sleep of the thread, and so the maximum delay of a command.
const NAP_MS: u64 = 10;
/// Events per `epoll_wait`; the next call returns the rest.
const EVENTS: usize = 128;

/// Buffer size, larger than any packet of a gateway. A larger packet counts as unreadable.
const DATAGRAM: usize = 9_216;
/// Datagrams per read of a socket. A client rarely has more than one, and `recvmmsg` would look for another each time.
const BATCH: usize = 1;

/// Retry interval of the first check.
const CHECK_EVERY_NS: u64 = 50_000_000;
/// RFC 7675 renews consent about every 5 s; an impaired path loses some of the checks.
const CONSENT_EVERY_NS: u64 = 1_000_000_000;
/// The priority of a host candidate of component 1 (RFC 8445, section 5.1.2).
const PRIORITY: u32 = (126 << 24) | (65_535 << 8) | 255;

/// ICE credentials from the gateway's answer.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub(crate) ufrag: String,
    pub(crate) password: String,
}

/// A UDP client's socket and its destination.
pub struct UdpWay {
    /// The address of the socket is in the offer.
    pub socket: UdpSocket,
    /// Destination of RTP and RTCP.
    pub gateway: SocketAddr,
    /// ICE credentials, if the client uses STUN. It sends no media before the first answer to a check.
    pub ice: Option<Credentials>,
}

/// Runs the UDP clients until the channel is closed.
pub(super) fn run(
    epoll: Epoll,
    mut orders: UnboundedReceiver<FleetCommand<UdpWay>>,
    reports: ClientReports,
) {
    let mut crew = Crew {
        epoll,
        clients: Vec::new(),
        by_session: BTreeMap::new(),
        wheel: Wheel::new(clock::now_ns()),
        reports: Rc::new(RefCell::new(reports)),
    };
    let mut events = [EpollEvent::empty(); EVENTS];
    let mut inbox = DatagramInbox::new(DATAGRAM, BATCH);
    let mut due = Vec::new();
    loop {
        loop {
            match orders.try_recv() {
                Ok(command) => crew.obey(command),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    return crew.clients.iter().flatten().for_each(UdpClient::tell);
                }
            }
        }
        let nap = crew.wheel.sleep_ms(clock::now_ns()).unwrap_or(NAP_MS).min(NAP_MS);
        let timeout =
            EpollTimeout::try_from(Duration::from_millis(nap)).unwrap_or(EpollTimeout::ZERO);
        // An interrupted wait returns no events.
        let ready = crew.epoll.wait(&mut events, timeout).unwrap_or(0);
        for event in &events[..ready] {
            let slot = usize::try_from(event.data()).unwrap_or(usize::MAX);
            if let Some(Some(client)) = crew.clients.get_mut(slot) {
                client.read(&mut inbox);
            }
        }
        crew.wheel.turn(clock::now_ns(), &mut due);
        for slot in due.drain(..) {
            if let Some(Some(client)) = crew.clients.get_mut(slot) {
                client.send_due();
                crew.wheel.arm(slot, client.poll_timeout());
            }
        }
        crew.reports.borrow_mut().enter();
    }
}

struct Crew {
    epoll: Epoll,
    /// Clients by slot. Slots are not reused.
    clients: Vec<Option<UdpClient>>,
    by_session: BTreeMap<u64, usize>,
    wheel: Wheel,
    reports: SharedReports,
}

impl Crew {
    fn obey(&mut self, command: FleetCommand<UdpWay>) {
        match command {
            FleetCommand::Join(persona, way) => {
                if let Err(error) = self.join(persona, way) {
                    self.reports.borrow().tell(persona.session, |state| {
                        state.failed = Some(error.to_string());
                    });
                }
            }
            FleetCommand::DeviceFault(session, fault) => {
                let slot = self.by_session.get(&session);
                let client = slot.and_then(|slot| self.clients[*slot].as_mut());
                if let Some(live) = client.and_then(|client| client.live.as_mut()) {
                    live.talker.set_device_fault(fault);
                }
            }
            FleetCommand::Leave(session) => {
                let slot = self.by_session.remove(&session);
                if let Some(client) = slot.and_then(|slot| self.clients[slot].take()) {
                    client.tell();
                }
            }
        }
    }

    fn join(&mut self, persona: Persona, way: UdpWay) -> io::Result<()> {
        let slot = self.clients.len();
        let UdpWay { socket, gateway, ice } = way;
        socket.set_nonblocking(true)?;
        datagrams::stamp_arrivals(&socket)?;
        self.epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, slot as u64))?;
        let now_ns = clock::now_ns();
        let ice = ice.map(|credentials| Ice::new(&credentials, persona.seed, now_ns));
        let reports = Rc::clone(&self.reports);
        let live = ice.is_none().then(|| LiveClient::new(persona, &reports));
        self.clients.push(Some(UdpClient { persona, socket, gateway, ice, live, reports }));
        self.by_session.insert(persona.session, slot);
        self.wheel.arm(slot, now_ns);
        Ok(())
    }
}

struct UdpClient {
    persona: Persona,
    socket: UdpSocket,
    gateway: SocketAddr,
    ice: Option<Ice>,
    /// `None` before the client may send.
    live: Option<LiveClient>,
    reports: SharedReports,
}

impl UdpClient {
    fn poll_timeout(&self) -> u64 {
        let live = self.live.as_ref().map_or(u64::MAX, |live| live.talker.poll_timeout());
        self.ice.as_ref().map_or(u64::MAX, |ice| ice.next_ns).min(live)
    }

    fn read(&mut self, inbox: &mut DatagramInbox) {
        // An ICMP error for an earlier packet: the gateway has ended, and the ledger shows the loss.
        if inbox.receive(&self.socket).is_ok() {
            inbox.iter().for_each(|datagram| self.handle_datagram(&datagram));
        }
    }

    fn handle_datagram(&mut self, datagram: &Datagram<'_>) {
        if datagram.source != self.gateway {
            self.live.iter_mut().for_each(|live| live.talker.tally.foreign += 1);
        } else if demux::classify(datagram.bytes) == DatagramKind::Stun {
            self.handle_stun(datagram.bytes);
        } else if let Some(live) = &mut self.live {
            live.handle_packet(datagram.bytes, datagram.stamp_ns.unwrap_or_else(clock::now_ns));
        }
    }

    fn handle_stun(&mut self, datagram: &[u8]) {
        let Some(ice) = &mut self.ice else { return };
        ice.handle(datagram);
        if self.live.is_none() && ice.is_answered {
            self.live = Some(LiveClient::new(self.persona, &self.reports));
        }
        if self.live.is_none() && ice.is_refused {
            self.reports.borrow().tell(self.persona.session, |state| {
                state.failed = Some("the gateway refuses its STUN checks".into());
            });
        }
    }

    /// If the socket is full or fails, the packet is lost, and the ledger shows it as missing.
    fn send_due(&mut self) {
        let send = |packet: &[u8]| {
            let _lost_at_worst = self.socket.send_to(packet, self.gateway);
            Ok::<(), Infallible>(())
        };
        let mut check = Vec::new();
        if let Some(ice) = &mut self.ice
            && ice.poll_transmit(clock::now_ns(), &mut check)
        {
            let Ok(()) = send(&check);
        }
        if let Some(live) = &mut self.live {
            let Ok(()) = live.send_due(send);
        }
    }

    fn tell(&self) {
        if let Some(live) = &self.live {
            live.tell();
        }
    }
}

/// A client's side of ICE towards an ICE-lite gateway: checks until one is answered, then consent.
struct Ice {
    server_ufrag: String,
    client_ufrag: String,
    key: StunKey,
    rng: Rng,
    tie_breaker: u64,
    asked: Option<Transaction>,
    next_ns: u64,
    is_answered: bool,
    is_refused: bool,
}

impl Ice {
    fn new(credentials: &Credentials, seed: u64, now_ns: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        Self {
            server_ufrag: credentials.ufrag.clone(),
            client_ufrag: (0..8).map(|_| rng.alphanumeric()).collect(),
            key: StunKey::new(&credentials.password),
            tie_breaker: rng.u64(..),
            rng,
            asked: None,
            next_ns: now_ns,
            is_answered: false,
            is_refused: false,
        }
    }

    /// Appends a check to `out` if one is due, and returns true in that case.
    fn poll_transmit(&mut self, now_ns: u64, out: &mut Vec<u8>) -> bool {
        if now_ns < self.next_ns {
            return false;
        }
        self.next_ns = now_ns + if self.is_answered { CONSENT_EVERY_NS } else { CHECK_EVERY_NS };
        let mut id = [0; 12];
        self.rng.fill(&mut id);
        self.asked = Some(Transaction(id));
        BindingBuilder {
            transaction: Transaction(id),
            username: Some(Username {
                server_ufrag: &self.server_ufrag,
                client_ufrag: &self.client_ufrag,
            }),
            key: Some(&self.key),
            priority: Some(PRIORITY),
            controlling: Some(self.tie_breaker),
            use_candidate: true,
        }
        .write(out);
        true
    }

    /// Handles an answer. Answers with another password or to an older check are ignored.
    fn handle(&mut self, datagram: &[u8]) {
        let Ok(response) = Response::parse(datagram) else { return };
        if self.asked != Some(response.message.transaction()) {
            return;
        }
        match response.outcome {
            BindingOutcome::Mapped(_) if response.message.verify(&self.key).is_ok() => {
                self.is_answered = true;
                self.asked = None;
            }
            BindingOutcome::Mapped(_) => {}
            BindingOutcome::Refused(_) => self.is_refused = true,
        }
    }
}
