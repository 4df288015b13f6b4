//! The thread of one policy.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Receiver;
use evenkeel_core::{Answered, Arm, Ask, Count, Fault, HIDDEN_MAX, Question};
use evenkeel_host::{self as host, Level};
use tokio::sync::mpsc;

use super::candidate::{Candidate, Compared, Shadowed};
use super::record::{Complaints, Record};
use super::recorder::Scribe;
use super::revoked::Doomed;
use super::{Budgets, Order, Standing, Word};

/// Guests run on the native stack, and exhausting it would abort the process: twice what wasmtime gives a guest.
const STACK: usize = 2 << 20;

/// Why a revision goes that was tried to be made anew in vain.
const BEYOND_REPAIR: &str = "it could not be started again, three times in a row";

pub(super) struct Desk {
    pub(super) standing: Arc<Standing>,
    budgets: Budgets,
    words: mpsc::Sender<Word>,
    pub(super) active: Option<Revision>,
    /// The one that is tried.
    pub(super) candidate: Option<Candidate>,
    /// The last good one.
    pub(super) previous: Option<Revision>,
    /// Of the one that is active.
    pub(super) record: Record,
    /// What was answered last, for the candidate to be asked along.
    shadowed: Option<Shadowed>,
    complaints: Complaints,
    scribe: Option<Scribe>,
    /// The one in force did harm, and there is none to go back to.
    pub(super) doomed: Option<Doomed>,
    /// Words on whose plugins are taken that its revisions were judged by.
    pub(super) judged: u64,
    /// An answer for which a fresh instance is asked as well, when nobody waits.
    twice: Option<Twice>,
}

/// An answer of a revision, and what it was to.
struct Twice {
    arm: Arm,
    question: Arc<Question>,
    now_us: u64,
    first: Answered,
}

