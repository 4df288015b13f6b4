//! Cost of a plugin's answers: time, and instructions, which are the same on every machine.
//!
//! Questions come from usual worlds of one seed, at the sizes of gateways. Times include the call
//! into the plugin, like the gateway's own accounting. If the plugin's project is given, its code
//! is also compiled and measured natively.

mod native;
mod spread;

use std::fmt;
use std::time::{Duration, Instant};

use evenkeel_host::limits::MEMORY_BYTES_MAX;
use evenkeel_host::{BoundPlugin, CallBudgets, Component, Engine, PluginRefusal};
use evenkeel_model::{Hook, PluginFault, PolicyQuestion, RevisionAnswer};
use serde::Serialize;
use serde_json::{Value, json};

use self::native::NativeQuestions;
pub use self::spread::TimeSpread;
use crate::built::BuiltPlugin;
use crate::inspection::thousands;
use crate::profile::question::ProfiledQuestion;
use crate::project::Project;
use crate::verdict::ask;
use crate::world::{RandomWorld, WorldSize};

/// Rounds of each call; their distribution is reported.
const ROUNDS: usize = 101;

/// Approximate length of a round, which makes the clock's own cost negligible.
const ROUND: Duration = Duration::from_millis(1);

/// Limit of calls per round, for very short calls.
const CALLS_MAX: u32 = 4_096;

/// Budget of a call with counted instructions, which takes several times as long.
const COUNTING: Duration = Duration::from_secs(1);

/// Instances created to measure startup.
const STARTS: usize = 201;

/// The cost of one function of the contract.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct MeasuredCall {
    /// The function: `tick`.
    #[serde(rename = "call")]
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

/// A call that costs more than the manifest declares.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{call} with {rows} rows takes {found} instructions; the manifest declares at most {promised}"
)]
pub struct ExceededBound {
    pub(crate) call: &'static str,
    /// Rows of the question.
    pub rows: u32,
    /// Measured instructions.
    pub found: u64,
    /// The declared bound for this number of rows.
    pub promised: u64,
}

impl ExceededBound {
    /// Returns the call if it exceeds its declared cost.
    pub(crate) fn of(
        call: &'static str,
        rows: u32,
        found: u64,
        promised: Option<u64>,
    ) -> Option<ExceededBound> {
        let promised = promised.filter(|&promised| found > promised)?;
        Some(ExceededBound { call, rows, found, promised })
    }
}

/// Rows of a question: regions of an admission, nodes of a placement, rooms, sessions.
pub(crate) fn rows(question: &PolicyQuestion) -> u32 {
    let rows = match question {
        PolicyQuestion::Resolve { .. } => 0,
        PolicyQuestion::Admit { regions, .. } => regions.len(),
        PolicyQuestion::Place { nodes, .. } => nodes.len(),
        PolicyQuestion::Reroute { rooms, .. } => rooms.len(),
        PolicyQuestion::Tick { sessions, .. } => sessions.len(),
    };
    rows as u32
}

