//! Statistical tests that compare a canary's cohort with the rest, after each summary. The error is bounded, however
//! long the canary lasts.
//!
//! A hash that knows nothing of the network draws the cohort. If the candidate is harmless, then the next room or
//! session that falls (gets worse) belongs to the canary with probability `canary / (canary + rest)`, counted over
//! those that are still at risk, even if one event hits both cohorts. Each figure is therefore tested by the safe
//! logrank test (Grünwald, Ly, Pérez-Ortiz and ter Schure, *The Safe Logrank Test*, 2020): the evidence is a product
//! with one factor per fall, the likelihood ratio of "the canary falls θ times as easily" against chance. By Ville's
//! inequality it reaches `1/α` with a probability of at most α, no matter how often it is tested. θ is unknown, so the
//! mean over several values is taken, to which the same bound applies.
//!
//! The test's conditions hold for these reasons. Each room or session counts once, when it falls: a bad minute is no
//! more evidence than a bad second. A room or session that was bad before is not at risk. A round lasts 10 s; then all
//! that are good are at risk again, and rounds without harm do not outweigh new harm. Round `k` may use the share
//! `1/k(k+1)` of the permitted error; the shares of all rounds add up to 1.
//!
//! Newcomers that are turned away have no media to judge: [`RefusalEvidence`] tests refusals. Where a revision routes its
//! rooms is compared by [`RoomSpread`], and [`RuleBreaches`] counts its decisions.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use evenkeel_instant as instant;
use evenkeel_model::{Arm, Breach, BreachCount, Figure, NodeId};
use serde::{Deserialize, Serialize};

use crate::judging::Judging;
use crate::progress::CohortSize;
use crate::spread::RoomSpread;

/// Probability that a harmless candidate is ever rolled back, over all figures and rounds: one in two hundred.
const ERROR: f64 = 0.005;

/// Assumed risk of the canary relative to the rest: from slight harm to a cohort that falls all at once.
const THETAS: [f64; 5] = [2.0, 8.0, 32.0, 128.0, 512.0];

/// Duration of a round. After it, rooms and sessions that are good are at risk again.
const ROUND: Duration = Duration::from_secs(10);

/// Minimum decisions of a round that broke a rule, or left a room without a standby. Fewer may be due to a change while the
/// revision decided.
const BROKEN_MIN: u32 = 3;

/// Decisions after which a round of decisions may end. Until then, those of a policy that is rarely asked count on.
const DECISIONS_MIN: u32 = 20;

/// Figures by which rooms and sessions fall.
const MEDIA: [Figure; 6] =
    [Figure::Gap, Figure::Loss, Figure::RFactor, Figure::Rung, Figure::Moves, Figure::Slo];

/// Figures that are tested against chance, and share the permitted error: those of media, and refusals.
const TESTED: usize = MEDIA.len() + 1;

fn bit(figure: Figure) -> u8 {
    1 << figure as u8
}

/// Figures by which a room or session is bad now.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct BadFigures(u8);

impl BadFigures {
    /// Returns the set with this figure added if `is` is true.
    pub fn with(self, figure: Figure, is: bool) -> BadFigures {
        if is { BadFigures(self.0 | bit(figure)) } else { self }
    }

    /// Returns the figures that are bad in either.
    pub fn and(self, other: BadFigures) -> BadFigures {
        BadFigures(self.0 | other.0)
    }
}

/// Compares the cohort of a canary with the rest.
#[derive(Debug)]
pub struct Judge {
    judging: Judging,
    /// Counts from 1.
    round: u32,
    began: Instant,
    units: BTreeMap<u64, Unit>,
    /// Rooms or sessions known in this round, by arm.
    known: [u32; 2],
    tests: [LogrankTest; MEDIA.len()],
    refusals: RefusalEvidence,
    /// The nodes of the rooms that are known in this round.
    standing: RoomSpread,
    /// The nodes at which new rooms were placed.
    placed: RoomSpread,
}

/// The evidence of a judge that another process continues. Its rooms and sessions enter a new round there, as at the end of
/// each round. Nodes may have other numbers there, so the spread is counted anew from the rooms.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct JudgeRecord {
    round: u32,
    refusals: RefusalEvidence,
}

/// The decision of an admission policy on a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AdmissionSample {
    /// The arm that decided.
    pub arm: Arm,
    /// The client was refused or redirected.
    pub turned_away: bool,
}

#[derive(Clone, Copy, Debug)]
struct Unit {
    round: u32,
    arm: Arm,
    /// Bits of the figures by which the room or session has not fallen.
    at_risk: u8,
    /// The node that carries the room.
    on: Option<NodeId>,
}

/// The safe logrank test of one figure.
#[derive(Clone, Copy, Debug)]
struct LogrankTest {
    at_risk: [u32; 2],
    fallen: [u32; 2],
    evidence: [f64; THETAS.len()],
}

