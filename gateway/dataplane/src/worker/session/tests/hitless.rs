//! Two hops that carry a session: losses and gaps when one hop ends.

use evenkeel_model::RepairKind;

use super::*;
use crate::worker::report::{Distribution, RepairCounts};

const VOICE: u8 = 0;
const PICTURE: u8 = 96;
const REPAIR: u8 = 97;

fn hop(node: u32) -> Hop {
    Hop { node: NodeId(node), incarnation: Incarnation(1) }
}

/// A session with voice, video and its retransmissions, and a gateway that writes its board.
struct Scene {
    bench: Bench,
    gateway: Gateway,
}

impl Scene {
    fn new() -> Scene {
        let declared = |address| ClientAddressing::Declared { listener: 0, address, rtcp: address };
        let mut bench = Bench::new(declared, Srtp::Plain);
        let payload = |number, codec: &str, clock_rate| PayloadType::new(number, codec, clock_rate);
        let stream = |kind, payload_types| MediaStream {
            kind,
            payload_types,
            feedback: Takes::default(),
            bitrate_kbps: None,
        };
        let voice = stream(StreamKind::Audio, vec![payload(VOICE, "PCMU", 8_000)]);
        let picture = vec![payload(PICTURE, "VP8", 90_000), payload(REPAIR, "rtx", 90_000)];
        let streams = vec![voice, stream(StreamKind::Video, picture)];
        bench.session.media = Arc::new(MediaDescription::new(streams, RtcpPort::Mux, Srtp::Plain));
        let gateway = gateway(&[1, 1, 1], bench.start);
        bench.board = gateway.board();
        Scene { bench, gateway }
    }

    /// Sets the route. The first of `left` may still deliver until the given time.
    fn route(&mut self, mode: RedundancyMode, admitted: &[u32], left: Option<(u32, u64)>) {
        let hops: Vec<_> = admitted.iter().map(|node| (hop(*node), HopGrant::Admitted)).collect();
        let (until, lead) = (|ms| self.bench.start + Duration::from_millis(ms), Duration::ZERO);
        let left = left.map(|(node, ms)| LeftHop { hop: hop(node), until: until(ms), lead });
        let route = Route { left: left.map(Box::new), ..Route::new(1, mode, hops) };
        self.bench.session.route = Arc::new(RouteCell::holding(route));
    }

    fn hitless() -> Scene {
        let mut scene = Scene::new();
        scene.route(RedundancyMode::Hitless, &[0, 1], None);
        scene
    }

    fn dies(&mut self, node: u32, ms: u64) {
        let at = self.bench.start + Duration::from_millis(ms);
        self.gateway.change_nodes(at, |nodes| nodes.handle_eject(NodeId(node), at)).unwrap();
    }

    /// Sends packet `number`, 20 ms apart, from a node. Returns whether it was sent to the client.
    fn passes(&mut self, node: u32, of: (u8, u32), number: u64) -> bool {
        self.passes_at(20 * number, node, of, number)
    }

    fn passes_at(
        &mut self,
        ms: u64,
        node: u32,
        (payload_type, ssrc): (u8, u32),
        number: u64,
    ) -> bool {
        let fields = rtp::Fields {
            payload_type,
            marker: false,
            sequence: number as u16,
            timestamp: 160 * number as u32,
            ssrc,
        };
        let mut packet = Vec::new();
        rtp::write(&fields, &number.to_be_bytes(), &mut packet);
        self.comes(ms, node, &packet)
    }

    fn comes(&mut self, ms: u64, node: u32, packet: &[u8]) -> bool {
        self.bench.at(ms, |session, cx| session.handle_node_packet(hop(node), packet, cx));
        self.bench.client.recv(&mut [0; 2_048]).is_ok()
    }

    /// Delivers these voice packets from both nodes.
    fn copies(&mut self, numbers: std::ops::Range<u64>) {
        for number in numbers {
            assert!(self.passes(0, (VOICE, 7), number));
            self.passes(1, (VOICE, 7), number);
        }
    }

    fn totals(&mut self, ms: u64) -> Totals {
        let now = self.bench.start + Duration::from_millis(ms);
        self.bench.session.summary(now).unwrap().totals
    }

    fn recoveries(&self, mode: RedundancyMode) -> Distribution {
        Distribution::of([self.bench.egress.stats.recoveries(mode)].into_iter())
    }

    /// Takes the pairs of hops reported as different.
    fn unalike(&mut self) -> Vec<[Hop; 2]> {
        let told = |report| match report {
            WorkerReport::CopiesDiffer { hops, .. } => Some(hops),
            _ => None,
        };
        std::iter::from_fn(|| self.bench.reports.try_recv().ok()).filter_map(told).collect()
    }
}

