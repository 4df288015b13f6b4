//! Asks a plugin the questions of a recording and checks its answers; comparing decisions is the
//! caller's.
//!
//! The plugin's own states replace recorded ones for sessions and rooms it wrote before. Measures
//! stay as recorded under another policy's decisions.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use evenkeel_host::{
    BoundPlugin, Component, DataDocuments, Engine, GrantLimits, PluginInputs, PluginRefusal,
};
use evenkeel_model::{Metric, PluginFault, PluginState, PolicyQuestion, RevisionAnswer};
use evenkeel_recording::{RecordedCall, RecordedCatalog, RecordedRevision, ReplayState};
use serde::Serialize;
use serde_json::{Value, json};

use crate::built::{BuiltPlugin, recorded_budgets};
use crate::conformance::name;
use crate::inspection::thousands;
use crate::measure::{ExceededBound, rows};
use crate::verdict::{Violation, examine};

/// Maximum players, each with the memory of a plugin. The oldest is replaced.
const PLAYERS_MAX: usize = 32;

/// Plugins in the places of recorded revisions.
#[derive(Default)]
pub struct ReplayedPlugins(Vec<ReplayedPlugin>);

struct ReplayedPlugin {
    revision: Arc<RecordedRevision>,
    catalog: Arc<RecordedCatalog>,
    policy: BoundPlugin,
}

impl ReplayedPlugins {
    /// The plugin in the place of this call's revision, started if needed, with the call's catalog.
    ///
    /// # Errors
    /// Those of `start`.
    pub fn of<E>(
        &mut self,
        call: &RecordedCall,
        start: impl FnOnce() -> Result<BoundPlugin, E>,
    ) -> Result<&mut BoundPlugin, E> {
        let place = match self.0.iter().position(|player| player.revision == call.revision) {
            Some(place) => place,
            None => {
                if self.0.len() == PLAYERS_MAX {
                    self.0.remove(0);
                }
                let (revision, catalog) = (Arc::clone(&call.revision), Arc::clone(&call.catalog));
                self.0.push(ReplayedPlugin { revision, catalog, policy: start()? });
                self.0.len() - 1
            }
        };
        let player = &mut self.0[place];
        // Later calls are found by pointer.
        player.revision = Arc::clone(&call.revision);
        if player.catalog != call.catalog {
            // A plugin that fails here restarts with the catalog, as in a gateway.
            let _ = player.policy.catalog(call.catalog.entries.clone());
        }
        player.catalog = Arc::clone(&call.catalog);
        Ok(&mut player.policy)
    }
}

/// Installs a plugin in the place of the call's revision, with its hook, seed and catalog.
///
/// # Errors
/// If the host refuses the plugin or its settings.
pub fn stand_in(
    engine: &Engine,
    component: &Component,
    inputs: PluginInputs,
    call: &RecordedCall,
    allowed: &GrantLimits,
) -> Result<BoundPlugin, PluginRefusal> {
    let (revision, entries) = (&call.revision, call.catalog.entries.clone());
    let (hook, seed) = (revision.policy.hook, revision.seed);
    BoundPlugin::install_within(engine, component, hook, inputs, entries, seed, allowed)
}

/// The given settings; else the recorded settings if the plugin has the recorded name; else the plugin's defaults.
pub fn settings_for(given: Option<&Value>, component: &Component, call: &RecordedCall) -> Value {
    let is_it = component.manifest().name == call.revision.plugin;
    let recorded = || serde_json::from_str(&call.revision.settings).ok().filter(|_| is_it);
    given.cloned().or_else(recorded).unwrap_or_default()
}

/// Metrics that the plugin reads and the recording lacks.
pub fn unmeasured(player: &BoundPlugin, call: &RecordedCall) -> Vec<Metric> {
    let (reads, recorded) = (player.grant(), &call.revision.grant);
    let missing = |reads: &[Metric], recorded: &[Metric]| {
        reads.iter().copied().filter(|one| !recorded.contains(one)).collect::<Vec<_>>()
    };
    let mut all = missing(&reads.subject_metrics, &recorded.subject_metrics);
    all.extend(missing(&reads.node_metrics, &recorded.node_metrics));
    all
}

