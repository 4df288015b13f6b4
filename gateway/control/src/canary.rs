//! Canary sessions: two sessions in a separate room at a node. Packets sent on one must come out on the other, which
//! finds a node that accepts sessions and forwards nothing.
//!
//! The sessions use a separate socket and the node's protocol. Cost for the node: two sessions, ten packets of 67 bytes
//! a second each way, and two openings every half second, which renew the leases and show that the node still accepts
//! sessions: 9 kbit/s to the node and 8 kbit/s from it, UDP and IPv4 headers included.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use evenkeel_drivers::socket::{self, Received};
use evenkeel_drivers::{Clock, LocalTask};
use evenkeel_media::trunk::message::{NodeSecret, OpenStatus, TrunkAnswer, TrunkQuestion};
use evenkeel_media::trunk::{self, Bundle, Tag, seal};
use evenkeel_media::{demux, rtp};
use evenkeel_model::NodeId;
use evenkeel_nodes::NodeEvidence;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use super::prober::{ProbeEvent, ProbeResult, ProbeSender, Subscription};

/// Packets per opening.
const OPENED_EVERY: u64 = 5;

const LEASE_S: u16 = 10;

/// One packet with its trunk framing.
const BUNDLE_MAX: usize = 128;

/// Identifies the sessions and their packets. Random, because other gateways may use the node too.
#[derive(Clone, Copy, Debug)]
struct CanaryIds {
    room: u64,
    /// Tags of the sending and the receiving session.
    tags: [Tag; 2],
    /// The first bytes of a canary packet.
    mark: [u8; 8],
}

#[derive(Default)]
struct CanaryOpenings(Cell<([u64; 2], [bool; 2])>);

impl CanaryOpenings {
    fn ask(&self, nonces: [u64; 2]) {
        self.0.set((nonces, [false; 2]));
    }

    /// The node opened a session. Returns whether both are open.
    fn answered(&self, nonce: u64) -> bool {
        let (nonces, mut open) = self.0.get();
        let Some(place) = nonces.iter().position(|asked| *asked == nonce) else {
            return false;
        };
        let news = !std::mem::replace(&mut open[place], true);
        self.0.set((nonces, open));
        news && open == [true; 2]
    }
}

/// A node that takes canary sessions.
pub struct CanaryNode {
    /// Address of the node.
    pub address: SocketAddr,
    /// Secret shared with the node.
    pub secret: NodeSecret,
    /// Set if the trunk is encrypted.
    pub seal: Option<seal::GatewaySeal>,
}

type CanarySeal = Rc<Option<RefCell<seal::GatewaySeal>>>;

pub(crate) struct CanaryProbe {
    _reading: LocalTask,
    _listens: Subscription,
    secret: NodeSecret,
    names: CanaryIds,
    openings: Rc<CanaryOpenings>,
    socket: Rc<OnceCell<UdpSocket>>,
    seal: CanarySeal,
    sent: Cell<u64>,
}

impl CanaryProbe {
    /// Starts reading on control's runtime, once a route to the node exists.
    pub(crate) fn start(
        node: NodeId,
        CanaryNode { address, secret, seal }: CanaryNode,
        told: mpsc::Sender<ProbeEvent>,
        draw: &mut dyn FnMut() -> u64,
    ) -> CanaryProbe {
        let tags = [Tag(draw()), Tag(draw())];
        let names = CanaryIds { room: draw(), tags, mark: draw().to_be_bytes() };
        let (socket, openings) = (Rc::<OnceCell<_>>::default(), Rc::<CanaryOpenings>::default());
        let seal = Rc::new(seal.map(RefCell::new));
        let reader = CanaryReader {
            node,
            secret: secret.clone(),
            names,
            openings: Rc::clone(&openings),
            seal: Rc::clone(&seal),
        };
        socket::fill(&socket, node, socket::connected(address));
        let subscription = Subscription::default();
        let tells = subscription.sender(told);
        let reading = Rc::clone(&socket);
        let task = LocalTask::spawn(async move {
            let connect = || socket::connected(address);
            let socket = socket::connect_in_time(&reading, node, connect).await;
            reader.listen(socket, &tells).await;
        });
        let sent = Cell::new(0);
        let _reading = task;
        CanaryProbe {
            _reading,
            _listens: subscription,
            secret,
            names,
            openings,
            socket,
            seal,
            sent,
        }
    }

