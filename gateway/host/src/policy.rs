//! A plugin bound to one hook with its settings.

use std::sync::Arc;
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use evenkeel_model::{
    CatalogEntry, DecisionNote, Hook, HookAnswer, IsolatedRows, PluginFault, PolicyQuestion,
    RevisionAnswer,
};
use ring::digest::{Context, SHA256};

use crate::documents::{self, DataDocuments, PluginInputs};
use crate::engine::{Component, Engine};
use crate::guest::{Guest, GuestReply, InstanceParameters, SupervisedGuest};
use crate::isolation::{BatchIsolation, Bisection};
use crate::manifest::{GrantLimits, PluginGrant};
use crate::refusal::PluginRefusal;
use crate::store::{GuestLogLine, PluginLog};

/// The first answers of a revision are all checked, since hidden state shows soon.
const FIRST: u64 = 4;

/// Of the next answers one in this number is checked, since a hidden counter shows after some hundred calls.
const EARLY_ONE_IN: u64 = 64;

/// The answers of a revision that are checked more often.
const EARLY: u64 = 4_096;

/// Of later answers one in this number is checked, which finds permanent hidden state within minutes, at a
/// thousandth of the cost.
const LATER_ONE_IN: u64 = 1_024;

/// A plugin bound to one hook with its settings. Owned by one thread.
///
/// The plugin keeps no state between questions: states and memo travel in them. After a
/// fault its instance is replaced before the fault is returned, and nothing is lost.
pub struct BoundPlugin {
    guest: SupervisedGuest,
    revision: Arc<str>,
    isolation: BatchIsolation,
    determinism: DeterminismCheck,
    /// Number of catalogs sent since installation.
    pub catalog_updates: u64,
}

impl BoundPlugin {
    /// Binds a plugin: validates its settings and data documents, fills in defaults, creates an instance and calls
    /// `init` and `catalog`.
    ///
    /// Settings may be `null` if everything has a default. `seed` is the plugin's only randomness.
    pub fn install(
        engine: &Engine,
        component: &Component,
        hook: Hook,
        inputs: impl Into<PluginInputs>,
        catalog: Vec<CatalogEntry>,
        seed: u64,
    ) -> Result<BoundPlugin, PluginRefusal> {
        let all = GrantLimits::default();
        BoundPlugin::install_within(engine, component, hook, inputs, catalog, seed, &all)
    }

    /// Installs the plugin within the operator's limits.
    pub fn install_within(
        engine: &Engine,
        component: &Component,
        hook: Hook,
        inputs: impl Into<PluginInputs>,
        catalog: Vec<CatalogEntry>,
        seed: u64,
        allowed: &GrantLimits,
    ) -> Result<BoundPlugin, PluginRefusal> {
        let manifest = &component.0.manifest;
        if !manifest.hooks.contains(&hook) {
            return Err(PluginRefusal::HookUnanswered { plugin: (*manifest.name).into(), hook });
        }
        let PluginInputs { settings, documents: data } = inputs.into();
        let settings =
            manifest.settings.complete(settings).map_err(|unfit| PluginRefusal::Setting {
                path: unfit.path.into(),
                expected: unfit.expected.into(),
                found: unfit.found.into(),
            })?;
        let settings = settings.to_string();
        let documents = documents::check(manifest, &data)?;
        let grant = PluginGrant::of(manifest, allowed);
        let revision = revision(component, &settings, &data, &grant);
        let (engine, component) = (engine.clone(), component.clone());
        let parameters = InstanceParameters {
            engine,
            component,
            hook,
            settings,
            data,
            documents,
            seed,
            catalog,
            grant,
            on_processor_time: false,
        };
        Ok(BoundPlugin {
            guest: SupervisedGuest::start(parameters)?,
            revision,
            isolation: BatchIsolation::default(),
            determinism: DeterminismCheck::default(),
            catalog_updates: 0,
        })
    }

    /// Starts another instance of this revision, which has the same catalog and shares no state.
    pub fn another(&self) -> Result<BoundPlugin, PluginRefusal> {
        self.started_from(self.guest.parameters.clone())
    }

