//! Retransmissions to a client that negotiated them in a stream of their own. Its video has SSRC 1,000, and they have 1,001. The round trip is
//! unknown: 50 ms; the client's latency is 60 ms.

use evenkeel_media::retransmission;
use evenkeel_model::Metric;

use super::*;
use crate::worker::repair_memory::RepairMemory;

const RTX: u8 = 97;
const VIDEO_SSRC: u32 = 1_000;
const RTX_SSRC: u32 = 1_001;

/// The first number of the stream.
const FIRST: u16 = 500;

fn media() -> MediaDescription {
    let video = MediaStream {
        kind: StreamKind::Video,
        payload_types: vec![
            PayloadType::new(96, "VP8", 90_000),
            PayloadType { repairs: Some(96), ..PayloadType::new(RTX, "rtx", 90_000) },
        ],
        feedback: Takes { nack: true, ..Takes::default() },
        bitrate_kbps: None,
    };
    MediaDescription::new(vec![video], RtcpPort::Mux, Srtp::Terminated)
}

/// An answer to a client that takes retransmissions in a stream of their own, or does not.
fn answer(has_retransmissions: bool) -> AnsweredMedia {
    let section =
        AnnouncedSection { index: 0, payload_types: vec![96], has_retransmissions, sender: None };
    let streams =
        AnnouncedStreams { seed: VIDEO_SSRC, sections: vec![section], ..Default::default() };
    AnsweredMedia { announced: Arc::new(streams), ..answered(true) }
}

impl Scene {
    fn with(media: MediaDescription, answered: AnsweredMedia) -> Scene {
        let mut scene = Scene::new();
        scene.answer_offer(answered.clone());
        scene.bench.session.renegotiate(Arc::new(media), Arc::new(answered));
        scene
    }

    /// A client that takes retransmissions in a stream of their own.
    fn with_rtx() -> Scene {
        Scene::with(media(), answer(true))
    }

    /// The node sends these packets, one each millisecond.
    fn sends_video(&mut self, numbers: std::ops::RangeInclusive<u16>) {
        for number in numbers {
            let packet = self.opened(number.into(), &video(number, 77)).unwrap();
            assert_eq!(rtp::ssrc_and_sequence(&packet), Some((VIDEO_SSRC, number)));
        }
    }

    /// The phone sends RTCP. Returns what the node gets.
    fn reports(&mut self, ms: u64, packet: &[u8]) -> Option<Vec<u8>> {
        let datagram = self.phone.protect(RtpSide::Rtcp, packet);
        let heard = self.deliver_at(ms, ArrivalKind::Rtcp, &datagram);
        self.bench.egress.flush(self.bench.start + Duration::from_millis(ms));
        heard
    }

    /// The phone asks for packets of its video. Returns those that it gets, decrypted.
    fn asks(&mut self, ms: u64, numbers: &[u16]) -> Vec<Vec<u8>> {
        let heard = self.reports(ms, &nack(VIDEO_SSRC, numbers));
        assert_eq!(heard, None, "it is answered whole");
        self.got()
    }

    /// The packets that the phone gets, decrypted.
    fn got(&mut self) -> Vec<Vec<u8>> {
        let (mut opened, mut datagram) = (Vec::new(), [0; 256]);
        while let Ok(length) = self.bench.client.recv(&mut datagram) {
            let packet = self.phone.receiver.unprotect_rtp(&mut datagram[..length]);
            opened.push(packet.unwrap().to_vec());
        }
        opened
    }
}

fn nack(media: u32, numbers: &[u16]) -> Vec<u8> {
    let mut packet = Vec::new();
    rtcp::write_nack(SSRC, media, numbers, &mut packet);
    packet
}

/// The retransmission, with this number of its own, of a packet to the client.
fn again(sequence: u16, lost: u16) -> Vec<u8> {
    let fields =
        rtp::Fields { payload_type: RTX, marker: false, sequence, timestamp: 1, ssrc: RTX_SSRC };
    let mut packet = Vec::new();
    rtp::write(&fields, &[&lost.to_be_bytes()[..], b"frame"].concat(), &mut packet);
    packet
}

#[test]
fn nack_is_answered_in_a_stream_of_its_own() {
    let mut scene = Scene::with_rtx();
    scene.sends_video(1..=40);
    assert_eq!(scene.asks(45, &[38, 39]), [again(FIRST, 38), again(FIRST + 1, 39)]);
    assert!(scene.asks(82, &[38]).is_empty(), "within the round trip");
    assert_eq!(scene.asks(83, &[38]), [again(FIRST + 2, 38)]);
    let summary = scene.bench.session.summary(scene.bench.start).unwrap();
    assert_eq!(summary.counts.answered, 3);
    let repairs = summary.counts.repairs[RepairKind::Retransmission as usize];
    assert_eq!((repairs.packets_down, repairs.bytes_down), (3, 3 * 19));
    assert_eq!(summary.totals.packets_down, 43);
    // The video goes on.
    scene.sends_video(41..=42);
    assert_eq!(scene.bench.drops(DropReason::SrtpIndex), 0);
}

