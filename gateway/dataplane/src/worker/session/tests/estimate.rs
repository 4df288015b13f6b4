//! Transport-wide numbers of packets to a client, and the rate that its feedback tells of.

use evenkeel_media::rtp::extension;
use evenkeel_model::{ExtensionUri, HeaderExtension, Metric};

use super::retransmission::heard;
use super::*;

const EXTENSION: u8 = 3;
pub(super) const OPUS: u8 = 111;
pub(super) const VP8: u8 = 96;

/// Voice and video of a client with the header extension. `takes`: its feedback about each of the two.
pub(super) fn media(srtp: Srtp, takes: [bool; 2]) -> MediaDescription {
    let stream = |kind, payload_type, transport_cc| MediaStream {
        kind,
        payload_types: vec![payload_type],
        feedback: Takes { transport_cc, ..Takes::default() },
        bitrate_kbps: None,
    };
    let [of_voice, of_video] = takes;
    let streams = vec![
        stream(StreamKind::Audio, PayloadType::new(OPUS, "opus", 48_000), of_voice),
        stream(StreamKind::Video, PayloadType::new(VP8, "VP8", 90_000), of_video),
    ];
    let mut media = MediaDescription::new(streams, RtcpPort::Mux, srtp);
    let uri = ExtensionUri::TransportWideNumber;
    media.extensions.push(HeaderExtension { id: EXTENSION, uri });
    media
}

pub(super) fn packet(payload_type: u8, ssrc: u32, sequence: u16) -> Vec<u8> {
    let timestamp = u32::from(sequence) * 960;
    let fields = rtp::Fields { payload_type, marker: false, sequence, timestamp, ssrc };
    let mut packet = Vec::new();
    rtp::write(&fields, &[7; 1_000], &mut packet);
    packet
}

/// The transport-wide number of a packet.
pub(super) fn number(packet: &[u8]) -> Option<u16> {
    let header = rtp::RtpHeader::parse(packet).unwrap();
    let element = extension::element(packet, &header, EXTENSION)?;
    Some(u16::from_be_bytes(element.try_into().unwrap()))
}

/// The packet without its header extension.
fn without_extension(packet: &[u8]) -> Vec<u8> {
    let header = rtp::RtpHeader::parse(packet).unwrap();
    let mut plain = packet[..rtp::HEADER_LEN].to_vec();
    plain[0] &= !0x10;
    plain.extend_from_slice(header.payload(packet));
    plain
}

/// Feedback that packets from `base` on arrived, the first one at `ms`, and each 20 ms after the one before
/// (draft-holmer-rmcat-transport-wide-cc-extensions-01, section 3.1).
fn arrived(base: u16, packets: u16, ms: u64) -> Vec<u8> {
    let mut feedback = vec![0x8f, rtcp::TRANSPORT_FEEDBACK, 0, 0, 0, 0, 0, 5, 0, 0, 0, 9];
    feedback.extend(base.to_be_bytes());
    feedback.extend(packets.to_be_bytes());
    feedback.extend(((ms / 64) as u32 * 256).to_be_bytes());
    // A run of packets, then the time since the one before in units of 250 µs.
    feedback.extend((0x2000 | packets).to_be_bytes());
    feedback.push((ms % 64 * 4) as u8);
    feedback.extend(std::iter::repeat_n(80, usize::from(packets) - 1));
    feedback.resize(feedback.len().next_multiple_of(4), 0);
    let words = feedback.len() as u16 / 4 - 1;
    feedback[2..4].copy_from_slice(&words.to_be_bytes());
    feedback
}

/// A call of a client with a node.
pub(super) struct Call {
    pub(super) bench: Bench,
    node: UdpSocket,
    pub(super) hop: Hop,
}

impl Call {
    pub(super) fn new(media: MediaDescription) -> Call {
        let (mut bench, node, hop) = at_node(media.srtp);
        bench.session.media = Arc::new(media);
        Call { bench, node, hop }
    }

    /// The node sends a packet. Returns the one that the client receives.
    pub(super) fn hear(&mut self, ms: u64, packet: &[u8]) -> Vec<u8> {
        let hop = self.hop;
        self.bench.at(ms, |session, cx| session.handle_node_packet(hop, packet, cx));
        let mut packets = heard(&self.bench.client);
        assert_eq!(packets.len(), 1);
        packets.remove(0)
    }