impl LogrankTest {
    const NEW: LogrankTest =
        LogrankTest { at_risk: [0; 2], fallen: [0; 2], evidence: [1.0; THETAS.len()] };

    fn fall(&mut self, arm: Arm) {
        let [rest, canary] = self.at_risk.map(f64::from);
        for (evidence, theta) in self.evidence.iter_mut().zip(THETAS) {
            let odds = match arm {
                Arm::Canary => theta,
                Arm::Standing => 1.0,
            };
            *evidence *= odds * (canary + rest) / (theta * canary + rest);
        }
        self.at_risk[arm as usize] -= 1;
        self.fallen[arm as usize] += 1;
    }

    fn count(&self, arm: Arm) -> BreachCount {
        let worse = self.fallen[arm as usize];
        BreachCount { of: self.at_risk[arm as usize] + worse, worse }
    }
}

impl Judge {
    /// Begins the first round.
    pub fn new(judging: Judging, now: Instant) -> Judge {
        let tests = [LogrankTest::NEW; MEDIA.len()];
        let (units, refusals) = (BTreeMap::new(), RefusalEvidence::new(now));
        let (standing, placed) = (RoomSpread::default(), RoomSpread::default());
        Judge {
            judging,
            round: 1,
            began: now,
            units,
            known: [0; 2],
            tests,
            refusals,
            standing,
            placed,
        }
    }

    /// Returns the record for the process that continues this judge.
    pub fn record(&self) -> JudgeRecord {
        JudgeRecord { round: self.round, refusals: self.refusals.clone() }
    }

    /// Continues the judge of another process in its next round, which keeps the bound of the error.
    pub fn resume(&mut self, record: JudgeRecord, now: Instant) {
        self.round = record.round;
        self.refusals = record.refusals;
        self.units.clear();
        self.begin_round(now);
    }

    /// Returns the thresholds in force.
    pub fn judging(&self) -> &Judging {
        &self.judging
    }

    /// Changes the thresholds. They apply to rooms and sessions that have not fallen yet, in both arms.
    pub fn judge_by(&mut self, judging: Judging) {
        self.judging = judging;
    }

    /// Drops the evidence, and puts all good rooms and sessions at risk again: after a changed share, or after a round.
    pub fn begin_round(&mut self, now: Instant) {
        self.round += 1;
        self.began = now;
        self.known = [0; 2];
        self.tests = [LogrankTest::NEW; MEDIA.len()];
        self.standing = RoomSpread::default();
    }

    /// Begins the next round if this one is over.
    pub fn turn(&mut self, now: Instant) {
        if now.saturating_duration_since(self.began) >= ROUND {
            self.begin_round(now);
        }
    }

    /// Rooms and sessions that are kept, including those of earlier rounds.
    pub fn known(&self) -> usize {
        self.units.len()
    }

    /// True if the room or session was enrolled in this round.
    pub fn knows(&self, unit: u64) -> bool {
        self.units.get(&unit).is_some_and(|known| known.round == self.round)
    }

    /// Adds a room or session to this round. It is not at risk by figures that are bad already.
    pub fn enrol(&mut self, unit: u64, arm: Arm, bad: BadFigures) {
        if self.knows(unit) {
            return;
        }
        let all = (1 << MEDIA.len()) - 1;
        let at_risk = all & !bad.0;
        self.units.insert(unit, Unit { round: self.round, arm, at_risk, on: None });
        self.known[arm as usize] += 1;
        for (figure, test) in MEDIA.into_iter().zip(&mut self.tests) {
            test.at_risk[arm as usize] += u32::from(at_risk & bit(figure) != 0);
        }
    }

    /// Notes the present state of a room or session. Returns a breach if the evidence suffices.
    pub fn note(&mut self, unit: u64, bad: BadFigures) -> Option<Breach> {
        let known = self.units.get_mut(&unit).filter(|known| known.round == self.round)?;
        let fell = known.at_risk & bad.0;
        if fell == 0 {
            return None;
        }
        known.at_risk &= !fell;
        let arm = known.arm;
        let mut breach = None;
        for (figure, test) in MEDIA.into_iter().zip(&mut self.tests) {
            if fell & bit(figure) != 0 {
                test.fall(arm);
                let (canary, rest) = (test.count(Arm::Canary), test.count(Arm::Standing));
                let burns_slowly = u64::from(canary.worse) * 1_000_000
                    < u64::from(canary.of) * u64::from(self.judging.burn_ppm);
                if is_proven(&test.evidence, self.round)
                    && self.known[Arm::Canary as usize] >= self.judging.cohort_min
                    && !(figure == Figure::Slo && burns_slowly)
                {
                    breach.get_or_insert(Breach { figure, canary, rest });
                }
            }
        }
        breach
    }

