use evenkeel_model::FeedbackSupport as Takes;
use evenkeel_model::{MediaStream, PayloadType, RtcpPort, Srtp};

use super::*;

const VOICE: u32 = 10;
const VIDEO: u32 = 20;

const REMB: Takes = Takes {
    pli: true,
    fir: true,
    remb: true,
    tmmbr: true,
    nack: false,
    transport_cc: false,
    ccfb: false,
};

fn feedback(takes: Takes, srtp: Srtp) -> SenderFeedback {
    let stream = |kind, number| MediaStream {
        kind,
        payload_types: vec![PayloadType::new(number, "any", 90_000)],
        feedback: takes,
        bitrate_kbps: None,
    };
    let streams = vec![stream(StreamKind::Audio, 111), stream(StreamKind::Video, 96)];
    let description = MediaDescription::new(streams, RtcpPort::Mux, srtp);
    let (sources, video) = (vec![VOICE, VIDEO], vec![VIDEO]);
    SenderFeedback { sources, video, ..SenderFeedback::new(7, &description) }
}

/// Returns the packets behind receiver report and CNAME.
fn said(compound: &[u8]) -> Vec<RtcpPacket<'_>> {
    let mut packets = rtcp::packets(compound).map(Result::unwrap);
    assert!(matches!(packets.next(), Some(RtcpPacket::ReceiverReport(report)) if report.ssrc == 7));
    let Some(RtcpPacket::Other { payload_type: 202, count: 1 }) = packets.next() else {
        panic!("no description")
    };
    // Behind the empty receiver report: SSRC, item and length.
    assert_eq!(compound[12..18], [0, 0, 0, 7, 1, 16]);
    packets.collect()
}

fn remb_of(compound: &[u8]) -> u64 {
    match said(compound)[..] {
        [RtcpPacket::Remb(remb)] => remb.bitrate_bps,
        ref other => panic!("{other:?}"),
    }
}

fn after(ms: u64) -> Instant {
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    *START + Duration::from_millis(ms)
}

#[test]
fn compound_begins_with_report_and_cname() {
    let mut feedback = feedback(REMB, Srtp::Plain);
    feedback.want_key_frame();
    let request = feedback.key_frame_request(99).unwrap();
    assert!(matches!(said(&request)[..], [RtcpPacket::Pli(pli)] if pli.media == 99));
    let request = feedback.key_frame_of_client(after(0)).unwrap();
    assert!(matches!(said(&request)[..], [RtcpPacket::Pli(pli)] if pli.media == VIDEO));
    assert_eq!(feedback.key_frame_of_client(after(299)), None, "one is on its way");
    assert!(feedback.key_frame_of_client(after(300)).is_some());
}

#[test]
fn each_fir_has_a_new_number() {
    let mut feedback = feedback(Takes { pli: false, ..REMB }, Srtp::Plain);
    for number in [1, 2] {
        let request = feedback.key_frame_of_client(after(1_000 * u64::from(number))).unwrap();
        let [RtcpPacket::Fir(fir)] = said(&request)[..] else { panic!("no FIR") };
        let entries: Vec<_> = fir.entries().collect();
        assert_eq!(entries, [rtcp::FirEntry { media: VIDEO, number }]);
    }
}

#[test]
fn cap_and_its_end_are_repeated() {
    let mut feedback = feedback(REMB, Srtp::Plain);
    assert!(!feedback.cap_is_due(0, after(0)), "there was none");
    assert!(feedback.cap_is_due(300, after(0)));
    assert_eq!(remb_of(&feedback.cap(300, after(0)).unwrap()), 300_000);
    assert!(!feedback.cap_is_due(300, after(999)));
    assert!(feedback.cap_is_due(300, after(1_000)));
    let mut told = Vec::new();
    feedback.cap(0, after(2_000));
    for ms in (2_000..20_000).step_by(100) {
        if feedback.cap_is_due(0, after(ms)) {
            told.push(ms);
            assert!(remb_of(&feedback.cap(0, after(ms)).unwrap()) > 900_000_000);
        }
    }
    assert_eq!(told, [3_000, 4_000, 5_000, 6_000]);
}

#[test]
fn tmmbr_caps_each_video_stream() {
    let mut feedback = feedback(Takes { remb: false, ..REMB }, Srtp::Plain);
    feedback.video.push(21);
    let cap = feedback.cap(300, after(0)).unwrap();
    let [RtcpPacket::Other { payload_type, count }] = said(&cap)[..] else { panic!("no TMMBR") };
    assert_eq!((payload_type, count), (rtcp::TRANSPORT_FEEDBACK, rtcp::TMMBR));
    let mut expected = Vec::new();
    rtcp::write_tmmbr(7, 150_000, &[VIDEO, 21], &mut expected);
    assert!(cap.ends_with(&expected));
}

#[test]
fn node_limit_is_lowered_to_the_cap() {
    let mut feedback = feedback(REMB, Srtp::Plain);
    let word = |bps| {
        let mut compound = Vec::new();
        rtcp::write_receiver_report(7, &[], &mut compound);
        rtcp::write_cname(7, &[b'n'; 16], &mut compound);
        rtcp::write_remb(7, bps, &[VIDEO], &mut compound);
        compound
    };
    for (says, arrives) in [(2_000_000, 300_000), (300_000, 300_000), (80_000, 80_000)] {
        let mut compound = word(says);
        feedback.limit(&mut compound, 300, after(0));
        assert_eq!(remb_of(&compound), arrives);
    }
    assert!(!feedback.cap_is_due(300, after(999)), "it was said");
    let mut compound = word(2_000_000);
    feedback.limit(&mut compound, 0, after(0));
    assert_eq!(remb_of(&compound), 2_000_000, "there is no cap");
}

#[test]
fn no_rtcp_is_written_with_srtp() {
    let mut feedback = feedback(REMB, Srtp::Opaque);
    feedback.want_key_frame();
    assert_eq!(feedback.key_frame_request(99), None);
    assert_eq!(feedback.key_frame_of_client(after(0)), None);
    assert_eq!(feedback.cap(300, after(0)), None);
}

#[test]
fn key_frames_of_the_hop_before_are_not_awaited() {
    let mut feedback = feedback(REMB, Srtp::Plain);
    let asked = |feedback: &mut SenderFeedback| {
        feedback.want_key_frame();
        feedback.key_frame_request(99).unwrap();
        feedback.await_key_frame_of_hop(99, after(0));
    };
    asked(&mut feedback);
    let came = feedback.key_frame_of_hop_came(99, after(80));
    assert_eq!(came, Some(Duration::from_millis(80)));
    assert!(!feedback.looks_for_key_frame(99));
    asked(&mut feedback);
    feedback.want_key_frame_after_switch();
    assert_eq!(feedback.key_frame_of_hop_came(99, after(80)), None);
    assert!(!feedback.looks_for_key_frame(99), "the next hop begins with one");
}

#[test]
fn awaited_key_frames_are_bounded() {
    let mut awaited = AwaitedKeyFrames::default();
    (0..20).for_each(|ssrc| awaited.request(ssrc, after(0)));
    assert_eq!(awaited.streams.len(), FEEDBACK_SOURCES_MAX);
    assert!(awaited.has(19) && !awaited.has(11));
}
