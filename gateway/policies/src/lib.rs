//! Runs the revisions that the core decides for. Compiles and tests them, and has one thread per policy, so that a slow
//! policy delays only its own answers. `core::policy` decides which revision answers.

#![deny(missing_docs)]

mod catalog;
mod compare;
mod compiling;
mod export;
mod kept;
mod ledger;
mod memory;
mod prepare;
mod recorder;
mod rules;
mod thread;
mod view;

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

pub use catalog::catalog;
pub use compiling::{Foundry, compile_plugin};
use evenkeel_config::GatewayConfig;
use evenkeel_core::{ArmStatistics, ArmTally, Gateway};
use evenkeel_host as host;
use evenkeel_model::{
    Ask, AskId, BreachCount, CatalogEntry, GatewayLimits, PluginFault, PolicyName, RevisionAnswer,
};
use evenkeel_revisions::{
    Compared, Lifecycle, PolicyCallResult, PolicyStatus, Remembered, Revision, RolloutOutcome,
    RolloutReport, RolloutRequest, RolloutRules, WallClock,
};
pub use export::{Export, ExportOptions};
use kept::RecentQuestions;
pub use ledger::{RefusalLedger, RefusalRecord};
use memory::{FactFile, PolicyKeeper};
pub use prepare::{ActivationOptions, PluginSource, Preparation, begin, prepare};
pub use recorder::{PolicyRecorder, ReportedDecision};
pub use rules::TrustRules;
use thread::{Figures, LoadedPlugin, PolicyThread};
use tokio::sync::{mpsc, oneshot};
pub use view::{PluginView, PolicyView};

/// Questions that may wait for one policy; the native default answers further ones. With a plugin that needs its whole
/// budget of 10 ms, the last of them waits 640 ms.
const QUESTIONS_MAX: usize = 64;

/// Messages from the threads of policies to control.
#[derive(Debug)]
pub enum PolicyReport {
    /// A question was answered, by a plugin or natively.
    Answered {
        /// The question.
        ask: AskId,
        /// The policy.
        policy: PolicyName,
        /// The answer, or why there is none.
        result: Result<RevisionAnswer, PluginFault>,
        /// The called revision and the result of the call, if one was called.
        call: Option<(Arc<str>, PolicyCallResult)>,
    },
    /// A candidate was asked in the shadow stage.
    Compared {
        /// The policy.
        policy: PolicyName,
        /// The candidate.
        revision: Arc<str>,
        /// How its answer compares.
        compared: Compared,
        /// The plugin could not be restarted.
        beyond_repair: bool,
    },
    /// A revision and a fresh instance of it gave different answers.
    HiddenState {
        /// The policy.
        policy: PolicyName,
        /// The revision.
        revision: Arc<str>,
        /// The difference.
        differs: Box<str>,
        /// Different answers so far, and compared ones.
        answers: BreachCount,
    },
    /// A revision is compiled; recorded questions are replayed unless the core refuses it.
    Compiled {
        /// The policy.
        policy: PolicyName,
        /// The request for it.
        request: Box<RolloutRequest>,
        /// The compiled revision.
        revision: Revision,
        /// Whether the core takes it.
        reply: oneshot::Sender<Result<(), evenkeel_revisions::RevisionRefusal>>,
    },
    /// A revision passed the replay of recorded questions.
    Ready(Box<ReadyRevision>),
}

/// A revision that passed the replay and may be used.
#[derive(Debug)]
pub struct ReadyRevision {
    policy: PolicyName,
    request: RolloutRequest,
    revision: Revision,
    loaded: LoadedPlugin,
    since: Instant,
    reply: oneshot::Sender<LoadDecision>,
}

/// The core's decision about a ready revision.
#[derive(Debug)]
struct LoadDecision {
    result: Result<RolloutReport, evenkeel_revisions::RevisionRefusal>,
    /// The refused plugin, returned because dropping it takes time.
    unwanted: Option<LoadedPlugin>,
}

/// An order to the thread of a policy, handled before waiting questions.
enum PolicyOrder {
    /// Questions may name the revision from now on. With `compare`, the thread also asks it in the shadow stage.
    Load {
        revision: Arc<str>,
        loaded: Box<LoadedPlugin>,
        compare: bool,
    },
    Unload(Arc<str>),
    Stop,
}

/// State shared by control and the thread of a policy.
#[derive(Default, Debug)]
struct ThreadQueue {
    orders: Mutex<VecDeque<PolicyOrder>>,
    /// Questions to replay on the next revision.
    questions: RecentQuestions,
    catalog: Mutex<CatalogSnapshot>,
}

