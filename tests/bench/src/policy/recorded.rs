//! Checks that each recorded decision was made by one revision, and that a replay repeats it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_model::{AskId, HookAnswer};
use evenkeel_recording::{RecordedCall, RecordingEntry, RecordingReader};
use serde_json::Value;

use super::Effort;
use super::gateway::{Gateway, revision};
use super::report::{Replay, Report};
use super::swaps::{Beside, NUMBERS, SwappedRevisions};
use crate::relay::Places;

/// Swaps continue for this time after the recording.
const LONGER: Duration = Duration::from_millis(500);

/// Revisions by call; recordings may overlap.
#[derive(Default, Debug)]
pub(crate) struct Deciders {
    /// The setting that distinguishes the swapped revisions: milliseconds until a room's review.
    marks: BTreeMap<String, u32>,
    by_ask: BTreeMap<AskId, Arc<str>>,
    last: Option<Arc<str>>,
    /// Decisions with content that identifies their revision.
    pub(crate) marked: u64,
    /// Number of changes of the deciding revision.
    pub(crate) switches: usize,
    /// Decisions of one revision that have the mark of another, and questions that two answered.
    two: BTreeSet<AskId>,
    /// Calls that the gateway could not record.
    pub(crate) missed: u64,
}

impl Deciders {
    /// Revisions by name, each with its mark.
    pub(crate) fn marked_by(marks: BTreeMap<String, u32>) -> Deciders {
        Deciders { marks, ..Deciders::default() }
    }

    /// # Errors
    /// The recording is invalid or truncated.
    pub(crate) fn read(&mut self, recording: &[u8]) -> Result<(), String> {
        let mut reader =
            RecordingReader::open(recording).map_err(|unreadable| unreadable.to_string())?;
        for record in reader.by_ref() {
            match record {
                RecordingEntry::Call(call) => self.note(&call),
                RecordingEntry::Missed(calls) => self.missed += calls,
                RecordingEntry::Decided(_) => {}
            }
        }
        reader.lost().map_or(Ok(()), |lost| Err(lost.to_string()))
    }

    pub(crate) fn calls(&self) -> usize {
        self.by_ask.len()
    }

    pub(crate) fn two_revisions(&self) -> usize {
        self.two.len()
    }

    fn note(&mut self, call: &RecordedCall) {
        let by = &call.revision.revision;
        match self.by_ask.insert(call.ask, Arc::clone(by)) {
            // An earlier recording has the same decision.
            Some(before) if before == *by => return,
            Some(_) => _ = self.two.insert(call.ask),
            None => {}
        }
        self.switches += usize::from(self.last.as_ref().is_some_and(|last| last != by));
        self.last = Some(Arc::clone(by));
        let placed = call.result.as_ref().ok().and_then(|answered| match answered.answer {
            HookAnswer::Placed { ttl_ms, .. } => Some(ttl_ms),
            HookAnswer::Params(_)
            | HookAnswer::Admit { .. }
            | HookAnswer::Moves { .. }
            | HookAnswer::Actions { .. } => None,
        });
        if let (Some(found), Some(mark)) = (placed, self.marks.get(&**by)) {
            self.marked += 1;
            if found != *mark {
                self.two.insert(call.ask);
            }
        }
    }
}

