//! An instance of a plugin: it translates questions of the core to calls of the contract, and the answers back, with their states.
//! It is replaced after a fault.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_model::{
    AdmitVerdict, CatalogEntry, DecisionNote, DegradationAction, Hook, HookAnswer, Labels, Metric,
    NodeId, Op, PluginFault, PluginState, PolicyQuestion, RegionId, RoomId, RoomRow, RoutingMove,
    Row, SessionId, SessionRow,
};
use nix::time::{ClockId, clock_gettime};
use wasmtime::{Store, Trap, UpdateDeadline};

use crate::arguments::{
    AdmitArguments, Blobs, GrantedTable, PlaceArguments, RerouteArguments, TickArguments,
};
use crate::calls::PluginCalls;
use crate::documents::DataDocuments;
use crate::engine::{Component, Engine, LinkedCode, ticks};
use crate::limits::{
    ACTIONS_PER_ROW_MAX, ANSWER_BYTES, LINE_BYTES_MAX, MEMO_BYTES_MAX, ROW_BYTES, STATE_BYTES_MAX,
};
use crate::lookup::{DocumentTable, InvalidLookup};
use crate::manifest::{Manifest, PluginGrant};
use crate::refusal::PluginRefusal;
use crate::store::bindings::evenkeel::policy::types::{self, BlobsResult, Keep};
use crate::store::bindings::exports::evenkeel::policy::{admission, degradation, guest, routing};
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