impl std::fmt::Debug for PolicyOrder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            PolicyOrder::Load { .. } => "Load",
            PolicyOrder::Unload(_) => "Unload",
            PolicyOrder::Stop => "Stop",
        })
    }
}

/// Names of nodes, zones and regions, and the number of their changes.
#[derive(Clone, Default, Debug)]
struct CatalogSnapshot {
    version: u64,
    entries: Arc<[CatalogEntry]>,
}

/// No thread panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Maximum time of a plugin for a question, as the core measures it.
#[derive(Clone, Copy, Debug)]
struct QuestionBudgets {
    /// The budget of questions that a client waits for.
    offer: Duration,
    advice: Duration,
}

/// The threads of all policies, their engine and their recorder.
pub struct PolicyThreads {
    foundry: Foundry,
    rules: Arc<TrustRules>,
    ledger: Arc<RefusalLedger>,
    catalog: CatalogSnapshot,
    budgets: QuestionBudgets,
    running: BTreeMap<PolicyName, RunningPolicy>,
    words: mpsc::Sender<PolicyReport>,
    recorder: Option<PolicyRecorder>,
    /// Stores facts across restarts, if there is a folder for them. It is dropped after the keepers.
    memory: Option<FactFile>,
}

struct RunningPolicy {
    questions: crossbeam_channel::Sender<Ask>,
    /// Wakes the thread for an order.
    bell: crossbeam_channel::Sender<()>,
    shared: Arc<ThreadQueue>,
    plugins: BTreeMap<Arc<str>, PluginFacts>,
    keeper: Option<PolicyKeeper>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// The facts about a loaded plugin that control needs.
#[derive(Debug)]
struct PluginFacts {
    name: Arc<str>,
    /// The name and version.
    title: Box<str>,
    origin: Box<str>,
    settings: serde_json::Value,
    seal: host::PluginSeal,
    figures: Arc<Figures>,
}

impl RunningPolicy {
    fn order(&self, order: PolicyOrder) {
        lock(&self.shared.orders).push_back(order);
        // One pending signal is enough. A thread that has ended needs no order.
        let _ = self.bell.try_send(());
    }

    fn revoked(&self, rules: &TrustRules) -> BTreeMap<Arc<str>, Box<str>> {
        let revoked = |(revision, plugin): (&Arc<str>, &PluginFacts)| {
            Some((Arc::clone(revision), rules.revoked(&plugin.seal)?.to_string().into()))
        };
        self.plugins.iter().filter_map(revoked).collect()
    }
}

impl RunningPolicy {
    fn view(
        &self,
        policy: &PolicyName,
        status: PolicyStatus,
        cohorts: Vec<ArmStatistics>,
    ) -> PolicyView {
        let plugin = |revision: &Arc<str>| self.plugins.get(revision);
        let active = status.active.as_ref().and_then(plugin);
        let candidate = status.candidate.as_ref().and_then(|it| plugin(&it.revision));
        let view = |plugin: &PluginFacts| PluginView {
            title: plugin.title.clone(),
            origin: plugin.origin.clone(),
        };
        let (quarantined, hidden_state) =
            active.map(|plugin| plugin.figures.read()).unwrap_or_default();
        PolicyView {
            policy: policy.clone(),
            active: active.map(view).unwrap_or_default(),
            candidate: candidate.map(view).unwrap_or_default(),
            status,
            cohorts,
            quarantined,
            hidden_state,
        }
    }
}

impl PolicyThreads {
    /// Starts a thread for each policy of these settings.
    pub fn new(
        catalog: Vec<CatalogEntry>,
        limits: &GatewayLimits,
        words: mpsc::Sender<PolicyReport>,
    ) -> PolicyThreads {
        let budgets = QuestionBudgets { offer: limits.offer_budget, advice: limits.advice_budget };
        PolicyThreads {
            foundry: Foundry::bare(host::Engine::new()),
            rules: Arc::default(),
            ledger: Arc::default(),
            catalog: CatalogSnapshot { version: 0, entries: catalog.into() },
            budgets,
            running: BTreeMap::new(),
            words,
            recorder: None,
            memory: None,
        }
    }

    /// Records the policies that are started from now on.
    pub fn recorded_by(mut self, recorder: PolicyRecorder) -> PolicyThreads {
        self.recorder = Some(recorder);
        self
    }

    /// Records questions and answers; `None` if `[gateway]` disables it.
    pub fn recorder(&self) -> Option<PolicyRecorder> {
        self.recorder.clone()
    }

