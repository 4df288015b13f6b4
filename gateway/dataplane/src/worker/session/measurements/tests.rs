use evenkeel_media::loss::RepairPacket;

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
        self.measure.read_reports(&compound, rate, |_| 0, now);
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
fn packets_that_repair_fills_are_lost_before_it_only() {
    let measured = |is_filled: bool| {
        let (mut bench, mut last) = (Bench::new(), Measures::default());
        for at in (0..5_000).step_by(100) {
            last = bench.talk(at, at + 100, true);
            if is_filled {
                bench.measure.sources.filled(1, bench.sequence / 10 * 10);
            }
        }
        let value = |metric| last.measured(metric).unwrap();
        assert_eq!(value(Metric::BurstUp), 100, "single packets");
        [Metric::LossUp, Metric::LossUpAfterRepair, Metric::RFactor].map(value)
    };
    let [loss, left, r] = measured(false);
    assert!((50_000..150_000).contains(&loss), "{loss} ppm of 10 %");
    assert_eq!(left, loss);
    let [loss, left, repaired_r] = measured(true);
    assert!((50_000..150_000).contains(&loss) && left < 20_000, "{loss} {left}");
    assert!(repaired_r > r + 1_000, "{repaired_r} {r}");
}

#[test]
fn loss_down_is_that_before_repair() {
    for (packet, before, after) in
        [(RepairPacket::Same, 312_500, 250_000), (RepairPacket::Separate, 250_000, 187_500)]
    {
        let mut bench = Bench::new();
        let now = bench.start;
        let losses = &mut bench.measure.down(Some(VOICE)).losses;
        losses.read(&rtcp::ReportBlock::default(), 0, now);
        losses.note_repair(packet);
        let block = rtcp::ReportBlock {
            ssrc: VOICE,
            fraction_lost: 64,
            sequence_max: 16,
            ..<_>::default()
        };
        let mut compound = Vec::new();
        rtcp::write_receiver_report(5, &[block], &mut compound);
        rtcp::write_nack(5, VOICE, &[3, 4, 9], &mut compound);
        bench.measure.read_reports(&compound, |_| None, |_| 0, bench.start);
        assert_eq!(bench.told(0, Metric::LossDown), Some(before), "{packet:?}");
        assert_eq!(bench.told(0, Metric::LossDownAfterRepair), Some(after), "{packet:?}");
        assert_eq!(bench.told(0, Metric::BurstDown), Some(150));
    }
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
    bench.measure.read_reports(&answer, |_| None, |_| 0, now);
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
