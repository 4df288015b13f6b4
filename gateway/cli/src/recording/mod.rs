//! Recordings of policy calls: `evenkeel policy record`, `replay` and `diff`, and `plugin test --recording`.

mod decision;
mod diff;
mod player;
mod plugins;
mod record;
mod replay;
#[cfg(test)]
mod tests;
mod tried;

use std::path::Path;

pub(crate) use diff::Diff;
use evenkeel_recording::{LostChunks, RecordingReader};
pub(crate) use record::RecordArgs;
pub(crate) use replay::Replay;
use serde_json::{Value, json};
pub(crate) use tried::Tried;

use crate::CommandError;

fn load(path: &Path) -> Result<Vec<u8>, CommandError> {
    std::fs::read(path)
        .map_err(|error| CommandError::Wrong(format!("cannot read {}: {error}", path.display())))
}

/// Begins to read a recording.
fn open<'a>(path: &Path, bytes: &'a [u8]) -> Result<RecordingReader<'a>, CommandError> {
    RecordingReader::open(bytes)
        .map_err(|error| CommandError::Wrong(format!("{}: {error}", path.display())))
}

/// The truncated end of a recording as JSON; null if complete.
fn lost_json(lost: Option<&LostChunks>) -> Value {
    lost.map_or(Value::Null, |lost| {
        let LostChunks { chunks, at, bytes, why } = lost;
        json!({"after_chunks": chunks, "at_byte": at, "bytes": bytes, "why": why})
    })
}
