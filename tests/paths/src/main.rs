//! Counts the files and functions of the product that each of seven paths enters: what a running gateway calls with the
//! path and not in runs without it.

mod coverage;
mod gateway;
mod page;
mod path;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use coverage::{Coverage, Entered, MappedProgram};
use evenkeel_report as report;
use path::{ALL, PlayedPath, skipped};
use serde::{Deserialize, Serialize};

/// The share of the baseline that a path may enter, in per cent.
const SHARE_MAX: usize = 55;

/// A call by chance, such as one of a late timer, is not repeated.
const PLAYS: usize = 2;

/// Counts the files and functions that each path through the gateway enters
#[derive(Parser)]
#[command(version, about, max_term_width = 100)]
struct Arguments {
    /// The gateway, built with counters
    #[arg(long, value_name = "PROGRAM")]
    evenkeel: PathBuf,
    /// The sources of that program
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    sources: PathBuf,
    /// Play only paths with this in their name
    #[arg(long, value_name = "TEXT", default_value = "")]
    path: String,
    /// List the functions
    #[arg(long)]
    verbose: bool,
    /// Write the lists of files to docs/contributing/paths.md
    #[arg(long)]
    renew: bool,
    /// Path of the report
    #[arg(long, default_value = "target/paths/report.json")]
    report: PathBuf,
}

/// The count of one path.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Counted {
    files: usize,
    functions: usize,
}

/// The count before the paths were shortened.
#[derive(Deserialize)]
struct Baseline {
    commit: String,
    paths: BTreeMap<String, Counted>,
}

#[derive(Serialize)]
struct Row {
    id: &'static str,
    held: bool,
    skipped: Option<&'static str>,
    figures: Option<Counted>,
    limits: BTreeMap<&'static str, usize>,
}

fn main() -> ExitCode {
    report::end("evenkeel-paths", run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let program = report::gateway(&arguments.evenkeel, "paths")?;
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let program = MappedProgram::copy(&program, folder.path())?;
    let root = arguments.sources.canonicalize().map_err(|error| error.to_string())?;
    let baseline: Baseline = serde_json::from_str(include_str!("../baseline.json"))
        .map_err(|error| format!("baseline.json: {error}"))?;
    let mut coverage = None;
    let (mut rows, mut lists) = (Vec::new(), page::Lists::new());
    println!("{:12}{:>7}{:>11}   share of {}", "path", "files", "functions", &baseline.commit[..8]);
    for path in ALL.iter().filter(|path| path.id.contains(&arguments.path)) {
        let before = baseline.paths.get(path.id).copied();
        let limits =
            before.map(|before| ("files", before.files * SHARE_MAX / 100)).into_iter().collect();
        if let Some(reason) = skipped(path.id) {
            println!("{:12}skipped: {reason}", path.id);
            rows.push(Row {
                id: path.id,
                held: false,
                skipped: Some(reason),
                figures: None,
                limits,
            });
            continue;
        }
        let entered = play(path, &program.path, &root, &mut coverage)?;
        let figures =
            Counted { files: entered.len(), functions: entered.values().map(BTreeSet::len).sum() };
        let shares = before.map_or_else(String::new, |before| {
            let share = |now: usize, before: usize| now * 100 / before.max(1);
            format!(
                "   {} % of {} files, {} % of {} functions",
                share(figures.files, before.files),
                before.files,
                share(figures.functions, before.functions),
                before.functions
            )
        });
        println!("{:12}{:>7}{:>11}{shares}", path.id, figures.files, figures.functions);
        if arguments.verbose {
            print(&entered);
        }
        let held = limits.get("files").is_none_or(|most| figures.files <= *most);
        rows.push(Row { id: path.id, held, skipped: None, figures: Some(figures), limits });
        lists.insert(path.id, entered.into_keys().collect());
    }
    report::write(&BTreeMap::from([("rows", rows)]), &arguments.report)?;
    page::compare(&root, &lists, arguments.renew)
}

/// Plays a path several times. Returns the functions that are called in each run of the path, and not by work that
/// is also done without it.
fn play(
    path: &PlayedPath,
    program: &Path,
    root: &Path,
    coverage: &mut Option<Coverage>,
) -> Result<Entered, String> {
    let failed = |reason| format!("{}: {reason}", path.id);
    let (mut idle, mut runs) = (Vec::new(), Vec::new());
    for _ in 0..PLAYS {
        let observed = (path.play)(program).map_err(failed)?;
        let coverage = match coverage {
            Some(coverage) => coverage,
            None => {
                coverage.insert(Coverage::of(program, root, &observed.runs[0].0).map_err(failed)?)
            }
        };
        for (from, to) in [(&observed.idle, &mut idle), (&observed.runs, &mut runs)] {
            for run in from {
                to.push(coverage.entered(run).map_err(failed)?);
            }
        }
    }
    let mut runs = runs.into_iter();
    let mut entered = runs.next().unwrap_or_default();
    entered.retain(|file, functions| {
        let is_called =
            |run: &Entered, name: &String| run.get(file).is_some_and(|names| names.contains(name));
        functions.retain(|name| {
            runs.as_slice().iter().all(|run| is_called(run, name))
                && idle.iter().filter(|run| is_called(run, name)).count() * 2 < idle.len()
        });
        !functions.is_empty()
    });
    Ok(entered)
}

fn print(entered: &Entered) {
    for (file, functions) in entered {
        println!("  {file}");
        functions.iter().for_each(|name| println!("    {name}"));
    }
}
