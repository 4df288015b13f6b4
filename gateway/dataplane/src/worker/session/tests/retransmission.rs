//! Retransmission to and from a client that declared `nack`. The round trip is unknown: 50 ms; the client's latency is 60 ms.

use evenkeel_model::Metric;

use super::*;
use crate::ring::{PacketPriority, RingItem, RingMeta, SendTerms};
use crate::worker::repair_memory::RepairMemory;

/// A session at a hop, with video. Its client declared `nack`.
fn call(srtp: Srtp) -> (Bench, UdpSocket, Hop) {
    let (mut bench, node, hop) = at_node(srtp);
    let mut media = (*bench.session.media).clone();
    media.streams[0].feedback.nack = true;
    bench.session.media = Arc::new(media);
    (bench, node, hop)
}

/// The datagrams that came to a socket.
pub(super) fn heard(socket: &UdpSocket) -> Vec<Vec<u8>> {
    let mut buffer = [0; 2_048];
    let next = || socket.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec());
    std::iter::from_fn(next).collect()
}

fn nack(media: u32, numbers: &[u16]) -> Vec<u8> {
    let mut packet = Vec::new();
    rtcp::write_nack(5, media, numbers, &mut packet);
    packet
}

/// The numbers that compound packets miss of this stream.
fn asked(packets: &[Vec<u8>], ssrc: u32) -> Vec<u16> {
    let parts = packets.iter().flat_map(|packet| rtcp::packets(packet).map_while(Result::ok));
    let nacks = parts.filter_map(|part| match part {
        rtcp::RtcpPacket::Nack(nack) if nack.media == ssrc => Some(nack),
        _ => None,
    });
    nacks.flat_map(|nack| nack.missing()).collect()
}

impl Bench {
    /// The hop sends these packets of a stream, one each millisecond. Returns the packets that the client receives.
    fn sends(
        &mut self,
        hop: Hop,
        ssrc: u32,
        numbers: std::ops::RangeInclusive<u16>,
    ) -> Vec<Vec<u8>> {
        for number in numbers {
            self.at(number.into(), |session, cx| {
                session.handle_node_packet(hop, &video(number, ssrc), cx);
            });
        }
        heard(&self.client)
    }

    /// The client sends RTCP. Returns the packets that it receives.
    fn reports(&mut self, ms: u64, packet: &[u8]) -> Vec<Vec<u8>> {
        self.at(ms, |session, cx| {
            session.handle_client_rtcp(packet, cx);
            flush_ports(session, cx);
        });
        heard(&self.client)
    }

    /// The client sends a packet of video. Returns the numbers for which it is asked.
    fn speaks(&mut self, ms: u64, number: u16) -> Vec<u16> {
        self.at(ms, |session, cx| {
            session.handle_client_rtp(&video(number, 3), cx);
            flush_ports(session, cx);
        });
        asked(&heard(&self.client), 3)
    }
}

#[test]
fn nack_is_answered_from_the_cache() {
    let (mut bench, node, hop) = call(Srtp::Plain);
    assert_eq!(bench.sends(hop, 9, 1..=40).len(), 40);
    let again = bench.reports(45, &nack(9, &[38, 39, 99]));
    assert_eq!(again, [video(38, 9), video(39, 9)]);
    assert_eq!(heard(&node), [nack(9, &[99])], "the node gets the rest");
    assert!(bench.reports(82, &nack(9, &[38])).is_empty(), "within the round trip");
    assert_eq!(bench.reports(83, &nack(9, &[38])), [video(38, 9)], "or it crossed");
    assert!(heard(&node).is_empty(), "nothing is left");
    let summary = bench.session.summary(bench.start + Duration::from_millis(100)).unwrap();
    assert_eq!(summary.counts.answered, 3);
    let repairs = summary.counts.repairs[RepairKind::Retransmission as usize];
    assert_eq!((repairs.packets_down, repairs.bytes_down), (3, 51));
    assert_eq!(summary.totals.packets_down, 43);
}

#[test]
fn reports_beside_an_answered_nack_pass() {
    let (mut bench, node, hop) = call(Srtp::Plain);
    bench.sends(hop, 9, 1..=40);
    let compound = [half_lost(), nack(9, &[38])].concat();
    assert_eq!(bench.reports(45, &compound), [video(38, 9)]);
    assert_eq!(heard(&node), [half_lost()]);
}

