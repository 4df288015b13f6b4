//! The thread of one policy. It owns the loaded plugins, and asks the one that a question names. It keeps the last
//! questions, which the next revision has to answer before it is used.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::mem::discriminant;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::Receiver;
use evenkeel_host::{self as host, LogLevel};
use evenkeel_model::{
    Arm, Ask, AskId, BreachCount, CatalogEntry, PluginFault, PolicyName, PolicyQuestion,
    RevisionAnswer,
};
use evenkeel_process::lock;
use evenkeel_revisions::{
    Compared, PolicyCallResult, Revision, RevisionRefusal, RolloutReport, RolloutRequest,
};
use tokio::sync::{mpsc, oneshot};

use super::compare::is_same;
use super::processor::ProcessorClock;
use super::record::{Digest, hexadecimal};
use super::recorder::CallRecorder;

/// Guests run on the native stack, and a stack overflow aborts the process: twice the stack that wasmtime gives a
/// guest.
const STACK: usize = 2 << 20;

/// Minimum time between log lines about faults.
const FAULT_LOGGED_EVERY: Duration = Duration::from_secs(1);

/// Questions kept of each kind, so that frequent kinds do not displace rare ones.
const KEPT_OF_EACH: usize = 8;

/// Rooms or sessions kept of one question. A question may have thousands, and some hundreds are enough to expose a
/// faulty revision.
const ROWS_OF_EACH: usize = 512;

/// A message from the threads of policies to control.
#[derive(Debug)]
pub struct PolicyReport(pub(super) PolicyMessage);

#[derive(Debug)]
pub(super) enum PolicyMessage {
    /// A question was answered, by a plugin or natively.
    Answered {
        ask: AskId,
        policy: PolicyName,
        result: Result<RevisionAnswer, PluginFault>,
        /// The called revision and the result of the call, if one was called.
        call: Option<(Arc<str>, PolicyCallResult)>,
    },
    /// A candidate was asked in the shadow stage.
    Compared {
        policy: PolicyName,
        revision: Arc<str>,
        compared: Compared,
        /// The plugin could not be restarted.
        beyond_repair: bool,
    },
    /// A revision and a fresh instance of it gave different answers.
    HiddenState {
        policy: PolicyName,
        revision: Arc<str>,
        differs: Box<str>,
        /// Different answers so far, and compared ones.
        answers: BreachCount,
    },
    /// A revision is compiled; recorded questions are replayed unless the core refuses it.
    Compiled {
        policy: PolicyName,
        request: Box<RolloutRequest>,
        revision: Revision,
        reply: oneshot::Sender<Result<(), RevisionRefusal>>,
    },
    Ready(Box<ReadyRevision>),
    /// A revision of another process's record can run here, or cannot.
    Restored {
        policy: PolicyName,
        revision: Arc<str>,
        loaded: Option<Box<LoadedPlugin>>,
        reply: oneshot::Sender<()>,
    },
}

/// A revision that passed the replay and may be used.
#[derive(Debug)]
pub(super) struct ReadyRevision {
    pub(super) policy: PolicyName,
    pub(super) request: RolloutRequest,
    pub(super) revision: Revision,
    pub(super) loaded: LoadedPlugin,
    /// Identifies the binding of the configuration; `None` for a push.
    pub(super) configured: Option<Digest>,
    pub(super) since: Instant,
    pub(super) reply: oneshot::Sender<LoadDecision>,
}

/// The core's decision about a ready revision.
#[derive(Debug)]
pub(super) struct LoadDecision {
    pub(super) result: Result<RolloutReport, RevisionRefusal>,
    /// The refused plugin, returned because dropping it takes time.
    pub(super) unwanted: Option<LoadedPlugin>,
}

/// An order to the thread of a policy, handled before waiting questions.
pub(super) enum PolicyOrder {
    /// Questions may name the revision from now on.
    Load {
        revision: Arc<str>,
        loaded: Box<LoadedPlugin>,
    },
    /// The loaded revision is the candidate of the shadow stage.
    Compare(Arc<str>),
    Unload(Arc<str>),
    Stop,
}

/// State shared by control and the thread of a policy.
#[derive(Default, Debug)]
pub(super) struct ThreadQueue {
    pub(super) orders: Mutex<VecDeque<PolicyOrder>>,
    /// Questions to replay on the next revision.
    pub(super) questions: RecentQuestions,
    /// Revisions that passed a trial, with the version of the catalog.
    pub(super) proved: Mutex<VecDeque<(Arc<str>, u64)>>,
    pub(super) catalog: Mutex<CatalogSnapshot>,
}

