//! Whether a canary's cohort fares worse than the rest: looked at with every summary, and wrong rarely however long it lasts.
//!
//! Who is in the canary is drawn by lot, by a hash that knows nothing of the network. So if the candidate does nobody any
//! harm, then whoever is the next to fare badly is of the canary with the probability that a lot has among those who are
//! left: `canary / (canary + rest)`, whatever happened to all of them together. Each figure is therefore tested by the
//! safe logrank test (Grünwald, Ly, Pérez-Ortiz and ter Schure, *The Safe Logrank Test*, 2020): the evidence is a product
//! with one factor for each who falls, the odds of that under "the canary falls θ times as easily" against the lot. By
//! Ville's inequality it reaches `1/α` with a probability of at most α, no matter how often one looks. Since θ is not
//! known, the mean over a few is taken, which is evidence again.
//!
//! What makes that hold here: each room or session counts once, when it falls, so that one that fares badly for a minute
//! is no more evidence than one that does for a second; and who fared badly before is not at risk. A round lasts 10 s;
//! then everybody who fares well is at risk again, and old calm does not weigh against new harm. Round `k` has the share
//! `1/k(k+1)` of the error that is allowed, which adds up to all of it however many there are.
//!
//! Newcomers who are turned away fare neither well nor badly, as nobody hears of them again: they have a test of their own
//! (`refusals.rs`).

mod refusals;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::Arm;
use refusals::Refusals;

/// How often at most a candidate that does no harm is rolled back, all figures and rounds together: one in two hundred.
const ERROR: f64 = 0.005;

/// How many times as easily the canary may fall: from what is just harm to a cohort that falls all at once.
const THETAS: [f64; 5] = [2.0, 8.0, 32.0, 128.0, 512.0];

/// Who fares well is at risk again after this.
const ROUND: Duration = Duration::from_secs(10);

/// Decisions of a round below which guarded ones say nothing.
const DECISIONS_MIN: u32 = 20;

/// What is judged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Figure {
    /// It hears nothing for too long, though it heard its node steadily; or so much was missing when another went on.
    Gap = 0,
    /// It loses too much, either way, after repair: by what is measured and reported, or by the numbers of what its node
    /// sent.
    Loss = 1,
    /// Its voice is too poor (ITU-T G.107).
    RFactor = 2,
    /// It is too far down the ladder.
    Rung = 3,
    /// Its room moves too often.
    Moves = 4,
    /// Too many of the revision's own decisions break native rules.
    Guarded = 5,
    /// Its answers are not those of a fresh instance: it cannot be replayed, nor trusted to go on after a fault.
    HiddenState = 6,
    /// Newcomers are turned away by its own word: told to stay out, or to go to another region.
    Refusals = 7,
}

impl Figure {
    /// Those that rooms and sessions fall by.
    const MEDIA: usize = 5;

    /// Those that are tested by lot, and share the error that is allowed.
    const TESTED: usize = Figure::MEDIA + 1;

    /// The word in the API and in reasons: `loss`.
    pub fn name(self) -> &'static str {
        match self {
            Figure::Gap => "gap",
            Figure::Loss => "loss",
            Figure::RFactor => "r-factor",
            Figure::Rung => "rung",
            Figure::Moves => "moves",
            Figure::Guarded => "guarded decisions",
            Figure::HiddenState => "hidden state",
            Figure::Refusals => "refusals",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

const MEDIA: [Figure; Figure::MEDIA] =
    [Figure::Gap, Figure::Loss, Figure::RFactor, Figure::Rung, Figure::Moves];

/// From where on somebody fares badly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Judging {
    /// Nothing heard for so long. Default 400 ms.
    pub gap: Duration,
    /// Lost on the way up or down, parts per million. Default 50,000 (5 %).
    pub loss_ppm: u32,
    /// R-factor below this, times 100. Default 6,000: many are dissatisfied (ITU-T G.109).
    pub r_factor_centi: u32,
    /// On this rung or further down. Default 2: capped, and voice only.
    pub rung: u8,
    /// Moves of a room within a minute. Default 3.
    pub moves_per_minute: u32,
    /// Decisions that break a rule, per cent. Default 50.
    pub guarded_percent: u32,
    /// Newcomers turned away, per cent of the canary's: below it a policy may be stricter than the one before. Default 20.
    pub refused_percent: u32,
    /// Fewer rooms, sessions or newcomers in the canary say nothing. Default 5.
    pub cohort_min: u32,
}

impl Default for Judging {
    fn default() -> Self {
        Judging {
            gap: Duration::from_millis(400),
            loss_ppm: 50_000,
            r_factor_centi: 6_000,
            rung: 2,
            moves_per_minute: 3,
            guarded_percent: 50,
            refused_percent: 20,
            cohort_min: 5,
        }
    }
}

/// By which figures somebody fares badly now.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Bad(u8);

impl Bad {
    pub(crate) fn with(self, figure: Figure, is: bool) -> Bad {
        if is { Bad(self.0 | figure.bit()) } else { self }
    }

