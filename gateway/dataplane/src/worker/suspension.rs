//! Suspension of a worker: it hands out its sessions and reads nothing, so that another worker, perhaps in another
//! process, can continue them with duplicates of its sockets. If that fails, this worker resumes.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use evenkeel_core::NodeId;
use evenkeel_media::trunk::seal;
use rustix::event::{PollFd, PollFlags, poll};
use serde::{Deserialize, Serialize};

use super::Worker;
use super::session::SessionState;
use super::source::Source;
use crate::ring;

/// Time in which the other workers stop passing packets to this one: a pass takes about a millisecond.
const PAUSED_WITHIN: Duration = Duration::from_millis(100);

/// Interval at which a worker looks for packets from the others.
const LOOKS_EVERY: Duration = Duration::from_micros(50);

/// A session of a suspended worker.
#[derive(Debug)]
pub struct Suspended {
    pub state: SessionState,
    /// Duplicates of the session's own sockets for RTP and, if it has a separate port, for RTCP.
    pub ports: Option<(OwnedFd, Option<OwnedFd>)>,
}

/// The state of a worker's trunk to a node.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub struct TrunkState {
    /// The node's number at the gateway that uses this state.
    pub node: NodeId,
    /// Limit of the size of datagrams that packets share.
    pub(super) size_max: u16,
    /// Set if the trunk is encrypted.
    pub(super) seal: Option<seal::Position>,
}

impl Worker {
    /// Hands out copies of all sessions and begins the suspension.
    #[cold]
    pub(super) fn hand_out(&mut self, done: &crossbeam_channel::Sender<Vec<Suspended>>) {
        self.pause_rings(true);
        self.read_rings_to_the_end();
        self.suspended = true;
        let sessions = self.sessions.iter().map(|session| {
            let ports = session.ports.as_ref().map(|ports| ports.try_clone()).transpose()?;
            Ok(Suspended { state: session.hand_out(&self.flows), ports })
        });
        match sessions.collect::<io::Result<Vec<_>>>() {
            // If control waits no longer, it sends `Resume`.
            Ok(sessions) => drop(done.send(sessions)),
            Err(error) => {
                tracing::warn!(worker = self.number, %error, "port not duplicated; sessions are not handed out");
            }
        }
    }

    pub(super) fn resume(&mut self) {
        self.pause_rings(false);
        self.suspending = None;
        self.suspended = false;
    }

    /// Runs commands until [`Command::Resume`](super::Command::Resume) or the end of the worker.
    #[cold]
    pub(super) fn stay_suspended(&mut self) -> io::Result<()> {
        // Epoll does not report these again.
        let mut unread = Vec::new();
        while self.suspended && !self.stopped {
            if let Some(done) = self.suspending.take() {
                self.hand_out(&done);
            }
            unread.extend(self.unread.extract_if(.., |source| *source != Source::Commands));
            if self.unread.is_empty() {
                match poll(&mut [PollFd::new(&self.waker, PollFlags::IN)], None) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
                self.mark_unread(Source::Commands);
            }
            self.guarded_pass(&[], Instant::now());
            self.egress.stats.pass_ends(Instant::now());
        }
        unread.into_iter().for_each(|source| self.mark_unread(source));
        Ok(())
    }

    /// Reads what other threads have passed on. Other workers have paused, or do so soon.
    fn read_rings_to_the_end(&mut self) {
        let sockets = std::mem::take(&mut self.unread);
        let until = Instant::now() + PAUSED_WITHIN;
        loop {
            // A ring that is paused here holds all that its sender pushed.
            let paused = self.from_workers.iter().all(ring::Receiver::is_paused);
            (0..self.from_workers.len() as u16)
                .for_each(|number| self.mark_unread(Source::Worker(number)));
            self.mark_unread(Source::Quic);
            while !self.unread.is_empty() && Instant::now() < until {
                self.guarded_pass(&[], Instant::now());
            }
            if paused || Instant::now() >= until {
                break;
            }
            std::thread::sleep(LOOKS_EVERY);
        }
        sockets.into_iter().for_each(|source| self.mark_unread(source));
    }

    fn pause_rings(&self, paused: bool) {
        self.egress.to_workers.iter().flatten().for_each(|ring| ring.pause(paused));
    }
}
