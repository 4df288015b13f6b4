//! Redundant audio to and from a client.

use evenkeel_media::repair::red::{self, RedBlock, RedPayload};
use evenkeel_model::{Latency, Metric};

use super::reports::extended;
use super::signs::hop;
use super::*;
use crate::flows::Flows;

pub(super) const OPUS: u8 = 111;
pub(super) const RED: u8 = 63;
const SSRC: u32 = 9;

/// A client with Opus, and its redundancy if `with_red`.
pub(super) fn media(srtp: Srtp, with_red: bool) -> Arc<MediaDescription> {
    let payload = |number, codec: &str, repairs| PayloadType {
        number,
        codec: codec.into(),
        clock_rate: 48_000,
        repairs,
    };
    let mut payload_types = vec![payload(OPUS, "opus", None)];
    payload_types.extend(with_red.then(|| payload(RED, "red", Some(OPUS))));
    let voice = MediaStream {
        kind: StreamKind::Audio,
        payload_types,
        feedback: Takes::default(),
        bitrate_kbps: None,
    };
    let media = MediaDescription::new(vec![voice], RtcpPort::Mux, srtp);
    Arc::new(MediaDescription { latency: Latency(100), ..media })
}

pub(super) fn frame(number: u16) -> Vec<u8> {
    // The first byte tells of CELT, which has no redundancy of its own (RFC 6716, table 2).
    [&[0xf8][..], &number.to_be_bytes()].concat()
}

pub(super) fn voice(payload_type: u8, number: u16, payload: &[u8]) -> Vec<u8> {
    voice_of(SSRC, payload_type, number, payload)
}

fn voice_of(ssrc: u32, payload_type: u8, number: u16, payload: &[u8]) -> Vec<u8> {
    let timestamp = u32::from(number) * 960;
    let fields = rtp::Fields { payload_type, marker: true, sequence: number, timestamp, ssrc };
    let mut packet = Vec::new();
    rtp::write(&fields, payload, &mut packet);
    packet
}

/// A packet that repeats the frames before it at these distances.
fn redundant(number: u16, back: &[u16]) -> Vec<u8> {
    let data: Vec<_> = back.iter().map(|back| frame(number.wrapping_sub(*back))).collect();
    let blocks = back.iter().zip(&data).map(|(back, data)| RedBlock {
        payload_type: OPUS,
        offset: back * 960,
        data,
    });
    let mut payload = Vec::new();
    red::write(&blocks.collect::<Vec<_>>(), OPUS, &frame(number), &mut payload).unwrap();
    voice(RED, number, &payload)
}

/// The frames in a packet, the oldest first.
pub(super) fn frames(packet: &[u8]) -> Vec<Vec<u8>> {
    let header = rtp::RtpHeader::parse(packet).unwrap();
    let payload = RedPayload::parse(header.payload(packet)).unwrap();
    payload.earlier().chain([payload.own()]).map(|block| block.data.to_vec()).collect()
}

/// A receiver report up to this number, with as many losses so far.
pub(super) fn report(number: u16, lost: u16) -> Vec<u8> {
    let block = rtcp::ReportBlock {
        ssrc: SSRC,
        // The share since the beginning, rounded up.
        fraction_lost: (u32::from(lost) * 256).div_ceil(number.into()) as u8,
        lost: lost.into(),
        sequence_max: number.into(),
        ..rtcp::ReportBlock::default()
    };
    let mut report = Vec::new();
    rtcp::write_receiver_report(5, &[block], &mut report);
    report
}

fn received(socket: &UdpSocket) -> Vec<Vec<u8>> {
    let (mut received, mut datagram) = (Vec::new(), [0; 2_048]);
    while let Ok(length) = socket.recv(&mut datagram) {
        received.push(datagram[..length].to_vec());
    }
    received
}

/// A call of a client with a node. Packets are 20 ms apart.
struct Call {
    bench: Bench,
    node: UdpSocket,
    hop: Hop,
}

