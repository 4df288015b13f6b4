//! All UDP clients on one thread: a socket each, one epoll, one timer wheel.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;
use std::time::Duration;

use evenkeel_media::demux::{self, DatagramKind};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags, EpollTimeout};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::mpsc::error::TryRecvError;

use super::ice::{Credentials, Ice, answer_check};
use super::live::{ClientReports, FleetCommand, LiveClient, SharedReports};
use super::talker::Persona;
use super::webrtc::{AnswerTransport, WebrtcIdentity, WebrtcTally, WebrtcTransport, WebrtcWay};
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

/// A UDP client's socket and its destination.
pub struct UdpWay {
    /// The address of the socket is in the offer.
    pub socket: UdpSocket,
    /// Destination of RTP and RTCP.
    pub gateway: SocketAddr,
    /// ICE credentials, if the client uses STUN. It sends no media before the first answer to a check.
    pub ice: Option<Credentials>,
    /// The security of a WebRTC client, which uses STUN. It sends no media before the end of its handshake.
    pub webrtc: Option<WebrtcWay>,
}

impl UdpWay {
    /// The way of a WebRTC client by the SDP of its answer; `None` if that lacks a part.
    pub fn of_answer(identity: WebrtcIdentity, answer: &str, socket: UdpSocket) -> Option<UdpWay> {
        let AnswerTransport { gateway, ice, fingerprint } = AnswerTransport::parse(answer)?;
        let webrtc = Some(WebrtcWay { identity, fingerprint });
        Some(UdpWay { socket, gateway, ice: Some(ice), webrtc })
    }
}

/// Runs the UDP clients until the channel is closed.
pub(super) fn run(
    epoll: Epoll,
    mut orders: UnboundedReceiver<FleetCommand<UdpWay>>,
    reports: ClientReports,
) {
    let mut crew = UdpClients {
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
                let before = timer(slot, client);
                client.read(&mut inbox);
                let timer = timer(slot, client);
                if timer != before {
                    crew.wheel.arm(timer, client.poll_timeout());
                }
            }
        }
        crew.wheel.turn(clock::now_ns(), &mut due);
        for key in due.drain(..) {
            if let Some(Some(client)) = crew.clients.get_mut(key / 2)
                && timer(key / 2, client) == key
            {
                client.send_due();
                crew.wheel.arm(key, client.poll_timeout());
            }
        }
        crew.reports.borrow_mut().enter();
    }
}

/// The key of a client's timer. A client that becomes live gets another, since the one before may be set for a later time.
fn timer(slot: usize, client: &UdpClient) -> usize {
    2 * slot + usize::from(client.live.is_some())
}

struct UdpClients {
    epoll: Epoll,
    /// Clients by slot. Slots are not reused.
    clients: Vec<Option<UdpClient>>,
    by_session: BTreeMap<u64, usize>,
    wheel: Wheel,
    reports: SharedReports,
}

impl UdpClients {
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
        let UdpWay { socket, gateway, ice, webrtc } = way;
        socket.set_nonblocking(true)?;
        datagrams::stamp_arrivals(&socket)?;
        self.epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, slot as u64))?;
        let now_ns = clock::now_ns();
        let ufrag = webrtc.as_ref().map(WebrtcWay::ufrag);
        let ice = ice.map(|credentials| Ice::new(&credentials, ufrag, persona.seed, now_ns));
        let webrtc = webrtc.map(WebrtcTransport::new);
        let reports = Rc::clone(&self.reports);
        let live = ice.is_none().then(|| LiveClient::new(persona, &reports));
        let tally = WebrtcTally::default();
        let client = UdpClient { persona, socket, gateway, ice, webrtc, tally, live, reports };
        self.wheel.arm(timer(slot, &client), now_ns);
        self.clients.push(Some(client));
        self.by_session.insert(persona.session, slot);
        Ok(())
    }
}

struct UdpClient {
    persona: Persona,
    socket: UdpSocket,
    gateway: SocketAddr,
    ice: Option<Ice>,
    webrtc: Option<WebrtcTransport>,
    /// The last events that were reported.
    tally: WebrtcTally,
    /// `None` before the client may send.
    live: Option<LiveClient>,
    reports: SharedReports,
}

impl UdpClient {
    fn poll_timeout(&self) -> u64 {
        let live = self.live.as_ref().map_or(u64::MAX, |live| live.talker.poll_timeout());
        let webrtc = self.webrtc.as_ref();
        let webrtc = webrtc.map_or(u64::MAX, |webrtc| webrtc.poll_timeout(clock::now_ns()));
        self.ice.as_ref().map_or(u64::MAX, |ice| ice.next_ns).min(webrtc).min(live)
    }

