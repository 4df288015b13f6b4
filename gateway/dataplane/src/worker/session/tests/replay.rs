//! Packets that a dead node swallowed: the next node gets them, and receivers get none of them twice.

use evenkeel_media::srtp::{SrtpKey, SrtpKeys, SrtpProfile, SrtpReceiver};

use super::signs::{call, hop};
use super::*;
use crate::worker::repair_memory::RepairMemory;

const VOICE: u8 = 0;
const PICTURE: u8 = 96;

/// The first bytes of VP8 frames (RFC 7741, section 4.2; RFC 6386, section 9.1).
const KEY: &[u8] = &[0x10, 0];
const INTER: &[u8] = &[0x10, 1];

fn packet(payload_type: u8, number: u16, payload: &[u8]) -> Vec<u8> {
    let ssrc = u32::from(payload_type) + 1;
    let timestamp = 160 * u32::from(number);
    let fields = rtp::Fields { payload_type, marker: true, sequence: number, timestamp, ssrc };
    let mut packet = Vec::new();
    rtp::write(&fields, payload, &mut packet);
    packet
}

fn voice(number: u16) -> Vec<u8> {
    packet(VOICE, number, b"voice")
}

fn picture(number: u16, frame: &[u8]) -> Vec<u8> {
    packet(PICTURE, number, frame)
}

/// A client in a room with three nodes, of which the first carries it.
struct Scene {
    bench: Bench,
    nodes: [UdpSocket; 3],
}

impl Scene {
    fn new(replayed: ReplayedMedia) -> Scene {
        let mut bench = call();
        bench.board = Arc::new(Board::new(3));
        bench.session.replayed = replayed;
        let nodes = [0, 1, 2].map(|node| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_nonblocking(true).unwrap();
            bench.session.attach(hop(node), port_leg(socket.local_addr().unwrap()));
            socket
        });
        let port = UdpSocket::bind("127.0.0.1:0").unwrap();
        bench.session.nodes.set_ports(SessionPorts::new(port, None).unwrap());
        let mut scene = Scene { bench, nodes };
        scene.route(RedundancyMode::Hot, &[0, 1, 2]);
        scene
    }

    fn route(&mut self, mode: RedundancyMode, nodes: &[u32]) {
        let grant = |place| match mode == RedundancyMode::Hitless || place == 0 {
            true => HopGrant::Admitted,
            false => HopGrant::Reserved,
        };
        let hops = nodes.iter().enumerate().map(|(place, node)| (hop(*node), grant(place)));
        let hops: Vec<_> = hops.collect();
        self.bench.session.route = Arc::new(RouteCell::holding(Route::new(1, mode, hops)));
    }

    fn instant(&self, ms: u64) -> Instant {
        self.bench.start + Duration::from_millis(ms)
    }

    fn dies(&mut self, node: u32, ms: u64) {
        self.bench.board.mark_down(NodeId(node), self.instant(ms));
    }

    fn says(&mut self, ms: u64, packet: &[u8]) {
        self.bench.at(ms, |session, cx| {
            session.handle_client_rtp(packet, cx);
            flush_ports(session, cx);
        });
    }

    /// Sends these packets of voice, 20 ms apart.
    fn talks(&mut self, numbers: std::ops::Range<u16>) {
        numbers.for_each(|number| self.says(20 * u64::from(number), &voice(number)));
    }

    /// The packets that a node received since the last call.
    fn received(&self, node: usize) -> Vec<Vec<u8>> {
        let mut datagram = [0; 2_048];
        let mut all = Vec::new();
        while let Ok(length) = self.nodes[node].recv(&mut datagram) {
            all.push(datagram[..length].to_vec());
        }
        all
    }

    /// The sequence numbers of these packets.
    fn heard(&self, node: usize) -> Vec<u16> {
        let sequence = |packet: &Vec<u8>| rtp::ssrc_and_sequence(packet).unwrap().1;
        self.received(node).iter().map(sequence).collect()
    }

    fn replayed(&mut self) -> u32 {
        let now = self.instant(10_000);
        self.bench.session.summary(now).unwrap().counts.replayed
    }
}

