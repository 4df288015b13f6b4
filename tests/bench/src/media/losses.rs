//! The losses of a path, drawn from a seed by packet number, so that sessions with and without repair lose the same packets.

use std::ops::Range;
use std::time::Instant;

use evenkeel_lab::links::{Bursts, Conditions, Impairment, PacketOutcome};

const MILLION: u32 = 1_000_000;
/// Transmissions of a number with draws of their own. Later ones repeat the last.
const TRANSMISSIONS: usize = 8;

/// The losses of a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Losses {
    pub(super) percent: u32,
    /// Mean length of bursts in packets (Gilbert's model), or of the bad state; 1: losses are independent.
    pub(super) burst: u32,
    /// Loss in both states of Gilbert's model, or of Elliott's extension.
    good_ppm: u32,
    bad_ppm: u32,
    /// The other direction of the path loses as many packets, independently.
    is_both_ways: bool,
    /// The loss grows from 0 to `percent` over the lossy numbers.
    is_ramp: bool,
}

impl Losses {
    pub(super) const NONE: Losses = Losses {
        percent: 0,
        burst: 1,
        good_ppm: 0,
        bad_ppm: MILLION,
        is_both_ways: false,
        is_ramp: false,
    };

    pub(super) const fn random(percent: u32) -> Losses {
        Losses { percent, ..Losses::NONE }
    }

    pub(super) const fn bursts_of(burst: u32, percent: u32) -> Losses {
        Losses { percent, burst, ..Losses::NONE }
    }

    /// A bad state of this mean length that loses half of its packets, and a good one that loses 0.5 %.
    pub(super) const fn gilbert_elliott(length: u32, percent: u32) -> Losses {
        Losses { good_ppm: 5_000, bad_ppm: 500_000, ..Losses::bursts_of(length, percent) }
    }

    pub(super) const fn ramp(percent: u32) -> Losses {
        Losses { is_ramp: true, ..Losses::random(percent) }
    }

    pub(super) const fn is_ramp(self) -> bool {
        self.is_ramp
    }

    pub(super) const fn both_ways(self) -> Losses {
        Losses { is_both_ways: true, ..self }
    }

    /// The conditions under which first transmissions are lost.
    fn conditions(self) -> Conditions {
        if self.burst <= 1 {
            return Conditions::loss_percent(self.percent);
        }
        let Losses { percent, burst, good_ppm, bad_ppm, .. } = self;
        let (leave_ppm, loss_ppm) = (MILLION / burst, percent * (MILLION / 100));
        // The share of time in the bad state is enter ÷ (enter + leave), and (loss − good) ÷ (bad − good).
        let enter_ppm =
            u64::from(leave_ppm) * u64::from(loss_ppm - good_ppm) / u64::from(bad_ppm - loss_ppm);
        let enter_ppm = enter_ppm as u32;
        let (good_loss_ppm, bad_loss_ppm) = (good_ppm, bad_ppm);
        let bursts = Bursts { enter_ppm, leave_ppm, good_loss_ppm, bad_loss_ppm };
        Conditions { bursts: Some(bursts), ..Conditions::default() }
    }
}

/// The fate of each packet of a session.
#[derive(Debug)]
pub(super) struct LossPlan {
    /// By transmission, then by number. Packets that are sent again pass when the burst has ended: their losses are independent.
    lost: Vec<Vec<bool>>,
    /// Datagrams of the other direction, in their order. Empty if none is lost.
    lost_back: Vec<bool>,
    /// Packets of a frame, and of parity that may follow it.
    frame_size: usize,
    parities: usize,
    /// By frame, then by place.
    lost_parity: Vec<bool>,
    /// Numbers outside of this range are not lost.
    lossy: Range<usize>,
}

impl LossPlan {
    #[cfg(test)]
    pub(super) fn new(losses: Losses, lossy: Range<usize>, seed: u64) -> LossPlan {
        LossPlan::with_parity(losses, lossy, seed, 1, 0)
    }

