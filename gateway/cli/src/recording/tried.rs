//! `evenkeel plugin test --recording`, and the recorded calls of `plugin dev`.

use std::collections::BTreeSet;
use std::path::Path;

use evenkeel_author::BuiltPlugin;
use evenkeel_author::decision::{ComparedDecision, ComparisonSide, Decisions, decisions, subjects};
use evenkeel_author::recorded::Recorded;
use evenkeel_host::PluginRefusal;
use evenkeel_model::{PluginFault, RevisionAnswer};
use evenkeel_recording::RecordedCall;
use serde::Serialize;
use serde_json::{Value, json};

use super::record::{calls, lost_json, open};
use crate::command::{CommandError, read_file};

/// Maximum differences shown; all are counted.
const SHOWN_MAX: usize = 5;

/// The outcome of recorded calls at a plugin.
pub(crate) struct TrialOutcome {
    pub(crate) json: Value,
    pub(crate) lines: String,
    /// No call failed. Different decisions are no failure.
    pub(crate) is_passed: bool,
}

/// The plugin's decisions compared with the recorded ones.
#[derive(Default)]
struct TrialComparison {
    /// Decisions about a session, a room or a scenario, in either answer.
    decisions: u64,
    different: u64,
    shown: Vec<ChangedDecision>,
    /// Calls that failed, or from which an address was removed.
    not_comparable: u64,
    missed: u64,
}

/// A decision that differs from the recorded one.
#[derive(Serialize)]
struct ChangedDecision {
    about: String,
    policy: String,
    ask: u64,
    now_us: u64,
    recorded: Value,
    now: Value,
}

/// A trial in the output of `evenkeel plugin test --json`.
#[derive(Serialize)]
struct TrialOutput<'a> {
    #[serde(flatten)]
    report: Value,
    recording: &'a Path,
    decisions: u64,
    different: u64,
    differences: &'a [ChangedDecision],
    not_comparable: u64,
    missed: u64,
    lost: Value,
}

impl TrialOutcome {
    /// Repeats all recorded calls of the plugin's hook.
    ///
    /// # Errors
    /// The recording is unreadable or has no call for the plugin, or the plugin refuses its settings.
    pub(crate) fn on(
        path: &Path,
        built: &BuiltPlugin,
        settings: Option<Value>,
    ) -> Result<TrialOutcome, CommandError> {
        TrialOutcome::of(path, &read_file(path)?, built, settings, |_| true)
    }

    /// Repeats the calls of chosen revisions in a recording's bytes; errors name the place.
    pub(crate) fn of(
        path: &Path,
        bytes: &[u8],
        built: &BuiltPlugin,
        settings: Option<Value>,
        is_chosen: impl Fn(&str) -> bool,
    ) -> Result<TrialOutcome, CommandError> {
        let mut reader = open(path, bytes)?;
        let given = settings.is_some();
        let mut recorded = Recorded::new(built, settings)
            .map_err(|refused| CommandError::Failed(refused.to_string()))?;
        let mut beside = TrialComparison::default();
        let (mut others, mut missed) = (BTreeSet::new(), 0);
        for call in calls(&mut reader, &mut missed) {
            if !is_chosen(&call.revision.revision) {
                continue;
            }
            match recorded.ask(&call).map_err(|refused| not_installed(&refused, &call, given))? {
                Some(result) => beside.compare(&recorded, &call, &result),
                None => drop(others.insert(call.revision.policy.to_string())),
            }
        }
        beside.missed = missed;
        let report = &recorded.report;
        if report.calls == 0 {
            return Err(CommandError::Wrong(nothing_for(path, built, others)));
        }
        let shown = json!(TrialOutput {
            report: report.json(),
            recording: path,
            decisions: beside.decisions,
            different: beside.different,
            differences: &beside.shown,
            not_comparable: beside.not_comparable,
            missed: beside.missed,
            lost: lost_json(reader.lost()),
        });
        let mut lines = vec![format!("asked what {} has: {report}", path.display())];
        lines.extend(beside.lines());
        lines.extend(reader.lost().map(|lost| format!("  {lost}")));
        Ok(TrialOutcome { json: shown, lines: lines.join("\n"), is_passed: report.is_passed() })
    }
}