#[test]
fn next_node_gets_swallowed_packets_in_order() {
    let mut scene = Scene::new(ReplayedMedia::Audio);
    scene.talks(0..10);
    assert_eq!(scene.heard(0), (0..10).collect::<Vec<_>>());
    scene.dies(0, 190);
    scene.says(200, &voice(10));
    // The packets since 130 ms.
    assert_eq!(scene.received(1), [7, 8, 9, 10].map(voice));
    scene.says(220, &voice(11));
    assert_eq!(scene.heard(1), [11], "once");
    assert_eq!(scene.heard(0), [0; 0]);
    assert_eq!(scene.bench.session.state().flow.sent[StreamKind::Audio as usize], 15);
    assert_eq!((scene.replayed(), scene.replayed()), (3, 0));
}

#[test]
fn window_ends_with_the_last_packet_to_the_dead_node() {
    let mut scene = Scene::new(ReplayedMedia::Audio);
    (0..10).for_each(|number| scene.says(25 * u64::from(number), &voice(number)));
    // The evidence is older than the last packets, and the next one comes late.
    scene.dies(0, 180);
    scene.heard(0);
    scene.says(290, &voice(10));
    assert_eq!(scene.heard(1), [7, 8, 9, 10]);
}

#[test]
fn packets_long_before_the_death_stay() {
    let mut scene = Scene::new(ReplayedMedia::Audio);
    scene.talks(0..10);
    scene.dies(0, 400);
    scene.says(410, &voice(10));
    assert_eq!(scene.heard(1), [10]);
    assert_eq!(scene.replayed(), 0);
}

#[test]
fn packets_before_a_pause_stay() {
    for (next_ms, again) in [(680, 3), (681, 0)] {
        let mut scene = Scene::new(ReplayedMedia::Audio);
        scene.talks(0..10);
        scene.dies(0, 190);
        scene.says(next_ms, &voice(10));
        assert_eq!(scene.replayed(), again, "{next_ms} ms");
    }
}

#[test]
fn packet_without_a_hop_ends_the_replay() {
    let mut scene = Scene::new(ReplayedMedia::Audio);
    scene.talks(0..10);
    scene.dies(0, 190);
    scene.route(RedundancyMode::Cold, &[]);
    scene.says(200, &voice(10));
    scene.route(RedundancyMode::Cold, &[1]);
    scene.says(220, &voice(11));
    assert_eq!(scene.heard(1), [11], "the gap before it is not the new node's");
}

#[test]
fn planned_move_sends_no_packet_again() {
    let mut scene = Scene::new(ReplayedMedia::All);
    scene.talks(0..10);
    scene.route(RedundancyMode::Hot, &[1, 2]);
    scene.talks(10..12);
    assert_eq!(scene.heard(1), [10, 11]);
    // Packets before the move were those of another node, which delivers them.
    scene.dies(1, 230);
    scene.says(240, &voice(12));
    assert_eq!(scene.heard(2), [10, 11, 12]);
}

#[test]
fn second_death_sends_packets_of_the_first_again() {
    let mut scene = Scene::new(ReplayedMedia::Audio);
    scene.talks(0..10);
    scene.dies(0, 190);
    scene.says(200, &voice(10));
    scene.dies(1, 205);
    scene.says(220, &voice(11));
    assert_eq!(scene.heard(1), [7, 8, 9, 10]);
    assert_eq!(scene.heard(2), [8, 9, 10, 11], "those since 145 ms");
}

#[test]
fn hitless_mode_sends_no_packet_again() {
    let mut scene = Scene::new(ReplayedMedia::All);
    scene.route(RedundancyMode::Hitless, &[0, 1]);
    scene.talks(0..10);
    scene.dies(0, 190);
    scene.talks(10..12);
    assert_eq!(scene.heard(1), (0..12).collect::<Vec<_>>());
    assert_eq!(scene.replayed(), 0);
}

