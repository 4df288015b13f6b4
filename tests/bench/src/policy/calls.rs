//! The cost of policy calls, successful and failed.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use evenkeel_host::{BoundPlugin, CallBudgets, Component, Engine, PluginRefusal, shipped};
use evenkeel_model::{Hook, HookAnswer, PluginFault, PluginState, PolicyQuestion};

use super::questions::{self, NOW_US, SESSIONS};
use super::report::{Distribution, Figure, Report, Tail};
use super::{Effort, native};

/// New policies per round (`MADE`), and traps and runaway calls per round (`FAILED`).
const MADE: usize = 100;
const FAILED: usize = 10;

/// A native function that measures this many ticks of sessions with these states.
type Natively = fn(usize, &[Option<PluginState>]) -> Result<Duration, String>;

/// The bench's own plugins.
#[derive(Default)]
pub(crate) struct Guests {
    empty: Vec<u8>,
    pub(crate) smooth: Vec<u8>,
    pub(crate) harm: Vec<u8>,
    pub(crate) misroute: Vec<u8>,
}

/// Reason why calls could not be measured.
#[derive(Debug)]
pub(crate) enum Failed {
    /// A policy failed unexpectedly.
    Fault(PluginFault),
    /// A plugin was refused unexpectedly.
    Refused(PluginRefusal),
    /// The native functions failed.
    Native(String),
    Missing(&'static str),
    /// A call, and its unexpected outcome.
    Otherwise(&'static str, String),
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failed::Fault(fault) => write!(f, "a policy failed that should not: {fault}"),
            Failed::Refused(refused) => {
                write!(f, "a plugin was refused that should not: {refused}")
            }
            Failed::Native(why) => write!(f, "natively: {why}"),
            Failed::Missing(name) => write!(f, "{name} is not shipped"),
            Failed::Otherwise(what, found) => write!(f, "{what} ended so: {found}"),
        }
    }
}

impl From<PluginFault> for Failed {
    fn from(fault: PluginFault) -> Failed {
        Failed::Fault(fault)
    }
}

impl From<PluginRefusal> for Failed {
    fn from(refused: PluginRefusal) -> Failed {
        Failed::Refused(refused)
    }
}

impl From<Failed> for String {
    fn from(failed: Failed) -> String {
        failed.to_string()
    }
}

impl Guests {
    /// # Errors
    /// A guest is missing; the error names what builds it.
    pub(crate) fn read(folder: &Path) -> Result<Guests, String> {
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path).map_err(|error| {
                format!("no guest at {}: {error}; `make bench-policy` builds it", path.display())
            })
        };
        let (empty, smooth) = (read("bench_empty.wasm")?, read("bench_smooth.wasm")?);
        let (harm, misroute) = (read("bench_harm.wasm")?, read("bench_misroute.wasm")?);
        Ok(Guests { empty, smooth, harm, misroute })
    }
}

/// Measures everything that needs no gateway.
///
/// # Errors
/// A measurement failed.
pub(crate) fn measure(guests: &Guests, effort: Effort, report: &mut Report) -> Result<(), Failed> {
    let engine = Engine::new();
    let vet = |bytes: &[u8]| Ok::<_, Failed>(Component::vet(&engine, bytes)?);
    let (route, ladder) = (ship("route-nearest")?, ship("degrade-ladder")?);
    let make = |component: &Component, hook| install(&engine, component, hook);
    let plugins = [&guests.empty[..], route, &guests.smooth, ladder];
    let flat = plugins.map(vet);
    let component = plugins.map(|bytes| vet(&by_component(bytes)?));
    for (plugins, costs) in [(flat, &mut report.flat), (component, &mut report.component)] {
        let [empty, route, smooth, ladder] = plugins;
        let (empty, route) = (empty?, route?);
        costs.empty_ns = beside(
            effort,
            |calls| resolves(&mut make(&empty, Hook::Scenario)?, calls),
            |calls| native::empty(calls).map(nanos),
        )?;
        costs.place_ns =
            tails(effort, |calls| places(&mut make(&route, Hook::Routing)?, calls), native::place)?;
        for (component, of, by) in [
            (smooth?, &mut costs.tick_ns, native::smooth as Natively),
            (ladder?, &mut costs.ladder_tick_ns, native::ladder as Natively),
        ] {
            let mut policy = make(&component, Hook::Degradation)?;
            let states = first_states(&mut policy)?;
            let calls = (effort.calls / 100).max(1);
            *of = beside(
                Effort { calls, ..effort },
                |calls| ticks(&mut policy, &states, calls),
                |calls| by(calls, &states).map(nanos),
            )?;
        }
    }
    let (empty, route) = (vet(&guests.empty)?, vet(route)?);
    let mut made = Vec::new();
    for _ in 0..effort.rounds {
        for _ in 0..MADE {
            let began = Instant::now();
            let policy = make(&route, Hook::Routing)?;
            made.push(began.elapsed().as_secs_f64() * 1e6);
            drop(black_box(policy));
        }
    }
    report.instantiate_us = Tail::of(&mut made);
    fail(&mut make(&empty, Hook::Scenario)?, effort, report)
}