    /// Applies the configured cache, trust rules and memory. Without a cache folder, no facts are kept across restarts.
    pub fn configured(mut self, settings: &GatewayConfig) -> PolicyThreads {
        if self.foundry.engine().checks_accesses() {
            tracing::warn!(
                "policies take longer: the process may not reserve 774 GiB of address space (`ulimit -v`), none of which would be used"
            );
        }
        self.foundry = Foundry::of(self.foundry.engine().clone(), settings);
        self.rules = Arc::new(TrustRules::of(settings));
        let open = |folder: &Path| match FactFile::open(folder, &settings.admin.socket) {
            Ok(memory) => Some(memory),
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "quarantined and accepted revisions are not kept beyond a restart");
                None
            }
        };
        self.memory = self.foundry.folder().and_then(open);
        self
    }

    /// Lets facts be kept across restarts: no other process does so for this gateway.
    pub fn keep_facts(&self) {
        self.memory.iter().for_each(FactFile::begin_writing);
    }

    /// Compiles plugins.
    pub fn foundry(&self) -> &Foundry {
        &self.foundry
    }

    /// The newest refused plugins.
    pub fn ledger(&self) -> &RefusalLedger {
        &self.ledger
    }

    /// Sets the rules for new revisions. Loaded revisions are only checked against the revocations.
    pub fn govern(&mut self, rules: TrustRules, gateway: &mut Gateway, now: Instant) {
        self.rules = Arc::new(rules);
        for (policy, running) in &self.running {
            let revoked = running.revoked(&self.rules);
            gateway.change_policy(policy, now, |life| life.handle_revoked(revoked, now));
        }
    }

    /// Numbers a new push and collects the data to prepare it. It supersedes earlier unfinished pushes of the policy.
    pub fn preparation(&self, policy: &PolicyName, gateway: &mut Gateway) -> Option<Preparation> {
        let running = self.running.get(policy)?;
        let active = gateway.policy(policy)?.active_name();
        let plugin = active.as_ref().and_then(|active| running.plugins.get(active));
        Some(Preparation {
            push: gateway.change_policy(policy, Instant::now(), Lifecycle::next_push)?,
            policy: policy.clone(),
            foundry: self.foundry.clone(),
            rules: Arc::clone(&self.rules),
            ledger: Arc::clone(&self.ledger),
            catalog: self.catalog.clone(),
            shared: Arc::clone(&running.shared),
            settings: plugin.map(|plugin| (Arc::clone(&plugin.name), plugin.settings.clone())),
            active,
            words: self.words.clone(),
        })
    }

    /// Starts the thread of a policy. The native default answers its questions until a revision is active.
    pub fn start(
        &mut self,
        policy: &PolicyName,
        rules: RolloutRules,
        gateway: &mut Gateway,
    ) -> std::io::Result<()> {
        let (questions, asked) = crossbeam_channel::bounded(QUESTIONS_MAX);
        let (bell, rung) = crossbeam_channel::bounded(1);
        let shared = Arc::new(ThreadQueue::default());
        *lock(&shared.catalog) = self.catalog.clone();
        let (remembered, keeper) = match &mut self.memory {
            Some(memory) => {
                let (remembered, keeper) = memory.begin(policy);
                (remembered, Some(keeper))
            }
            None => (Remembered::default(), None),
        };
        let thread = PolicyThread::new(
            policy.clone(),
            Arc::clone(&shared),
            self.budgets,
            self.words.clone(),
            self.recorder.as_ref().map(PolicyRecorder::scribe),
        );
        let thread = Some(thread.spawn(rung, asked)?);
        let clock = WallClock { instant: Instant::now(), time: SystemTime::now() };
        gateway.handle_policy(policy, rules, remembered, clock);
        let plugins = BTreeMap::new();
        let running = RunningPolicy { questions, bell, shared, plugins, keeper, thread };
        self.running.insert(policy.clone(), running);
        Ok(())
    }

    /// Passes a changed list of nodes and zones to each policy, before its next question.
    pub fn teach(&mut self, catalog: Vec<CatalogEntry>) {
        let version = self.catalog.version + 1;
        self.catalog = CatalogSnapshot { version, entries: catalog.into() };
        for running in self.running.values() {
            *lock(&running.shared.catalog) = self.catalog.clone();
            let _ = running.bell.try_send(());
        }
    }

    /// Queues a question; returns the fault at once if the queue is full.
    pub fn ask(&self, ask: Ask) -> Result<(), (AskId, PluginFault)> {
        let id = ask.id;
        let Some(running) = self.running.get(&ask.policy) else {
            return Err((id, PluginFault::Absent));
        };
        running.questions.try_send(ask).map_err(|_| (id, PluginFault::Late))
    }

    /// Handles a message of a policy's thread.
    pub fn handle_word(&mut self, word: PolicyReport, gateway: &mut Gateway, now: Instant) {
        match word {
            PolicyReport::Answered { ask, policy, result, call } => {
                gateway.handle_answer(ask, result, now);
                if let Some((revision, call)) = call {
                    gateway.change_policy(&policy, now, |life| {
                        life.handle_call(&revision, &call, now);
                    });
                }
            }
            PolicyReport::Compared { policy, revision, compared, beyond_repair } => {
                gateway.change_policy(&policy, now, |life| {
                    life.handle_compared(&revision, &compared, beyond_repair, now);
                });
            }
            PolicyReport::HiddenState { policy, revision, differs, answers } => {
                gateway.handle_hidden_state(&policy, &revision, differs, answers);
            }
            PolicyReport::Compiled { policy, request, revision, reply } => {
                let life =
                    gateway.policy(&policy).ok_or(evenkeel_revisions::RevisionRefusal::Superseded);
                let checked = life.and_then(|it| it.handle_compiled(&request, &revision, now));
                let _ = reply.send(checked);
            }
            PolicyReport::Ready(ready) => self.handle_ready(*ready, gateway, now),
        }
    }

    /// Loads the revision if the core accepts it, before any question names it.
    fn handle_ready(&mut self, ready: ReadyRevision, gateway: &mut Gateway, now: Instant) {
        let ReadyRevision { policy, request, revision, loaded, since, reply } = ready;
        let Some(running) = self.running.get_mut(&policy) else {
            // The policy was stopped; dropping `reply` reports that.
            return;
        };
        let (name, plugin) = (Arc::clone(&revision.name), loaded.plugin(&revision));
        let revoked = self.rules.revoked(&plugin.seal).map(|refused| refused.to_string().into());
        let result = gateway.change_policy(&policy, now, |life| {
            life.handle_ready(&request, revision, revoked, (since, now))
        });
        let result = result.unwrap_or(Err(evenkeel_revisions::RevisionRefusal::Superseded));
        let compare = match result.as_ref().map(|rollout| rollout.outcome) {
            Ok(RolloutOutcome::Started) => true,
            Ok(RolloutOutcome::Unchanged) | Err(_) => {
                let _ = reply.send(LoadDecision { result, unwanted: Some(loaded) });
                return;
            }
            Ok(_) => false,
        };
        running.plugins.insert(Arc::clone(&name), plugin);
        running.order(PolicyOrder::Load { revision: name, loaded: Box::new(loaded), compare });
        let _ = reply.send(LoadDecision { result, unwanted: None });
    }

    /// Unloads a revision that no question names any more.
    pub fn unload(&mut self, policy: &PolicyName, revision: Arc<str>) {
        if let Some(running) = self.running.get_mut(policy) {
            running.plugins.remove(&revision);
            running.order(PolicyOrder::Unload(revision));
        }
    }

    /// Stores the facts across restarts.
    pub fn remember(&self, policy: &PolicyName, remembered: Remembered) {
        let running = self.running.get(policy);
        if let Some(keeper) = running.and_then(|running| running.keeper.as_ref()) {
            keeper.note(remembered);
        }
    }

    /// All policies, in order.
    pub fn names(&self) -> impl Iterator<Item = &PolicyName> {
        self.running.keys()
    }

    /// All policies with their plugins and measurements.
    pub fn views(
        &self,
        gateway: &Gateway,
        tallies: &BTreeMap<PolicyName, ArmTally>,
        now: Instant,
    ) -> Vec<PolicyView> {
        let view = |(policy, running): (&PolicyName, &RunningPolicy)| {
            let status = gateway.policy(policy)?.status(now);
            let cohorts = tallies.get(policy).and_then(|tally| gateway.cohorts(policy, tally));
            Some(running.view(policy, status, cohorts.into_iter().flatten().collect()))
        };
        self.running.iter().filter_map(view).collect()
    }

    /// Stops the thread of one policy, as a drill does; the native default answers its questions from then on. Does not
    /// wait for the current question. Returns false if no such policy runs.
    pub fn stop(&mut self, policy: &PolicyName) -> bool {
        let running = self.running.remove(policy);
        running.is_some_and(|running| {
            running.order(PolicyOrder::Stop);
            true
        })
    }
}

impl Drop for PolicyThreads {
    fn drop(&mut self) {
        for (_, mut running) in std::mem::take(&mut self.running) {
            running.order(PolicyOrder::Stop);
            running.thread.take().map(std::thread::JoinHandle::join);
        }
    }
}
