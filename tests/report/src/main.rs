//! Copies a report to `tests/report/last`, from which the tables of `docs/benchmarks.md` are made (`make keep-report`), or prints the run of
//! this process.

use std::path::Path;
use std::process::ExitCode;

use evenkeel_report::{KeptReport, Run};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["keep", report, name] => KeptReport::keep(Path::new(report), name)
            .map(|kept| println!("{}; run `make reference`", kept.display())),
        ["run"] => serde_json::to_string(&Run::current())
            .map(|run| println!("{run}"))
            .map_err(|error| error.to_string()),
        _ => Err("usage: evenkeel-report keep REPORT NAME | evenkeel-report run".to_owned()),
    };
    evenkeel_report::end("evenkeel-report", outcome)
}
