//! Threads that the gateway cannot run without, and the reasons why they do not start or have ended.

use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::{fmt, io};

use evenkeel_dataplane::{panics, quic};
use evenkeel_model::PolicyName;

/// A gateway's threads did not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A socket for clients cannot be bound.
    #[error(
        "cannot listen on {address}: {error}; is another gateway running, or the address not of this machine?"
    )]
    Listen {
        address: SocketAddr,
        /// The error of the system.
        error: io::Error,
    },
    /// The QUIC endpoint failed.
    #[error(transparent)]
    Quic(#[from] quic::QuicStartError),
    /// A node's sockets failed.
    #[error(transparent)]
    Node(#[from] evenkeel_control::EquipError),
    /// The records of policies cannot be read.
    #[error(
        "cannot read the records of policies: {0}; repair the disk, or end the program that has the database locked"
    )]
    Records(io::Error),
    /// A shipped plugin failed.
    #[error("policy {policy}: {reason}")]
    Policy { policy: PolicyName, reason: Box<str> },
    /// The system gives no thread or descriptor.
    #[error("cannot create a thread or descriptor: {0}")]
    System(#[from] io::Error),
}

/// A thread that ended without a request.
#[derive(PartialEq, Eq, Debug, thiserror::Error)]
#[error("the thread {thread} ended: {reason}")]
pub struct EndedThread {
    pub(crate) thread: Box<str>,
    pub(crate) reason: Box<str>,
}

pub(super) struct GatewayThread {
    name: Box<str>,
    thread: JoinHandle<io::Result<()>>,
}

impl GatewayThread {
    pub(super) fn spawn(
        name: &str,
        work: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<GatewayThread> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work)?;
        Ok(GatewayThread { name: name.into(), thread })
    }

    pub(super) fn is_running(&self) -> bool {
        !self.thread.is_finished()
    }

    pub(super) fn join(self) -> Result<(), EndedThread> {
        let reason = match self.thread.join() {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.to_string().into(),
            Err(panic) => format!("it panicked: {}", panics::message(&*panic)).into(),
        };
        Err(EndedThread { thread: self.name, reason })
    }
}

impl fmt::Debug for GatewayThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests;
