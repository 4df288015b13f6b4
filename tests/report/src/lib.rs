//! Limits, gateway path, report file and exit code of commands that measure or accept.

mod earlier;
mod gate;
mod kept;
mod limits;
mod row;
mod run;

use std::fs;
use std::io::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

pub use earlier::earlier_rows;
pub use gate::GateReport;
pub use kept::{KeptReport, LAST};
pub use limits::{FigureLimit, LimitTable, RowLimits, SAMPLES_MIN, SectionLimits};
pub use row::AcceptanceRow;
pub use run::Run;

/// A report with its run.
#[derive(Serialize)]
struct Ran<'a, R> {
    run: Run,
    #[serde(flatten)]
    report: &'a R,
}

/// Prints an error, and returns the exit code: 0 success, 1 failure.
pub fn end(name: &str, outcome: Result<(), String>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{name}: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The absolute path of the gateway's program.
///
/// # Errors
/// If the program is missing; the error names the `make` target that builds it.
pub fn gateway(program: &Path, make: &str) -> Result<PathBuf, String> {
    let missing =
        |error| format!("no gateway at {}: {error}; `make {make}` builds it", program.display());
    fs::canonicalize(program).map_err(missing)
}

/// The absolute path of a folder, created if missing.
pub fn folder(path: &Path) -> Result<PathBuf, String> {
    let failed = |error| format!("cannot make {}: {error}", path.display());
    fs::create_dir_all(path).map_err(failed)?;
    fs::canonicalize(path).map_err(failed)
}

/// Writes a report as JSON, with its run, and creates its folder. Readers see the old report or the complete new one.
pub fn write(report: &impl Serialize, path: &Path) -> Result<(), String> {
    let failed = |error: Error| format!("cannot write {}: {error}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let report = Ran { run: Run::current(), report };
    let text = serde_json::to_string_pretty(&report).map_err(|error| failed(error.into()))?;
    let next = path.with_extension("next");
    fs::write(&next, text + "\n").and_then(|()| fs::rename(&next, path)).map_err(failed)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tempfile::tempdir;

    use super::*;

    #[test]
    fn report_replaces_the_earlier_one() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("of/this/report.json");
        for rows in [3, 1] {
            write(&json!({"rows": vec![0; rows]}), &path).unwrap();
            let read: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            assert_eq!(read["rows"].as_array().map(Vec::len), Some(rows));
        }
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn report_names_its_run() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("report.json");
        write(&json!({"rows": []}), &path).unwrap();
        let read: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let run: Run = serde_json::from_value(read["run"].clone()).unwrap();
        assert!(run.date.starts_with("20") && run.date.ends_with('Z'), "{run:?}");
        assert!(!run.commit.is_empty() && run.machine.contains("Linux"), "{run:?}");
    }

    #[test]
    fn missing_gateway_names_its_make_target() {
        let said = gateway(Path::new("/nowhere/evenkeel"), "chaos").unwrap_err();
        assert!(said.starts_with("no gateway at /nowhere/evenkeel: "), "{said}");
        assert!(said.ends_with("`make chaos` builds it"), "{said}");
    }
}