impl std::fmt::Debug for PolicyOrder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            PolicyOrder::Load { .. } => "Load",
            PolicyOrder::Compare(_) => "Compare",
            PolicyOrder::Unload(_) => "Unload",
            PolicyOrder::Stop => "Stop",
        })
    }
}

/// Names of nodes, zones and regions, and the number of their changes.
#[derive(Clone, Default, Debug)]
pub(super) struct CatalogSnapshot {
    pub(super) version: u64,
    pub(super) entries: Arc<[CatalogEntry]>,
}

/// Maximum time of a plugin for a question, as the core measures it.
#[derive(Clone, Copy, Debug)]
pub(super) struct QuestionBudgets {
    /// The budget of questions that a client waits for.
    pub(super) offer: Duration,
    pub(super) advice: Duration,
}

/// Recorded questions with the time at which each was asked.
#[derive(Default, Debug)]
pub(super) struct RecentQuestions(Mutex<VecDeque<(Arc<PolicyQuestion>, u64)>>);

impl RecentQuestions {
    /// Keeps an answered question and drops the oldest one of its kind.
    pub(super) fn keep(&self, question: impl Into<Arc<PolicyQuestion>>, now_us: u64) {
        let question = some_of(question.into());
        let mut kept = lock(&self.0);
        let kind = discriminant(&*question);
        let alike = |(kept, _): &(Arc<PolicyQuestion>, u64)| discriminant(&**kept) == kind;
        if kept.iter().filter(|kept| alike(kept)).count() == KEPT_OF_EACH {
            let oldest = kept.iter().position(alike);
            oldest.and_then(|oldest| kept.remove(oldest));
        }
        kept.push_back((question, now_us));
    }

    /// The oldest question is first.
    pub(super) fn list(&self) -> Vec<(Arc<PolicyQuestion>, u64)> {
        lock(&self.0).iter().cloned().collect()
    }
}

/// The question with at most [`ROWS_OF_EACH`] of its rows.
fn some_of(question: Arc<PolicyQuestion>) -> Arc<PolicyQuestion> {
    match &*question {
        PolicyQuestion::Reroute { nodes, rooms, memo } if rooms.len() > ROWS_OF_EACH => {
            let (nodes, memo) = (nodes.clone(), memo.clone());
            Arc::new(PolicyQuestion::Reroute { nodes, rooms: rooms[..ROWS_OF_EACH].to_vec(), memo })
        }
        PolicyQuestion::Tick { sessions, memo } if sessions.len() > ROWS_OF_EACH => {
            let (sessions, memo) = (sessions[..ROWS_OF_EACH].to_vec(), memo.clone());
            Arc::new(PolicyQuestion::Tick { sessions, memo })
        }
        _ => question,
    }
}

pub(super) struct PolicyThread {
    policy: PolicyName,
    shared: Arc<ThreadQueue>,
    budgets: QuestionBudgets,
    reports: mpsc::Sender<PolicyReport>,
    loaded: BTreeMap<Arc<str>, LoadedPlugin>,
    /// The candidate of the shadow stage, until its first question as a canary.
    compared: Option<Arc<str>>,
    /// The last answer, to compare the candidate with.
    shadowed: Option<AnsweredQuestion>,
    /// An answer to compare with that of a fresh instance while the queue is empty.
    twice: Option<AnsweredQuestion>,
    log: FaultLog,
    call_recorder: Option<CallRecorder>,
}

/// A loaded plugin that answers as one revision.
pub(super) struct LoadedPlugin {
    pub(super) policy: host::BoundPlugin,
    pub(super) facts: Arc<PluginFacts>,
    /// The version of the catalog that the plugin has.
    pub(super) catalog: u64,
}

impl std::fmt::Debug for LoadedPlugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.policy.revision())
    }
}

impl LoadedPlugin {
    fn store_counters(&self) {
        let (counters, (differed, asked_twice)) =
            (&self.facts.counters, self.policy.hidden_state());
        counters.quarantined.store(self.policy.quarantined() as u64, Relaxed);
        counters.differed.store(differed, Relaxed);
        counters.asked_twice.store(asked_twice, Relaxed);
    }
}