impl Call {
    fn new(with_red: bool) -> Call {
        let (mut bench, node, hop) = at_node(Srtp::Plain);
        bench.session.media = media(Srtp::Plain, with_red);
        Call { bench, node, hop }
    }

    /// A call. Its client has lost every tenth of 50 packets.
    fn lossy() -> Call {
        let mut call = Call::new(true);
        call.plain(1..=50);
        call.report(50, 5);
        call.tick(50);
        call
    }

    /// Delivers a packet of the node. Returns what the client receives.
    fn hear(&mut self, number: u16, packet: &[u8]) -> Option<Vec<u8>> {
        let hop = self.hop;
        self.bench.at(u64::from(number) * 20, |session, cx| {
            session.handle_node_packet(hop, packet, cx);
        });
        let mut datagram = [0; 2_048];
        let length = self.bench.client.recv(&mut datagram).ok()?;
        Some(datagram[..length].to_vec())
    }

    fn hear_voice(&mut self, number: u16) -> Vec<u8> {
        self.hear(number, &voice(OPUS, number, &frame(number))).unwrap()
    }

    /// Packets of the node that pass as they are.
    fn plain(&mut self, numbers: impl IntoIterator<Item = u16>) {
        for number in numbers {
            assert_eq!(self.hear_voice(number), voice(OPUS, number, &frame(number)), "{number}");
        }
    }

    /// Returns whether the last of five packets repeats earlier frames: as many as the widest spacing.
    fn repeats(&mut self, number: u16) -> bool {
        let mut heard = Vec::new();
        for number in number..number + 5 {
            heard = self.hear_voice(number);
        }
        heard[1] & 0x7f == RED
    }

    /// The client reports after this packet.
    fn report(&mut self, number: u16, lost: u16) {
        let report = report(number, lost);
        self.feed_back(number, &report);
    }

    fn feed_back(&mut self, number: u16, compound: &[u8]) {
        let ms = u64::from(number) * 20;
        self.bench.at(ms, |session, cx| session.handle_client_rtcp(compound, cx));
    }

    fn tick(&mut self, number: u16) {
        self.bench.at(u64::from(number) * 20, WorkerSession::tick);
    }

    /// Delivers a packet of the client. Returns what the node receives.
    fn speak(&mut self, number: u16, packet: &[u8]) -> Vec<Vec<u8>> {
        self.bench.at(u64::from(number) * 20, |session, cx| {
            session.handle_client_rtp(packet, cx);
            flush_ports(session, cx);
        });
        received(&self.node)
    }
}

#[test]
fn frames_are_repeated_while_packets_are_lost() {
    let mut call = Call::lossy();
    // No frame is kept yet.
    call.plain(51..=52);
    let mut added = 0;
    for number in 53..=100 {
        let heard = call.hear_voice(number);
        let header = rtp::RtpHeader::parse(&heard).unwrap();
        let plain = voice(OPUS, number, &frame(number));
        let expected = rtp::RtpHeader {
            payload_type: RED,
            payload_end: heard.len(),
            ..rtp::RtpHeader::parse(&plain).unwrap()
        };
        assert_eq!(header, expected);
        let repeated = [number - 4, number - 2, number];
        let repeated = repeated.into_iter().filter(|number| *number > 50).map(frame);
        assert_eq!(frames(&heard), repeated.collect::<Vec<_>>());
        added += heard.len() - plain.len();
    }
    let counts = call.bench.session.take_counts();
    assert_eq!(counts.redundant_bytes, added as u64);
    let bytes = (1..=100).map(|number| voice(OPUS, number, &frame(number)).len());
    let total = call.bench.session.totals(call.bench.start).bytes_down;
    assert_eq!(total, (bytes.sum::<usize>() + added) as u64);
}

