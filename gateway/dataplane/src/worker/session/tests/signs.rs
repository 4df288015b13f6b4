//! Signs of impaired media in summaries.

use super::*;

const VOICE: u8 = 0;
const PICTURE: u8 = 96;

fn hop(node: u32) -> Hop {
    Hop { node: NodeId(node), incarnation: Incarnation(1) }
}

/// A session with voice and video at the first hop.
fn call() -> Bench {
    let declared = |address| ClientAddressing::Declared { listener: 0, address, rtcp: address };
    let mut bench = Bench::new(declared, Srtp::Plain);
    let pcmu = PayloadType { number: VOICE, codec: "PCMU".into(), clock_rate: 8_000 };
    let voice = MediaStream {
        kind: StreamKind::Audio,
        payload_types: vec![pcmu],
        feedback: Takes::default(),
        bitrate_kbps: None,
    };
    let video = bench.session.media.streams.clone();
    let streams = [voice].into_iter().chain(video).collect();
    let media = MediaDescription { streams, rtcp: RtcpPort::Mux, srtp: Srtp::Plain };
    bench.session.media = Arc::new(media);
    bench.board = Arc::new(Board::new(2));
    route_to(&mut bench, 0);
    bench
}

fn route_to(bench: &mut Bench, node: u32) {
    let (version, hops) = (u64::from(node) + 1, vec![(hop(node), HopGrant::Admitted)]);
    let route =
        Route { version, mode: RedundancyMode::Hot, hops, leaving: None, lead: Duration::ZERO };
    bench.session.route = Arc::new(RouteCell::holding(route));
}

fn packet(payload_type: u8, number: u16, payload: &[u8]) -> Vec<u8> {
    let timestamp = 160 * u32::from(number);
    let ssrc = u32::from(payload_type) + 1;
    let fields = rtp::Fields { payload_type, marker: true, sequence: number, timestamp, ssrc };
    let mut packet = Vec::new();
    rtp::write(&fields, payload, &mut packet);
    packet
}

fn flow(bench: &mut Bench, ms: u64) -> FlowCounts {
    let now = bench.start + Duration::from_millis(ms);
    bench.session.summary(now).unwrap().flow
}

/// Voice for a second, of which every other packet is late by this time.
fn hear_voice(bench: &mut Bench, second: u16, from: Hop, late_ms: u64) -> Option<u32> {
    for number in second * 50..(second + 1) * 50 {
        let ms = u64::from(number) * 20 + u64::from(number % 2) * late_ms;
        let voice = packet(VOICE, number, b"anything");
        bench.at(ms, |session, cx| session.handle_node_packet(from, &voice, cx));
    }
    flow(bench, (u64::from(second) + 1) * 1_000).jitter_us
}

#[test]
fn jitter_of_heard_voice_is_measured() {
    let mut bench = call();
    let jitter = hear_voice(&mut bench, 0, hop(0), 19).unwrap();
    assert!((17_000..=19_000).contains(&jitter), "{jitter}");
    assert_eq!(flow(&mut bench, 1_100).jitter_us, None, "no voice since");
    let jitter = hear_voice(&mut bench, 1, hop(0), 0).unwrap();
    assert!(jitter < 1_500, "{jitter}");
    hear_voice(&mut bench, 2, hop(0), 19);
    route_to(&mut bench, 1);
    assert_eq!(hear_voice(&mut bench, 3, hop(1), 0), Some(0), "another hop");
}

#[test]
fn client_reports_jitter_of_its_voice() {
    let mut bench = call();
    for payload_type in [VOICE, PICTURE] {
        let packet = packet(payload_type, 1, b"anything");
        bench.at(0, |session, cx| session.handle_node_packet(hop(0), &packet, cx));
    }
    let block = |payload_type: u8, jitter| rtcp::ReportBlock {
        ssrc: u32::from(payload_type) + 1,
        jitter,
        ..<_>::default()
    };
    let mut report = Vec::new();
    let blocks = [block(VOICE, 320), block(PICTURE, 9_000)];
    rtcp::write_receiver_report(5, &blocks, &mut report);
    bench.at(20, |session, cx| session.handle_client_rtcp(&report, cx));
    assert_eq!(flow(&mut bench, 100).client_jitter_us, Some(40_000));
    assert_eq!(flow(&mut bench, 200).client_jitter_us, None, "reported once");
}

#[test]
fn voice_without_sound_is_counted() {
    let mut bench = call();
    let (silence, sound) = ([0xff; 160], [0xff, 0x7f].repeat(80));
    for (number, payload) in [(1, &silence[..]), (2, &sound[..]), (3, &silence[..])] {
        let packet = packet(VOICE, number, payload);
        bench.at(20, |session, cx| session.handle_client_rtp(&packet, cx));
    }
    let flow = flow(&mut bench, 100);
    assert_eq!((flow.sent, flow.silent), ([3, 0], 2));
    assert!(flow.jitter_up_us.is_some());
}

#[test]
fn requests_without_a_key_frame_are_timed() {
    let mut bench = call();
    let mut number = 0;
    let mut sends = |bench: &mut Bench, ms, frame: u8| {
        number += 1;
        let packet = packet(PICTURE, number, &[0x10, frame]);
        bench.at(ms, |session, cx| session.handle_client_rtp(&packet, cx));
    };
    let mut pli = Vec::new();
    rtcp::write_receiver_report(5, &[], &mut pli);
    rtcp::write_pli(rtcp::Pli { sender: 5, media: u32::from(PICTURE) + 1 }, &mut pli);
    let asks = |bench: &mut Bench, ms| {
        bench.at(ms, |session, cx| session.handle_node_packet(hop(0), &pli, cx))
    };
    let missing = |bench: &mut Bench, ms| flow(bench, ms).key_frame_missing_ms;
    for ms in [0, 1_000, 2_000] {
        asks(&mut bench, ms);
        sends(&mut bench, ms + 500, 1);
    }
    assert_eq!(missing(&mut bench, 2_500), 2_000);
    assert_eq!(missing(&mut bench, 4_001), 0, "not asked again");
    asks(&mut bench, 4_100);
    assert_eq!(missing(&mut bench, 4_200), 0, "a new request");
    asks(&mut bench, 5_100);
    assert_eq!(missing(&mut bench, 5_200), 1_000);
    sends(&mut bench, 5_300, 0);
    asks(&mut bench, 5_400);
    assert_eq!(missing(&mut bench, 5_500), 0, "a key frame came");
}
