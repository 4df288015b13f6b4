//! `evenkeel policy diff`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::Args;
use data_encoding::HEXLOWER;
use evenkeel_author::decision::{ComparisonSide, decisions, parts_that_differ, subjects};
use evenkeel_author::patient_engine;
use evenkeel_author::recorded::{ReplayedPlugins, settings_for, stand_in, unmeasured};
use evenkeel_host::{Component, Engine, PluginInputs};
#[cfg(test)]
use evenkeel_model::PluginState;
#[cfg(test)]
use evenkeel_model::PolicyName;
use evenkeel_model::{Metric, PluginFault, RevisionAnswer};
use evenkeel_recording::{RecordedCall, RecordingEntry, ReplayState};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::player::{DocumentFiles, allowed, ask, load_plugin};
use super::record::{calls, lost_json, open};
use crate::command::{CommandError, read_file, say, settings_of};

/// Compare the decisions of two plugins on recorded calls
///
/// Each plugin gets the states that it wrote itself, or the recorded ones before its first. Measurements stay as recorded
/// (open-loop); `evenkeel-simulate --policy` simulates the effect of decisions.
///
/// Recordings identify rooms and sessions by number (`r4`, `s4k7mq2-17`). `evenkeel room list` and `session list` at the gateway
/// show their names.
///
/// With --json: `plugins`, both sides by name, version, digest and settings; `calls` of both, `alike`, `different`
/// (decisions or their notes), `kept_otherwise` (same decision, other state or memo), `subjects` (sessions and rooms with
/// different decisions), `by_kind`, `differences` (the first of them: subject, time, both decisions with reason and notes;
/// null: no change), `unmeasured` (metrics that a plugin reads and the recording lacks), `faulted` by side, `missed`, `lost`.
#[derive(Args)]
pub(crate) struct DiffArgs {
    /// A recording of `evenkeel policy record`
    recording: PathBuf,
    /// One plugin: a file, or the name of an embedded one
    a: String,
    /// The other; it may be the same, with other settings
    b: String,
    /// Settings of the first, JSON or TOML; default: the recorded ones if it is the recorded plugin, else its own
    #[arg(long, value_name = "FILE.json|toml")]
    settings_a: Option<PathBuf>,
    /// Settings of the other
    #[arg(long, value_name = "FILE.json|toml")]
    settings_b: Option<PathBuf>,
    /// A data document of the recording, JSON or TOML, found by its digest; may be repeated
    #[arg(long, value_name = "FILE")]
    data: Vec<PathBuf>,
    /// Only this policy's calls: `<set>/<hook>`
    #[arg(long, value_name = "POLICY")]
    policy: Option<String>,
    /// Differences that are shown; all are counted
    #[arg(long, default_value_t = 100)]
    most: usize,
}

/// A plugin that replaces the recorded ones, with the states that it wrote.
pub(super) struct ReplacementPlugin<'a> {
    engine: &'a Engine,
    component: Component,
    settings: Option<Value>,
    documents: DocumentFiles,
    players: ReplayedPlugins,
    replay_state: ReplayState,
    unmeasured: BTreeSet<Metric>,
    faulted: u64,
}

impl<'a> ReplacementPlugin<'a> {
    pub(super) fn new(
        engine: &'a Engine,
        component: Component,
        settings: Option<Value>,
    ) -> ReplacementPlugin<'a> {
        ReplacementPlugin {
            engine,
            component,
            settings,
            documents: DocumentFiles::default(),
            players: ReplayedPlugins::default(),
            replay_state: ReplayState::default(),
            unmeasured: BTreeSet::new(),
            faulted: 0,
        }
    }

    /// Repeats a call with the states that this plugin wrote.
    fn ask(
        &mut self,
        call: &RecordedCall,
    ) -> Result<Result<RevisionAnswer, PluginFault>, CommandError> {
        let (component, policy) = (&self.component, &call.revision.policy);
        let question = self.replay_state.applied_to(policy, &call.question);
        let started = self.players.of(call, || {
            let settings = settings_for(self.settings.as_ref(), component, call);
            let documents = self.documents.of(component, &call.revision)?;
            let (inputs, name) = (PluginInputs { settings, documents }, &component.manifest().name);
            let allowed = allowed(component, &call.revision);
            let player = stand_in(self.engine, component, inputs, call, &allowed);
            let player = player.map_err(|refused| {
                CommandError::Wrong(format!("{name} for {policy}: {refused}"))
            })?;
            self.unmeasured.extend(unmeasured(&player, call));
            Ok::<_, CommandError>(player)
        });
        let result = ask(started?, &question, call)?;
        match &result {
            Ok(answered) => self.replay_state.update(policy, &question, &answered.answer),
            Err(_) => self.faulted += 1,
        }
        Ok(result)
    }

    /// The last state of a session or room that this plugin wrote.
    #[cfg(test)]
    pub(super) fn state_of(&self, policy: &PolicyName, id: u64) -> Option<&PluginState> {
        self.replay_state.state_of(policy, id)
    }
}

