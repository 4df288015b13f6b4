//! Asks a plugin the questions of a recording and checks its answers; comparing decisions is the
//! caller's.
//!
//! The plugin's own states replace recorded ones for sessions and rooms it wrote before. Measures
//! stay as recorded under another policy's decisions.

mod report;

use std::sync::Arc;

use evenkeel_host::{BoundPlugin, CallBudgets, Component, Engine, PluginRefusal};
use evenkeel_model::{PluginFault, PluginState, PolicyQuestion, RevisionAnswer};
use evenkeel_recording::{RecordedCall, RecordedCatalog, RecordedRevision, ReplayState};
use serde_json::Value;

pub use self::report::{RecordingPosition, ReplayReport};
use crate::built::{Built, PATIENCE};
use crate::conformance::report::name;
use crate::measure::cost::{Exceeded, promised, rows};
use crate::verdict::{Violation, violations};

/// Recorded revisions replaced at the same time, each with an instance; above it the oldest one restarts.
const STANDING_MAX: usize = 16;

/// A plugin that replaces recorded ones.
pub struct Recorded {
    engine: Engine,
    component: Component,
    settings: Option<Value>,
    standing: Vec<(Arc<RecordedRevision>, ReplayInstance)>,
    replay_state: ReplayState,
    report: ReplayReport,
}

/// The plugin's instance that replaces one recorded revision.
struct ReplayInstance {
    policy: BoundPlugin,
    catalog: Arc<RecordedCatalog>,
    settings: Value,
}

impl Recorded {
    /// Uses these settings for all questions. Without them: the recorded settings if the plugin's name equals the
    /// recorded name, or else the plugin's defaults.
    ///
    /// # Errors
    /// If the host refuses the plugin.
    pub fn new(built: &Built, settings: Option<Value>) -> Result<Recorded, PluginRefusal> {
        let engine = Engine::counting(CallBudgets::all(PATIENCE));
        let component = Component::vet(&engine, built.bytes())?;
        let (standing, replay_state, report) =
            (Vec::new(), ReplayState::default(), ReplayReport::default());
        Ok(Recorded { engine, component, settings, standing, replay_state, report })
    }

    /// Asks a recorded question and checks the answer; `None` for a hook that the plugin does not implement.
    ///
    /// # Errors
    /// If the plugin refuses its settings, or does not start.
    pub fn ask(
        &mut self,
        call: &RecordedCall,
    ) -> Result<Option<Result<RevisionAnswer, PluginFault>>, PluginRefusal> {
        let policy = &call.revision.policy;
        if !self.component.manifest().hooks.contains(&policy.hook) {
            return Ok(None);
        }
        let question = self.replay_state.applied_to(policy, &call.question);
        let place = self.place_of(call)?;
        let standing = &mut self.standing[place].1;
        let manifest = self.component.manifest();
        self.report.asked(call, manifest);
        let of = || RecordingPosition::of(call);

        let before = standing.policy.instructions();
        let ungranted = standing.policy.ungranted();
        let result = standing.policy.ask(&question, call.now_us);
        let answered = match &result {
            Ok(answered) => answered,
            Err(fault) => {
                self.report.find(name(&question), of(), Violation::Fault(fault.clone()));
                return Ok(Some(result));
            }
        };
        for violation in violations(&question, &answered.answer) {
            self.report.find(name(&question), of(), violation);
        }
        match standing.policy.ungranted() - ungranted {
            0 => {}
            actions => self.report.find(name(&question), of(), Violation::Ungranted(actions)),
        }

        let most = promised(manifest, name(&question), rows(&question));
        if most.is_some() && is_steady(&self.component, &question) {
            let took = |policy: &BoundPlugin, before: Option<u64>| {
                let of = policy.instructions().zip(before);
                // A restarted plugin counts from 0.
                of.map_or(0, |(after, before)| after.saturating_sub(before))
            };
            let exceeded = |found| Exceeded::of(name(&question), rows(&question), found, most);
            let mut broken = exceeded(took(&standing.policy, before));
            if broken.is_some() {
                // The first call may grow the memory; the second one counts.
                let before = standing.policy.instructions();
                let again = standing.policy.ask(&question, call.now_us);
                broken = exceeded(took(&standing.policy, before)).filter(|_| again.is_ok());
            }
            self.report.judged += 1;
            if let Some(broken) = broken {
                self.report.exceed(of(), broken);
            }
        }

        let settings = standing.settings.clone();
        let mut fresh = start(&self.engine, &self.component, call, settings);
        let again = fresh.as_mut().map(|fresh| fresh.ask(&question, call.now_us));
        let same = matches!(&again, Ok(Ok(again))
            if again.answer == answered.answer && again.notes == answered.notes);
        if !same {
            self.report.find(name(&question), of(), Violation::HiddenState);
        }
        self.replay_state.update(policy, &question, &answered.answer);
        Ok(Some(result))
    }

