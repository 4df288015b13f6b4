//! Injects faults into nodes, links and regions of a running gateway, with real processes and signals, and measures the
//! effect on its sessions. Each row has a control run before its faults.
//!
//! Everything runs in one private network namespace. Exit codes: 0 the rows ran, whether limits held or not · 1 they
//! could not run · 2 wrong command line.

mod baseline;
mod death_counts;
mod diagnosis;
mod fault;
mod firewall;
mod gateway;
mod gateways;
mod hosts;
mod impairment;
mod layout;
mod limits;
mod moves;
mod newcomers;
mod node;
mod node_samples;
mod offers;
mod play;
mod prediction;
mod process;
mod processors;
mod report;
mod row;
mod rows;
mod rtpengine;
mod runs;
mod stage;
mod store;
mod table;
mod tcp_link;
mod tries;
mod unplaced;
mod webhook;
mod webrtc;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use evenkeel_lab::machine::MachineWatch;
use evenkeel_report::{AcceptanceRow, LimitTable};
use evenkeel_testkit::namespace;
use serde_json::Value;

use diagnosis::DiagnosisReport;
use limits::Limits;
use report::{Played, Report, RowReport};
use runs::RowRuns;
use stage::Places;
use tries::Tries;

/// A JSON string; empty for any other type.
fn word(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Inject faults into a running gateway and measure the effect on its sessions
#[derive(Parser)]
#[command(version, about, arg_required_else_help = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run all rows, or some of them
    Run(Choice),
    /// Break one segment of sessions' paths after another, and count the sessions for which the gateway names it
    Diagnosis(DiagnosisOptions),
    /// Run a node that misbehaves
    #[command(hide = true)]
    Node(node::Node),
    /// Run a node for driver `webhook`, which returns packets to their source
    #[command(hide = true)]
    WebhookNode(webhook::WebhookNode),
    /// Be a relay with a health check every 5 s
    #[command(hide = true)]
    Relay(baseline::Relay),
}

/// Options of `diagnosis`.
#[derive(Args, Clone, Debug)]
struct DiagnosisOptions {
    /// Sessions of each fault, two per room
    #[arg(long, default_value_t = 60)]
    sessions: u32,
    /// Repetitions of each fault
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    rounds: u32,
    /// Seed of all random choices
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Path of the gateway's program
    #[arg(long, value_name = "FILE", default_value = "target/release/evenkeel")]
    evenkeel: PathBuf,
    /// Path of the report
    #[arg(long, value_name = "FILE", default_value = "target/bench-diagnosis/report.json")]
    out: PathBuf,
}

/// Time limit of a row; a slower row hangs.
const ROW_WITHIN: Duration = Duration::from_secs(300);
/// Time limit of all rows in each run; the rest is skipped. The comparison has its own time.
const ALL_WITHIN: Duration = Duration::from_secs(50 * 60);

/// The names of the comparisons on the command line.
const OUTAGE: &str = "outage";
const KEEPALIVED: &str = "gateway.keepalived";

/// Options to run a part.
#[derive(Args, Clone, Debug)]
struct Choice {
    /// Run only rows with this in their id; `outage` and `gateway.keepalived` are comparisons at the end
    #[arg(long, value_name = "TEXT", default_value = "")]
    rows: String,
    /// Run only rows that `tests/limits.toml` has `gate = true` for
    #[arg(long)]
    gate: bool,
    /// Sessions, instead of each row's own
    #[arg(long)]
    sessions: Option<u32>,
    /// Both of a room talk, instead of one: for more than two cores
    #[arg(long)]
    both_ways: bool,
    /// Kills, instead of each row's own
    #[arg(long)]
    kills: Option<u32>,
    /// Runs of each row; the report names how many held, and the spread of their figures
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Seed of all random choices; each further run of a row has the next one
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Path of the gateway's program
    #[arg(long, value_name = "FILE", default_value = "target/release/evenkeel")]
    evenkeel: PathBuf,
    /// Path of an earlier program: each row's first gateway runs it, and upgrades, standbys and restarts run the other
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Path of the report; default: `target/chaos/report.json`, or `part.json` there for a part of the rows
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::Run(choice) => run(&choice),
        Verb::Diagnosis(options) => diagnose(&options),
        Verb::Node(node) => node.act(),
        Verb::WebhookNode(node) => node.run(),
        Verb::Relay(relay) => relay.act(),
    };
    evenkeel_report::end("evenkeel-chaos", outcome)
}

