//! A plugin bound to one hook with its settings, ready to be asked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_core::{Answered, Entry, Fault, Hook, Question};
use ring::digest::{Context, SHA256};
use serde_json::Value;

use crate::component::Component;
use crate::log::{Diary, Line};
use crate::engine::Engine;
use crate::grant::{Allowed, Grant};
use crate::guest::{Guest, Recipe, Said};
use crate::bisection::{Halving, Portion};
use crate::quarantine::Quarantine;
use crate::refused::Refused;
use crate::restart::Restarts;
use crate::determinism::Twice;

/// A plugin bound to one hook with its settings, ready to be asked. Owned by one thread.
///
/// The plugin keeps nothing between questions that the questions do not bring: states and memo travel in them. So when
/// it faults, its instance is thrown away and made anew before the fault is returned, and nothing is lost.
pub struct Policy {
    recipe: Recipe,
    revision: Arc<str>,
    life: Life,
    restarts: Restarts,
    pub(crate) quarantine: Quarantine,
    /// Where a whole batch was too much for its memory.
    pub(crate) portion: Option<Portion>,
    /// Of a batch for which there was no time: where the next one begins.
    pub(crate) first: Option<u64>,
    pub(crate) twice: Twice,
    ungranted: u64,
    lessons: u64,
    /// The latest time that questions told of.
    now_us: u64,
}

enum Life {
    Alive(Box<Guest>),
    /// It could not be made anew; what it said is kept.
    Dead(Diary),
}

impl Policy {
    /// Binds a plugin: settings checked and completed by its schema, an instance made, `init` and `catalog` called.
    ///
    /// Settings may be `null` where everything has a default. `seed` is the only randomness the plugin gets.
    pub fn install(
        engine: &Engine,
        component: &Component,
        hook: Hook,
        settings: Value,
        catalog: Vec<Entry>,
        seed: u64,
    ) -> Result<Policy, Refused> {
        let all = Allowed::default();
        Policy::install_within(engine, component, hook, settings, catalog, seed, &all)
    }

    /// The same, granted what an operator allows of what the plugin asks for.
    pub fn install_within(
        engine: &Engine,
        component: &Component,
        hook: Hook,
        settings: Value,
        catalog: Vec<Entry>,
        seed: u64,
        allowed: &Allowed,
    ) -> Result<Policy, Refused> {
        let manifest = component.manifest();
        if !manifest.hooks.contains(&hook) {
            return Err(Refused::HookUnanswered { plugin: (*manifest.name).into(), hook });
        }
        let settings = manifest.settings.complete(settings).map_err(|unfit| Refused::Setting {
            path: unfit.path.into(),
            expected: unfit.expected.into(),
            found: unfit.found.into(),
        })?;
        let settings = settings.to_string();
        let grant = Grant::of(manifest, allowed);
        let revision = revision(component, &settings, &grant);
        let (engine, component) = (engine.clone(), component.clone());
        let recipe = Recipe { engine, component, hook, settings, seed, catalog, grant };
        let began = Instant::now();
        let guest = Guest::start(&recipe, &mut Diary::default())?;
        let started_in = began.elapsed();
        Ok(Policy {
            restarts: Restarts::new(recipe.seed),
            recipe,
            revision,
            life: Life::Alive(Box::new(guest)),
            quarantine: Quarantine::default(),
            portion: None,
            first: None,
            twice: Twice::new(started_in),
            ungranted: 0,
            lessons: 0,
            now_us: 0,
        })
    }

    /// Asks, on the budget of the question. `now_us` is gateway time, all the clock the plugin gets.
    ///
    /// Decision, states and memo come together or, with a fault, not at all. After a fault the plugin is made anew at
    /// once; where that fails it is left alone for 100 ms to 30 s, and is [`Absent`](Fault::Absent) meanwhile.
    pub fn ask(&mut self, question: &Question, now_us: u64) -> Result<Answered, Fault> {
        self.now_us = self.now_us.max(now_us);
        let said =
            self.act(|guest| guest.hear(now_us, None, |guest| guest.answer(question, now_us)));
        said.map(|said| self.answered(said))
    }