    /// The vetted plugin that was asked.
    pub fn component(&self) -> &Component {
        &self.component
    }

    /// The figures so far.
    pub fn report(&self) -> &ReplayReport {
        &self.report
    }

    /// Index of the instance for this call's revision, after sending it the call's catalog.
    fn place_of(&mut self, call: &RecordedCall) -> Result<usize, PluginRefusal> {
        let known = self.standing.iter().position(|(known, _)| *known == call.revision);
        if let Some(place) = known {
            let standing = &mut self.standing[place].1;
            if !Arc::ptr_eq(&standing.catalog, &call.catalog) {
                if standing.catalog != call.catalog {
                    // A plugin that fails here restarts with the catalog, as in a gateway.
                    let _ = standing.policy.catalog(call.catalog.entries.clone());
                }
                standing.catalog = Arc::clone(&call.catalog);
            }
            return Ok(place);
        }
        let is_it = self.component.manifest().name == call.revision.plugin;
        let recorded = || serde_json::from_str(&call.revision.settings).ok().filter(|_| is_it);
        let settings: Value = self.settings.clone().or_else(recorded).unwrap_or_default();
        let policy = start(&self.engine, &self.component, call, settings.clone())?;
        if self.standing.len() == STANDING_MAX {
            self.standing.remove(0);
        }
        let standing = ReplayInstance { policy, catalog: Arc::clone(&call.catalog), settings };
        self.standing.push((Arc::clone(&call.revision), standing));
        Ok(self.standing.len() - 1)
    }
}

fn start(
    engine: &Engine,
    component: &Component,
    call: &RecordedCall,
    settings: Value,
) -> Result<BoundPlugin, PluginRefusal> {
    let (revision, entries) = (&call.revision, call.catalog.entries.clone());
    BoundPlugin::install(engine, component, revision.policy.hook, settings, entries, revision.seed)
}

/// True if the question needs no call of `open` or `migrate`: the plugin knows every row and wrote every
/// state in its present schema. The costs of these calls are not declared.
fn is_steady(component: &Component, question: &PolicyQuestion) -> bool {
    let manifest = component.manifest();
    let own = |state: &PluginState| state.plugin == manifest.name;
    let as_now = |state: &PluginState| own(state) && state.schema == manifest.state_schema;
    let known = |state: &Option<PluginState>| state.as_ref().is_some_and(as_now);
    let of_memo =
        |memo: &Option<PluginState>| memo.as_ref().is_none_or(|memo| !own(memo) || as_now(memo));
    match question {
        PolicyQuestion::Resolve { .. }
        | PolicyQuestion::Admit { .. }
        | PolicyQuestion::Place { .. } => true,
        PolicyQuestion::Reroute { nodes: _, rooms, memo } => {
            rooms.iter().all(|room| known(&room.state)) && of_memo(memo)
        }
        PolicyQuestion::Tick { sessions, memo } => {
            sessions.iter().all(|session| known(&session.state)) && of_memo(memo)
        }
    }
}