/// The decisions of both plugins about a session, a room or a scenario.
#[derive(Debug, Serialize)]
pub(super) struct SubjectDifference {
    pub(super) about: String,
    policy: String,
    ask: u64,
    now_us: u64,
    pub(super) kind: &'static str,
    pub(super) a: Value,
    pub(super) b: Value,
}

/// Two values, of each plugin one.
#[derive(Serialize)]
struct OfBoth<T> {
    a: T,
    b: T,
}

/// The output of `evenkeel policy diff --json`.
#[derive(Serialize)]
struct DiffOutput<'a> {
    #[serde(flatten)]
    outcome: &'a DiffOutcome,
    unmeasured: OfBoth<Vec<&'static str>>,
    faulted: OfBoth<u64>,
    plugins: OfBoth<Value>,
    lost: Value,
}

#[derive(Default, Debug, Serialize)]
pub(super) struct DiffOutcome {
    pub(super) calls: u64,
    pub(super) alike: u64,
    pub(super) different: u64,
    pub(super) kept_otherwise: u64,
    #[serde(serialize_with = "count")]
    pub(super) subjects: BTreeSet<String>,
    pub(super) by_kind: BTreeMap<&'static str, u64>,
    pub(super) differences: Vec<SubjectDifference>,
    pub(super) missed: u64,
}

impl DiffArgs {
    pub(crate) fn run(&self, json: bool) -> Result<(), CommandError> {
        let bytes = read_file(&self.recording)?;
        let mut reader = open(&self.recording, &bytes)?;
        let engine = patient_engine();
        let documents = DocumentFiles::read(&self.data)?;
        let replacement = |named: &str, settings: &Option<PathBuf>| {
            let settings = settings.as_deref().map(settings_of).transpose()?;
            let mut replacement =
                ReplacementPlugin::new(&engine, load_plugin(&engine, named)?, settings);
            replacement.documents = documents.clone();
            Ok::<_, CommandError>(replacement)
        };
        let mut a = replacement(&self.a, &self.settings_a)?;
        let mut b = replacement(&self.b, &self.settings_b)?;
        let policy = self.policy.as_deref();
        let outcome = diff(&mut reader, &mut a, &mut b, policy, self.most)?;
        if outcome.calls == 0 {
            return Err(CommandError::Wrong(nothing_to_ask(&a.component, &b.component, policy)));
        }
        if json {
            let unmeasured = |one: &ReplacementPlugin<'_>| {
                one.unmeasured.iter().map(|metric| metric.key()).collect()
            };
            let plugins = OfBoth {
                a: side_json(&self.a, &a, self.settings_a.as_deref()),
                b: side_json(&self.b, &b, self.settings_b.as_deref()),
            };
            say(&json!(DiffOutput {
                outcome: &outcome,
                unmeasured: OfBoth { a: unmeasured(&a), b: unmeasured(&b) },
                faulted: OfBoth { a: a.faulted, b: b.faulted },
                plugins,
                lost: lost_json(reader.lost()),
            }));
        } else {
            say(&side_said("a", &self.a, &a, self.settings_a.as_deref()));
            say(&side_said("b", &self.b, &b, self.settings_b.as_deref()));
            outcome_said(&outcome);
            reader.lost().into_iter().for_each(say);
        }
        Ok(())
    }
}

/// Compares the calls of hooks that both answer.
///
/// # Errors
/// A plugin refuses its settings.
pub(super) fn diff(
    records: impl Iterator<Item = RecordingEntry>,
    a: &mut ReplacementPlugin<'_>,
    b: &mut ReplacementPlugin<'_>,
    policy: Option<&str>,
    most: usize,
) -> Result<DiffOutcome, CommandError> {
    let (mut outcome, mut missed) = (DiffOutcome::default(), 0);
    for call in calls(records, &mut missed) {
        let hook = call.revision.policy.hook;
        let both = [&*a, &*b].iter().all(|one| one.component.manifest().hooks.contains(&hook));
        if !both || policy.is_some_and(|policy| call.revision.policy.to_string() != policy) {
            continue;
        }
        let (of_a, of_b) = (a.ask(&call)?, b.ask(&call)?);
        let side = |one: &ReplacementPlugin<'_>| one.component.clone();
        let (component_a, component_b) = (side(a), side(b));
        let catalog = &call.catalog.entries;
        let a = ComparisonSide { component: Some(&component_a), catalog, result: &of_a };
        let b = ComparisonSide { component: Some(&component_b), catalog, result: &of_b };
        outcome.compare(&call, &a, &b, most);
    }
    Ok(DiffOutcome { missed, ..outcome })
}