fn run(choice: &Choice) -> Result<(), String> {
    let mut rows = rows::all();
    let ids: Vec<&str> = rows.iter().map(|row| row.id).collect();
    let table = LimitTable::load()?.rows_of("chaos", &ids)?;
    rows.retain(|row| row.id.contains(&choice.rows) && (!choice.gate || table.is_gate(row.id)));
    let has_comparison = |name: &str| name.contains(&choice.rows) && !choice.gate;
    let (with_outage, with_keepalived) = (has_comparison(OUTAGE), has_comparison(KEEPALIVED));
    if rows.is_empty() && !with_outage && !with_keepalived {
        return Err(format!("--rows {:?}: no row has this in its id", choice.rows));
    }
    if let Some(status) = namespace::enter()? {
        std::process::exit(status);
    }
    let mut places = places(&choice.evenkeel, "chaos")?;
    let from = choice.from.as_deref();
    places.from = from.map(|from| evenkeel_report::gateway(from, "chaos")).transpose()?;
    let runtime = runtime()?;
    let mut report = Report::default();
    let out = choice.out();
    let began = Instant::now();
    // Replaces the report of an earlier run, even if this one is interrupted soon.
    report.write(&out)?;
    table::head();
    for row in rows {
        let limits = Limits::of(&row, &table);
        if let Err(reason) = row.requirement() {
            println!("{} skipped: {reason}", row.id);
            report.add(RowReport::skipped(&row, &limits, reason));
            report.write(&out)?;
            continue;
        }
        let row = row.scaled(choice);
        // By id, since a run with fewer sessions has its own.
        let mut runs: BTreeMap<String, Vec<AcceptanceRow>> = BTreeMap::new();
        for seed in (choice.seed..).take(choice.runs as usize) {
            let left = (ALL_WITHIN * choice.runs).saturating_sub(began.elapsed()).min(ROW_WITHIN);
            let tries = Tries::begin(row, &limits, choice.sessions.is_none());
            let play = play_row(tries, &places, seed, left);
            for run in runtime.block_on(play) {
                table::row(&run);
                runs.entry(run.row.id.clone()).or_default().push(run.row.clone());
                report.add(run);
            }
            report.write(&out)?;
        }
        for runs in runs.values().filter(|_| choice.runs > 1) {
            let Some(runs) = RowRuns::of(runs, limits.runs_exceeded()) else { continue };
            table::runs(&runs);
            report.add_runs(runs);
            report.write(&out)?;
        }
    }
    if with_outage {
        let outage = runtime.block_on(baseline::measure(&places, choice.seed));
        table::outage(&outage);
        report.compare(outage);
        report.write(&out)?;
    }
    if with_keepalived {
        let standby = runtime.block_on(baseline::keepalived::measure(&places, choice.seed));
        table::keepalived(&standby);
        report.compare_keepalived(standby);
        report.write(&out)?;
    }
    table::foot(report.late(), report.len());
    println!("written to {}", out.display());
    Ok(())
}

fn diagnose(options: &DiagnosisOptions) -> Result<(), String> {
    if let Some(status) = namespace::enter()? {
        std::process::exit(status);
    }
    let places = places(&options.evenkeel, "bench-diagnosis")?;
    let DiagnosisOptions { sessions, rounds, seed, .. } = *options;
    let limits = LimitTable::load()?.rows_of("diagnosis", &DiagnosisReport::ids())?;
    let report = DiagnosisReport::measure(&places, &limits, sessions, rounds, seed);
    let report = runtime()?.block_on(report);
    evenkeel_report::write(&report, &options.out)?;
    println!("written to {}", options.out.display());
    Ok(())
}

fn runtime() -> Result<tokio::runtime::Runtime, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| format!("cannot run: {error}"))
}

fn places(evenkeel: &Path, command: &str) -> Result<Places, String> {
    let evenkeel = evenkeel_report::gateway(evenkeel, command)?;
    let folder = evenkeel_report::folder(&Path::new("target").join(command).join("run"))?;
    let own = std::env::current_exe().map_err(|error| format!("cannot find itself: {error}"))?;
    Ok(Places { evenkeel, from: None, own, folder })
}

/// Plays a row, again if a run measured nothing, and returns its reports.
async fn play_row(
    mut tries: Tries<'_>,
    places: &Places,
    seed: u64,
    within: Duration,
) -> Vec<RowReport> {
    let until = tokio::time::Instant::now() + within;
    loop {
        let mut played = Played::default();
        let machine = MachineWatch::begin();
        let (row, limits) = (*tries.row(), tries.limits());
        let play = play::play(&row, places, seed, limits, tries.busy_at(), &mut played);
        let outcome = tokio::time::timeout_at(until, play).await;
        let outcome = outcome.unwrap_or_else(|_| Err(format!("did not end within {within:.0?}")));
        match tries.after(outcome, played, machine.so_far()) {
            ControlFlow::Continue(next) => tries = next,
            ControlFlow::Break(reports) => return reports,
        }
    }
}

impl Choice {
    /// The path of the report. A partial report does not replace a full one.
    fn out(&self) -> PathBuf {
        let changed = self.sessions.is_some()
            || self.kills.is_some()
            || self.from.is_some()
            || self.both_ways
            || self.runs > 1;
        let is_part = !self.rows.is_empty() || self.gate || changed;
        let name = if is_part { "part.json" } else { "report.json" };
        self.out.clone().unwrap_or_else(|| PathBuf::from("target/chaos").join(name))
    }
}
