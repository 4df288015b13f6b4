//! Breaks nodes, links and regions under a running gateway, with real processes and signals, and measures what its
//! sessions hear: each fault with its un-fault, and a control run before them.
//!
//! Everything runs in one network namespace of its own. Exit codes: 0 it ran, whether a limit held or not · 1 it could
//! not run · 2 the command line is wrong.

mod baseline;
mod fault;
mod firewall;
mod layout;
mod left_out;
mod limits;
mod looks;
mod moves;
mod newcomers;
mod node;
mod play;
mod process;
mod report;
mod row;
mod rows;
mod rtpengine;
mod stage;
mod table;
mod weather;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use evenkeel_lab::machine::Watched;
use evenkeel_testkit::namespace;

use report::{Played, Report};
use stage::Places;

/// Break nodes, links and regions under a running gateway, and measure what its sessions hear
#[derive(Parser)]
#[command(version, about, arg_required_else_help = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Every row, or some of them
    Run(Choice),
    /// Be a node with a vice
    #[command(hide = true)]
    Node(node::Node),
    /// Be a relay with a health check every 5 s
    #[command(hide = true)]
    Relay(baseline::Relay),
}

/// A row that takes longer has come to a standstill.
const ROW_WITHIN: Duration = Duration::from_secs(300);
/// All rows take no longer; what does not fit is not played. The comparison comes on top of that.
const ALL_WITHIN: Duration = Duration::from_secs(50 * 60);

/// What the comparison is called on the command line.
const OUTAGE: &str = "outage";

/// What of it, for people who look for something.
#[derive(Args, Clone, Debug)]
struct Choice {
    /// Only rows whose id has this in it; `outage` is the comparison at the end
    #[arg(long, value_name = "TEXT", default_value = "")]
    rows: String,
    /// Sessions, instead of each row's own
    #[arg(long)]
    sessions: Option<u32>,
    /// Both of a room talk, instead of one: for more than two cores
    #[arg(long)]
    both_ways: bool,
    /// Kills, instead of each row's own
    #[arg(long)]
    kills: Option<u32>,
    /// Where all dice come from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the gateway is
    #[arg(long, value_name = "FILE", default_value = "target/release/evenkeel")]
    evenkeel: PathBuf,
    /// Where the report goes; `target/chaos/report.json`, or `part.json` there where it is not all
    /// rows as they are
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::Run(choice) => run(&choice),
        Verb::Node(node) => node.act(),
        Verb::Relay(relay) => relay.act(),
    };
    evenkeel_testkit::report::end("evenkeel-chaos", outcome)
}

fn run(choice: &Choice) -> Result<(), String> {
    let mut rows = rows::all();
    rows.retain(|row| row.id.contains(&choice.rows));
    let with_outage = OUTAGE.contains(&choice.rows);
    if rows.is_empty() && !with_outage {
        return Err(format!("--rows {:?}: no row has this in its id", choice.rows));
    }
    if let Some(status) = namespace::enter()? {
        std::process::exit(status);
    }
    let places = choice.places()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot run: {error}"))?;
    let mut report = Report::default();
    let out = choice.out();
    let began = Instant::now();
    // What was measured before is no part of this, however soon it is interrupted.
    report.write(&out)?;
    table::head();
    for row in rows {
        let row = row.scaled(choice);
        let left = ALL_WITHIN.saturating_sub(began.elapsed()).min(ROW_WITHIN);
        let mut played = Played::default();
        let machine = Watched::begin();
        let playing = async {
            let play = play::play(&row, &places, choice.seed, &mut played);
            tokio::time::timeout(left, play).await
        };
        let outcome = runtime.block_on(playing);
        let outcome = outcome.unwrap_or_else(|_| Err(format!("not played within {left:.0?}")));
        let row = report::RowReport::new(&row, played, machine.so_far(), outcome.err());
        table::row(&row);
        report.add(row);
        report.write(&out)?;
    }
    if with_outage {
        let outage = runtime.block_on(baseline::measure(&places, choice.seed));
        table::outage(&outage);
        report.compare(outage);
        report.write(&out)?;
    }
    table::foot(report.late(), report.len());
    println!("written to {}", out.display());
    Ok(())
}

impl Choice {
    /// Where the report goes: that of a part takes no whole one's place.
    fn out(&self) -> PathBuf {
        let changed = self.sessions.is_some() || self.kills.is_some() || self.both_ways;
        let is_part = !self.rows.is_empty() || changed;
        let name = if is_part { "part.json" } else { "report.json" };
        self.out.clone().unwrap_or_else(|| PathBuf::from("target/chaos").join(name))
    }

    fn places(&self) -> Result<Places, String> {
        let evenkeel = evenkeel_testkit::report::gateway(&self.evenkeel, "chaos")?;
        let folder = evenkeel_testkit::report::folder(Path::new("target/chaos/run"))?;
        let own =
            std::env::current_exe().map_err(|error| format!("cannot find itself: {error}"))?;
        Ok(Places { evenkeel, own, folder })
    }
}