    /// The path also decides about this many packets of parity after each frame: they cross it together.
    pub(super) fn with_parity(
        losses: Losses,
        lossy: Range<usize>,
        seed: u64,
        frame_size: usize,
        parities: usize,
    ) -> LossPlan {
        let now = Instant::now();
        let mut lost_parity = Vec::new();
        let mut draw = |transmission: usize| {
            let mut link = Impairment::new(seed.wrapping_mul(1_000) + transmission as u64);
            link.conditions = match transmission {
                0 => losses.conditions(),
                _ => Conditions::loss_percent(losses.percent),
            };
            let mut is_lost = |number: usize| {
                if losses.is_ramp {
                    let reached = number.saturating_sub(lossy.start) as f64 / lossy.len() as f64;
                    let loss_ppm = (f64::from(losses.percent * (MILLION / 100)) * reached) as u32;
                    link.conditions = Conditions { loss_ppm, ..Conditions::default() };
                }
                matches!(link.decide(now, 0), PacketOutcome::Drop(_))
            };
            let mut lost = Vec::with_capacity(lossy.end);
            for number in 0..lossy.end {
                lost.push(is_lost(number));
                if transmission == 0 && (number + 1).is_multiple_of(frame_size) {
                    lost_parity.extend((0..parities).map(|_| is_lost(number)));
                }
            }
            lost
        };
        let lost_back = if losses.is_both_ways { draw(TRANSMISSIONS) } else { Vec::new() };
        let lost = (0..TRANSMISSIONS).map(draw).collect();
        LossPlan { lost, lost_back, frame_size, parities, lost_parity, lossy }
    }

    /// Packets of a frame.
    pub(super) fn frame_size(&self) -> usize {
        self.frame_size
    }

    /// True if the packet of parity at this place after a frame is lost. Those beyond the decided ones repeat the last.
    pub(super) fn loses_parity(&self, frame: usize, place: usize) -> bool {
        let Some(last) = self.parities.checked_sub(1) else { return false };
        let index = frame * self.parities + place.min(last);
        self.lossy.contains(&(frame * self.frame_size))
            && self.lost_parity.get(index).copied().unwrap_or(false)
    }

    /// True if this datagram of the other direction, counted from 0, is lost.
    pub(super) fn loses_back(&self, datagram: usize) -> bool {
        self.lost_back.get(datagram).copied().unwrap_or(false)
    }

    /// True if this transmission of the number, counted from 0, is lost.
    pub(super) fn loses(&self, number: usize, transmission: usize) -> bool {
        self.lossy.contains(&number) && self.lost[transmission.min(TRANSMISSIONS - 1)][number]
    }

    /// True if the number is lost although it is sent again this many times.
    pub(super) fn loses_all(&self, number: usize, again: usize) -> bool {
        (0..=again).all(|transmission| self.loses(number, transmission))
    }

    /// True if the number is lost, and those that repeat it at these distances are, too.
    pub(super) fn loses_repeated(&self, number: usize, later: [usize; 2]) -> bool {
        self.loses(number, 0) && later.iter().all(|later| self.loses(number + later, 0))
    }

    /// The least share of the numbers that are lost although one of `apart` later packets repeats each, in per cent: the distance of the
    /// repetition is the best one.
    pub(super) fn least_lost_once_repeated(&self, judged: &Range<usize>, apart: usize) -> f64 {
        let share = |first| {
            percent_of(judged, 1, |number| self.loses(number, 0) && self.loses(number + first, 0))
        };
        (1..=apart).map(share).fold(f64::INFINITY, f64::min)
    }

    /// The same with two repetitions.
    pub(super) fn least_lost_twice_repeated(&self, judged: &Range<usize>, apart: usize) -> f64 {
        let share = |later| percent_of(judged, 1, |number| self.loses_repeated(number, later));
        distances(apart).map(share).fold(f64::INFINITY, f64::min)
    }
}

/// The distances of two repetitions, of which the later one is at most `apart` packets behind.
pub(super) fn distances(apart: usize) -> impl Iterator<Item = [usize; 2]> {
    (1..apart).flat_map(move |first| (first + 1..=apart).map(move |last| [first, last]))
}