    /// The client sends RTCP. Returns the packets that the node receives.
    pub(super) fn feed_back(&mut self, ms: u64, compound: &[u8]) -> Vec<Vec<u8>> {
        self.bench.at(ms, |session, cx| {
            session.handle_client_rtcp(compound, cx);
            flush_ports(session, cx);
        });
        heard(&self.node)
    }

    /// The node sends video for four seconds, of which each packet arrives in the same time. Returns what the node receives of the client.
    pub(super) fn watch(&mut self) -> Vec<Vec<u8>> {
        self.watch_growing(0)
    }

    /// The same with a delay that grows by so many milliseconds with each five packets.
    fn watch_growing(&mut self, growth_ms: i64) -> Vec<Vec<u8>> {
        let mut at_node = Vec::new();
        for sequence in 0..200_u16 {
            let ms = 20 * u64::from(sequence);
            self.hear(ms, &packet(VP8, 9, sequence));
            if sequence % 5 == 4 {
                let first_ms = (ms - 70).saturating_add_signed(i64::from(sequence / 5) * growth_ms);
                at_node.extend(self.feed_back(ms + 15, &arrived(sequence - 4, 5, first_ms)));
            }
        }
        at_node
    }

    /// The estimate after four seconds.
    fn estimated(&mut self) -> Option<u32> {
        let summary = self.bench.session.summary(self.bench.start + Duration::from_secs(4));
        summary.unwrap().measures.measured(Metric::AvailableDown)
    }
}

#[test]
fn numbers_are_consecutive_over_streams() {
    let mut call = Call::new(media(Srtp::Plain, [true, true]));
    for sequence in 0..40_u16 {
        let is_voice = sequence.is_multiple_of(3);
        let sent = if is_voice { packet(OPUS, 7, sequence) } else { packet(VP8, 9, sequence) };
        let heard = call.hear(u64::from(sequence) * 20, &sent);
        assert_eq!((number(&heard), heard.len()), (Some(sequence), sent.len() + 8));
        assert_eq!(without_extension(&heard), sent);
    }
    let totals = call.bench.session.totals(call.bench.start);
    assert_eq!(totals.bytes_down, 40 * (1_012 + 8));
}

#[test]
fn numbers_follow_the_mapping_after_a_switch() {
    let mut call = Call::new(media(Srtp::Plain, [true, true]));
    let before = call.hear(0, &packet(VP8, 9, 100));
    call.hop = signs::hop(1);
    call.bench.board = Arc::new(Board::new(2));
    let route = Route::new(2, RedundancyMode::Hot, [(call.hop, HopGrant::Admitted)]);
    call.bench.session.route = Arc::new(RouteCell::holding(route));
    let after = call.hear(20, &packet(VP8, 77, 9_000));
    assert_eq!([&before, &after].map(|packet| number(packet)), [Some(0), Some(1)]);
    let headers = [&before, &after].map(|packet| rtp::RtpHeader::parse(packet).unwrap());
    assert_eq!(headers.map(|header| header.ssrc), [9, 9]);
    assert_eq!(headers[1].payload(&after), [7; 1_000]);
}

#[test]
fn number_of_the_node_is_overwritten() {
    let mut call = Call::new(media(Srtp::Plain, [true, true]));
    let mut sent = packet(VP8, 9, 1);
    sent[0] |= 0x10;
    sent.splice(12..12, [0xbe, 0xde, 0, 1, EXTENSION << 4 | 1, 0xff, 0xff, 0]);
    let heard = call.hear(0, &sent);
    assert_eq!((heard.len(), number(&heard)), (sent.len(), Some(0)));
}

#[test]
fn streams_without_feedback_have_no_numbers() {
    let mut call = Call::new(media(Srtp::Plain, [false, true]));
    for sequence in 0..10 {
        let voice = packet(OPUS, 7, sequence);
        assert_eq!(call.hear(u64::from(sequence) * 20, &voice), voice);
        let video = call.hear(u64::from(sequence) * 20, &packet(VP8, 9, sequence));
        assert_eq!(number(&video), Some(sequence));
    }
}