impl TrialComparison {
    fn compare(
        &mut self,
        recorded: &Recorded,
        call: &RecordedCall,
        result: &Result<RevisionAnswer, PluginFault>,
    ) {
        if call.redacted || call.result.is_err() || result.is_err() {
            self.not_comparable += 1;
            return;
        }
        // Reason numbers are defined by each plugin and cannot be compared across plugins.
        let is_same = call.revision.plugin == recorded.component.manifest().name;
        let comparable = |all: &Decisions| -> Decisions {
            let all = all.clone().into_iter();
            let bare = |mut decision: ComparedDecision| {
                if let ComparedDecision::Params(params) = &mut decision {
                    // The order of parameters has no meaning.
                    params.sort();
                }
                if is_same { decision } else { decision.without_reason() }
            };
            all.map(|(subject, (row, decision))| (subject, (row, bare(decision)))).collect()
        };
        let now = decisions(&call.question, result);
        let then = comparable(&decisions(&call.question, &call.result));
        let as_then = comparable(&now);
        let mut about = subjects(&then, &now);
        self.decisions += about.len() as u64;
        let decision = |all: &Decisions, subject| all.get(subject).map(|(_, what)| what.clone());
        about.retain(|&subject| decision(&then, subject) != decision(&as_then, subject));
        self.different += about.len() as u64;
        let side = |result| ComparisonSide {
            component: Some(&recorded.component),
            catalog: &call.catalog.entries,
            result,
        };
        let (of_then, of_now) = (side(&call.result), side(result));
        for subject in about.into_iter().take(SHOWN_MAX.saturating_sub(self.shown.len())) {
            self.shown.push(ChangedDecision {
                about: subject.to_string(),
                policy: call.revision.policy.to_string(),
                ask: call.ask.0,
                now_us: call.now_us,
                recorded: of_then.shown(then.get(subject)),
                now: of_now.shown(now.get(subject)),
            });
        }
    }

    fn lines(&self) -> Vec<String> {
        let TrialComparison { decisions, different, shown, not_comparable, missed } = self;
        let mut lines =
            vec![format!("  {different} of {decisions} decisions differ from the recorded ones")];
        for ChangedDecision { about, policy, now_us, recorded, now, .. } in shown {
            lines.push(format!("    {about:?} of {policy:?}, at {now_us} µs: recorded {recorded}"));
            lines.push(format!("      now {now}"));
        }
        let unshown = different - shown.len() as u64;
        if unshown > 0 {
            lines.push(format!("    and {unshown} more; `evenkeel policy diff` shows all"));
        }
        if *not_comparable > 0 {
            lines.push(format!(
                "  {not_comparable} calls are not compared: they failed, or addresses were removed"
            ));
        }
        if *missed > 0 {
            lines.push(format!("  {missed} calls were made that the gateway could not write down"));
        }
        lines
    }
}

fn not_installed(refused: &PluginRefusal, call: &RecordedCall, given: bool) -> CommandError {
    let hint = match refused {
        PluginRefusal::Setting { .. } | PluginRefusal::Settings(_) if !given => {
            "; `--settings` names others"
        }
        PluginRefusal::Document { .. } => "; `--data` names others",
        _ => "",
    };
    CommandError::Wrong(format!("in the place of {}: {refused}{hint}", call.revision.policy))
}

fn nothing_for(path: &Path, built: &BuiltPlugin, others: BTreeSet<String>) -> String {
    let manifest = built.component.manifest();
    let hooks: Vec<&str> = manifest.hooks.iter().map(|hook| hook.name()).collect();
    let others = others.into_iter().collect::<Vec<String>>().join(", ");
    let there = if others.is_empty() { "no calls at all" } else { &others };
    format!(
        "{} has nothing that {} answers ({}): it has {there}",
        path.display(),
        manifest.name,
        hooks.join(", ")
    )
}

#[cfg(test)]
mod tests;