/// A revision with all that is known of it here.
pub(super) struct Revision {
    pub(super) policy: host::Policy,
    pub(super) seal: host::Seal,
    pub(super) origin: Box<str>,
    /// As they were given.
    pub(super) settings: serde_json::Value,
    /// Changes of the catalog that it knows of.
    pub(super) lessons: u64,
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
            candidate: None,
            previous: None,
            record: Record::new(Instant::now()),
            shadowed: None,
            complaints: Complaints::default(),
            doomed: None,
            judged: 0,
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
                    Ok(Order::Try(ready, pace)) => self.try_out(*ready, pace),
                    Ok(Order::Promote { revision, by, reply }) => {
                        let rollout = self.promote(&revision, by);
                        if let Some(reply) = reply {
                            let _ = reply.send(rollout);
                        }
                    }
                    Ok(Order::Rollback { asked, after, back, reply }) => {
                        let _ = reply.send(self.roll_back_as_asked(asked, after, back));
                    }
                    Ok(Order::Condemn { revision, reason }) => {
                        self.condemn(&revision, &reason, Instant::now());
                    }
                    Ok(Order::Forget { previous }) => self.forget(&previous),
                    Ok(Order::Learn) => self.learn(),
                    Ok(Order::Judge) => self.judge(),
                    Ok(Order::Stop) | Err(_) => return,
                },
                recv(questions) -> ask => match ask {
                    Ok(ask) => {
                        self.answer(ask);
                        let shadowed = self.shadowed.take();
                        // Nobody waits for what is only compared.
                        let nobody_waits = || questions.is_empty() && orders.is_empty();
                        if let Some(shadowed) = shadowed.filter(|_| nobody_waits()) {
                            self.shadow(&shadowed);
                        }
                        match nobody_waits() {
                            true => self.ask_twice(),
                            false => self.twice = None,
                        }
                    }
                    Err(_) => return,
                },
            }
        }
    }

    /// Revisions that do not know of every change of the catalog are told of it as it is.
    pub(super) fn learn(&mut self) {
        let lessons = self.standing.lessons();
        let candidate = self.candidate.iter_mut().map(|candidate| &mut candidate.revision);
        let revisions = self.active.iter_mut().chain(candidate).chain(&mut self.previous);
        for revision in revisions.filter(|revision| revision.lessons != lessons) {
            revision.lessons = lessons;
            if let Err(fault) = revision.policy.catalog(self.standing.catalog().to_vec()) {
                let policy = self.standing.policy();
                tracing::warn!(%policy, fault = fault.name(), "a policy did not learn of the nodes");
            }
        }
    }

    fn answer(&mut self, ask: Ask) {
        self.learn();
        self.judge();
        // What it was asked as a canary it answers as well where it is in force by now. What another was asked that is gone
        // is not this one's, and nobody heeds what is said of it.
        let is_asked = |candidate: &&mut Candidate| {
            ask.arm == Arm::Canary && ask.revision.as_deref() == Some(&*candidate.name())
        };
        let tried = self.candidate.as_mut().filter(is_asked);
        let arm = if tried.is_some() { Arm::Canary } else { Arm::Standing };
        let revision = match tried {
            Some(candidate) => {
                candidate.answers = true;
                self.standing.note_tried(|tried| tried.calls += 1);
                Some(&mut candidate.revision)
            }
            None => self.active.as_mut(),
        };
        let result = match revision {
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
        // What others are asked, and a recording holds, is what this one was.
        let rest = result.as_ref().ok();
        let rest = rest.and_then(|answered| answered.without_the_left_out(&ask.question));
        let (question, whole) = match rest {
            Some((rest, answered)) => (Arc::new(rest), Some(Ok(answered))),
            None => (Arc::new(ask.question), None),
        };
        let was_asked = whole.as_ref().unwrap_or(&result);
        self.set_aside(arm, &question, ask.now_us, was_asked);
        if let (Some(scribe), Some(policy)) =
            (&mut self.scribe, asked(arm, &self.active, &self.candidate))
        {
            scribe.write(policy, &ask.policy, (ask.id, ask.now_us), &question, was_asked);
        }
        let (answered, is_whole) = (result.is_ok(), whole.is_some());
        self.tell(Word::Answered(ask.id, result));
        self.note(arm, fault.as_ref(), Instant::now());
        // What was asked around some rows is answered, too.
        if answered && arm == Arm::Standing {
            let mut question = question;
            let apart = apart.filter(|_| !is_whole);
            apart.iter().for_each(|apart| Arc::make_mut(&mut question).leave_out(apart));
            self.standing.keep(question, ask.now_us);
        }
        self.show_figures();
        self.write_lines();
    }

    /// What the candidate, or a fresh instance, is asked along when nobody waits.
    fn set_aside(
        &mut self,
        arm: Arm,
        question: &Arc<Question>,
        now_us: u64,
        result: &Result<Answered, Fault>,
    ) {
        let Ok(answered) = result else { return };
        let compared = self.candidate.as_ref().is_some_and(|candidate| !candidate.answers);
        self.shadowed = compared.then(|| Shadowed {
            question: Arc::clone(question),
            now_us,
            answer: answered.answer.clone(),
        });
        let due = asked(arm, &self.active, &self.candidate).is_some_and(host::Policy::is_due_twice);
        self.twice = due.then(|| Twice {
            arm,
            question: Arc::clone(question),
            now_us,
            first: answered.clone(),
        });
    }

    /// The first answers of a revision, and then one in 1,024, are to be those of a fresh instance as well.
    fn ask_twice(&mut self) {
        let Some(Twice { arm, question, now_us, first }) = self.twice.take() else { return };
        let asked = match arm {
            Arm::Standing => self.active.as_mut().map(|active| &mut active.policy),
            Arm::Canary => self.candidate.as_mut().map(Candidate::policy),
        };
        let Some(asked) = asked.filter(|asked| *first.revision == *asked.revision()) else {
            return;
        };
        if let Some(differs) = asked.ask_twice(&question, now_us, &first) {
            let seen = asked.hidden_state();
            self.tell_hidden(first.revision, differs, seen);
        }
        self.show_figures();
    }

    fn tell_hidden(&self, revision: Arc<str>, differs: Box<str>, seen: (u64, u64)) {
        let count = |answers: u64| u32::try_from(answers).unwrap_or(u32::MAX);
        let answers = Count { of: count(seen.1), worse: count(seen.0) };
        let policy = self.standing.policy().clone();
        self.tell(Word::HiddenState { policy, revision, differs, answers });
    }

    fn show_figures(&self) {
        if let Some(active) = &self.active {
            self.standing.figures(active.policy.quarantined(), active.policy.hidden_state());
        }
    }

    /// What became of a call counts for the revision that was asked; one that fails too often goes.
    fn note(&mut self, arm: Arm, fault: Option<&Fault>, now: Instant) {
        if let Some(fault) = fault {
            match arm {
                Arm::Standing => self.standing.faulted(fault),
                Arm::Canary => self.standing.note_tried(|tried| {
                    tried.faults += 1;
                    tried.last_fault = Some(fault.clone());
                }),
            }
            if let Some(times) = self.complaints.count(now) {
                let (policy, arm) = (self.standing.policy(), arm.name());
                tracing::warn!(%policy, arm, fault = fault.name(), detail = ?fault, times, "a policy failed");
            }
        }
        let reason = || {
            let last = fault.map_or("", Fault::name);
            format!("too many faults; the last: {last}")
        };
        match (arm, &mut self.candidate) {
            (Arm::Canary, Some(candidate)) => {
                let beyond_repair = candidate.revision.policy.is_beyond_repair();
                if candidate.record.note(now, fault.is_some()) {
                    let name = candidate.name();
                    self.condemn(&name, &reason(), now);
                } else if beyond_repair {
                    let name = candidate.name();
                    self.condemn(&name, BEYOND_REPAIR, now);
                }
            }
            (Arm::Standing, _) | (Arm::Canary, None) => {
                if self.record.note(now, fault.is_some()) {
                    self.roll_back(&reason(), now);
                } else if self
                    .active
                    .as_ref()
                    .is_some_and(|active| active.policy.is_beyond_repair())
                {
                    self.roll_back(BEYOND_REPAIR, now);
                }
            }
        }
    }

    /// The candidate is asked along.
    fn shadow(&mut self, shadowed: &Shadowed) {
        let Some(candidate) = &mut self.candidate else {
            return;
        };
        let compared = candidate.compare(shadowed, self.budgets.advice);
        let now = Instant::now();
        let fault = compared.as_ref().err().filter(|fault| fault.is_of_question());
        self.standing.note_tried(|tried| match (&compared, fault) {
            (Ok(Some(compared)), _) if compared.is_same => tried.same += 1,
            (Ok(Some(_)), _) => tried.different += 1,
            (_, Some(fault)) => {
                tried.faulted += 1;
                tried.last_fault = Some(fault.clone());
            }
            (Ok(None) | Err(_), None) => {}
        });
        let name = candidate.name();
        // What was not compared says nothing of it.
        let is_compared = fault.is_some() || matches!(compared, Ok(Some(_)));
        if is_compared && candidate.record.note(now, fault.is_some()) {
            let last = fault.map_or("", Fault::name);
            self.condemn(&name, &format!("too many faults in shadow; the last: {last}"), now);
        } else if candidate.revision.policy.is_beyond_repair() {
            self.condemn(&name, BEYOND_REPAIR, now);
        } else if let Ok(Some(Compared { hides: Some(differs), .. })) = compared {
            let seen = candidate.policy().hidden_state();
            let reason = format!("hidden state, seen in shadow: {} of {} answers", seen.0, seen.1);
            self.tell_hidden(Arc::clone(&name), differs, seen);
            // The core judges who decides something.
            if seen.0 >= HIDDEN_MAX.into() {
                self.condemn(&name, &reason, now);
            }
        }
        self.write_lines();
    }

    pub(super) fn show(&self) {
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
        let active = self.active.iter_mut().map(|active| &mut active.policy);
        let policies = active.chain(self.candidate.iter_mut().map(Candidate::policy));
        let lines = policies.flat_map(|policy| std::iter::from_fn(|| policy.poll_line()));
        for line in lines {
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

    pub(super) fn tell(&self, word: Word) {
        // Control reads on until it ends; when it has, nobody needs the word.
        let _ = self.words.blocking_send(word);
    }
}

/// The revision that answered for an arm.
fn asked<'a>(
    arm: Arm,
    active: &'a Option<Revision>,
    candidate: &'a Option<Candidate>,
) -> Option<&'a host::Policy> {
    match arm {
        Arm::Canary => candidate.as_ref().map(|candidate| &candidate.revision.policy),
        Arm::Standing => active.as_ref().map(|active| &active.policy),
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
