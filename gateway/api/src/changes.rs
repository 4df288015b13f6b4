//! Changes by operators, saved files and rollouts: the newest ones, in memory and in a file that outlives the process.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::SystemTime;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::{Method, header};
use axum::middleware::Next;
use axum::response::Response;
use evenkeel_config::read_duration;
use evenkeel_process::{file, lock, unix_us};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::context::ApiState;
use super::error::{ApiError, ApiErrorCode};
use super::events::EventNotice;
use super::object::object;

/// Changes that are kept: weeks of a gateway that is operated by hand.
const CHANGES_MAX: usize = 1_024;

/// Bytes of a change; a reload may name a thousand nodes. A longer one is kept without its details.
const CHANGE_BYTES_MAX: usize = 4_096;

/// Bytes of the file.
const BYTES_MAX: u64 = (CHANGES_MAX * CHANGE_BYTES_MAX) as u64;

/// Files in the folder, more than the gateways of one machine.
const FILES_MAX: usize = 64;

/// The events that are changes.
const EVENTS: [&str; 3] = ["reload", "policy", "group"];

/// The newest changes.
#[derive(Default)]
pub(super) struct ChangeLog {
    /// `None`: changes end with the process.
    path: Option<PathBuf>,
    /// Read with the first change, by which the process that this one replaces has written its last ones.
    changes: OnceLock<Mutex<VecDeque<Value>>>,
    /// What the file lacks.
    unwritten: Arc<Mutex<Option<Vec<u8>>>>,
    /// Held by the one writer.
    writing: Arc<Mutex<()>>,
}

impl ChangeLog {
    pub(super) fn of(folder: Option<&Path>, socket: &Path) -> ChangeLog {
        let name = format!("{}.json", file::name_of(socket));
        let path = folder.map(|folder| folder.join("changes").join(name));
        ChangeLog { path, ..ChangeLog::default() }
    }

    fn changes(&self) -> &Mutex<VecDeque<Value>> {
        self.changes.get_or_init(|| {
            let read = |path: &PathBuf| -> io::Result<VecDeque<Value>> {
                Ok(serde_json::from_slice(&file::read(path, 2 * BYTES_MAX)?)?)
            };
            let earlier = match self.path.as_ref().map(read) {
                None => VecDeque::new(),
                Some(Ok(earlier)) => earlier,
                Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => VecDeque::new(),
                Some(Err(error)) => {
                    tracing::warn!(%error, "earlier changes cannot be read");
                    VecDeque::new()
                }
            };
            Mutex::new(earlier)
        })
    }

    /// Keeps an event that is a change.
    pub(super) fn note_event(&self, notice: &EventNotice) {
        if !EVENTS.contains(&notice.name) {
            return;
        }
        let Ok(mut change) = serde_json::from_str::<Value>(&notice.data) else { return };
        if notice.data.len() > CHANGE_BYTES_MAX {
            change = json!({"at_us": change["at_us"], "by": change["by"]});
        }
        change["event"] = notice.name.into();
        self.note(change);
    }

    fn note(&self, change: Value) {
        let mut changes = lock(self.changes());
        if changes.len() >= CHANGES_MAX {
            changes.pop_front();
        }
        changes.push_back(change);
        let Some(path) = self.path.clone() else { return };
        *lock(&self.unwritten) = Some(serde_json::to_vec(&*changes).expect("changes are JSON"));
        let (unwritten, writing) = (Arc::clone(&self.unwritten), Arc::clone(&self.writing));
        // The disk delays no request, and changes that come meanwhile are written together.
        tokio::task::spawn_blocking(move || {
            let _one = lock(&writing);
            let Some(text) = lock(&unwritten).take() else { return };
            if let Err(error) = write(&path, &text) {
                tracing::warn!(file = %path.display(), %error, "changes end with the process");
            }
        });
    }

    /// The changes since a Unix time, newest first.
    pub(super) fn since(&self, since_us: u64) -> Vec<Value> {
        let changes = lock(self.changes());
        let at_us = |change: &&Value| change["at_us"].as_u64().unwrap_or(0);
        changes.iter().rev().filter(|change| at_us(change) >= since_us).cloned().collect()
    }
}

fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    file::create_private_folder(folder)?;
    file::replace(path, text)?;
    // The next change tries again.
    let _ = file::trim(folder, path, FILES_MAX);
    Ok(())
}

/// Notes the requests that changed something.
pub(super) async fn pass(State(shared): ApiState, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let changes = *request.method() != Method::GET && !path.starts_with("/v1/sessions");
    let change = changes.then(|| {
        let from = request.headers().get(header::FROM).and_then(|from| from.to_str().ok());
        let shown = |text: &str| text.chars().take(256).collect::<String>();
        json!({
            "event": "request",
            "by": "operator",
            "user": from.map(shown),
            "request": shown(&format!("{} {path}", request.method())),
        })
    });
    let response = next.run(request).await;
    if let Some(mut change) = change.filter(|_| response.status().is_success()) {
        change["at_us"] = unix_us(SystemTime::now()).into();
        shared.changes.note(change);
    }
    response
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangesQuery {
    /// Only changes within this time: `24h`.
    since: Option<String>,
}

pub(super) async fn changes(
    State(shared): ApiState,
    query: Result<Query<ChangesQuery>, QueryRejection>,
) -> Result<Json<impl Serialize>, ApiError> {
    let Query(ChangesQuery { since }) =
        query.map_err(|error| ApiError::new(ApiErrorCode::BadRequest, error.body_text()))?;
    let since = since.as_deref().map(read_duration).transpose();
    let since = since.map_err(|right| ApiError::field("since", right))?;
    let now_us = unix_us(SystemTime::now());
    let since_us = since.map_or(0, |since| now_us.saturating_sub(since.as_micros() as u64));
    // Newest first.
    Ok(Json(object! { changes: shared.changes.since(since_us) }))
}
