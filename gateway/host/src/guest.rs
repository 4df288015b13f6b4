//! An instance of a plugin, calls of its functions with their outcome, and its replacement after a fault.

use std::time::{Duration, Instant};

use evenkeel_model::{
    CatalogEntry, DecisionNote, Hook, HookAnswer, Metric, Op, PluginFault, PolicyQuestion,
};
use nix::time::{ClockId, clock_gettime};
use wasmtime::{Store, Trap, UpdateDeadline};

use crate::arguments::{Blobs, GrantedTable};
use crate::calls::Calls;
use crate::documents::DataDocuments;
use crate::engine::{Component, Engine, LinkedCode, ticks};
use crate::limits::{ANSWER_BYTES, LINE_BYTES_MAX, ROW_BYTES};
use crate::lookup::{DocumentTable, InvalidLookup};
use crate::manifest::PluginGrant;
use crate::refusal::PluginRefusal;
use crate::store::bindings::evenkeel::policy::types;
use crate::store::bindings::exports::evenkeel::policy::guest;
use crate::store::{PluginLog, StoreData, TooManyDiagCalls, one_line};

/// Failed restarts in a row after which the revision is given up. One failure may be a momentary lack of memory; three
/// with growing pauses are not.
const FAILED_MAX: u32 = 3;

/// Pause after the first failed restart.
const PAUSE_FIRST: Duration = Duration::from_millis(100);

/// Maximum pause, so that a policy recovers within this time after the cause is gone.
const PAUSE_LONGEST: Duration = Duration::from_secs(30);

/// Initial fuel of an instance on a counting engine: more than it can use.
const FUEL: u64 = u64::MAX;

/// The parameters of an instance, reused to replace it after a fault.
#[derive(Clone)]
pub(crate) struct InstanceParameters {
    pub(crate) engine: Engine,
    pub(crate) component: Component,
    pub(crate) hook: Hook,
    pub(crate) settings: String,
    /// As given.
    pub(crate) data: DataDocuments,
    pub(crate) documents: DocumentTable,
    pub(crate) seed: u64,
    pub(crate) catalog: Vec<CatalogEntry>,
    pub(crate) grant: PluginGrant,
    /// Questions have their budgets in processor time.
    pub(crate) on_processor_time: bool,
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
    pub(crate) engine: Engine,
    pub(crate) component: Component,
    pub(crate) grant: PluginGrant,
    hook: Hook,
    on_processor_time: bool,
    calls: Calls,
    /// Reused by questions.
    pub(crate) tables: [GrantedTable; 2],
    pub(crate) blobs: Blobs,
    spent: Duration,
    /// Deadline of the question, whatever the call's budget.
    until: Option<Instant>,
    /// Actions dropped since this instance was created.
    ungranted: u64,
    /// The latest call: `tick`.
    calling: &'static str,
}

