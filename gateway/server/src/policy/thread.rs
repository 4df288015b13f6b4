//! The thread of one policy.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use evenkeel_core::{Answered, Ask, Fault, Question};
use evenkeel_host::{self as host, Level};
use tokio::sync::mpsc;

use super::record::{Complaints, Record};
use super::recorder::Scribe;
use super::{Budgets, Order, Ready, Standing, Word};
use crate::control::{Rollout, RolloutOutcome};

/// Guests run on the native stack, and exhausting it would abort the process: twice what wasmtime gives a guest.
const STACK: usize = 2 << 20;

pub(super) struct Desk {
    standing: Arc<Standing>,
    budgets: Budgets,
    words: mpsc::Sender<Word>,
    active: Option<Revision>,
    /// The last good one.
    previous: Option<Revision>,
    record: Record,
    complaints: Complaints,
    /// Changes of the catalog that its revisions know of.
    learnt: u64,
    scribe: Option<Scribe>,
    /// An answer for which a fresh instance is asked as well, when nobody waits.
    twice: Option<(Arc<Question>, u64, Answered)>,
}

struct Revision {
    policy: host::Policy,
    origin: Box<str>,
    settings: serde_json::Value,
}

impl Desk {
    pub(super) fn new(
        standing: Arc<Standing>,
        budgets: Budgets,
        words: mpsc::Sender<Word>,
    ) -> Desk {
        Desk {
            standing,
            budgets,
            words,
            active: None,
            previous: None,
            record: Record::new(Instant::now()),
            complaints: Complaints::default(),
            learnt: 0,
            scribe: None,
            twice: None,
        }
    }

    pub(super) fn written_down_by(self, scribe: Option<Scribe>) -> Desk {
        Desk { scribe, ..self }
    }

    pub(super) fn spawn(
        self,
        orders: Receiver<Order>,
        questions: Receiver<Ask>,
    ) -> io::Result<std::thread::JoinHandle<()>> {
        let name = format!("policy {}", self.standing.policy());
        // Linux shows the first 15 bytes of a thread's name.
        let thread = std::thread::Builder::new().name(name).stack_size(STACK);
        thread.spawn(move || self.run(&orders, &questions))
    }

    /// Orders go first; it ends when it is told to, or nobody is left to ask.
    fn run(mut self, orders: &Receiver<Order>, questions: &Receiver<Ask>) {
        loop {
            crossbeam_channel::select_biased! {
                recv(orders) -> order => match order {
                    Ok(Order::Activate(ready)) => self.activate(*ready),
                    Ok(Order::Rollback { asked, after, reply }) => {
                        let _ = reply.send(self.roll_back_as_asked(asked, after));
                    }
                    Ok(Order::Learn) => self.learn(),
                    Ok(Order::Stop) | Err(_) => return,
                },
                recv(questions) -> ask => match ask {
                    Ok(ask) => self.answer(ask),
                    Err(_) => return,
                },
            }
            if questions.is_empty() && orders.is_empty() {
                self.ask_twice();
            }
        }
    }

    /// Its revisions are told of the catalog, if it changed since they were.
    fn learn(&mut self) {
        let lessons = self.standing.lessons();
        if self.learnt == lessons {
            return;
        }
        self.learnt = lessons;
        let catalog = self.standing.catalog();
        for revision in self.active.iter_mut().chain(&mut self.previous) {
            if let Err(fault) = revision.policy.catalog(catalog.to_vec()) {
                let policy = self.standing.policy();
                tracing::warn!(%policy, fault = fault.name(), "a policy did not learn of the nodes");
            }
        }
    }

    fn answer(&mut self, ask: Ask) {
        self.learn();
        let result = match &mut self.active {
            None => Err(Fault::Absent),
            // Whoever asked has taken the native default by now.
            Some(_) if Instant::now() >= ask.deadline => Err(Fault::Late),
            Some(revision) => {
                self.standing.called();
                let within = ask.deadline.saturating_duration_since(Instant::now());
                let answered = revision.policy.ask_around(&ask.question, ask.now_us, within);
                answered.and_then(|answered| self.budgets.hold(&ask.question, answered))
            }
        };
        // Rows that it fails over are a fault once; what it is not asked about any more is none.
        let apart = result.as_ref().ok().and_then(|answered| answered.apart.clone());
        let fault = match &result {
            Ok(_) => apart.as_ref().and_then(|apart| apart.fault.clone()),
            Err(fault) => Some(fault.clone()).filter(Fault::is_of_question),
        };
        let answered = result.is_ok();
        let question = Arc::new(ask.question);
        if let (Some(scribe), Some(active)) = (&mut self.scribe, &self.active) {
            scribe.write(&active.policy, &ask.policy, (ask.id, ask.now_us), &question, &result);
        }
        let due = self.active.as_ref().is_some_and(|active| active.policy.is_due_twice());
        if let Some(first) = result.as_ref().ok().filter(|_| due) {
            self.twice = Some((Arc::clone(&question), ask.now_us, first.clone()));
        }
        self.tell(Word::Answered(ask.id, result));
        if let Some(fault) = &fault {
            self.standing.faulted(fault);
        }
        if answered {
            let mut question = question;
            apart.iter().for_each(|apart| Arc::make_mut(&mut question).leave_out(apart));
            self.standing.keep(question, ask.now_us);
        }
        self.show_figures();
        self.write_lines();
        let now = Instant::now();
        if let Some(fault) = &fault {
            if let Some(times) = self.complaints.count(now) {
                let policy = self.standing.policy();
                tracing::warn!(%policy, fault = fault.name(), detail = ?fault, times, "a policy failed");
            }
        }
        if self.record.note(now, fault.is_some()) {
            let last = fault.map_or("", |fault| fault.name());
            self.roll_back(&format!("too many faults; the last: {last}"), now);
        } else if self.active.as_ref().is_some_and(|active| active.policy.is_beyond_repair()) {
            self.roll_back("it could not be started again, three times in a row", now);
        }
    }