#[test]
fn twin_takes_over_and_common_losses_count() {
    let mut scene = Scene::hitless();
    scene.copies(0..10);
    scene.dies(0, 200);
    assert!(scene.passes(1, (VOICE, 7), 13), "10 to 12 are missing");
    assert!(scene.passes(1, (VOICE, 7), 11), "late");
    let recoveries = scene.recoveries(RedundancyMode::Hitless);
    assert_eq!((recoveries.count(), recoveries.longest()), (1, Some(Duration::from_millis(80))));
    let counted = |totals: Totals| (totals.switches, totals.lost_at_switches);
    assert_eq!(counted(scene.totals(700)), (1, 0), "they may come yet");
    assert_eq!(counted(scene.totals(760)), (1, 2));
    assert_eq!(scene.bench.session.state().current_hop, Some(hop(1)));
}

#[test]
fn packets_missing_at_the_end_are_counted() {
    let mut scene = Scene::hitless();
    scene.copies(0..10);
    scene.dies(0, 200);
    scene.passes(1, (VOICE, 7), 13);
    let now = scene.bench.start + Duration::from_millis(270);
    assert_eq!(scene.bench.session.totals(now + FILLED_WITHIN).lost_at_switches, 3);
}

#[test]
fn returning_copies_count_as_copied_bytes() {
    let mut scene = Scene::hitless();
    scene.copies(0..10);
    let packet = 12 + 8;
    assert_eq!(scene.totals(200).bytes_copied, 10 * packet);
    assert_eq!(scene.totals(200).bytes_down, 10 * packet);
}

#[test]
fn node_death_is_a_recovery_and_a_move_is_not() {
    for dies in [false, true] {
        let mut scene = Scene::new();
        scene.route(RedundancyMode::Hot, &[0], None);
        (0..10).for_each(|number| assert!(scene.passes(0, (VOICE, 7), number)));
        if dies {
            scene.dies(0, 200);
        }
        scene.route(RedundancyMode::Hot, &[1], (!dies).then_some((0, 700)));
        assert!(scene.passes(1, (VOICE, 9), 12));
        assert_eq!(scene.recoveries(RedundancyMode::Hot).count(), u64::from(dies));
        assert_eq!(scene.totals(2_000).switches, 1);
    }
}

#[test]
fn stream_silent_before_the_death_has_no_recovery() {
    let mut scene = Scene::new();
    scene.route(RedundancyMode::Hot, &[0], None);
    (0..10).for_each(|number| assert!(scene.passes(0, (VOICE, 7), number)));
    scene.dies(0, 60_000);
    scene.route(RedundancyMode::Hot, &[1], None);
    assert!(scene.passes(1, (VOICE, 9), 6_000));
    assert_eq!(scene.recoveries(RedundancyMode::Hot).count(), 0);
    assert_eq!(scene.totals(200_000).lost_at_switches, 0);
}

#[test]
fn late_recovery_counts_gap_and_losses() {
    let mut scene = Scene::new();
    scene.route(RedundancyMode::Cold, &[0], None);
    (0..10).for_each(|number| assert!(scene.passes(0, (VOICE, 7), number)));
    scene.dies(0, 250);
    scene.route(RedundancyMode::Cold, &[1], None);
    assert!(scene.passes(1, (VOICE, 9), 500));
    assert_eq!(
        scene.recoveries(RedundancyMode::Cold).longest(),
        Some(Duration::from_millis(9_820))
    );
    let now = scene.bench.start + Duration::from_secs(20);
    let mut missed = || scene.bench.session.summary(now).unwrap().flow.missed;
    assert_eq!((missed(), missed()), (490, 0), "reported once");
    assert_eq!(scene.totals(20_000).lost_at_switches, 490);
}

#[test]
fn death_of_a_node_that_was_left_is_no_recovery() {
    let mut scene = Scene::new();
    scene.route(RedundancyMode::Hot, &[0], None);
    (0..10).for_each(|number| assert!(scene.passes(0, (VOICE, 7), number)));
    scene.route(RedundancyMode::Hot, &[1], Some((0, 10_500)));
    scene.dies(0, 30_000);
    assert!(scene.passes(1, (VOICE, 9), 2_000));
    assert_eq!(scene.recoveries(RedundancyMode::Hot).count(), 0);
    assert_eq!(scene.totals(60_000).lost_at_switches, 0);
}