#[test]
fn last_round_has_two_numbers() {
    let mut scene = Scene::with_rtx();
    scene.sends_video(1..=40);
    assert_eq!(scene.asks(45, &[5]), [again(FIRST, 5), again(FIRST + 1, 5)]);
}

#[test]
fn numbers_go_on_at_each_process() {
    let mut scene = Scene::with_rtx();
    scene.sends_video(1..=40);
    assert_eq!(scene.asks(45, &[38]), [again(FIRST, 38)]);
    scene.hand_over();
    scene.sends_video(46..=90);
    assert_eq!(scene.asks(95, &[88]), [again(FIRST + 1, 88)]);
    assert_eq!(scene.bench.drops(DropReason::SrtpIndex), 0);
}

#[test]
fn numbers_wrap() {
    let mut scene = Scene::with_rtx();
    let rtp = IndexLease { next: u16::MAX.into(), limit: u16::MAX.into() };
    let sent = [SentIndices { ssrc: RTX_SSRC, rtp, rtcp: IndexLease::default() }];
    let counters = (Vec::<ReceivedIndices>::new(), sent, false);
    let counters: SrtpCounters =
        rmp_serde::from_slice(&rmp_serde::to_vec(&counters).unwrap()).unwrap();
    let contexts = scene.bench.session.running().srtp.client_contexts_mut().unwrap();
    contexts.go_on(&counters, false, None);
    scene.sends_video(1..=40);
    let got = scene.asks(45, &[37, 38, 39]);
    assert_eq!(got, [again(u16::MAX, 37), again(0, 38), again(1, 39)]);
}

#[test]
fn rtx_has_a_transport_wide_number_of_its_own() {
    let mut media = media();
    media.streams[0].feedback.transport_cc = true;
    let uri = ExtensionUri::TransportWideNumber;
    media.extensions.push(HeaderExtension { id: 3, uri });
    let mut scene = Scene::with(media, answer(true));
    scene.sends_video(1..=40);
    let got = scene.asks(45, &[38]);
    let [packet] = &got[..] else { panic!("{got:?}") };
    let header = rtp::RtpHeader::parse(packet).unwrap();
    assert_eq!((header.payload_type, header.ssrc, header.sequence), (RTX, RTX_SSRC, FIRST));
    assert_eq!(retransmission::original_sequence(&header, packet), Some(38));
    let number = rtp::extension::element(packet, &header, 3);
    assert_eq!(number, Some(&40_u16.to_be_bytes()[..]), "after those of 40 packets");
}

#[test]
fn retransmission_has_the_payload_type_of_the_client() {
    let payload_types = vec![(120, 96), (121, RTX)].into();
    let numbers = ClientNumbers::new(&payload_types, &ExtensionMap::default(), None);
    let mut scene = Scene::with(media(), AnsweredMedia { numbers, ..answer(true) });
    scene.sends_video(1..=40);
    let mut expected = again(FIRST, 38);
    rtp::set_payload_type(&mut expected, 121);
    assert_eq!(scene.asks(45, &[38]), [expected]);
}

#[test]
fn node_retransmissions_are_in_the_same_sequence() {
    let mut scene = Scene::with_rtx();
    scene.sends_video(1..=40);
    assert_eq!(scene.asks(45, &[38]), [again(FIRST, 38)]);
    let of_node = |sequence, lost| {
        let mut packet = again(sequence, lost);
        rtp::set_ssrc(&mut packet, 78);
        packet
    };
    for (number, lost) in [(1, 30), (2, 31)] {
        let got = scene.opened(46, &of_node(9_000 + number, lost));
        assert_eq!(got, Some(again(FIRST + number, lost)));
    }
    assert_eq!(scene.opened(47, &of_node(9_003, 41)), None, "of no packet");
    let padding = &of_node(9_004, 0)[..rtp::HEADER_LEN];
    assert_eq!(scene.opened(48, padding), None);
    assert_eq!(scene.bench.drops(DropReason::Stale), 2);
    assert_eq!(scene.asks(49, &[39]), [again(FIRST + 3, 39)]);
    assert_eq!(scene.bench.drops(DropReason::SrtpIndex), 0);
}

