//! Policies at work: one thread each, which owns the plugin's store; a slow policy delays only its own advice.
//!
//! A revision is vetted, compiled, warmed and proved on a thread of its own before it may answer; one that then
//! fails is rolled back to the last good one by the thread that runs it.

mod accepted;
mod candidate;
mod catalog;
mod compiling;
mod export;
mod ledger;
mod memory;
mod record;
mod recorder;
mod revoked;
mod rollout;
mod rules;
mod standing;
mod succession;
mod thread;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_core::{
    Answered, Ask, AskId, Count, Entry, Fault, Limits, Pace, PolicyName, Revision,
};
use evenkeel_host as host;
use tokio::sync::{mpsc, oneshot};

pub(crate) use catalog::catalog;
pub(crate) use compiling::Foundry;
pub use compiling::{Compiler, compile_plugin};
pub(crate) use export::{Export, Wish};
pub(crate) use ledger::Ledger;
pub use ledger::Refusal;
pub(crate) use recorder::Recorder;
pub(crate) use rollout::{How, Source, Workshop, begin, prepare};
pub(crate) use rules::Rules;
pub(crate) use standing::Standing;

use crate::control::{Actor, ControlError, PolicyView, Rollout};
use crate::settings::Settings;
use memory::Memory;

/// Questions that may wait for one policy; past it the native default answers. A plugin that needs its whole budget
/// of 10 ms would be 640 ms behind.
const QUESTIONS_MAX: usize = 64;

/// Orders that may wait for one policy. They are read before questions, so that only those wait that came during one.
const ORDERS_MAX: usize = 8;

/// What policies' threads tell control.
#[derive(Debug)]
pub(crate) enum Word {
    /// An answer, or a fault.
    Answered(AskId, Result<Answered, Fault>),
    /// A revision took its place, or gave it up.
    Rolled(Box<Rolled>),
    /// A revision that is there was revoked since it came.
    Revoked(Box<Rollout>),
    /// A revision answered otherwise than a fresh instance of it.
    HiddenState {
        policy: PolicyName,
        revision: Arc<str>,
        /// In what.
        differs: Box<str>,
        /// How many of its answers did so far, of how many that were looked at.
        answers: Count,
    },
}

/// A revision took its place, or gave it up.
#[derive(Debug)]
pub(crate) struct Rolled {
    pub(crate) rollout: Rollout,
    /// What is there since.
    pub(crate) stand: Stand,
    /// Where a candidate begins: how it is to come into force.
    pub(crate) pace: Option<Pace>,
}

/// The revisions that a policy's thread has.
#[derive(Clone, PartialEq, Default, Debug)]
pub(crate) struct Stand {
    /// In force.
    pub(crate) standing: Option<Revision>,
    /// Tried.
    pub(crate) candidate: Option<Revision>,
    /// The last good one, to which a rollback leads.
    pub(crate) previous: Option<Revision>,
}

/// What a policy's thread is told to do, before it answers what waits: one rolls back just when many questions wait.
pub(crate) enum Order {
    /// The revision answers from now on.
    Activate(Box<Ready>),
    /// The revision is tried before it answers for all.
    Try(Box<Ready>, Pace),
    /// The one that is tried answers for all from now on, if it is still this one.
    Promote {
        revision: Arc<str>,
        by: Actor,
        reply: Option<Reply>,
    },
    /// The one that is tried is let go or, where none is, the last good one answers again.
    Rollback {
        asked: Instant,
        /// The last word on this policy when it was asked for.
        after: u64,
        back: Back,
        reply: Reply,
    },
    /// A revision did harm: it goes, whether it was tried or in force, if it is still there.
    Condemn {
        revision: Arc<str>,
        reason: Box<str>,
    },
    /// The last good revision is not wanted back any more, if it is this one.
    Forget {
        previous: Arc<str>,
    },
    /// The catalog changed.
    Learn,
    /// It was said anew whose plugins are taken.
    Judge,
    Stop,
}

/// What is to be taken back by hand.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Back {
    /// The candidate or, where none is, the revision in force.
    Last,
    /// The candidate, if it is still this one, and nothing else; whichever it is where none was seen.
    Candidate(Option<Arc<str>>),
}

/// How an order went, or why it came to nothing.
pub(crate) type Reply = oneshot::Sender<Result<Rollout, &'static str>>;

