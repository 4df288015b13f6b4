//! The fate of a packet on one direction of a link, from a seed and the packet's sequence number.

use std::time::{Duration, Instant};

use fastrand::Rng;

/// Probabilities are parts per million, so that they are exact.
const MILLION: u32 = 1_000_000;
/// Queue of a slow link: the worst case of a home router.
const QUEUE_MAX: Duration = Duration::from_millis(200);
/// Extra delay of a packet picked for reordering.
const REORDER_BY: Duration = Duration::from_millis(25);

/// Impairments of a link; none by default.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Conditions {
    /// Fixed delay of every packet.
    pub delay: Duration,
    /// Additional delay, uniform up to this.
    pub jitter: Duration,
    /// Packets with less delay overtake, as on several paths; otherwise order is kept, as in a
    /// queue.
    pub overtaking: bool,
    /// Independent losses, parts per million.
    pub loss_ppm: u32,
    /// Burst losses, on top of independent ones.
    pub bursts: Option<Bursts>,
    /// Packets delayed by 25 ms, parts per million.
    pub reorder_ppm: u32,
    /// Duplicated packets, parts per million.
    pub duplicate_ppm: u32,
    /// Packets with one bit flipped, parts per million.
    pub corrupt_ppm: u32,
    /// Bits per second; packets that would queue longer than 200 ms are dropped. `None` is no
    /// limit.
    pub rate_bps: Option<u64>,
    /// All packets are lost.
    pub blackout: bool,
}

impl Conditions {
    /// Independent loss of this many per cent, at most 100.
    pub fn loss_percent(percent: u32) -> Self {
        Self { loss_ppm: percent.min(100) * (MILLION / 100), ..Self::default() }
    }
}

/// Gilbert–Elliott model: a good and a bad state, each with its own loss, all in parts per million.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bursts {
    /// Probability per packet to enter the bad state.
    pub enter_ppm: u32,
    /// Probability per packet to leave the bad state; the mean burst is a million over this many
    /// packets.
    pub leave_ppm: u32,
    /// Loss in the good state.
    pub good_loss_ppm: u32,
    /// Loss in the bad state.
    pub bad_loss_ppm: u32,
}

/// Why a packet was lost or damaged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Cause {
    Blackout,
    Loss,
    Burst,
    /// The queue of a slow link was full.
    Rate,
    /// Delivered with one bit flipped.
    Corrupted,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    Drop(Cause),
    Deliver {
        at: Instant,
        /// When the duplicate is delivered, if there is one.
        copy_at: Option<Instant>,
        /// The bit that is flipped, if any.
        turned: Option<usize>,
    },
}

pub struct Impairment {
    /// Applied from the next packet on.
    pub conditions: Conditions,
    rng: Rng,
    bad: bool,
    wire_free_at: Option<Instant>,
    last_at: Option<Instant>,
}

impl Impairment {
    /// A perfect link with a generator of this seed.
    pub fn new(seed: u64) -> Self {
        Self {
            conditions: Conditions::default(),
            rng: Rng::with_seed(seed),
            bad: false,
            wire_free_at: None,
            last_at: None,
        }
    }

    /// The fate of the next packet. Each packet draws the same random numbers whatever the
    /// conditions, so that a temporary change does not affect the packets after it.
    pub fn decide(&mut self, now: Instant, bytes: usize) -> Fate {
        let [single, burst, change, reorder, copy, corrupt] =
            std::array::from_fn(|_| self.rng.u32(0..MILLION));
        let jitter_share = f64::from(self.rng.u32(0..MILLION)) / f64::from(MILLION);
        let bit_share = self.rng.u64(..);
        let conditions = self.conditions;
        if conditions.blackout {
            return Fate::Drop(Cause::Blackout);
        }
        if single < conditions.loss_ppm {
            return Fate::Drop(Cause::Loss);
        }
        if self.lost_in_burst(conditions.bursts, burst, change) {
            return Fate::Drop(Cause::Burst);
        }
        let Some(through) = self.serialised(now, bytes) else { return Fate::Drop(Cause::Rate) };
        let mut at = through + conditions.delay + conditions.jitter.mul_f64(jitter_share);
        if reorder < conditions.reorder_ppm {
            at += REORDER_BY;
        } else if !conditions.overtaking {
            at = self.last_at.map_or(at, |last| last.max(at));
            self.last_at = Some(at);
        }
        let copy_at = (copy < conditions.duplicate_ppm).then_some(at);
        let bits = bytes as u64 * 8;
        let turned = (corrupt < conditions.corrupt_ppm && bits > 0)
            .then(|| usize::try_from(bit_share % bits).unwrap_or(0));
        Fate::Deliver { at, copy_at, turned }
    }

