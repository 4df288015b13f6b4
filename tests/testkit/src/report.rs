//! What everything that measures a built gateway has alike: where it finds that, where its report goes, how it ends.

use std::fs;
use std::io::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

/// How a program of this name ends: 0 it ran · 1 it could not, and says why.
pub fn end(name: &str, outcome: Result<(), String>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{name}: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The gateway's program, by its whole path.
///
/// # Errors
/// There is none; what would `make` one is said.
pub fn gateway(program: &Path, make: &str) -> Result<PathBuf, String> {
    let missing =
        |error| format!("no gateway at {}: {error}; `make {make}` builds it", program.display());
    fs::canonicalize(program).map_err(missing)
}

/// A folder by its whole path, made where there is none.
pub fn folder(path: &Path) -> Result<PathBuf, String> {
    let failed = |error| format!("cannot make {}: {error}", path.display());
    fs::create_dir_all(path).map_err(failed)?;
    fs::canonicalize(path).map_err(failed)
}

/// Writes a report as JSON, its folder made where there is none. Whoever reads it meanwhile, or after this was
/// interrupted, finds the whole one before or the whole one after.
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
    fn report_takes_the_place_of_the_one_before() {
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
    fn gateway_that_is_missing_is_said_with_what_makes_it() {
        let said = gateway(Path::new("/nowhere/evenkeel"), "chaos").unwrap_err();
        assert!(said.starts_with("no gateway at /nowhere/evenkeel: "), "{said}");
        assert!(said.ends_with("`make chaos` builds it"), "{said}");
    }
}