/// A revision that may answer.
pub(crate) struct Ready {
    revision: thread::Revision,
    by: Actor,
    arrived: Instant,
    /// When it was found fit.
    since: Instant,
    /// Which word on this policy it is.
    word: u64,
    /// Whether it comes in though it did harm, which is forgiven then.
    force: bool,
    /// How it went, or why it does not come in by now.
    reply: oneshot::Sender<Result<Rollout, rollout::Unfit>>,
}

/// How long a plugin may take for a question, as the core counts it.
#[derive(Clone, Copy, Debug)]
struct Budgets {
    /// Somebody waits for it.
    offer: Duration,
    advice: Duration,
}

/// All policies of this gateway.
pub(crate) struct Policies {
    foundry: Foundry,
    rules: Arc<Rules>,
    ledger: Arc<Ledger>,
    catalog: Vec<Entry>,
    budgets: Budgets,
    running: BTreeMap<PolicyName, Running>,
    words: mpsc::Sender<Word>,
    recorder: Option<Recorder>,
    /// What is known after a restart, where there is a folder for it. It outlives the threads that have it written.
    memory: Option<Memory>,
}

struct Running {
    questions: crossbeam_channel::Sender<Ask>,
    orders: crossbeam_channel::Sender<Order>,
    standing: Arc<Standing>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Policies {
    pub(crate) fn new(catalog: Vec<Entry>, limits: &Limits, words: mpsc::Sender<Word>) -> Policies {
        let budgets = Budgets { offer: limits.offer_budget, advice: limits.advice_budget };
        Policies {
            foundry: Foundry::bare(host::Engine::new()),
            rules: Arc::default(),
            ledger: Arc::default(),
            catalog,
            budgets,
            running: BTreeMap::new(),
            words,
            recorder: None,
            memory: None,
        }
    }

    /// With a recorder for those that are started from now on.
    pub(crate) fn recorded_by(mut self, recorder: Recorder) -> Policies {
        self.recorder = Some(recorder);
        self
    }

    /// Who writes down what they are asked, if somebody does.
    pub(crate) fn recorder(&self) -> Option<Recorder> {
        self.recorder.clone()
    }

    /// The same with a place to compile at, rules, and what is remembered of revisions, as they are configured. Where
    /// compiled plugins are not kept, nothing is remembered beyond the life of the process.
    pub(crate) fn configured(mut self, settings: &Settings) -> Policies {
        if self.foundry.engine().checks_accesses() {
            tracing::warn!(
                "policies take longer: the process may not reserve 774 GiB of address space (`ulimit -v`), none of which would be used"
            );
        }
        self.foundry = Foundry::of(self.foundry.engine().clone(), settings);
        self.rules = Arc::new(Rules::of(settings));
        let open = |folder: &Path| match Memory::open(folder, &settings.admin.socket) {
            Ok(memory) => Some(memory),
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "which revisions did harm, and which were good, is not kept beyond a restart");
                None
            }
        };
        self.memory = self.foundry.folder().and_then(open);
        self
    }

    /// Where plugins are compiled.
    pub(crate) fn foundry(&self) -> &Foundry {
        &self.foundry
    }

    /// Rollouts that begin from now on keep these rules, and what came in before is asked whether it is revoked.
    pub(crate) fn govern(&mut self, rules: Rules) {
        self.rules = Arc::new(rules);
        for running in self.running.values() {
            running.standing.govern(Arc::clone(&self.rules));
            // Where there is no room for the word, it judges when it is asked.
            let _ = running.orders.try_send(Order::Judge);
        }
    }

    /// What was refused.
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What a rollout needs: a place to compile at, the rules, the catalog, and the questions asked last to prove a revision with. It is the
    /// last word on this policy from now on: rollouts before it come to nothing.
    pub(crate) fn workshop(&self, policy: &PolicyName) -> Option<Workshop> {
        let running = self.running.get(policy)?;
        Some(Workshop {
            word: running.standing.next_word(),
            foundry: self.foundry.clone(),
            rules: Arc::clone(&self.rules),
            ledger: Arc::clone(&self.ledger),
            catalog: self.catalog.clone(),
            lessons: running.standing.lessons(),
            policy: policy.clone(),
            standing: Arc::clone(&running.standing),
            orders: running.orders.clone(),
        })
    }

    /// Starts a policy's thread. It has no revision yet: until one is activated it answers that it is absent.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub(crate) fn start(&mut self, policy: PolicyName) -> std::io::Result<()> {
        let (questions, asked) = crossbeam_channel::bounded(QUESTIONS_MAX);
        let (orders, ordered) = crossbeam_channel::bounded(ORDERS_MAX);
        let standing = Standing::new(policy.clone());
        let standing = Arc::new(match &mut self.memory {
            Some(memory) => {
                let (remembered, keeper) = memory.begin(&policy);
                standing.remembering(remembered, keeper)
            }
            None => standing,
        });
        standing.govern(Arc::clone(&self.rules));
        let desk = thread::Desk::new(Arc::clone(&standing), self.budgets, self.words.clone());
        let desk = desk.written_down_by(self.recorder.as_ref().map(Recorder::scribe));
        let thread = desk.spawn(ordered, asked)?;
        self.running.insert(policy, Running { questions, orders, standing, thread: Some(thread) });
        Ok(())
    }

    /// Nodes or zones are others from now on: every policy learns of it before its next question.
    pub(crate) fn teach(&mut self, catalog: Vec<Entry>) {
        self.catalog.clone_from(&catalog);
        let catalog: Arc<[Entry]> = catalog.into();
        for running in self.running.values() {
            running.standing.teach(Arc::clone(&catalog));
            // Where there is no room for the word, it learns when it is asked.
            let _ = running.orders.try_send(Order::Learn);
        }
    }

    /// Passes a question on; where the queue is full the fault comes back at once.
    pub(crate) fn ask(&self, ask: Ask) -> Result<(), (AskId, Fault)> {
        let id = ask.id;
        let Some(running) = self.running.get(&ask.policy) else {
            return Err((id, Fault::Absent));
        };
        running.questions.try_send(ask).map_err(|_| (id, Fault::Late))
    }

    /// Has the thread put the last good revision in force again; rollouts under way come to nothing, if there is one.
    ///
    /// # Errors
    /// Where there is no such policy, or it has more orders than may wait.
    pub(crate) fn roll_back(
        &self,
        policy: &PolicyName,
        back: Back,
        reply: Reply,
    ) -> Result<(), ControlError> {
        let running = self.running.get(policy).ok_or_else(|| unknown(policy))?;
        let after = running.standing.last_word();
        self.order(policy, Order::Rollback { asked: Instant::now(), after, back, reply })
    }

    /// Has the thread do something with its revisions.
    ///
    /// # Errors
    /// Where there is no such policy, or it has more orders than may wait.
    pub(crate) fn order(&self, policy: &PolicyName, order: Order) -> Result<(), ControlError> {
        let running = self.running.get(policy).ok_or_else(|| unknown(policy))?;
        running.orders.try_send(order).map_err(|_| ControlError::Unavailable)
    }

    /// Those whose last call failed.
    pub(crate) fn failing(&self) -> Vec<PolicyName> {
        let failing = self.running.iter().filter(|(_, running)| running.standing.is_failing());
        failing.map(|(policy, _)| policy.clone()).collect()
    }

    pub(crate) fn views(&self) -> Vec<PolicyView> {
        self.running.values().map(|running| running.standing.view()).collect()
    }

    /// Ends one policy's thread, as a drill does; its questions find nobody from then on. Nobody waits for what it is at.
    ///
    /// # Errors
    /// Where there is no such policy.
    pub(crate) fn stop(&mut self, policy: &PolicyName) -> Result<(), ControlError> {
        let running = self.running.remove(policy).ok_or_else(|| unknown(policy))?;
        running.standing.next_word();
        // Where there is no room for the word, it ends with the last question: there will be no more.
        let _ = running.orders.try_send(Order::Stop);
        Ok(())
    }
}

pub(crate) fn unknown(policy: &PolicyName) -> ControlError {
    ControlError::NoPolicy(policy.clone())
}

impl Drop for Policies {
    fn drop(&mut self) {
        for (_, mut running) in std::mem::take(&mut self.running) {
            let _ = running.orders.send(Order::Stop);
            running.thread.take().map(std::thread::JoinHandle::join);
        }
    }
}