    fn lost_in_burst(&mut self, bursts: Option<Bursts>, loss: u32, change: u32) -> bool {
        let Some(bursts) = bursts else {
            self.bad = false;
            return false;
        };
        let leave_or_enter = if self.bad { bursts.leave_ppm } else { bursts.enter_ppm };
        self.bad ^= change < leave_or_enter;
        loss < if self.bad { bursts.bad_loss_ppm } else { bursts.good_loss_ppm }
    }

    /// When the last bit of the packet has left a link of limited rate; `None` if its queue is
    /// full.
    fn serialised(&mut self, now: Instant, bytes: usize) -> Option<Instant> {
        let Some(rate_bps) = self.conditions.rate_bps else { return Some(now) };
        let starts = self.wire_free_at.map_or(now, |free| free.max(now));
        if starts.duration_since(now) > QUEUE_MAX {
            return None;
        }
        let takes = (bytes as u64 * 8).saturating_mul(1_000_000_000) / rate_bps.max(1);
        let through = starts + Duration::from_nanos(takes);
        self.wire_free_at = Some(through);
        Some(through)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fates(seed: u64, conditions: Conditions, packets: usize) -> Vec<bool> {
        let mut link = Impairment::new(seed);
        link.conditions = conditions;
        let now = Instant::now();
        (0..packets).map(|_| matches!(link.decide(now, 200), Fate::Drop(_))).collect()
    }

    #[test]
    fn losses_depend_on_the_seed_alone() {
        let tenth = Conditions::loss_percent(10);
        assert_eq!(fates(5, tenth, 2_000), fates(5, tenth, 2_000));
        assert_ne!(fates(5, tenth, 2_000), fates(6, tenth, 2_000));
    }

    #[test]
    fn loss_matches_its_probability() {
        let lost =
            |conditions| fates(5, conditions, 20_000).into_iter().filter(|&lost| lost).count();
        assert_eq!(lost(Conditions::default()), 0);
        assert_eq!(lost(Conditions::loss_percent(100)), 20_000);
        let tenth = lost(Conditions::loss_percent(10));
        assert!((1_800..2_200).contains(&tenth), "{tenth} of 20,000");
    }

    #[test]
    fn bursts_lose_runs_of_packets() {
        let bursts = Bursts {
            enter_ppm: 10_000,
            leave_ppm: 100_000,
            good_loss_ppm: 0,
            bad_loss_ppm: 1_000_000,
        };
        let in_bursts =
            fates(5, Conditions { bursts: Some(bursts), ..Conditions::default() }, 50_000);
        let singly = fates(5, Conditions { loss_ppm: 91_000, ..Conditions::default() }, 50_000);
        assert!(mean_run(&in_bursts) > 7.0, "{}", mean_run(&in_bursts));
        assert!(mean_run(&singly) < 1.3, "{}", mean_run(&singly));
    }

    fn mean_run(fates: &[bool]) -> f64 {
        let runs: Vec<usize> =
            fates.split(|lost| !lost).map(<[bool]>::len).filter(|&n| n > 0).collect();
        runs.iter().sum::<usize>() as f64 / runs.len() as f64
    }

    #[test]
    fn blackout_does_not_change_later_fates() {
        let tenth = Conditions::loss_percent(10);
        let undisturbed = fates(5, tenth, 1_000);
        let mut link = Impairment::new(5);
        let now = Instant::now();
        let disturbed: Vec<bool> = (0..1_000)
            .map(|i| {
                link.conditions = Conditions { blackout: (300..400).contains(&i), ..tenth };
                matches!(link.decide(now, 200), Fate::Drop(_))
            })
            .collect();
        assert!(disturbed[300..400].iter().all(|&lost| lost));
        assert_eq!(disturbed[400..], undisturbed[400..]);
        assert_eq!(disturbed[..300], undisturbed[..300]);
    }

    #[test]
    fn jitter_delays_within_its_bounds_and_keeps_order() {
        let mut link = Impairment::new(5);
        let (delay, jitter) = (Duration::from_millis(30), Duration::from_millis(10));
        link.conditions = Conditions { delay, jitter, ..Conditions::default() };
        let start = Instant::now();
        let mut last = start;
        for i in 0..500 {
            let now = start + Duration::from_millis(i);
            let Fate::Deliver { at, copy_at: None, turned: None } = link.decide(now, 200) else {
                panic!()
            };
            assert!(at >= now + delay && at <= now + delay + jitter);
            assert!(at >= last);
            last = at;
        }
    }

    #[test]
    fn packets_overtake_if_order_is_not_kept() {
        let jitter = Duration::from_millis(160);
        let mut link = Impairment::new(3);
        link.conditions = Conditions { jitter, overtaking: true, ..Conditions::default() };
        let start = Instant::now();
        let leaves: Vec<_> = (0..500)
            .map(|packet| {
                let now = start + Duration::from_millis(packet);
                let Fate::Deliver { at, .. } = link.decide(now, 200) else {
                    panic!("no loss configured")
                };
                assert!(at >= now && at <= now + jitter);
                at
            })
            .collect();
        let overtaken = leaves.windows(2).filter(|pair| pair[1] < pair[0]).count();
        assert!(overtaken > 200, "{overtaken} of 499");
    }

    #[test]
    fn reordered_packet_leaves_after_its_successor() {
        let mut link = Impairment::new(5);
        let now = Instant::now();
        link.conditions = Conditions { reorder_ppm: 1_000_000, ..Conditions::default() };
        let Fate::Deliver { at: late, .. } = link.decide(now, 200) else { panic!() };
        link.conditions = Conditions::default();
        let Fate::Deliver { at: next, .. } = link.decide(now, 200) else { panic!() };
        assert!(next < late);
    }

    #[test]
    fn slow_link_queues_to_its_bound_then_drops() {
        let mut link = Impairment::new(5);
        link.conditions = Conditions { rate_bps: Some(160_000), ..Conditions::default() };
        let now = Instant::now();
        // 200 bytes take 10 ms at 160 kbit/s: the queue of 200 ms takes 21.
        for i in 1..=21 {
            let Fate::Deliver { at, .. } = link.decide(now, 200) else { panic!("{i}") };
            assert_eq!(at, now + Duration::from_millis(10 * i));
        }
        assert_eq!(link.decide(now, 200), Fate::Drop(Cause::Rate));
        let later = now + Duration::from_millis(10);
        assert!(matches!(link.decide(later, 200), Fate::Deliver { .. }));
    }

    #[test]
    fn flipped_bit_lies_inside_the_packet() {
        let mut link = Impairment::new(5);
        link.conditions = Conditions { corrupt_ppm: 1_000_000, ..Conditions::default() };
        for _ in 0..1_000 {
            let Fate::Deliver { turned: Some(bit), .. } = link.decide(Instant::now(), 3) else {
                panic!()
            };
            assert!(bit < 24);
        }
        assert!(matches!(link.decide(Instant::now(), 0), Fate::Deliver { turned: None, .. }));
    }
}