    /// Sends a packet from one session to the other. A packet that cannot be sent counts as lost; the probes find the
    /// reason.
    pub(crate) fn send(&self, sequence: u64, draw: &mut dyn FnMut() -> u64, clock: Clock) {
        let Some(socket) = self.socket.get() else { return };
        let sent = self.sent.replace(self.sent.get() + 1);
        if sent.is_multiple_of(OPENED_EVERY) {
            let nonces = [draw(), draw()];
            self.openings.ask(nonces);
            for (tag, nonce) in self.names.tags.into_iter().zip(nonces) {
                let (room, session) = (self.names.room, tag.0);
                let question =
                    TrunkQuestion::Open { room, session, tag, lease_s: LEASE_S, numbered: false };
                let mut message = Vec::new();
                question.write(&self.secret, nonce, clock.unix_us, &mut message);
                self.send_datagram(socket, &message);
            }
        }
        self.send_datagram(socket, self.packet(sequence, sent).as_bytes());
    }

    fn send_datagram(&self, socket: &UdpSocket, datagram: &[u8]) {
        let _lost_at_worst = match &*self.seal {
            Some(seal) => socket::send(socket, seal.borrow_mut().seal(datagram)),
            None => socket::send(socket, datagram),
        };
    }

    fn packet(&self, sequence: u64, sent: u64) -> Bundle {
        let CanaryIds { tags: [tag, _], mark, .. } = self.names;
        let fields = rtp::Fields {
            payload_type: 0,
            marker: false,
            sequence: sent as u16,
            timestamp: (sent as u32).wrapping_mul(800),
            ssrc: self.names.room as u32,
        };
        let mut packet = Vec::new();
        rtp::write(&fields, &[mark, sequence.to_be_bytes()].concat(), &mut packet);
        let mut bundle = Bundle::new(BUNDLE_MAX);
        let fits = bundle.push(tag, &packet);
        debug_assert!(fits);
        bundle
    }
}

/// Reads packets from the node.
struct CanaryReader {
    node: NodeId,
    secret: NodeSecret,
    names: CanaryIds,
    openings: Rc<CanaryOpenings>,
    seal: CanarySeal,
}

impl CanaryReader {
    async fn listen(&self, socket: &UdpSocket, told: &ProbeSender) {
        let mut buffer = [0; 2_048];
        loop {
            // Errors are ignored: the prober reports a closed port.
            let received = socket::receive(socket, &mut buffer).await;
            let Ok(Received::Datagram(length, _)) = received else { continue };
            let Some(datagram) = self.open(&mut buffer[..length]) else { continue };
            for word in self.read(datagram) {
                if told.send(word).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Decrypts a datagram. Signed messages may be unencrypted: a node that expects another encryption says so.
    fn open<'a>(&self, datagram: &'a mut [u8]) -> Option<&'a [u8]> {
        match (&*self.seal, demux::classify(datagram)) {
            (Some(seal), demux::DatagramKind::Sealed) => {
                seal.borrow_mut().open(datagram, || Clock::read().unix_us).ok().map(|open| &*open)
            }
            (Some(_), demux::DatagramKind::Bundle) => None,
            _ => Some(datagram),
        }
    }

    fn read(&self, datagram: &[u8]) -> Vec<ProbeResult> {
        let (node, at) = (self.node, Instant::now());
        let evidence: Vec<NodeEvidence> = match demux::classify(datagram) {
            demux::DatagramKind::Bundle => trunk::entries(datagram)
                .map_while(Result::ok)
                .filter_map(|(tag, packet)| self.came_out(tag, packet))
                .map(NodeEvidence::CanaryPassed)
                .collect(),
            demux::DatagramKind::Signed if self.says_open(datagram) => {
                vec![NodeEvidence::CanaryOpen]
            }
            _ => Vec::new(),
        };
        let result = |evidence| ProbeResult::Evidence { node, evidence, at };
        evidence.into_iter().map(result).collect()
    }

    /// The sequence of a canary packet that came out of the other session.
    fn came_out(&self, tag: Tag, packet: &[u8]) -> Option<u64> {
        let header = rtp::RtpHeader::parse(packet).ok().filter(|_| tag == self.names.tags[1])?;
        let payload = packet.get(header.payload_offset..header.payload_end)?;
        let (mark, rest) = payload.split_first_chunk()?;
        let sequence = rest.first_chunk().filter(|_| *mark == self.names.mark)?;
        Some(u64::from_be_bytes(*sequence))
    }

    fn says_open(&self, datagram: &[u8]) -> bool {
        let verified = TrunkAnswer::read(datagram, &self.secret, Clock::read().unix_us);
        verified.is_ok_and(|verified| {
            let open = matches!(verified.message, TrunkAnswer::Open { status: OpenStatus::Ok, .. });
            open && self.openings.answered(verified.nonce)
        })
    }
}

#[cfg(test)]
mod tests;