    /// The first answers of a revision, and then one in 1,024, are to be those of a fresh instance as well.
    fn ask_twice(&mut self) {
        let (Some((question, now_us, first)), Some(active)) = (self.twice.take(), &mut self.active)
        else {
            return;
        };
        if *first.revision != *active.policy.revision() {
            return;
        }
        if let Some(differs) = active.policy.ask_twice(&question, now_us, &first) {
            let (policy, revision) = (self.standing.policy().clone(), first.revision);
            self.tell(Word::HiddenState { policy, revision, differs });
        }
        self.show_figures();
    }

    fn show_figures(&self) {
        if let Some(active) = &self.active {
            self.standing.figures(active.policy.quarantined(), active.policy.hidden_state());
        }
    }

    fn activate(&mut self, ready: Ready) {
        let Ready { policy, origin, settings, arrived, since, word, reply } = ready;
        if !self.standing.is_last(word) {
            let _ = reply.send(None);
            return;
        }
        let standing = self.active.as_ref().map(|active| Arc::from(active.policy.revision()));
        if standing.as_deref() == Some(policy.revision()) {
            let rollout =
                self.rollout(RolloutOutcome::Unchanged, standing, None, arrived, since.elapsed());
            let _ = reply.send(Some(rollout));
            return;
        }
        let now = Instant::now();
        let revision: Box<str> = policy.revision().into();
        let replaced = self.active.replace(Revision { policy, origin, settings });
        if self.record.is_good(now) || self.previous.is_none() {
            self.previous = replaced;
        }
        // What was good before, and comes again, leaves nothing to go back to.
        self.previous = self.previous.take().filter(|good| good.policy.revision() != &*revision);
        self.record = Record::new(now);
        // It was made while the catalog may have been another.
        self.learnt = 0;
        self.learn();
        self.show();
        let rollout =
            self.rollout(RolloutOutcome::Activated, standing, None, arrived, since.elapsed());
        self.tell(Word::Rolled(rollout.clone()));
        let _ = reply.send(Some(rollout));
    }

    /// What nothing came of was no word on this policy.
    fn roll_back_as_asked(&mut self, asked: Instant, after: u64) -> Result<Rollout, &'static str> {
        let back = self.roll_back("asked for", asked);
        let rollout = back.ok_or("there is no revision before this one")?;
        self.standing.spoke_after(after);
        Ok(rollout)
    }

    /// The last good revision is in force again; the one that failed is gone. `None` where there is none.
    fn roll_back(&mut self, reason: &str, arrived: Instant) -> Option<Rollout> {
        let since = Instant::now();
        let good = self.previous.take()?;
        let failed = self.active.replace(good);
        self.record = Record::new(since);
        self.show();
        let failed = failed.map(|failed| Arc::from(failed.policy.revision()));
        let reason = Some(reason.into());
        let outcome = RolloutOutcome::RolledBack;
        let rollout = self.rollout(outcome, failed, reason, arrived, since.elapsed());
        self.tell(Word::Rolled(rollout.clone()));
        Some(rollout)
    }

    fn rollout(
        &self,
        outcome: RolloutOutcome,
        previous: Option<Arc<str>>,
        reason: Option<Box<str>>,
        arrived: Instant,
        activate: Duration,
    ) -> Rollout {
        Rollout {
            policy: self.standing.policy().clone(),
            outcome,
            revision: self.active.as_ref().map(|active| Arc::from(active.policy.revision())),
            previous,
            code: None,
            reason,
            arrived,
            activate,
        }
    }

    fn show(&self) {
        if let Some(active) = &self.active {
            let manifest = active.policy.component().manifest();
            let plugin = format!("{} {}", manifest.name, manifest.version);
            let previous = self.previous.as_ref().map(|revision| revision.policy.revision());
            self.standing.stands(
                &plugin,
                &active.origin,
                active.policy.revision(),
                previous,
                &active.settings,
            );
        }
    }

    /// What the plugin wrote to its log goes to ours.
    fn write_lines(&mut self) {
        let Some(active) = &mut self.active else {
            return;
        };
        while let Some(line) = active.policy.poll_line() {
            let (policy, words) = (self.standing.policy(), &line.words);
            match line.level {
                Level::Trace => tracing::trace!(%policy, "{words}"),
                Level::Debug => tracing::debug!(%policy, "{words}"),
                Level::Info => tracing::info!(%policy, "{words}"),
                Level::Warn => tracing::warn!(%policy, "{words}"),
                Level::Error => tracing::error!(%policy, "{words}"),
            }
        }
    }

    fn tell(&self, word: Word) {
        // Control reads on until it ends; when it has, nobody needs the word.
        let _ = self.words.blocking_send(word);
    }
}

impl Budgets {
    /// The host stops a call a little after its budget, and calls before it, such as `open`, have their own: what took
    /// longer in all came too late for whoever asked, however short the queue was.
    fn hold(&self, question: &Question, answered: Answered) -> Result<Answered, Fault> {
        let budget = match question {
            Question::Resolve { .. } | Question::Admit { .. } | Question::Place { .. } => {
                self.offer
            }
            Question::Reroute { .. } | Question::Tick { .. } => self.advice,
        };
        if answered.took > budget { Err(Fault::Deadline) } else { Ok(answered) }
    }
}

#[cfg(test)]
mod tests;
