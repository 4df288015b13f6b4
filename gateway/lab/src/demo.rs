//! A gateway with nodes on loopback and a sequence of faults: nodes are killed under live calls and streams, a network
//! loses packets, policies are replaced, unauthorised clients send. This crate plays all but the gateway; every figure
//! is computed from what clients received.

mod evaluation;
mod hostile;
mod http;
mod page;
mod processes;
mod report;
mod sessions;
mod steps;
mod takeover;
mod telemetry;

use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use evenkeel_client::Rising;
use page::DemoPage;
pub use processes::DemoOptions;
use processes::Processes;
use serde_json::json;
use telemetry::TelemetryReceiver;

use crate::error::LabError;
use crate::interruption::interruption;

/// Interval at which the ledger is emptied, because it is not evaluated here.
const FORGET_EVERY: Duration = Duration::from_secs(5);

/// Runs all steps with this binary as gateway, nodes and receiver, and returns whether every check passed. Progress
/// goes to standard error. With `serve`, the gateway's API is at `socket`. All processes have ended when this returns.
pub fn run(options: &DemoOptions, evenkeel: &Path, socket: &Path) -> Result<bool, LabError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(LabError::system("starting an event loop"))?;
    runtime.block_on(async {
        let playing = async {
            match options.serve {
                true => keep_up(options, evenkeel, socket).await.map(|()| true),
                false => show(options, evenkeel).await,
            }
        };
        tokio::select! {
            outcome = playing => outcome,
            ended = interruption() => match ended {
                Ok(()) if options.serve => Ok(true),
                Ok(()) => Err(LabError::Interrupted),
                Err(error) => Err(LabError::system("listening to signals")(error)),
            },
        }
    })
}

async fn show(options: &DemoOptions, evenkeel: &Path) -> Result<bool, LabError> {
    let (record, ledger) = steps::run(options, evenkeel).await?;
    let report = evaluation::evaluate(&record, &ledger);
    if let Some(folder) = &record.kept {
        let notes = evaluation::notes(&record, &ledger);
        std::fs::write(folder.join("notes.txt"), notes)
            .map_err(LabError::system("writing notes"))?;
    }
    let said = if options.json {
        eprint!("{report}");
        serde_json::to_string(&report)
            .map_err(io::Error::from)
            .and_then(|line| writeln!(io::stdout(), "{line}"))
    } else {
        write!(io::stdout(), "{report}")
    };
    said.map_err(LabError::system("writing the report"))?;
    Ok(report.ok)
}

/// `evenkeel demo --serve`: calls and streams go on until interrupted, with an agent beside each node, and no faults
/// but those of drills and of the page.
async fn keep_up(options: &DemoOptions, evenkeel: &Path, socket: &Path) -> Result<(), LabError> {
    // An error is ignored: without the lock file, commands only do not wait for the demo.
    let rising = Rising::begin(socket).ok();
    let receiver = TelemetryReceiver::start().await;
    let receiver = receiver.map_err(LabError::system("receiving telemetry"))?;
    let mut processes = Processes::start(options, evenkeel, &receiver.endpoint).await?;
    let plan = sessions::plan(options.sessions, options.seed);
    let mut sessions = sessions::open(&plan, &mut processes, options.seed).await?;
    let page = DemoPage::start(processes.place.clone(), processes.gateway_id()).await?;
    drop(rising);
    say(options, &processes, &page).map_err(LabError::system("writing where it is"))?;
    loop {
        tokio::select! {
            () = tokio::time::sleep(FORGET_EVERY) => {
                drop(sessions.books.turn());
                processes.require_gateway()?;
            }
            () = page.gateway_kill.notified() => {
                page.gateway.store(0, Ordering::Relaxed);
                processes.replace_gateway(options).await?;
                page.gateway.store(processes.gateway_id(), Ordering::Relaxed);
                sessions = sessions::open(&plan, &mut processes, options.seed).await?;
            }
        }
    }
}

fn say(options: &DemoOptions, processes: &Processes, page: &DemoPage) -> io::Result<()> {
    let (api, nodes, sessions) = (processes.api(), processes.names(), options.sessions);
    let page = format!("{}/", page.origin());
    let mut out = io::stdout();
    if options.json {
        let line = json!({"api": api, "nodes": nodes, "page": page, "sessions": sessions});
        writeln!(out, "{line}")?;
    } else {
        writeln!(
            out,
            "{sessions} sessions talk through {}; the gateway's API is at {api}. Call with a browser on this machine:\n\
             \n    {page}\n\
             \nOr try, in another terminal:\n\
             \n    evenkeel status\n    evenkeel drill kill-node --sessions 200\n    evenkeel drill lose-region\n\
             \nIt goes on until it is interrupted.",
            nodes.join(", ")
        )?;
    }
    out.flush()
}
