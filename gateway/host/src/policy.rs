//! A plugin bound to one hook with its settings.

use std::sync::Arc;
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use evenkeel_model::{CatalogEntry, Hook, PluginFault, PolicyQuestion, RevisionAnswer};
use ring::digest::{Context, SHA256};
use serde_json::Value;

use crate::bisection::{Bisection, Portion};
use crate::component::Component;
use crate::determinism::DeterminismCheck;
use crate::engine::Engine;
use crate::grant::{GrantLimits, PluginGrant};
use crate::guest::{Guest, GuestReply, Recipe};
use crate::log::{GuestLogLine, PluginLog};
use crate::quarantine::RowQuarantine;
use crate::refused::PluginRefusal;

/// Failed restarts in a row after which the revision is given up. One failure may be a momentary lack of memory; three
/// with growing pauses are not.
const FAILED_MAX: u32 = 3;

/// Pause after the first failed restart.
const PAUSE_FIRST: Duration = Duration::from_millis(100);

/// Maximum pause, so that a policy recovers within this time after the cause is gone.
const PAUSE_LONGEST: Duration = Duration::from_secs(30);

/// A plugin bound to one hook with its settings. Owned by one thread.
///
/// The plugin keeps no state between questions: states and memo travel in them. After a
/// fault its instance is replaced before the fault is returned, and nothing is lost.
pub struct BoundPlugin {
    recipe: Recipe,
    revision: Arc<str>,
    life: Life,
    restarts: Restarts,
    pub(crate) quarantine: RowQuarantine,
    /// Set if a whole batch exceeded its memory.
    pub(crate) portion: Option<Portion>,
    /// The session or room at which the next batch starts, if the last one ran out of time.
    pub(crate) first: Option<u64>,
    pub(crate) determinism: DeterminismCheck,
    ungranted: u64,
    catalog_updates: u64,
    /// The time of the latest question.
    now_us: u64,
}

enum Life {
    Alive(Box<Guest>),
    /// The plugin could not be restarted; its log is kept.
    Dead(PluginLog),
}

impl BoundPlugin {
    /// Binds a plugin: validates its settings, fills in defaults, creates an instance and calls
    /// `init` and `catalog`.
    ///
    /// Settings may be `null` if everything has a default. `seed` is the plugin's only randomness.
    pub fn install(
        engine: &Engine,
        component: &Component,
        hook: Hook,
        settings: Value,
        catalog: Vec<CatalogEntry>,
        seed: u64,
    ) -> Result<BoundPlugin, PluginRefusal> {
        let all = GrantLimits::default();
        BoundPlugin::install_within(engine, component, hook, settings, catalog, seed, &all)
    }

    /// Installs the plugin within the operator's limits.
    pub fn install_within(
        engine: &Engine,
        component: &Component,
        hook: Hook,
        settings: Value,
        catalog: Vec<CatalogEntry>,
        seed: u64,
        allowed: &GrantLimits,
    ) -> Result<BoundPlugin, PluginRefusal> {
        let manifest = component.manifest();
        if !manifest.hooks.contains(&hook) {
            return Err(PluginRefusal::HookUnanswered { plugin: (*manifest.name).into(), hook });
        }
        let settings =
            manifest.settings.complete(settings).map_err(|unfit| PluginRefusal::Setting {
                path: unfit.path.into(),
                expected: unfit.expected.into(),
                found: unfit.found.into(),
            })?;
        let settings = settings.to_string();
        let grant = PluginGrant::of(manifest, allowed);
        let revision = revision(component, &settings, &grant);
        let (engine, component) = (engine.clone(), component.clone());
        let recipe = Recipe { engine, component, hook, settings, seed, catalog, grant };
        let began = Instant::now();
        let guest = Guest::start(&recipe, &mut PluginLog::default())?;
        let started_in = began.elapsed();
        Ok(BoundPlugin {
            restarts: Restarts::new(recipe.seed),
            recipe,
            revision,
            life: Life::Alive(Box::new(guest)),
            quarantine: RowQuarantine::default(),
            portion: None,
            first: None,
            determinism: DeterminismCheck::new(started_in),
            ungranted: 0,
            catalog_updates: 0,
            now_us: 0,
        })
    }

