use evenkeel_media::srtp::{SrtpKey, SrtpProfile};
use evenkeel_model::{Board, Incarnation};

use super::*;
use crate::worker::session::tests::egress;

const HOME: Home = Home { worker: 0, slot: 0, generation: 1 };

fn hop(node: u32) -> Hop {
    Hop { node: NodeId(node), incarnation: Incarnation(1) }
}

fn port(number: u16) -> NodePort {
    NodePort { address: SocketAddr::from(([10, 0, 0, 1], number)), rtcp_port: number + 1 }
}

fn srtp_leg(number: u16) -> NodeLeg {
    let key = |byte| SrtpKey::generate(SrtpProfile::AeadAes128Gcm, |bytes| bytes.fill(byte));
    let keys = SrtpKeys { client: key(1), gateway: key(2), tag: None };
    NodeLeg::Srtp(Box::new(SrtpPort { port: port(number), keys: Arc::new(keys) }))
}

#[test]
fn hop_has_one_leg() {
    let mut nodes = NodeSide::new(None);
    nodes.attach(hop(0), NodeLeg::Trunk(Tag(7)));
    nodes.attach(hop(1), srtp_leg(4_000));
    assert_eq!((nodes.hop_of(Tag(7)), nodes.srtp_legs().count()), (Some(hop(0)), 1));
    nodes.attach(hop(0), srtp_leg(5_000));
    assert_eq!((nodes.hop_of(Tag(7)), nodes.srtp_legs().count()), (None, 2));
    nodes.detach(hop(0));
    assert_eq!([0, 1].map(|node| nodes.has_leg(hop(node))), [false, true]);
}

#[test]
fn port_and_its_rtcp_port_are_one_hop() {
    let mut nodes = NodeSide::new(None);
    nodes.attach(hop(0), NodeLeg::Port(Box::new(port(4_000))));
    nodes.attach(hop(1), srtp_leg(5_000));
    let at = |number| {
        let source = SocketAddr::from(([10, 0, 0, 1], number));
        nodes.hop_at(source, |_, _| panic!("one hop is there"))
    };
    let found = [4_000, 4_001, 5_001, 4_002].map(at);
    assert_eq!(found, [Some(hop(0)), Some(hop(0)), Some(hop(1)), None]);
}

/// Sends a packet on this leg. Returns whether it used an index, and the drops for these reasons.
fn sent(leg: Option<NodeLeg>, reasons: [DropReason; 2]) -> (bool, [u64; 2]) {
    let (mut egress, _reports) = egress(Instant::now());
    let (mut nodes, board) = (NodeSide::new(None), Board::new(1));
    leg.into_iter().for_each(|leg| nodes.attach(hop(0), leg));
    let cx = &mut PacketContext { egress: &mut egress, board: &board, now: Instant::now() };
    let mut ends = SrtpEnds::default();
    nodes.srtp_legs().for_each(|(hop, keys)| ends.set_leg(hop, keys));
    let (side, kind, id) = (RtpSide::Rtp, StreamKind::Audio, SessionId(1));
    let packet = [0x80, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 5, 1];
    let used = nodes.send(
        hop(0),
        side,
        kind,
        DscpMarks::default(),
        &packet,
        HOME,
        id,
        Some(&mut ends),
        cx,
    );
    (used, reasons.map(|reason| cx.egress.stats.drops(reason)))
}

#[test]
fn packet_without_a_leg_waits() {
    assert_eq!(sent(None, [DropReason::NotOpened, DropReason::NoHop]), (false, [0, 0]));
}

#[test]
fn only_srtp_uses_an_index() {
    let reasons = [DropReason::NoHop, DropReason::SrtpIndex];
    let plain = NodeLeg::Port(Box::new(port(4_000)));
    // The session has no socket.
    assert_eq!(sent(Some(plain), reasons), (false, [1, 0]));
    assert_eq!(sent(Some(srtp_leg(4_000)), reasons), (true, [1, 0]));
}
