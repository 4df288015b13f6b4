//! A gateway with nodes on loopback and a sequence of faults: nodes are killed under live calls and streams, a network
//! loses packets, policies are replaced, unauthorised clients send. This crate plays all but the gateway; every figure
//! is computed from what clients received.

mod checks;
mod evaluation;
mod hostile;
mod options;
mod processes;
mod record;
mod report;
mod sessions;
mod steps;
mod takeover;
mod telemetry;

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use evenkeel_client::Rising;
pub use options::{DemoError, DemoOptions};
use processes::Processes;
use serde_json::json;
use sessions::{OpenSessions, SessionPlan};

use crate::interruption::interruption;

/// Interval at which the ledger is emptied, because it is not evaluated here.
const FORGET_EVERY: Duration = Duration::from_secs(5);

/// Runs all steps with this binary as gateway, nodes and receiver, and returns whether every check passed. Progress
/// goes to standard error. With `serve`, the gateway's API is at `socket`. All processes have ended when this returns.
pub fn run(options: &DemoOptions, evenkeel: &Path, socket: &Path) -> Result<bool, DemoError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(DemoError::system("starting an event loop"))?;
    if options.receive_telemetry {
        let received = runtime.block_on(telemetry::receive());
        return received.map(|()| true).map_err(DemoError::system("receiving telemetry"));
    }
    if options.serve {
        return runtime.block_on(serve(options, evenkeel, socket)).map(|()| true);
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
    let shown = report::render(&report);
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

/// `evenkeel demo --serve`: calls and streams go on until interrupted, with an agent beside each node, and no faults
/// but those of drills.
async fn serve(options: &DemoOptions, evenkeel: &Path, socket: &Path) -> Result<(), DemoError> {
    tokio::select! {
        up = keep_up(options, evenkeel, socket) => up,
        ended = interruption() => ended.map_err(DemoError::system("listening to signals")),
    }
}

async fn keep_up(options: &DemoOptions, evenkeel: &Path, socket: &Path) -> Result<(), DemoError> {
    // An error is ignored: without the lock file, commands only do not wait for the demo.
    let rising = Rising::begin(socket).ok();
    let mut processes = Processes::start(options, evenkeel).await?;
    let sessions =
        OpenSessions::enter(SessionPlan::of(options.sessions), &mut processes, options.seed)
            .await?;
    drop(rising);
    say(options, &processes).map_err(DemoError::system("writing where it is"))?;
    loop {
        tokio::time::sleep(FORGET_EVERY).await;
        drop(sessions.books.turn());
        processes.require_gateway()?;
    }
}

fn say(options: &DemoOptions, processes: &Processes) -> io::Result<()> {
    let (api, nodes, sessions) = (processes.api(), processes.names(), options.sessions);
    let mut out = io::stdout();
    if options.json {
        writeln!(out, "{}", json!({"api": api, "nodes": nodes, "sessions": sessions}))?;
    } else {
        writeln!(
            out,
            "{sessions} sessions talk through {}; the gateway's API is at {api}. Try, in another terminal:\n\
             \n    evenkeel status\n    evenkeel drill kill-node --sessions 200\n    evenkeel drill lose-region\n\
             \nIt goes on until it is interrupted.",
            nodes.join(", ")
        )?;
    }
    out.flush()
}
