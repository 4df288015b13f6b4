//! Measures the gateway beside a bare relay (the floor), the same with all that a relay can win (the limit) and its
//! peers: side by side in one run, rounds interleaved, with medians and spread.
//!
//! Everything runs in one network namespace with a private address. Generator and sinks are on core 0, what is measured
//! on core 1. Exit codes: 0 measured, whether a target is met or missed · 1 a packet reached the wrong session, or it
//! could not measure · 2 the command line is wrong.

mod namespace;
mod report;
mod row;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use report::Report;

/// Measure the gateway beside a bare relay, the limit and its peers
#[derive(Parser)]
#[command(version, about, arg_required_else_help = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Voice to six nodes over port and trunk legs, at three loads: a few minutes
    Quick(Choice),
    /// Every row and every figure: most of an hour
    Full(Choice),
}

/// What of it, for people who tune.
#[derive(Args, Clone, Debug)]
pub(crate) struct Choice {
    /// Only rows whose name has this in it
    #[arg(long, value_name = "TEXT", default_value = "")]
    rows: String,
    /// Only these, as `ours,floor,limit`
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    relays: Vec<String>,
    /// Windows per relay and row
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of a window
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Where the gateway is
    #[arg(long, value_name = "FILE", default_value = "target/release/evenkeel")]
    evenkeel: PathBuf,
    /// Where the report goes; `quick.json` or `report.json` under `target/bench` unless named
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::Quick(choice) => measure(&choice, "target/bench/quick.json"),
        Verb::Full(choice) => measure(&choice, "target/bench/report.json"),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("evenkeel-bench: {why}");
            ExitCode::FAILURE
        }
    }
}

fn measure(choice: &Choice, out: &str) -> Result<(), String> {
    if let Some(status) = namespace::enter()? {
        std::process::exit(status);
    }
    let report = Report::default();
    let out = choice.out.clone().unwrap_or_else(|| PathBuf::from(out));
    report.write(&out)
}