#[test]
fn repeated_frames_are_no_loss_after_repair() {
    let mut call = Call::lossy();
    for (number, is_repaired) in [(51, false), (56, true), (61, false)] {
        if number == 61 {
            let answered = Arc::new(srtp::answered(true));
            call.bench.session.renegotiate(media(Srtp::Plain, false), answered);
        }
        call.tick(number);
        let now = call.bench.start + Duration::from_millis(u64::from(number) * 20);
        let measures = call.bench.session.summary(now).unwrap().measures;
        assert_eq!(measures.measured(Metric::LossDown), Some(101_562));
        let left = measures.measured(Metric::LossDownAfterRepair).unwrap();
        // The cube of the loss: two frames are repeated.
        assert_eq!(left, if is_repaired { 1_047 } else { 101_562 });
        call.repeats(number);
    }
}

#[test]
fn redundancy_ends_five_seconds_after_the_last_loss() {
    let mut call = Call::lossy();
    assert!(call.repeats(51));
    // Less than 5 s after the loss, and more.
    call.report(55, 5);
    call.tick(299);
    assert!(call.repeats(299));
    call.report(303, 5);
    call.tick(304);
    assert!(!call.repeats(304));
    // The next loss.
    call.report(308, 6);
    call.tick(308);
    assert!(call.repeats(309));
}

#[test]
fn requests_begin_redundancy_at_the_next_turn() {
    let mut call = Call::new(true);
    call.plain(1..=20);
    let mut request = Vec::new();
    rtcp::write_nack(5, SSRC, &[15], &mut request);
    call.feed_back(20, &request);
    call.tick(20);
    assert!(!call.repeats(21), "one of 200 packets is half a percent");
    request.clear();
    rtcp::write_nack(5, SSRC, &[23], &mut request);
    call.feed_back(25, &request);
    call.tick(26);
    assert!(call.repeats(26));
}

/// mediasoup 1898: the node's own stream has gaps.
#[test]
fn loss_before_the_gateway_repeats_no_frames() {
    let mut call = Call::new(true);
    call.plain((1..=50).filter(|number| number % 10 != 0));
    call.report(49, 4);
    call.tick(50);
    assert!(!call.repeats(51));
    call.plain((56..=99).filter(|number| number % 10 != 0));
    call.report(99, 9);
    call.tick(100);
    assert!(!call.repeats(101));
}

#[test]
fn numbers_go_on_over_a_switch_while_frames_are_repeated() {
    let mut call = Call::lossy();
    assert!(call.repeats(51));
    call.hop = hop(1);
    call.bench.board = Arc::new(Board::new(2));
    let route = Route::new(2, RedundancyMode::Hot, [(call.hop, HopGrant::Admitted)]);
    call.bench.session.route = Arc::new(RouteCell::holding(route));
    for number in 56..60_u16 {
        // The other node has numbers of its own.
        let packet = voice_of(77, OPUS, 9_000 + number, &frame(number));
        let heard = call.hear(number, &packet).unwrap();
        let header = rtp::RtpHeader::parse(&heard).unwrap();
        assert_eq!((header.payload_type, header.ssrc), (RED, SSRC));
        assert_eq!(header.sequence, number);
        assert_eq!(header.timestamp, u32::from(number) * 960);
        assert_eq!(frames(&heard), [number - 4, number - 2, number].map(frame));
    }
}

#[test]
fn redundancy_of_the_node_passes_as_it_is() {
    let mut call = Call::lossy();
    for number in 51..60 {
        let packet = redundant(number, &[1]);
        assert_eq!(call.hear(number, &packet), Some(packet));
    }
    assert_eq!(call.bench.session.take_counts().redundant_bytes, 0);
}

