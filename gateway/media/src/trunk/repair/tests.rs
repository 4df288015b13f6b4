use evenkeel_fuzz::Corpus;

use super::*;
use crate::trunk::entries;

const TAG: Tag = Tag(0xa1a2_a3a4_a5a6_a7a8);

fn at(us: u64) -> Instant {
    crate::tests::at(0) + Duration::from_micros(us)
}

fn packet(number: u32) -> Vec<u8> {
    let mut packet = vec![number as u8; 20 + number as usize * 31 % 900];
    packet[..4].copy_from_slice(&number.to_be_bytes());
    packet
}

/// A leg on which one end sends a bundle each 500 µs, and the other one answers with reports only.
struct Leg {
    sender: TrunkRepair,
    receiver: TrunkRepair,
    sent: u32,
    reports: u32,
    repair_bytes: usize,
    delivered: Vec<u32>,
}

impl Leg {
    fn new() -> Leg {
        // Numbers wrap after half a second.
        let [sender, receiver] = [64_536, 0].map(TrunkRepair::new);
        let (sent, reports, repair_bytes) = (0, 0, 0);
        Leg { sender, receiver, sent, reports, repair_bytes, delivered: Vec::new() }
    }

    fn now(&self) -> Instant {
        at(u64::from(self.sent) * 500)
    }

    fn send(&mut self, mut is_lost: impl FnMut() -> bool) {
        let (mut bundle, mut datagrams, now) = (Bundle::new(1_200), Vec::new(), self.now());
        assert!(bundle.push(TAG, &packet(self.sent)));
        self.sent += 1;
        self.sender.send(&mut bundle, |datagram| datagrams.push(datagram.to_vec()));
        for datagram in datagrams {
            let is_repair = datagram[0] == demux::REPAIR;
            self.repair_bytes += if is_repair { datagram.len() } else { 0 };
            if is_lost() {
                continue;
            }
            if is_repair {
                self.receiver.handle_repair(&datagram, now).unwrap();
            } else if self.receiver.handle_bundle(&datagram, now) {
                self.deliver(&datagram);
            }
            let mut recovered = Vec::new();
            while self.receiver.take_recovered(&mut recovered) {
                self.deliver(&recovered);
            }
        }
        let _nothing_came = self.sender.poll_report(now);
        if let Some(report) = self.receiver.poll_report(now) {
            self.reports += 1;
            self.sender.handle_repair(&report, now).unwrap();
        }
    }

    fn deliver(&mut self, datagram: &[u8]) {
        for entry in entries(datagram) {
            let (tag, bytes) = entry.unwrap();
            let number = u32::from_be_bytes(*bytes.first_chunk().unwrap());
            assert_eq!((tag, bytes), (TAG, &packet(number)[..]));
            self.delivered.push(number);
        }
    }

    /// Sends bundles for this time. Each datagram is lost with this probability.
    fn run(&mut self, time: Duration, rng: &mut fastrand::Rng, lost_permille: u32) {
        for _ in 0..time.as_micros() / 500 {
            self.send(|| rng.u32(..1_000) < lost_permille);
        }
    }
}

#[test]
fn leg_without_loss_has_no_repair_bytes() {
    let mut leg = Leg::new();
    leg.run(Duration::from_secs(10), &mut fastrand::Rng::with_seed(1), 0);
    assert_eq!((leg.repair_bytes, leg.delivered.len()), (0, 20_000));
    assert_eq!(leg.reports, 10, "one per second");
    assert!(leg.receiver.receiver.decoder.is_none(), "no copies are kept");
}

#[test]
fn lossy_leg_is_repaired_and_each_bundle_passes_once() {
    let (mut leg, mut rng) = (Leg::new(), fastrand::Rng::with_seed(2));
    leg.run(Duration::from_secs(1), &mut rng, 50);
    let (before, repair_before) = (leg.sent, leg.repair_bytes);
    assert!(repair_before > 0, "parity has begun");
    leg.delivered.clear();
    leg.run(Duration::from_secs(20), &mut rng, 50);
    leg.delivered.sort_unstable();
    let delivered = leg.delivered.len();
    leg.delivered.dedup();
    assert_eq!(leg.delivered.len(), delivered, "each once");
    let left = (leg.sent - before) as usize - delivered;
    assert!(left <= 64, "{left} of 40,000 are left; the bar is 0.16 %");
    let bytes: usize = (before..leg.sent).map(|number| packet(number).len()).sum();
    let ratio = (leg.repair_bytes - repair_before) as f64 / bytes as f64;
    // A repair datagram is as long as the longest of 20 bundles.
    assert!(ratio < 0.45, "{ratio}");
}

/// Loses every n-th bundle, and no repair datagram or report.
fn lose_every(leg: &mut Leg, bundles: u32, every: u32) {
    for _ in 0..bundles {
        let mut is_lost = leg.sent % every == every - 1;
        leg.send(|| std::mem::take(&mut is_lost));
    }
}

#[test]
fn parity_begins_at_half_a_percent() {
    let mut leg = Leg::new();
    lose_every(&mut leg, 20_000, 210);
    assert_eq!(leg.repair_bytes, 0, "0.48 %");
    lose_every(&mut leg, 20_000, 170);
    assert!(leg.repair_bytes > 0, "0.59 %");
}

#[test]
fn parity_grows_above_8_percent() {
    for (every, expected) in [(13, EVERY), (12, EVERY_AT_HIGH_LOSS)] {
        let mut leg = Leg::new();
        lose_every(&mut leg, 10_000, every);
        let encoder = leg.sender.sender.encoder.as_ref().unwrap();
        assert_eq!(encoder.every(), expected, "one in {every}");
    }
}