    /// Starts another instance with budgets in processor time, as have those that are started from it. A busy machine makes no
    /// question fail, and a loop ends on any machine.
    pub fn another_on_processor_time(&self) -> Result<BoundPlugin, PluginRefusal> {
        self.started_from(InstanceParameters {
            on_processor_time: true,
            ..self.guest.parameters.clone()
        })
    }

    fn started_from(&self, parameters: InstanceParameters) -> Result<BoundPlugin, PluginRefusal> {
        Ok(BoundPlugin {
            guest: SupervisedGuest::start(parameters)?,
            revision: Arc::clone(&self.revision),
            isolation: BatchIsolation::default(),
            determinism: DeterminismCheck::default(),
            catalog_updates: 0,
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
        self.guest.now_us = self.guest.now_us.max(now_us);
        let reply = self.guest.call_instance(|guest| {
            guest.ask(now_us, None, |guest| guest.answer(question, now_us))
        })?;
        Ok(self.answered(reply, None))
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
        self.ask_in_parts(question, now_us, within, PluginFault::is_of_question)
    }

    /// Asks in parts after faults for which `is_split` returns true.
    fn ask_in_parts(
        &mut self,
        question: &PolicyQuestion,
        now_us: u64,
        within: Duration,
        is_split: impl FnOnce(&PluginFault) -> bool,
    ) -> Result<RevisionAnswer, PluginFault> {
        let began = Instant::now();
        let mut failed = None;
        if self.isolation.takes_whole(question.rows()) {
            match self.ask(question, now_us) {
                Ok(answered) => {
                    self.isolation.quarantine.answers += 1;
                    return Ok(answered);
                }
                Err(fault) if !is_split(&fault) => return Err(fault),
                Err(fault) => failed = Some(fault),
            }
        }
        match (question.batch(), failed) {
            (None, Some(fault)) => Err(fault),
            (None, None) => self.ask(question, now_us),
            (Some(ids), failed) => {
                let BoundPlugin { guest, isolation, .. } = self;
                guest.now_us = guest.now_us.max(now_us);
                let time = (began, began.checked_add(within));
                let bisection =
                    Bisection::new(guest, isolation, question, ids, failed, now_us, time);
                let (reply, isolated) = bisection.run()?;
                Ok(self.answered(reply, isolated))
            }
        }
    }

    /// Asks, in smaller batches if the plugin's memory is too small for all rows. Any other fault of the whole batch ends the
    /// question; the rows of smaller batches are isolated as by [`ask_isolating`](BoundPlugin::ask_isolating).
    pub fn ask_within_memory(
        &mut self,
        question: &PolicyQuestion,
        now_us: u64,
    ) -> Result<RevisionAnswer, PluginFault> {
        let is_split = |fault: &PluginFault| *fault == PluginFault::OutOfMemory;
        self.ask_in_parts(question, now_us, Duration::MAX, is_split)
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
        let Some(isolated) = &answered.isolated else { return Ok(Some(answered)) };
        match (&isolated.poisoned[..], &isolated.unasked[..], &isolated.fault) {
            ([first, ..], _, _) => Err(first.fault.clone()),
            ([], [_, ..], Some(fault)) => Err(fault.clone()),
            ([], [_, ..], None) => Ok(None),
            ([], [], _) => Ok(Some(answered)),
        }
    }

    /// Sends a changed catalog to the plugin, in full. It is kept for later instances, even after a
    /// fault.
    pub fn catalog(&mut self, catalog: Vec<CatalogEntry>) -> Result<(), PluginFault> {
        self.catalog_updates += 1;
        self.guest.catalog(catalog)
    }

    /// True if three restarts in a row failed, so that further attempts would fail as well.
    pub fn is_beyond_repair(&self) -> bool {
        self.guest.restarts.is_hopeless()
    }

    /// Number of sessions or rooms left out because this revision fails on them.
    pub fn quarantined(&self) -> usize {
        self.isolation.quarantine.len()
    }

    /// First 12 hexadecimal digits of SHA-256 over the plugin's digest and its completed settings,
    /// over names and digests of its data documents, and over its grant if that is restricted.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The plugin that answers.
    pub fn component(&self) -> &Component {
        &self.guest.parameters.component
    }

    /// The granted columns and actions.
    pub fn grant(&self) -> &PluginGrant {
        &self.guest.parameters.grant
    }

    /// The plugin's only randomness.
    pub fn seed(&self) -> u64 {
        self.guest.parameters.seed
    }

    /// The catalog known to the plugin.
    pub fn known_catalog(&self) -> &[CatalogEntry] {
        &self.guest.parameters.catalog
    }

    /// Settings with defaults filled in.
    pub fn settings(&self) -> &str {
        &self.guest.parameters.settings
    }

    /// The data documents, as given.
    pub fn documents(&self) -> &DataDocuments {
        &self.guest.parameters.data
    }

    /// The next log line, oldest first. At most 64 lines wait, and a policy may write 10 per second.
    pub fn poll_line(&mut self) -> Option<GuestLogLine> {
        self.guest.log().lines.pop_front()
    }

    /// Number of log lines dropped since installation by the rate limit.
    pub fn suppressed_lines(&mut self) -> u64 {
        self.guest.log().suppressed_lines
    }

    /// Number of actions dropped since installation because they were not granted.
    pub fn ungranted(&self) -> u64 {
        self.guest.ungranted()
    }

    /// WebAssembly instructions since the instance was created, including `init` and `catalog`, and the cost of lookups;
    /// deterministic for equal questions. `None` on an engine that does not count.
    pub fn instructions(&self) -> Option<u64> {
        self.guest.instructions()
    }

    /// Size of the instance's linear memory; 0 while no instance runs.
    pub fn memory_bytes(&self) -> usize {
        self.guest.memory_bytes()
    }

    /// The function of the contract that was called last: `open` if a question failed there.
    pub fn calling(&self) -> &'static str {
        self.guest.calling
    }

    /// True if the last answer is due for a check: the first four of a revision, then one in 64, and after 4,096 answers
    /// one in 1,024. If there is no time, the next one is due.
    pub fn is_check_due(&self) -> bool {
        self.determinism.is_due()
    }

    /// Asks a fresh instance the same question and describes the first difference from this answer, which remains
    /// valid. A deterministic plugin has no difference.
    ///
    /// The check is skipped if starting and asking would exceed the question's budget, and so delay the next question,
    /// or if the answer came in parts.
    pub fn check_determinism(
        &mut self,
        question: &PolicyQuestion,
        now_us: u64,
        first: &RevisionAnswer,
    ) -> Option<Box<str>> {
        self.determinism.note_asked();
        let takes = self.guest.started_in + first.took;
        if takes > self.guest.budget(question) || first.isolated.is_some() {
            return None;
        }
        let Ok(differs) = self.compare_with_fresh(question, now_us, first) else {
            self.determinism.note_skipped();
            return None;
        };
        self.determinism.asked += 1;
        self.determinism.differed += u64::from(differs.is_some());
        differs
    }

    /// Number of answers that differed, and number of answers checked.
    pub fn hidden_state(&self) -> (u64, u64) {
        (self.determinism.differed, self.determinism.asked)
    }

    /// # Errors
    /// No instance started, or the machine was too slow.
    fn compare_with_fresh(
        &self,
        question: &PolicyQuestion,
        now_us: u64,
        first: &RevisionAnswer,
    ) -> Result<Option<Box<str>>, PluginFault> {
        let mut log = PluginLog::default();
        let Ok(mut fresh) = Guest::start(&self.guest.parameters, &mut log) else {
            return Err(PluginFault::Absent);
        };
        let until = Instant::now().checked_add(self.guest.budget(question));
        match fresh.ask(now_us, until, |guest| guest.answer(question, now_us)) {
            Ok(second) => {
                let second = (&second.answer, &second.notes[..]);
                Ok(difference((&first.answer, &first.notes), second).map(Into::into))
            }
            Err(fault @ (PluginFault::Deadline | PluginFault::Late | PluginFault::Absent)) => {
                Err(fault)
            }
            Err(fault) => Ok(Some(format!("a fresh instance fails: {fault}").into())),
        }
    }

    fn answered(
        &mut self,
        reply: GuestReply,
        isolated: Option<Box<IsolatedRows>>,
    ) -> RevisionAnswer {
        self.determinism.answers += 1;
        let GuestReply { answer, notes, took, ungranted } = reply;
        RevisionAnswer {
            answer,
            revision: Arc::clone(&self.revision),
            notes,
            took,
            isolated,
            reasons: Arc::clone(&self.guest.parameters.component.0.manifest.reasons),
            ungranted,
        }
    }
}

/// Counts the answers of one revision, and the checked ones among them.
#[derive(Default, Debug)]
struct DeterminismCheck {
    answers: u64,
    /// Number of the next answer to check, at the earliest.
    next: u64,
    looked: u64,
    asked: u64,
    differed: u64,
}

impl DeterminismCheck {
    fn is_due(&self) -> bool {
        self.answers > self.next
    }

