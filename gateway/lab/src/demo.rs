//! A gateway with nodes on loopback and a sequence of faults: nodes are killed under live calls and streams, a network
//! loses packets, policies are replaced, unauthorised clients send. This crate plays all but the gateway; every figure
//! is computed from what clients received.

mod checks;
mod evaluation;
mod hostile;
mod processes;
mod receiver;
mod record;
mod report;
mod serve;
mod sessions;
mod steps;
mod table;
mod takeover;
mod telemetry;

use std::io::{self, Write};
use std::path::Path;

use clap::Args;

use crate::interruption::interruption;
use crate::process::ProcessError;

/// See the gateway work: calls and streams, nodes that die, policies that change; as root, a gateway that is replaced by
/// its standby. Takes about 50 seconds.
#[derive(Args, Clone, Debug)]
pub struct DemoOptions {
    /// Print the outcome as one JSON object, the last line on standard output
    #[arg(long)]
    pub json: bool,
    /// Sessions: four fifths in 1v1 calls, the others in live streams
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(20..=2_000))]
    sessions: u32,
    /// Set the seed of all random choices
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keep everything running until interrupted, with an agent beside each node, for drills
    #[arg(long)]
    pub serve: bool,
    /// Keep the folder with configuration and logs
    #[arg(long)]
    keep: bool,
    /// Be the receiver of telemetry that the demo starts as a process of its own
    #[arg(long, hide = true)]
    receive_telemetry: bool,
}

/// The demo could not be played to its end.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The system provided no process, socket or file.
    #[error("{0}: {1}")]
    System(String, io::Error),
    /// A process did not start, or ended.
    #[error("{0}")]
    Process(#[from] ProcessError),
    /// The gateway's API refused a request.
    #[error("{0}: {1}")]
    Admin(String, evenkeel_client::ClientError),
    /// A condition did not hold in time.
    #[error("{what} did not happen within {seconds} s")]
    InVain {
        /// The awaited condition.
        what: String,
        /// The time limit.
        seconds: u64,
    },
    /// The group of the last act.
    #[error("a group of two gateways: {0}")]
    Takeover(String),
    /// Interrupted by a signal.
    #[error("interrupted; all processes of the demo have ended")]
    Interrupted,
}

impl DemoError {
    fn system(what: &str) -> impl FnOnce(io::Error) -> DemoError + use<'_> {
        move |error| DemoError::System(what.to_owned(), error)
    }

    fn admin(what: &str) -> impl FnOnce(evenkeel_client::ClientError) -> DemoError + use<'_> {
        move |error| DemoError::Admin(what.to_owned(), error)
    }
}

/// Runs all steps with this binary as gateway, nodes and receiver, and returns whether every check passed. Progress
/// goes to standard error. With `serve`, the gateway's API is at `socket`. All processes have ended when this returns.
pub fn run(options: &DemoOptions, evenkeel: &Path, socket: &Path) -> Result<bool, DemoError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(DemoError::system("starting an event loop"))?;
    if options.receive_telemetry {
        let received = runtime.block_on(receiver::run());
        return received.map(|()| true).map_err(DemoError::system("receiving telemetry"));
    }
    if options.serve {
        return runtime.block_on(serve::serve(options, evenkeel, socket)).map(|()| true);
    }
    runtime.block_on(async {
        tokio::select! {
            outcome = show(options, evenkeel) => outcome,
            interrupted = interrupted() => interrupted,
        }
    })
}

async fn show(options: &DemoOptions, evenkeel: &Path) -> Result<bool, DemoError> {
    let (record, ledger) = steps::run(options, evenkeel).await?;
    let report = evaluation::evaluate(&record, &ledger);
    if let Some(folder) = &record.kept {
        let notes = evaluation::notes(&record, &ledger);
        std::fs::write(folder.join("notes.txt"), notes)
            .map_err(DemoError::system("writing notes"))?;
    }
    let shown = table::render(&report);
    let said = if options.json {
        eprint!("{shown}");
        serde_json::to_string(&report)
            .map_err(io::Error::from)
            .and_then(|line| writeln!(io::stdout(), "{line}"))
    } else {
        write!(io::stdout(), "{shown}")
    };
    said.map_err(DemoError::system("writing the report"))?;
    Ok(report.ok)
}

async fn interrupted() -> Result<bool, DemoError> {
    interruption().await.map_err(DemoError::system("listening to signals"))?;
    Err(DemoError::Interrupted)
}
