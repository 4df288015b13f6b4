//! Tests a plugin with random worlds, as a gateway would ask it, and reports violations.
//!
//! Each question goes to a used and to a fresh instance: both must answer alike, since all state
//! travels in the question. Settings are tried at and beyond each of their bounds.

mod bounds;

use std::collections::BTreeMap;
use std::fmt;

use evenkeel_host::{BoundPlugin, PluginRefusal};
use evenkeel_model::{Hook, HookAnswer, PluginState, PolicyQuestion};
use serde_json::{Value, json};

use self::bounds::SettingMismatch;
use crate::built::BuiltPlugin;
use crate::inspection::thousands;
use crate::setting::SettingSchema;
pub use crate::verdict::Violation;
use crate::verdict::{examine, is_overrun};
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
/// If the plugin refuses the settings, fails before its first question, or runs past a budget of the gateway.
pub fn run(
    built: &BuiltPlugin,
    options: &ConformanceOptions,
) -> Result<ConformanceReport, PluginRefusal> {
    let manifest = built.component.manifest();
    let mut run = ConformanceRun { built, report: ConformanceReport::default() };
    for &hook in &manifest.hooks {
        // Reports invalid settings at once.
        run.install(hook, &options.settings, &RandomWorld::drawn(0))?;
        for seed in options.seed..options.seed.saturating_add(options.worlds.into()) {
            run.play(hook, seed, &options.settings, None)?;
        }
    }
    run.report.worlds = options.worlds;
    run.try_settings(options)?;
    Ok(run.report)
}

struct ConformanceRun<'a> {
    built: &'a BuiltPlugin,
    report: ConformanceReport,
}