impl DiffOutcome {
    fn compare(
        &mut self,
        call: &RecordedCall,
        a: &ComparisonSide<'_>,
        b: &ComparisonSide<'_>,
        most: usize,
    ) {
        self.calls += 1;
        let parts = parts_that_differ(a.result, b.result);
        if parts.is_empty() {
            self.alike += 1;
            return;
        }
        if !parts.iter().any(|part| matches!(*part, "decision" | "fault" | "notes")) {
            self.kept_otherwise += 1;
            return;
        }
        self.different += 1;
        let (of_a, of_b) =
            (decisions(&call.question, a.result), decisions(&call.question, b.result));
        let mut about = subjects(&of_a, &of_b);
        about.retain(|subject| of_a.get(subject) != of_b.get(subject));
        if about.is_empty() {
            // The decision is the same, only the notes differ.
            *self.by_kind.entry("notes").or_default() += 1;
        }
        for subject in about {
            let (one, other) = (of_a.get(subject), of_b.get(subject));
            let kind = one.or(other).map_or("none", |(_, decision)| decision.kind());
            *self.by_kind.entry(kind).or_default() += 1;
            self.subjects.insert(subject.to_string());
            if self.differences.len() < most {
                self.differences.push(SubjectDifference {
                    about: subject.to_string(),
                    policy: call.revision.policy.to_string(),
                    ask: call.ask.0,
                    now_us: call.now_us,
                    kind,
                    a: a.shown(one),
                    b: b.shown(other),
                });
            }
        }
    }
}

fn nothing_to_ask(a: &Component, b: &Component, policy: Option<&str>) -> String {
    let hooks = |one: &Component| {
        let names = one.manifest().hooks.iter().map(|hook| hook.name());
        format!("{} answers {}", one.manifest().name, names.collect::<Vec<_>>().join(", "))
    };
    let of = policy.map(|policy| format!(" of {policy}")).unwrap_or_default();
    format!("the recording has no call{of} for a hook of both: {}; {}", hooks(a), hooks(b))
}

fn count<S: Serializer>(subjects: &BTreeSet<String>, to: S) -> Result<S::Ok, S::Error> {
    subjects.len().serialize(to)
}

/// One side: the file or name that the command line has, and the plugin that it is.
pub(super) fn side_json(
    named: &str,
    side: &ReplacementPlugin<'_>,
    settings: Option<&Path>,
) -> Value {
    let manifest = side.component.manifest();
    json!({
        "named": named,
        "plugin": manifest.name,
        "version": manifest.version,
        "digest": HEXLOWER.encode(side.component.digest()),
        "settings": settings,
    })
}

pub(super) fn side_said(
    letter: &str,
    named: &str,
    side: &ReplacementPlugin<'_>,
    settings: Option<&Path>,
) -> String {
    let (manifest, digest) = (side.component.manifest(), side.component.digest());
    let settings = settings.map(|file| format!(", settings of {}", file.display()));
    format!(
        "{letter}: {named}, {} {}, SHA-256 {}…{}",
        manifest.name,
        manifest.version,
        HEXLOWER.encode(&digest[..6]),
        settings.unwrap_or_default(),
    )
}

fn outcome_said(outcome: &DiffOutcome) {
    let DiffOutcome {
        calls,
        alike,
        different,
        kept_otherwise,
        subjects,
        by_kind,
        differences,
        missed,
    } = outcome;
    say(&format!(
        "{calls} calls of both: {alike} equal, {different} with different decisions, {kept_otherwise} with different states only"
    ));
    for (kind, count) in by_kind {
        say(&format!("{count:>8} {kind}"));
    }
    say(&format!("{} sessions, rooms or scenarios differ", subjects.len()));
    if *missed > 0 {
        say(&format!("{missed} calls could not be recorded"));
    }
    for SubjectDifference { about, policy, now_us, a, b, .. } in differences {
        say(&format!("at {now_us} µs {policy:?} about {about:?}"));
        say(&format!("    a: {a}"));
        say(&format!("    b: {b}"));
    }
}
