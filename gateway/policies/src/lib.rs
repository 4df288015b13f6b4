//! Runs the revisions that the core decides for. Compiles and tests them, and has one thread per policy, so that a slow
//! policy delays only its own answers. `core::policy` decides which revision answers.

mod compare;
mod compiling;
mod entries;
mod memory;
mod prepare;
mod processor;
mod proof;
mod record;
mod recorder;
mod restoring;
mod thread;
mod trial;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
pub use compiling::{Foundry, compile_plugin};
pub use entries::{catalog, catalog_of};
use evenkeel_config::{GatewayConfig, PolicyBinding};
use evenkeel_core::{ArmStatistics, ArmTally, Gateway};
use evenkeel_host::{self as host, Component, DataDocuments, PluginInputs, PluginRefusal};
use evenkeel_kept::Store;
use evenkeel_model::{
    Ask, AskId, CatalogEntry, DecisionOutcome, GatewayLimits, PluginFault, PolicyName,
};
use evenkeel_process::lock;
use evenkeel_recording::RecordedDecision;
use evenkeel_revisions::{
    CohortSize, Lifecycle, PolicyStatus, RevisionRefusal, RolloutOutcome, RolloutRules, WallClock,
};
use memory::PolicyMemory;
pub use prepare::{
    ActivationOptions, PluginSource, Preparation, RefusalLedger, RefusalRecord, RevisionLoad,
    SourceDocuments, TrustRules, begin, load, prepare,
};
use record::Digest;
pub use record::{PluginFiles, PolicyRecord, PolicyRecords};
pub use recorder::{ChunkListener, Export, ExportOptions, PolicyRecorder};
pub use thread::PolicyReport;
use thread::{
    CatalogSnapshot, LoadDecision, PluginFacts, PolicyMessage, PolicyOrder, PolicyThread,
    QuestionBudgets, ReadyRevision, ThreadQueue,
};
use tokio::sync::mpsc;

/// Questions that may wait for one policy; the native default answers further ones. With a plugin that needs its whole
/// budget of 10 ms, the last of them waits 640 ms.
const QUESTIONS_MAX: usize = 64;

/// A policy, its plugins and their measurements.
#[derive(Clone, PartialEq, Debug)]
pub struct PolicyView {
    /// The policy: `call/routing`.
    pub policy: PolicyName,
    /// The scenarios of its set.
    pub scenarios: Vec<Arc<str>>,
    /// Revisions, rollout, faults.
    pub status: PolicyStatus,
    /// The plugin of the active revision. Empty while the native default decides because the plugin failed.
    pub active: PluginView,
    /// The plugin of the candidate; empty without a candidate.
    pub candidate: PluginView,
    /// Measurements of both cohorts, the active revision's first. Empty outside the canary stage.
    pub cohorts: Vec<ArmStatistics>,
    /// The part of the canary that was judged in its present step; `None` outside the canary stage.
    pub judged: Option<CohortSize>,
    /// Sessions and rooms on which the active revision faults; the gateway does not ask it about them.
    pub quarantined: u64,
    /// Answers that differed from those of a fresh instance, and compared answers.
    pub hidden_state: (u64, u64),
    /// Time since the latest push or changed file, until its outcome; `None`: none is being prepared.
    pub preparing: Option<Duration>,
}

/// The plugin of a revision.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct PluginView {
    /// Name and version.
    pub title: Box<str>,
    /// `embedded`, the path of a file, or `pushed`.
    pub origin: Box<str>,
    /// As given, without defaults.
    pub documents: DataDocuments,
}

/// The threads of all policies, their engine and their recorder.
pub struct PolicyThreads {
    foundry: Foundry,
    rules: Arc<TrustRules>,
    ledger: Arc<RefusalLedger>,
    catalog: CatalogSnapshot,
    budgets: QuestionBudgets,
    running: BTreeMap<PolicyName, RunningPolicy>,
    reports: mpsc::Sender<PolicyReport>,
    recorder: Option<PolicyRecorder>,
    /// Records of the process that this one replaces, of policies that are to start.
    inherited: Vec<PolicyRecord>,
    /// Files of records that are being restored, or that follow.
    files: PluginFiles,
    /// Keeps records across restarts.
    memory: PolicyMemory,
}

