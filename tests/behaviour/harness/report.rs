//! Rows of `make e2e-telemetry`.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use evenkeel_report::{AcceptanceRow, LimitTable, RowLimits, earlier_rows};
use evenkeel_telemetry::alerts::rules_of_file;
use serde_json::{Value, json};

/// Tests of one run add to one file.
static FILE: Mutex<()> = Mutex::new(());

/// The rows beside those of alert rules.
const OTHERS: [&str; 8] = [
    "alert.control",
    "alert.sent",
    "trace.phoenix.grpc",
    "trace.phoenix.http",
    "trace.rotel.grpc",
    "trace.rotel.http",
    "trace.upgrade",
    "trace.hand-over",
];

/// The id of the row of an alert rule.
pub(crate) fn id_of_rule(rule: &str) -> String {
    format!("alert.{rule}")
}

/// The ids of all rows.
fn ids() -> Vec<String> {
    let rules = rules_of_file().map(|rule| id_of_rule(rule.name));
    rules.chain(OTHERS.map(str::to_owned)).collect()
}

/// The limits of a row.
fn limits(id: &str) -> RowLimits {
    let all = ids();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    assert!(all.contains(&id), "{id} is no row of e2e-telemetry");
    LimitTable::load().and_then(|table| table.rows_of("e2e-telemetry", &all)).unwrap().of(id)
}

/// A limit in seconds of a row, for which a test waits.
pub(crate) fn limit_s(id: &str, key: &str) -> Duration {
    let limit = limits(id).judged(key).unwrap_or_else(|| panic!("{id} has no {key}"));
    Duration::from_secs_f64(limit)
}

/// A row with these figures. `figure` is the one with a limit, which has this key; a row that does not hold has missed it.
pub(crate) fn acceptance_row(
    id: &str,
    is_held: bool,
    figures: &Value,
    figure: &str,
    key: &str,
) -> AcceptanceRow {
    let mut row = AcceptanceRow::new(id);
    for (name, value) in figures.as_object().into_iter().flatten() {
        row.set_figure(name, value.as_f64());
    }
    row.limit_by(figure, &limits(id), key);
    row.judge();
    if !is_held {
        row.held = Some(false);
    }
    row
}

/// The report that this run writes.
fn path() -> Option<PathBuf> {
    std::env::var_os("EVENKEEL_REPORT").map(PathBuf::from)
}

/// Adds rows to the report of this run, if it has one.
pub(crate) fn report(rows: &[AcceptanceRow]) {
    let Some(path) = path() else { return };
    let _alone = FILE.lock().unwrap_or_else(PoisonError::into_inner);
    let before = std::fs::read(&path).ok();
    let before = before.and_then(|before| serde_json::from_slice::<Value>(&before).ok());
    let earlier = before.and_then(|mut before| before["rows"].as_array_mut().map(std::mem::take));
    let rows = rows.iter().map(|row| json!(row));
    let all: Vec<Value> = earlier.into_iter().flatten().chain(rows).collect();
    evenkeel_report::write(&json!({"rows": all}), &path).unwrap();
}

#[test]
fn each_row_of_a3d43ed3_is_there() {
    let now = ids();
    let now = now.iter().map(String::as_str).collect();
    let gone: Vec<_> = earlier_rows("e2e-telemetry").difference(&now).copied().collect();
    assert!(gone.is_empty(), "{gone:?}");
}
