//! `evenkeel-simulate`: plays many seeds, one seed with a trace, or the named long runs.

use std::process::ExitCode;

use clap::Parser;
use evenkeel_simulate::rows::{ROWS, Report, Scale};
use evenkeel_simulate::{Change, Comparison, Library, Listed, Script, Swarm, World, policy_name};

/// Simulates worlds in virtual time, each from one seed, and reports violated invariants
#[derive(Parser)]
struct Arguments {
    /// Number of seeds
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// First seed
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Play only this seed, with a trace
    #[arg(long)]
    seed: Option<u64>,
    /// With --seed: play it with the shipped plugins and with this one, and compare the results
    #[arg(long, value_name = "SET/HOOK=FILE.wasm", requires = "seed")]
    policy: Vec<String>,
    /// With --seed: the same with other settings, of the shipped plugin or of the one given by --policy
    #[arg(long, value_name = "SET/HOOK=FILE.json", requires = "seed")]
    settings: Vec<String>,
    /// Stop at the first violated invariant
    #[arg(long)]
    until_broken: bool,
    /// Play the long runs (all, or those named), write the report, and exit with 1 if one misses its limit
    #[arg(long, num_args = 0.., value_name = "ROW")]
    rows: Option<Vec<String>>,
    /// Compare the detector's probe rule with phi-accrual on the same traces
    #[arg(long)]
    phi: bool,
    /// Path of the report of the long runs
    #[arg(long, default_value = "target/simulate/report.json")]
    report: std::path::PathBuf,
    /// Write each seed's digest to this file, to compare two versions of the core
    #[arg(long, value_name = "FILE")]
    digests: Option<std::path::PathBuf>,
    /// Number of threads; default: all cores
    #[arg(long)]
    threads: Option<usize>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(seed) = arguments.seed {
        if arguments.policy.is_empty() && arguments.settings.is_empty() {
            return replay(seed);
        }
        return comparison(seed, &arguments.policy, &arguments.settings);
    }
    if arguments.phi {
        evenkeel_simulate::phi::compare();
        return ExitCode::SUCCESS;
    }
    if let Some(names) = arguments.rows {
        return report(&names, &arguments.report);
    }
    let threads = arguments
        .threads
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, Into::into));
    let seeds = arguments.from..arguments.from.saturating_add(arguments.seeds);
    let totals = Swarm { seeds, threads, until_broken: arguments.until_broken }.play();
    if let Some(path) = &arguments.digests {
        let lines =
            totals.digests.iter().map(|(seed, digest)| format!("{seed} {:016x}\n", digest.0));
        if let Err(error) = std::fs::write(path, lines.collect::<String>()) {
            eprintln!("evenkeel-simulate: cannot write {}: {error}", path.display());
            return ExitCode::from(2);
        }
    }
    let sum = &totals.sum;
    println!(
        "{} worlds, {:.0} s of virtual time, {} packets sent, {} delivered",
        totals.worlds,
        totals.lasted.as_secs_f64(),
        sum.packets,
        sum.delivered
    );
    println!(
        "{} sessions admitted, {} offers refused, {} questions to plugins, {} deaths",
        sum.admitted, sum.refused, sum.asked, sum.deaths
    );
    println!("moves of rooms: {:?}", sum.moves);
    println!("nodes marked down by: {:?}", sum.witnesses);
    println!("detected in time by: {:?}", sum.known);
    println!(
        "{} hops removed from rooms, {} breakers opened, {} nodes started, {} drains ended",
        sum.struck, sum.breakers, sum.started, sum.drained
    );
    let Listed { added, taken_again, removed, kept, forgotten, changed } = sum.listed;
    println!(
        "{added} nodes listed ({taken_again} with a reused number), {removed} delisted ({kept} kept, {forgotten} forgotten), {changed} changed"
    );
    println!(
        "groups: {:.0} s of virtual time, takeovers {:?}, {} leases lapsed",
        sum.group.lasted.as_secs_f64(),
        sum.group.takeovers,
        sum.group.lapses
    );
    println!(
        "decisions: {} acknowledged, continued by {:?}",
        sum.records.acknowledged, sum.records.replaced
    );
    println!(
        "indices of SRTP: {} used, {} packets refused, {} sessions continued, {} ended, processes replaced by {:?}",
        sum.indices.sent,
        sum.indices.refused,
        sum.indices.continued,
        sum.indices.ended,
        sum.indices.replaced
    );
    let losses = &sum.losses;
    println!(
        "losses in one moment: worlds {:?}, {} rooms, {} without a node, {} sessions reduced",
        losses.worlds, losses.rooms, losses.unplaced, losses.reduced
    );
    println!(
        "losses of a zone with every room covered: {} worlds; detected losses: {} rooms, {} not where predicted",
        losses.covered_worlds, losses.detected, losses.elsewhere
    );
    println!(
        "{:<20} {:>7} {:>7} {:>10} {:>10} {:>10} {:>10}",
        "gap by fault, ms", "faults", "n", "p50", "p99", "max", "lost"
    );
    let spreads = totals.spreads();
    for (kind, begun) in &sum.begun {
        let lost = sum.lost.get(kind).copied().unwrap_or(0);
        let spread = spreads.get(kind).copied().unwrap_or_default();
        println!(
            "{kind:<20} {begun:>7} {:>7} {:>10.1} {:>10.1} {:>10.1} {lost:>10}",
            spread.n, spread.p50, spread.p99, spread.max
        );
    }
    for outcome in totals.broken.iter().take(20) {
        for violation in outcome.violations.iter().take(1) {
            println!("seed {}: {violation}", outcome.seed);
        }
    }
    if totals.broken.is_empty() {
        println!("no invariant violated");
        return ExitCode::SUCCESS;
    }
    println!(
        "{} seeds violated an invariant; trace the first: make simulate SEED={}",
        totals.broken.len(),
        totals.broken[0].seed
    );
    ExitCode::FAILURE
}