#[test]
fn old_packet_is_left_to_the_node() {
    let (mut bench, node, hop) = call(Srtp::Plain);
    bench.sends(hop, 9, 1..=40);
    assert_eq!(bench.reports(150, &nack(9, &[39, 40])), [video(40, 9)]);
    assert_eq!(heard(&node), [nack(9, &[39])]);
}

#[test]
fn client_without_nack_is_not_repaired() {
    let (mut bench, node, hop) = at_node(Srtp::Plain);
    bench.sends(hop, 9, 1..=40);
    assert!(bench.reports(45, &nack(9, &[38])).is_empty());
    assert_eq!(heard(&node), [nack(9, &[38])]);
    assert_eq!(bench.speaks(50, 1), [0; 0]);
    assert_eq!(bench.speaks(100, 3), [0; 0]);
    assert!(bench.session.running().repair.is_none());
    let (mut opaque, _, _) = call(Srtp::Opaque);
    assert!(opaque.session.running().repair.is_none(), "its NACKs cannot be read");
}

#[test]
fn renegotiated_client_is_repaired() {
    let (mut bench, _, hop) = at_node(Srtp::Plain);
    bench.sends(hop, 9, 1..=2);
    let mut media = (*bench.session.media).clone();
    media.streams[0].feedback.nack = true;
    ClientRepair::follow(&mut bench.session.running().repair, &media);
    bench.sends(hop, 9, 3..=40);
    assert_eq!(bench.reports(45, &nack(9, &[38])), [video(38, 9)]);
    // Its packets remain.
    ClientRepair::follow(&mut bench.session.running().repair, &media);
    assert_eq!(bench.reports(45, &nack(9, &[37])), [video(37, 9)]);
    media.streams[0].feedback.nack = false;
    ClientRepair::follow(&mut bench.session.running().repair, &media);
    assert!(bench.session.running().repair.is_none());
}

#[test]
fn cache_has_the_numbers_of_the_client_after_a_switch() {
    let (mut bench, node, _) = call(Srtp::Plain);
    bench.board = Arc::new(Board::new(2));
    let hop = |node| Hop { node: NodeId(node), incarnation: Incarnation(1) };
    let mut sent = bench.sends(hop(0), 9, 1..=20);
    let route = Route::new(2, RedundancyMode::Hot, [(hop(1), HopGrant::Admitted)]);
    bench.session.route = Arc::new(RouteCell::holding(route));
    for number in 0..20_u16 {
        bench.at(21 + u64::from(number), |session, cx| {
            session.handle_node_packet(hop(1), &video(5_000 + number, 50), cx);
        });
    }
    sent.extend(heard(&bench.client));
    assert_eq!(sent.len(), 40);
    let numbers = |packet: &Vec<u8>| rtp::ssrc_and_sequence(packet).unwrap();
    assert!(sent.iter().all(|packet| numbers(packet).0 == 9), "one stream to the client");
    let [before, after] = [18, 25].map(|place| sent[place].clone());
    let missing = [&before, &after].map(|packet| numbers(packet).1);
    let again = bench.reports(45, &nack(9, &missing));
    assert_eq!(again[0], before);
    assert_eq!(again.last(), Some(&after));
    assert!(again.iter().all(|packet| *packet == before || *packet == after));
    assert!(heard(&node).is_empty());
}

#[test]
fn client_is_asked_for_packets_that_are_missing() {
    let (mut bench, node, hop) = call(Srtp::Plain);
    assert_eq!(bench.speaks(20, 1), [0; 0]);
    assert_eq!(bench.speaks(40, 2), [0; 0]);
    assert_eq!(bench.speaks(80, 4), [3]);
    heard(&node);
    for (ms, numbers, passes) in [
        (90, &[3][..], &[][..]),
        (95, &[2, 3][..], &[2][..]),
        (117, &[3][..], &[][..]),
        (118, &[3][..], &[3][..]),
    ] {
        bench.at(ms, |session, cx| session.handle_node_packet(hop, &nack(3, numbers), cx));
        assert_eq!(asked(&heard(&bench.client), 3), passes, "{ms}: {numbers:?}");
    }
    assert_eq!(bench.speaks(140, 3), [0; 0]);
    assert_eq!(heard(&node), [video(3, 3)], "it passes under its own number");
    let summary = bench.session.summary(bench.start + Duration::from_millis(150)).unwrap();
    assert_eq!(summary.flow.lost_up, 1, "before repair");
    assert_eq!(summary.counts.requested, 1);
    assert_eq!(summary.counts.repairs[RepairKind::Retransmission as usize].packets_up, 1);
}

