//! Copies a report to `tests/report/last`, from which the tables of `docs/benchmarks.md` are made (`make keep-report`), joins the reports of
//! `make gate`, or prints the run of this process.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use evenkeel_report::{GateReport, KeptReport, Run};

const USAGE: &str = "usage: evenkeel-report keep REPORT NAME | evenkeel-report gate OUT STEP=REPORT... | evenkeel-report run";

/// Writes the report of all steps, prints it, and fails if a limit was missed.
fn gate(out: &str, steps: &[&str]) -> Result<(), String> {
    let steps = steps
        .iter()
        .map(|step| step.split_once('=').map(|(name, path)| (name, PathBuf::from(path))));
    let steps: Vec<(&str, PathBuf)> = steps.collect::<Option<_>>().ok_or(USAGE)?;
    let report = GateReport::read(&steps);
    evenkeel_report::write(&report, Path::new(out))?;
    for row in report.rows() {
        println!("{:<14}{}", row.word(), row.id);
        let misses: Vec<String> = row.exceeded().chain(row.misses.iter().cloned()).collect();
        misses.iter().for_each(|miss| println!("{:<14}{miss}", ""));
    }
    println!("written to {out}");
    report.verdict()
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["keep", report, name] => KeptReport::keep(Path::new(report), name)
            .map(|kept| println!("{}; run `make reference`", kept.display())),
        ["gate", out, ref steps @ ..] if !steps.is_empty() => gate(out, steps),
        ["run"] => serde_json::to_string(&Run::current())
            .map(|run| println!("{run}"))
            .map_err(|error| error.to_string()),
        _ => Err(USAGE.to_owned()),
    };
    evenkeel_report::end("evenkeel-report", outcome)
}
