//! All UDP clients on one thread: a socket each, one epoll, one timer wheel.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use evenkeel_media::demux::{self, DatagramKind};
use evenkeel_media::stun::{
    BindingBuilder, BindingOutcome, Response, StunKey, Transaction, Username,
};
use fastrand::Rng;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::mpsc::error::TryRecvError;

use super::roster::{ClientReports, FleetCommand, FleetThread};
use super::talker::{ClientTally, Persona, Talker, Transmit};
use crate::clock;
use crate::datagrams::{self, DatagramInbox};
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
    /// Destination of RTP, and of RTCP if muxed.
    pub gateway: SocketAddr,
    /// The RTCP socket and its destination, if RTCP is not muxed.
    pub rtcp: Option<(UdpSocket, SocketAddr)>,
    /// ICE credentials, if the client uses STUN. It sends no media before the first answer to a check.
    pub ice: Option<Credentials>,
}

/// Starts the thread of all UDP clients.
pub(super) fn start(desk: ClientReports) -> io::Result<FleetThread<UdpWay>> {
    let crew = Crew {
        epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
        clients: Vec::new(),
        by_session: BTreeMap::new(),
        wheel: Wheel::new(clock::now_ns()),
        desk,
    };
    FleetThread::start("clients-udp", move |orders| crew.run(orders))
}

struct Crew {
    epoll: Epoll,
    /// Clients by slot. Slots are not reused.
    clients: Vec<Option<UdpClient>>,
    by_session: BTreeMap<u64, usize>,
    wheel: Wheel,
    desk: ClientReports,
}

struct UdpClient {
    session: u64,
    way: UdpWay,
    ice: Option<Ice>,
    persona: Persona,
    /// `None` before the client may send.
    talker: Option<Talker>,
    foreign: u64,
}

impl Crew {
    fn run(mut self, mut orders: UnboundedReceiver<FleetCommand<UdpWay>>) {
        let mut events = [EpollEvent::empty(); EVENTS];
        let mut inbox = DatagramInbox::new(DATAGRAM, BATCH);
        let mut due = Vec::new();
        loop {
            loop {
                match orders.try_recv() {
                    Ok(command) => self.obey(command),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => {
                        return self.clients.iter().flatten().for_each(|it| it.tell(&self.desk));
                    }
                }
            }
            let nap = self.wheel.sleep_ms(clock::now_ns()).unwrap_or(NAP_MS).min(NAP_MS);
            let timeout =
                EpollTimeout::try_from(Duration::from_millis(nap)).unwrap_or(EpollTimeout::ZERO);
            // An interrupted wait returns no events.
            let ready = self.epoll.wait(&mut events, timeout).unwrap_or(0);
            for event in &events[..ready] {
                let slot = usize::try_from(event.data() >> 1).unwrap_or(usize::MAX);
                self.read(slot, event.data() & 1 == 1, &mut inbox);
            }
            self.wheel.turn(clock::now_ns(), &mut due);
            for slot in due.drain(..) {
                self.wake(slot);
            }
            self.desk.enter();
        }
    }

    fn obey(&mut self, command: FleetCommand<UdpWay>) {
        match command {
            FleetCommand::Join(persona, way) => {
                let session = persona.session;
                if let Err(error) = self.join(persona, way) {
                    self.desk.tell(session, |state| state.failed = Some(error.to_string()));
                }
            }
            FleetCommand::Leave(session) => {
                let gone =
                    self.by_session.remove(&session).and_then(|slot| self.clients[slot].take());
                if let Some(client) = gone {
                    client.tell(&self.desk);
                }
            }
        }
    }

