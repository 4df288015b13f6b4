//! Ids of clients' tokens that opened sessions, in a file that the next process reads: a restart lets no token open a second one.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use evenkeel_process::documents::{KeptDocument, UnwrittenDocuments, WRITTEN_AGAIN_WITHIN};
use evenkeel_process::{file, lock};
use tokio::task::JoinHandle;

use crate::idempotency::KEYS_MAX;

/// Maximum size of the file, bytes. It is replaced by its newest ids, which take a half at most: an id has up to 120 bytes.
const BYTES_MAX: u64 = 2 * KEYS_MAX as u64 * 121;

/// Maximum number of files in the folder, more than the gateways of one machine.
const FILES_MAX: usize = 64;

/// Maximum length of the lines that wait for a disk that takes none, bytes.
const WAITING_MAX: usize = KEYS_MAX * 121;

/// The file of used tokens.
#[derive(Default, Debug)]
pub struct UsedTokens {
    /// Without a value ids end with the process.
    file: OnceLock<Arc<TokenFile>>,
}

#[derive(Debug)]
struct TokenFile {
    path: PathBuf,
    /// Lines that wait to be written.
    waiting: Mutex<Vec<u8>>,
    /// Held by the one writer.
    writing: Mutex<()>,
    unwritten: UnwrittenDocuments,
}

impl UsedTokens {
    /// Keeps ids in the file of the gateway with this API socket, and returns those that are in it, oldest first. A failure to keep
    /// them is reported to `unwritten`.
    pub fn open(
        &self,
        folder: &Path,
        socket: &Path,
        unwritten: UnwrittenDocuments,
    ) -> Vec<Box<str>> {
        let path = folder.join("used-tokens").join(file::name_of(socket));
        let earlier = read(&path).unwrap_or_else(|error| {
            tracing::warn!(file = %path.display(), %error, "used tokens cannot be read");
            Vec::new()
        });
        let (waiting, writing) = (Mutex::default(), Mutex::default());
        let _ = self.file.set(Arc::new(TokenFile { path, waiting, writing, unwritten }));
        earlier
    }

    /// Writes ids to the file. The task ends once they are written, and not yet on the disk; `None` without a file, or without ids.
    pub fn keep<'a>(&self, ids: impl IntoIterator<Item = &'a str>) -> Option<JoinHandle<()>> {
        let file = Arc::clone(self.file.get()?);
        let lines: String = ids.into_iter().map(|id| format!("{id}\n")).collect();
        if lines.is_empty() {
            return None;
        }
        lock(&file.waiting).extend_from_slice(lines.as_bytes());
        // Ids that come meanwhile are written together.
        Some(tokio::task::spawn_blocking(move || file.write()))
    }

    /// Tries again to write ids that the disk did not take.
    pub async fn repeat(self: Arc<Self>) {
        let Some(file) = self.file.get() else { return };
        let mut every = tokio::time::interval(WRITTEN_AGAIN_WITHIN);
        loop {
            every.tick().await;
            if !lock(&file.waiting).is_empty() {
                let file = Arc::clone(file);
                // A panic was reported already.
                let _ = tokio::task::spawn_blocking(move || file.write()).await;
            }
        }
    }
}

impl TokenFile {
    fn write(&self) {
        let _one = lock(&self.writing);
        let lines = std::mem::take(&mut *lock(&self.waiting));
        if lines.is_empty() {
            return;
        }
        let written = append(&self.path, &lines);
        self.unwritten.note(KeptDocument::UsedTokens, &self.path, &written);
        if written.is_err() {
            let mut waiting = lock(&self.waiting);
            waiting.splice(..0, lines);
            let older = waiting.len().saturating_sub(WAITING_MAX);
            let whole =
                waiting[older..].iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            if older > 0 {
                waiting.drain(..older + whole);
            }
        }
    }
}

/// The newest ids in the file. A line that was cut is none.
fn read(path: &Path) -> io::Result<Vec<Box<str>>> {
    let bytes = match file::read(path, 2 * BYTES_MAX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read?,
    };
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let lines = bytes[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let ids: Vec<Box<str>> =
        lines.filter_map(|line| str::from_utf8(line).ok().map(Into::into)).collect();
    let older = ids.len().saturating_sub(KEYS_MAX);
    Ok(ids[older..].to_vec())
}

fn append(path: &Path, lines: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    file::create_private_folder(folder)?;
    let mut open = file::append(path)?;
    let mut length = open.metadata()?.len();
    if length == 0 {
        // The next start tries again.
        let _ = file::trim(folder, path, FILES_MAX);
    }
    if length > BYTES_MAX {
        let newest = read(path)?.join("\n") + "\n";
        file::replace(path, newest.as_bytes())?;
        open = file::append(path)?;
        length = open.metadata()?.len();
    }
    let written = open.write_all(lines);
    if written.is_err() {
        // A part may have been written, which the next line must not continue.
        let _ = open.set_len(length);
    }
    written
}

#[cfg(test)]
mod tests;
