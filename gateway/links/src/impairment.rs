//! What one direction of a lane does to a packet, decided from a seed and the packet's place in line.

use std::time::{Duration, Instant};

use fastrand::Rng;

/// A million: probabilities are parts of it, so that they are exact.
const MILLION: u32 = 1_000_000;
/// How much a slow link holds before it drops: what a home router's queue holds at its worst.
const QUEUE_MAX: Duration = Duration::from_millis(200);
/// How far back a packet picked for reordering falls, beyond its own delay.
const REORDER_BY: Duration = Duration::from_millis(25);

/// What a link does to packets. The default does nothing.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Conditions {
    /// Every packet is this late.
    pub delay: Duration,
    /// And, evenly drawn, up to this much later.
    pub jitter: Duration,
    /// Whether who is less late overtakes, as where packets take several ways; else order is kept, as in a queue.
    pub overtaking: bool,
    /// Packets lost singly, parts per million.
    pub loss_ppm: u32,
    /// Packets lost in bursts, beside those.
    pub bursts: Option<Bursts>,
    /// Packets that fall 25 ms behind those after them, parts per million.
    pub reorder_ppm: u32,
    /// Packets sent twice, parts per million.
    pub duplicate_ppm: u32,
    /// Packets with one bit turned, parts per million.
    pub corrupt_ppm: u32,
    /// Bits per second; what waits longer than 200 ms for its turn is dropped. `None` is no limit.
    pub rate_bps: Option<u64>,
    /// Nothing crosses.
    pub blackout: bool,
}

impl Conditions {
    /// Plain loss at this many per cent, at most 100.
    pub fn loss_percent(percent: u32) -> Self {
        Self { loss_ppm: percent.min(100) * (MILLION / 100), ..Self::default() }
    }
}

/// The Gilbert–Elliott model: a good and a bad state, each with a loss of its own. All in parts per million.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bursts {
    /// Chance per packet to go from good to bad.
    pub enter_ppm: u32,
    /// Chance per packet to go from bad to good; the mean burst is a million over this many packets.
    pub leave_ppm: u32,
    /// Loss while good.
    pub good_loss_ppm: u32,
    /// Loss while bad.
    pub bad_loss_ppm: u32,
}

/// Why a packet did not cross whole.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Cause {
    /// The link was black.
    Blackout,
    /// A single loss.
    Loss,
    /// A loss by the burst model.
    Burst,
    /// The queue before a slow link was full.
    Rate,
    /// It crossed with a bit turned.
    Corrupted,
}

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It is gone.
    Drop(Cause),
    /// It crosses.
    Deliver {
        /// When it leaves the relay.
        at: Instant,
        /// When its copy does, if it has one.
        copy_at: Option<Instant>,
        /// The bit that is turned, if one is.
        turned: Option<usize>,
    },
}

/// One direction of a lane.
pub struct Impairment {
    /// What it does from the next packet on.
    pub conditions: Conditions,
    rng: Rng,
    bad: bool,
    wire_free_at: Option<Instant>,
    last_at: Option<Instant>,
}

impl Impairment {
    /// A clear link whose dice come from this seed.
    pub fn new(seed: u64) -> Self {
        Self {
            conditions: Conditions::default(),
            rng: Rng::with_seed(seed),
            bad: false,
            wire_free_at: None,
            last_at: None,
        }
    }

    /// The fate of the next packet. The same dice are thrown for each, whatever the conditions: a change for a while
    /// does not change what becomes of the packets after.
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

    /// When the last bit of this packet has left a link of limited rate; `None` when its queue is full.
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
    fn same_seed_loses_the_same_packets_and_another_seed_others() {
        let tenth = Conditions::loss_percent(10);
        assert_eq!(fates(5, tenth, 2_000), fates(5, tenth, 2_000));
        assert_ne!(fates(5, tenth, 2_000), fates(6, tenth, 2_000));
    }

    #[test]
    fn loss_is_what_was_asked_for() {
        let lost =
            |conditions| fates(5, conditions, 20_000).into_iter().filter(|&lost| lost).count();
        assert_eq!(lost(Conditions::default()), 0);
        assert_eq!(lost(Conditions::loss_percent(100)), 20_000);
        let tenth = lost(Conditions::loss_percent(10));
        assert!((1_800..2_200).contains(&tenth), "{tenth} of 20,000");
    }

    #[test]
    fn bursts_lose_in_rows_and_single_losses_do_not() {
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
    fn blackout_for_a_while_leaves_later_fates_as_they_would_have_been() {
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
    fn who_is_less_late_overtakes_where_order_is_not_kept() {
        let jitter = Duration::from_millis(160);
        let mut link = Impairment::new(3);
        link.conditions = Conditions { jitter, overtaking: true, ..Conditions::default() };
        let start = Instant::now();
        let leaves: Vec<_> = (0..500)
            .map(|packet| {
                let now = start + Duration::from_millis(packet);
                let Fate::Deliver { at, .. } = link.decide(now, 200) else {
                    panic!("nothing is lost")
                };
                assert!(at >= now && at <= now + jitter);
                at
            })
            .collect();
        let overtaken = leaves.windows(2).filter(|pair| pair[1] < pair[0]).count();
        assert!(overtaken > 200, "{overtaken} of 499");
    }

    #[test]
    fn reordered_packet_leaves_after_those_behind_it() {
        let mut link = Impairment::new(5);
        let now = Instant::now();
        link.conditions = Conditions { reorder_ppm: 1_000_000, ..Conditions::default() };
        let Fate::Deliver { at: late, .. } = link.decide(now, 200) else { panic!() };
        link.conditions = Conditions::default();
        let Fate::Deliver { at: next, .. } = link.decide(now, 200) else { panic!() };
        assert!(next < late);
    }

    #[test]
    fn slow_link_queues_up_to_its_bound_and_then_drops() {
        let mut link = Impairment::new(5);
        link.conditions = Conditions { rate_bps: Some(160_000), ..Conditions::default() };
        let now = Instant::now();
        // 200 bytes take 10 ms at 160 kbit/s: the queue of 200 ms takes 21, and no more.
        for i in 1..=21 {
            let Fate::Deliver { at, .. } = link.decide(now, 200) else { panic!("{i}") };
            assert_eq!(at, now + Duration::from_millis(10 * i));
        }
        assert_eq!(link.decide(now, 200), Fate::Drop(Cause::Rate));
        let later = now + Duration::from_millis(10);
        assert!(matches!(link.decide(later, 200), Fate::Deliver { .. }));
    }

    #[test]
    fn turned_bit_lies_inside_the_packet() {
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