#[test]
fn scenario_chooses_what_is_sent_again() {
    for (replayed, again) in [
        (ReplayedMedia::Off, vec![]),
        (ReplayedMedia::Audio, vec![voice(9)]),
        (ReplayedMedia::All, vec![voice(9), picture(9, INTER)]),
    ] {
        let mut scene = Scene::new(replayed);
        scene.says(180, &voice(9));
        scene.says(185, &picture(9, INTER));
        scene.dies(0, 190);
        scene.says(200, &voice(10));
        let expected: Vec<_> = again.into_iter().chain([voice(10)]).collect();
        assert_eq!(scene.received(1), expected, "{replayed:?}");
    }
}

#[test]
fn numbers_wrap_and_a_burst_stays_recognisable() {
    let mut scene = Scene::new(ReplayedMedia::All);
    let numbers: Vec<u16> = (0..100_u16).map(|number| number.wrapping_sub(80)).collect();
    for &number in &numbers {
        scene.says(180, &picture(number, INTER));
    }
    // A retransmission comes last.
    scene.says(180, &picture(numbers[10], INTER));
    scene.heard(0);
    scene.dies(0, 190);
    scene.says(200, &picture(20, INTER));
    // Receivers remember 64 numbers, of which some are left for packets out of order.
    let expected: Vec<u16> = (52..101_u16).map(|number| number.wrapping_sub(80)).collect();
    assert_eq!(scene.heard(1), expected);
}

#[test]
fn without_memory_packets_pass_and_none_is_kept() {
    let mut scene = Scene::new(ReplayedMedia::All);
    scene.bench.egress.repair_memory = RepairMemory::new(0);
    scene.talks(0..10);
    scene.dies(0, 190);
    scene.says(200, &voice(10));
    assert_eq!(scene.heard(0), (0..10).collect::<Vec<_>>());
    assert_eq!(scene.heard(1), [10]);
    let counts = scene.bench.session.take_counts();
    assert_eq!((counts.replayed, counts.caches_refused), (0, 1), "refused once");
}

#[test]
fn memory_of_an_ended_session_is_free() {
    let memory = RepairMemory::new(6 << 10);
    for slot in 0..3 {
        let mut scene = Scene::new(ReplayedMedia::Audio);
        scene.bench.egress.repair_memory = memory.clone();
        scene.talks(0..10);
        scene.dies(0, 190);
        scene.says(200, &voice(10));
        assert_eq!(scene.replayed(), 3, "session {slot} has the memory of the one before");
    }
}

#[test]
fn leg_with_srtp_protects_packets_with_its_own_keys() {
    let mut scene = Scene::new(ReplayedMedia::Audio);
    let key = |byte| SrtpKey::generate(SrtpProfile::AeadAes128Gcm, |bytes| bytes.fill(byte));
    let keys = SrtpKeys { client: key(1), gateway: key(2), tag: None };
    let mut receiver = SrtpReceiver::new(&keys.gateway);
    let address = scene.nodes[1].local_addr().unwrap();
    let port = NodePort { address, rtcp_port: address.port() };
    let leg = NodeLeg::Srtp(Box::new(SrtpPort { port, keys: Arc::new(keys) }));
    scene.bench.session.attach(hop(1), leg);
    scene.talks(0..10);
    scene.dies(0, 190);
    scene.says(200, &voice(10));
    let opened: Vec<_> = scene
        .received(1)
        .iter_mut()
        .map(|datagram| receiver.unprotect_rtp(datagram).unwrap().to_vec())
        .collect();
    assert_eq!(opened, [7, 8, 9, 10].map(voice));
}

#[test]
fn client_gets_every_packet_once() {
    let mut scene = Scene::new(ReplayedMedia::All);
    let delivers = |scene: &mut Scene, ms, node, number| {
        let packet = voice(number);
        scene.bench.at(ms, |session, cx| session.handle_node_packet(hop(node), &packet, cx));
    };
    (0..8_u16).for_each(|number| delivers(&mut scene, 20 * u64::from(number) + 1, 0, number));
    scene.dies(0, 170);
    // The next node gets 6 to 9 again, of which the first two have been delivered.
    (6..11).for_each(|number| delivers(&mut scene, 201, 1, number));
    let mut datagram = [0; 2_048];
    let mut got = Vec::new();
    while let Ok(length) = scene.bench.client.recv(&mut datagram) {
        got.push(datagram[..length].to_vec());
    }
    assert_eq!(got, (0..11).map(voice).collect::<Vec<_>>());
    assert_eq!(scene.bench.drops(DropReason::Stale), 2);
    let now = scene.instant(2_000);
    let summary = scene.bench.session.summary(now).unwrap();
    assert_eq!((summary.totals.switches, summary.totals.lost_at_switches), (1, 0));
    assert_eq!(summary.flow.missed, 0);
    assert_eq!(summary.counts.gap, Some(Duration::from_millis(60)));
}