impl Guest {
    /// Creates an instance and calls `init` and `catalog`. Log lines go into `log` even on failure.
    pub(crate) fn start(
        parameters: &InstanceParameters,
        log: &mut PluginLog,
    ) -> Result<Guest, PluginRefusal> {
        let (log_before, documents) = (std::mem::take(log), parameters.documents.clone());
        let inside = StoreData { log: log_before, documents, ..StoreData::default() };
        let mut store = Store::new(&parameters.engine.0.wasm, inside);
        store.limiter(|inside| inside);
        match parameters.engine.0.samples.clone() {
            None => store.epoch_deadline_callback(|mut store| Ok(at_deadline(store.data_mut()))),
            Some(samples) => store.epoch_deadline_callback(move |store| {
                samples.take(&store);
                Ok(UpdateDeadline::Continue(1))
            }),
        }
        // Fails on an engine that does not count fuel.
        let _ = store.set_fuel(FUEL);
        let started = Guest::instantiate(parameters, &mut store);
        let mut guest = match started {
            Ok(make) => make(store),
            Err(refused) => {
                *log = std::mem::take(&mut store.data_mut().log);
                return Err(refused);
            }
        };
        let ready = guest.init(parameters).and_then(|()| {
            guest
                .catalog(&parameters.catalog)
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
        parameters: &InstanceParameters,
        store: &mut Store<StoreData>,
    ) -> Result<impl FnOnce(Store<StoreData>) -> Guest + use<>, PluginRefusal> {
        let InstanceParameters { engine, component, hook, .. } = parameters;
        let unlike = |error: wasmtime::Error| PluginRefusal::Engine(format!("{error:#}").into());
        let budget = CallBudget::Processor(engine.0.budgets.init);
        let started = |fault| match fault {
            // During start this means that the instance exceeds the limits.
            PluginFault::Malformed(said) => PluginRefusal::Engine(said),
            fault => PluginRefusal::Faulted { call: "start", fault },
        };
        let calls = match &component.0.code {
            LinkedCode::Component(component) => {
                let pre = &component.instance_pre;
                let instance = run(engine, store, budget, 0, |store| pre.instantiate(store));
                let instance = instance.map_err(started)?;
                Calls::Component(component.load(store, &instance, *hook).map_err(unlike)?)
            }
            LinkedCode::Flat(module) => {
                let pre = &module.instance_pre;
                let instance = run(engine, store, budget, 0, |store| pre.instantiate(store));
                let instance = instance.map_err(started)?;
                Calls::Flat(module.load(store, &instance, *hook).map_err(unlike)?)
            }
        };
        let (engine, component, hook) = (engine.clone(), component.clone(), *hook);
        let (grant, on_processor_time) = (parameters.grant.clone(), parameters.on_processor_time);
        Ok(move |store| Guest {
            store,
            engine,
            component,
            grant,
            hook,
            on_processor_time,
            calls,
            tables: <[GrantedTable; 2]>::default(),
            blobs: Blobs::default(),
            spent: Duration::ZERO,
            until: None,
            ungranted: 0,
            calling: "init",
        })
    }

    fn init(&mut self, parameters: &InstanceParameters) -> Result<(), PluginRefusal> {
        let granted = &parameters.grant;
        let numbers = |metrics: &[Metric]| metrics.iter().map(|&metric| metric as u32).collect();
        let subject: Vec<u32> = numbers(&granted.subject_metrics);
        let node: Vec<u32> = numbers(&granted.node_metrics);
        let ops: Vec<u32> = granted.ops.iter().map(|&op| op as u32).collect();
        let grant = guest::Grant {
            subject_metrics: &subject,
            node_metrics: &node,
            ops: &ops,
            seed: parameters.seed,
        };
        let budget = CallBudget::Processor(self.engine.0.budgets.init);
        let Guest { engine, store, calls, .. } = self;
        run(engine, store, budget, 0, |store| calls.init(store, &parameters.settings, grant))
            .map_err(|fault| PluginRefusal::Faulted { call: "init", fault })?
            .map_err(|message| PluginRefusal::Settings(one_line(&message, LINE_BYTES_MAX)))
    }

    fn catalog(&mut self, entries: &[CatalogEntry]) -> Result<(), PluginFault> {
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
        let budget = CallBudget::Processor(self.engine.0.budgets.catalog);
        let Guest { engine, store, calls, .. } = self;
        run(engine, store, budget, 0, |store| calls.catalog(store, &list))
    }

    /// Calls the plugin for a question, with a deadline from the call's budget or the question. The answer's size is
    /// limited for `rows` rows.
    pub(crate) fn call<T>(
        &mut self,
        name: &'static str,
        budget: Duration,
        rows: usize,
        f: impl FnOnce(&mut Calls, &mut Store<StoreData>) -> wasmtime::Result<T>,
    ) -> Result<T, PluginFault> {
        let began = Instant::now();
        let left = self.until.map_or(budget, |until| until.saturating_duration_since(began));
        let budget = budget.min(left);
        let budget = match (self.on_processor_time, self.engine.0.is_patient) {
            (true, _) => CallBudget::Processor(budget),
            (false, true) => CallBudget::Patient(budget),
            (false, false) => CallBudget::Elapsed(budget),
        };
        self.calling = name;
        let Guest { engine, store, calls, .. } = self;
        let outcome = run(engine, store, budget, rows, |store| f(calls, store));
        self.spent += began.elapsed();
        outcome
    }

    /// Checks that the instance answers questions of this hook.
    pub(crate) fn answers(&self, hook: Hook) -> Result<(), PluginFault> {
        if self.hook == hook { Ok(()) } else { Err(PluginFault::Absent) }
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
        let notes = std::mem::take(&mut self.log().notes);
        Ok(GuestReply { answer, notes, took: self.spent, ungranted })
    }

    fn end(mut self) -> PluginLog {
        std::mem::take(self.log())
    }

    fn log(&mut self) -> &mut PluginLog {
        &mut self.store.data_mut().log
    }
}

/// The time limit of a call.
#[derive(Clone, Copy)]
enum CallBudget {
    /// Time on the wall clock, of calls that a session waits for.
    Elapsed(Duration),
    /// Processor time, of calls that prepare or prove an instance: a machine without free processors does not make them fail.
    Processor(Duration),
    /// Time on the wall clock, and then the same in processor time, which a call within its budget need not read.
    Patient(Duration),
}

/// Returns the processor time of this thread.
pub fn processor_time() -> Duration {
    // Every Linux has this clock.
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::MAX, Duration::from)
}

/// Extends a call while it has processor time left. Called when its budget has elapsed on the wall clock.
fn at_deadline(inside: &mut StoreData) -> UpdateDeadline {
    if let Some(patience) = inside.patience.take() {
        inside.processor_until = Some(processor_time().saturating_add(patience));
    }
    let left = inside.processor_until.map(|until| until.saturating_sub(processor_time()));
    match left {
        Some(left) if !left.is_zero() => UpdateDeadline::Continue(ticks(left)),
        Some(_) | None => UpdateDeadline::Interrupt,
    }
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
    inside.memory_refused = false;
    inside.diag_calls = 0;
    (inside.processor_until, inside.patience) = (None, None);
    let budget = match budget {
        CallBudget::Elapsed(budget) => budget,
        CallBudget::Processor(budget) => {
            inside.processor_until = Some(processor_time().saturating_add(budget));
            budget
        }
        CallBudget::Patient(budget) => {
            inside.patience = Some(budget);
            budget
        }
    };
    inside.answer_bytes = ANSWER_BYTES.saturating_add(rows.saturating_mul(ROW_BYTES));
    let answer_bytes = inside.answer_bytes;
    store.set_hostcall_fuel(answer_bytes);
    store.set_epoch_deadline(if engine.0.samples.is_some() { 1 } else { ticks(budget) });
    let running = engine.0.ticker.run();
    let outcome = f(store);
    drop(running);
    outcome.map_err(|error| fault(&error, store.data()))
}

fn fault(error: &wasmtime::Error, inside: &StoreData) -> PluginFault {
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => PluginFault::Deadline,
        Some(Trap::AllocationTooLarge) => PluginFault::OutOfMemory,
        // A plugin that gets no memory aborts by a trap.
        Some(_) if inside.memory_refused => PluginFault::OutOfMemory,
        Some(trap) => PluginFault::Trap(match &inside.log.last_error {
            // The author's words come first.
            Some(words) => format!("{words} ({trap})").into(),
            None => trap.to_string().into(),
        }),
        None if error.is::<TooManyDiagCalls>() || error.is::<InvalidLookup>() => {
            PluginFault::Trap(one_line(&error.root_cause().to_string(), LINE_BYTES_MAX))
        }
        None => PluginFault::Malformed(error.root_cause().to_string().into()),
    }
}