/// A plugin that replaces recorded ones.
pub struct Recorded {
    engine: Engine,
    /// The vetted plugin that is asked.
    pub component: Component,
    settings: Option<Value>,
    documents: DataDocuments,
    players: ReplayedPlugins,
    replay_state: ReplayState,
    /// The figures so far.
    pub report: ReplayReport,
}

impl Recorded {
    /// Uses these settings and the plugin's data documents for all questions. Without settings: the recorded settings if
    /// the plugin's name equals the recorded name, or else the plugin's defaults.
    ///
    /// # Errors
    /// If the host refuses the plugin.
    pub fn new(built: &BuiltPlugin, settings: Option<Value>) -> Result<Recorded, PluginRefusal> {
        let engine = Engine::counting(recorded_budgets());
        let component = Component::vet(&engine, &built.bytes)?;
        let (players, replay_state, report) = Default::default();
        let documents = built.documents.clone();
        Ok(Recorded { engine, component, settings, documents, players, replay_state, report })
    }

    /// Asks a recorded question and checks the answer; `None` for a hook that the plugin does not implement.
    ///
    /// # Errors
    /// If the plugin refuses its settings, does not start, or runs past a budget of the gateway.
    pub fn ask(
        &mut self,
        call: &RecordedCall,
    ) -> Result<Option<Result<RevisionAnswer, PluginFault>>, PluginRefusal> {
        let policy = &call.revision.policy;
        if !self.component.manifest().hooks.contains(&policy.hook) {
            return Ok(None);
        }
        let question = self.replay_state.applied_to(policy, &call.question);
        let settings = settings_for(self.settings.as_ref(), &self.component, call);
        let (engine, component) = (&self.engine, &self.component);
        let inputs = PluginInputs { settings, documents: self.documents.clone() };
        let start = || stand_in(engine, component, inputs.clone(), call, &GrantLimits::default());
        let player = self.players.of(call, start)?;
        let manifest = component.manifest();
        self.report.count(call, player);
        let of = || RecordingPosition::of(call);

        let before = player.instructions();
        let (result, broken) = examine(player, &question, call.now_us, start)?;
        for violation in broken {
            self.report.find(name(&question), of(), violation);
        }
        let Ok(answered) = &result else { return Ok(Some(result)) };

        let most = manifest.cost.get(name(&question)).map(|cost| cost.of(rows(&question)));
        if most.is_some() && is_steady(component, &question) {
            let took = |policy: &BoundPlugin, before: Option<u64>| {
                let of = policy.instructions().zip(before);
                // A restarted plugin counts from 0.
                of.map_or(0, |(after, before)| after.saturating_sub(before))
            };
            let exceeded = |found| ExceededBound::of(name(&question), rows(&question), found, most);
            let mut broken = exceeded(took(player, before));
            if broken.is_some() {
                // The first call may grow the memory; the second one counts.
                let before = player.instructions();
                let again = player.ask(&question, call.now_us);
                broken = exceeded(took(player, before)).filter(|_| again.is_ok());
            }
            self.report.judged += 1;
            if let Some(broken) = broken {
                self.report.note_excess(of(), broken);
            }
        }

        self.replay_state.update(policy, &question, &answered.answer);
        Ok(Some(result))
    }
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

/// The result of a replay. As text for people; see [`json`](ReplayReport::json) for tools.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ReplayReport {
    /// Recorded calls that were asked again.
    pub calls: u64,
    /// Names of the policies asked.
    pub policies: BTreeSet<String>,
    /// True if the manifest declares costs.
    pub(crate) promises: bool,
    /// Calls checked against declared costs: no row was new to the plugin.
    pub judged: u64,
    /// Metrics that the plugin reads and the recording does not contain.
    pub unmeasured: BTreeSet<Metric>,
    /// Violations by kind and question: their number, and the first of each.
    pub violations: BTreeMap<(&'static str, &'static str), (u64, RecordingPosition, Violation)>,
    /// Costs beyond their bound by call: their number, and the largest excess.
    pub exceeded: BTreeMap<&'static str, (u64, RecordingPosition, ExceededBound)>,
}

