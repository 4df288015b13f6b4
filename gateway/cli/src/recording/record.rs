//! `evenkeel policy record`, and the file that it writes.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use evenkeel_author::case::CaseSubject;
use evenkeel_client::{ApiClient, ClientError, escape};
use evenkeel_recording::{LostChunks, RecordedCall, RecordingEntry, RecordingReader};
use serde::Serialize;
use serde_json::{Value, json};

use crate::command::{ApiArgs, CommandError, read_file, show};

/// Record the calls of policies
///
/// The gateway streams calls as they happen. An interrupted recording is readable up to its end.
#[derive(Args)]
#[command(group = clap::ArgGroup::new("span").required(true).args(["seconds", "last"]))]
pub(crate) struct RecordArgs {
    /// Record this long from now on
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: Option<u64>,
    /// Save the calls that the gateway has kept: the last 30 s, or less under load
    #[arg(long)]
    last: bool,
    /// Output file, which is replaced
    #[arg(long, value_name = "FILE.ekr")]
    out: PathBuf,
    /// Keep addresses, which are replaced by `address-1`, `address-2`… otherwise
    #[arg(long)]
    addresses: bool,
    /// Record this policy only: `<set>/<hook>`
    #[arg(long, value_name = "POLICY")]
    policy: Option<String>,
}

enum RecordingError {
    Gateway(ClientError),
    File(std::io::Error),
}

/// The output of `evenkeel policy record --json`.
#[derive(Serialize)]
struct RecordingSummary {
    out: String,
    bytes: usize,
    calls: usize,
    missed: u64,
    lost: Value,
}

impl RecordArgs {
    pub(crate) fn run(&self, api: &ApiArgs, json: bool) -> Result<(), CommandError> {
        let cannot = |error: std::io::Error| {
            CommandError::Wrong(format!("cannot write {}: {error}", self.out.display()))
        };
        let path = self.path();
        let api = api.waiting_longer(Duration::from_secs(self.seconds.unwrap_or(0)));
        let written = api.operate(async |admin| {
            // A file error is not an API error.
            match copy(admin, &path, &self.out).await {
                Ok(()) => Ok(Ok(())),
                Err(RecordingError::File(error)) => Ok(Err(error)),
                Err(RecordingError::Gateway(failed)) => Err(failed),
            }
        });
        written?.map_err(cannot)?;
        let summary = self.summary()?;
        show(json, &json!(summary), || {
            let RecordingSummary { out, bytes, calls, missed, lost } = &summary;
            let truncated = if lost.is_null() { "" } else { "; truncated" };
            format!("{out}: {calls} calls in {bytes} bytes, {missed} missed{truncated}")
        });
        Ok(())
    }

    fn path(&self) -> String {
        let mut path = match self.seconds {
            Some(seconds) => format!("/v1/recording?seconds={seconds}"),
            None => "/v1/recording?last=true".to_owned(),
        };
        if self.addresses {
            path += "&addresses=true";
        }
        if let Some(policy) = &self.policy {
            path += &format!("&policy={}", escape(policy));
        }
        path
    }

    fn summary(&self) -> Result<RecordingSummary, CommandError> {
        let bytes = read_file(&self.out)?;
        let (mut reader, mut missed) = (open(&self.out, &bytes)?, 0);
        let calls = calls(&mut reader, &mut missed).count();
        let (out, lost) = (self.out.display().to_string(), lost_json(reader.lost()));
        Ok(RecordingSummary { out, bytes: bytes.len(), calls, missed, lost })
    }
}

async fn copy(admin: &ApiClient, path: &str, out: &Path) -> Result<(), RecordingError> {
    // The request comes first, so that a refusal leaves an old file unchanged.
    let mut download = admin.download(path).await.map_err(RecordingError::Gateway)?;
    let mut file = File::create(out).map_err(RecordingError::File)?;
    while let Some(bytes) = download.next().await.map_err(RecordingError::Gateway)? {
        file.write_all(&bytes).map_err(RecordingError::File)?;
    }
    Ok(())
}

/// A recording of the policy's calls that the gateway has kept.
pub(crate) async fn kept_calls(admin: &ApiClient, policy: &str) -> Result<Vec<u8>, ClientError> {
    let path = format!("/v1/recording?last=true&policy={}", escape(policy));
    let (mut download, mut bytes) = (admin.download(&path).await?, Vec::new());
    while let Some(more) = download.next().await? {
        bytes.extend_from_slice(&more);
    }
    Ok(bytes)
}

pub(super) fn open<'a>(path: &Path, bytes: &'a [u8]) -> Result<RecordingReader<'a>, CommandError> {
    RecordingReader::open(bytes)
        .map_err(|error| CommandError::Wrong(format!("{}: {error}", path.display())))
}

/// The calls of a recording. Adds the number of calls that could not be recorded to `missed`.
pub(super) fn calls<'a>(
    entries: impl Iterator<Item = RecordingEntry> + 'a,
    missed: &'a mut u64,
) -> impl Iterator<Item = RecordedCall> + 'a {
    entries.filter_map(|entry| match entry {
        RecordingEntry::Call(call) => Some(*call),
        RecordingEntry::Missed(calls) => {
            *missed += calls;
            None
        }
        RecordingEntry::Decided(_) => None,
    })
}

/// The calls about a session or room, of one policy.
///
/// # Errors
/// The recording is unreadable, or several policies were asked and none is named.
pub(crate) fn recorded_about(
    path: &Path,
    subject: CaseSubject,
    policy: Option<&str>,
) -> Result<Vec<RecordedCall>, CommandError> {
    let bytes = read_file(path)?;
    let (mut reader, mut missed) = (open(path, &bytes)?, 0);
    let of_policy = |call: &RecordedCall| {
        policy.is_none_or(|policy| call.revision.policy.to_string() == policy)
    };
    let about: Vec<RecordedCall> = calls(&mut reader, &mut missed)
        .filter(|call| of_policy(call) && subject.is_in(&call.question))
        .collect();
    let policies: BTreeSet<String> =
        about.iter().map(|call| call.revision.policy.to_string()).collect();
    if policies.len() > 1 {
        let policies = policies.into_iter().collect::<Vec<_>>().join(", ");
        let words = format!("{policies} were asked about it; name one with --policy");
        return Err(CommandError::Wrong(words));
    }
    Ok(about)
}

/// The truncated end of a recording as JSON; null if complete.
pub(super) fn lost_json(lost: Option<&LostChunks>) -> Value {
    lost.map_or(Value::Null, |lost| {
        let LostChunks { chunks, at, bytes, why } = lost;
        json!({"after_chunks": chunks, "at_byte": at, "bytes": bytes, "why": why})
    })
}