/// Labels in the contract's type.
pub(crate) fn labels(labels: &[(Box<str>, Box<str>)]) -> Vec<types::Label<'_>> {
    labels.iter().map(|(key, value)| types::Label { key, value }).collect()
}

/// The instance of a plugin, replaced after each fault. Its log is kept.
pub(crate) struct SupervisedGuest {
    pub(crate) parameters: InstanceParameters,
    instance: Result<Box<Guest>, PluginLog>,
    pub(crate) restarts: Restarts,
    /// Startup time of the current instance.
    pub(crate) started_in: Duration,
    /// Actions of earlier instances that were dropped.
    ungranted: u64,
    /// The time of the latest question.
    pub(crate) now_us: u64,
    /// The latest call of a question: `open`.
    pub(crate) calling: &'static str,
}

impl SupervisedGuest {
    pub(crate) fn start(parameters: InstanceParameters) -> Result<SupervisedGuest, PluginRefusal> {
        let began = Instant::now();
        let guest = Guest::start(&parameters, &mut PluginLog::default())?;
        Ok(SupervisedGuest {
            restarts: Restarts::new(parameters.seed),
            parameters,
            instance: Ok(Box::new(guest)),
            started_in: began.elapsed(),
            ungranted: 0,
            now_us: 0,
            calling: "init",
        })
    }

    /// Sends a changed catalog, which later instances get as well.
    pub(crate) fn catalog(&mut self, catalog: Vec<CatalogEntry>) -> Result<(), PluginFault> {
        self.parameters.catalog = catalog;
        let Ok(guest) = &mut self.instance else {
            // The restarted plugin gets the new catalog; the old one may have caused the failure.
            self.restarts.end_pause();
            return self.call_instance(|_| Ok(()));
        };
        let outcome = guest.catalog(&self.parameters.catalog);
        if outcome.is_err() {
            // The next question after the pause tries again.
            let _ = self.renew();
        }
        outcome
    }