/// A call in a recording.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct RecordingPosition {
    pub(crate) policy: String,
    pub(crate) ask: u64,
    /// Gateway time, microseconds since its start.
    pub(crate) now_us: u64,
}

impl RecordingPosition {
    fn of(call: &RecordedCall) -> RecordingPosition {
        let policy = call.revision.policy.to_string();
        RecordingPosition { policy, ask: call.ask.0, now_us: call.now_us }
    }
}

impl fmt::Display for RecordingPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RecordingPosition { policy, ask, now_us } = self;
        write!(f, "question {ask} of {policy}, at {now_us} µs")
    }
}

impl ReplayReport {
    /// True if the plugin was asked and its answers have no violations. Answers that the gateway would
    /// reject as guarded are violations here: they count against a revision in a rollout.
    pub fn is_passed(&self) -> bool {
        self.calls > 0 && self.violations.is_empty() && self.exceeded.is_empty()
    }

    fn count(&mut self, call: &RecordedCall, player: &BoundPlugin) {
        self.calls += 1;
        self.promises = !player.component().manifest().cost.is_empty();
        self.policies.insert(call.revision.policy.to_string());
        self.unmeasured.extend(unmeasured(player, call));
    }

    fn find(&mut self, question: &'static str, place: RecordingPosition, violation: Violation) {
        let key = (violation.name(), question);
        self.violations.entry(key).or_insert((0, place, violation)).0 += 1;
    }

    fn note_excess(&mut self, place: RecordingPosition, exceeded: ExceededBound) {
        let over = |of: &ExceededBound| of.found - of.promised;
        let known =
            self.exceeded.entry(exceeded.call).or_insert((0, place.clone(), exceeded.clone()));
        known.0 += 1;
        if over(&exceeded) > over(&known.2) {
            (known.1, known.2) = (place, exceeded);
        }
    }

    /// The report of `--json`.
    pub fn json(&self) -> Value {
        let violation = |(&(name, question), (count, place, violation)): (
            &(&str, &str),
            &(u64, RecordingPosition, Violation),
        )| {
            json!({
                "breach": name, "question": question, "count": count, "first": place,
                "said": violation.to_string(),
            })
        };
        let exceeded = |(count, place, exceeded): &(u64, RecordingPosition, ExceededBound)| {
            json!({
                "call": exceeded.call, "count": count, "most": place, "rows": exceeded.rows,
                "found": exceeded.found, "promised": exceeded.promised,
            })
        };
        json!({
            "passed": self.is_passed(),
            "calls": self.calls,
            "policies": self.policies,
            "judged": if self.promises { json!(self.judged) } else { Value::Null },
            "unmeasured": self.unmeasured.iter().map(|metric| metric.key()).collect::<Vec<_>>(),
            "breaches": self.violations.iter().map(violation).collect::<Vec<_>>(),
            "exceeded": self.exceeded.values().map(exceeded).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for ReplayReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let policies: Vec<&str> = self.policies.iter().map(String::as_str).collect();
        write!(f, "{} calls of {}", thousands(self.calls), policies.join(", "))?;
        if self.promises {
            write!(f, "; {} checked against declared costs", thousands(self.judged))?;
        } else {
            write!(f, "; no declared costs")?;
        }
        if !self.unmeasured.is_empty() {
            let names: Vec<&str> = self.unmeasured.iter().map(|metric| metric.key()).collect();
            write!(f, "\n  not in the recording, so not measured: {}", names.join(", "))?;
        }
        for ((_, question), (count, place, violation)) in &self.violations {
            let word = if violation.is_guarded() { "guarded" } else { "wrong" };
            let said = violation.to_string().replace(|c: char| c.is_control(), " ");
            write!(f, "\n  {word:<8} {question}, {} times: {said}", thousands(count))?;
            write!(f, "\n           first: {place}")?;
        }
        if self.violations.values().any(|(.., violation)| violation.is_guarded()) {
            write!(f, "\n  The gateway drops guarded answers, and they count against a revision.")?;
        }
        for (count, place, exceeded) in self.exceeded.values() {
            write!(f, "\n  cost exceeded {} times: {exceeded}", thousands(count))?;
            write!(f, "\n           the dearest: {place}")?;
        }
        Ok(())
    }
}
