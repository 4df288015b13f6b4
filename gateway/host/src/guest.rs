//! An instance of a plugin: its store, its functions, and calls with their outcome.

use std::time::{Duration, Instant};

use evenkeel_model::{CatalogEntry, DecisionNote, Hook, HookAnswer, Metric, Op, PluginFault};
use nix::time::{ClockId, clock_gettime};
use wasmtime::{Store, Trap, UpdateDeadline};

use crate::bindings::evenkeel::policy::{diag, types};
use crate::bindings::exports::evenkeel::policy::{
    admission, degradation, guest, routing, scenario,
};
use crate::component::Component;
use crate::engine::{Engine, ticks};
use crate::grant::PluginGrant;
use crate::hooks::labels;
use crate::limits::{DIAG_CALLS_MAX, LINE_BYTES_MAX, MemoryLimiter, answer_bytes};
use crate::log::{PluginLog, one_line};
use crate::refused::PluginRefusal;

#[derive(Default)]
pub(crate) struct StoreData {
    log: PluginLog,
    limiter: MemoryLimiter,
    diag_calls: u32,
    /// The thread's processor time at which the call is stopped, if its budget is [`CallBudget::Processor`].
    processor_until: Option<Duration>,
}

impl StoreData {
    /// Extends a call while it has processor time left. Called when its budget has elapsed on the wall clock.
    fn at_deadline(&self) -> UpdateDeadline {
        let left = self.processor_until.map(|until| until.saturating_sub(processor_time()));
        match left {
            Some(left) if !left.is_zero() => UpdateDeadline::Continue(ticks(left)),
            Some(_) | None => UpdateDeadline::Interrupt,
        }
    }

    fn count_diag(&mut self) -> wasmtime::Result<()> {
        self.diag_calls += 1;
        if self.diag_calls > DIAG_CALLS_MAX { Err(TooManyDiagCalls.into()) } else { Ok(()) }
    }
}

impl diag::Host for StoreData {
    fn log(&mut self, level: u8, message: String) -> wasmtime::Result<()> {
        self.count_diag()?;
        self.log.log(level, &message);
        Ok(())
    }

    fn note(&mut self, row: u32, key: String, value: i64) -> wasmtime::Result<()> {
        self.count_diag()?;
        self.log.note(row, &key, value);
        Ok(())
    }
}

/// Initial fuel of an instance on a counting engine: more than it can use.
const FUEL: u64 = u64::MAX;

#[derive(Debug, thiserror::Error)]
#[error("more than {DIAG_CALLS_MAX} calls of `diag` in one call")]
struct TooManyDiagCalls;

/// The parameters of an instance, reused to replace it after a fault.
pub(crate) struct Recipe {
    pub(crate) engine: Engine,
    pub(crate) component: Component,
    pub(crate) hook: Hook,
    pub(crate) settings: String,
    pub(crate) seed: u64,
    pub(crate) catalog: Vec<CatalogEntry>,
    pub(crate) grant: PluginGrant,
}

/// An answer with its side results.
pub(crate) struct GuestReply {
    pub(crate) answer: HookAnswer,
    pub(crate) notes: Vec<DecisionNote>,
    /// Time in the plugin.
    pub(crate) took: Duration,
    /// Actions dropped because they were not granted.
    pub(crate) ungranted: u32,
}

/// One instance of a plugin. It is not called again after a fault.
pub(crate) struct Guest {
    store: Store<StoreData>,
    engine: Engine,
    component: Component,
    grant: PluginGrant,
    base: guest::Guest,
    admission: Option<admission::Guest>,
    routing: Option<routing::Guest>,
    degradation: Option<degradation::Guest>,
    scenario: Option<scenario::Guest>,
    spent: Duration,
    /// Deadline of the question, whatever the call's budget.
    until: Option<Instant>,
    ungranted: u64,
}

impl Guest {
    /// Creates an instance and calls `init` and `catalog`. Log lines go into `log` even on failure.
    pub(crate) fn start(recipe: &Recipe, log: &mut PluginLog) -> Result<Guest, PluginRefusal> {
        let mut store = Store::new(
            recipe.engine.wasm(),
            StoreData { log: std::mem::take(log), ..StoreData::default() },
        );
        store.limiter(|inside| &mut inside.limiter);
        store.epoch_deadline_callback(|store| Ok(store.data().at_deadline()));
        // Fails on an engine that does not count fuel.
        let _ = store.set_fuel(FUEL);
        let started = Guest::instantiate(recipe, &mut store);
        let mut guest = match started {
            Ok(make) => make(store),
            Err(refused) => {
                *log = std::mem::take(&mut store.data_mut().log);
                return Err(refused);
            }
        };
        let ready = guest.init(recipe).and_then(|()| {
            guest
                .catalog(&recipe.catalog)
                .map_err(|fault| PluginRefusal::Faulted { call: "catalog", fault })
        });
        match ready {
            Ok(()) => Ok(guest),
            Err(refused) => {
                *log = guest.end();
                Err(refused)
            }
        }
    }

