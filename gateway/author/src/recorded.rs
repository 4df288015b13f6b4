//! Asks a plugin again what others were asked while a gateway recorded it, and says where its answers are not as they
//! should be. Whether it decides as they did is for whoever plays the recording to compare.
//!
//! The plugin carries its own states on: about a session or room that it wrote of before it gets what it wrote. What was
//! measured stays what it was when somebody else decided.

mod report;

use std::sync::Arc;

use evenkeel_core::{Answered, Fault, Question, State};
use evenkeel_host::{Component, Engine, Policy, Refused};
use evenkeel_recording::{Call, Catalog, ReplayState, Revision};
use serde_json::Value;

pub use self::report::{Place, Report};
use crate::built::{Built, patient};
use crate::exam::report::name;
use crate::measure::cost::{Exceeded, promised, rows};
use crate::verdict::{Breach, breaches};

/// Revisions of which a plugin stands in the place at a time; past it the one that began first begins anew. Each has an
/// instance of its own.
const STANDING_MAX: usize = 16;

/// A plugin in the place of those that were recorded.
pub struct Recorded {
    engine: Engine,
    component: Component,
    settings: Option<Value>,
    standing: Vec<(Arc<Revision>, Standing)>,
    replay_state: ReplayState,
    report: Report,
}

/// The plugin in the place of one revision.
struct Standing {
    policy: Policy,
    catalog: Arc<Catalog>,
    settings: Value,
}

impl Recorded {
    /// A plugin, with these settings everywhere; without them, with those recorded where it is the recorded plugin by name,
    /// and with its own where it is not.
    ///
    /// # Errors
    /// The host does not take it.
    pub fn new(built: &Built, settings: Option<Value>) -> Result<Recorded, Refused> {
        let engine = Engine::counting(patient());
        let component = Component::vet(&engine, built.bytes())?;
        let (standing, replay_state, report) =
            (Vec::new(), ReplayState::default(), Report::default());
        Ok(Recorded { engine, component, settings, standing, replay_state, report })
    }

    /// Asks what was recorded, and judges the answer; none where it is of a hook that the plugin does not answer.
    ///
    /// # Errors
    /// It does not take its settings, or does not start.
    pub fn ask(&mut self, call: &Call) -> Result<Option<Result<Answered, Fault>>, Refused> {
        let policy = &call.revision.policy;
        if !self.component.manifest().hooks.contains(&policy.hook) {
            return Ok(None);
        }
        let question = self.replay_state.applied_to(policy, &call.question);
        let place = self.place_of(call)?;
        let standing = &mut self.standing[place].1;
        let manifest = self.component.manifest();
        self.report.asked(call, manifest);
        let of = || Place::of(call);

        let before = standing.policy.instructions();
        let ungranted = standing.policy.ungranted();
        let result = standing.policy.ask(&question, call.now_us);
        let answered = match &result {
            Ok(answered) => answered,
            Err(fault) => {
                self.report.find(name(&question), of(), Breach::Fault(fault.clone()));
                return Ok(Some(result));
            }
        };
        for breach in breaches(&question, &answered.answer) {
            self.report.find(name(&question), of(), breach);
        }
        match standing.policy.ungranted() - ungranted {
            0 => {}
            actions => self.report.find(name(&question), of(), Breach::Ungranted(actions)),
        }

        let most = promised(manifest, name(&question), rows(&question));
        if most.is_some() && is_steady(&self.component, &question) {
            let took = |policy: &Policy, before: Option<u64>| {
                let of = policy.instructions().zip(before);
                // Who failed was made anew, and counts from 0.
                of.map_or(0, |(after, before)| after.saturating_sub(before))
            };
            let exceeded = |found| Exceeded::of(name(&question), rows(&question), found, most);
            let mut broken = exceeded(took(&standing.policy, before));
            if broken.is_some() {
                // Memory may have grown for the first time; what counts is what it takes from then on.
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
            self.report.find(name(&question), of(), Breach::HiddenState);
        }
        self.replay_state.update(policy, &question, &answered.answer);
        Ok(Some(result))
    }

    /// The plugin that is asked.
    pub fn component(&self) -> &Component {
        &self.component
    }

    /// What came of it so far.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Where among those that stand the plugin is in the place of this call's revision; it knows the call's catalog then.
    fn place_of(&mut self, call: &Call) -> Result<usize, Refused> {
        let known = self.standing.iter().position(|(known, _)| *known == call.revision);
        if let Some(place) = known {
            let standing = &mut self.standing[place].1;
            if !Arc::ptr_eq(&standing.catalog, &call.catalog) {
                if standing.catalog != call.catalog {
                    // Who fails at it is made anew, and knows of it then; so it is in a gateway.
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
        let standing = Standing { policy, catalog: Arc::clone(&call.catalog), settings };
        self.standing.push((Arc::clone(&call.revision), standing));
        Ok(self.standing.len() - 1)
    }
}

fn start(
    engine: &Engine,
    component: &Component,
    call: &Call,
    settings: Value,
) -> Result<Policy, Refused> {
    let (revision, entries) = (&call.revision, call.catalog.entries.clone());
    Policy::install(engine, component, revision.policy.hook, settings, entries, revision.seed)
}

/// Whether the plugin is asked nothing but the question: it knows every row, and wrote every state in the form it has now.
/// What `open` and `migrate` take is promised by nobody.
fn is_steady(component: &Component, question: &Question) -> bool {
    let manifest = component.manifest();
    let own = |state: &State| state.plugin == manifest.name;
    let as_now = |state: &State| own(state) && state.schema == manifest.state_schema;
    let known = |state: &Option<State>| state.as_ref().is_some_and(as_now);
    let of_memo =
        |memo: &Option<State>| memo.as_ref().is_none_or(|memo| !own(memo) || as_now(memo));
    match question {
        Question::Resolve { .. } | Question::Admit { .. } | Question::Place { .. } => true,
        Question::Reroute { nodes: _, rooms, memo } => {
            rooms.iter().all(|room| known(&room.state)) && of_memo(memo)
        }
        Question::Tick { sessions, memo } => {
            sessions.iter().all(|session| known(&session.state)) && of_memo(memo)
        }
    }
}
