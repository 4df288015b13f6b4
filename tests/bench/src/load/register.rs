//! The packets that may arrive at a node, and the sockets from which they may come.

use std::collections::HashMap;
use std::net::{SocketAddrV4, UdpSocket};

use evenkeel_media::demux::{self, DatagramKind};
use evenkeel_media::trunk::message::NodeSecret;
use evenkeel_media::trunk::{self, Tag};

use super::answers::Answers;
use super::arrivals::Arrival;
use super::books::Tally;
use super::stream::{self, Way};
use evenkeel_lab::clock;

/// The way in which a relay and nodes distinguish sessions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wire {
    /// The relay has a socket for each session.
    Port,
    /// The relay has one socket for each node and sends single packets; nodes identify sessions by packet content.
    Shared,
    /// The relay has one socket for each node, and bundles name sessions by tags.
    Bundled,
}

/// The last source of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LastSource {
    pub(super) node: usize,
    pub(super) peer: Peer,
}

/// The identification of a session at a node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Peer {
    Address(SocketAddrV4),
    Tag(Tag),
    /// Only the packet's content identifies the session.
    Nothing,
}

/// The sessions at all nodes.
pub(super) struct Register {
    wire: Wire,
    /// Sessions that a gateway opened; without it tags are session numbers.
    answers: Option<Answers>,
    /// Session numbers of the load by session numbers of the gateway.
    numbers: HashMap<u64, u32>,
    met: Vec<Option<LastSource>>,
    /// Sessions by node and source address: a relay may use one socket for sessions at several nodes.
    owners: HashMap<(usize, SocketAddrV4), u32>,
    /// The last media source of each node.
    upstream: Vec<Option<SocketAddrV4>>,
}

impl Register {
    pub(super) fn new(
        wire: Wire,
        nodes: usize,
        sessions: usize,
        secrets: Vec<NodeSecret>,
    ) -> Register {
        Register {
            wire,
            answers: (!secrets.is_empty()).then(|| Answers::new(secrets)),
            numbers: HashMap::new(),
            met: vec![None; sessions],
            owners: HashMap::new(),
            upstream: vec![None; nodes],
        }
    }

    pub(super) fn wire(&self) -> Wire {
        self.wire
    }

    /// Maps a gateway's session to one of the load.
    pub(super) fn know(&mut self, number: u64, session: u32) {
        self.numbers.insert(number, session);
    }

    /// The last source of a session.
    pub(super) fn met(&self, session: u32) -> Option<LastSource> {
        self.met.get(session as usize).copied().flatten()
    }

    /// The last media source of a node.
    pub(super) fn upstream(&self, node: usize) -> Option<SocketAddrV4> {
        self.upstream[node]
    }

    /// Handles a datagram at a node, and returns how many packets of sessions it contains.
    pub(super) fn take(
        &mut self,
        (node, socket): (usize, &UdpSocket),
        arrival: Arrival<'_>,
        window: u8,
        tally: &mut Tally,
    ) -> u64 {
        match demux::classify(arrival.bytes) {
            DatagramKind::Rtp if self.wire != Wire::Bundled => {
                self.upstream[node] = Some(arrival.source);
                let peer = match self.wire {
                    Wire::Port => Peer::Address(arrival.source),
                    Wire::Shared | Wire::Bundled => Peer::Nothing,
                };
                self.count(
                    LastSource { node, peer },
                    arrival.bytes,
                    arrival.stamp_ns,
                    window,
                    tally,
                )
            }
            DatagramKind::Bundle if self.wire == Wire::Bundled => {
                self.upstream[node] = Some(arrival.source);
                let mut packets = 0;
                for entry in trunk::entries(arrival.bytes) {
                    let Ok((tag, packet)) = entry else {
                        tally.foreign += 1;
                        break;
                    };
                    let met = LastSource { node, peer: Peer::Tag(tag) };
                    packets += self.count(met, packet, arrival.stamp_ns, window, tally);
                }
                packets
            }
            DatagramKind::Signed => {
                let answers = self.answers.as_mut();
                let now_us = clock::now_ns() / 1_000;
                if let Some(answer) = answers.and_then(|a| a.answer(node, arrival.bytes, now_us)) {
                    // If the answer is lost, the gateway asks again.
                    let _unheard = socket.send_to(answer, arrival.source);
                }
                0
            }
            DatagramKind::Echo => {
                let _unheard = socket.send_to(arrival.bytes, arrival.source);
                0
            }
            _ => {
                tally.foreign += 1;
                0
            }
        }
    }

    fn count(
        &mut self,
        met: LastSource,
        packet: &[u8],
        stamp_ns: u64,
        window: u8,
        tally: &mut Tally,
    ) -> u64 {
        let Some(mark) = stream::read(packet, Way::ToNode) else {
            tally.misdelivered += 1;
            return 0;
        };
        let Some(&before) = self.met.get(mark.session as usize) else {
            tally.misdelivered += 1;
            return 0;
        };
        if before != Some(met) && !self.meet(mark.session as u32, before, met, tally) {
            tally.misdelivered += 1;
            return 0;
        }
        if mark.stream == window {
            tally.came(Way::ToNode, &mark, stamp_ns);
        }
        1
    }

    /// Handles the first packet of a session from a new source. Returns whether the source is allowed.
    fn meet(
        &mut self,
        session: u32,
        before: Option<LastSource>,
        met: LastSource,
        tally: &mut Tally,
    ) -> bool {
        let is_own = match met.peer {
            Peer::Tag(tag) => self.owner(tag) == Some(session),
            Peer::Address(address) => {
                *self.owners.entry((met.node, address)).or_insert(session) == session
                    && before.is_none_or(|before| before.peer == met.peer)
            }
            Peer::Nothing => true,
        };
        if is_own {
            tally.moved += u64::from(before.is_some());
            self.met[session as usize] = Some(met);
        }
        is_own
    }

