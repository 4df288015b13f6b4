//! What a call costs, and what it costs when it fails.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use evenkeel_core::{Answer, Fault, Hook, Question, State};
use evenkeel_host::{Budgets, Component, Engine, Policy, shipped};

use super::Effort;
use super::native;
use super::questions::{self, NOW_US, SESSIONS};
use super::report::{Distribution, Figure, Report, Tail};

/// Policies that are made, traps and runaway calls of a round.
const MADE: usize = 100;
const FAILED: usize = 10;

/// Ticks of sessions with these states.
type Natively = fn(usize, &[Option<State>]) -> Result<Duration, String>;

/// The bench's own plugins.
pub(crate) struct Guests {
    empty: Vec<u8>,
    smooth: Vec<u8>,
}

impl Guests {
    /// # Errors
    /// Which is not there, and what builds it.
    pub(crate) fn read(folder: &Path) -> Result<Guests, String> {
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path).map_err(|error| {
                format!("no guest at {}: {error}; `make bench-policy` builds it", path.display())
            })
        };
        Ok(Guests { empty: read("bench_empty.wasm")?, smooth: read("bench_smooth.wasm")? })
    }
}

/// Everything that needs no gateway.
///
/// # Errors
/// What could not be measured, in a sentence.
pub(crate) fn measure(guests: &Guests, effort: Effort, report: &mut Report) -> Result<(), String> {
    let engine = Engine::new();
    let vet = |bytes: &[u8]| Component::vet(&engine, bytes).map_err(|refused| refused.to_string());
    let ship = |name: &str| {
        let found = shipped().iter().find(|plugin| plugin.name == name);
        vet(found.ok_or_else(|| format!("{name} is not shipped"))?.bytes)
    };
    let (empty, route) = (vet(&guests.empty)?, ship("route-nearest")?);
    let (smooth, ladder) = (vet(&guests.smooth)?, ship("degrade-ladder")?);
    let make = |component: &Component, hook| install(&engine, component, hook);

    report.empty_ns = beside(
        effort,
        |calls| resolves(&mut make(&empty, Hook::Scenario)?, calls),
        |calls| native::empty(calls).map(nanos),
    )?;
    report.place_ns =
        tails(effort, |calls| places(&mut make(&route, Hook::Routing)?, calls), native::place)?;
    for (component, of, by) in [
        (&smooth, &mut report.tick_ns, native::smooth as Natively),
        (&ladder, &mut report.ladder_tick_ns, native::ladder as Natively),
    ] {
        let mut policy = make(component, Hook::Degradation)?;
        let states = first_states(&mut policy)?;
        let calls = (effort.calls / 100).max(1);
        *of = beside(
            Effort { calls, ..effort },
            |calls| ticks(&mut policy, &states, calls),
            |calls| by(calls, &states).map(nanos),
        )?;
    }
    let mut made = Vec::new();
    for _ in 0..effort.rounds {
        for _ in 0..MADE {
            let began = Instant::now();
            black_box(make(&route, Hook::Routing)?);
            made.push(began.elapsed().as_secs_f64() * 1e6);
        }
    }
    report.instantiate_us = Tail::of(&mut made);
    fail(&mut make(&empty, Hook::Scenario)?, effort, report)
}

fn install(engine: &Engine, component: &Component, hook: Hook) -> Result<Policy, String> {
    let settings = serde_json::Value::Null;
    let policy = Policy::install(engine, component, hook, settings, questions::catalog(), 7);
    policy.map_err(|refused| refused.to_string())
}

/// Medians over rounds in which Wasm and native take turns.
fn beside(
    effort: Effort,
    mut wasm: impl FnMut(usize) -> Result<f64, String>,
    native: impl Fn(usize) -> Result<f64, String>,
) -> Result<Figure, String> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        ours.push(wasm(effort.calls)?);
        theirs.push(native(effort.calls)?);
    }
    Ok(Figure::of(&ours, &theirs))
}

