//! Signals that end the process.

use std::future::pending;
use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// Waits for SIGINT, SIGTERM or SIGHUP.
pub(crate) async fn interruption() -> io::Result<()> {
    let (mut interrupt, mut terminate, mut hangup) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
        signal(SignalKind::hangup())?,
    );
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(())
}

/// Like [`interruption`]; without a handler the signal ends the process.
pub(crate) async fn until_interrupted() {
    if interruption().await.is_err() {
        pending::<()>().await;
    }
}