/// A client behind a full path. It got 40 packets of video.
fn paced() -> Scene {
    let mut scene = Scene::with_rtx();
    scene.sends_video(1..=40);
    let now = scene.bench.start + Duration::from_millis(45);
    let pacing = &mut scene.bench.session.running().pacing;
    SessionPacing::follow(pacing, Some(100), now);
    // The burst budget is spent.
    assert!(pacing.as_mut().unwrap().admits(10_000, now));
    scene
}

/// A node's retransmission of packet 30.
fn of_node() -> Vec<u8> {
    let mut packet = again(9_001, 30);
    rtp::set_ssrc(&mut packet, 78);
    packet
}

#[test]
fn paced_retransmissions_are_numbered_as_they_leave() {
    let mut scene = paced();
    assert!(scene.asks(45, &[37, 38]).is_empty());
    assert_eq!(scene.opened(46, &of_node()), None);
    scene.bench.at(100, WorkerSession::send_paced);
    assert_eq!(scene.got(), [again(FIRST, 37), again(FIRST + 1, 38), again(FIRST + 2, 30)]);
    assert_eq!(scene.bench.drops(DropReason::SrtpIndex), 0);
    assert_eq!(scene.bench.session.take_counts().paced, 3);
}

#[test]
fn retransmission_without_memory_overtakes_others() {
    let mut scene = paced();
    scene.bench.egress.repair_memory = RepairMemory::new(crate::mmsg::DATAGRAM_MAX);
    assert!(scene.asks(45, &[37]).is_empty());
    assert_eq!(scene.opened(46, &of_node()), Some(again(FIRST, 30)));
    scene.bench.at(100, WorkerSession::send_paced);
    assert_eq!(scene.got(), [again(FIRST + 1, 37)]);
    assert_eq!(scene.bench.drops(DropReason::SrtpIndex), 0);
}

#[test]
fn reports_about_retransmissions_end_here() {
    let mut scene = Scene::with_rtx();
    scene.sends_video(1..=40);
    let block = |ssrc, fraction_lost| rtcp::ReportBlock {
        ssrc,
        fraction_lost,
        sequence_max: 40,
        ..rtcp::ReportBlock::default()
    };
    let mut report = Vec::new();
    rtcp::write_receiver_report(SSRC, &[block(VIDEO_SSRC, 0), block(RTX_SSRC, 128)], &mut report);
    let heard = scene.reports(50, &report).unwrap();
    let ssrcs = reports(&heard).map(|block| block.ssrc);
    assert_eq!(ssrcs.collect::<Vec<_>>(), [77]);
    let summary = scene.bench.session.summary(scene.bench.start).unwrap();
    assert_eq!(summary.measures.measured(Metric::LossDown), Some(0));
    let mut of_rtx = Vec::new();
    rtcp::write_receiver_report(SSRC, &[block(RTX_SSRC, 128)], &mut of_rtx);
    assert_eq!(scene.reports(60, &of_rtx), None, "nothing is left");
}

#[test]
fn answered_packet_was_lost_and_is_repaired() {
    let mut scene = Scene::with_rtx();
    let report = |sequence_max, fraction_lost| {
        let block = rtcp::ReportBlock {
            ssrc: VIDEO_SSRC,
            fraction_lost,
            sequence_max,
            ..rtcp::ReportBlock::default()
        };
        let mut report = Vec::new();
        rtcp::write_receiver_report(SSRC, &[block], &mut report);
        report
    };
    scene.sends_video(1..=40);
    scene.reports(41, &report(24, 0));
    assert_eq!(scene.asks(45, &[38]).len(), 1);
    assert_eq!(scene.asks(83, &[38]).len(), 1);
    // One of 16 packets.
    scene.reports(4_000, &report(40, 16));
    let now = scene.bench.start + Duration::from_millis(4_000);
    let summary = scene.bench.session.summary(now).unwrap();
    assert_eq!(summary.measures.measured(Metric::LossDown), Some(62_500));
    assert_eq!(summary.measures.measured(Metric::LossDownAfterRepair), Some(0));
}

#[test]
fn client_without_announced_ssrc_gets_the_same_bytes() {
    let mut scene = Scene::with_rtx();
    scene.sends_video(1..=39);
    // A later answer announces none. Packets that were kept before are of no use.
    scene.bench.session.renegotiate(Arc::new(media()), Arc::new(answer(false)));
    let sent = scene.answer(40, &video(40, 77)).unwrap();
    let rest = scene.reports(45, &nack(VIDEO_SSRC, &[39, 40]));
    assert_eq!(rest, Some(nack(77, &[39])), "the node gets the rest");
    let mut datagram = [0; 256];
    let length = scene.bench.client.recv(&mut datagram).unwrap();
    assert_eq!(&datagram[..length], sent);
}