    /// Number of actions dropped since installation because they were not granted.
    pub(crate) fn ungranted(&self) -> u64 {
        self.ungranted + self.instance.as_ref().map_or(0, |guest| guest.ungranted)
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.instance.as_ref().map_or(0, |guest| guest.store.data().memory_bytes)
    }

    /// Instructions since the instance was created, with those of lookups, on a counting engine.
    pub(crate) fn instructions(&self) -> Option<u64> {
        let store = &self.instance.as_ref().ok()?.store;
        let left = store.get_fuel().ok()?;
        Some(FUEL - left + store.data().lookup_instructions)
    }

    pub(crate) fn log(&mut self) -> &mut PluginLog {
        match &mut self.instance {
            Ok(guest) => guest.log(),
            Err(log) => log,
        }
    }

    /// Adds a warning to the plugin's log.
    pub(crate) fn warn(&mut self, words: &str) {
        self.log().log(3, words);
    }

    /// The time limit of the call for this question.
    pub(crate) fn budget(&self, question: &PolicyQuestion) -> Duration {
        let budgets = &self.parameters.engine.0.budgets;
        match question {
            PolicyQuestion::Resolve { .. } => budgets.resolve,
            PolicyQuestion::Admit { .. } => budgets.admit,
            PolicyQuestion::Place { .. } => budgets.place,
            PolicyQuestion::Reroute { .. } => budgets.reroute,
            PolicyQuestion::Tick { .. } => budgets.tick,
        }
    }

    /// Runs `call` on the instance. The instance is restarted before if a restart is due, and after a fault.
    pub(crate) fn call_instance<T>(
        &mut self,
        f: impl FnOnce(&mut Guest) -> Result<T, PluginFault>,
    ) -> Result<T, PluginFault> {
        if self.instance.is_err() {
            if !self.restarts.is_due(self.now_us) {
                return Err(PluginFault::Absent);
            }
            self.renew()?;
        }
        let outcome = match &mut self.instance {
            Ok(guest) => {
                let outcome = f(guest);
                self.calling = guest.calling;
                outcome
            }
            Err(_) => return Err(PluginFault::Absent),
        };
        if outcome.is_err() {
            // The next question reports a failed restart.
            let _ = self.renew();
        }
        outcome
    }

    /// Replaces the instance.
    ///
    /// # Errors
    /// If the instance could not be started. It is retried after a pause.
    fn renew(&mut self) -> Result<(), PluginFault> {
        self.ungranted = self.ungranted();
        let before = std::mem::replace(&mut self.instance, Err(PluginLog::default()));
        let mut log = before.map_or_else(|log| log, |guest| guest.end());
        let began = Instant::now();
        let fault = match Guest::start(&self.parameters, &mut log) {
            Ok(guest) => {
                self.started_in = began.elapsed();
                self.restarts.failed = 0;
                self.instance = Ok(Box::new(guest));
                return Ok(());
            }
            Err(PluginRefusal::Faulted { fault, .. }) => fault,
            Err(refused) => PluginFault::Trap(refused.to_string().into()),
        };
        self.instance = Err(log);
        let pause = self.restarts.note_failed(self.now_us);
        self.warn(&format!("plugin restart failed ({fault}); next attempt in {pause:?}"));
        Err(fault)
    }
}

/// Restarts of one revision. Time is gateway time in microseconds.
pub(crate) struct Restarts {
    failed: u32,
    again_us: u64,
    /// Random source for jitter. Policies with one seed pause alike; those with different seeds do not restart all at
    /// once.
    rng: fastrand::Rng,
}

impl Restarts {
    fn new(seed: u64) -> Restarts {
        Restarts { failed: 0, again_us: 0, rng: fastrand::Rng::with_seed(seed) }
    }

    fn is_due(&self, now_us: u64) -> bool {
        self.failed == 0 || now_us >= self.again_us
    }

    /// Notes a failed restart and returns the pause. Each pause is twice the previous one, shortened at random by up to
    /// a quarter.
    fn note_failed(&mut self, now_us: u64) -> Duration {
        let doubled = PAUSE_FIRST.saturating_mul(1 << self.failed.min(16)).min(PAUSE_LONGEST);
        let sooner = self.rng.u64(0..=doubled.as_micros() as u64 / 4);
        let pause = doubled - Duration::from_micros(sooner);
        self.failed = self.failed.saturating_add(1);
        self.again_us = now_us.saturating_add(pause.as_micros() as u64);
        pause
    }

    /// Ends the pause, since a change may have removed the cause.
    fn end_pause(&mut self) {
        self.again_us = 0;
    }

    pub(crate) fn is_hopeless(&self) -> bool {
        self.failed >= FAILED_MAX
    }
}

#[cfg(test)]
mod tests;