    /// Notes the node that carries a room. Returns a breach if the canary's rooms crowd on one node.
    pub fn note_node(&mut self, room: u64, on: NodeId) -> Option<Breach> {
        let known = self.units.get_mut(&room).filter(|known| known.round == self.round)?;
        let before = known.on.replace(on);
        if before == Some(on) {
            return None;
        }
        before.into_iter().for_each(|before| self.standing.remove(known.arm, before));
        self.standing.add(known.arm, on);
        self.standing.breach(&self.judging)
    }

    /// Notes the node at which an arm placed a new room. Returns a breach if the canary places its rooms on one node.
    pub fn note_placement(&mut self, arm: Arm, on: NodeId) -> Option<Breach> {
        self.placed.add(arm, on);
        self.placed.breach(&self.judging)
    }

    /// Notes the decision on a newcomer; `percent` is the canary's share. Returns a breach if the evidence suffices.
    pub fn note_newcomer(
        &mut self,
        newcomer: AdmissionSample,
        percent: u8,
        now: Instant,
    ) -> Option<Breach> {
        self.refusals.note(newcomer, percent, &self.judging, now)
    }

    /// Removes a session or room that ended.
    pub fn leave(&mut self, unit: u64) {
        let Some(known) = self.units.remove(&unit).filter(|known| known.round == self.round) else {
            return;
        };
        self.known[known.arm as usize] -= 1;
        known.on.into_iter().for_each(|on| self.standing.remove(known.arm, on));
        for (figure, test) in MEDIA.into_iter().zip(&mut self.tests) {
            test.at_risk[known.arm as usize] -= u32::from(known.at_risk & bit(figure) != 0);
        }
    }

    /// Rooms or sessions of the canary that reported in this round.
    pub fn cohort_size(&self) -> CohortSize {
        let judged = self.known[Arm::Canary as usize];
        CohortSize { judged, required: self.judging.cohort_min }
    }

    /// Counts of each figure in this round, of the canary and of the rest; refusals only if there were newcomers.
    pub fn figures(&self) -> impl Iterator<Item = (Figure, BreachCount, BreachCount)> {
        let counts = |test: &LogrankTest| (test.count(Arm::Canary), test.count(Arm::Standing));
        let media = MEDIA.into_iter().zip(&self.tests).map(move |(figure, test)| {
            let (canary, rest) = counts(test);
            (figure, canary, rest)
        });
        media.chain(self.refusals.figure())
    }
}

/// Compares the mean over all θ with the threshold of this round.
fn is_proven(evidence: &[f64; THETAS.len()], round: u32) -> bool {
    let mean = evidence.iter().sum::<f64>() / THETAS.len() as f64;
    let round = f64::from(round);
    mean >= TESTED as f64 * round * (round + 1.0) / ERROR
}

/// Decisions of each arm, and how many of them broke a rule or left a room without a standby.
///
/// No statistical test: a revision that decides the impossible is wrong for any cohort.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct RuleBreaches {
    #[serde(with = "instant")]
    began: Instant,
    counts: [BreachCount; 2],
}

impl RuleBreaches {
    /// Begins the first interval.
    pub fn new(now: Instant) -> RuleBreaches {
        RuleBreaches { began: now, counts: [BreachCount::default(); 2] }
    }

    /// Notes decisions of an arm. Returns a breach by this figure if too many of them were worse than allowed.
    pub fn note(
        &mut self,
        figure: Figure,
        arm: Arm,
        decided: BreachCount,
        judging: &Judging,
        now: Instant,
    ) -> Option<Breach> {
        let [rest, canary] = self.counts;
        let decided_before = if canary.of > 0 { canary.of } else { rest.of };
        if now.saturating_duration_since(self.began) >= ROUND && decided_before >= DECISIONS_MIN {
            *self = RuleBreaches::new(now);
        }
        let count = &mut self.counts[arm as usize];
        count.of = count.of.saturating_add(decided.of);
        count.worse = count.worse.saturating_add(decided.worse);
        let count = *count;
        let share = |count: BreachCount| u64::from(count.worse) * 100 / u64::from(count.of.max(1));
        let rest = match arm {
            Arm::Canary => self.counts[Arm::Standing as usize],
            Arm::Standing => BreachCount::default(),
        };
        let too_many = share(count) >= u64::from(judging.guarded_percent)
            && share(count) > share(rest) * 2
            && count.worse >= BROKEN_MIN;
        too_many.then_some(Breach { figure, canary: count, rest })
    }
}

/// Minimum newcomers of the canary in a round.
const NEWCOMERS_MIN: u32 = 50;

/// Newcomers of a round, and the evidence from those that were turned away.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub(super) struct RefusalEvidence {
    /// From 1.
    round: u32,
    #[serde(with = "instant")]
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
            // Many refusals exceed the largest number. An infinity could not be written into a record.
            *evidence = f64::MAX.min(*evidence * odds / (theta * share + 1.0 - share));
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
