//! Reports of full runs that are committed: `tests/report/last/*.json`.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{AcceptanceRow, Run};

/// The folder of committed reports. The name of a file begins with that of its command: `chaos.json`, or `chaos.gateway.json` for a part.
pub const LAST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/last");

/// Members of a report that its tables need, beside rows and run.
const MEASUREMENTS: [&str; 2] = ["measurements", "srtp"];

/// A report as it is committed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeptReport {
    pub run: Run,
    pub rows: Vec<AcceptanceRow>,
    #[serde(flatten)]
    pub measurements: Map<String, Value>,
}

impl KeptReport {
    /// Reads a report. Measurements that no table shows are left out.
    ///
    /// # Errors
    /// The file is no report.
    pub fn read(path: &Path) -> Result<KeptReport, String> {
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let text = fs::read(path).map_err(|error| failed(&error))?;
        let mut report: KeptReport =
            serde_json::from_slice(&text).map_err(|error| failed(&error))?;
        report.measurements.retain(|name, _| MEASUREMENTS.contains(&name.as_str()));
        Ok(report)
    }

    /// The committed reports of a command, oldest first.
    ///
    /// # Errors
    /// A file is no report.
    pub fn all_of(command: &str) -> Result<Vec<KeptReport>, String> {
        let Ok(files) = fs::read_dir(LAST) else { return Ok(Vec::new()) };
        let is_of = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.split('.').next() == Some(command) && name.ends_with(".json")
        };
        let paths = files.flatten().map(|file| file.path()).filter(is_of);
        let mut reports: Vec<KeptReport> =
            paths.map(|path| KeptReport::read(&path)).collect::<Result<_, _>>()?;
        reports.sort_by(|one, other| one.run.date.cmp(&other.run.date));
        Ok(reports)
    }

    /// Copies a report to the committed ones under this name, such as `chaos.gateway`.
    ///
    /// # Errors
    /// The report is of a changed tree, or has no rows.
    pub fn keep(path: &Path, name: &str) -> Result<PathBuf, String> {
        let report = KeptReport::read(path)?;
        if report.run.commit.ends_with("-dirty") {
            return Err(format!(
                "{} is of a tree with changes: {}",
                path.display(),
                report.run.commit
            ));
        }
        if report.rows.is_empty() {
            return Err(format!("{} has no rows", path.display()));
        }
        let kept = Path::new(LAST).join(format!("{name}.json"));
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", kept.display());
        fs::create_dir_all(LAST).map_err(|error| failed(&error))?;
        let text = serde_json::to_string_pretty(&report).map_err(|error| failed(&error))?;
        fs::write(&kept, text + "\n").map_err(|error| failed(&error))?;
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tempfile::tempdir;

    use super::*;

    fn read(report: &Value) -> KeptReport {
        let folder = tempdir().unwrap();
        let path = folder.path().join("report.json");
        crate::write(report, &path).unwrap();
        KeptReport::read(&path).unwrap()
    }

    #[test]
    fn kept_report_has_rows_and_shown_measurements() {
        let misses = json!(["a node was marked down"]);
        let row = json!({
            "id": "row", "held": false, "figures": {"p99": 41.0, "lost": null}, "misses": misses
        });
        let kept = read(&json!({"rows": [row], "measurements": [1], "overload": {"peak": 2}}));
        assert_eq!(kept.rows[0].figure("p99"), Some(41.0));
        assert_eq!(kept.rows[0].figures.get("lost"), Some(&None));
        assert_eq!(json!(kept.rows[0].misses), misses);
        assert_eq!(kept.measurements.keys().collect::<Vec<_>>(), ["measurements"]);
        assert!(!kept.run.date.is_empty());
    }

    #[test]
    fn report_of_a_changed_tree_is_not_kept() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("report.json");
        let run = json!({"date": "", "commit": "0123-dirty", "machine": "", "arguments": []});
        fs::write(&path, json!({"run": run, "rows": [{"id": "row"}]}).to_string()).unwrap();
        let said = KeptReport::keep(&path, "nothing").unwrap_err();
        assert!(said.ends_with("is of a tree with changes: 0123-dirty"), "{said}");
    }

    #[test]
    fn committed_reports_are_read() {
        for command in ["chaos", "bench", "bench-quick", "bench-policy", "interop"] {
            KeptReport::all_of(command).unwrap();
        }
    }
}
