//! `evenkeel demo --serve`: calls and streams go on until interrupted, with an agent beside each node, and no faults
//! but those of drills.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use evenkeel_client::Rising;
use serde_json::json;

use super::processes::Processes;
use super::sessions::{OpenSessions, SessionPlan};
use super::{DemoError, DemoOptions};
use crate::interruption::interruption;

/// Interval at which the ledger is emptied, because it is not evaluated here.
const FORGET_EVERY: Duration = Duration::from_secs(5);

pub(super) async fn serve(
    options: &DemoOptions,
    evenkeel: &Path,
    socket: &Path,
) -> Result<(), DemoError> {
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
