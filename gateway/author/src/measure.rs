//! Cost of a plugin's answers: time, and instructions, which are the same on every machine.
//!
//! Questions come from usual worlds of one seed, at the sizes of gateways. Times include the call
//! into the plugin, like the gateway's own accounting. If the plugin's project is given, its code
//! is also compiled and measured natively.

pub(crate) mod cost;
mod native;
mod report;
mod spread;

use std::time::{Duration, Instant};

use evenkeel_host::{BoundPlugin, CallBudgets, Component, Engine, PluginRefusal};
use evenkeel_model::{Hook, PolicyQuestion};
use serde_json::Value;

pub use self::cost::Exceeded;
use self::cost::promised;
use self::native::Native;
pub use self::report::MeasurementReport;
pub use self::spread::TimeSpread;
use crate::built::{Built, PATIENCE};
use crate::cargo::Project;
use crate::world::{RandomWorld, Size};

/// Rounds of each call; their distribution is reported.
const ROUNDS: usize = 101;

/// Approximate length of a round, which makes the clock's own cost negligible.
const ROUND: Duration = Duration::from_millis(1);

/// Limit of calls per round, for very short calls.
const CALLS_MAX: u32 = 4_096;

/// Instances created to measure startup.
const STARTS: usize = 201;

/// The cost of one function of the contract.
#[derive(Clone, PartialEq, Debug)]
pub struct MeasuredCall {
    /// The function: `tick`.
    pub(crate) name: &'static str,
    /// Number of rows: nodes of a placement, regions of an admission, rooms, or sessions; 1 for a scenario.
    pub rows: u32,
    /// Nanoseconds per call, by round.
    pub ns: TimeSpread,
    /// Nanoseconds per call of the native build, by round.
    pub native_ns: Option<TimeSpread>,
    /// Instructions of Wasm per call.
    pub instructions: u64,
    /// The bound declared in the manifest, if any.
    pub promised: Option<u64>,
}

/// Measures a plugin with these settings, `null` for the defaults; natively too if its project is given.
///
/// # Errors
///
/// If the plugin refuses the settings, or fails during the measurement.
pub fn measure(
    built: &Built,
    settings: &Value,
    project: Option<&Project>,
) -> Result<MeasurementReport, PluginRefusal> {
    let manifest = built.component().manifest();
    let began = Instant::now();
    let engine = Engine::with_budgets(CallBudgets::all(PATIENCE));
    let component = Component::vet(&engine, built.bytes())?;
    let compile = began.elapsed();
    let counting = Engine::counting(CallBudgets::all(PATIENCE));
    let counted = Component::vet(&counting, built.bytes())?;

    let mut calls = Vec::new();
    let mut starts = Vec::new();
    let mut native: Option<Native> = None;
    for &hook in &manifest.hooks {
        for case in cases(hook) {
            let mut world = RandomWorld::sized(1, case.size);
            let install = |engine, component| {
                BoundPlugin::install(engine, component, hook, settings.clone(), world.catalog(), 1)
            };
            if starts.is_empty() {
                for _ in 0..STARTS {
                    let began = Instant::now();
                    drop(install(&engine, &component)?);
                    starts.push(began.elapsed().as_nanos() as u64);
                }
            }
            let mut policy = install(&engine, &component)?;
            let mut counting = install(&counting, &counted)?;
            let question = case.steady(&mut policy, &mut world)?;
            let now_us = world.now_us();
            let questions = native.get_or_insert_with(|| Native::with(policy.settings()));
            questions.ask(&policy, case.name, &question, now_us);
            calls.push(MeasuredCall {
                name: case.name,
                rows: case.rows,
                native_ns: None,
                promised: promised(manifest, case.name, cost::rows(&question)),
                ns: time(&mut policy, &question, now_us).map_err(|fault| case.failed(fault))?,
                instructions: count(&mut counting, &question, now_us)
                    .map_err(|fault| case.failed(fault))?,
            });
        }
    }
    let not_native = match (project, native) {
        (Some(project), Some(native)) => match native.measure(project) {
            Ok(figures) => {
                for (call, ns) in calls.iter_mut().zip(figures) {
                    call.native_ns = Some(ns);
                }
                None
            }
            Err(failed) => Some(failed.to_string()),
        },
        _ => Some("no project of this plugin here; name its folder with `--project`".into()),
    };
    let exceeded = calls
        .iter()
        .filter_map(|call| Exceeded::of(call.name, call.rows, call.instructions, call.promised));
    Ok(MeasurementReport {
        name: (*manifest.name).into(),
        version: manifest.version.clone(),
        bytes: built.bytes().len(),
        compile,
        start_ns: TimeSpread::of(starts),
        exceeded: exceeded.collect(),
        calls,
        not_native,
    })
}

