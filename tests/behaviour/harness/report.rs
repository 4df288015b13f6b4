//! Rows of `make e2e-telemetry`.

use std::ffi::OsString;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

/// Tests of one run add to one file.
static FILE: Mutex<()> = Mutex::new(());

/// A row with a figure, which holds up to its limit.
pub(crate) fn acceptance_row(id: &str, is_held: bool, figures: &Value, limits: &Value) -> Value {
    json!({"id": id, "held": is_held, "skipped": null, "figures": figures, "limits": limits})
}

/// The report that this run writes.
fn path() -> Option<OsString> {
    std::env::var_os("EVENKEEL_REPORT")
}

/// Adds rows to the report of this run, if it has one.
pub(crate) fn report(rows: &[Value]) {
    let Some(path) = path() else { return };
    let _alone = FILE.lock().unwrap_or_else(PoisonError::into_inner);
    let before = std::fs::read(&path).ok();
    let before = before.and_then(|before| serde_json::from_slice::<Value>(&before).ok());
    let earlier = before.as_ref().and_then(|before| before["rows"].as_array());
    let all: Vec<&Value> = earlier.into_iter().flatten().chain(rows).collect();
    std::fs::write(&path, json!({"rows": all}).to_string()).unwrap();
}