    /// Asks, and where the plugin fails over a batch, asks around the rows that it fails over: the others get their
    /// decisions in the same answer, and those rows are left out of questions to this revision from then on, 256 at most.
    ///
    /// Where nobody is to blame, but all of them together were too many for its memory, it is asked about fewer at once from
    /// then on, and about more again now and then.
    ///
    /// That takes 64 asks at most, and none begins that might end later than `within` from now; what was not found by then
    /// is sought on with the next question. A plugin that answers about nobody has failed as a whole.
    ///
    /// Each part is answered whole or not at all, with its states; the memo goes from part to part.
    pub fn ask_around(
        &mut self,
        question: &Question,
        now_us: u64,
        within: Duration,
    ) -> Result<Answered, Fault> {
        let began = Instant::now();
        let mut failed = None;
        let fits = self.portion.is_none_or(|portion| question.rows() <= portion.most);
        if fits && self.quarantine.is_idle() {
            match self.ask(question, now_us) {
                Ok(answered) => {
                    self.quarantine.note_answer();
                    return Ok(answered);
                }
                Err(fault) if !fault.is_of_question() => return Err(fault),
                Err(fault) => failed = Some(fault),
            }
        }
        match (question.batch(), failed) {
            (None, Some(fault)) => Err(fault),
            (None, None) => self.ask(question, now_us),
            (Some(ids), failed) => {
                self.now_us = self.now_us.max(now_us);
                let time = (began, began.checked_add(within));
                Halving::new(self, question, ids, failed, now_us, time).seek()
            }
        }
    }

    /// The same, of everybody or of nobody: who is left out, found now or before, is the fault of all. `None` where it failed
    /// over nobody, and there was no time for all of them.
    ///
    /// # Errors
    /// How the plugin failed over somebody.
    pub fn ask_of_all(
        &mut self,
        question: &Question,
        now_us: u64,
        within: Duration,
    ) -> Result<Option<Answered>, Fault> {
        let answered = self.ask_around(question, now_us, within)?;
        let Some(apart) = &answered.apart else { return Ok(Some(answered)) };
        match (&apart.poisoned[..], &apart.unasked[..], &apart.fault) {
            ([first, ..], _, _) => Err(first.fault.clone()),
            ([], [_, ..], Some(fault)) => Err(fault.clone()),
            ([], [_, ..], None) => Ok(None),
            ([], [], _) => Ok(Some(answered)),
        }
    }

    /// Tells the plugin of a changed catalog, all of it. It is kept, also with a fault, for instances to come.
    pub fn catalog(&mut self, catalog: Vec<Entry>) -> Result<(), Fault> {
        self.recipe.catalog = catalog;
        self.lessons += 1;
        let told = match &mut self.life {
            Life::Alive(guest) => guest.catalog(&self.recipe.catalog),
            Life::Dead(_) => {
                // Made anew, it is told of the new catalog; the old one may have been what it failed of.
                self.restarts.hurry();
                return self.act(|_| Ok(()));
            }
        };
        if told.is_err() {
            // Another attempt comes with the next question, when the pause is over.
            let _ = self.renew();
        }
        told
    }

    /// Whether it could not be made anew three times in a row: it is not to be expected that it ever will.
    pub fn is_beyond_repair(&self) -> bool {
        self.restarts.is_hopeless()
    }

    /// Sessions or rooms that this revision is not asked about, since it fails over them.
    pub fn quarantined(&self) -> usize {
        self.quarantine.len()
    }

    /// First 12 hexadecimal digits of SHA-256 over the plugin's digest and its completed settings, and over its grant where
    /// that is less than it asks for.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The plugin behind this policy.
    pub fn component(&self) -> &Component {
        &self.recipe.component
    }

    /// The hook it answers.
    pub fn hook(&self) -> Hook {
        self.recipe.hook
    }

    /// What it gets of what its plugin asks for.
    pub fn grant(&self) -> &Grant {
        &self.recipe.grant
    }

    /// The only randomness that the plugin got.
    pub fn seed(&self) -> u64 {
        self.recipe.seed
    }

    /// How often it was told of another catalog than the one that it was installed with.
    pub fn lessons(&self) -> u64 {
        self.lessons
    }

    /// The catalog that it knows.
    pub fn known_catalog(&self) -> &[Entry] {
        &self.recipe.catalog
    }