    fn join(&mut self, persona: Persona, way: UdpWay) -> io::Result<()> {
        let slot = self.clients.len();
        let sockets = [Some(&way.socket), way.rtcp.as_ref().map(|(socket, _)| socket)];
        for (socket, token) in sockets.into_iter().flatten().zip(((slot as u64) << 1)..) {
            socket.set_nonblocking(true)?;
            datagrams::stamp_arrivals(socket)?;
            self.epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, token))?;
        }
        let now_ns = clock::now_ns();
        let ice = way.ice.as_ref().map(|credentials| Ice::new(credentials, persona.seed, now_ns));
        let talker = ice.is_none().then(|| Talker::new(persona, now_ns));
        if talker.is_some() {
            self.desk.ready(persona.session, now_ns);
        }
        let session = persona.session;
        self.clients.push(Some(UdpClient { session, way, ice, persona, talker, foreign: 0 }));
        self.by_session.insert(session, slot);
        self.wheel.arm(slot, now_ns);
        Ok(())
    }

    fn read(&mut self, slot: usize, rtcp: bool, inbox: &mut DatagramInbox) {
        let Some(Some(client)) = self.clients.get_mut(slot) else { return };
        let (socket, gateway) = client.end(rtcp);
        // An ICMP error for an earlier packet: the gateway has ended, and the ledger shows the loss.
        if inbox.receive(socket).is_err() {
            return;
        }
        for datagram in inbox.iter() {
            let at_ns = datagram.stamp_ns.unwrap_or_else(clock::now_ns);
            if datagram.source != gateway {
                client.foreign += 1;
            } else if demux::classify(datagram.bytes) == DatagramKind::Stun {
                client.handle_stun(datagram.bytes, &self.desk);
            } else if let Some(talker) = &mut client.talker {
                self.desk.arrived.extend(talker.handle_packet(datagram.bytes, at_ns));
            }
        }
    }

    fn wake(&mut self, slot: usize) {
        let Some(Some(client)) = self.clients.get_mut(slot) else { return };
        let mut packet = Vec::with_capacity(1_500);
        if let Some(ice) = &mut client.ice
            && ice.poll_transmit(clock::now_ns(), &mut packet)
        {
            send(&client.way.socket, client.way.gateway, &packet);
        }
        let mut reported = false;
        while let Some(talker) = &mut client.talker {
            packet.clear();
            match talker.poll_transmit(clock::now_ns(), &mut packet) {
                Some(Transmit::Rtp(sent)) => {
                    self.desk.sent.push(sent);
                    send(&client.way.socket, client.way.gateway, &packet);
                }
                Some(Transmit::Rtcp) => {
                    reported = true;
                    let (socket, gateway) = client.end(client.way.rtcp.is_some());
                    send(socket, gateway, &packet);
                }
                None => break,
            }
        }
        if reported {
            client.tell(&self.desk);
        }
        self.wheel.arm(slot, client.poll_timeout());
    }
}

impl UdpClient {
    fn end(&self, rtcp: bool) -> (&UdpSocket, SocketAddr) {
        match &self.way.rtcp {
            Some((socket, gateway)) if rtcp => (socket, *gateway),
            _ => (&self.way.socket, self.way.gateway),
        }
    }

    fn poll_timeout(&self) -> u64 {
        let talker = self.talker.as_ref().map_or(u64::MAX, Talker::poll_timeout);
        self.ice.as_ref().map_or(u64::MAX, Ice::poll_timeout).min(talker)
    }

    fn handle_stun(&mut self, datagram: &[u8], desk: &ClientReports) {
        let Some(ice) = &mut self.ice else { return };
        ice.handle(datagram);
        if ice.mapped.is_some() && self.talker.is_none() {
            let now_ns = clock::now_ns();
            self.talker = Some(Talker::new(self.persona, now_ns));
            desk.ready(self.session, now_ns);
        }
        if self.talker.is_none() && ice.refusals > 0 {
            desk.tell(self.session, |state| {
                state.failed = Some("the gateway refuses its STUN checks".into());
            });
        }
    }

    fn tell(&self, desk: &ClientReports) {
        let Some(talker) = &self.talker else { return };
        desk.counted(self.session, ClientTally { foreign: self.foreign, ..talker.tally() });
    }
}

/// If the socket is full or fails, the packet is lost, and the ledger shows it as missing.
fn send(socket: &UdpSocket, to: SocketAddr, packet: &[u8]) {
    let _lost_at_worst = socket.send_to(packet, to);
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
    /// The client's address as the gateway sees it, once a check was answered.
    mapped: Option<SocketAddr>,
    refusals: u64,
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
            mapped: None,
            refusals: 0,
        }
    }

    fn poll_timeout(&self) -> u64 {
        self.next_ns
    }

    /// Appends a check to `out` if one is due, and returns true in that case.
    fn poll_transmit(&mut self, now_ns: u64, out: &mut Vec<u8>) -> bool {
        if now_ns < self.next_ns {
            return false;
        }
        self.next_ns =
            now_ns + if self.mapped.is_some() { CONSENT_EVERY_NS } else { CHECK_EVERY_NS };
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
        if self.asked != Some(response.transaction()) {
            return;
        }
        match response.outcome() {
            BindingOutcome::Mapped(address) if response.verify(&self.key).is_ok() => {
                self.mapped = Some(address);
                self.asked = None;
            }
            BindingOutcome::Mapped(_) => {}
            BindingOutcome::Refused(_) => self.refusals += 1,
        }
    }
}