/// The share of the groups of `size` numbers in which one is lost, in per cent.
pub(super) fn percent_of(
    judged: &Range<usize>,
    size: usize,
    is_lost: impl Fn(usize) -> bool,
) -> f64 {
    let groups = judged.clone().step_by(size);
    let lost = groups.clone().filter(|first| (*first..first + size).any(&is_lost)).count();
    100.0 * lost as f64 / groups.count().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBERS: Range<usize> = 500..20_500;

    fn plan(losses: Losses) -> LossPlan {
        LossPlan::new(losses, NUMBERS, 7)
    }

    fn lost(plan: &LossPlan, again: usize) -> f64 {
        percent_of(&NUMBERS, 1, |number| plan.loses_all(number, again))
    }

    #[test]
    fn plan_of_a_seed_is_the_same() {
        let losses = Losses::bursts_of(3, 10);
        let (one, same) = (plan(losses), plan(losses));
        let other = LossPlan::new(losses, NUMBERS, 8);
        assert!(NUMBERS.chain(0..1).all(|number| one.loses(number, 0) == same.loses(number, 0)));
        assert!(NUMBERS.clone().any(|number| one.loses(number, 0) != other.loses(number, 0)));
    }

    #[test]
    fn random_losses_have_their_rate_and_are_independent() {
        let plan = plan(Losses::random(10));
        assert!((9.0..11.0).contains(&lost(&plan, 0)), "{}", lost(&plan, 0));
        assert!((0.7..1.3).contains(&lost(&plan, 1)), "{}", lost(&plan, 1));
        let adjacent = plan.least_lost_once_repeated(&(500..20_000), 1);
        assert!((0.7..1.3).contains(&adjacent), "{adjacent}");
    }

    #[test]
    fn ramp_grows_to_its_rate() {
        let plan = plan(Losses::ramp(40));
        let lost = |numbers| percent_of(&numbers, 1, |number| plan.loses(number, 0));
        let (first, middle, last) = (lost(500..2_500), lost(9_500..11_500), lost(18_500..20_500));
        assert!(first < 4.0 && (17.0..23.0).contains(&middle), "{first}, {middle}");
        assert!((35.0..42.0).contains(&last), "{last}");
    }

    #[test]
    fn bursts_have_their_rate_and_mean_length() {
        let plan = plan(Losses::bursts_of(3, 10));
        assert!((8.5..11.5).contains(&lost(&plan, 0)), "{}", lost(&plan, 0));
        let begins = |number: usize| plan.loses(number, 0) && !plan.loses(number - 1, 0);
        let bursts = percent_of(&NUMBERS, 1, begins);
        assert!((2.5..3.5).contains(&(lost(&plan, 0) / bursts)), "{bursts}");
    }

    #[test]
    fn gilbert_elliott_has_its_rate_and_two_states() {
        let plan = LossPlan::new(Losses::gilbert_elliott(8, 5), 0..200_000, 7);
        let judged = 0..199_000;
        let share = |apart: usize| {
            percent_of(&judged, 1, |number| plan.loses(number, 0) && plan.loses(number + apart, 0))
        };
        let lost = share(0);
        assert!((4.5..5.5).contains(&lost), "{lost}");
        // 91 % of the losses are in the bad state, which goes on with 7/8, and loses half: 40 %.
        let again = share(1) / lost;
        assert!((0.36..0.45).contains(&again), "{again}");
        let far = share(200) / lost;
        assert!((0.03..0.07).contains(&far), "the state is another then: {far}");
    }

    #[test]
    fn distance_of_repetitions_matters_in_bursts() {
        let plan = plan(Losses::bursts_of(3, 10));
        let judged = 500..20_000;
        let adjacent = plan.least_lost_once_repeated(&judged, 1);
        let apart = plan.least_lost_once_repeated(&judged, 4);
        let twice = plan.least_lost_twice_repeated(&judged, 4);
        assert!(twice < apart && apart < 0.6 * adjacent, "{twice}, {apart}, {adjacent}");
    }

    #[test]
    fn numbers_before_and_without_losses_pass() {
        let plan = plan(Losses::random(100));
        assert_eq!([499, 500].map(|number| plan.loses(number, 0)), [false, true]);
        assert_eq!(lost(&LossPlan::new(Losses::NONE, NUMBERS, 7), 0), 0.0);
    }

    #[test]
    fn parity_has_losses_of_its_own() {
        let with_parity = |losses| LossPlan::with_parity(losses, 240..20_400, 7, 12, 4);
        let random = with_parity(Losses::random(10));
        let lost = (20..1_700).flat_map(|frame| (0..4).map(move |place| [frame, place]));
        let lost = lost.filter(|[frame, place]| random.loses_parity(*frame, *place)).count();
        assert!((570..780).contains(&lost), "10 % of 6,720: {lost}");
        assert!(!random.loses_parity(19, 0) && !plan(Losses::random(100)).loses_parity(20, 0));
        // A burst goes on from the last packet of a frame to its parity.
        let bursts = with_parity(Losses::bursts_of(3, 10));
        let ends_lost = || (20..1_700).filter(|frame| bursts.loses(frame * 12 + 11, 0));
        let goes_on = ends_lost().filter(|frame| bursts.loses_parity(*frame, 0)).count();
        assert!(2 * goes_on > ends_lost().count());
    }

    #[test]
    fn other_direction_loses_if_declared() {
        let lost_back = |losses: Losses| {
            let plan = plan(losses);
            NUMBERS.filter(|datagram| plan.loses_back(*datagram)).count()
        };
        let losses = Losses::random(10);
        assert_eq!(lost_back(losses), 0);
        let both = lost_back(losses.both_ways());
        assert!((1_800..2_200).contains(&both), "{both}");
    }

    #[test]
    fn frame_is_broken_by_one_lost_packet() {
        let share = |size| percent_of(&(0..24), size, |number| [3, 4, 12].contains(&number));
        assert_eq!((share(12), share(1)), (100.0, 12.5));
    }
}