    /// Settings as the plugin got them, with defaults in place.
    pub fn settings(&self) -> &str {
        &self.recipe.settings
    }

    /// The next log line of the plugin, oldest first. At most 64 wait; a policy may write 10 a second.
    pub fn poll_line(&mut self) -> Option<Line> {
        self.diary().poll_line()
    }

    /// Log lines dropped since installation because there were too many.
    pub fn unsaid(&mut self) -> u64 {
        self.diary().unsaid()
    }

    /// Actions dropped since installation because they were not granted.
    pub fn ungranted(&self) -> u64 {
        self.ungranted
            + match &self.life {
                Life::Alive(guest) => guest.ungranted(),
                Life::Dead(_) => 0,
            }
    }

    /// WebAssembly instructions that the plugin executed since its instance was made, `init` and `catalog` among them: the
    /// same for the same questions on every machine. None on an engine that does not count.
    pub fn instructions(&self) -> Option<u64> {
        match &self.life {
            Life::Alive(guest) => guest.instructions(),
            Life::Dead(..) => None,
        }
    }

    fn diary(&mut self) -> &mut Diary {
        match &mut self.life {
            Life::Alive(guest) => guest.diary(),
            Life::Dead(diary) => diary,
        }
    }

    /// A line for people, among those of the plugin.
    pub(crate) fn say(&mut self, words: &str) {
        self.diary().log(3, words);
    }

    /// How long the plugin may take for a question like this.
    pub(crate) fn budget(&self, question: &Question) -> Duration {
        let budgets = self.recipe.engine.budgets();
        match question {
            Question::Resolve { .. } => budgets.resolve,
            Question::Admit { .. } => budgets.admit,
            Question::Place { .. } => budgets.place,
            Question::Reroute { .. } => budgets.reroute,
            Question::Tick { .. } => budgets.tick,
        }
    }

    pub(crate) fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    pub(crate) fn answered(&mut self, said: Said) -> Answered {
        self.twice.note_answer();
        let Said { answer, notes, took, ungranted } = said;
        Answered {
            answer,
            revision: Arc::clone(&self.revision),
            notes,
            took,
            apart: None,
            reasons: Arc::clone(&self.recipe.component.manifest().reasons),
            ungranted,
        }
    }

    /// What is done with the plugin; it is made anew before, where it is time for that, and after a fault.
    pub(crate) fn act<T>(
        &mut self,
        f: impl FnOnce(&mut Guest) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        if let Life::Dead(_) = self.life {
            if !self.restarts.is_due(self.now_us) {
                return Err(Fault::Absent);
            }
            self.renew()?;
        }
        let outcome = match &mut self.life {
            Life::Alive(guest) => f(guest),
            Life::Dead(_) => return Err(Fault::Absent),
        };
        if outcome.is_err() {
            // Whoever asks next learns whether that went well.
            let _ = self.renew();
        }
        outcome
    }

    /// Throws the instance away and makes it anew.
    ///
    /// # Errors
    /// What kept it from starting; it is tried again after a pause.
    fn renew(&mut self) -> Result<(), Fault> {
        self.ungranted = self.ungranted();
        let mut diary = match std::mem::replace(&mut self.life, Life::Dead(Diary::default())) {
            Life::Alive(guest) => guest.end(),
            Life::Dead(diary) => diary,
        };
        let began = Instant::now();
        let fault = match Guest::start(&self.recipe, &mut diary) {
            Ok(guest) => {
                self.twice.started_in = began.elapsed();
                self.restarts.note_started();
                self.life = Life::Alive(Box::new(guest));
                return Ok(());
            }
            Err(Refused::Faulted { fault, .. }) => fault,
            Err(refused) => Fault::Trap(refused.to_string().into()),
        };
        self.life = Life::Dead(diary);
        let pause = self.restarts.note_failed(self.now_us);
        self.say(&format!("the plugin did not start again ({fault}); again in {pause:?}"));
        Err(fault)
    }
}

fn revision(component: &Component, settings: &str, grant: &Grant) -> Arc<str> {
    let mut context = Context::new(&SHA256);
    context.update(component.digest());
    context.update(settings.as_bytes());
    if !grant.is_whole(component.manifest()) {
        context.update(&grant.bytes());
    }
    let digest = context.finish();
    digest.as_ref()[..6].iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
}
