//! The options of a demo, and the reasons for which it ends early.

use std::io;

use clap::Args;

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
    pub(super) sessions: u32,
    /// Set the seed of all random choices
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// Keep everything running until interrupted, with an agent beside each node, for drills
    #[arg(long)]
    pub serve: bool,
    /// Keep the folder with configuration and logs
    #[arg(long)]
    pub(super) keep: bool,
    /// Be the receiver of telemetry that the demo starts as a process of its own
    #[arg(long, hide = true)]
    pub(super) receive_telemetry: bool,
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
    pub(super) fn system(what: &str) -> impl FnOnce(io::Error) -> DemoError + use<'_> {
        move |error| DemoError::System(what.to_owned(), error)
    }

    pub(super) fn admin(
        what: &str,
    ) -> impl FnOnce(evenkeel_client::ClientError) -> DemoError + use<'_> {
        move |error| DemoError::Admin(what.to_owned(), error)
    }
}