/// The facts about a loaded plugin that control needs.
#[derive(Debug)]
pub(super) struct PluginFacts {
    pub(super) name: Arc<str>,
    /// The name and version.
    pub(super) title: Box<str>,
    /// `embedded`, the path of a file, or `pushed`.
    pub(super) origin: Box<str>,
    /// Settings and data documents as given, without defaults.
    pub(super) inputs: host::PluginInputs,
    pub(super) bytes: Bytes,
    /// The digest of the bytes.
    pub(super) digest: Digest,
    pub(super) seal: host::PluginSeal,
    pub(super) counters: ThreadCounters,
}

impl PluginFacts {
    /// The plugin's bytes, or a data document, by digest.
    pub(super) fn file(&self, digest: &str) -> Option<Bytes> {
        if *self.digest == *digest {
            return Some(self.bytes.clone());
        }
        let mut documents = self.inputs.documents.values();
        let document = documents.find(|it| *hexadecimal(it.digest()) == *digest)?;
        Some(Bytes::from_owner(Arc::clone(document.text())))
    }
}

/// Counters written by the thread and read by control.
#[derive(Default, Debug)]
pub(super) struct ThreadCounters {
    quarantined: AtomicU64,
    differed: AtomicU64,
    asked_twice: AtomicU64,
}

impl ThreadCounters {
    /// Number of quarantined sessions and rooms; then the number of answers that differed from those of a fresh
    /// instance, and of compared answers.
    pub(super) fn read(&self) -> (u64, (u64, u64)) {
        let (differed, of) = (self.differed.load(Relaxed), self.asked_twice.load(Relaxed));
        (self.quarantined.load(Relaxed), (differed, of))
    }
}

struct AnsweredQuestion {
    question: Arc<PolicyQuestion>,
    now_us: u64,
    answered: RevisionAnswer,
}

impl PolicyThread {
    pub(super) fn new(
        policy: PolicyName,
        shared: Arc<ThreadQueue>,
        budgets: QuestionBudgets,
        reports: mpsc::Sender<PolicyReport>,
        call_recorder: Option<CallRecorder>,
    ) -> PolicyThread {
        PolicyThread {
            policy,
            shared,
            budgets,
            reports,
            loaded: BTreeMap::new(),
            compared: None,
            shadowed: None,
            twice: None,
            log: FaultLog::default(),
            call_recorder,
        }
    }

    pub(super) fn spawn(
        self,
        bell: Receiver<()>,
        questions: Receiver<Ask>,
    ) -> io::Result<std::thread::JoinHandle<()>> {
        let name = format!("policy {}", self.policy);
        // Linux shows the first 15 bytes of a thread's name.
        let thread = std::thread::Builder::new().name(name).stack_size(STACK);
        thread.spawn(move || self.run(&bell, &questions))
    }

    /// Handles orders before questions, since a rollback comes when many questions wait. Ends on [`PolicyOrder::Stop`], or
    /// when both senders are gone.
    fn run(mut self, bell: &Receiver<()>, questions: &Receiver<Ask>) {
        loop {
            crossbeam_channel::select_biased! {
                recv(bell) -> rung => if rung.is_err() || self.take_orders() {
                    return;
                },
                recv(questions) -> ask => match ask {
                    Ok(ask) => {
                        self.answer(ask);
                        let shadowed = self.shadowed.take();
                        let is_idle = || questions.is_empty() && bell.is_empty();
                        if let Some(shadowed) = shadowed.filter(|_| is_idle()) {
                            self.compare(&shadowed);
                        }
                        match is_idle() {
                            true => self.check_determinism(),
                            false => self.twice = None,
                        }
                    }
                    Err(_) => return,
                },
            }
        }
    }

    /// Returns true if the thread is to stop.
    fn take_orders(&mut self) -> bool {
        let orders = std::mem::take(&mut *lock(&self.shared.orders));
        for order in orders {
            match order {
                PolicyOrder::Load { revision, loaded } => _ = self.loaded.insert(revision, *loaded),
                PolicyOrder::Compare(revision) => self.compared = Some(revision),
                PolicyOrder::Unload(revision) => {
                    self.compared.take_if(|compared| *compared == revision);
                    self.loaded.remove(&revision);
                }
                PolicyOrder::Stop => return true,
            }
        }
        self.pass_catalog();
        false
    }

    /// Passes a changed catalog to each plugin.
    fn pass_catalog(&mut self) {
        let version = lock(&self.shared.catalog).version;
        for loaded in self.loaded.values_mut().filter(|loaded| loaded.catalog != version) {
            let catalog = lock(&self.shared.catalog).clone();
            loaded.catalog = catalog.version;
            if let Err(fault) = loaded.policy.catalog(catalog.entries.to_vec()) {
                let policy = &self.policy;
                tracing::warn!(%policy, fault = fault.name(), "policy did not take the new catalog of nodes");
            }
        }
    }

