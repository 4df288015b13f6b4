//! The report of `make gate`: the rows of the reports of its steps.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::AcceptanceRow;

/// The rows of all steps. The id of a row begins with the name of its step: `chaos/gateway.kill`.
#[derive(Default, Debug, Serialize)]
pub struct GateReport {
    rows: Vec<AcceptanceRow>,
}

/// A check of the demo, as far as a row needs it.
#[derive(Deserialize)]
struct DemoCheck {
    promise: String,
    /// Null on a machine that was late.
    kept: Option<bool>,
    found: String,
}

impl GateReport {
    /// Reads the reports of these steps. A step without a readable report is a row that was missed.
    pub fn read(steps: &[(&str, PathBuf)]) -> GateReport {
        let mut gate = GateReport::default();
        for (step, path) in steps {
            match read(path) {
                Ok(rows) => gate.rows.extend(
                    rows.into_iter()
                        .map(|row| AcceptanceRow { id: format!("{step}/{}", row.id), ..row }),
                ),
                Err(why) => {
                    let mut row = AcceptanceRow::new(*step);
                    row.miss(vec![why]);
                    gate.rows.push(row);
                }
            }
        }
        gate
    }

    pub fn rows(&self) -> &[AcceptanceRow] {
        &self.rows
    }

    /// # Errors
    /// A limit was missed; the error names the rows. Rows that were not measured are no misses.
    pub fn verdict(&self) -> Result<(), String> {
        let missed = self.rows.iter().filter(|row| row.held == Some(false));
        let missed: Vec<&str> = missed.map(|row| row.id.as_str()).collect();
        match missed[..] {
            [] => Ok(()),
            _ => Err(format!(
                "{} of {} rows missed: {}",
                missed.len(),
                self.rows.len(),
                missed.join(", ")
            )),
        }
    }
}

/// The rows of a report, or the checks of the demo.
fn read(path: &Path) -> Result<Vec<AcceptanceRow>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = std::fs::read(path).map_err(|error| failed(&error))?;
    let mut report: Value = serde_json::from_slice(&text).map_err(|error| failed(&error))?;
    let rows: Vec<AcceptanceRow> = match report.get_mut("checks").map_or(Value::Null, Value::take) {
        Value::Null => {
            serde_json::from_value(report.get_mut("rows").map_or(Value::Null, Value::take))
                .map_err(|error| failed(&error))?
        }
        checks => {
            let checks: Vec<DemoCheck> =
                serde_json::from_value(checks).map_err(|error| failed(&error))?;
            checks.into_iter().map(row_of).collect()
        }
    };
    match rows.iter().all(|row| row.held.is_none()) {
        true => Err(failed(&"no row was measured")),
        false => Ok(rows),
    }
}

fn row_of(check: DemoCheck) -> AcceptanceRow {
    let mut row = AcceptanceRow::new(check.promise);
    row.held = check.kept;
    match check.kept {
        Some(true) => {}
        Some(false) => row.misses = vec![check.found],
        None => row.not_measured = Some(format!("the machine was late: {}", check.found)),
    }
    row
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;
    use tempfile::tempdir;

    use super::*;

    fn gate(steps: &[(&str, Value)]) -> GateReport {
        let folder = tempdir().unwrap();
        let steps: Vec<(&str, PathBuf)> = steps
            .iter()
            .map(|(step, report)| {
                let path = folder.path().join(step);
                fs::write(&path, report.to_string()).unwrap();
                (*step, path)
            })
            .collect();
        GateReport::read(&steps)
    }

    #[test]
    fn missed_limits_of_all_steps_are_named() {
        let row = |id: &str, held: Value| json!({"id": id, "held": held});
        let sound = json!({"rows": [row("a", json!(true)), row("b", Value::Null)]});
        assert_eq!(gate(&[("chaos", sound.clone())]).verdict(), Ok(()));
        let bad = json!({"rows": [row("c", json!(false)), row("d", json!(false))]});
        let said = gate(&[("chaos", sound), ("policy", bad)]).verdict().unwrap_err();
        assert_eq!(said, "2 of 4 rows missed: policy/c, policy/d");
    }

    #[test]
    fn checks_of_the_demo_are_rows() {
        let check = |promise: &str, kept: Value| json!({"promise": promise, "kept": kept, "found": "60 ms"});
        let checks =
            [check("no loss", json!(true)), check("gap", json!(false)), check("late", Value::Null)];
        let gate = gate(&[("demo", json!({"checks": checks}))]);
        assert_eq!(gate.verdict().unwrap_err(), "1 of 3 rows missed: demo/gap");
        assert_eq!(gate.rows()[1].misses, ["60 ms"]);
        assert_eq!(gate.rows()[2].word(), "not measured");
    }

    #[test]
    fn step_without_a_report_is_missed() {
        let gate = GateReport::read(&[("chaos", "/nowhere".into())]);
        assert_eq!(gate.verdict().unwrap_err(), "1 of 1 rows missed: chaos");
        for rows in [json!([]), json!([{"id": "a", "held": null}])] {
            assert!(self::gate(&[("chaos", json!({"rows": rows}))]).verdict().is_err());
        }
        assert!(self::gate(&[("chaos", json!([]))]).verdict().is_err());
    }
}