    fn instantiate(
        recipe: &Recipe,
        store: &mut Store<StoreData>,
    ) -> Result<impl FnOnce(Store<StoreData>) -> Guest + use<>, PluginRefusal> {
        let Recipe { engine, component, hook, .. } = recipe;
        let pre = component.instance_pre();
        let budget = CallBudget::Processor(engine.budgets().init);
        let instance = run(engine, store, budget, 0, |store| pre.instantiate(store));
        let instance = instance.map_err(|fault| match fault {
            // During start this means that the instance exceeds the limits.
            PluginFault::Malformed(said) => PluginRefusal::Engine { said },
            fault => PluginRefusal::Faulted { call: "start", fault },
        })?;
        let unlike =
            |error: wasmtime::Error| PluginRefusal::Engine { said: format!("{error:#}").into() };
        let exports = component.exports();
        let base = exports.guest.load(&mut *store, &instance).map_err(unlike)?;
        let (mut admission, mut routing, mut degradation, mut scenario) = (None, None, None, None);
        macro_rules! load {
            ($field:ident) => {
                if let Some(indices) = &exports.$field {
                    $field = Some(indices.load(&mut *store, &instance).map_err(unlike)?);
                }
            };
        }
        match hook {
            Hook::Admission => load!(admission),
            Hook::Routing => load!(routing),
            Hook::Degradation => load!(degradation),
            Hook::Scenario => load!(scenario),
        }
        let (engine, component) = (engine.clone(), component.clone());
        let grant = recipe.grant.clone();
        Ok(move |store| Guest {
            store,
            engine,
            component,
            grant,
            base,
            admission,
            routing,
            degradation,
            scenario,
            spent: Duration::ZERO,
            until: None,
            ungranted: 0,
        })
    }

    fn init(&mut self, recipe: &Recipe) -> Result<(), PluginRefusal> {
        let granted = &recipe.grant;
        let numbers = |metrics: &[Metric]| metrics.iter().map(|&metric| metric as u32).collect();
        let subject: Vec<u32> = numbers(&granted.subject_metrics);
        let node: Vec<u32> = numbers(&granted.node_metrics);
        let ops: Vec<u32> = granted.ops.iter().map(|&op| op as u32).collect();
        let grant = guest::Grant {
            subject_metrics: &subject,
            node_metrics: &node,
            ops: &ops,
            seed: recipe.seed,
        };
        let base = self.base.clone();
        let budget = CallBudget::Processor(self.engine.budgets().init);
        let init = |store: &mut Store<StoreData>| base.call_init(store, &recipe.settings, grant);
        run(&self.engine, &mut self.store, budget, 0, init)
            .map_err(|fault| PluginRefusal::Faulted { call: "init", fault })?
            .map_err(|message| PluginRefusal::Settings { said: one_line(&message, LINE_BYTES_MAX) })
    }

    pub(crate) fn catalog(&mut self, entries: &[CatalogEntry]) -> Result<(), PluginFault> {
        let all_labels: Vec<Vec<types::Label<'_>>> =
            entries.iter().map(|entry| labels(&entry.labels)).collect();
        let list: Vec<_> = entries
            .iter()
            .zip(&all_labels)
            .map(|(entry, labels)| types::Entry {
                kind: entry.kind as u32,
                id: entry.id,
                parent: entry.parent,
                name: &entry.name,
                labels,
            })
            .collect();
        let base = self.base.clone();
        let budget = CallBudget::Processor(self.engine.budgets().catalog);
        run(&self.engine, &mut self.store, budget, 0, |store| base.call_catalog(store, &list))
    }

    /// Calls the plugin for a question, with a deadline from the call's budget or the question. The answer's size is
    /// limited for `rows` rows.
    pub(crate) fn call<T>(
        &mut self,
        budget: Duration,
        rows: usize,
        f: impl FnOnce(&mut Store<StoreData>) -> wasmtime::Result<T>,
    ) -> Result<T, PluginFault> {
        let began = Instant::now();
        let left = self.until.map_or(budget, |until| until.saturating_duration_since(began));
        let budget = CallBudget::Elapsed(budget.min(left));
        let outcome = run(&self.engine, &mut self.store, budget, rows, f);
        self.spent += began.elapsed();
        outcome
    }