    fn note_asked(&mut self) {
        self.looked += 1;
        let step = match self.answers {
            _ if self.looked < FIRST => 1,
            ..EARLY => EARLY_ONE_IN,
            _ => LATER_ONE_IN,
        };
        self.next = self.answers + step - 1;
    }

    /// The machine was too slow for a check, which does not count among the first ones.
    fn note_skipped(&mut self) {
        if self.looked <= FIRST {
            (self.looked, self.next) = (self.looked - 1, self.answers);
        }
    }
}

type AnswerWithNotes<'a> = (&'a HookAnswer, &'a [DecisionNote]);

/// The first difference of two answers with their notes.
fn difference(first: AnswerWithNotes<'_>, second: AnswerWithNotes<'_>) -> Option<&'static str> {
    match (first.0 == second.0, first.1 == second.1) {
        (false, _) => Some(different_part(first.0, second.0)),
        (true, false) => Some("its notes"),
        (true, true) => None,
    }
}

/// Describes the first difference of an answer from the first one to the same question; `None` if they are the same.
pub fn answer_difference(first: &RevisionAnswer, second: &RevisionAnswer) -> Option<&'static str> {
    difference((&first.answer, &first.notes), (&second.answer, &second.notes))
}

fn different_part(first: &HookAnswer, second: &HookAnswer) -> &'static str {
    match (first, second) {
        (HookAnswer::Actions { actions, .. }, HookAnswer::Actions { actions: other, .. })
            if actions != other =>
        {
            "its actions"
        }
        (HookAnswer::Moves { moves, .. }, HookAnswer::Moves { moves: other, .. })
            if moves != other =>
        {
            "its moves"
        }
        (HookAnswer::Actions { states, .. }, HookAnswer::Actions { states: other, .. })
        | (HookAnswer::Moves { states, .. }, HookAnswer::Moves { states: other, .. }) => {
            if states == other { "its memo" } else { "states that it wrote" }
        }
        (HookAnswer::Placed { state, .. }, HookAnswer::Placed { state: other, .. })
            if state != other =>
        {
            "the state that it wrote"
        }
        _ => "its decision",
    }
}

fn revision(
    component: &Component,
    settings: &str,
    data: &DataDocuments,
    grant: &PluginGrant,
) -> Arc<str> {
    let mut context = Context::new(&SHA256);
    context.update(&component.0.digest);
    context.update(settings.as_bytes());
    for (name, document) in data {
        // No byte of JSON text or of a name is zero.
        context.update(b"\0");
        context.update(name.as_bytes());
        context.update(b"\0");
        context.update(document.digest());
    }
    if !grant.is_whole(&component.0.manifest) {
        context.update(&grant.bytes());
    }
    let digest = context.finish();
    HEXLOWER.encode(&digest.as_ref()[..6]).into()
}

#[cfg(test)]
mod tests;
