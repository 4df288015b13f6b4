//! Tests whether a candidate turns newcomers away that the active revision would let in.
//!
//! Newcomers are assigned to arms by the hash that draws the cohort. If the candidate is harmless, then a refused
//! newcomer belongs to the canary with a probability equal to its share. Each refusal multiplies the evidence by the
//! likelihood ratio of "the candidate refuses θ times as easily" against that.
//!
//! A newcomer counts once, so a new round puts none at risk again and only drops old evidence. It begins after the
//! canary had enough newcomers: at one newcomer a second, 10 s would be too short to prove anything. The share may grow
//! during a round, since each newcomer is weighed with the share of its time.

use std::time::Instant;

use evenkeel_model::{Arm, Breach, BreachCount, Figure};

use super::{AdmissionSample, Judging, ROUND, THETAS, is_proven};

/// Minimum newcomers of the canary in a round.
const NEWCOMERS_MIN: u32 = 50;

/// Newcomers of a round, and the evidence from those that were turned away.
#[derive(Debug)]
pub(super) struct RefusalEvidence {
    /// From 1.
    round: u32,
    began: Instant,
    /// By arm.
    counts: [BreachCount; 2],
    evidence: [f64; THETAS.len()],
    /// One bit for each of the last eight answered newcomers; set for the canary.
    recent: u8,
}

impl RefusalEvidence {
    pub(super) fn new(now: Instant) -> RefusalEvidence {
        let (counts, evidence) = ([BreachCount::default(); 2], [1.0; THETAS.len()]);
        RefusalEvidence { round: 1, began: now, counts, evidence, recent: 0 }
    }

    /// Notes the answer to a newcomer. Returns a breach if that is proof.
    pub(super) fn note(
        &mut self,
        newcomer: AdmissionSample,
        percent: u8,
        judging: &Judging,
        now: Instant,
    ) -> Option<Breach> {
        let had = self.counts[Arm::Canary as usize].of;
        if now.saturating_duration_since(self.began) >= ROUND && had >= NEWCOMERS_MIN {
            let (round, recent) = (self.round + 1, self.recent);
            *self = RefusalEvidence { round, recent, ..RefusalEvidence::new(now) };
        }
        let AdmissionSample { arm, turned_away } = newcomer;
        let count = &mut self.counts[arm as usize];
        count.of = count.of.saturating_add(1);
        self.recent = self.recent << 1 | u8::from(arm == Arm::Canary);
        if !turned_away {
            return None;
        }
        count.worse = count.worse.saturating_add(1);
        self.weigh(arm, percent);
        let [rest, canary] = self.counts;
        let least = u64::from(canary.of) * u64::from(judging.refused_percent);
        let too_many = u64::from(canary.worse) * 100 >= least && canary.of >= judging.cohort_min;
        let proven = too_many && is_proven(&self.evidence, self.round);
        proven.then_some(Breach { figure: Figure::Refusals, canary, rest })
    }

    /// Adds the evidence of a newcomer of this arm that was turned away.
    ///
    /// The test needs a share that is known before the newcomer arrives: the one of the hash. The canary's part of the
    /// answers is larger than that while the active revision fails and answers few. Therefore the largest of three is
    /// taken: the hash's share, and the canary's part of the answers in this round and of the last eight. Each factor
    /// falls with the share, so a larger one only proves less.
    fn weigh(&mut self, arm: Arm, percent: u8) {
        let [rest, canary] = self.counts.map(|count| f64::from(count.of));
        let of_late = f64::from(self.recent.count_ones()) / f64::from(u8::BITS);
        let share = (f64::from(percent) / 100.0).max(canary / (canary + rest)).max(of_late);
        for (evidence, theta) in self.evidence.iter_mut().zip(THETAS) {
            let odds = match arm {
                Arm::Canary => theta,
                Arm::Standing => 1.0,
            };
            *evidence *= odds / (theta * share + 1.0 - share);
        }
    }

    /// Counts of this round, of the canary and of the rest; none if there were no newcomers.
    pub(super) fn figure(&self) -> Option<(Figure, BreachCount, BreachCount)> {
        let [rest, canary] = self.counts;
        (rest.of > 0 || canary.of > 0).then_some((Figure::Refusals, canary, rest))
    }
}

#[cfg(test)]
mod tests;