    fn answer(&mut self, ask: Ask) {
        self.pass_catalog();
        let Ask { id, arm, revision, now_us, deadline, question, policy: _ } = ask;
        let named = revision.and_then(|revision| {
            let loaded = self.loaded.get_mut(&revision)?;
            Some((revision, loaded))
        });
        let Some((revision, loaded)) = named else {
            return self.send_answered(id, Err(PluginFault::Absent), None);
        };
        // A revision that answers is not in shadow any more.
        self.compared.take_if(|compared| *compared == revision);
        let now = Instant::now();
        if now >= deadline {
            // The core has used the native default by now.
            return self.send_answered(id, Err(PluginFault::Late), None);
        }
        // One fault may end a canary: the candidate is not blamed for a busy machine.
        let clock = (arm == Arm::Canary).then(ProcessorClock::start);
        let answered = loaded.policy.ask_isolating(&question, now_us, deadline - now);
        let is_starved = clock.is_some_and(|clock| clock.is_starved());
        let result = answered.and_then(|answered| self.budgets.hold(&question, answered));
        // Rows on which it faults count as one fault; rows that are already quarantined count as none.
        let isolated = result.as_ref().ok().and_then(|answered| answered.isolated.clone());
        let fault = match &result {
            Ok(_) => isolated.as_ref().and_then(|isolated| isolated.fault.clone()),
            Err(fault) => Some(fault.clone()).filter(PluginFault::is_of_question),
        };
        let fault = fault.filter(|fault| !(is_starved && *fault == PluginFault::Deadline));
        // The candidate and the recording get the question without the rows that were left out.
        let rest = result.as_ref().ok();
        let rest = rest.and_then(|answered| answered.without_the_left_out(&question));
        let (question, whole) = match rest {
            Some((rest, answered)) => (Arc::new(rest), Some(Ok(answered))),
            None => (Arc::new(question), None),
        };
        let was_asked = whole.as_ref().unwrap_or(&result);
        if let Ok(answered) = was_asked {
            let compare = self.compared.as_ref().is_some_and(|compared| *compared != revision);
            let kept = || {
                let (question, answered) = (Arc::clone(&question), answered.clone());
                AnsweredQuestion { question, now_us, answered }
            };
            self.shadowed = compare.then(kept);
            self.twice = loaded.policy.is_check_due().then(kept);
        }
        if let Some(call_recorder) = &mut self.call_recorder {
            call_recorder.write(&loaded.policy, &self.policy, (id, now_us), &question, was_asked);
        }
        loaded.store_counters();
        if let Some((fault, times)) = fault.as_ref().zip(self.log.count(&fault, now)) {
            let (policy, arm) = (&self.policy, arm.name());
            tracing::warn!(%policy, arm, fault = fault.name(), detail = ?fault, times, "policy failed");
        }
        let (answered, is_whole) = (result.is_ok(), whole.is_some());
        let beyond_repair = loaded.policy.is_beyond_repair();
        let call = PolicyCallResult { answered, fault, beyond_repair };
        self.send_answered(id, result, Some((revision, call)));
        if answered && arm == Arm::Standing {
            let mut question = question;
            let isolated = isolated.filter(|_| !is_whole);
            isolated.iter().for_each(|isolated| Arc::make_mut(&mut question).leave_out(isolated));
            self.shared.questions.keep(question, now_us);
        }
        self.write_lines();
    }

    fn send_answered(
        &self,
        ask: AskId,
        result: Result<RevisionAnswer, PluginFault>,
        call: Option<(Arc<str>, PolicyCallResult)>,
    ) {
        self.report(PolicyMessage::Answered { ask, policy: self.policy.clone(), result, call });
    }

    /// Compares the first answers of a revision, and later a few, with those of a fresh instance.
    fn check_determinism(&mut self) {
        let Some(AnsweredQuestion { question, now_us, answered }) = self.twice.take() else {
            return;
        };
        let Some(loaded) = self.loaded.get_mut(&answered.revision) else { return };
        if let Some(differs) = loaded.policy.check_determinism(&question, now_us, &answered) {
            let seen = loaded.policy.hidden_state();
            self.send_hidden_state(answered.revision, differs, seen);
            return;
        }
        loaded.store_counters();
    }

