//! Measures the gateway beside a bare relay (the floor), the same with all that a relay can win (the limit) and its
//! peers: side by side in one run, rounds interleaved, with medians and spread.
//!
//! Everything runs in one network namespace with a private address. Generator and sinks are on core 0, what is measured
//! on core 1. Exit codes: 0 measured, whether a target is met or missed · 1 a packet reached the wrong session, or it
//! could not measure · 2 the command line is wrong.

mod bare;
mod measuring;
mod namespace;
mod process;
mod relay;
mod report;
mod rounds;
mod row;
mod rows;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use relay::{Kind, Places};
use report::Report;
use rounds::Effort;
use row::Row;

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
    /// Be a relay without any feature
    #[command(hide = true)]
    Relay { manner: bare::Manner },
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
        Verb::Quick(choice) => measure(&choice, rows::quick(), "target/bench/quick.json"),
        Verb::Full(choice) => measure(&choice, rows::full(), "target/bench/report.json"),
        Verb::Relay { manner } => bare::run(manner),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("evenkeel-bench: {why}");
            ExitCode::FAILURE
        }
    }
}

fn measure(choice: &Choice, mut rows: Vec<Row>, out: &str) -> Result<(), String> {
    if let Some(status) = namespace::enter()? {
        std::process::exit(status);
    }
    process::pin(process::LOAD_CORE)?;
    rows.retain(|row| row.title().contains(&choice.rows));
    let places = choice.places()?;
    let relays = choice.relays(&places)?;
    let window = Duration::from_secs_f64(choice.seconds);
    let effort = Effort { rounds: choice.rounds.max(1), window };
    table::head();
    let report =
        Report { rows: measuring::rows(&rows, &relays, &places, effort)?, ..Report::default() };
    let out = choice.out.clone().unwrap_or_else(|| PathBuf::from(out));
    report.write(&out)?;
    println!("written to {}", out.display());
    match report.rows.iter().map(|row| row.misdelivered).sum() {
        0 => Ok(()),
        packets => Err(format!("{packets} packets reached somebody else than they were for")),
    }
}

impl Choice {
    /// Those that are wanted and there; the others are named with the reason.
    fn relays(&self, places: &Places) -> Result<Vec<Kind>, String> {
        let known = |name: &String| Kind::ALL.into_iter().find(|kind| kind.name() == name);
        if let Some(stranger) = self.relays.iter().find(|name| known(name).is_none()) {
            let names = Kind::ALL.map(Kind::name).join(", ");
            return Err(format!("--relays {stranger:?}: one of {names} is expected"));
        }
        let wanted = |kind: &Kind| {
            self.relays.is_empty() || self.relays.iter().any(|name| name == kind.name())
        };
        let mut relays = Vec::new();
        for kind in Kind::ALL.into_iter().filter(wanted) {
            match kind.missing(places) {
                None => relays.push(kind),
                Some(why) => println!("skipped {}: {why}", kind.name()),
            }
        }
        Ok(relays)
    }

    fn places(&self) -> Result<Places, String> {
        let evenkeel = std::fs::canonicalize(&self.evenkeel).map_err(|error| {
            format!("no gateway at {}: {error}; `make bench` builds it", self.evenkeel.display())
        })?;
        let folder = PathBuf::from("target/bench/run");
        let failed = |error| format!("cannot make {}: {error}", folder.display());
        std::fs::create_dir_all(&folder).map_err(failed)?;
        let peers = PathBuf::from("target/bench/peers");
        Ok(Places { evenkeel, folder: std::fs::canonicalize(&folder).map_err(failed)?, peers })
    }
}