#[test]
fn rtx_of_the_client_is_repair() {
    let (mut bench, ..) = call(Srtp::Plain);
    let mut media = (*bench.session.media).clone();
    media.streams[0].payload_types.push(PayloadType::new(97, "rtx", 90_000));
    bench.session.media = Arc::new(media);
    bench.speaks(20, 1);
    bench.speaks(40, 2);
    assert_eq!(bench.speaks(80, 4), [3]);
    let fields =
        rtp::Fields { payload_type: 97, marker: false, sequence: 1, timestamp: 1, ssrc: 4 };
    let mut rtx = Vec::new();
    rtp::write(&fields, &[&3_u16.to_be_bytes()[..], b"frame"].concat(), &mut rtx);
    bench.at(110, |session, cx| session.handle_client_rtp(&rtx, cx));
    let summary = bench.session.summary(bench.start + Duration::from_millis(150)).unwrap();
    let measured = |metric| summary.measures.measured(metric);
    // One of the five packets of both streams.
    assert_eq!(measured(Metric::LossUp), Some(200_000));
    assert_eq!(measured(Metric::LossUpAfterRepair), Some(0));
}

/// A client that declared what its retransmissions repair. It was asked for packet 3 of the first four.
fn call_with_rtx() -> (Bench, UdpSocket, Hop) {
    let (mut bench, node, hop) = call(Srtp::Plain);
    let mut media = (*bench.session.media).clone();
    let rtx = PayloadType { repairs: Some(96), ..PayloadType::new(97, "rtx", 90_000) };
    media.streams[0].payload_types.push(rtx);
    bench.session.media = Arc::new(media);
    bench.speaks(20, 1);
    bench.speaks(40, 2);
    assert_eq!(bench.speaks(80, 4), [3]);
    assert_eq!(heard(&node).len(), 3);
    (bench, node, hop)
}

/// A retransmission of the client with this payload.
fn rtx(sequence: u16, payload: &[u8]) -> Vec<u8> {
    let fields = rtp::Fields { payload_type: 97, marker: false, sequence, timestamp: 1, ssrc: 4 };
    let mut packet = Vec::new();
    rtp::write(&fields, payload, &mut packet);
    packet
}

/// A retransmission of [`video`].
fn rtx_of(sequence: u16, lost: u16) -> Vec<u8> {
    rtx(sequence, &[&lost.to_be_bytes()[..], b"frame"].concat())
}

impl Bench {
    fn retransmits(&mut self, ms: u64, packet: &[u8]) {
        self.at(ms, |session, cx| {
            session.handle_client_rtp(packet, cx);
            flush_ports(session, cx);
        });
    }
}

#[test]
fn asked_retransmission_reaches_the_node_once() {
    let (mut bench, node, _) = call_with_rtx();
    bench.retransmits(110, &rtx_of(1, 3));
    assert_eq!(heard(&node), [video(3, 3)], "as the packet that was lost");
    bench.retransmits(112, &rtx_of(2, 3));
    assert!(heard(&node).is_empty());
    assert_eq!(bench.drops(DropReason::Duplicate), 1);
    assert_eq!(bench.speaks(140, 5), [0; 0]);
    let summary = bench.session.summary(bench.start + Duration::from_millis(150)).unwrap();
    let measured = |metric| summary.measures.measured(metric);
    // One of the seven packets of both streams.
    assert_eq!(measured(Metric::LossUp), Some(142_857));
    assert_eq!(measured(Metric::LossUpAfterRepair), Some(0));
    assert_eq!(summary.flow.sent, [0, 5]);
    assert_eq!(summary.counts.repairs[RepairKind::Retransmission as usize].packets_up, 2);
    assert_eq!(summary.totals.packets_up, 6);
}

#[test]
fn asked_retransmission_reaches_the_next_node() {
    let (mut bench, node, _) = call_with_rtx();
    bench.board = Arc::new(Board::new(2));
    let next = UdpSocket::bind("127.0.0.1:0").unwrap();
    next.set_nonblocking(true).unwrap();
    let hop = Hop { node: NodeId(1), incarnation: Incarnation(1) };
    bench.session.attach(hop, port_leg(next.local_addr().unwrap()));
    let route = Route::new(2, RedundancyMode::Hot, [(hop, HopGrant::Admitted)]);
    bench.session.route = Arc::new(RouteCell::holding(route));
    bench.retransmits(110, &rtx_of(1, 3));
    assert_eq!((heard(&node).len(), heard(&next)), (0, vec![video(3, 3)]));
}