struct RunningPolicy {
    questions: crossbeam_channel::Sender<Ask>,
    /// Wakes the thread for an order.
    bell: crossbeam_channel::Sender<()>,
    shared: Arc<ThreadQueue>,
    /// The time of the latest push, while it is being prepared.
    preparing: Weak<Instant>,
    plugins: BTreeMap<Arc<str>, Arc<PluginFacts>>,
    /// Identifies the binding of the configuration that was rolled out last.
    configured: Option<Digest>,
    /// The record of another process whose revisions are being loaded. Until they are, it is that of this policy.
    pending: Option<PolicyRecord>,
    loading: BTreeSet<Arc<str>>,
    /// Revisions of the last record that do not run here, with the digests of their files.
    rejected: BTreeMap<Arc<str>, Vec<Digest>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl RunningPolicy {
    fn order(&self, order: PolicyOrder) {
        lock(&self.shared.orders).push_back(order);
        // One pending signal is enough. A thread that has ended needs no order.
        let _ = self.bell.try_send(());
    }

    fn revoked(&self, rules: &TrustRules) -> BTreeMap<Arc<str>, Box<str>> {
        let revoked = |(revision, plugin): (&Arc<str>, &Arc<PluginFacts>)| {
            Some((Arc::clone(revision), rules.revoked(&plugin.seal)?.to_string().into()))
        };
        self.plugins.iter().filter_map(revoked).collect()
    }

    fn view(
        &self,
        policy: &PolicyName,
        scenarios: Vec<Arc<str>>,
        status: PolicyStatus,
        (cohorts, judged): (Vec<ArmStatistics>, Option<CohortSize>),
    ) -> PolicyView {
        let plugin = |revision: &Arc<str>| self.plugins.get(revision);
        let active = status.active.as_ref().and_then(plugin);
        let candidate = status.candidate.as_ref().and_then(|it| plugin(&it.revision));
        let view = |plugin: &Arc<PluginFacts>| PluginView {
            title: plugin.title.clone(),
            origin: plugin.origin.clone(),
            documents: plugin.inputs.documents.clone(),
        };
        let (quarantined, hidden_state) =
            active.map(|plugin| plugin.counters.read()).unwrap_or_default();
        PolicyView {
            policy: policy.clone(),
            scenarios,
            active: active.map(view).unwrap_or_default(),
            candidate: candidate.map(view).unwrap_or_default(),
            status,
            cohorts,
            judged,
            quarantined,
            hidden_state,
            preparing: self.preparing.upgrade().map(|since| since.elapsed()),
        }
    }
}

impl PolicyThreads {
    /// Starts a thread for each policy of these settings.
    pub fn new(
        catalog: Vec<CatalogEntry>,
        limits: &GatewayLimits,
        reports: mpsc::Sender<PolicyReport>,
    ) -> PolicyThreads {
        let budgets = QuestionBudgets { offer: limits.offer_budget, advice: limits.advice_budget };
        PolicyThreads {
            foundry: Foundry::bare(host::Engine::new()),
            rules: Arc::default(),
            ledger: Arc::default(),
            catalog: CatalogSnapshot { version: 0, entries: catalog.into() },
            budgets,
            running: BTreeMap::new(),
            reports,
            recorder: None,
            inherited: Vec::new(),
            files: PluginFiles::new(),
            memory: PolicyMemory::default(),
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

    /// Applies the configured cache and trust rules.
    pub fn with_settings(mut self, settings: &GatewayConfig) -> PolicyThreads {
        if self.foundry.engine().checks_accesses() {
            tracing::warn!(
                "policies take longer: the process may not reserve 774 GiB of address space (`ulimit -v`), none of which would be used"
            );
        }
        self.foundry = Foundry::of(self.foundry.engine().clone(), settings);
        self.rules = Arc::new(TrustRules::of(settings));
        self
    }

    /// Keeps records in this store, which was opened in the folder of the cache, and continues those on the disk.
    ///
    /// # Errors
    /// If the disk cannot be read.
    pub fn keeping(
        mut self,
        store: &Store,
        settings: &GatewayConfig,
    ) -> std::io::Result<PolicyThreads> {
        self.memory = PolicyMemory::read(store, self.foundry.folder(), &settings.admin.socket)?;
        Ok(self)
    }

    /// Continues the records of the process that this one replaces, in place of those on the disk.
    pub fn inheriting(mut self, records: PolicyRecords) -> PolicyThreads {
        PolicyRecords { records: self.inherited, files: self.files } = records;
        self
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
        for (policy, running) in &mut self.running {
            // The next record tries them again.
            running.rejected.clear();
            let revoked = running.revoked(&self.rules);
            gateway.change_policy(policy, now, |life| life.handle_revoked(revoked, now));
        }
    }

    /// Numbers a new push and collects the data to prepare it. It supersedes earlier unfinished pushes of the policy.
    pub fn preparation(
        &mut self,
        policy: &PolicyName,
        gateway: &mut Gateway,
    ) -> Option<Preparation> {
        let running = self.running.get_mut(policy)?;
        let active = gateway.policy(policy)?.revisions().active_name();
        let plugin = active.as_ref().and_then(|active| running.plugins.get(active));
        // The first revision is used even if it is not proved: no other could answer instead.
        let copy = active.is_some().then(|| gateway.records().copy_nodes());
        let began = Arc::new(Instant::now());
        running.preparing = Arc::downgrade(&began);
        Some(Preparation {
            _began: began,
            judging: gateway.policy(policy)?.judging(),
            copy,
            push: gateway.change_policy(policy, Instant::now(), Lifecycle::next_push)?,
            policy: policy.clone(),
            foundry: self.foundry.clone(),
            rules: Arc::clone(&self.rules),
            ledger: Arc::clone(&self.ledger),
            catalog: self.catalog.clone(),
            shared: Arc::clone(&running.shared),
            plugin: plugin.cloned(),
            active,
            reports: self.reports.clone(),
        })
    }

    /// The bytes of the active revision's plugin.
    pub fn active_plugin(&self, policy: &PolicyName, gateway: &Gateway) -> Option<Bytes> {
        let active = gateway.policy(policy)?.revisions().active_name()?;
        Some(self.running.get(policy)?.plugins.get(&active)?.bytes.clone())
    }

    /// Starts the thread of a policy. The native default answers its questions until a revision is active. Returns the
    /// revisions of an earlier process, which are to be loaded in place of a first one.
    pub fn start(
        &mut self,
        policy: &PolicyName,
        rules: RolloutRules,
        gateway: &mut Gateway,
    ) -> std::io::Result<Option<RevisionLoad>> {
        let (questions, asked) = crossbeam_channel::bounded(QUESTIONS_MAX);
        let (bell, rung) = crossbeam_channel::bounded(1);
        let shared = Arc::new(ThreadQueue::default());
        *lock(&shared.catalog) = self.catalog.clone();
        let thread = PolicyThread::new(
            policy.clone(),
            Arc::clone(&shared),
            self.budgets,
            self.reports.clone(),
            self.recorder.as_ref().map(PolicyRecorder::call_recorder),
        );
        let thread = Some(thread.spawn(rung, asked)?);
        let clock = WallClock { instant: Instant::now(), time: SystemTime::now() };
        gateway.handle_policy(policy, rules, clock);
        let running = RunningPolicy {
            questions,
            bell,
            shared,
            preparing: Weak::new(),
            plugins: BTreeMap::new(),
            configured: None,
            pending: None,
            loading: BTreeSet::new(),
            rejected: BTreeMap::new(),
            thread,
        };
        self.running.insert(policy.clone(), running);
        let at = self.inherited.iter().position(|record| record.policy == *policy);
        let PolicyRecords { mut records, files } = self.memory.begin(policy);
        let record = match at {
            Some(at) => Some(self.inherited.swap_remove(at)),
            None => {
                self.files.extend(files);
                records.pop()
            }
        };
        Ok(record.and_then(|record| self.restore_record(record, gateway, clock.instant)))
    }

    /// Passes a changed list of nodes and zones to each policy, before its next question.
    pub fn set_catalog(&mut self, catalog: Vec<CatalogEntry>) {
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

    /// Records the decision on an answer.
    pub fn note_decided(&self, ask: AskId, outcome: &DecisionOutcome) {
        if let Some(recorder) = &self.recorder {
            recorder.note_decided(RecordedDecision::of(ask, outcome));
        }
    }

    /// Handles a message of a policy's thread.
    pub fn handle_report(&mut self, report: PolicyReport, gateway: &mut Gateway, now: Instant) {
        match report.0 {
            PolicyMessage::Answered { ask, policy, result, call } => {
                gateway.handle_answer(ask, result, now);
                if let Some((revision, call)) = call {
                    gateway.change_policy(&policy, now, |life| {
                        life.handle_call(&revision, &call, now);
                    });
                }
            }
            PolicyMessage::Compared { policy, revision, compared, beyond_repair } => {
                gateway.change_policy(&policy, now, |life| {
                    life.handle_compared(&revision, &compared, beyond_repair, now);
                });
            }
            PolicyMessage::HiddenState { policy, revision, differs, answers } => {
                gateway.handle_hidden_state(&policy, &revision, differs, answers);
            }
            PolicyMessage::Compiled { policy, request, revision, reply } => {
                let life = gateway.policy(&policy).ok_or(RevisionRefusal::Superseded);
                let checked = life.and_then(|it| it.handle_compiled(&request, &revision, now));
                let _ = reply.send(checked);
            }
            PolicyMessage::Ready(ready) => self.handle_ready(*ready, gateway, now),
            PolicyMessage::Restored { policy, revision, loaded, reply } => {
                self.handle_restored(&policy, revision, loaded, gateway, now);
                let _ = reply.send(());
            }
        }
    }

    /// Loads the revision if the core accepts it, before any question names it.
    fn handle_ready(&mut self, ready: ReadyRevision, gateway: &mut Gateway, now: Instant) {
        let ReadyRevision { policy, request, revision, loaded, configured, since, reply } = ready;
        let Some(running) = self.running.get_mut(&policy) else {
            // The policy was stopped; dropping `reply` reports that.
            return;
        };
        let (name, plugin) = (Arc::clone(&revision.name), Arc::clone(&loaded.facts));
        let revoked = self.rules.revoked(&plugin.seal).map(|refused| refused.to_string().into());
        let result = gateway.change_policy(&policy, now, |life| {
            life.handle_ready(&request, revision, revoked, (since, now))
        });
        let result = result.unwrap_or(Err(RevisionRefusal::Superseded));
        let outcome = result.as_ref().ok().map(|rollout| rollout.outcome);
        if outcome.is_some() {
            (running.pending, running.loading) = (None, BTreeSet::new());
            if configured.is_some() && configured != running.configured {
                running.configured = configured;
                gateway.change_policy(&policy, now, Lifecycle::note_change);
            }
        }
        if matches!(outcome, Some(RolloutOutcome::Unchanged) | None) {
            let _ = reply.send(LoadDecision { result, unwanted: Some(loaded) });
            return;
        }
        running.plugins.insert(Arc::clone(&name), plugin);
        running.order(PolicyOrder::Load { revision: Arc::clone(&name), loaded: Box::new(loaded) });
        if outcome == Some(RolloutOutcome::Started) {
            running.order(PolicyOrder::Compare(name));
        }
        let _ = reply.send(LoadDecision { result, unwanted: None });
    }

    /// Unloads a revision that no question names any more.
    pub fn unload(&mut self, policy: &PolicyName, revision: Arc<str>) {
        if let Some(running) = self.running.get_mut(policy) {
            running.plugins.remove(&revision);
            running.order(PolicyOrder::Unload(revision));
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
            let cohorts = cohorts.into_iter().flatten().collect();
            let of_set = gateway.scenarios().filter(|(_, scenario)| scenario.set == policy.set);
            let scenarios = of_set.map(|(name, _)| Arc::clone(name)).collect();
            Some(running.view(policy, scenarios, status, (cohorts, gateway.judged(policy))))
        };
        self.running.iter().filter_map(view).collect()
    }

    /// Stops a policy that no set binds any more, and forgets its record, as a restart without it would.
    pub fn remove(&mut self, policy: &PolicyName) {
        self.stop(policy);
        self.inherited.retain(|record| record.policy != *policy);
        self.memory.forget(policy);
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

/// Compiles a binding's plugin and applies its settings and trust rules.
pub fn try_out(
    foundry: &Foundry,
    settings: &GatewayConfig,
    binding: &PolicyBinding,
    source: &PluginSource,
) -> Result<Component, PluginRefusal> {
    let (grant, unsigned) = (&binding.allowed.grant, settings.trust.unsigned(&binding.allowed));
    settings.trust.keys.judge(&source.bytes, unsigned)?;
    let component = foundry.vet(&source.bytes)?;
    let (engine, catalog) = (foundry.engine(), catalog_of(&settings.core()));
    let settings = source.settings.clone().unwrap_or_default();
    let given = PluginInputs { settings, documents: source.documents.given().clone() };
    let hook = binding.hook;
    let seed = source.seed;
    host::BoundPlugin::install_within(engine, &component, hook, given, catalog, seed, grant)?;
    Ok(component)
}