#[test]
fn other_clients_get_packets_unchanged() {
    let mut undeclared = media(Srtp::Plain, [true, true]);
    undeclared.extensions.clear();
    let opaque = media(Srtp::Opaque, [true, true]);
    for media in [undeclared, media(Srtp::Plain, [false, false]), opaque] {
        let mut call = Call::new(media);
        let sent = packet(VP8, 9, 1);
        assert_eq!(call.hear(0, &sent), sent);
        let feedback = arrived(0, 1, 0);
        assert_eq!(call.feed_back(10, &feedback), [feedback]);
    }
}

#[test]
fn packet_that_is_sent_again_keeps_its_number() {
    let mut media = media(Srtp::Plain, [true, true]);
    media.streams[1].feedback.nack = true;
    let mut call = Call::new(media);
    let sent: Vec<_> =
        (0..40).map(|sequence| call.hear(sequence.into(), &packet(VP8, 9, sequence))).collect();
    let mut nack = Vec::new();
    rtcp::write_nack(5, 9, &[38], &mut nack);
    call.feed_back(45, &nack);
    assert_eq!(heard(&call.bench.client), [sent[38].clone()]);
    assert_eq!(number(&call.hear(46, &packet(VP8, 9, 40))), Some(40));
}

#[test]
fn feedback_about_numbers_ends_here() {
    let mut call = Call::new(media(Srtp::Plain, [true, true]));
    for sequence in 1..4 {
        call.hear(u64::from(sequence) * 20, &packet(VP8, 9, sequence));
    }
    let feedback = arrived(0, 3, 30);
    assert!(call.feed_back(70, &feedback).is_empty());
    assert_eq!(call.feed_back(80, &[half_lost(), feedback].concat()), [half_lost()]);
}

#[test]
fn estimate_from_arrivals_is_a_metric() {
    let mut call = Call::new(media(Srtp::Plain, [true, true]));
    assert!(call.watch().is_empty(), "the client declared no REMB");
    // 408 kbit/s arrive.
    let kbps = call.estimated().unwrap();
    assert!((100..1_000).contains(&kbps), "{kbps}");
    let end = call.bench.start + Duration::from_secs(4);
    call.bench.session.went_idle(end);
    assert!(!call.bench.session.went_idle(end), "the estimate ends later");
    let later = call.bench.start + Duration::from_secs(20);
    let measures = call.bench.session.summary(later).unwrap().measures;
    assert_eq!(measures.measured(Metric::AvailableDown), None);
    assert!(call.bench.session.went_idle(later));
    let next = call.hear(20_100, &packet(VP8, 9, 200));
    assert_eq!(number(&next), Some(200), "numbers go on");
    let mut silent = Call::new(media(Srtp::Plain, [true, true]));
    silent.hear(0, &packet(VP8, 9, 1));
    assert_eq!(silent.estimated(), None, "without feedback");
}

#[test]
fn growth_of_the_delay_is_a_metric() {
    let trend = |growth_ms: i64, second: u64| {
        let mut call = Call::new(media(Srtp::Plain, [true, true]));
        call.watch_growing(growth_ms);
        let at = call.bench.start + Duration::from_secs(second);
        call.bench.session.summary(at).unwrap().measures.measured(Metric::TrendDown)
    };
    assert_eq!((trend(0, 4), trend(-1, 4)), (Some(0), Some(0)));
    let growth = trend(1, 4).unwrap();
    assert!((5..=15).contains(&growth), "{growth} ms in a second");
    assert_eq!(trend(1, 20), None, "without recent feedback");
}

/// Feedback that five packets of the stream from `first` on arrived, 20 ms apart and the last one at `ms` (RFC 8888, section 3.1).
fn arrived_in_stream(first: u16, ms: u64) -> Vec<u8> {
    let mut feedback = vec![0x8b, rtcp::TRANSPORT_FEEDBACK, 0, 7, 0, 0, 0, 5, 0, 0, 0, 9];
    feedback.extend([first, 5].map(u16::to_be_bytes).as_flattened());
    for later in (0..5_u32).rev() {
        // The time before that of the report, in 1/1,024 s.
        let before = later * 20 * 1_024 / 1_000;
        feedback.extend((0x8000 | before as u16).to_be_bytes());
    }
    feedback.extend([0, 0]);
    feedback.extend(((ms * 65_536 / 1_000) as u32).to_be_bytes());
    feedback
}

