//! Policies: what a call costs, beside the same function natively; what a fault, a swap and a dropped file take.
//!
//! Calls are measured in this process, with the shipped plugins and two of our own (`guests`); the rest at a gateway of
//! its own under load, as the rows are: what plugins that mean harm cost its sessions, how soon one that makes media worse
//! is undone, and whether what was decided under load is decided again.

mod calls;
mod files;
mod gateway;
mod harm;
mod hostile;
mod native;
mod questions;
mod recorded;
mod report;
mod swaps;
mod table;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::namespace;
use crate::process;
use crate::relay::Places;
use report::Report;

/// What of it.
#[derive(Args, Clone, Debug)]
pub(crate) struct Choice {
    /// A few of everything, in a minute: whether it works, not how fast it is
    #[arg(long)]
    quick: bool,
    /// Where the gateway is
    #[arg(long, value_name = "FILE", default_value = "target/release/evenkeel")]
    evenkeel: PathBuf,
    /// Where the bench's own guests are
    #[arg(long, value_name = "FOLDER", default_value = "target/wasm32-unknown-unknown/plugin")]
    guests: PathBuf,
    /// Where the report goes
    #[arg(long, value_name = "FILE", default_value = "target/bench/policy.json")]
    out: PathBuf,
}

/// How often and how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Rounds of each figure; Wasm and native take turns.
    pub(crate) rounds: usize,
    /// Calls of a round.
    pub(crate) calls: usize,
    /// Windows with swaps, and as many without.
    pub(crate) windows: usize,
    /// How long a window is.
    pub(crate) window: Duration,
    /// Files dropped, and revisions rolled back.
    pub(crate) drops: usize,
    /// Policies that make media worse.
    pub(crate) harms: usize,
    /// How long is recorded, to be replayed.
    pub(crate) record: Duration,
}

impl Effort {
    /// 20 windows of 3 s are the minute of swaps that the target speaks of.
    const WHOLE: Effort = Effort {
        rounds: 11,
        calls: 20_000,
        windows: 20,
        window: Duration::from_secs(3),
        drops: 20,
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
/// What could not be measured, in a sentence.
pub(crate) fn measure(choice: &Choice) -> Result<(), String> {
    if let Some(status) = namespace::enter()? {
        std::process::exit(status);
    }
    process::pin(process::LOAD_CORE)?;
    let effort = if choice.quick { Effort::QUICK } else { Effort::WHOLE };
    let guests = calls::Guests::read(&choice.guests)?;
    let mut report = Report::default();
    calls::measure(&guests, effort, &mut report)?;
    report.write(&choice.out)?;
    let places = Places {
        evenkeel: evenkeel_testkit::report::gateway(&choice.evenkeel, "bench-policy")?,
        folder: evenkeel_testkit::report::folder("target/bench/run".as_ref())?,
        peers: PathBuf::from("target/bench/peers"),
    };
    let mut gateway = gateway::Gateway::start(&places)?;
    let _first = namespace::First::come();
    let mut turns = swaps::Turns::new()?;
    swaps::measure(&mut gateway, &mut turns, effort, &mut report)?;
    report.write(&choice.out)?;
    recorded::measure(&mut gateway, &mut turns, &places, effort, &mut report)?;
    report.write(&choice.out)?;
    harm::measure(&mut gateway, &guests.harm, effort, &mut report)?;
    report.write(&choice.out)?;
    hostile::measure(&mut gateway, choice.quick, &mut report)?;
    report.write(&choice.out)?;
    files::measure(&mut gateway, effort, &mut report)?;
    report.write(&choice.out)?;
    report.print();
    println!("written to {}", choice.out.display());
    match report.misdelivered() {
        0 => Ok(()),
        packets => Err(format!("{packets} packets reached somebody else than they were for")),
    }
}