#[test]
fn header_stays_and_padding_goes() {
    let mut call = Call::lossy();
    assert!(call.repeats(51));
    let plain = voice(OPUS, 56, &[]);
    let mut packet = plain[..12].to_vec();
    packet[0] = 0x80 | 0x20 | 0x10 | 1;
    // A CSRC and a header extension of a word.
    packet.extend_from_slice(&[1, 2, 3, 4, 0xbe, 0xde, 0, 1, 0x10, 7, 0, 0]);
    packet.extend_from_slice(&frame(56));
    packet.extend_from_slice(&[0, 0, 3]);
    let heard = call.hear(56, &packet).unwrap();
    assert_eq!(heard[0], 0x80 | 0x10 | 1);
    assert_eq!(heard[1], 0x80 | RED);
    assert_eq!(heard[2..24], packet[2..24]);
    assert_eq!(frames(&heard), [52, 54, 56].map(frame));
}

#[test]
fn packet_that_would_be_too_long_repeats_no_frames() {
    for (bytes, is_repeated) in [(581, true), (582, false)] {
        let mut call = Call::lossy();
        let long = |number: u16| voice(OPUS, number, &vec![0xf8; bytes]);
        for number in [51, 52] {
            assert_eq!(call.hear(number, &long(number)), Some(long(number)));
        }
        // 12 bytes of the header and 5 of blocks, and two frames.
        let heard = call.hear(53, &long(53)).unwrap();
        assert_eq!(heard[1] & 0x7f == RED, is_repeated);
        assert!(heard.len() <= 1_180, "{}", heard.len());
    }
}

#[test]
fn frames_of_lost_packets_reach_the_node_once() {
    let mut call = Call::new(true);
    let plain = |number| voice(OPUS, number, &frame(number));
    assert_eq!(call.speak(1, &plain(1)), [plain(1)]);
    assert_eq!(call.speak(2, &redundant(2, &[1])), [redundant(2, &[1])]);
    let mut third = plain(3);
    // No block tells the marker of a lost packet.
    third[1] &= 0x7f;
    let last = redundant(4, &[2, 1]);
    assert_eq!(call.speak(4, &last), [third, last]);
    assert!(call.speak(5, &redundant(3, &[2, 1])).is_empty(), "it comes late");
    assert_eq!(call.bench.drops(DropReason::Duplicate), 1);
    let summary = call.bench.session.summary(call.bench.start).unwrap();
    assert_eq!((summary.counts.recovered, summary.flow.sent[0]), (1, 4));
}

#[test]
fn recovered_packets_are_not_asked_for() {
    let mut call = Call::new(true);
    let mut media = MediaDescription::clone(&call.bench.session.media);
    media.streams[0].feedback.nack = true;
    call.bench.session.media = Arc::new(media);
    let plain = |number| voice(OPUS, number, &frame(number));
    call.speak(1, &plain(1));
    assert_eq!(call.speak(3, &redundant(3, &[1])).len(), 2);
    assert!(received(&call.bench.client).is_empty());
    call.speak(5, &plain(5));
    assert_eq!(received(&call.bench.client).len(), 1, "a NACK of the fourth");
    let summary = call.bench.session.summary(call.bench.start).unwrap();
    assert_eq!((summary.counts.recovered, summary.counts.requested), (1, 1));
}

#[test]
fn recovered_packets_reach_both_hops() {
    let mut call = Call::new(true);
    let twin = UdpSocket::bind("127.0.0.1:0").unwrap();
    twin.set_nonblocking(true).unwrap();
    call.bench.session.attach(hop(1), port_leg(twin.local_addr().unwrap()));
    call.bench.board = Arc::new(Board::new(2));
    let hops = [call.hop, hop(1)].map(|hop| (hop, HopGrant::Admitted));
    let route = Route::new(1, RedundancyMode::Hitless, hops);
    call.bench.session.route = Arc::new(RouteCell::holding(route));
    assert_eq!(call.speak(1, &voice(OPUS, 1, &frame(1))).len(), 1);
    let at_node = call.speak(3, &redundant(3, &[1]));
    assert_eq!(at_node.len(), 2);
    assert_eq!(received(&twin)[1..], at_node);
}