#[test]
fn arrivals_by_stream_are_evidence_too() {
    let mut media = media(Srtp::Plain, [false, false]);
    media.streams[1].feedback.ccfb = true;
    let mut call = Call::new(media);
    for sequence in 0..200_u16 {
        let (ms, sent) = (20 * u64::from(sequence), packet(VP8, 9, sequence));
        assert_eq!(call.hear(ms, &sent), sent);
        if sequence % 5 == 4 {
            let feedback = arrived_in_stream(sequence - 4, ms + 10);
            assert!(call.feed_back(ms + 15, &feedback).is_empty(), "nodes have other numbers");
        }
    }
    // 405 kbit/s arrive.
    let kbps = call.estimated().unwrap();
    assert!((100..1_000).contains(&kbps), "{kbps}");
}

#[test]
fn node_hears_at_most_the_estimate() {
    let rates = |compounds: &[Vec<u8>]| {
        let packets = compounds.iter().flat_map(|it| rtcp::packets(it).map_while(Result::ok));
        let rates = packets.map(|packet| match packet {
            rtcp::RtcpPacket::Remb(remb) => (remb.bitrate_bps, remb.sources().collect::<Vec<_>>()),
            packet => panic!("{packet:?}"),
        });
        rates.collect::<Vec<_>>()
    };
    let mut media = media(Srtp::Plain, [true, true]);
    media.streams[1].feedback.remb = true;
    let mut call = Call::new(media);
    // In place of 40 packets of feedback.
    let told = rates(&call.watch());
    assert!((4..20).contains(&told.len()), "{told:?}");
    assert!(told.iter().all(|(bps, sources)| *bps > 0 && *sources == [9]), "{told:?}");
    let estimated = u64::from(call.estimated().unwrap()) * 1_000;
    let mut remb = Vec::new();
    rtcp::write_remb(5, 1_000_000_000, &[9], &mut remb);
    let [(bps, _)] = rates(&call.feed_back(4_000, &remb))[..] else { panic!("one REMB") };
    assert!(bps <= estimated && bps > estimated / 100 * 99, "{bps} of {estimated}");
    // The limit of the device is lower.
    call.bench.session.limits.receive_kbps = 20;
    assert_eq!(rates(&call.feed_back(4_000, &remb)), [(20_000, vec![9])]);
}

#[test]
fn reports_of_other_clients_are_evidence() {
    let mut call = Call::new(media(Srtp::Plain, [false, false]));
    for sequence in 1..=200_u16 {
        let ms = 20 * u64::from(sequence);
        call.hear(ms, &packet(VP8, 9, sequence));
        if sequence.is_multiple_of(50) {
            let block = rtcp::ReportBlock {
                ssrc: 9,
                fraction_lost: 51,
                lost: i32::from(sequence / 5),
                sequence_max: sequence.into(),
                ..rtcp::ReportBlock::default()
            };
            let mut report = Vec::new();
            rtcp::write_receiver_report(5, &[block], &mut report);
            assert_eq!(call.feed_back(ms, &report), [report], "nodes get reports");
        }
    }
    let kbps = call.estimated().unwrap();
    eprintln!("kbps {kbps}");
    // 405 kbit/s were sent, of which a fifth was lost.
    assert!((20..405).contains(&kbps), "{kbps}");
    let sent = packet(VP8, 9, 201);
    assert_eq!(call.hear(4_020, &sent), sent);
}

#[test]
fn numbers_go_on_after_a_later_offer() {
    let mut call = Call::new(media(Srtp::Plain, [true, true]));
    call.hear(0, &packet(VP8, 9, 1));
    let answered = Arc::new(srtp::answered(true));
    let mut offers = |takes| {
        call.bench.session.renegotiate(Arc::new(media(Srtp::Plain, takes)), Arc::clone(&answered));
        let sequence = 2 + call.bench.session.totals(call.bench.start).packets_down as u16;
        number(&call.hear(20, &packet(VP8, 9, sequence)))
    };
    assert_eq!(offers([false, true]), Some(1));
    assert_eq!(offers([true, true]), Some(2));
    assert_eq!(offers([false, false]), None);
    assert_eq!(offers([true, true]), Some(0));
}
