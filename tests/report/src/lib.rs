//! Gateway path, report file and exit code of commands that measure or accept.

use std::collections::BTreeMap;
use std::fs;
use std::io::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

/// A row of `target/COMMAND/report.json`. All commands that measure or accept write this form.
#[derive(Clone, PartialEq, Default, Debug, Serialize)]
pub struct AcceptanceRow {
    pub id: String,
    /// False if a limit was exceeded or the row was skipped.
    pub held: bool,
    /// The reason for which the row was not measured.
    pub skipped: Option<String>,
    pub figures: BTreeMap<String, f64>,
    /// The upper bound of the figure of the same name. A key that ends in `_min` is a lower bound.
    pub limits: BTreeMap<String, f64>,
}

impl AcceptanceRow {
    pub fn skipped(id: impl Into<String>, reason: impl Into<String>) -> AcceptanceRow {
        AcceptanceRow { id: id.into(), skipped: Some(reason.into()), ..AcceptanceRow::default() }
    }

    /// Measured: the row holds if each figure with a limit is within it.
    pub fn measured(
        id: impl Into<String>,
        figures: BTreeMap<String, f64>,
        limits: BTreeMap<String, f64>,
    ) -> AcceptanceRow {
        let held = limits.iter().all(|(name, limit)| match name.strip_suffix("_min") {
            Some(name) => figures.get(name).is_none_or(|figure| figure >= limit),
            None => figures.get(name).is_none_or(|figure| figure <= limit),
        });
        AcceptanceRow { id: id.into(), held, skipped: None, figures, limits }
    }
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

/// Writes a report as JSON, and creates its folder. Readers see the old report or the complete new one.
pub fn write(report: &impl Serialize, path: &Path) -> Result<(), String> {
    let failed = |error: Error| format!("cannot write {}: {error}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let text = serde_json::to_string_pretty(report).map_err(|error| failed(error.into()))?;
    let next = path.with_extension("next");
    fs::write(&next, text + "\n").and_then(|()| fs::rename(&next, path)).map_err(failed)
}

#[cfg(test)]
mod tests {
    use tempfile::tempdir;

    use super::*;

    #[test]
    fn row_holds_within_its_limits() {
        let row = |figure: f64, limit: &str| {
            let map = |name: &str, value| BTreeMap::from([(name.to_owned(), value)]);
            AcceptanceRow::measured("row", map("pps", figure), map(limit, 10.0)).held
        };
        assert_eq!([9.0, 10.0, 11.0].map(|figure| row(figure, "pps")), [true, true, false]);
        assert_eq!([9.0, 10.0, 11.0].map(|figure| row(figure, "pps_min")), [false, true, true]);
        assert!(!AcceptanceRow::skipped("row", "no peer").held);
    }

    #[test]
    fn report_replaces_the_earlier_one() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("of/this/report.json");
        for rows in [3, 1] {
            write(&vec![0; rows], &path).unwrap();
            let read: Vec<u8> = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            assert_eq!(read.len(), rows);
        }
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn missing_gateway_names_its_make_target() {
        let said = gateway(Path::new("/nowhere/evenkeel"), "chaos").unwrap_err();
        assert!(said.starts_with("no gateway at /nowhere/evenkeel: "), "{said}");
        assert!(said.ends_with("`make chaos` builds it"), "{said}");
    }
}