fn ship(name: &'static str) -> Result<&'static [u8], Failed> {
    let found = shipped().iter().find(|plugin| plugin.name == name);
    Ok(found.ok_or(Failed::Missing(name))?.bytes)
}

/// The export by which a gateway knows that a plugin may be called flat.
const FLAT: &[u8] = b"flat_reserve";

/// The plugin without that export, so that it is called through the component model.
fn by_component(plugin: &[u8]) -> Result<Vec<u8>, Failed> {
    let at = plugin.windows(FLAT.len()).position(|part| part == FLAT);
    let mut other = plugin.to_vec();
    other[at.ok_or(Failed::Missing("a flat export"))?] = b'F';
    Ok(other)
}

fn install(
    engine: &Engine,
    component: &Component,
    hook: Hook,
) -> Result<BoundPlugin, PluginRefusal> {
    let settings = serde_json::Value::Null;
    BoundPlugin::install(engine, component, hook, settings, questions::catalog(), 7)
}

/// Medians over rounds in which Wasm and native take turns.
fn beside(
    effort: Effort,
    mut wasm: impl FnMut(usize) -> Result<f64, Failed>,
    native: impl Fn(usize) -> Result<f64, String>,
) -> Result<Figure, Failed> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        ours.push(wasm(effort.calls)?);
        theirs.push(native(effort.calls).map_err(Failed::Native)?);
    }
    Ok(Figure::of(&ours, &theirs))
}

/// Like `beside`, for the median and the tail of a distribution.
fn tails(
    effort: Effort,
    mut wasm: impl FnMut(usize) -> Result<Vec<Duration>, Failed>,
    native: impl Fn(usize) -> Result<Vec<Duration>, String>,
) -> Result<Distribution, Failed> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        ours.push(Tail::of_times(&wasm(effort.calls)?));
        theirs.push(Tail::of_times(&native(effort.calls).map_err(Failed::Native)?));
    }
    Ok(Distribution::of(&ours, &theirs))
}

fn empty(label: Option<&str>) -> PolicyQuestion {
    let labels = label.map(|key| (key.into(), "".into())).into_iter().collect();
    PolicyQuestion::Resolve { scenario: "call".into(), labels }
}

fn resolves(policy: &mut BoundPlugin, calls: usize) -> Result<f64, Failed> {
    let question = empty(None);
    let began = Instant::now();
    for _ in 0..calls {
        black_box(policy.ask(&question, NOW_US)?);
    }
    Ok(nanos(began.elapsed()) / calls as f64)
}

fn places(policy: &mut BoundPlugin, calls: usize) -> Result<Vec<Duration>, Failed> {
    let mut question = questions::place(0);
    let mut took = Vec::with_capacity(calls);
    for number in 0..calls as u64 {
        if let PolicyQuestion::Place { room, .. } = &mut question {
            room.0 = number;
        }
        let began = Instant::now();
        black_box(policy.ask(&question, NOW_US)?);
        took.push(began.elapsed());
    }
    Ok(took)
}

/// States as the policy writes them: those of new sessions, one tick later.
fn first_states(policy: &mut BoundPlugin) -> Result<Vec<Option<PluginState>>, Failed> {
    let mut states = vec![None; SESSIONS];
    let answered = policy.ask(&questions::tick(&states), NOW_US)?;
    let HookAnswer::Actions { states: kept, .. } = answered.answer else {
        let found = "an answer without actions".to_owned();
        return Err(Failed::Otherwise("a tick", found));
    };
    for (row, state) in kept {
        states[row as usize] = Some(state);
    }
    match states.iter().all(Option::is_some) {
        true => Ok(states),
        false => Err(Failed::Otherwise("a tick", "sessions without a state".to_owned())),
    }
}

fn ticks(
    policy: &mut BoundPlugin,
    states: &[Option<PluginState>],
    calls: usize,
) -> Result<f64, Failed> {
    let question = questions::tick(states);
    let began = Instant::now();
    for _ in 0..calls {
        black_box(policy.ask(&question, NOW_US)?);
    }
    Ok(nanos(began.elapsed()) / (calls * SESSIONS) as f64)
}

/// Measures the time from a call that traps to the next answer, and the time of a runaway call beyond its budget.
fn fail(policy: &mut BoundPlugin, effort: Effort, report: &mut Report) -> Result<(), Failed> {
    let (trap, runaway, sound) = (empty(Some("trap")), empty(Some("runaway")), empty(None));
    let budget = CallBudgets::default().resolve;
    let (mut traps, mut cuts) = (Vec::new(), Vec::new());
    for _ in 0..effort.rounds * FAILED {
        let began = Instant::now();
        let failed = policy.ask(&trap, NOW_US);
        policy.ask(&sound, NOW_US)?;
        traps.push(began.elapsed().as_secs_f64() * 1e3);
        if !matches!(failed, Err(PluginFault::Trap(_))) {
            return Err(Failed::Otherwise("a call that should trap", format!("{failed:?}")));
        }
        let began = Instant::now();
        let cut = policy.ask(&runaway, NOW_US);
        cuts.push((began.elapsed().saturating_sub(budget)).as_secs_f64() * 1e3);
        if !matches!(cut, Err(PluginFault::Deadline)) {
            return Err(Failed::Otherwise("a call that should time out", format!("{cut:?}")));
        }
    }
    report.trap_to_serving_ms = Tail::of(&mut traps);
    report.cut_over_ms = Tail::of(&mut cuts);
    Ok(())
}

fn nanos(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9
}