    pub(crate) fn and(self, other: Bad) -> Bad {
        Bad(self.0 | other.0)
    }
}

/// Of a cohort: how many got worse, and of how many.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Count {
    /// Rooms, sessions, decisions or newcomers.
    pub of: u32,
    /// Those of them that got worse, broke a rule, or were turned away.
    pub worse: u32,
}

/// The canary does harm.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Breach {
    /// By which figure.
    pub figure: Figure,
    /// Of the canary; of the revision in force where that is judged by itself.
    pub canary: Count,
    /// Of the rest.
    pub rest: Count,
}

impl std::fmt::Display for Breach {
    /// `loss: 8 of 10 got worse, of the rest 0 of 190`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Breach { figure, canary, rest } = self;
        let verb = match figure {
            Figure::Guarded => "broke a rule",
            Figure::HiddenState => "differed from a fresh instance's",
            Figure::Refusals => "turned away",
            Figure::Gap | Figure::Loss | Figure::RFactor | Figure::Rung | Figure::Moves => {
                "got worse"
            }
        };
        write!(f, "{}: {} of {} {verb}", figure.name(), canary.worse, canary.of)?;
        match rest.of {
            0 => Ok(()),
            of => write!(f, ", of the rest {} of {of}", rest.worse),
        }
    }
}

/// Compares a canary with the rest.
#[derive(Debug)]
pub(crate) struct Judge {
    judging: Judging,
    /// From 1.
    round: u32,
    began: Instant,
    units: BTreeMap<u64, Unit>,
    /// Rooms or sessions known in this round, by arm.
    known: [u32; 2],
    tests: [Test; Figure::MEDIA],
    refusals: Refusals,
}

/// Somebody about whom an admission policy answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Newcomer {
    /// Whose answer it was.
    pub(crate) arm: Arm,
    /// Whether it turned him away.
    pub(crate) turned_away: bool,
}

/// A room or a session.
#[derive(Clone, Copy, Debug)]
struct Unit {
    round: u32,
    arm: Arm,
    /// Figures that it has not fallen by.
    at_risk: u8,
}

/// One figure's.
#[derive(Clone, Copy, Debug)]
struct Test {
    at_risk: [u32; 2],
    fallen: [u32; 2],
    evidence: [f64; THETAS.len()],
}

impl Test {
    const NEW: Test = Test { at_risk: [0; 2], fallen: [0; 2], evidence: [1.0; THETAS.len()] };

    /// One of this arm fell.
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

    fn count(&self, arm: Arm) -> Count {
        let worse = self.fallen[arm as usize];
        Count { of: self.at_risk[arm as usize] + worse, worse }
    }
}

impl Judge {
    pub(crate) fn new(judging: Judging, now: Instant) -> Judge {
        let tests = [Test::NEW; Figure::MEDIA];
        let (units, refusals) = (BTreeMap::new(), Refusals::new(now));
        Judge { judging, round: 1, began: now, units, known: [0; 2], tests, refusals }
    }

    pub(crate) fn judging(&self) -> &Judging {
        &self.judging
    }

    /// From where on somebody fares badly from now on; who has not fallen yet is at risk of that, in either arm.
    pub(crate) fn judge_by(&mut self, judging: Judging) {
        self.judging = judging;
    }

    /// The share is another one, or the round is over: everybody who fares well is at risk, none of it counts that was.
    pub(crate) fn begin_round(&mut self, now: Instant) {
        self.round += 1;
        self.began = now;
        self.known = [0; 2];
        self.tests = [Test::NEW; Figure::MEDIA];
    }

    /// Begins the next round where this one is over.
    pub(crate) fn turn(&mut self, now: Instant) {
        if now.saturating_duration_since(self.began) >= ROUND {
            self.begin_round(now);
        }
    }

    /// How many rooms or sessions are kept.
    pub(crate) fn known(&self) -> usize {
        self.units.len()
    }

    /// Whether the room or session is known in this round.
    pub(crate) fn knows(&self, unit: u64) -> bool {
        self.units.get(&unit).is_some_and(|known| known.round == self.round)
    }