#[test]
fn retransmission_that_only_the_node_asked_for_passes() {
    let (mut bench, node, hop) = call_with_rtx();
    // Packet 2 was lost behind the gateway.
    bench.at(100, |session, cx| session.handle_node_packet(hop, &nack(3, &[2]), cx));
    assert_eq!(asked(&heard(&bench.client), 3), [2]);
    let probe = rtx(2, &[]);
    for packet in [rtx_of(1, 2), probe] {
        bench.retransmits(120, &packet);
        assert_eq!(heard(&node), [packet]);
    }
}

#[test]
fn wrong_retransmissions_are_counted() {
    let (mut bench, node, _) = call_with_rtx();
    for number in [5, 30_000, 4_u16.wrapping_sub(4_097)] {
        bench.retransmits(110, &rtx_of(1, number));
    }
    bench.retransmits(110, &rtx(2, &[3]));
    assert!(heard(&node).is_empty());
    let counted = [DropReason::Stale, DropReason::Malformed].map(|reason| bench.drops(reason));
    assert_eq!(counted, [3, 1]);
    bench.retransmits(111, &rtx_of(3, 3));
    assert_eq!(heard(&node), [video(3, 3)], "they change nothing");
}

#[test]
fn reports_of_a_node_about_retransmissions_end_here() {
    let (mut bench, _node, hop) = call_with_rtx();
    let report = |ssrcs: &[u32]| {
        let block = |ssrc: &u32| rtcp::ReportBlock {
            ssrc: *ssrc,
            // The node gets none of them.
            fraction_lost: if *ssrc == 4 { 255 } else { 0 },
            ..rtcp::ReportBlock::default()
        };
        let blocks: Vec<_> = ssrcs.iter().map(block).collect();
        let mut report = Vec::new();
        rtcp::write_receiver_report(5, &blocks, &mut report);
        report
    };
    let told = |bench: &mut Bench, ssrcs: &[u32]| {
        let report = report(ssrcs);
        bench.at(120, |session, cx| session.handle_node_packet(hop, &report, cx));
        heard(&bench.client)
    };
    assert_eq!(told(&mut bench, &[3, 4]), [report(&[3, 4])]);
    bench.session.summary(bench.start);
    bench.retransmits(121, &rtx_of(1, 3));
    assert_eq!(told(&mut bench, &[3, 4]), [report(&[3])]);
    assert!(told(&mut bench, &[4]).is_empty());
    let flow = bench.session.summary(bench.start).unwrap().flow;
    assert_eq!(flow.reported_ppm, Some(0));
}

#[test]
fn packet_that_is_answered_twice_was_lost_once() {
    let (mut bench, _node, hop) = call(Srtp::Plain);
    let report = |sequence_max| {
        let block = rtcp::ReportBlock { ssrc: 9, sequence_max, ..rtcp::ReportBlock::default() };
        let mut report = Vec::new();
        rtcp::write_receiver_report(5, &[block], &mut report);
        report
    };
    bench.sends(hop, 9, 1..=40);
    bench.reports(41, &report(20));
    assert_eq!(bench.reports(45, &nack(9, &[38])).len(), 1);
    assert_eq!(bench.reports(83, &nack(9, &[38])).len(), 1);
    bench.reports(4_000, &report(40));
    let summary = bench.session.summary(bench.start + Duration::from_millis(4_000)).unwrap();
    // One of 20 packets.
    assert_eq!(summary.measures.measured(Metric::LossDown), Some(50_000));
    assert_eq!(summary.measures.measured(Metric::LossDownAfterRepair), Some(0));
}

#[test]
fn request_is_repeated_without_later_packets() {
    let (mut bench, ..) = call(Srtp::Plain);
    let path = PathReport { rtt_us: 20_000, lost: 0, sent: 1 };
    bench.at(10, |session, cx| session.handle_quic_path(path, cx));
    for (number, ms) in [(1, 20), (2, 40)] {
        assert_eq!(bench.speaks(ms, number), [0; 0]);
    }
    assert_eq!(bench.speaks(80, 4), [3]);
    for (ms, numbers) in [(94, &[][..]), (95, &[3][..]), (110, &[3][..]), (125, &[][..])] {
        bench.at(ms, WorkerSession::tick);
        assert_eq!(asked(&heard(&bench.client), 3), numbers, "{ms}");
    }
}

