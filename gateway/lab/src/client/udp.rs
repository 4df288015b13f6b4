//! A UDP client: a socket and, with STUN, its side of ICE.

use std::convert::Infallible;
use std::io;
use std::net::{self, SocketAddr};

use evenkeel_media::demux::{self, DatagramKind};
use evenkeel_media::stun::{
    BindingBuilder, BindingOutcome, Response, StunKey, Transaction, Username,
};
use fastrand::Rng;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::oneshot;

use super::live::{Alarm, LiveClient, SharedReports};
use super::talker::Persona;
use crate::clock;
use crate::datagrams::{self, Datagram, DatagramInbox};

/// Buffer size, larger than any packet of a gateway. A larger packet counts as unreadable.
const DATAGRAM: usize = 9_216;
/// Datagrams per read of a socket: a client rarely has more than one, and a read of fewer shows that no other waits.
const BATCH: usize = 2;

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
    pub socket: net::UdpSocket,
    /// Destination of RTP and RTCP.
    pub gateway: SocketAddr,
    /// ICE credentials, if the client uses STUN. It sends no media before the first answer to a check.
    pub ice: Option<Credentials>,
}

/// Returns when `left` is closed.
pub(super) async fn talk(
    persona: Persona,
    way: UdpWay,
    left: oneshot::Receiver<()>,
    reports: &SharedReports,
) -> Result<(), String> {
    let UdpWay { socket, gateway, ice } = way;
    let prepared = || -> io::Result<UdpSocket> {
        socket.set_nonblocking(true)?;
        datagrams::stamp_arrivals(&socket)?;
        UdpSocket::from_std(socket)
    };
    let socket = prepared().map_err(|error| error.to_string())?;
    let ice = ice.map(|credentials| Ice::new(&credentials, persona.seed, clock::now_ns()));
    let client = ice.is_none().then(|| LiveClient::new(persona, reports));
    let mut call = UdpCall { persona, gateway, ice, client, reports };
    let ended = call.run(&socket, left).await;
    if let Some(client) = call.client {
        client.tell();
    }
    ended.map_err(|error| error.to_string())
}

struct UdpCall<'a> {
    persona: Persona,
    gateway: SocketAddr,
    ice: Option<Ice>,
    /// `None` before the client may send.
    client: Option<LiveClient>,
    reports: &'a SharedReports,
}

impl UdpCall<'_> {
    async fn run(&mut self, socket: &UdpSocket, mut left: oneshot::Receiver<()>) -> io::Result<()> {
        let (mut inbox, mut alarm) = (DatagramInbox::new(DATAGRAM, BATCH), Alarm::new());
        loop {
            let due = self.client.iter().map(|client| client.talker.poll_timeout());
            let due = due.chain(self.ice.as_ref().map(|ice| ice.next_ns)).min();
            let due = due.expect("a client without ICE may send from the start");
            tokio::select! {
                ready = socket.readable() => {
                    ready?;
                    // An ICMP error is for an earlier packet: the gateway has ended, and the ledger shows the loss.
                    let _others_wait = socket.try_io(Interest::READABLE, || match inbox.receive(socket) {
                        Ok(0..BATCH) => Err(io::ErrorKind::WouldBlock.into()),
                        came => came,
                    });
                    inbox.iter().for_each(|datagram| self.handle_datagram(&datagram));
                }
                _ = &mut left => return Ok(()),
                () = alarm.ring(due) => self.send_due(socket).await,
            }
        }
    }

    fn handle_datagram(&mut self, datagram: &Datagram<'_>) {
        if datagram.source != self.gateway {
            self.client.iter_mut().for_each(|client| client.foreign += 1);
        } else if demux::classify(datagram.bytes) == DatagramKind::Stun {
            self.handle_stun(datagram.bytes);
        } else if let Some(client) = &mut self.client {
            client.handle_packet(datagram.bytes, datagram.stamp_ns.unwrap_or_else(clock::now_ns));
        }
    }

    fn handle_stun(&mut self, datagram: &[u8]) {
        let Some(ice) = &mut self.ice else { return };
        ice.handle(datagram);
        if self.client.is_none() && ice.is_answered {
            self.client = Some(LiveClient::new(self.persona, self.reports));
        }
        if self.client.is_none() && ice.is_refused {
            self.reports.borrow().tell(self.persona.session, |state| {
                state.failed = Some("the gateway refuses its STUN checks".into());
            });
        }
    }

    /// If the socket fails, the packet is lost, and the ledger shows it as missing.
    async fn send_due(&mut self, socket: &UdpSocket) {
        let send = async |packet: &[u8]| {
            // A full socket loses the packet as well.
            let _lost_at_worst = socket.try_send_to(packet, self.gateway);
            Ok::<(), Infallible>(())
        };
        let mut check = Vec::new();
        if let Some(ice) = &mut self.ice
            && ice.poll_transmit(clock::now_ns(), &mut check)
        {
            let Ok(()) = send(&check).await;
        }
        if let Some(client) = &mut self.client {
            let Ok(()) = client.send_due(send).await;
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
    /// A check was answered.
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
        if self.asked != Some(response.transaction()) {
            return;
        }
        match response.outcome() {
            BindingOutcome::Mapped(_) if response.verify(&self.key).is_ok() => {
                self.is_answered = true;
                self.asked = None;
            }
            BindingOutcome::Mapped(_) => {}
            BindingOutcome::Refused(_) => self.is_refused = true,
        }
    }
}