    /// It is known from now on, and was faring like this before anything was done to it.
    pub(crate) fn enrol(&mut self, unit: u64, arm: Arm, bad: Bad) {
        if self.knows(unit) {
            return;
        }
        let all = (1 << Figure::MEDIA) - 1;
        let at_risk = all & !bad.0;
        self.units.insert(unit, Unit { round: self.round, arm, at_risk });
        self.known[arm as usize] += 1;
        for (figure, test) in MEDIA.into_iter().zip(&mut self.tests) {
            test.at_risk[arm as usize] += u32::from(at_risk & figure.bit() != 0);
        }
    }

    /// It fares like this now. What that proves, if it does.
    pub(crate) fn note(&mut self, unit: u64, bad: Bad) -> Option<Breach> {
        let known = self.units.get_mut(&unit).filter(|known| known.round == self.round)?;
        let fell = known.at_risk & bad.0;
        if fell == 0 {
            return None;
        }
        known.at_risk &= !fell;
        let arm = known.arm;
        let mut breach = None;
        for (figure, test) in MEDIA.into_iter().zip(&mut self.tests) {
            if fell & figure.bit() != 0 {
                test.fall(arm);
                let proven = is_proven(&test.evidence, self.round);
                if proven && self.known[Arm::Canary as usize] >= self.judging.cohort_min {
                    let (canary, rest) = (test.count(Arm::Canary), test.count(Arm::Standing));
                    breach.get_or_insert(Breach { figure, canary, rest });
                }
            }
        }
        breach
    }

    /// A newcomer got an answer; the canary's share of them is this, per cent. What that proves, if it does.
    pub(crate) fn note_newcomer(
        &mut self,
        newcomer: Newcomer,
        percent: u8,
        now: Instant,
    ) -> Option<Breach> {
        self.refusals.note(newcomer, percent, &self.judging, now)
    }

    /// It is gone.
    pub(crate) fn leave(&mut self, unit: u64) {
        let Some(known) = self.units.remove(&unit).filter(|known| known.round == self.round) else {
            return;
        };
        self.known[known.arm as usize] -= 1;
        for (figure, test) in MEDIA.into_iter().zip(&mut self.tests) {
            test.at_risk[known.arm as usize] -= u32::from(known.at_risk & figure.bit() != 0);
        }
    }

    /// Rooms or sessions of the canary that were heard of in this round.
    pub(crate) fn cohort(&self) -> u32 {
        self.known[Arm::Canary as usize]
    }

    /// What each figure came to in this round, of the canary and of the rest; refusals where anybody came.
    pub(crate) fn figures(&self) -> impl Iterator<Item = (Figure, Count, Count)> {
        let counts = |test: &Test| (test.count(Arm::Canary), test.count(Arm::Standing));
        let media = MEDIA.into_iter().zip(&self.tests).map(move |(figure, test)| {
            let (canary, rest) = counts(test);
            (figure, canary, rest)
        });
        media.chain(self.refusals.figure())
    }
}

/// Whether the mean over all θ comes to what a round may go by.
fn is_proven(evidence: &[f64; THETAS.len()], round: u32) -> bool {
    let mean = evidence.iter().sum::<f64>() / THETAS.len() as f64;
    let round = f64::from(round);
    mean >= Figure::TESTED as f64 * round * (round + 1.0) / ERROR
}

/// How often the decisions of each arm broke a rule.
///
/// No test of chance: a revision that mostly says what cannot be is wrong, whoever it says it about.
#[derive(Debug)]
pub(crate) struct Conduct {
    began: Instant,
    counts: [Count; 2],
}

impl Conduct {
    pub(crate) fn new(now: Instant) -> Conduct {
        Conduct { began: now, counts: [Count::default(); 2] }
    }

    /// An arm decided so much, of which so much broke a rule. What that proves of it.
    pub(crate) fn note(
        &mut self,
        arm: Arm,
        decided: Count,
        judging: &Judging,
        now: Instant,
    ) -> Option<Breach> {
        if now.saturating_duration_since(self.began) >= ROUND {
            *self = Conduct::new(now);
        }
        let count = &mut self.counts[arm as usize];
        count.of = count.of.saturating_add(decided.of);
        count.worse = count.worse.saturating_add(decided.worse);
        let count = *count;
        let share = |count: Count| u64::from(count.worse) * 100 / u64::from(count.of.max(1));
        let rest = match arm {
            Arm::Canary => self.counts[Arm::Standing as usize],
            Arm::Standing => Count::default(),
        };
        let too_many = share(count) >= u64::from(judging.guarded_percent)
            && share(count) > share(rest) * 2
            && count.of >= DECISIONS_MIN;
        too_many.then_some(Breach { figure: Figure::Guarded, canary: count, rest })
    }
}

#[cfg(test)]
mod tests;