#[test]
fn parity_ends_after_5_s_without_loss() {
    let mut leg = Leg::new();
    lose_every(&mut leg, 2_000, 20);
    leg.run(Duration::from_millis(4_900), &mut fastrand::Rng::with_seed(1), 0);
    let before = leg.repair_bytes;
    lose_every(&mut leg, 5, u32::MAX);
    assert!(leg.repair_bytes > before, "parity goes on");
    leg.run(Duration::from_millis(5_500), &mut fastrand::Rng::with_seed(1), 0);
    let before = leg.repair_bytes;
    leg.run(Duration::from_secs(1), &mut fastrand::Rng::with_seed(1), 0);
    assert_eq!(leg.repair_bytes, before);
    leg.run(Duration::from_secs(5), &mut fastrand::Rng::with_seed(1), 0);
    assert!(leg.receiver.receiver.decoder.is_none());
}

fn numbered(number: u16) -> Vec<u8> {
    let mut bundle = Bundle::new(100);
    assert!(bundle.push(TAG, &number.to_be_bytes()));
    bundle.numbered(number).to_vec()
}

/// The report after bundles with these numbers, and 64 more that show what is lost.
fn reported(numbers: &[u16]) -> (u16, u16) {
    let mut end = TrunkRepair::new(0);
    let last = *numbers.last().unwrap();
    for number in numbers.iter().copied().chain((1..=64).map(|more| last.wrapping_add(more))) {
        assert!(end.handle_bundle(&numbered(number), at(0)));
    }
    let report = end.poll_report(at(0)).unwrap();
    assert_eq!(report[1..9], TAG.0.to_be_bytes());
    assert_eq!(end.poll_report(at(2_000_000)), None, "nothing came since");
    let [.., e0, e1, l0, l1] = report;
    (u16::from_be_bytes([e0, e1]) - 64, u16::from_be_bytes([l0, l1]))
}

#[test]
fn report_counts_what_did_not_come() {
    assert_eq!(reported(&[7]), (1, 0));
    assert_eq!(reported(&[7, 8, 9]), (3, 0));
    assert_eq!(reported(&[7, 9]), (3, 1));
    assert_eq!(reported(&[u16::MAX, 2]), (4, 2), "numbers wrap");
    assert_eq!(reported(&[7, 10, 8, 9, 11]), (5, 0), "reordered");
    assert_eq!(reported(&[7, 8, 8, 9]), (3, 0), "a copy");
    assert_eq!(reported(&[7, 207]), (201, 199));
    assert_eq!(reported(&[7, 7 + GAP_MAX]), (GAP_MAX + 1, GAP_MAX - 1));
    assert_eq!(reported(&[7, 8 + GAP_MAX]), (2, 0), "the sender began anew");
    assert_eq!(reported(&[7, 30_000, 0]), (3, 0), "the sender began anew");
}

#[test]
fn losses_are_reported_each_100_ms() {
    let mut end = TrunkRepair::new(0);
    let mut report_at = |number: u16, ms: u64| {
        assert!(end.handle_bundle(&numbered(number), at(ms * 1_000)));
        end.poll_report(at(ms * 1_000)).is_some()
    };
    assert!(report_at(0, 0), "the first one at once");
    assert!(!report_at(1, 999) && report_at(2, 1_000));
    assert!(!report_at(67, 1_099), "64 numbers after number 3");
    assert!(report_at(68, 1_100));
}

#[test]
fn plain_bundle_is_reported_too() {
    let (mut end, mut bundle) = (TrunkRepair::new(0), Bundle::new(100));
    assert!(bundle.push(TAG, b"packet"));
    assert_eq!(end.poll_report(at(0)), None);
    assert!(end.handle_bundle(bundle.as_bytes(), at(0)));
    let report = end.poll_report(at(0)).unwrap();
    assert_eq!(report[9..], [0; 4]);
    assert_eq!(bundle::first_tag(&report), Some(TAG));
}

#[test]
fn invalid_reports_are_refused() {
    let mut end = TrunkRepair::new(0);
    let report = |expected: u16, lost: u16| {
        let numbers = [expected.to_be_bytes(), lost.to_be_bytes()].concat();
        [&[demux::LOSS_REPORT][..], &TAG.0.to_be_bytes(), &numbers].concat()
    };
    assert!(end.handle_repair(&report(10, 11), at(0)).is_err());
    for length in 1..REPORT_LEN {
        assert!(end.handle_repair(&report(10, 1)[..length], at(0)).is_err(), "{length}");
    }
    assert!(end.sender.encoder.is_none());
    for _ in 0..10 {
        assert_eq!(end.handle_repair(&report(u16::MAX, u16::MAX), at(0)), Ok(()));
    }
    assert!(end.sender.encoder.is_some());
}

#[test]
fn fuzz_trunk_repair() {
    let report = [&[demux::LOSS_REPORT][..], &[7; REPORT_LEN - 1]].concat();
    let repair = [&[demux::REPAIR, 0, 9, 5, 0, 1][..], &[0xff; 40]].concat();
    let corpus = Corpus::of("trunk_repair").with(report).with(repair).with(numbered(20));
    corpus.check(|datagram| {
        let mut end = TrunkRepair::new(0);
        for number in [8, 9, 11] {
            end.handle_bundle(&numbered(number), at(0));
        }
        let mut recovered = Vec::new();
        for step in 0..3 {
            let _result = end.handle_repair(datagram, at(step));
            end.handle_bundle(datagram, at(step));
            while end.take_recovered(&mut recovered) {
                assert_eq!(recovered[0], demux::BUNDLE);
            }
        }
        let report = end.poll_report(at(2_000_000)).unwrap();
        assert_eq!(end.handle_repair(&report, at(2_000_000)), Ok(()));
    });
}