    fn owner(&self, tag: Tag) -> Option<u32> {
        match &self.answers {
            Some(answers) => self.numbers.get(answers.opened.get(&tag)?).copied(),
            None => u32::try_from(tag.0).ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_media::trunk::Bundle;
    use evenkeel_media::trunk::message::TrunkQuestion;

    use super::super::stream::Stream;
    use super::*;

    const WINDOW: u8 = 7;

    struct Node {
        register: Register,
        tally: Tally,
        socket: UdpSocket,
    }

    impl Node {
        fn new(wire: Wire, secret: Option<NodeSecret>) -> Node {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            let secrets = secret.into_iter().flat_map(|secret| [secret.clone(), secret]).collect();
            Node { register: Register::new(wire, 2, 4, secrets), tally: Tally::default(), socket }
        }

        /// Receives a datagram at this node from this port. Returns its number of packets, and the numbers of received
        /// and of misdelivered packets in the window so far.
        fn take(&mut self, node: usize, port: u16, bytes: &[u8]) -> (u64, u64, u64) {
            let source = SocketAddrV4::new([127, 0, 0, 1].into(), port);
            let arrival = Arrival { bytes, source, stamp_ns: 2_000 };
            let Node { register, tally, socket } = self;
            let packets = register.take((node, socket), arrival, WINDOW, tally);
            (packets, tally.came, tally.misdelivered)
        }
    }

    fn packet(session: u32, way: Way, window: u8) -> Vec<u8> {
        numbered(0, session, way, window)
    }

    /// The session's packet with this number.
    fn numbered(number: u32, session: u32, way: Way, window: u8) -> Vec<u8> {
        let (mut packet, mut stream) = (vec![0; 60], Stream::new(session, way));
        (0..=number).for_each(|_| stream.next(&mut packet, window, 1_000));
        packet
    }

    fn bundle(tag: u64, packet: &[u8]) -> Vec<u8> {
        let mut bundle = Bundle::new(1_400);
        assert!(bundle.push(Tag(tag), packet));
        bundle.as_bytes().to_vec()
    }

    #[test]
    fn socket_and_session_belong_together() {
        let mut node = Node::new(Wire::Port, None);
        let of = |session| packet(session, Way::ToNode, WINDOW);
        assert_eq!(node.take(0, 40, &of(1)), (1, 1, 0));
        assert_eq!(node.take(0, 41, &of(2)), (1, 2, 0));
        assert_eq!(node.take(0, 40, &of(2)), (0, 2, 1), "by the socket of another");
        assert_eq!(node.take(0, 42, &of(1)), (0, 2, 2), "by an unknown socket");
        assert_eq!(node.take(0, 40, &numbered(1, 1, Way::ToNode, WINDOW)), (1, 3, 2));
        assert_eq!(node.take(0, 43, &of(9)), (0, 3, 3), "an unknown session");
        assert_eq!(node.take(0, 44, &packet(3, Way::ToClient, WINDOW)), (0, 3, 4), "other stream");
        assert_eq!(node.tally.moved, 0);
        assert_eq!(node.take(1, 41, &numbered(1, 2, Way::ToNode, WINDOW)), (1, 4, 4));
        assert_eq!(node.tally.moved, 1, "by its own socket to another node");
        assert_eq!(node.take(1, 40, &of(0)), (1, 5, 4), "the socket has no other session there");
        assert_eq!(node.take(1, 40, &of(1)), (0, 5, 5));
    }

    #[test]
    fn packets_of_another_window_do_not_count() {
        let mut node = Node::new(Wire::Shared, None);
        assert_eq!(node.take(0, 40, &packet(1, Way::ToNode, WINDOW - 1)), (1, 0, 0));
        assert_eq!(node.take(0, 40, &packet(1, Way::ToNode, WINDOW)), (1, 1, 0));
    }

    #[test]
    fn a_tag_is_of_the_session_of_its_number() {
        let mut node = Node::new(Wire::Bundled, None);
        assert_eq!(node.take(0, 40, &bundle(2, &packet(2, Way::ToNode, WINDOW))), (1, 1, 0));
        assert_eq!(node.take(0, 40, &bundle(2, &packet(3, Way::ToNode, WINDOW))), (0, 1, 1));
    }

    #[test]
    fn tag_belongs_to_its_session_only() {
        let secret = NodeSecret::new(b"a shared secret of both", "n").unwrap();
        let mut node = Node::new(Wire::Bundled, Some(secret.clone()));
        for (tag, session) in [(500, 17), (501, 18)] {
            let mut question = Vec::new();
            let open = TrunkQuestion::Open {
                room: 1,
                session,
                tag: Tag(tag),
                lease_s: 30,
                numbered: false,
            };
            open.write(&secret, 1, clock::now_ns() / 1_000, &mut question);
            assert_eq!(node.take(0, 40, &question), (0, 0, 0));
        }
        node.register.know(17, 3);
        node.register.know(18, 2);
        let of = |session| packet(session, Way::ToNode, WINDOW);
        assert_eq!(node.take(0, 40, &bundle(500, &of(3))), (1, 1, 0));
        assert_eq!(node.take(0, 40, &bundle(501, &of(3))), (0, 1, 1));
        assert_eq!(node.take(0, 40, &bundle(999, &of(3))), (0, 1, 2), "an unknown tag");
        assert_eq!(node.take(0, 40, &bundle(501, &of(2))), (1, 2, 2));
    }
}
