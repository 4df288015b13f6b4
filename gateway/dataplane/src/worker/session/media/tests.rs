use evenkeel_media::rtcp::RtcpPacket;
use evenkeel_media::rtp::RtpHeader;
use evenkeel_model::FeedbackSupport as Takes;
use evenkeel_model::{MediaStream, PayloadType, RtcpPort, Srtp};

use super::*;
use crate::worker::session::tests::handed_over;

struct Bench {
    measure: VoiceMeasurements,
    start: Instant,
    sequence: u16,
}

const VOICE: u32 = 10;
const VIDEO: u32 = 20;

impl Bench {
    fn new() -> Bench {
        let start = Instant::now();
        let mut measure = VoiceMeasurements::new(Some(quality::Codec::Opus));
        measure.since = Some(start);
        Bench { measure, start, sequence: 0 }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    /// Voice of the client every 20 ms from `first` until before `end`, with an interval of 100 ms; each tenth packet
    /// is lost if `lossy`.
    fn talk(&mut self, first: u64, end: u64, lossy: bool) -> Measures {
        let mut last = Measures::default();
        for ms in (first..end).step_by(20) {
            self.sequence += 1;
            if self.sequence % 13 == 5 {
                self.measure = handed_over(&self.measure);
            }
            if !lossy || !self.sequence.is_multiple_of(10) {
                let header = RtpHeader {
                    payload_type: 111,
                    marker: false,
                    sequence: self.sequence,
                    timestamp: 48 * ms as u32,
                    ssrc: 1,
                    payload_offset: 12,
                    payload_end: 112,
                };
                let now = self.at(ms);
                self.measure.bytes_up += 112;
                self.measure.sources.receive(&header, 112, 48_000, now);
            }
            if ms % 100 == 80 {
                last = self.measure.interval(self.at(ms + 20));
            }
        }
        last
    }

    /// A report of the client with SSRC, loss in 1/256 and jitter in timestamp units per stream.
    fn report(&mut self, ms: u64, blocks: &[(u32, u8, u32)]) {
        let block = |&(ssrc, fraction_lost, jitter)| rtcp::ReportBlock {
            ssrc,
            fraction_lost,
            jitter,
            ..<_>::default()
        };
        let blocks: Vec<_> = blocks.iter().map(block).collect();
        let mut compound = Vec::new();
        rtcp::write_receiver_report(5, &blocks, &mut compound);
        let rate = |ssrc| match ssrc {
            VOICE => Some(48_000),
            VIDEO => Some(90_000),
            _ => None,
        };
        let now = self.at(ms);
        self.measure.read_reports(&compound, rate, now);
    }

    fn told(&mut self, ms: u64, metric: Metric) -> Option<u32> {
        let now = self.at(ms);
        self.measure.interval(now).measured(metric)
    }
}

#[test]
fn loss_up_follows_reception_and_expires() {
    let mut bench = Bench::new();
    let clean = bench.talk(0, 2_000, false);
    assert_eq!(clean.measured(Metric::LossUp), Some(0));
    let lossy = bench.talk(2_000, 12_020, true).measured(Metric::LossUp).unwrap();
    assert!((50_000..150_000).contains(&lossy), "{lossy} ppm of 10 %");
    for metric in [Metric::LossUp, Metric::JitterUp, Metric::RFactor] {
        assert!(bench.told(12_100, metric).is_some(), "a pause between words");
        assert_eq!(bench.told(14_100, metric), None, "muted: {metric:?}");
    }
    let again = bench.talk(20_000, 20_200, false);
    assert_eq!(again.measured(Metric::LossUp), Some(0), "what was is not remembered");
}

#[test]
fn loss_down_smoothing_is_independent_of_report_rate() {
    for every in [100, 400, 5_000] {
        let mut bench = Bench::new();
        bench.report(0, &[(VOICE, 0, 0)]);
        for ms in (every..=30_000).step_by(every as usize) {
            bench.report(ms, &[(VOICE, 64, 0)]);
        }
        let loss = bench.told(30_000, Metric::LossDown).unwrap();
        assert!((249_000..=250_000).contains(&loss), "{loss} ppm of 25 %, every {every} ms");
    }
    let mut bench = Bench::new();
    bench.report(0, &[(VOICE, 0, 0)]);
    bench.report(100, &[(VOICE, 64, 0)]);
    assert_eq!(bench.told(100, Metric::LossDown), Some(250_000 / 30), "one sample is not all");
}

#[test]
fn losses_of_a_node_death_are_smoothed_out() {
    let mut bench = Bench::new();
    bench.report(0, &[(VOICE, 0, 0)]);
    // 60 ms of voice within a second are 3 of 50 packets.
    bench.report(1_000, &[(VOICE, 15, 0)]);
    let loss = bench.told(1_000, Metric::LossDown).unwrap();
    assert!(loss < 20_000, "{loss} ppm: a ladder goes down at 3 %");
    for ms in [2_000, 3_000, 4_000] {
        bench.report(ms, &[(VOICE, 26, 0)]);
    }
    let loss = bench.told(4_000, Metric::LossDown).unwrap();
    assert!(loss > 30_000, "{loss} ppm: 10 % that stay are one");
}

#[test]
fn worst_stream_counts_by_its_own_clock_rate() {
    let mut bench = Bench::new();
    bench.report(0, &[(VOICE, 64, 480), (VIDEO, 0, 1_800), (99, 0, 1_000_000)]);
    assert_eq!(bench.told(0, Metric::LossDown), Some(250_000));
    assert_eq!(bench.told(0, Metric::JitterDown), Some(20_000), "of video; voice has 10 ms");
}

#[test]
fn missing_reports_expire() {
    let mut bench = Bench::new();
    bench.report(0, &[(VOICE, 64, 480)]);
    bench.measure.quic_path(PathReport { rtt_us: 30_000, lost: 0, sent: 0 }, bench.start);
    let metrics = [Metric::LossDown, Metric::JitterDown, Metric::RttClient, Metric::RFactor];
    let told = |bench: &mut Bench, ms| metrics.map(|metric| bench.told(ms, metric).is_some());
    assert_eq!(told(&mut bench, 14_999), [true; 4]);
    assert_eq!(told(&mut bench, 15_000), [false; 4]);
}

#[test]
fn report_block_gives_the_round_trip_time() {
    let mut bench = Bench::new();
    let info = rtcp::SenderInfo {
        ssrc: VOICE,
        ntp: 0x1234_5678_9abc_def0,
        timestamp: 0,
        packets: 0,
        octets: 0,
    };
    let mut compound = Vec::new();
    rtcp::write_sender_report(&info, &[], &mut compound);
    bench.measure.note_sender_report(&compound, bench.start);
    let block = rtcp::ReportBlock {
        ssrc: VOICE,
        last_sr: 0x5678_9abc,
        delay_since_last_sr: 65_536,
        ..<_>::default()
    };
    let mut answer = Vec::new();
    rtcp::write_receiver_report(5, &[block], &mut answer);
    let now = bench.at(1_040);
    bench.measure.read_reports(&answer, |_| None, now);
    assert_eq!(bench.told(1_040, Metric::RttClient), Some(40_000));
}

#[test]
fn quic_path_gives_loss_and_round_trip_time() {
    let mut bench = Bench::new();
    bench.measure.quic_path(PathReport { rtt_us: 30_000, lost: 5, sent: 20 }, bench.start);
    assert_eq!(bench.told(0, Metric::LossDown), Some(250_000));
    assert_eq!(bench.told(0, Metric::RttClient), Some(30_000));
    bench.measure.quic_path(PathReport { rtt_us: 30_000, lost: 0, sent: 0 }, bench.start);
    assert_eq!(bench.told(0, Metric::LossDown), Some(250_000), "nothing was sent");
}

#[test]
fn r_factor_needs_voice_and_uses_its_codec() {
    let rated = |voice| {
        let mut bench = Bench::new();
        bench.measure.voice = voice;
        bench.report(0, &[(VOICE, 8, 0)]);
        bench.told(0, Metric::RFactor)
    };
    assert!(rated(Some(quality::Codec::Opus)) > rated(Some(quality::Codec::G729)));
    assert_eq!(rated(None), None);
}

const REMB: Takes = Takes { pli: true, fir: true, remb: true, tmmbr: true };

fn feedback(takes: Takes, srtp: Srtp) -> SenderFeedback {
    let stream = |kind, number| MediaStream {
        kind,
        payload_types: vec![PayloadType { number, codec: "any".into(), clock_rate: 90_000 }],
        feedback: takes,
        bitrate_kbps: None,
    };
    let streams = vec![stream(StreamKind::Audio, 111), stream(StreamKind::Video, 96)];
    let description = MediaDescription { streams, rtcp: RtcpPort::Mux, srtp };
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