    /// Counts and logs a dropped action.
    pub(crate) fn count_ungranted(&mut self, op: Op) {
        self.ungranted += 1;
        let message = format!(
            "action `{}` dropped: it is not in the manifest, or the policy set does not allow it",
            op.key()
        );
        self.log().log(3, &message);
    }

    /// Actions dropped since this instance was created.
    pub(crate) fn ungranted(&self) -> u64 {
        self.ungranted
    }

    /// Answers a question; calls end at `until`.
    pub(crate) fn ask(
        &mut self,
        now_us: u64,
        until: Option<Instant>,
        ask: impl FnOnce(&mut Guest) -> Result<HookAnswer, PluginFault>,
    ) -> Result<GuestReply, PluginFault> {
        let before = self.ungranted;
        self.log().begin(now_us);
        self.spent = Duration::ZERO;
        self.until = until;
        let answer = ask(self)?;
        let ungranted = u32::try_from(self.ungranted - before).unwrap_or(u32::MAX);
        Ok(GuestReply { answer, notes: self.log().take_notes(), took: self.spent, ungranted })
    }

    pub(crate) fn end(mut self) -> PluginLog {
        std::mem::take(self.log())
    }

    pub(crate) fn log(&mut self) -> &mut PluginLog {
        &mut self.store.data_mut().log
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn grant(&self) -> &PluginGrant {
        &self.grant
    }

    /// Instructions since this instance was created, on a counting engine.
    pub(crate) fn instructions(&self) -> Option<u64> {
        self.store.get_fuel().ok().map(|left| FUEL - left)
    }

    pub(crate) fn component(&self) -> &Component {
        &self.component
    }

    pub(crate) fn base(&self) -> guest::Guest {
        self.base.clone()
    }

    pub(crate) fn admission(&self) -> Result<admission::Guest, PluginFault> {
        self.admission.clone().ok_or(PluginFault::Absent)
    }

    pub(crate) fn routing(&self) -> Result<routing::Guest, PluginFault> {
        self.routing.clone().ok_or(PluginFault::Absent)
    }

    pub(crate) fn degradation(&self) -> Result<degradation::Guest, PluginFault> {
        self.degradation.clone().ok_or(PluginFault::Absent)
    }

    pub(crate) fn scenario(&self) -> Result<scenario::Guest, PluginFault> {
        self.scenario.clone().ok_or(PluginFault::Absent)
    }
}

/// The time limit of a call.
#[derive(Clone, Copy)]
enum CallBudget {
    /// Time on the wall clock, of calls that a session waits for.
    Elapsed(Duration),
    /// Processor time, of calls that prepare an instance: a machine without free processors does not make them fail.
    Processor(Duration),
}

/// Processor time of this thread.
fn processor_time() -> Duration {
    // Every Linux has this clock.
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::MAX, Duration::from)
}

fn run<T>(
    engine: &Engine,
    store: &mut Store<StoreData>,
    budget: CallBudget,
    rows: usize,
    f: impl FnOnce(&mut Store<StoreData>) -> wasmtime::Result<T>,
) -> Result<T, PluginFault> {
    let inside = store.data_mut();
    inside.log.begin_call();
    inside.limiter.refused = false;
    inside.diag_calls = 0;
    let (budget, processor_until) = match budget {
        CallBudget::Elapsed(budget) => (budget, None),
        CallBudget::Processor(budget) => (budget, Some(processor_time().saturating_add(budget))),
    };
    inside.processor_until = processor_until;
    store.set_hostcall_fuel(answer_bytes(rows));
    store.set_epoch_deadline(ticks(budget));
    let running = engine.ticker().run();
    let outcome = f(store);
    drop(running);
    outcome.map_err(|error| fault(&error, store.data()))
}

fn fault(error: &wasmtime::Error, inside: &StoreData) -> PluginFault {
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => PluginFault::Deadline,
        Some(Trap::AllocationTooLarge) => PluginFault::OutOfMemory,
        // A plugin that gets no memory aborts by a trap.
        Some(_) if inside.limiter.refused => PluginFault::OutOfMemory,
        Some(trap) => PluginFault::Trap(match inside.log.last_error() {
            Some(words) => format!("{trap}: {words}").into(),
            None => trap.to_string().into(),
        }),
        None if error.is::<TooManyDiagCalls>() => {
            PluginFault::Trap(TooManyDiagCalls.to_string().into())
        }
        None => PluginFault::Malformed(error.root_cause().to_string().into()),
    }
}

#[cfg(test)]
mod tests;