/// The same of the middle and the end of a distribution.
fn tails(
    effort: Effort,
    mut wasm: impl FnMut(usize) -> Result<Vec<Duration>, String>,
    native: impl Fn(usize) -> Result<Vec<Duration>, String>,
) -> Result<Distribution, String> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        ours.push(Tail::of_times(&wasm(effort.calls)?));
        theirs.push(Tail::of_times(&native(effort.calls)?));
    }
    Ok(Distribution::of(&ours, &theirs))
}

fn empty(label: Option<&str>) -> Question {
    let labels = label.map(|key| (key.into(), "".into())).into_iter().collect();
    Question::Resolve { scenario: "call".into(), labels }
}

fn resolves(policy: &mut Policy, calls: usize) -> Result<f64, String> {
    let question = empty(None);
    let began = Instant::now();
    for _ in 0..calls {
        black_box(policy.ask(&question, NOW_US).map_err(said)?);
    }
    Ok(nanos(began.elapsed()) / calls as f64)
}

fn places(policy: &mut Policy, calls: usize) -> Result<Vec<Duration>, String> {
    let mut question = questions::place(0);
    let mut took = Vec::with_capacity(calls);
    for number in 0..calls as u64 {
        if let Question::Place { room, .. } = &mut question {
            room.0 = number;
        }
        let began = Instant::now();
        black_box(policy.ask(&question, NOW_US).map_err(said)?);
        took.push(began.elapsed());
    }
    Ok(took)
}

/// States as the policy writes them: what it says of newcomers, a tick later.
fn first_states(policy: &mut Policy) -> Result<Vec<Option<State>>, String> {
    let mut states = vec![None; SESSIONS];
    let answered = policy.ask(&questions::tick(&states), NOW_US).map_err(said)?;
    let Answer::Actions { states: kept, .. } = answered.answer else {
        return Err("a tick was answered with something else than actions".to_owned());
    };
    for (row, state) in kept {
        states[row as usize] = Some(state);
    }
    match states.iter().all(Option::is_some) {
        true => Ok(states),
        false => Err("the policy kept no state of some sessions".to_owned()),
    }
}

fn ticks(policy: &mut Policy, states: &[Option<State>], calls: usize) -> Result<f64, String> {
    let question = questions::tick(states);
    let began = Instant::now();
    for _ in 0..calls {
        black_box(policy.ask(&question, NOW_US).map_err(said)?);
    }
    Ok(nanos(began.elapsed()) / (calls * SESSIONS) as f64)
}

/// From a question that traps to the answer of the next one, and what a runaway call takes over its budget.
fn fail(policy: &mut Policy, effort: Effort, report: &mut Report) -> Result<(), String> {
    let (trap, runaway, sound) = (empty(Some("trap")), empty(Some("runaway")), empty(None));
    let budget = Budgets::default().resolve;
    let (mut traps, mut cuts) = (Vec::new(), Vec::new());
    for _ in 0..effort.rounds * FAILED {
        let began = Instant::now();
        let failed = policy.ask(&trap, NOW_US);
        policy.ask(&sound, NOW_US).map_err(said)?;
        traps.push(began.elapsed().as_secs_f64() * 1e3);
        if !matches!(failed, Err(Fault::Trap(_))) {
            return Err(format!("what should trap ended so: {failed:?}"));
        }
        let began = Instant::now();
        let cut = policy.ask(&runaway, NOW_US);
        cuts.push((began.elapsed().saturating_sub(budget)).as_secs_f64() * 1e3);
        if !matches!(cut, Err(Fault::Deadline)) {
            return Err(format!("what should be cut ended so: {cut:?}"));
        }
    }
    report.trap_to_serving_ms = Tail::of(&mut traps);
    report.cut_over_ms = Tail::of(&mut cuts);
    Ok(())
}

fn nanos(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9
}

#[expect(clippy::needless_pass_by_value, reason = "`map_err` hands it over")]
fn said(fault: Fault) -> String {
    format!("a policy failed that should not: {fault}")
}
