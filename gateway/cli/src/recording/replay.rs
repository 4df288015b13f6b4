//! `evenkeel policy replay`.

use std::path::{Path, PathBuf};

use clap::Args;
use evenkeel_author::decision::{ComparisonSide, decisions, parts_that_differ, subjects};
use evenkeel_author::recorded::{ReplayedPlugins, stand_in};
use evenkeel_host::{PluginGrant, PluginInputs};
use evenkeel_model::PluginFault;
use evenkeel_recording::{
    LostChunks, RecordedCall, RecordedGrant, RecordingEntry, RecordingHeader,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::player::{DocumentFiles, Plugins, allowed, ask};
use super::record::{calls, lost_json, open};
use crate::command::{CommandError, read_file, say};

const SHOWN_MAX: usize = 10;

/// Maximum subjects shown per difference; a call may concern thousands.
const SUBJECTS_MAX: usize = 3;

/// Repeat recorded calls and compare every answer bit for bit
///
/// Decisions, states, memos and notes are compared. Each call goes to the plugin with the recorded digest: an embedded one,
/// or one of --plugin, with the data documents of the recorded digests, which --data names. Exit code 1: an answer differs,
/// or no decision was compared.
///
/// With --json: `calls` = `same` + `failed_alike` + differing + `not_comparable`; `same`: equal answers; `failed_alike`:
/// calls that failed both times with the same fault; `different`: the first differing calls of `different_total`; `faulted`:
/// calls that failed in the replay; `missed`: calls that the gateway could not record; `exact`: at least one answer was
/// compared and none differs; `lost`: the unreadable part of the file. A call is not comparable if it exceeded a time limit
/// in the gateway, if an address was removed from it and its answer differs, or if the plugin is granted other
/// permissions here. A call that exceeds a time limit of the gateway here ends the command.
#[derive(Args)]
pub(crate) struct ReplayArgs {
    /// A recording of `evenkeel policy record`
    recording: PathBuf,
    /// A plugin of the recording that is not embedded, or `SET/HOOK=FILE`: a plugin to run in that policy's place
    #[arg(long, value_name = "FILE")]
    plugin: Vec<String>,
    /// A data document of the recording, JSON or TOML, found by its digest; may be repeated
    #[arg(long, value_name = "FILE")]
    data: Vec<PathBuf>,
    /// Only this policy's calls: `<set>/<hook>`
    #[arg(long, value_name = "POLICY")]
    policy: Option<String>,
}

#[derive(Default, Debug, Serialize)]
pub(super) struct ReplayOutcome {
    pub(super) calls: u64,
    pub(super) same: u64,
    pub(super) failed_alike: u64,
    pub(super) different_total: u64,
    pub(super) different: Vec<CallDifference>,
    pub(super) not_comparable: u64,
    pub(super) faulted: u64,
    pub(super) missed: u64,
}

impl ReplayOutcome {
    /// Equal failures do not count as compared decisions.
    pub(super) fn is_exact(&self) -> bool {
        self.same > 0 && self.different_total == 0
    }

    pub(super) fn words(&self) -> &'static str {
        match (self.is_exact(), self.same + self.different_total) {
            (true, _) => "exact",
            (false, 0) => "no decision was compared",
            (false, _) => "not exact",
        }
    }
}

/// The output of `evenkeel policy replay --json`.
#[derive(Serialize)]
struct ReplayOutput<'a> {
    #[serde(flatten)]
    outcome: &'a ReplayOutcome,
    exact: bool,
    lost: Value,
}

/// A call with another answer than the recorded one.
#[derive(Debug, Serialize)]
pub(super) struct CallDifference {
    policy: String,
    revision: String,
    ask: u64,
    now_us: u64,
    pub(super) parts: Vec<&'static str>,
    pub(super) decisions: Vec<ReplayedDecision>,
}

#[derive(Debug, Serialize)]
pub(super) struct ReplayedDecision {
    about: String,
    pub(super) recorded: Value,
    pub(super) replayed: Value,
}

impl ReplayArgs {
    pub(crate) fn run(&self, json: bool) -> Result<(), CommandError> {
        let bytes = read_file(&self.recording)?;
        let mut reader = open(&self.recording, &bytes)?;
        let mut plugins = Plugins::new(&self.plugin)?;
        plugins.documents = DocumentFiles::read(&self.data)?;
        let outcome = replay(&mut reader, &plugins, self.policy.as_deref())?;
        if json {
            let (exact, lost) = (outcome.is_exact(), lost_json(reader.lost()));
            say(&json!(ReplayOutput { outcome: &outcome, exact, lost }));
        } else {
            outcome_said(&self.recording, reader.header(), &outcome, reader.lost());
        }
        if outcome.is_exact() { Ok(()) } else { Err(CommandError::Failed(String::new())) }
    }
}