impl ConformanceRun<'_> {
    fn install(
        &self,
        hook: Hook,
        settings: &Value,
        world: &RandomWorld,
    ) -> Result<BoundPlugin, PluginRefusal> {
        let (engine, component) = (&self.built.engine, &self.built.component);
        let inputs = self.built.inputs(settings);
        BoundPlugin::install(engine, component, hook, inputs, world.catalog.clone(), 1)
    }

    /// Plays one world. `under` is the setting being tried.
    fn play(
        &mut self,
        hook: Hook,
        seed: u64,
        settings: &Value,
        under: Option<&str>,
    ) -> Result<(), PluginRefusal> {
        let mut world = RandomWorld::drawn(seed);
        let mut policy = match self.install(hook, settings, &world) {
            Ok(policy) => policy,
            Err(refused) => return self.refused(refused, seed, under),
        };
        for _ in 0..TURNS {
            for question in questions(&mut world, hook) {
                let now_us = world.now_us;
                let fresh = || self.install(hook, settings, &world);
                let (answered, broken) = examine(&mut policy, &question, now_us, fresh)?;
                let of = ConformanceFinding::of(name(&question), seed, under);
                self.report.count(&question);
                broken.into_iter().for_each(|violation| self.report.find(of.clone(), violation));
                let Ok(answered) = answered else { continue };
                for state in states(&answered.answer) {
                    self.report.state_bytes_max =
                        self.report.state_bytes_max.max(state.bytes.len());
                }
                world.apply(&answered.answer);
            }
            world.advance();
        }
        Ok(())
    }

    /// Records a plugin's failure at the start as a failure of `catalog`.
    fn refused(
        &mut self,
        refused: PluginRefusal,
        seed: u64,
        under: Option<&str>,
    ) -> Result<(), PluginRefusal> {
        let fault = match refused {
            overrun if is_overrun(&overrun) => return Err(overrun),
            PluginRefusal::Faulted { fault, .. } => fault,
            other => evenkeel_model::PluginFault::Trap(other.to_string().into()),
        };
        self.report.find(ConformanceFinding::of("catalog", seed, under), Violation::Fault(fault));
        Ok(())
    }

    /// Tries each setting at and beyond its bounds.
    fn try_settings(&mut self, options: &ConformanceOptions) -> Result<(), PluginRefusal> {
        let manifest = self.built.component.manifest();
        let all = SettingSchema::all(&manifest.settings.json);
        let Some(&hook) = manifest.hooks.first() else { return Ok(()) };
        for trial in bounds::trials(&all) {
            self.report.settings_tried += 1;
            let settings = trial.within(&options.settings);
            let installed = self.install(hook, &settings, &RandomWorld::drawn(0));
            match (trial.fits, installed) {
                (true, Ok(_)) => {
                    let under = trial.words();
                    for seed in options.seed..options.seed.saturating_add(WORLDS_OF_BOUND) {
                        self.play(hook, seed, &settings, Some(&under))?;
                    }
                }
                (true, Err(refused)) if is_overrun(&refused) => return Err(refused),
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
        Ok(())
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

/// The result of a run. As text for people; see [`json`](ConformanceReport::json) for tools.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ConformanceReport {
    pub(crate) worlds: u32,
    pub(crate) questions: BTreeMap<&'static str, u64>,
    pub(crate) settings_tried: u32,
    pub(crate) state_bytes_max: usize,
    /// Settings that contradict their schema.
    pub(crate) unfit: Vec<SettingMismatch>,
    /// Violations by kind and question: their number, and the first of each.
    pub violations: BTreeMap<(&'static str, &'static str), (u64, ConformanceFinding, Violation)>,
}

/// A broken rule, with the world that shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConformanceFinding {
    /// The question: `tick`.
    pub(crate) question: &'static str,
    /// Seed of the world, to reproduce it with `--seed` and one world.
    pub(crate) seed: u64,
    /// The setting being tried, if any.
    pub(crate) under: Option<String>,
}

impl ConformanceFinding {
    fn of(question: &'static str, seed: u64, under: Option<&str>) -> ConformanceFinding {
        ConformanceFinding { question, seed, under: under.map(str::to_owned) }
    }
}

impl ConformanceReport {
    /// True if there are no violations; answers that the gateway would reject as guarded do not
    /// count.
    pub fn is_passed(&self) -> bool {
        self.unfit.is_empty()
            && self.violations.values().all(|(.., violation)| violation.is_guarded())
    }

    fn count(&mut self, question: &PolicyQuestion) {
        *self.questions.entry(name(question)).or_default() += 1;
    }

    fn find(&mut self, finding: ConformanceFinding, violation: Violation) {
        let key = (violation.name(), finding.question);
        self.violations.entry(key).or_insert((0, finding, violation)).0 += 1;
    }

    /// The report of `--json`.
    pub fn json(&self) -> Value {
        let violation = |(count, finding, violation): &(u64, ConformanceFinding, Violation)| {
            json!({
                "breach": violation.name(),
                "guarded": violation.is_guarded(),
                "count": count,
                "question": finding.question,
                "seed": finding.seed,
                "under": finding.under,
                "said": violation.to_string(),
            })
        };
        json!({
            "passed": self.is_passed(),
            "worlds": self.worlds,
            "questions": self.questions,
            "settings_tried": self.settings_tried,
            "state_bytes_max": self.state_bytes_max,
            "unfit": self.unfit.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "breaches": self.violations.values().map(violation).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for ConformanceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let questions: Vec<String> = self
            .questions
            .iter()
            .map(|(name, count)| format!("{} {name}", thousands(count)))
            .collect();
        write!(
            f,
            "asked in Wasm: {} in {} random worlds, each twice; {} values of settings; largest state {} bytes",
            questions.join(", "),
            self.worlds,
            self.settings_tried,
            self.state_bytes_max
        )?;
        for unfit in &self.unfit {
            write!(f, "\n  wrong    {unfit}")?;
        }
        for (count, ConformanceFinding { question, seed, under }, violation) in
            self.violations.values()
        {
            let word = if violation.is_guarded() { "guarded" } else { "wrong" };
            let said = violation.to_string().replace(|c: char| c.is_control(), " ");
            write!(f, "\n  {word:<8} {question}, {} times: {said}", thousands(count))?;
            let under = under.as_ref().map(|under| format!(", with {under}")).unwrap_or_default();
            write!(f, "\n           first in the world of `--seed {seed} --worlds 1`{under}")?;
        }
        if self.violations.values().any(|(.., violation)| violation.is_guarded()) {
            write!(
                f,
                "\n  What is guarded the gateway does not do; the policy may know better and ask for less."
            )?;
        }
        Ok(())
    }
}

/// The function of the contract: `tick`.
pub(crate) fn name(question: &PolicyQuestion) -> &'static str {
    match question {
        PolicyQuestion::Resolve { .. } => "resolve",
        PolicyQuestion::Admit { .. } => "admit",
        PolicyQuestion::Place { .. } => "place",
        PolicyQuestion::Reroute { .. } => "reroute",
        PolicyQuestion::Tick { .. } => "tick",
    }
}

#[cfg(test)]
pub(crate) mod tests;
