//! The reasons for which a demo or a crowd of clients ends early.

use std::io;
use std::time::Duration;

use evenkeel_client::ClientError;

use crate::process::ProcessError;

/// A demo could not be played to its end, or the sessions of a crowd could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The system provided no process, socket or file.
    #[error("{0}: {1}")]
    System(String, io::Error),
    /// The gateway's API refused a request, or was not reached.
    #[error("{0}: {1}")]
    Gateway(String, ClientError),
    /// A condition did not hold in time.
    #[error("{what} did not happen within {} s", within.as_secs())]
    InVain {
        /// The awaited condition.
        what: String,
        /// The time limit.
        within: Duration,
    },
    /// A process did not start, or ended.
    #[error("{0}")]
    Process(#[from] ProcessError),
    /// The group of the demo's last act.
    #[error("a group of two gateways: {0}")]
    Takeover(String),
    /// Interrupted by a signal.
    #[error("interrupted")]
    Interrupted,
}

impl LabError {
    pub(crate) fn system(what: &str) -> impl FnOnce(io::Error) -> LabError + use<'_> {
        move |error| LabError::System(what.to_owned(), error)
    }

    pub(crate) fn gateway(what: &str) -> impl FnOnce(ClientError) -> LabError + use<'_> {
        move |error| LabError::Gateway(what.to_owned(), error)
    }

    pub(crate) fn in_vain(what: impl Into<String>, within: Duration) -> LabError {
        LabError::InVain { what: what.into(), within }
    }
}
