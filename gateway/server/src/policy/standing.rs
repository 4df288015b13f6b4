//! What others may read of a policy while its thread runs it.

use std::collections::VecDeque;
use std::mem::discriminant;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use evenkeel_core::{Entry, Fault, PolicyName, Question};
use evenkeel_host::{Manifest, Refused};

use super::Rules;
use super::accepted::Accepted;
use super::memory::{Harmful, Keeper, Remembered};
use crate::control::{PolicyLife, PolicyView, Quarantined, Revoked, Tried};

/// Questions of each kind kept to prove the next revision with: however many rooms are placed, what is rarely asked is
/// among them.
const KEPT_OF_EACH: usize = 8;

/// Rooms or sessions kept of one question: it may have thousands, and a revision that does wrong does so to some.
const ROWS_OF_EACH: usize = 512;

/// Revisions that did harm and are remembered; the oldest gives way.
const QUARANTINED_MAX: usize = 16;

/// Written by the policy's thread, read by control and rollouts.
#[derive(Debug)]
pub(crate) struct Standing {
    policy: PolicyName,
    calls: AtomicU64,
    faults: AtomicU64,
    /// Of the revision that stands: who is left out, how many answers differed from a fresh instance's, of how many.
    quarantined: AtomicU64,
    differed: AtomicU64,
    asked_twice: AtomicU64,
    /// How often somebody had a word on which revision is to answer.
    words: AtomicU64,
    shown: Mutex<Shown>,
    /// How often the catalog changed, and what it is since.
    lessons: AtomicU64,
    catalog: Mutex<Arc<[Entry]>>,
    /// How often it was said whose plugins are taken, and what holds since.
    rulings: AtomicU64,
    rules: Mutex<Arc<Rules>>,
    /// Who writes down what is to be known after a restart, if somebody does.
    keeper: Option<Keeper>,
}

#[derive(Default, Debug)]
struct Shown {
    plugin: Box<str>,
    origin: Box<str>,
    revision: Option<Arc<str>>,
    previous: Option<Arc<str>>,
    settings: serde_json::Value,
    /// What the last call failed of.
    failing: Option<Fault>,
    /// What a call failed of last, of whichever revision; it stays though others were answered since.
    last_fault: Option<Fault>,
    questions: VecDeque<(Arc<Question>, u64)>,
    tried: Option<Tried>,
    quarantined: VecDeque<Quarantined>,
    accepted: Accepted,
    /// Of the revisions that are there.
    revoked: Vec<Revoked>,
}

impl Standing {
    pub(crate) fn new(policy: PolicyName) -> Standing {
        Standing {
            policy,
            calls: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            quarantined: AtomicU64::new(0),
            differed: AtomicU64::new(0),
            asked_twice: AtomicU64::new(0),
            words: AtomicU64::new(0),
            shown: Mutex::default(),
            lessons: AtomicU64::new(0),
            catalog: Mutex::default(),
            rulings: AtomicU64::new(0),
            rules: Mutex::default(),
            keeper: None,
        }
    }

    /// One that knows what is remembered, and has it written down when that changes.
    pub(super) fn remembering(self, remembered: Remembered, keeper: Keeper) -> Standing {
        let Remembered { accepted, quarantined } = remembered;
        let beyond = quarantined.len().saturating_sub(QUARANTINED_MAX);
        let mut shown = self.shown();
        shown.accepted = Accepted::of(accepted);
        shown.quarantined = quarantined.into_iter().skip(beyond).map(Quarantined::from).collect();
        drop(shown);
        Standing { keeper: Some(keeper), ..self }
    }

    /// What did harm, or is good, changed.
    fn remember(&self, shown: &Shown) {
        if let Some(keeper) = &self.keeper {
            let quarantined = shown.quarantined.iter().map(Harmful::from).collect();
            keeper.note(Remembered { accepted: shown.accepted.good(), quarantined });
        }
    }

    /// Nobody panics while holding it, and what it guards is only shown.
    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The catalog is another from now on.
    pub(super) fn teach(&self, catalog: Arc<[Entry]>) {
        *self.catalog.lock().unwrap_or_else(PoisonError::into_inner) = catalog;
        self.lessons.fetch_add(1, SeqCst);
    }

    /// How often it changed.
    pub(super) fn lessons(&self) -> u64 {
        self.lessons.load(SeqCst)
    }