    fn send_hidden_state(&self, revision: Arc<str>, differs: Box<str>, seen: (u64, u64)) {
        if let Some(loaded) = self.loaded.get(&revision) {
            loaded.store_counters();
        }
        let count = |answers: u64| u32::try_from(answers).unwrap_or(u32::MAX);
        let answers = BreachCount { of: count(seen.1), worse: count(seen.0) };
        self.report(PolicyMessage::HiddenState {
            policy: self.policy.clone(),
            revision,
            differs,
            answers,
        });
    }

    /// Asks the candidate a question that the active revision answered. The answer has no effect, and its states are
    /// dropped. Some of these questions also go to a fresh instance.
    fn compare(&mut self, shadowed: &AnsweredQuestion) {
        let Some(revision) = self.compared.clone() else { return };
        let Some(loaded) = self.loaded.get_mut(&revision) else { return };
        let AnsweredQuestion { question, now_us, answered: first } = shadowed;
        // The question is asked in parts if the plugin's memory is too small for all rows, as for the active revision.
        let clock = ProcessorClock::start();
        let asked = loaded.policy.ask_of_all(question, *now_us, self.budgets.advice);
        let is_starved = clock.is_starved();
        let mut hides = None;
        let compared = match asked {
            Ok(None) => Compared::Skipped,
            Ok(Some(answered)) => {
                if loaded.policy.is_check_due() {
                    hides = loaded.policy.check_determinism(question, *now_us, &answered);
                }
                if is_same(&answered.answer, &first.answer) {
                    Compared::Same
                } else {
                    Compared::Different
                }
            }
            Err(PluginFault::Deadline) if is_starved => Compared::Skipped,
            Err(fault) if fault.is_of_question() => Compared::Faulted(fault),
            Err(_) => Compared::Skipped,
        };
        let (seen, beyond_repair) =
            (loaded.policy.hidden_state(), loaded.policy.is_beyond_repair());
        let (policy, name) = (self.policy.clone(), Arc::clone(&revision));
        self.report(PolicyMessage::Compared { policy, revision: name, compared, beyond_repair });
        if let Some(differs) = hides {
            self.send_hidden_state(revision, differs, seen);
        }
        self.write_lines();
    }

    /// Writes the log lines of the plugins to the gateway's log.
    fn write_lines(&mut self) {
        let plugins = self.loaded.values_mut();
        let lines = plugins.flat_map(|loaded| std::iter::from_fn(|| loaded.policy.poll_line()));
        for line in lines {
            let (policy, words) = (&self.policy, &line.words);
            match line.level {
                LogLevel::Trace => tracing::trace!(%policy, "{words}"),
                LogLevel::Debug => tracing::debug!(%policy, "{words}"),
                LogLevel::Info => tracing::info!(%policy, "{words}"),
                LogLevel::Warn => tracing::warn!(%policy, "{words}"),
                LogLevel::Error => tracing::error!(%policy, "{words}"),
            }
        }
    }

    fn report(&self, message: PolicyMessage) {
        // Control receives until it ends, and then needs no message.
        let _ = self.reports.blocking_send(PolicyReport(message));
    }
}

impl QuestionBudgets {
    /// Enforces the budget. The host stops a call slightly after its budget, and earlier calls such as `open` have
    /// budgets of their own, so an answer within all limits may still be late.
    fn hold(
        &self,
        question: &PolicyQuestion,
        answered: RevisionAnswer,
    ) -> Result<RevisionAnswer, PluginFault> {
        let budget = match question {
            PolicyQuestion::Reroute { .. } | PolicyQuestion::Tick { .. } => self.advice,
            _ => self.offer,
        };
        if answered.took > budget { Err(PluginFault::Deadline) } else { Ok(answered) }
    }
}

/// Limits the log lines about faults, since a policy may fail on each question.
#[derive(Default, Debug)]
struct FaultLog {
    last: Option<Instant>,
    unlogged: u64,
}

impl FaultLog {
    /// Counts a fault; returns the number of faults since the last line if a line is due.
    fn count(&mut self, fault: &Option<PluginFault>, now: Instant) -> Option<u64> {
        self.unlogged += u64::from(fault.is_some());
        let is_early = |last| now.saturating_duration_since(last) < FAULT_LOGGED_EVERY;
        if fault.is_none() || self.last.is_some_and(is_early) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.unlogged))
    }
}

#[cfg(test)]
mod tests;