#[test]
fn hop_is_asked_for_a_key_frame_only_if_packets_are_missing() {
    for (replayed, first, asks) in [
        (ReplayedMedia::All, 7, false),
        (ReplayedMedia::All, 8, false),
        (ReplayedMedia::All, 9, true),
        (ReplayedMedia::Audio, 8, true),
    ] {
        let mut scene = Scene::new(replayed);
        let delivers = |scene: &mut Scene, ms, node, number| {
            scene.bench.at(ms, |session, cx| {
                session.handle_node_packet(hop(node), &picture(number, INTER), cx);
                flush_ports(session, cx);
            });
        };
        (0..8_u16).for_each(|number| delivers(&mut scene, 20 * u64::from(number) + 1, 0, number));
        scene.dies(0, 170);
        (first..12).for_each(|number| delivers(&mut scene, 201, 1, number));
        assert_eq!(scene.received(1).len(), usize::from(asks), "{replayed:?} {first}");
    }
}

#[test]
fn hop_is_asked_for_a_key_frame_of_restored_video() {
    let mut scene = Scene::new(ReplayedMedia::All);
    let delivers = |scene: &mut Scene, ms, node, number| {
        scene.bench.at(ms, |session, cx| {
            session.handle_node_packet(hop(node), &picture(number, INTER), cx);
            flush_ports(session, cx);
        });
    };
    (0..4_u16).for_each(|number| delivers(&mut scene, 20 * u64::from(number), 0, number));
    scene.bench.session.state().feedback.want_key_frame();
    // A death before the next packet leaves the reason.
    scene.dies(0, 70);
    (4..6_u16).for_each(|number| delivers(&mut scene, 20 * u64::from(number), 1, number));
    assert_eq!(scene.received(1).len(), 1);
    scene.dies(1, 110);
    (6..8_u16).for_each(|number| delivers(&mut scene, 20 * u64::from(number), 2, number));
    assert!(scene.received(2).is_empty(), "it was asked for the restored video");
}

#[test]
fn memory_of_a_silent_sender_is_released() {
    let mut scene = Scene::new(ReplayedMedia::Audio);
    let memory = RepairMemory::new(1 << 20);
    scene.bench.egress.repair_memory = memory.clone();
    scene.talks(0..5);
    for (ms, is_idle) in [(1_000, false), (60_000, true)] {
        assert!(memory.reserved() > 0);
        let now = scene.instant(ms);
        scene.bench.session.summary(now);
        assert_eq!(scene.bench.session.went_idle(now), is_idle, "{ms}");
    }
    assert_eq!(memory.reserved(), 0);
}

#[test]
fn publisher_with_a_young_key_frame_is_not_asked() {
    for (replayed, key_frame_ms, dies, asks) in [
        (ReplayedMedia::All, 2_000, true, false),
        (ReplayedMedia::All, 1_100, true, false),
        (ReplayedMedia::All, 1_099, true, true),
        (ReplayedMedia::All, 2_000, false, true),
        (ReplayedMedia::Audio, 2_000, true, true),
    ] {
        // Control asks soon after the death, before or after the client's next packet.
        for next in [false, true] {
            let mut scene = Scene::new(replayed);
            scene.says(key_frame_ms, &picture(1, KEY));
            scene.says(2_050, &picture(2, INTER));
            if dies {
                scene.dies(0, 2_080);
            }
            if next {
                scene.says(2_090, &picture(3, INTER));
            }
            scene.bench.at(2_100, WorkerSession::request_client_key_frame);
            let asked = scene.bench.client.recv(&mut [0; 256]).is_ok();
            assert_eq!(asked, asks, "{replayed:?} {key_frame_ms} {dies} {next}");
        }
    }
}