/// Measures a plugin with these settings, `null` for the defaults; natively too if its project is given.
///
/// # Errors
///
/// If the plugin refuses the settings, or fails during the measurement.
pub fn measure(
    built: &BuiltPlugin,
    settings: &Value,
    project: Option<&Project>,
) -> Result<MeasurementReport, PluginRefusal> {
    let manifest = built.component.manifest();
    let (engine, component) = (&built.engine, &built.component);
    // A plugin is timed first, so that it has returned in time once.
    let counting = counting_engine();
    let counted = Component::vet(&counting, &built.bytes)?;

    let (mut calls, mut too_large) = (Vec::new(), Vec::new());
    let mut starts = Vec::new();
    let mut native: Option<NativeQuestions> = None;
    for &hook in &manifest.hooks {
        for call in usual_calls(hook) {
            let mut world = RandomWorld::sized(1, call.size);
            let install = |engine, component| {
                BoundPlugin::install(
                    engine,
                    component,
                    hook,
                    built.inputs(settings),
                    world.catalog.clone(),
                    1,
                )
            };
            if starts.is_empty() {
                for _ in 0..STARTS {
                    let began = Instant::now();
                    drop(install(engine, component)?);
                    starts.push(began.elapsed().as_nanos() as u64);
                }
            }
            let mut policy = install(engine, component)?;
            let mut counting = install(&counting, &counted)?;
            let question = call.steady(&mut policy, &mut world)?;
            let now_us = world.now_us;
            let ns = match time(&mut policy, &question, now_us) {
                Err(PluginRefusal::Faulted { fault: PluginFault::OutOfMemory, .. })
                    if question.rows() > 1 =>
                {
                    too_large.push((call.name, call.rows));
                    continue;
                }
                timed => timed?,
            };
            let instructions = count(&mut counting, &question, now_us)?;
            let questions = native.get_or_insert_with(|| NativeQuestions::with(policy.settings()));
            questions.ask(&policy, call.name, &question, now_us);
            calls.push(MeasuredCall {
                name: call.name,
                rows: call.rows,
                native_ns: None,
                promised: manifest.cost.get(call.name).map(|cost| cost.of(rows(&question))),
                ns,
                instructions,
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
    let exceeded = calls.iter().filter_map(|call| {
        ExceededBound::of(call.name, call.rows, call.instructions, call.promised)
    });
    Ok(MeasurementReport {
        name: (*manifest.name).into(),
        version: manifest.version.clone(),
        bytes: built.bytes.len(),
        compile: built.compiled_in,
        start_ns: TimeSpread::of(starts),
        exceeded: exceeded.collect(),
        too_large,
        calls,
        not_native,
    })
}

/// The questions that are measured, with the states that the plugin wrote.
pub(crate) fn usual_questions(
    built: &BuiltPlugin,
    settings: &Value,
) -> Result<Vec<ProfiledQuestion>, PluginRefusal> {
    let mut questions = Vec::new();
    for &hook in &built.component.manifest().hooks {
        for call in usual_calls(hook) {
            let mut world = RandomWorld::sized(1, call.size);
            let (inputs, catalog) = (built.inputs(settings), world.catalog.clone());
            let mut policy =
                BoundPlugin::install(&built.engine, &built.component, hook, inputs, catalog, 1)?;
            let question = call.steady(&mut policy, &mut world)?;
            if ask(&mut policy, &question, world.now_us)?.is_ok() {
                let settings = policy.settings().to_owned();
                let RandomWorld { catalog, now_us, .. } = world;
                questions.push(ProfiledQuestion { question, catalog, now_us, settings });
            }
        }
    }
    Ok(questions)
}

/// A call at a size of gateways.
struct UsualCall {
    name: &'static str,
    rows: u32,
    size: WorldSize,
    ask: fn(&mut RandomWorld) -> PolicyQuestion,
}

impl UsualCall {
    /// The question in the steady state: with states that the plugin wrote.
    fn steady(
        &self,
        policy: &mut BoundPlugin,
        world: &mut RandomWorld,
    ) -> Result<PolicyQuestion, PluginRefusal> {
        let first = (self.ask)(world);
        // Every row is new, as to a gateway after a push, which asks about fewer at once if it has to.
        let answered = policy
            .ask_isolating(&first, world.now_us, Duration::MAX)
            .map_err(|fault| PluginRefusal::Faulted { call: policy.calling(), fault })?;
        world.apply(&answered.answer);
        Ok((self.ask)(world))
    }
}

/// The calls of a hook, at the sizes of gateways.
fn usual_calls(hook: Hook) -> Vec<UsualCall> {
    let none = WorldSize { regions: 3, nodes: 0, rooms: 0, sessions: 0 };
    let sized = |name,
                 rows: &[u32],
                 size: fn(WorldSize, usize) -> WorldSize,
                 ask: fn(&mut RandomWorld) -> PolicyQuestion| {
        let call = |&rows: &u32| UsualCall { name, rows, size: size(none, rows as usize), ask };
        rows.iter().map(call).collect::<Vec<UsualCall>>()
    };
    match hook {
        Hook::Routing => {
            let mut all = sized(
                "place",
                &[10, 50, 200],
                |of, nodes| WorldSize { nodes, ..of },
                RandomWorld::place,
            );
            all.extend(sized(
                "reroute",
                &[64],
                |of, rooms| WorldSize { nodes: 50, rooms, ..of },
                |world| world.reroute(),
            ));
            all
        }
        Hook::Degradation => sized(
            "tick",
            &[1, 256, 4_096],
            |of, sessions| WorldSize { sessions, ..of },
            |world| world.tick(),
        ),
        Hook::Admission => {
            sized("admit", &[3, 20], |of, regions| WorldSize { regions, ..of }, RandomWorld::admit)
        }
        Hook::Scenario => sized("resolve", &[1], |of, _| of, RandomWorld::resolve),
    }
}

/// An engine that counts instructions.
pub(crate) fn counting_engine() -> Engine {
    Engine::counting(CallBudgets::all(COUNTING))
}

/// The answer, which every failure prevents.
fn answer(
    policy: &mut BoundPlugin,
    question: &PolicyQuestion,
    now_us: u64,
) -> Result<RevisionAnswer, PluginRefusal> {
    ask(policy, question, now_us)?
        .map_err(|fault| PluginRefusal::Faulted { call: policy.calling(), fault })
}

/// Nanoseconds per call, by round.
pub(crate) fn time(
    policy: &mut BoundPlugin,
    question: &PolicyQuestion,
    now_us: u64,
) -> Result<TimeSpread, PluginRefusal> {
    let mut round = |calls: u32| {
        let mut took = Duration::ZERO;
        for _ in 0..calls {
            took += answer(policy, question, now_us)?.took;
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
pub(crate) fn count(
    policy: &mut BoundPlugin,
    question: &PolicyQuestion,
    now_us: u64,
) -> Result<u64, PluginRefusal> {
    answer(policy, question, now_us)?;
    let before = policy.instructions().unwrap_or(0);
    answer(policy, question, now_us)?;
    Ok(policy.instructions().unwrap_or(0) - before)
}

/// Measurements of a plugin. As text for people; see [`json`](MeasurementReport::json) for tools.
#[derive(Clone, PartialEq, Debug)]
pub struct MeasurementReport {
    pub(crate) name: Box<str>,
    pub(crate) version: Box<str>,
    pub(crate) bytes: usize,
    pub(crate) compile: Duration,
    /// Nanoseconds to create an instance and send it settings and catalog.
    pub(crate) start_ns: TimeSpread,
    /// Costs by function and size of the question.
    pub calls: Vec<MeasuredCall>,
    /// Calls above their declared cost.
    pub exceeded: Vec<ExceededBound>,
    /// Calls, with their rows, that need more memory than an instance has.
    pub(crate) too_large: Vec<(&'static str, u32)>,
    /// Reason for the lack of native measurements.
    pub not_native: Option<String>,
}

impl MeasurementReport {
    /// The report of `--json`.
    pub fn json(&self) -> Value {
        let too_large = |&(call, rows): &(&str, u32)| json!({"call": call, "rows": rows});
        json!({
            "name": self.name,
            "version": self.version,
            "bytes": self.bytes,
            "compile_ms": self.compile.as_secs_f64() * 1e3,
            "start_ns": self.start_ns,
            "calls": self.calls,
            "out_of_memory": self.too_large.iter().map(too_large).collect::<Vec<_>>(),
            "not_native": self.not_native,
            "exceeded": self.exceeded.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for MeasurementReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} {} · {} bytes, compiled in {:.1} ms; an instance starts in {:.1} µs (p99 {:.1})",
            self.name,
            self.version,
            thousands(self.bytes),
            self.compile.as_secs_f64() * 1e3,
            self.start_ns.median as f64 / 1e3,
            self.start_ns.p99 as f64 / 1e3,
        )?;
        writeln!(
            f,
            "  {:<9}{:>6}{:>12}{:>12}{:>12}{:>10}{:>12}{:>14}{:>10}{:>14}",
            "call",
            "rows",
            "min ns",
            "median ns",
            "p99 ns",
            "per row",
            "native ns",
            "instructions",
            "per row",
            "promised"
        )?;
        let or_none = |figure: Option<u64>| figure.map_or_else(|| "-".to_owned(), thousands);
        for call in &self.calls {
            let rows = f64::from(call.rows);
            writeln!(
                f,
                "  {:<9}{:>6}{:>12}{:>12}{:>12}{:>10.1}{:>12}{:>14}{:>10.1}{:>14}",
                call.name,
                thousands(call.rows),
                thousands(call.ns.min),
                thousands(call.ns.median),
                thousands(call.ns.p99),
                call.ns.median as f64 / rows,
                or_none(call.native_ns.map(|ns| ns.median)),
                thousands(call.instructions),
                call.instructions as f64 / rows,
                or_none(call.promised),
            )?;
        }
        for (call, rows) in &self.too_large {
            writeln!(
                f,
                "  {call:<9}{:>6}   wanted more than {} MiB of memory; a gateway asks about fewer at once",
                thousands(rows),
                MEMORY_BYTES_MAX >> 20
            )?;
        }
        let words =
            "Time is in the plugin including the call; instructions are the same on every machine.";
        write!(f, "  {words}")?;
        match &self.not_native {
            None => {
                write!(f, "\n  Native is the median of the same code compiled for this machine.")?;
            }
            Some(why) => write!(f, "\n  Not measured natively: {why}")?,
        }
        for exceeded in &self.exceeded {
            write!(f, "\n  too dear: {exceeded}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