struct Case {
    name: &'static str,
    rows: u32,
    size: Size,
    ask: fn(&mut RandomWorld) -> PolicyQuestion,
}

impl Case {
    /// The question in the steady state: with states that the plugin wrote.
    fn steady(
        &self,
        policy: &mut BoundPlugin,
        world: &mut RandomWorld,
    ) -> Result<PolicyQuestion, PluginRefusal> {
        let first = (self.ask)(world);
        let answered = policy.ask(&first, world.now_us()).map_err(|fault| self.failed(fault))?;
        world.apply(&answered.answer);
        Ok((self.ask)(world))
    }

    fn failed(&self, fault: evenkeel_model::PluginFault) -> PluginRefusal {
        PluginRefusal::Faulted { call: self.name, fault }
    }
}

/// The calls of a hook, at the sizes of gateways.
fn cases(hook: Hook) -> Vec<Case> {
    let none = Size { regions: 3, nodes: 0, rooms: 0, sessions: 0 };
    let sized = |name,
                 rows: &[u32],
                 size: fn(Size, usize) -> Size,
                 ask: fn(&mut RandomWorld) -> PolicyQuestion| {
        let case = |&rows: &u32| Case { name, rows, size: size(none, rows as usize), ask };
        rows.iter().map(case).collect::<Vec<Case>>()
    };
    match hook {
        Hook::Routing => {
            let mut all = sized(
                "place",
                &[10, 50, 200],
                |of, nodes| Size { nodes, ..of },
                RandomWorld::place,
            );
            all.extend(sized(
                "reroute",
                &[64],
                |of, rooms| Size { nodes: 50, rooms, ..of },
                |world| world.reroute(),
            ));
            all
        }
        Hook::Degradation => sized(
            "tick",
            &[1, 256, 4_096],
            |of, sessions| Size { sessions, ..of },
            |world| world.tick(),
        ),
        Hook::Admission => {
            sized("admit", &[3, 20], |of, regions| Size { regions, ..of }, RandomWorld::admit)
        }
        Hook::Scenario => sized("resolve", &[1], |of, _| of, RandomWorld::resolve),
    }
}

fn time(
    policy: &mut BoundPlugin,
    question: &PolicyQuestion,
    now_us: u64,
) -> Result<TimeSpread, evenkeel_model::PluginFault> {
    let mut round = |calls: u32| {
        let mut took = Duration::ZERO;
        for _ in 0..calls {
            took += policy.ask(question, now_us)?.took;
        }
        Ok((took / calls).as_nanos() as u64)
    };
    // The first calls are slower: they touch memory for the first time.
    round(8)?;
    let one = u128::from(round(8)?.max(1));
    let calls = u32::try_from(ROUND.as_nanos() / one).unwrap_or(CALLS_MAX).clamp(1, CALLS_MAX);
    (0..ROUNDS).map(|_| round(calls)).collect::<Result<Vec<u64>, _>>().map(TimeSpread::of)
}

/// Instructions of a second call: the first one grows the plugin's memory.
fn count(
    policy: &mut BoundPlugin,
    question: &PolicyQuestion,
    now_us: u64,
) -> Result<u64, evenkeel_model::PluginFault> {
    policy.ask(question, now_us)?;
    let before = policy.instructions().unwrap_or(0);
    policy.ask(question, now_us)?;
    Ok(policy.instructions().unwrap_or(0) - before)
}

#[cfg(test)]
mod tests;