    fn read(&mut self, inbox: &mut DatagramInbox) {
        // An ICMP error for an earlier packet: the gateway has ended, and the ledger shows the loss.
        if inbox.receive(&self.socket).is_ok() {
            inbox.iter().for_each(|datagram| self.handle_datagram(&datagram));
            self.report_webrtc();
        }
    }

    fn handle_datagram(&mut self, datagram: &Datagram<'_>) {
        if datagram.source != self.gateway {
            self.live.iter_mut().for_each(|live| live.talker.tally.foreign += 1);
            return;
        }
        let at_ns = datagram.stamp_ns.unwrap_or_else(clock::now_ns);
        match (demux::classify(datagram.bytes), &mut self.webrtc, &mut self.live) {
            (DatagramKind::Stun, ..) => self.handle_stun(datagram.bytes),
            (DatagramKind::Dtls, Some(_), _) => self.handle_dtls(datagram.bytes),
            (_, Some(webrtc), Some(live)) => {
                if let Some(packet) = webrtc.unprotect(datagram.bytes) {
                    live.handle_packet(&packet, at_ns);
                }
            }
            (_, None, Some(live)) => live.handle_packet(datagram.bytes, at_ns),
            (_, _, None) => {}
        }
    }

    fn handle_stun(&mut self, datagram: &[u8]) {
        let Some(ice) = &mut self.ice else { return };
        if let Some(answer) = answer_check(datagram, self.gateway) {
            let _lost_at_worst = self.socket.send_to(&answer, self.gateway);
            return;
        }
        ice.handle(datagram, clock::now_ns());
        if self.live.is_some() {
            return;
        }
        if ice.is_refused {
            self.fail("the gateway refuses its STUN checks".to_owned());
        } else if ice.is_answered() {
            match &self.webrtc {
                Some(_) => self.continue_handshake(),
                None => self.live = Some(LiveClient::new(self.persona, &self.reports)),
            }
        }
    }

    /// Begins the handshake, or repeats a flight that had no answer.
    fn continue_handshake(&mut self) {
        let Some(webrtc) = &mut self.webrtc else { return };
        let send = &mut |datagram: &[u8]| _ = self.socket.send_to(datagram, self.gateway);
        if let Err(reason) = webrtc.handle_timeout(send) {
            self.fail(reason);
        }
    }

    fn handle_dtls(&mut self, datagram: &[u8]) {
        let Some(webrtc) = &mut self.webrtc else { return };
        let send = &mut |datagram: &[u8]| _ = self.socket.send_to(datagram, self.gateway);
        match webrtc.handle_dtls(datagram, send) {
            Ok(true) => self.live = Some(LiveClient::new(self.persona, &self.reports)),
            Ok(false) => {}
            Err(reason) => self.fail(reason),
        }
    }

    /// If the socket is full or fails, the packet is lost, and the ledger shows it as missing.
    fn send_due(&mut self) {
        let mut check = Vec::new();
        if let Some(ice) = &mut self.ice {
            if ice.poll_transmit(clock::now_ns(), &mut check) {
                let _lost_at_worst = self.socket.send_to(&check, self.gateway);
            }
            if ice.is_answered() {
                self.continue_handshake();
            }
        }
        let Self { socket, gateway, webrtc, live, .. } = self;
        let send = |packet: &[u8]| {
            let _lost_at_worst = match webrtc {
                Some(webrtc) => {
                    webrtc.protect(packet).map(|packet| socket.send_to(&packet, *gateway))
                }
                None => Some(socket.send_to(packet, *gateway)),
            };
            Ok::<(), Infallible>(())
        };
        if let Some(live) = live {
            let Ok(()) = live.send_due(send);
        }
        self.report_webrtc();
    }

    /// Reports the events of a WebRTC client's transport if there are new ones.
    fn report_webrtc(&mut self) {
        let (Some(webrtc), Some(ice)) = (&self.webrtc, &self.ice) else { return };
        let tally = WebrtcTally { ice_restarts: ice.restarts, ..webrtc.tally() };
        if tally != self.tally {
            self.tally = tally;
            self.reports.borrow().tell(self.persona.session, |state| state.webrtc = tally);
        }
    }

    /// Ends the client.
    fn fail(&mut self, reason: String) {
        (self.ice, self.webrtc) = (None, None);
        self.reports.borrow().tell(self.persona.session, |state| state.failed = Some(reason));
    }

    fn tell(&self) {
        if let Some(live) = &self.live {
            live.tell();
        }
    }
}
