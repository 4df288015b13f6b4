//! Signs of impaired media in summaries.

use super::*;
use crate::flows::Flows;

const VOICE: u8 = 0;
const COMFORT_NOISE: u8 = 13;
const PICTURE: u8 = 96;

pub(super) fn hop(node: u32) -> Hop {
    Hop { node: NodeId(node), incarnation: Incarnation(1) }
}

/// A session with voice and video at the first hop.
pub(super) fn call() -> Bench {
    let declared = |address| ClientAddressing::Declared { listener: 0, address, rtcp: address };
    let mut bench = Bench::new(declared, Srtp::Plain);
    let payload = |number, codec: &str| PayloadType::new(number, codec, 8_000);
    let voice = MediaStream {
        kind: StreamKind::Audio,
        payload_types: vec![payload(VOICE, "PCMU"), payload(COMFORT_NOISE, "CN")],
        feedback: Takes::default(),
        bitrate_kbps: None,
    };
    let video = bench.session.media.streams.clone();
    let streams = [voice].into_iter().chain(video).collect();
    let media = MediaDescription::new(streams, RtcpPort::Mux, Srtp::Plain);
    bench.session.media = Arc::new(media);
    bench.board = Arc::new(Board::new(2));
    route_to(&mut bench, 0);
    bench
}

fn route_to(bench: &mut Bench, node: u32) {
    let hops = [(hop(node), HopGrant::Admitted)];
    let route = Route::new(u64::from(node) + 1, RedundancyMode::Hot, hops);
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
fn copy_measures_jitter_in_the_time_of_its_own_worker() {
    let mut bench = call();
    hear_voice(&mut bench, 0, hop(0), 0);
    let state = bench.session.hand_out(&Flows::new(1));
    let nine_seconds_older = bench.start - Duration::from_secs(9);
    bench.egress.stats = Arc::new(WorkerStats::new(nine_seconds_older, 1));
    bench.session.go_on(state);
    assert_eq!(hear_voice(&mut bench, 1, hop(0), 0), Some(0));
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
fn pauses_and_pairs_of_packets_have_little_jitter() {
    let mut bench = call();
    let mut hear = |ms: u64, sent_ms: u32, number| {
        let mut voice = packet(VOICE, number, b"anything");
        rtp::set_timestamp(&mut voice, 8 * sent_ms);
        bench.at(ms, |session, cx| session.handle_node_packet(hop(0), &voice, cx));
    };
    // Silence suppression: ten packets, and a pause of 400 ms.
    for number in 0..100_u16 {
        let ms = u64::from(number) * 20 + u64::from(number / 10) * 400;
        hear(ms, ms as u32, number);
    }
    assert_eq!(flow(&mut bench, 6_000).jitter_us, Some(0));
    let mut bench = call();
    // Two packets every 40 ms.
    for number in 0..100 {
        let voice = packet(VOICE, number, b"anything");
        let ms = u64::from(number / 2) * 40;
        bench.at(ms, |session, cx| session.handle_node_packet(hop(0), &voice, cx));
    }
    let jitter = flow(&mut bench, 2_000).jitter_us.unwrap();
    assert!((19_000..22_000).contains(&jitter), "{jitter}");
}

/// Sends voice of the client.
fn speak(bench: &mut Bench, payloads: &[&[u8]]) -> FlowCounts {
    for (number, payload) in (1..).zip(payloads) {
        let packet = packet(VOICE, number, payload);
        bench.at(20, |session, cx| session.handle_client_rtp(&packet, cx));
    }
    flow(bench, 100)
}

#[test]
fn voice_is_silent_until_its_first_sound() {
    let (silence, sound) = ([0xff_u8; 160], [0x5a_u8; 160]);
    let mut bench = call();
    let begun = speak(&mut bench, &[&silence, &silence]);
    assert_eq!((begun.silent_voice, begun.jitter_up_us), (2, Some(20_000 / 16)), "two at once");
    assert_eq!(flow(&mut bench, 200).jitter_up_us, None, "no voice since");
    assert_eq!(speak(&mut bench, &[&silence]).silent_voice, 3);
    assert_eq!(speak(&mut bench, &[&sound]).silent_voice, 0);
    let muted = speak(&mut bench, &[&silence, &silence]);
    assert_eq!(muted.silent_voice, 0, "the microphone is muted");
    let mut bench = call();
    speak(&mut bench, &[&silence]);
    let noise = packet(COMFORT_NOISE, 2, &[0x40]);
    bench.at(40, |session, cx| session.handle_client_rtp(&noise, cx));
    assert_eq!(speak(&mut bench, &[&silence]).silent_voice, 0, "comfort noise");
}

#[test]
fn encrypted_voice_is_not_inspected() {
    let mut bench = call();
    bench.session.state().signs = measurements::MediaSigns::new(false);
    assert_eq!(speak(&mut bench, &[&[0xff_u8; 160]]).silent_voice, 0);
}

/// Video of the client, which the node requests key frames of.
struct Video {
    bench: Bench,
    sent: u16,
}

impl Video {
    /// The client sends a packet that begins a VP8 frame: 0 a key frame, 1 another.
    fn send(&mut self, ms: u64, frame: u8) {
        self.sent += 1;
        let packet = packet(PICTURE, self.sent, &[0x10, frame]);
        self.bench.at(ms, |session, cx| session.handle_client_rtp(&packet, cx));
    }

    fn request(&mut self, ms: u64, ssrc: u32) {
        let mut pli = Vec::new();
        rtcp::write_receiver_report(5, &[], &mut pli);
        rtcp::write_pli(rtcp::Pli { sender: 5, media: ssrc }, &mut pli);
        self.bench.at(ms, |session, cx| session.handle_node_packet(hop(0), &pli, cx));
    }

    fn missing(&mut self, ms: u64) -> u32 {
        flow(&mut self.bench, ms).key_frame_missing_ms
    }
}

#[test]
fn requests_without_a_key_frame_are_timed() {
    let ssrc = u32::from(PICTURE) + 1;
    let mut video = Video { bench: call(), sent: 0 };
    video.send(0, 0);
    for ms in [0, 1_000, 2_000] {
        video.request(ms, ssrc);
        video.send(ms + 500, 1);
    }
    assert_eq!(video.missing(2_500), 2_000);
    assert_eq!(video.missing(4_001), 0, "not requested again");
    video.send(4_050, 1);
    video.request(4_100, ssrc);
    video.send(4_150, 1);
    assert_eq!(video.missing(4_200), 0, "a new request");
    video.request(5_100, ssrc);
    video.send(5_150, 1);
    assert_eq!(video.missing(5_200), 1_000);
    video.send(5_300, 0);
    video.request(5_400, ssrc);
    assert_eq!(video.missing(5_500), 0, "a key frame came");
}

#[test]
fn static_screen_lacks_no_key_frame() {
    let ssrc = u32::from(PICTURE) + 1;
    let mut video = Video { bench: call(), sent: 0 };
    video.send(0, 0);
    for ms in [100, 1_100, 2_100, 3_100, 4_100] {
        video.request(ms, ssrc);
        assert_eq!(video.missing(ms + 50), 0, "a shared screen without changes");
    }
}

#[test]
fn request_for_another_stream_is_ignored() {
    let ssrc = u32::from(PICTURE) + 1;
    let mut video = Video { bench: call(), sent: 0 };
    video.send(5_000, 0);
    for ms in [6_000, 7_000, 8_000, 9_000] {
        video.request(ms, ssrc + 1);
        video.send(ms + 500, 1);
        assert_eq!(video.missing(ms + 600), 0, "the stream of another client");
    }
}