/// Padding in a table of routes, for rooms with fewer hops than the widest.
const NO_NODE: u32 = u32::MAX;

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
    engine: Engine,
    component: Component,
    grant: PluginGrant,
    hook: Hook,
    on_processor_time: bool,
    calls: Box<dyn PluginCalls>,
    /// Reused by questions.
    tables: [GrantedTable; 2],
    blobs: Blobs,
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
        let calls: Box<dyn PluginCalls> = match &component.0.code {
            LinkedCode::Component(component) => {
                let pre = &component.instance_pre;
                let instance = run(engine, store, budget, 0, |store| pre.instantiate(store));
                let instance = instance.map_err(started)?;
                Box::new(component.load(store, &instance, *hook).map_err(unlike)?)
            }
            LinkedCode::Flat(module) => {
                let pre = &module.instance_pre;
                let instance = run(engine, store, budget, 0, |store| pre.instantiate(store));
                let instance = instance.map_err(started)?;
                Box::new(module.load(store, &instance, *hook).map_err(unlike)?)
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
    fn call<T>(
        &mut self,
        name: &'static str,
        budget: Duration,
        rows: usize,
        f: impl FnOnce(&mut dyn PluginCalls, &mut Store<StoreData>) -> wasmtime::Result<T>,
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
        let outcome = run(engine, store, budget, rows, |store| f(&mut **calls, store));
        self.spent += began.elapsed();
        outcome
    }

    /// Checks that the instance answers questions of this hook.
    fn answers(&self, hook: Hook) -> Result<(), PluginFault> {
        if self.hook == hook { Ok(()) } else { Err(PluginFault::Absent) }
    }

    /// Counts and logs a dropped action.
    fn count_ungranted(&mut self, op: Op) {
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

    // Questions of the core, as calls of the contract.

    /// Asks the plugin. A question of a hook that this instance does not implement is
    /// [`PluginFault::Absent`].
    pub(crate) fn answer(
        &mut self,
        question: &PolicyQuestion,
        now_us: u64,
    ) -> Result<HookAnswer, PluginFault> {
        match question {
            PolicyQuestion::Resolve { scenario, labels } => self.resolve(scenario, labels),
            PolicyQuestion::Admit { session, room, standing, scenario, labels, regions } => {
                self.admit(now_us, *session, *room, *standing, scenario, labels, regions)
            }
            PolicyQuestion::Place { room, scenario, labels, nodes } => {
                self.place(now_us, *room, scenario, labels, nodes)
            }
            PolicyQuestion::Reroute { nodes, rooms, memo } => {
                let rooms: Vec<&RoomRow> = rooms.iter().collect();
                self.reroute(now_us, nodes, &rooms, memo.as_ref(), self.engine.0.budgets.reroute)
            }
            PolicyQuestion::Tick { sessions, memo } => {
                let sessions: Vec<&SessionRow> = sessions.iter().collect();
                self.tick(now_us, &sessions, memo.as_ref(), self.engine.0.budgets.tick)
            }
        }
    }

    /// Asks about some rows of a batch as if the batch had no others. Row numbers in the answer are relative to them.
    /// Only batches have rows.
    pub(crate) fn answer_part(
        &mut self,
        question: &PolicyQuestion,
        part: &[u32],
        memo: Option<&PluginState>,
        budget: Duration,
        now_us: u64,
    ) -> Result<HookAnswer, PluginFault> {
        match question {
            PolicyQuestion::Reroute { nodes, rooms, .. } => {
                let rooms: Vec<&RoomRow> = part.iter().map(|&row| &rooms[row as usize]).collect();
                self.reroute(now_us, nodes, &rooms, memo, budget)
            }
            PolicyQuestion::Tick { sessions, .. } => {
                let rows = part.iter().map(|&row| &sessions[row as usize]);
                self.tick(now_us, &rows.collect::<Vec<_>>(), memo, budget)
            }
            _ => self.answer(question, now_us),
        }
    }

    /// A state of this revision.
    fn state(&self, bytes: Vec<u8>) -> PluginState {
        let Manifest { name, state_schema: schema, .. } = &self.component.0.manifest;
        PluginState { plugin: Arc::clone(name), schema: *schema, bytes: bytes.into() }
    }

    fn resolve(&mut self, scenario: &str, of: &Labels) -> Result<HookAnswer, PluginFault> {
        self.answers(Hook::Scenario)?;
        let budget = self.engine.0.budgets.resolve;
        let of = labels(of);
        let params =
            self.call("resolve", budget, 0, |calls, store| calls.resolve(store, scenario, &of))?;
        Ok(HookAnswer::Params(
            params.into_iter().map(|param| (param.key.into(), param.value)).collect(),
        ))
    }

    fn admit(
        &mut self,
        now_us: u64,
        session: SessionId,
        room: RoomId,
        standing: Option<RegionId>,
        scenario: &str,
        of: &Labels,
        regions: &[Row],
    ) -> Result<HookAnswer, PluginFault> {
        self.answers(Hook::Admission)?;
        let budget = self.engine.0.budgets.admit;
        let mut frame = std::mem::take(&mut self.tables[0]);
        frame.fill(&self.grant.node_metrics, regions.iter());
        let labels = &labels(of);
        let standing = standing.map(|region| u64::from(region.0));
        let regions = frame.wire();
        let (session, room) = (session.0, room.0);
        let asked = AdmitArguments { now_us, session, room, standing, scenario, labels, regions };
        let answer = self.call("admit", budget, 0, |calls, store| calls.admit(store, asked));
        self.tables[0] = frame;
        let answer = answer?;
        let verdict = match answer.verdict {
            admission::Verdict::Abstain => AdmitVerdict::Abstain,
            admission::Verdict::Accept => AdmitVerdict::Accept,
            admission::Verdict::AcceptCapped(kbps) => AdmitVerdict::AcceptCapped(kbps),
            admission::Verdict::Redirect(region) => match u32::try_from(region) {
                Ok(region) => AdmitVerdict::Redirect(RegionId(region)),
                Err(_) => {
                    return Err(PluginFault::Malformed(format!("admit: region {region}").into()));
                }
            },
            admission::Verdict::Reject(retry_ms) => AdmitVerdict::Reject(retry_ms),
        };
        Ok(HookAnswer::Admit { verdict, reason: answer.reason })
    }

    fn place(
        &mut self,
        now_us: u64,
        room: RoomId,
        scenario: &str,
        of: &Labels,
        nodes: &[Row],
    ) -> Result<HookAnswer, PluginFault> {
        self.answers(Hook::Routing)?;
        let budget = self.engine.0.budgets.place;
        let mut frame = std::mem::take(&mut self.tables[0]);
        frame.fill(&self.grant.node_metrics, nodes.iter());
        let labels = &labels(of);
        let asked = PlaceArguments { now_us, room: room.0, scenario, labels, nodes: frame.wire() };
        let rows = nodes.len();
        let placement = self.call("place", budget, rows, |calls, store| calls.place(store, asked));
        self.tables[0] = frame;
        let placement = placement?;
        Ok(HookAnswer::Placed {
            hops: placement.hops.into_iter().map(NodeId).collect(),
            ttl_ms: placement.ttl_ms,
            reason: placement.reason,
            state: single(self, placement.state)?,
        })
    }

    fn reroute(
        &mut self,
        now_us: u64,
        nodes: &[Row],
        rooms: &[&RoomRow],
        memo: Option<&PluginState>,
        budget: Duration,
    ) -> Result<HookAnswer, PluginFault> {
        self.answers(Hook::Routing)?;
        let manifest = &self.component.0.manifest;
        let before = rooms.iter().map(|room| room.state.as_ref());
        let mut states = QuestionStates::of(&manifest.name, manifest.state_schema, before);
        states.migrate(self)?;
        if !states.newcomers.is_empty() {
            let rows = || states.newcomers.iter().map(|&row| rooms[row as usize]);
            let known: Vec<_> = rows().map(|room| labels(&room.labels)).collect();
            let newcomers: Vec<_> = rows()
                .zip(&known)
                .map(|(room, labels)| routing::Newcomer {
                    room: room.row.id,
                    scenario: &room.scenario,
                    labels,
                })
                .collect();
            let open = self.engine.0.budgets.open;
            let first = self.call("open", open, newcomers.len(), |calls, store| {
                calls.open_rooms(store, &newcomers)
            })?;
            states.open(&first)?;
        }
        let memo = Memo::of(memo, self)?;

        let width = rooms.iter().map(|room| room.standing.len()).max().unwrap_or(0);
        let mut standing = Vec::with_capacity(width * rooms.len());
        for room in rooms {
            standing.extend(room.standing.iter().map(|node| node.0));
            standing.resize(standing.len() + width - room.standing.len(), NO_NODE);
        }
        let [mut node_frame, mut room_frame] = std::mem::take(&mut self.tables);
        node_frame.fill(&self.grant.node_metrics, nodes.iter());
        room_frame.fill(&self.grant.subject_metrics, rooms.iter().map(|room| &room.row));
        let mut blobs = std::mem::take(&mut self.blobs);
        blobs.fill(states.bytes());
        let asked = RerouteArguments {
            now_us,
            nodes: node_frame.wire(),
            rooms: room_frame.wire(),
            width: width as u32,
            standing: &standing,
            states: blobs.wire(),
            memo: memo.wire(),
        };
        let answer =
            self.call("reroute", budget, rooms.len(), |calls, store| calls.reroute(store, asked));
        (self.tables, self.blobs) = ([node_frame, room_frame], blobs);
        let answer = answer?;
        // Each room moves once. The core counts repetitions, up to a limit.
        proportionate("reroute", "moves", answer.moves.len(), 2 * rooms.len())?;
        let moves = answer.moves.into_iter().map(|routing::Move { row, hops, ttl_ms, reason }| {
            RoutingMove { row, hops: hops.into_iter().map(NodeId).collect(), ttl_ms, reason }
        });
        Ok(HookAnswer::Moves {
            moves: moves.collect(),
            states: states.settle(&answer.keep)?,
            memo: memo.settle(answer.keep.memo, self)?,
        })
    }

    fn tick(
        &mut self,
        now_us: u64,
        sessions: &[&SessionRow],
        memo: Option<&PluginState>,
        budget: Duration,
    ) -> Result<HookAnswer, PluginFault> {
        self.answers(Hook::Degradation)?;
        let manifest = &self.component.0.manifest;
        let before = sessions.iter().map(|session| session.state.as_ref());
        let mut states = QuestionStates::of(&manifest.name, manifest.state_schema, before);
        states.migrate(self)?;
        if !states.newcomers.is_empty() {
            let rows = || states.newcomers.iter().map(|&row| sessions[row as usize]);
            let known: Vec<_> = rows().map(|session| labels(&session.labels)).collect();
            let newcomers: Vec<_> = rows()
                .zip(&known)
                .map(|(session, labels)| degradation::Newcomer {
                    session: session.row.id,
                    room: session.room.0,
                    scenario: &session.scenario,
                    labels,
                })
                .collect();
            let open = self.engine.0.budgets.open;
            let first = self.call("open", open, newcomers.len(), |calls, store| {
                calls.open_sessions(store, &newcomers)
            })?;
            states.open(&first)?;
        }
        let memo = Memo::of(memo, self)?;

        let mut frame = std::mem::take(&mut self.tables[0]);
        frame.fill(&self.grant.subject_metrics, sessions.iter().map(|session| &session.row));
        let mut blobs = std::mem::take(&mut self.blobs);
        blobs.fill(states.bytes());
        let asked = TickArguments {
            now_us,
            sessions: frame.wire(),
            states: blobs.wire(),
            memo: memo.wire(),
        };
        let answer =
            self.call("tick", budget, sessions.len(), |calls, store| calls.tick(store, asked));
        (self.tables[0], self.blobs) = (frame, blobs);
        let answer = answer?;
        let most = ACTIONS_PER_ROW_MAX * sessions.len();
        proportionate("tick", "actions", answer.actions.len(), most)?;
        let mut actions = Vec::with_capacity(answer.actions.len());
        for degradation::Action { row, op, arg, reason } in answer.actions {
            // Actions without a grant are dropped here. The core counts unknown actions.
            match Op::from_number(op) {
                Some(known) if !self.grant.ops.contains(&known) => self.count_ungranted(known),
                Some(_) | None => actions.push(DegradationAction { row, op, arg, reason }),
            }
        }
        Ok(HookAnswer::Actions {
            actions,
            states: states.settle(&answer.keep)?,
            memo: memo.settle(answer.keep.memo, self)?,
        })
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
fn labels(labels: &[(Box<str>, Box<str>)]) -> Vec<types::Label<'_>> {
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

/// Bounds lists that the core processes one by one, so that one answer cannot stall it.
fn proportionate(call: &str, what: &str, found: usize, most: usize) -> Result<(), PluginFault> {
    if found <= most {
        return Ok(());
    }
    Err(PluginFault::Malformed(
        format!("{call}: {found} {what}, at most {most} for so many rows").into(),
    ))
}

/// States of a question and its answer: created for new rows, migrated from older revisions, and accepted only if every
/// length and row is valid.
struct QuestionStates<'a> {
    plugin: Arc<str>,
    schema: u32,
    rows: Vec<Cow<'a, [u8]>>,
    /// Rows without a state of this plugin.
    newcomers: Vec<u32>,
    /// Rows with states of older revisions, by schema.
    older: BTreeMap<u32, Vec<u32>>,
}

impl<'a> QuestionStates<'a> {
    /// Sorts rows by the work needed before the plugin can read their states.
    ///
    /// A state of a newer schema, left by a rollback, cannot be read, and its row counts as new.
    fn of(
        plugin: &Arc<str>,
        schema: u32,
        states: impl Iterator<Item = Option<&'a PluginState>>,
    ) -> QuestionStates<'a> {
        let (mut newcomers, mut older) = (Vec::new(), BTreeMap::new());
        let rows = states.enumerate().map(|(row, state)| {
            let row = row as u32;
            let readable = state.filter(|state| readable(state, plugin, schema));
            match readable {
                None => newcomers.push(row),
                Some(state) if state.schema < schema => {
                    older.entry(state.schema).or_insert_with(Vec::new).push(row);
                }
                Some(_) => {}
            }
            readable.map_or(Cow::Borrowed(&[][..]), |state| Cow::Borrowed(&*state.bytes))
        });
        let rows = rows.collect();
        QuestionStates { plugin: Arc::clone(plugin), schema, rows, newcomers, older }
    }

    /// Sets the first states, in the order of `newcomers`.
    fn open(&mut self, first: &BlobsResult) -> Result<(), PluginFault> {
        fill(&mut self.rows, &self.newcomers, first, "open")
    }

    /// Migrates states of older revisions.
    fn migrate(&mut self, guest: &mut Guest) -> Result<(), PluginFault> {
        for (&from, rows) in &self.older {
            let mut blobs = Blobs::default();
            blobs.fill(rows.iter().map(|&row| &*self.rows[row as usize]));
            let budget = guest.engine.0.budgets.migrate;
            let migrated = guest
                .call("migrate", budget, rows.len(), |calls, store| {
                    calls.migrate(store, from, blobs.wire())
                })?
                .map_err(|said| migration_refused("migrate", from, &said))?;
            fill(&mut self.rows, rows, &migrated, "migrate")?;
        }
        Ok(())
    }

    fn bytes(&self) -> impl Iterator<Item = &[u8]> {
        self.rows.iter().map(|bytes| &**bytes)
    }

    /// The changed states: those replaced by the plugin, and all new ones.
    fn settle(self, keep: &Keep) -> Result<Vec<(u32, PluginState)>, PluginFault> {
        let new = self.newcomers.iter().chain(self.older.values().flatten());
        let state = |bytes: &[u8]| PluginState {
            plugin: Arc::clone(&self.plugin),
            schema: self.schema,
            bytes: bytes.into(),
        };
        let mut changed = Vec::with_capacity(new.clone().count() + keep.rows.len());
        changed.extend(new.map(|&row| (row, state(&self.rows[row as usize]))));
        let slices = slices(&keep.states, keep.rows.len(), "keep")?;
        for (&row, bytes) in keep.rows.iter().zip(slices) {
            if row as usize >= self.rows.len() {
                let said = format!("keep: row {row} of {} rows", self.rows.len());
                return Err(PluginFault::Malformed(said.into()));
            }
            changed.push((row, state(bytes)));
        }
        if changed.is_sorted_by(|(row, _), (next, _)| row < next) {
            return Ok(changed);
        }
        // Stable sort, so that the last state of a row wins.
        changed.sort_by_key(|(row, _)| *row);
        changed.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                std::mem::swap(later, earlier);
            }
            same
        });
        Ok(changed)
    }
}