#[test]
fn requests_of_a_client_are_limited() {
    let (mut bench, node, _) = call(Srtp::Plain);
    let numbers: Vec<u16> = (0..400).collect();
    for _ in 0..20 {
        assert!(bench.reports(10, &nack(9, &numbers)).is_empty(), "never sent");
    }
    assert_eq!(asked(&heard(&node), 9).len(), 4_096);
    assert_eq!(bench.drops(DropReason::Limited), 10);
    assert!(bench.reports(1_200, &nack(9, &[1])).is_empty());
    assert_eq!(asked(&heard(&node), 9), [1], "a second later");
}

#[test]
fn memory_of_a_cache_is_released() {
    let (mut bench, _, hop) = call(Srtp::Plain);
    let memory = RepairMemory::new(1 << 20);
    bench.egress.repair_memory = memory.clone();
    bench.sends(hop, 9, 1..=20);
    assert!(memory.reserved() > 0);
    let at = |ms| bench.start + Duration::from_millis(ms);
    let times = [at(120), at(220), at(1_100), at(1_200)];
    for now in &times[..2] {
        bench.session.summary(*now);
        assert!(!bench.session.went_idle(*now), "it has packets");
    }
    bench.at(1_020, WorkerSession::tick);
    assert!(memory.reserved() > 0);
    bench.at(1_021, WorkerSession::tick);
    assert_eq!(memory.reserved(), 0, "of a quiet client");
    bench.session.summary(times[2]);
    assert!(bench.session.went_idle(times[3]));
    bench.at(1_300, |session, cx| session.handle_node_packet(hop, &video(21, 9), cx));
    assert!(memory.reserved() > 0);
    drop(bench);
    assert_eq!(memory.reserved(), 0, "of a session that ended");
}

#[test]
fn nack_is_left_to_the_node_without_memory() {
    let (mut bench, node, hop) = call(Srtp::Plain);
    bench.egress.repair_memory = RepairMemory::new(1_000);
    bench.sends(hop, 9, 1..=40);
    assert!(bench.reports(45, &nack(9, &[38])).is_empty());
    assert_eq!(heard(&node), [nack(9, &[38])]);
    assert_eq!(bench.session.take_counts().caches_refused, 1);
    // Other sessions have released theirs.
    bench.egress.repair_memory = RepairMemory::new(1 << 20);
    bench.at(50, WorkerSession::tick);
    bench.sends(hop, 9, 51..=90);
    assert_eq!(bench.reports(95, &nack(9, &[88])), [video(88, 9)]);
    assert_eq!(bench.session.take_counts().caches_refused, 0);
}

#[test]
fn client_over_quic_is_answered() {
    let (mut bench, _, hop) = call(Srtp::Plain);
    let (media, route) = (Arc::clone(&bench.session.media), Arc::clone(&bench.session.route));
    let quic = ClientAddressing::Quic { flow_from_gateway: 4 };
    bench.session = WorkerSession::new(Install { media, route, ..install(quic, Srtp::Plain, 0) });
    let (to_quic, mut from_worker) = crate::ring::channel(100).unwrap();
    bench.egress.to_quic = Some(to_quic);
    bench.sends(hop, 9, 1..=40);
    let terms = |priority| RingItem::ToClient(SendTerms { priority, latency_ms: 500 });
    let is_video = |meta: &RingMeta, _: &[u8]| {
        assert_eq!(meta.kind, terms(PacketPriority::Video));
    };
    assert_eq!(from_worker.pop_batch(100, is_video), 40);
    bench.reports(45, &nack(9, &[38]));
    let mut again = Vec::new();
    from_worker.pop_batch(100, |meta, packet| {
        again.push((meta.flow, meta.kind, packet.to_vec()));
    });
    assert_eq!(again, [(4, terms(PacketPriority::VideoRepair), video(38, 9))]);
}

#[test]
fn silent_address_gets_no_answer_beyond_its_limit() {
    let (mut bench, _, hop) = call(Srtp::Plain);
    bench.session.state().validation = Some(Box::default());
    for (ms, sequence) in [(1, 1), (13_990, 2)] {
        let mut packet = video(sequence, 9);
        packet.resize(500, 0);
        bench.at(ms, |session, cx| session.handle_node_packet(hop, &packet, cx));
    }
    assert_eq!(heard(&bench.client).len(), 2);
    assert!(bench.reports(14_010, &nack(9, &[2])).is_empty());
    assert_eq!(bench.drops(DropReason::Unvalidated), 1);
}