/// Plays the long runs and writes the report.
fn report(names: &[String], path: &std::path::Path) -> ExitCode {
    let library = Library::new();
    let wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| wanted == name);
    let mut rows = Vec::new();
    for (name, play) in ROWS.into_iter().filter(|(name, _)| wanted(name)) {
        let row = play(&library, Scale::Full);
        let held = if row.held { "held" } else { "MISSED" };
        println!("{name:<24} {held:<7} gap {:?} detected {:?}", row.gap_ms, row.detect_ms);
        println!(
            "{:<24} {} lost, {} moves per session, {:?}",
            "", row.packets_lost, row.moves_per_session, row.figures
        );
        for violation in &row.violations {
            println!("{:<24} {violation}", "");
        }
        rows.push(row);
    }
    let missed = rows.iter().filter(|row| !row.held).count();
    let text = serde_json::to_string_pretty(&Report { rows }).expect("a report is JSON");
    let folder = path.parent().unwrap_or(std::path::Path::new("."));
    match std::fs::create_dir_all(folder).and_then(|()| std::fs::write(path, text + "\n")) {
        Ok(()) if missed == 0 => ExitCode::SUCCESS,
        Ok(()) => {
            println!("{missed} rows missed");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("cannot write {}: {error}", path.display());
            ExitCode::FAILURE
        }
    }
}

/// Compares a seed with changed policies; exits with 2 if a file or plugin is invalid.
fn comparison(seed: u64, plugins: &[String], settings: &[String]) -> ExitCode {
    let played = changes(plugins, settings).and_then(|changes| Comparison::play(seed, changes));
    match played {
        Ok(comparison) => {
            println!("{comparison}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("evenkeel-simulate: {error}");
            ExitCode::from(2)
        }
    }
}

fn changes(plugins: &[String], settings: &[String]) -> Result<Vec<Change>, String> {
    let mut changes: Vec<Change> = Vec::new();
    let named = |text: &str| {
        let (policy, file) = text
            .split_once('=')
            .ok_or_else(|| format!("found {text:?}, expected SET/HOOK=FILE"))?;
        let bytes = std::fs::read(file).map_err(|error| format!("{file}: {error}"))?;
        Ok::<_, String>((policy_name(policy)?, file.to_owned(), bytes))
    };
    for text in plugins {
        let (policy, _, bytes) = named(text)?;
        changes.push(Change { policy, plugin: Some(bytes), settings: None });
    }
    for text in settings {
        let (policy, file, bytes) = named(text)?;
        let read = serde_json::from_slice(&bytes).map_err(|error| format!("{file}: {error}"))?;
        match changes.iter_mut().find(|change| change.policy == policy) {
            Some(change) => change.settings = Some(read),
            None => changes.push(Change { policy, plugin: None, settings: Some(read) }),
        }
    }
    Ok(changes)
}

fn replay(seed: u64) -> ExitCode {
    let script = Script::from_seed(seed);
    for node in script.settings.nodes.iter().zip(&script.nodes) {
        println!("{node:?}");
    }
    println!("{:?}", script.settings.limits);
    let mut outcome = World::new(script, &Library::new()).with_trace().play();
    let group = evenkeel_simulate::group::play(seed, true);
    outcome.violations.extend(group.violations);
    outcome.violations.extend(evenkeel_simulate::records::play(seed, true).violations);
    outcome.violations.extend(evenkeel_simulate::indices::play(seed, true).violations);
    outcome.violations.extend(evenkeel_simulate::losses::play(seed, &Library::new()).violations);
    for violation in &outcome.violations {
        println!("{violation}");
    }
    println!(
        "{} packets sent, {} delivered, moves {:?}",
        outcome.packets, outcome.delivered, outcome.moves
    );
    if outcome.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