/// Replaces the states of some rows.
fn fill(
    states: &mut [Cow<'_, [u8]>],
    rows: &[u32],
    blobs: &BlobsResult,
    call: &str,
) -> Result<(), PluginFault> {
    for (&row, bytes) in rows.iter().zip(slices(blobs, rows.len(), call)?) {
        states[row as usize] = Cow::Owned(bytes.to_vec());
    }
    Ok(())
}

struct Memo<'a> {
    bytes: Cow<'a, [u8]>,
}

impl<'a> Memo<'a> {
    /// The memo for this revision. It is empty if another plugin or a newer revision wrote it.
    fn of(memo: Option<&'a PluginState>, guest: &mut Guest) -> Result<Memo<'a>, PluginFault> {
        let component = guest.component.clone();
        let Manifest { name: plugin, state_schema, .. } = &component.0.manifest;
        let schema = *state_schema;
        let Some(memo) = memo.filter(|memo| readable(memo, plugin, schema)) else {
            return Ok(Memo { bytes: Cow::Borrowed(&[]) });
        };
        if memo.schema == schema {
            return Ok(Memo { bytes: Cow::Borrowed(&memo.bytes) });
        }
        let budget = guest.engine.0.budgets.migrate;
        let migrated = guest
            .call("migrate-memo", budget, 0, |calls, store| {
                calls.migrate_memo(store, memo.schema, &memo.bytes)
            })?
            .map_err(|said| migration_refused("migrate-memo", memo.schema, &said))?;
        Ok(Memo { bytes: Cow::Owned(fitting("migrate-memo", migrated)?) })
    }

    fn wire(&self) -> &[u8] {
        &self.bytes
    }

    /// The new memo: written by the plugin, or migrated and otherwise unchanged.
    fn settle(
        self,
        new: Option<Vec<u8>>,
        guest: &Guest,
    ) -> Result<Option<PluginState>, PluginFault> {
        let migrated = match self.bytes {
            Cow::Owned(bytes) => Some(bytes),
            Cow::Borrowed(_) => None,
        };
        let new = new.map(|new| fitting("memo", new)).transpose()?;
        let Some(bytes) = new.or(migrated) else { return Ok(None) };
        Ok(Some(guest.state(bytes)))
    }
}

/// A single state written by a plugin.
fn single(guest: &Guest, bytes: Vec<u8>) -> Result<PluginState, PluginFault> {
    if bytes.len() > STATE_BYTES_MAX {
        return Err(too_large("state", 0, bytes.len()));
    }
    Ok(guest.state(bytes))
}

/// Checks the size of a memo written by a plugin.
fn fitting(call: &str, memo: Vec<u8>) -> Result<Vec<u8>, PluginFault> {
    if memo.len() > MEMO_BYTES_MAX {
        let said = format!("{call}: {} bytes, at most {MEMO_BYTES_MAX}", memo.len());
        return Err(PluginFault::Malformed(said.into()));
    }
    Ok(memo)
}

fn readable(state: &PluginState, plugin: &Arc<str>, schema: u32) -> bool {
    // Most states were written by this revision, and share its name.
    let is_own = Arc::ptr_eq(&state.plugin, plugin) || state.plugin == *plugin;
    is_own && state.schema <= schema
}

/// Splits and checks a list of states.
fn slices<'a>(
    blobs: &'a BlobsResult,
    rows: usize,
    call: &str,
) -> Result<Vec<&'a [u8]>, PluginFault> {
    let BlobsResult { offsets, bytes } = blobs;
    if rows == 0 && offsets.is_empty() && bytes.is_empty() {
        return Ok(Vec::new());
    }
    let malformed = |said: String| PluginFault::Malformed(format!("{call}: {said}").into());
    if offsets.len() != rows + 1 {
        return Err(malformed(format!(
            "{} offsets for {rows} states, one more is right",
            offsets.len()
        )));
    }
    if offsets[0] != 0 || offsets[rows] as usize != bytes.len() {
        return Err(malformed(format!(
            "offsets from {} to {} for {} bytes",
            offsets[0],
            offsets[rows],
            bytes.len()
        )));
    }
    let slice = |(row, pair): (usize, &[u32])| {
        let (from, to) = (pair[0] as usize, pair[1] as usize);
        match bytes.get(from..to) {
            None => Err(malformed(format!("offsets {from} and then {to} of state {row}"))),
            Some(state) if state.len() > STATE_BYTES_MAX => Err(too_large(call, row, state.len())),
            Some(state) => Ok(state),
        }
    };
    offsets.windows(2).enumerate().map(slice).collect()
}

fn too_large(call: &str, row: usize, bytes: usize) -> PluginFault {
    let said = format!("{call}: state {row} has {bytes} bytes, at most {STATE_BYTES_MAX}");
    PluginFault::Malformed(said.into())
}

fn migration_refused(call: &str, from: u32, said: &str) -> PluginFault {
    let said = one_line(said, LINE_BYTES_MAX);
    PluginFault::Malformed(format!("{call} from schema {from}: {said}").into())
}

#[cfg(test)]
mod tests;