#[test]
fn malformed_redundancy_of_the_client_is_dropped() {
    let mut call = Call::new(true);
    let good = redundant(1, &[]);
    assert_eq!(call.speak(1, &good), [good]);
    let mut bad = redundant(2, &[1]);
    bad.truncate(bad.len() - 4);
    assert!(call.speak(2, &bad).is_empty());
    assert_eq!(call.bench.drops(DropReason::Malformed), 1);
    let next = redundant(3, &[1]);
    assert_eq!(call.speak(3, &next).len(), 2, "the dropped one is lost");
}

#[test]
fn client_without_redundancy_hears_plain_packets() {
    let mut call = Call::new(false);
    for number in 1..10 {
        let heard = call.hear(number, &redundant(number, &[1]));
        assert_eq!(heard, Some(voice(OPUS, number, &frame(number))));
    }
    let mut other_number = redundant(11, &[1]);
    other_number[1] = 0x80 | (RED - 1);
    let mut other_codec = redundant(12, &[1]);
    other_codec[12] = 0x80 | (OPUS + 1);
    let mut other_own = redundant(13, &[1]);
    other_own[16] = OPUS + 1;
    let unreadable = voice(RED, 14, &[0x80 | OPUS]);
    for packet in [other_number, other_codec, other_own, unreadable] {
        assert_eq!(call.hear(15, &packet), None);
    }
    assert_eq!(call.bench.drops(DropReason::UndeclaredPayload), 4);
}

#[test]
fn plain_packets_of_two_hops_count_once() {
    let mut call = Call::new(false);
    call.bench.board = Arc::new(Board::new(2));
    let hops = [call.hop, hop(1)].map(|hop| (hop, HopGrant::Admitted));
    let route = Route::new(1, RedundancyMode::Hitless, hops);
    call.bench.session.route = Arc::new(RouteCell::holding(route));
    for number in 1..=3 {
        let packet = redundant(number, &[1]);
        assert_eq!(call.hear(number, &packet), Some(voice(OPUS, number, &frame(number))));
        call.bench.at(u64::from(number) * 20, |session, cx| {
            session.handle_node_packet(hop(1), &packet, cx);
        });
    }
    assert!(received(&call.bench.client).is_empty());
    let summary = call.bench.session.summary(call.bench.start).unwrap();
    assert_eq!(summary.flow.received[StreamKind::Audio as usize], 3);
}

#[test]
fn copy_measures_the_path_again() {
    let mut call = Call::lossy();
    assert!(call.repeats(51));
    let state = call.bench.session.hand_out(&Flows::new(1));
    call.bench.session.go_on(state);
    assert!(!call.repeats(56));
    call.report(60, 12);
    call.tick(61);
    assert!(call.repeats(61));
}

#[test]
fn copied_session_goes_on_measuring() {
    let mut call = Call::lossy();
    let copy = call.bench.session.hand_out(&Flows::new(1)).media.unwrap();
    let notes = |state: &MediaState| state.measurements.losses_of(SSRC).unwrap().notes_packets();
    assert!(!notes(&copy) && notes(call.bench.session.state()));
}

#[test]
fn redundancy_follows_the_negotiation() {
    let mut call = Call::lossy();
    assert!(call.repeats(51));
    let has_some = |call: &mut Call, media: Arc<MediaDescription>| {
        let redundancy = &mut call.bench.session.running().redundancy;
        Redundancy::follow(redundancy, &media);
        redundancy.is_some()
    };
    assert!(has_some(&mut call, media(Srtp::Plain, true)));
    assert!(call.repeats(56), "the state remains");
    assert!(!has_some(&mut call, media(Srtp::Opaque, true)), "it cannot be read");
    assert!(has_some(&mut call, media(Srtp::Terminated, true)));
    assert!(!call.repeats(61), "it begins anew");
    assert!(!has_some(&mut call, media(Srtp::Plain, false)));
    let mut dangling = MediaDescription::clone(&media(Srtp::Plain, true));
    dangling.streams[0].payload_types.remove(0);
    assert!(!has_some(&mut call, Arc::new(dangling)), "its blocks are undeclared");
}