/// Records some seconds of load and swaps and replays them, with the gateway's own commands.
///
/// # Errors
/// A measurement failed.
pub(crate) fn measure(
    gateway: &mut Gateway,
    turns: &mut SwappedRevisions,
    places: &Places,
    effort: Effort,
    report: &mut Report,
) -> Result<(), String> {
    let Places { evenkeel, folder, .. } = places;
    let plugins = write_plugins(folder)?;
    let (socket, out) = (gateway.socket()?.to_owned(), folder.join("bench.ekr"));
    let mut api = gateway.api()?;
    let work = || {
        let seconds = effort.record.as_secs().to_string();
        let mut record = Command::new(evenkeel);
        record.args(["policy", "record", "--json", "--seconds", &seconds]);
        record.arg("--api").arg(&socket).arg("--out").arg(&out);
        record.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = record.spawn().map_err(|error| error.to_string())?;
        turns.take(&mut api, Beside::Swaps, effort.record + LONGER)?;
        said(child.wait_with_output())
    };
    let (_, flow) = gateway.under_load(work)?;
    let mut replay = Command::new(evenkeel);
    replay.args(["policy", "replay", "--json"]).arg(&out);
    for plugin in &plugins {
        replay.arg("--plugin").arg(plugin);
    }
    // Nodes answer probes meanwhile.
    let replayed = gateway.serving(|| said(replay.output()))?;
    let count = |key: &str| replayed[key].as_u64().unwrap_or(0);
    report.replay = Some(Replay {
        exact: replayed["exact"] == true,
        calls: count("calls"),
        same: count("same"),
        not_comparable: count("not_comparable"),
        missed: count("missed"),
        packets_lost: flow.lost,
    });
    Ok(())
}

/// Writes both swapped plugins as files, since a recording identifies them by digest.
fn write_plugins(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let write = |number: u32| {
        let path = folder.join(format!("revision-{number}.wasm"));
        std::fs::write(&path, revision(number)?).map_err(|error| error.to_string())?;
        Ok(path)
    };
    NUMBERS.into_iter().map(write).collect()
}

/// The JSON output of a command, also if it reports differences.
fn said(ended: std::io::Result<std::process::Output>) -> Result<Value, String> {
    let output = ended.map_err(|error| error.to_string())?;
    serde_json::from_slice(&output.stdout).map_err(|_| {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        format!("a command failed: {said}")
    })
}

#[cfg(test)]
mod tests {
    use evenkeel_model::{Hook, NodeId, PolicyName, PolicyQuestion, RevisionAnswer, RoomId};
    use evenkeel_recording::{RecordedCatalog, RecordedGrant, RecordedRevision};

    use super::*;

    fn placed(ask: u64, by: &str, ttl_ms: u32) -> RecordedCall {
        let revision = RecordedRevision {
            policy: PolicyName { set: "call".into(), hook: Hook::Routing },
            revision: by.into(),
            plugin: "p".into(),
            version: "1".into(),
            digest: [0; 32],
            settings: "{}".into(),
            seed: 0,
            grant: RecordedGrant::default(),
            documents: Vec::new(),
            redacted: false,
        };
        let question = PolicyQuestion::Place {
            room: RoomId(1),
            scenario: "call".into(),
            labels: Arc::new([]),
            nodes: Vec::new(),
        };
        let hops = vec![NodeId(0)];
        let state = evenkeel_model::PluginState { plugin: "p".into(), schema: 1, bytes: [].into() };
        let answered = RevisionAnswer {
            answer: HookAnswer::Placed { hops, ttl_ms, reason: 0, state },
            revision: by.into(),
            notes: Vec::new(),
            took: Duration::ZERO,
            isolated: None,
            reasons: Arc::new([]),
            ungranted: 0,
        };
        RecordedCall {
            revision: Arc::new(revision),
            catalog: Arc::new(RecordedCatalog::default()),
            ask: AskId(ask),
            now_us: 0,
            question: Arc::new(question),
            result: Ok(answered),
            redacted: false,
        }
    }

    #[test]
    fn decisions_of_two_revisions_are_counted() {
        let marks = [("a".to_owned(), 1), ("b".to_owned(), 2)];
        let mut deciders = Deciders::marked_by(marks.into());
        let all = [placed(1, "a", 1), placed(2, "b", 2), placed(2, "b", 2), placed(3, "c", 9)];
        all.iter().for_each(|call| deciders.note(call));
        assert_eq!((deciders.two_revisions(), deciders.marked, deciders.switches), (0, 2, 2));
        deciders.note(&placed(4, "a", 2));
        assert_eq!(deciders.two_revisions(), 1);
        deciders.note(&placed(2, "a", 1));
        assert_eq!((deciders.two_revisions(), deciders.calls()), (2, 4));
    }
}