    /// What it is, where it changed.
    pub(super) fn catalog(&self) -> Arc<[Entry]> {
        Arc::clone(&self.catalog.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whose plugins are taken from now on.
    pub(super) fn govern(&self, rules: Arc<Rules>) {
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = rules;
        self.rulings.fetch_add(1, SeqCst);
    }

    /// How often that was said.
    pub(super) fn rulings(&self) -> u64 {
        self.rulings.load(SeqCst)
    }

    /// What was said last.
    pub(super) fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// These of its revisions are revoked by now; those that were before.
    pub(super) fn revoked(&self, revoked: Vec<Revoked>) -> Vec<Revoked> {
        std::mem::replace(&mut self.shown().revoked, revoked)
    }

    pub(crate) fn policy(&self) -> &PolicyName {
        &self.policy
    }

    /// A push, a rollback, a reload, or the end: the number of this word.
    pub(crate) fn next_word(&self) -> u64 {
        self.words.fetch_add(1, SeqCst) + 1
    }

    /// The number of the last word.
    pub(crate) fn last_word(&self) -> u64 {
        self.words.load(SeqCst)
    }

    /// What was said after this word is the last one, unless somebody had a later one meanwhile.
    pub(crate) fn spoke_after(&self, word: u64) {
        // Where that one was later, what was before it comes to nothing all the same.
        let _ = self.words.compare_exchange(word, word + 1, SeqCst, SeqCst);
    }

    /// Whether nobody has had a word since.
    pub(crate) fn is_last(&self, word: u64) -> bool {
        self.last_word() == word
    }

    pub(crate) fn called(&self) {
        self.calls.fetch_add(1, Relaxed);
    }

    pub(crate) fn faulted(&self, fault: &Fault) {
        self.faults.fetch_add(1, Relaxed);
        let mut shown = self.shown();
        shown.failing = Some(fault.clone());
        shown.last_fault = Some(fault.clone());
    }

    /// What its revision found out about itself.
    pub(super) fn figures(&self, quarantined: usize, (differed, asked_twice): (u64, u64)) {
        self.quarantined.store(quarantined as u64, Relaxed);
        self.differed.store(differed, Relaxed);
        self.asked_twice.store(asked_twice, Relaxed);
    }

    /// Keeps a question that was answered, the oldest of its kind giving way.
    pub(crate) fn keep(&self, question: impl Into<Arc<Question>>, now_us: u64) {
        let question = some_of(question.into());
        let mut shown = self.shown();
        shown.failing = None;
        let kind = discriminant(&*question);
        let alike = |(kept, _): &(Arc<Question>, u64)| discriminant(&**kept) == kind;
        if shown.questions.iter().filter(|kept| alike(kept)).count() == KEPT_OF_EACH {
            let oldest = shown.questions.iter().position(alike);
            oldest.and_then(|oldest| shown.questions.remove(oldest));
        }
        shown.questions.push_back((question, now_us));
    }

    /// What it was asked last, oldest first.
    pub(crate) fn questions(&self) -> Vec<(Arc<Question>, u64)> {
        self.shown().questions.iter().cloned().collect()
    }

    pub(crate) fn stands(
        &self,
        plugin: &str,
        origin: &str,
        revision: &str,
        previous: Option<&str>,
        settings: &serde_json::Value,
    ) {
        let mut shown = self.shown();
        shown.plugin = plugin.into();
        shown.origin = origin.into();
        shown.revision = Some(revision.into());
        shown.previous = previous.map(Into::into);
        shown.settings = settings.clone();
        shown.failing = None;
    }

    /// A candidate is tried from now on, or none.
    pub(super) fn tries(&self, tried: Option<Tried>) {
        self.shown().tried = tried;
    }

    /// What became of a call of the candidate.
    pub(super) fn note_tried(&self, note: impl FnOnce(&mut Tried)) {
        self.shown().tried.as_mut().map(note);
    }

    /// The revision did harm, and does not come in again unless somebody insists.
    pub(super) fn quarantine(&self, revision: &str, reason: &str) {
        let mut shown = self.shown();
        shown.quarantined.retain(|known| *known.revision != *revision);
        if shown.quarantined.len() == QUARANTINED_MAX {
            shown.quarantined.pop_front();
        }
        let (revision, reason, since) = (revision.into(), reason.into(), SystemTime::now());
        shown.quarantined.push_back(Quarantined { revision, since, reason });
        self.remember(&shown);
    }

    /// What the revision did, if it did harm.
    pub(super) fn quarantined(&self, revision: &str) -> Option<Quarantined> {
        self.shown().quarantined.iter().find(|known| *known.revision == *revision).cloned()
    }

    /// Whatever the revision did is forgiven: somebody insists on it.
    pub(super) fn forgive(&self, revision: &str) {
        let mut shown = self.shown();
        let before = shown.quarantined.len();
        shown.quarantined.retain(|known| *known.revision != *revision);
        if shown.quarantined.len() < before {
            self.remember(&shown);
        }
    }

    /// Whether the plugin is no older than what is known to be good of its name. The one in force always is, with
    /// whatever settings: files may name an older one than what was pushed before a restart.
    ///
    /// # Errors
    /// That it is older.
    pub(super) fn is_new_enough(&self, manifest: &Manifest) -> Result<(), Refused> {
        let shown = self.shown();
        let answers = *shown.plugin == *format!("{} {}", manifest.name, manifest.version);
        if answers { Ok(()) } else { shown.accepted.check(manifest) }
    }

    /// A revision is in force from now on, until it is taken back.
    pub(super) fn accept(&self, revision: &str, manifest: &Manifest) {
        let mut shown = self.shown();
        shown.accepted.accept(revision, manifest);
        self.remember(&shown);
    }

    /// It was taken back, by itself or by hand.
    pub(super) fn take_back(&self, revision: &str) {
        let mut shown = self.shown();
        shown.accepted.withdraw(revision);
        self.remember(&shown);
    }

    /// Those of the revision that stands, as they were given; none where it is of a plugin of another name.
    pub(crate) fn settings_for(&self, plugin: &str) -> serde_json::Value {
        let shown = self.shown();
        let same = shown.plugin.split(' ').next() == Some(plugin);
        if same { shown.settings.clone() } else { serde_json::Value::Null }
    }

    pub(crate) fn is_failing(&self) -> bool {
        self.shown().failing.is_some()
    }

    pub(crate) fn revision(&self) -> Option<Arc<str>> {
        self.shown().revision.clone()
    }

    /// The last good one, to which a rollback leads.
    pub(crate) fn previous(&self) -> Option<Arc<str>> {
        self.shown().previous.clone()
    }

    pub(crate) fn view(&self) -> PolicyView {
        let shown = self.shown();
        PolicyView {
            policy: self.policy.clone(),
            plugin: shown.plugin.clone(),
            revision: shown.revision.clone(),
            previous: shown.previous.clone(),
            origin: shown.origin.clone(),
            calls: self.calls.load(Relaxed),
            faults: self.faults.load(Relaxed),
            quarantined: self.quarantined.load(Relaxed),
            hidden_state: (self.differed.load(Relaxed), self.asked_twice.load(Relaxed)),
            failing: shown.failing.clone(),
            last_fault: shown.last_fault.clone(),
            life: PolicyLife {
                tried: shown.tried.clone(),
                quarantined: shown.quarantined.iter().cloned().collect(),
                revoked: shown.revoked.clone(),
                ..PolicyLife::default()
            },
        }
    }
}

impl From<Harmful> for Quarantined {
    fn from(harmful: Harmful) -> Quarantined {
        let Harmful { revision, since_us, reason } = harmful;
        let since = SystemTime::UNIX_EPOCH + Duration::from_micros(since_us);
        Quarantined { revision, since, reason }
    }
}

impl From<&Quarantined> for Harmful {
    fn from(quarantined: &Quarantined) -> Harmful {
        let Quarantined { revision, since, reason } = quarantined.clone();
        let since = since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Harmful { revision, since_us: since.as_micros() as u64, reason }
    }
}

/// The same question, about no more than [`ROWS_OF_EACH`].
fn some_of(question: Arc<Question>) -> Arc<Question> {
    match &*question {
        Question::Reroute { nodes, rooms, memo } if rooms.len() > ROWS_OF_EACH => {
            let (nodes, memo) = (nodes.clone(), memo.clone());
            Arc::new(Question::Reroute { nodes, rooms: rooms[..ROWS_OF_EACH].to_vec(), memo })
        }
        Question::Tick { sessions, memo } if sessions.len() > ROWS_OF_EACH => {
            let (sessions, memo) = (sessions[..ROWS_OF_EACH].to_vec(), memo.clone());
            Arc::new(Question::Tick { sessions, memo })
        }
        Question::Resolve { .. }
        | Question::Admit { .. }
        | Question::Place { .. }
        | Question::Reroute { .. }
        | Question::Tick { .. } => question,
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_core::{Hook, Measures, RoomId, Row, SessionRow};

    use super::*;

    #[test]
    fn a_plugin_of_another_name_does_not_inherit_settings() {
        let standing = Standing::new(PolicyName { set: "call".into(), hook: Hook::Routing });
        let settings = serde_json::json!({"spares": 1});
        standing.stands("route-nearest 0.1.0", "embedded", "abc", None, &settings);
        assert_eq!(standing.settings_for("route-nearest"), settings);
        assert_eq!(standing.settings_for("calm"), serde_json::Value::Null);
    }

    #[test]
    fn of_a_question_about_thousands_some_are_kept() {
        let standing = Standing::new(PolicyName { set: "call".into(), hook: Hook::Degradation });
        let row = |id| SessionRow {
            row: Row { id, measures: Measures::default() },
            room: RoomId(1),
            scenario: "call".into(),
            labels: [].into(),
            state: None,
        };
        let sessions = (0..4_096).map(row).collect();
        standing.keep(Question::Tick { sessions, memo: None }, 0);
        let kept = standing.questions();
        let Question::Tick { sessions, .. } = &*kept[0].0 else { panic!("{kept:?}") };
        assert_eq!((sessions.len(), sessions.capacity(), sessions[511].row.id), (512, 512, 511));
    }

    #[test]
    fn what_is_rarely_asked_is_kept_however_much_else_is() {
        let policy = PolicyName { set: "call".into(), hook: Hook::Routing };
        let standing = Standing::new(policy);
        let reroute = Question::Reroute { nodes: Vec::new(), rooms: Vec::new(), memo: None };
        standing.keep(reroute.clone(), 0);
        for room in 0..100 {
            let place = Question::Place {
                room: RoomId(room),
                scenario: "call".into(),
                labels: [].into(),
                nodes: Vec::new(),
            };
            standing.keep(place, room);
        }
        let kept = standing.questions();
        assert_eq!(kept.len(), 1 + KEPT_OF_EACH);
        assert_eq!((&*kept[0].0, kept[1].1, kept[8].1), (&reroute, 92, 99));
    }
}