#[test]
fn rtcp_comes_from_the_leading_hop_and_goes_to_both() {
    let mut scene = Scene::hitless();
    scene.copies(0..10);
    let report = half_lost();
    assert!(scene.comes(200, 0, &report));
    let dropped = scene.bench.drops(DropReason::Duplicate);
    assert!(!scene.comes(200, 1, &report));
    assert_eq!(scene.bench.drops(DropReason::Duplicate), dropped + 1);
    // Both nodes receive the client's reports.
    let before = scene.totals(200).bytes_copied;
    let client = |bench: &mut Bench| {
        bench.at(200, |session, cx| session.handle_client_rtcp(&report, cx));
    };
    client(&mut scene.bench);
    assert_eq!(scene.totals(200).bytes_copied, before, "not open yet");
    scene.bench.session.attach(hop(1), port_leg(SocketAddr::from(([10, 0, 0, 1], 4_000))));
    client(&mut scene.bench);
    assert_eq!(scene.totals(200).bytes_copied, before + report.len() as u64);
}

#[test]
fn packets_shed_from_the_twin_are_not_reported() {
    let mut scene = Scene::hitless();
    scene.copies(0..10);
    let shed = MediaLimits { withheld: 1 << VOICE, ..MediaLimits::default() };
    scene.bench.at(200, |session, cx| session.set_limits(shed, cx));
    scene.totals(200);
    for number in 10..20 {
        assert!(!scene.passes(1, (VOICE, 7), number));
        assert!(!scene.passes(0, (VOICE, 7), number));
    }
    assert_eq!(scene.bench.session.state().current_hop, Some(hop(0)));
    assert_eq!(scene.bench.session.state().flow.received[StreamKind::Audio as usize], 10);
    let run = scene.bench.session.state().shed.map(|(run, _)| (run.first, run.packets));
    assert_eq!(run, Some((1, 10)), "each number once");
    assert_eq!(scene.totals(400).switches, 0);
}

#[test]
fn differing_video_is_reported_repeatedly() {
    let mut scene = Scene::hitless();
    scene.copies(0..10);
    for number in 10..210 {
        assert!(scene.passes(0, (PICTURE, 70), number));
        assert!(!scene.passes(1, (PICTURE, 71), number), "not proven a copy");
        scene.copies(number..number + 1);
    }
    let told = scene.unalike();
    assert_eq!(told, vec![[hop(0), hop(1)]; told.len()]);
    assert!((2..=4).contains(&told.len()), "once a second: {}", told.len());
    // The other hop continues the stream.
    scene.dies(0, 4_200);
    assert!(scene.passes(1, (PICTURE, 71), 211));
    assert_eq!(scene.totals(5_000).switches, 1);
    let ssrcs = scene.bench.session.state().continuity.clock_rate(71);
    assert_eq!(ssrcs, None, "the client knows it by its old name");
}

#[test]
fn differing_retransmissions_are_not_reported() {
    let mut scene = Scene::hitless();
    scene.copies(0..10);
    assert!(scene.passes(0, (PICTURE, 69), 0), "the one that is sent again");
    for number in 10..210 {
        assert!(scene.passes(0, (REPAIR, 70), number));
        assert!(!scene.passes(1, (REPAIR, 71), number));
        scene.copies(number..number + 1);
    }
    assert!(scene.unalike().is_empty());
}

#[test]
fn repairs_gap_and_frozen_picture_are_counted() {
    let mut scene = Scene::new();
    scene.route(RedundancyMode::Hot, &[0], None);
    for number in 0..10 {
        for stream in [(VOICE, 7), (PICTURE, 70), (REPAIR, 80)] {
            assert!(scene.passes(0, stream, number));
        }
    }
    scene.dies(0, 200);
    scene.route(RedundancyMode::Hot, &[1], None);
    assert!(scene.passes(1, (PICTURE, 71), 20));
    let fields =
        rtp::Fields { payload_type: REPAIR, marker: false, sequence: 1, timestamp: 1, ssrc: 5 };
    let mut packet = Vec::new();
    rtp::write(&fields, &[0; 8], &mut packet);
    scene.bench.at(400, |session, cx| session.handle_client_rtp(&packet, cx));
    let now = scene.bench.start + Duration::from_millis(500);
    let mut counts = || scene.bench.session.summary(now).unwrap().counts;
    let counted = counts();
    let retransmitted =
        RepairCounts { packets_up: 1, bytes_up: 20, packets_down: 10, bytes_down: 200 };
    assert_eq!(counted.repairs[RepairKind::Retransmission as usize], retransmitted);
    assert_eq!(counted.repairs[RepairKind::Fec as usize], RepairCounts::default());
    assert_eq!((counted.gap, counted.freezes), (Some(Duration::from_millis(220)), 1));
    assert_eq!(counts(), MediaCounts::default(), "reported once");
}
