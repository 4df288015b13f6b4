//! Tests a plugin with random worlds, as a gateway would ask it, and reports violations.
//!
//! Each question goes to a used and to a fresh instance: both must answer alike, since all state
//! travels in the question. Settings are tried at and beyond each of their bounds.

mod bounds;
pub(crate) mod report;

use evenkeel_host::{BoundPlugin, PluginRefusal};
use evenkeel_model::{Hook, HookAnswer, PluginState, PolicyQuestion};
use serde_json::Value;

pub(crate) use self::bounds::SettingMismatch;
pub use self::report::{ConformanceFinding, ConformanceReport};
use crate::built::Built;
use crate::setting::SettingSchema;
pub use crate::verdict::Violation;
use crate::verdict::violations;
use crate::world::RandomWorld;

/// Time steps per world: enough for a policy that waits three ticks to act, and to undo it.
const TURNS: u32 = 8;

/// Worlds per bound of a setting: a usual one and an odd one.
const WORLDS_OF_BOUND: u64 = 2;

/// The extent of a conformance run.
#[derive(Clone, Debug)]
pub struct ConformanceOptions {
    /// Seed of the first world; world `n` has the seed `seed + n`.
    pub seed: u64,
    /// Number of random worlds. Each is asked about some minutes.
    pub worlds: u32,
    /// Settings; `null` for the defaults.
    pub settings: Value,
}

/// Asks a plugin all kinds of questions that a gateway may ask.
///
/// # Errors
///
/// If the plugin refuses the settings, or fails before its first question.
pub fn run(
    built: &Built,
    options: &ConformanceOptions,
) -> Result<ConformanceReport, PluginRefusal> {
    let manifest = built.component().manifest();
    let mut run = ConformanceRun { built, report: ConformanceReport::default() };
    for &hook in &manifest.hooks {
        // Reports invalid settings at once.
        run.install(hook, &options.settings, &RandomWorld::drawn(0))?;
        for seed in options.seed..options.seed.saturating_add(options.worlds.into()) {
            run.play(hook, seed, &options.settings, None);
        }
    }
    run.report.worlds = options.worlds;
    run.try_settings(options);
    Ok(run.report)
}

struct ConformanceRun<'a> {
    built: &'a Built,
    report: ConformanceReport,
}

impl ConformanceRun<'_> {
    fn install(
        &self,
        hook: Hook,
        settings: &Value,
        world: &RandomWorld,
    ) -> Result<BoundPlugin, PluginRefusal> {
        let (engine, component) = (self.built.engine(), self.built.component());
        BoundPlugin::install(engine, component, hook, settings.clone(), world.catalog(), 1)
    }

    /// Plays one world. `under` is the setting being tried.
    fn play(&mut self, hook: Hook, seed: u64, settings: &Value, under: Option<&str>) {
        let mut world = RandomWorld::drawn(seed);
        let mut policy = match self.install(hook, settings, &world) {
            Ok(policy) => policy,
            Err(refused) => return self.refused(&refused, seed, under),
        };
        for _ in 0..TURNS {
            for question in questions(&mut world, hook) {
                let before = policy.ungranted();
                let outcome = policy.ask(&question, world.now_us());
                let of = ConformanceFinding::of(&question, seed, under);
                self.report.asked(&question);
                let answered = match outcome {
                    Ok(answered) => answered,
                    Err(fault) => {
                        self.report.find(of, Violation::Fault(fault));
                        continue;
                    }
                };
                for violation in violations(&question, &answered.answer) {
                    self.report.find(of.clone(), violation);
                }
                match policy.ungranted() - before {
                    0 => {}
                    actions => self.report.find(of.clone(), Violation::Ungranted(actions)),
                }
                let mut fresh = self.install(hook, settings, &world);
                let again = fresh.as_mut().map(|fresh| fresh.ask(&question, world.now_us()));
                let same = matches!(&again, Ok(Ok(again))
                    if again.answer == answered.answer && again.notes == answered.notes);
                if !same {
                    self.report.find(of, Violation::HiddenState);
                }
                for state in states(&answered.answer) {
                    self.report.state_bytes_max =
                        self.report.state_bytes_max.max(state.bytes.len());
                }
                world.apply(&answered.answer);
            }
            world.turn();
        }
    }

    /// Records a plugin's failure at the start as a failure of `catalog`.
    fn refused(&mut self, refused: &PluginRefusal, seed: u64, under: Option<&str>) {
        let fault = match refused {
            PluginRefusal::Faulted { fault, .. } => fault.clone(),
            other => evenkeel_model::PluginFault::Trap(other.to_string().into()),
        };
        self.report.find(ConformanceFinding::before(seed, under), Violation::Fault(fault));
    }

    /// Tries each setting at and beyond its bounds.
    fn try_settings(&mut self, options: &ConformanceOptions) {
        let manifest = self.built.component().manifest();
        let all = SettingSchema::all(manifest.settings.json());
        let Some(&hook) = manifest.hooks.first() else { return };
        for trial in bounds::trials(&all) {
            self.report.settings_tried += 1;
            let settings = trial.within(&options.settings);
            let installed = self.install(hook, &settings, &RandomWorld::drawn(0));
            match (trial.fits, installed) {
                (true, Ok(_)) => {
                    let under = trial.words();
                    for seed in options.seed..options.seed.saturating_add(WORLDS_OF_BOUND) {
                        self.play(hook, seed, &settings, Some(&under));
                    }
                }
                (true, Err(refused)) => {
                    let (setting, said) = (trial.words(), refused.to_string());
                    self.report.unfit.push(SettingMismatch::Refused { setting, said });
                }
                (false, Ok(_)) => {
                    self.report.unfit.push(SettingMismatch::Taken { setting: trial.words() });
                }
                (false, Err(_)) => {}
            }
        }
    }
}

/// A gateway's questions to this hook at one point in time.
fn questions(world: &mut RandomWorld, hook: Hook) -> Vec<PolicyQuestion> {
    match hook {
        Hook::Scenario => vec![world.resolve(), world.resolve(), world.resolve()],
        Hook::Admission => vec![world.admit(), world.admit(), world.admit()],
        Hook::Routing => vec![world.place(), world.place(), world.reroute()],
        Hook::Degradation => vec![world.tick()],
    }
}

fn states(answer: &HookAnswer) -> Vec<&PluginState> {
    match answer {
        HookAnswer::Params(_) | HookAnswer::Admit { .. } => Vec::new(),
        HookAnswer::Placed { state, .. } => vec![state],
        HookAnswer::Moves { states, .. } | HookAnswer::Actions { states, .. } => {
            states.iter().map(|(_, state)| state).collect()
        }
    }
}

#[cfg(test)]
mod tests;
