//! Policies: the cost of a call compared with the same native function, and the duration of faults, swaps and file
//! changes.
//!
//! Calls are measured in this process, with shipped plugins and two guests of the bench. The rest is measured at a
//! gateway under load: the cost of hostile plugins for sessions, the time until a harmful revision is rolled back, the
//! rollouts of known bad and good revisions, and the exact replay of recorded decisions.

mod calls;
mod corpus;
mod files;
mod gateway;
mod harm;
mod hostile;
mod judged;
mod mutants;
mod native;
mod questions;
mod recorded;
mod report;
mod swaps;
mod table;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use evenkeel_mutants::corpus::Corpus;
use evenkeel_report::LimitTable;

use crate::namespace;
use crate::process;
use crate::relay::Places;
use report::Report;

/// The options.
#[derive(Args, Clone, Debug)]
pub(crate) struct Choice {
    /// Run a few of each within a minute, as a check that it works
    #[arg(long)]
    quick: bool,
    /// Path of the gateway's program
    #[arg(long, value_name = "FILE", default_value = "target/release/evenkeel")]
    evenkeel: PathBuf,
    /// Folder of the bench's guests
    #[arg(long, value_name = "FOLDER", default_value = "target/wasm32-unknown-unknown/plugin")]
    guests: PathBuf,
    /// Path of the report
    #[arg(long, value_name = "FILE", default_value = "target/bench-policy/report.json")]
    out: PathBuf,
    /// Only roll out the revisions of this corpus, which `evenkeel-mutants` writes
    #[arg(long, value_name = "FILE")]
    mutants: Option<PathBuf>,
}

/// Repetitions and durations of the measurements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Rounds of each figure; Wasm and native take turns.
    pub(crate) rounds: usize,
    pub(crate) calls: usize,
    /// Windows with swaps, and as many without.
    pub(crate) windows: usize,
    pub(crate) window: Duration,
    /// Files dropped, and revisions rolled back.
    pub(crate) drops: usize,
    /// Policies that make media worse.
    pub(crate) harms: usize,
    /// Length of the recording that is replayed.
    pub(crate) record: Duration,
}

impl Effort {
    /// 20 windows of 3 s make the minute of swaps that the limit requires, and 100 rollbacks a 99th percentile.
    const WHOLE: Effort = Effort {
        rounds: 11,
        calls: 20_000,
        windows: 20,
        window: Duration::from_secs(3),
        drops: 100,
        harms: 5,
        record: Duration::from_secs(10),
    };
    const QUICK: Effort = Effort {
        rounds: 3,
        calls: 500,
        windows: 2,
        window: Duration::from_secs(1),
        drops: 2,
        harms: 1,
        record: Duration::from_secs(2),
    };
}

/// # Errors
/// A measurement failed.
pub(crate) fn measure(choice: &Choice) -> Result<(), String> {
    if let Some(status) = namespace::enter()? {
        std::process::exit(status);
    }
    process::pin(process::LOAD_CORE)?;
    if let Some(corpus) = &choice.mutants {
        return mutants::measure(&Corpus::read(corpus)?, &places(choice)?, &choice.out);
    }
    let effort = if choice.quick { Effort::QUICK } else { Effort::WHOLE };
    let guests = calls::Guests::read(&choice.guests)?;
    let mut report = Report::default();
    let limits = LimitTable::load()?;
    calls::measure(&guests, effort, &mut report)?;
    report.write(&choice.out, &limits)?;
    let places = places(choice)?;
    let mut gateway = gateway::Gateway::start(&places)?;
    let _first = namespace::First::come();
    let mut turns = swaps::SwappedRevisions::new()?;
    swaps::measure(&mut gateway, &mut turns, effort, &mut report)?;
    report.write(&choice.out, &limits)?;
    recorded::measure(&mut gateway, &mut turns, &places, effort, &mut report)?;
    report.write(&choice.out, &limits)?;
    harm::measure(&mut gateway, &guests.harm, effort, &mut report)?;
    report.write(&choice.out, &limits)?;
    let of_judged = limits.group("policy", Some("judged"))?;
    judged::measure(&mut gateway, &guests, choice.quick, &of_judged, &mut report)?;
    report.write(&choice.out, &limits)?;
    hostile::measure(&mut gateway, choice.quick, &mut report)?;
    report.write(&choice.out, &limits)?;
    files::measure(&mut gateway, effort, &mut report)?;
    report.write(&choice.out, &limits)?;
    report.print(&limits)?;
    println!("written to {}", choice.out.display());
    match report.misdelivered() {
        0 => Ok(()),
        packets => Err(format!("{packets} packets were misdelivered")),
    }
}

/// # Errors
/// The gateway's program is missing, or a folder cannot be made.
fn places(choice: &Choice) -> Result<Places, String> {
    Ok(Places {
        evenkeel: evenkeel_report::gateway(&choice.evenkeel, "bench-policy")?,
        folder: evenkeel_report::folder("target/bench/run".as_ref())?,
        peers: PathBuf::from("target/bench/peers"),
    })
}