#[test]
fn long_frames_are_repeated_in_the_next_packet() {
    let mut call = Call::new(true);
    // 40 ms.
    let long = |number: u16| {
        let mut packet = voice(OPUS, number, &frame(number));
        rtp::set_timestamp(&mut packet, u32::from(number) * 1_920);
        packet
    };
    for number in 1..=50 {
        assert_eq!(call.hear(2 * number, &long(number)), Some(long(number)));
    }
    call.feed_back(100, &report(50, 5));
    call.tick(100);
    assert_eq!(call.hear(102, &long(51)), Some(long(51)));
    let heard = call.hear(104, &long(52)).unwrap();
    assert_eq!(frames(&heard), [51, 52].map(frame));
}

#[test]
fn frames_with_redundancy_of_their_own_are_not_repeated() {
    let mut call = Call::new(true);
    // SILK with the flag of LBRR (RFC 6716, section 4.2.3).
    call.hear(1, &voice(OPUS, 1, &[0x08, 0x40]));
    call.plain(2..=50);
    call.report(50, 5);
    call.tick(50);
    assert!(!call.repeats(51));
    call.plain(56..=250);
    call.report(250, 25);
    call.tick(252);
    assert!(call.repeats(253), "it ended 5 s ago");
}

#[test]
fn client_that_can_ask_in_time_gets_no_redundancy() {
    let mut call = Call::new(true);
    let mut media = MediaDescription::clone(&call.bench.session.media);
    media.streams[0].feedback.nack = true;
    call.bench.session.media = Arc::new(media);
    call.plain(1..=50);
    call.report(50, 1);
    for (round_trip_us, number, is_red) in
        [(None, 51, true), (Some(80_000), 56, false), (None, 61, false), (Some(81_000), 66, true)]
    {
        if let Some(rtt_us) = round_trip_us {
            let path = PathReport { rtt_us, lost: 0, sent: 1 };
            call.bench.at(u64::from(number) * 20, |session, cx| session.handle_quic_path(path, cx));
        }
        call.tick(number);
        assert_eq!(call.repeats(number), is_red, "{number}");
    }
}

#[test]
fn frames_are_as_far_apart_as_the_jitter_buffer_allows() {
    // Metrics of VoIP: the buffer holds 60 ms, or 10 ms.
    for (buffer_ms, repeated) in [(60, &[58, 59, 60][..]), (10, &[59, 60][..])] {
        let mut call = Call::new(true);
        call.plain(1..=50);
        let metrics = extended(&[0x0700_0008, SSRC, 0, 0, 0, 0, 0, buffer_ms, 0]);
        call.feed_back(50, &[report(50, 5), metrics].concat());
        call.tick(50);
        let mut heard = Vec::new();
        for number in 51..=60 {
            heard = call.hear_voice(number);
        }
        assert_eq!(frames(&heard), repeated.iter().map(|it| frame(*it)).collect::<Vec<_>>());
    }
}

#[test]
fn fifth_speaker_waits_for_a_place() {
    let mut call = Call::lossy();
    let mut speak = |number, ssrc| {
        let packet = voice_of(ssrc, OPUS, number, &frame(number));
        call.hear(number, &packet).unwrap()[1] & 0x7f == RED
    };
    for number in 51..=60 {
        let is_red = [SSRC, 21, 22, 23, 24].map(|ssrc| speak(number, ssrc));
        let repeats = number > 52;
        assert_eq!(is_red, [repeats, repeats, repeats, repeats, false], "{number}");
    }
    // The second speaker is silent for a second.
    for number in 61..=120 {
        let is_red = [SSRC, 22, 23, 24].map(|ssrc| speak(number, ssrc));
        assert_eq!(is_red, [true, true, true, number > 111], "{number}");
    }
}