    /// Asks within the question's budget. `now_us` is gateway time, the plugin's only clock.
    ///
    /// Decision, states and memo come together or, with a fault, not at all. After a fault the
    /// plugin is restarted at once; if that fails, it is retried after 100 ms to 30 s, and is
    /// [`Absent`](PluginFault::Absent) meanwhile.
    pub fn ask(
        &mut self,
        question: &PolicyQuestion,
        now_us: u64,
    ) -> Result<RevisionAnswer, PluginFault> {
        self.now_us = self.now_us.max(now_us);
        let said =
            self.act(|guest| guest.ask(now_us, None, |guest| guest.answer(question, now_us)));
        said.map(|said| self.answered(said))
    }

    /// Asks, and if the plugin fails on a batch, isolates the rows that cause the fault: the other rows are answered,
    /// and up to 256 failing rows are left out of later questions to this revision.
    ///
    /// If no row is the cause but the batch exceeded the plugin's memory, later batches are
    /// smaller, and grow again from time to time.
    ///
    /// Makes at most 64 calls, and none that might end later than `within` from now; the search
    /// continues with the next question. A plugin that answers no row has failed as a whole.
    ///
    /// Each part is answered in full or not at all, with its states. The memo passes from one part to the next.
    pub fn ask_isolating(
        &mut self,
        question: &PolicyQuestion,
        now_us: u64,
        within: Duration,
    ) -> Result<RevisionAnswer, PluginFault> {
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
                Bisection::new(self, question, ids, failed, now_us, time).run()
            }
        }
    }

    /// Asks about all rows or none: a row quarantined now or before fails the whole question. Returns `None` if the
    /// time was too short and no row failed.
    ///
    /// # Errors
    /// The plugin's fault on some row.
    pub fn ask_of_all(
        &mut self,
        question: &PolicyQuestion,
        now_us: u64,
        within: Duration,
    ) -> Result<Option<RevisionAnswer>, PluginFault> {
        let answered = self.ask_isolating(question, now_us, within)?;
        let Some(apart) = &answered.apart else { return Ok(Some(answered)) };
        match (&apart.poisoned[..], &apart.unasked[..], &apart.fault) {
            ([first, ..], _, _) => Err(first.fault.clone()),
            ([], [_, ..], Some(fault)) => Err(fault.clone()),
            ([], [_, ..], None) => Ok(None),
            ([], [], _) => Ok(Some(answered)),
        }
    }

    /// Sends a changed catalog to the plugin, in full. It is kept for later instances, even after a
    /// fault.
    pub fn catalog(&mut self, catalog: Vec<CatalogEntry>) -> Result<(), PluginFault> {
        self.recipe.catalog = catalog;
        self.catalog_updates += 1;
        let told = match &mut self.life {
            Life::Alive(guest) => guest.catalog(&self.recipe.catalog),
            Life::Dead(_) => {
                // The restarted plugin gets the new catalog; the old one may have caused the
                // failure.
                self.restarts.hurry();
                return self.act(|_| Ok(()));
            }
        };
        if told.is_err() {
            // The next question after the pause tries again.
            let _ = self.renew();
        }
        told
    }

    /// True if three restarts in a row failed, so that further attempts would fail as well.
    pub fn is_beyond_repair(&self) -> bool {
        self.restarts.is_hopeless()
    }

    /// Number of sessions or rooms left out because this revision fails on them.
    pub fn quarantined(&self) -> usize {
        self.quarantine.len()
    }

    /// First 12 hexadecimal digits of SHA-256 over the plugin's digest and its completed settings,
    /// and over its grant if that is restricted.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The plugin that answers.
    pub fn component(&self) -> &Component {
        &self.recipe.component
    }

    /// The granted columns and actions.
    pub fn grant(&self) -> &PluginGrant {
        &self.recipe.grant
    }

    /// The plugin's only randomness.
    pub fn seed(&self) -> u64 {
        self.recipe.seed
    }

    /// Number of catalogs sent since installation.
    pub fn catalog_updates(&self) -> u64 {
        self.catalog_updates
    }

    /// The catalog known to the plugin.
    pub fn known_catalog(&self) -> &[CatalogEntry] {
        &self.recipe.catalog
    }

    /// Settings with defaults filled in.
    pub fn settings(&self) -> &str {
        &self.recipe.settings
    }

    /// The next log line, oldest first. At most 64 lines wait, and a policy may write 10 per second.
    pub fn poll_line(&mut self) -> Option<GuestLogLine> {
        self.log().poll_line()
    }

    /// Number of log lines dropped since installation by the rate limit.
    pub fn suppressed_lines(&mut self) -> u64 {
        self.log().suppressed_lines()
    }

    /// Number of actions dropped since installation because they were not granted.
    pub fn ungranted(&self) -> u64 {
        self.ungranted
            + match &self.life {
                Life::Alive(guest) => guest.ungranted(),
                Life::Dead(_) => 0,
            }
    }

    /// WebAssembly instructions since the instance was created, including `init` and `catalog`; deterministic for equal
    /// questions. `None` on an engine that does not count.
    pub fn instructions(&self) -> Option<u64> {
        match &self.life {
            Life::Alive(guest) => guest.instructions(),
            Life::Dead(..) => None,
        }
    }

    fn log(&mut self) -> &mut PluginLog {
        match &mut self.life {
            Life::Alive(guest) => guest.log(),
            Life::Dead(log) => log,
        }
    }

    /// Adds a line to the plugin's log.
    pub(crate) fn say(&mut self, words: &str) {
        self.log().log(3, words);
    }

    pub(crate) fn budget(&self, question: &PolicyQuestion) -> Duration {
        let budgets = self.recipe.engine.budgets();
        match question {
            PolicyQuestion::Resolve { .. } => budgets.resolve,
            PolicyQuestion::Admit { .. } => budgets.admit,
            PolicyQuestion::Place { .. } => budgets.place,
            PolicyQuestion::Reroute { .. } => budgets.reroute,
            PolicyQuestion::Tick { .. } => budgets.tick,
        }
    }

    pub(crate) fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    pub(crate) fn answered(&mut self, reply: GuestReply) -> RevisionAnswer {
        self.determinism.note_answer();
        let GuestReply { answer, notes, took, ungranted } = reply;
        RevisionAnswer {
            answer,
            revision: Arc::clone(&self.revision),
            notes,
            took,
            apart: None,
            reasons: Arc::clone(&self.recipe.component.manifest().reasons),
            ungranted,
        }
    }

    /// Runs `act` on the instance. The instance is restarted before if a restart is due, and after a fault.
    pub(crate) fn act<T>(
        &mut self,
        f: impl FnOnce(&mut Guest) -> Result<T, PluginFault>,
    ) -> Result<T, PluginFault> {
        if let Life::Dead(_) = self.life {
            if !self.restarts.is_due(self.now_us) {
                return Err(PluginFault::Absent);
            }
            self.renew()?;
        }
        let outcome = match &mut self.life {
            Life::Alive(guest) => f(guest),
            Life::Dead(_) => return Err(PluginFault::Absent),
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
        let mut log = match std::mem::replace(&mut self.life, Life::Dead(PluginLog::default())) {
            Life::Alive(guest) => guest.end(),
            Life::Dead(log) => log,
        };
        let began = Instant::now();
        let fault = match Guest::start(&self.recipe, &mut log) {
            Ok(guest) => {
                self.determinism.started_in = began.elapsed();
                self.restarts.note_started();
                self.life = Life::Alive(Box::new(guest));
                return Ok(());
            }
            Err(PluginRefusal::Faulted { fault, .. }) => fault,
            Err(refused) => PluginFault::Trap(refused.to_string().into()),
        };
        self.life = Life::Dead(log);
        let pause = self.restarts.note_failed(self.now_us);
        self.say(&format!("plugin restart failed ({fault}); next attempt in {pause:?}"));
        Err(fault)
    }
}

fn revision(component: &Component, settings: &str, grant: &PluginGrant) -> Arc<str> {
    let mut context = Context::new(&SHA256);
    context.update(component.digest());
    context.update(settings.as_bytes());
    if !grant.is_whole(component.manifest()) {
        context.update(&grant.bytes());
    }
    let digest = context.finish();
    HEXLOWER.encode(&digest.as_ref()[..6]).into()
}

/// Restarts of one revision. Time is gateway time in microseconds.
struct Restarts {
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

    fn note_started(&mut self) {
        self.failed = 0;
    }

    /// Ends the pause, since a change may have removed the cause.
    fn hurry(&mut self) {
        self.again_us = 0;
    }

    fn is_hopeless(&self) -> bool {
        self.failed >= FAILED_MAX
    }
}

#[cfg(test)]
mod tests;