/// Repeats all calls, or those of one policy.
///
/// # Errors
/// A plugin is missing or refuses the recorded settings.
pub(super) fn replay(
    records: impl Iterator<Item = RecordingEntry>,
    plugins: &Plugins,
    policy: Option<&str>,
) -> Result<ReplayOutcome, CommandError> {
    let (mut outcome, mut players) = (ReplayOutcome::default(), ReplayedPlugins::default());
    let mut missed = 0;
    for call in calls(records, &mut missed) {
        if policy.is_none_or(|policy| call.revision.policy.to_string() == policy) {
            repeat(&call, plugins, &mut players, &mut outcome)?;
        }
    }
    Ok(ReplayOutcome { missed, ..outcome })
}

fn repeat(
    call: &RecordedCall,
    plugins: &Plugins,
    players: &mut ReplayedPlugins,
    outcome: &mut ReplayOutcome,
) -> Result<(), CommandError> {
    outcome.calls += 1;
    if call.result.as_ref().err().is_some_and(is_of_time) {
        outcome.not_comparable += 1;
        return Ok(());
    }
    let player = players.of(call, || {
        let component = plugins.of(&call.revision)?;
        let settings = serde_json::from_str(&call.revision.settings);
        let refused = |said: String| {
            CommandError::Wrong(format!(
                "{} does not run with the settings recorded: {said}",
                call.revision.policy
            ))
        };
        let settings = settings.map_err(|error| refused(error.to_string()))?;
        let allowed = allowed(&component, &call.revision);
        let documents = plugins.documents.of(&component, &call.revision)?;
        let inputs = PluginInputs { settings, documents };
        stand_in(plugins.engine(), &component, inputs, call, &allowed)
            .map_err(|error| refused(error.to_string()))
    })?;
    let result = ask(player, &call.question, call)?;
    outcome.faulted += u64::from(result.is_err());
    let parts = parts_that_differ(&call.result, &result);
    if parts.is_empty() {
        match result {
            Ok(_) => outcome.same += 1,
            Err(_) => outcome.failed_alike += 1,
        }
        return Ok(());
    }
    let component = player.component();
    let is_the_plugin = *component.digest() == call.revision.digest;
    let PluginGrant { subject_metrics, node_metrics, ops } = player.grant().clone();
    let grant = RecordedGrant { subject_metrics, node_metrics, ops };
    let granted_otherwise = is_the_plugin && grant != call.revision.grant;
    if call.redacted || granted_otherwise || result.as_ref().err().is_some_and(is_of_time) {
        outcome.not_comparable += 1;
        return Ok(());
    }
    outcome.different_total += 1;
    if outcome.different.len() < SHOWN_MAX {
        let side = |result| ComparisonSide {
            component: Some(component),
            catalog: &call.catalog.entries,
            result,
        };
        outcome.different.push(difference(call, parts, &side(&call.result), &side(&result)));
    }
    Ok(())
}

/// Returns true if the fault depends on time and not on the plugin's answer.
fn is_of_time(fault: &PluginFault) -> bool {
    match fault {
        PluginFault::Deadline | PluginFault::Late | PluginFault::Absent => true,
        PluginFault::Trap(_) | PluginFault::OutOfMemory | PluginFault::Malformed(_) => false,
    }
}

fn difference(
    call: &RecordedCall,
    parts: Vec<&'static str>,
    recorded: &ComparisonSide<'_>,
    again: &ComparisonSide<'_>,
) -> CallDifference {
    let (one, other) =
        (decisions(&call.question, recorded.result), decisions(&call.question, again.result));
    let about =
        subjects(&one, &other).into_iter().filter(|subject| one.get(subject) != other.get(subject));
    let decisions = about.take(SUBJECTS_MAX).map(|subject| ReplayedDecision {
        about: subject.to_string(),
        recorded: recorded.shown(one.get(subject)),
        replayed: again.shown(other.get(subject)),
    });
    CallDifference {
        policy: call.revision.policy.to_string(),
        revision: call.revision.revision.to_string(),
        ask: call.ask.0,
        now_us: call.now_us,
        parts,
        decisions: decisions.collect(),
    }
}

fn outcome_said(
    path: &Path,
    header: &RecordingHeader,
    outcome: &ReplayOutcome,
    lost: Option<&LostChunks>,
) {
    let ReplayOutcome {
        calls,
        same,
        failed_alike,
        different_total,
        different,
        not_comparable,
        faulted,
        missed,
    } = outcome;
    say(&format!(
        "{}: gateway {} in {}, contract {}",
        path.display(),
        header.gateway,
        header.region,
        header.contract
    ));
    say(&format!(
        "{calls} calls repeated: {same} equal, {failed_alike} failed alike, {different_total} different, {not_comparable} not comparable; {faulted} faulted"
    ));
    if *missed > 0 {
        say(&format!("{missed} calls could not be recorded"));
    }
    lost.into_iter().for_each(say);
    for difference in different {
        let CallDifference { now_us, policy, .. } = difference;
        say(&format!("at {now_us} µs {policy:?}: {}", json!(difference)));
    }
    let unshown = different_total - different.len() as u64;
    if unshown > 0 {
        say(&format!("and {unshown} more"));
    }
    say(&outcome.words());
}
