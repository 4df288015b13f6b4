//! The harm of a revision that decides alone, for all rooms and sessions, in simulated worlds, beside the noise of chance.

use std::ops::Range;
use std::time::Duration;

use evenkeel_model::PolicyName;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::fault::Fault;
use crate::outcome::Outcome;
use crate::policies::Library;
use crate::script::Script;
use crate::world::World;

/// A call that takes longer is a fault. Virtual time does not pass meanwhile.
const BUDGET: Duration = Duration::from_millis(250);

/// A revision with more faults is not played further.
const FAULTS_MAX: u64 = 200;

/// Noise is this many standard deviations: one figure of a sound revision in a thousand is beyond them.
const DEVIATIONS: f64 = 4.0;

/// The highest R-factor, in hundredths.
const R_BEST: u64 = 9_320;

/// The figures of [`Harm`], each with the least difference that counts.
const FIGURES: [(&str, f64); 6] = [
    ("r", 0.05),
    ("gaps", 0.1),
    ("refusals", 1.0),
    ("caps", 0.001),
    ("moves", 2.0),
    ("faults", 3.0),
];

/// The losses of clients in a set of worlds. More is worse.
#[derive(Clone, Copy, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct Harm {
    /// Mean shortfall of the R-factor.
    pub r: f64,
    /// Seconds in gaps of more than 30 ms.
    pub gaps: f64,
    /// Offers refused.
    pub refusals: f64,
    /// Mean share of the scenario's highest rate that sessions may not send.
    pub caps: f64,
    /// Moves of sessions.
    pub moves: f64,
    /// Answers that failed, and parts of answers that the core rejected.
    pub faults: f64,
}

/// The harm of one revision over runs that differ by chance only.
#[derive(Clone, Copy, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct Noise {
    pub mean: Harm,
    pub deviation: Harm,
}

/// A revision of a policy of the set `call` or `live`.
#[derive(Clone, PartialEq, Debug)]
pub struct OracleRevision {
    pub policy: PolicyName,
    pub plugin: Vec<u8>,
    pub settings: Value,
}

#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct OracleRun {
    pub harm: Harm,
    /// Answers that were compared with those of the other revision, and those that decide otherwise.
    pub compared: u64,
    pub differing: u64,
}

/// Worlds in which revisions are played, for one thread.
pub struct Oracle {
    library: Library,
    worlds: Range<u64>,
}

impl Harm {
    fn values(&self) -> [f64; FIGURES.len()] {
        let Harm { r, gaps, refusals, caps, moves, faults } = *self;
        [r, gaps, refusals, caps, moves, faults]
    }

    fn of_values(values: [f64; FIGURES.len()]) -> Harm {
        let [r, gaps, refusals, caps, moves, faults] = values;
        Harm { r, gaps, refusals, caps, moves, faults }
    }

    fn of(outcomes: &[Outcome]) -> Harm {
        let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>() as f64;
        let samples = sum(|outcome| outcome.rating.samples).max(1.0);
        let shortfall = sum(|outcome| {
            let rating = outcome.rating;
            (rating.samples * R_BEST).saturating_sub(rating.r_hundredths)
        });
        Harm {
            r: shortfall / samples / 100.0,
            gaps: outcomes.iter().map(|outcome| outcome.outage.as_secs_f64()).sum(),
            refusals: sum(|outcome| outcome.refused),
            caps: sum(|outcome| outcome.rating.withheld_permille) / samples / 1_000.0,
            moves: sum(|outcome| outcome.session_moves),
            faults: sum(|outcome| outcome.faults),
        }
    }
}

impl Noise {
    /// # Panics
    /// There are fewer than two runs.
    pub fn of(runs: &[Harm]) -> Noise {
        assert!(runs.len() > 1, "a deviation needs two runs");
        let count = runs.len() as f64;
        let mean = |at: usize| runs.iter().map(|run| run.values()[at]).sum::<f64>() / count;
        let means: [f64; FIGURES.len()] = std::array::from_fn(mean);
        let deviations = std::array::from_fn(|at| {
            let squares = runs.iter().map(|run| (run.values()[at] - means[at]).powi(2));
            (squares.sum::<f64>() / (count - 1.0)).sqrt()
        });
        Noise { mean: Harm::of_values(means), deviation: Harm::of_values(deviations) }
    }

    /// The names of figures that are worse than by chance.
    pub fn exceeded_by(&self, harm: &Harm) -> Vec<&'static str> {
        let (mean, deviation) = (self.mean.values(), self.deviation.values());
        let limits = mean.into_iter().zip(deviation).zip(FIGURES);
        let limits = limits.map(|((mean, deviation), (name, least))| {
            (name, mean + (deviation * DEVIATIONS).max(least))
        });
        let judged = limits.zip(harm.values());
        judged.filter(|((_, limit), value)| value > limit).map(|((name, _), _)| name).collect()
    }
}

impl Oracle {
    pub fn new(worlds: Range<u64>) -> Oracle {
        Oracle { library: Library::with_budget(BUDGET), worlds }
    }

    /// Plays each world with this revision, and compares its answers with those of `beside`. `chance` changes the random
    /// numbers of links, clients and faults, and no world.
    ///
    /// # Errors
    /// A plugin does not run, or its settings are invalid.
    pub fn play(
        &mut self,
        revision: &OracleRevision,
        beside: Option<&OracleRevision>,
        chance: u64,
    ) -> Result<OracleRun, String> {
        let shipped = self.library.policies.clone();
        let run = self.play_revision(revision, beside, chance);
        self.library.policies = shipped;
        self.library.beside = None;
        run
    }

    fn play_revision(
        &mut self,
        revision: &OracleRevision,
        beside: Option<&OracleRevision>,
        chance: u64,
    ) -> Result<OracleRun, String> {
        let OracleRevision { policy, plugin, settings } = revision;
        self.library.replace(policy, Some(plugin), Some(settings.clone()))?;
        if let Some(beside) = beside {
            let component = self.library.vet(&beside.plugin)?;
            self.library.beside = Some((beside.policy.clone(), component, beside.settings.clone()));
        }
        let mut outcomes: Vec<Outcome> = Vec::new();
        for seed in self.worlds.clone() {
            outcomes.push(World::new(script(seed, chance), &self.library).play());
            if outcomes.iter().map(|outcome| outcome.faults).sum::<u64>() > FAULTS_MAX {
                break;
            }
        }
        Ok(OracleRun {
            harm: Harm::of(&outcomes),
            compared: outcomes.iter().map(|outcome| outcome.compared).sum(),
            differing: outcomes.iter().map(|outcome| outcome.differing).sum(),
        })
    }
}

/// The world of a seed, in which each hook is bound and policies are not disturbed.
fn script(seed: u64, chance: u64) -> Script {
    let mut script = Script::from_seed(seed);
    script.seed = seed.wrapping_add(chance << 32);
    script.rated = true;
    for scenario in script.settings.scenarios.values_mut() {
        scenario.bound = [true; 4];
    }
    script.faults.retain(|episode| {
        !matches!(
            episode.fault,
            Fault::PoliciesTrap(_)
                | Fault::PoliciesLate
                | Fault::PoliciesDead
                | Fault::PoliciesHostile
                | Fault::PoliciesSwapped(_)
        )
    });
    script
}
