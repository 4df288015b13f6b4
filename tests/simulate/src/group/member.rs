//! The processes of one member.

use std::time::Duration;

use evenkeel_ownership::{AgentVote, Beat, Cluster, MaySend, PeerId, Reporter};

use super::clock::Clock;

/// A message that waits in a socket of a member.
#[derive(Clone, Debug)]
pub(super) enum Input {
    Beat(PeerId, Beat),
    Closed(PeerId),
    Disconnected,
    Witness(AgentVote),
}

#[derive(Default, Debug)]
pub(super) struct Member {
    pub(super) process: Option<Process>,
    /// The machine runs, so its kernel refuses beats to a process that ended.
    pub(super) host_runs: bool,
}

#[derive(Debug)]
pub(super) struct Process {
    pub(super) cluster: Cluster,
    pub(super) incarnation: u64,
    pub(super) clock: Clock,
    pub(super) stopped: bool,
    pub(super) inbox: Vec<Input>,
    /// The next time at which it runs, unless something arrives before.
    pub(super) wakes: Option<Duration>,
    /// Real time until which its workers may send.
    pub(super) sends_until: Duration,
    /// The owner's records arrived until here, of [`super::world::RECORDS`].
    pub(super) records: u64,
    /// The highest epoch in which it owned.
    pub(super) owned: u64,
}

impl Process {
    pub(super) fn new(cluster: Cluster, incarnation: u64, clock: Clock) -> Process {
        Process {
            cluster,
            incarnation,
            clock,
            stopped: false,
            inbox: Vec::new(),
            wakes: None,
            sends_until: Duration::ZERO,
            records: 0,
            owned: 0,
        }
    }

    /// Reads all that waits before the clock's timeout is handled, as the product does.
    pub(super) fn run(&mut self, real: Duration) {
        let now = self.clock.at(real);
        for input in std::mem::take(&mut self.inbox) {
            match input {
                Input::Beat(from, beat) => self.cluster.handle_beat(from, beat, now),
                Input::Closed(of) => self.cluster.handle_peer_closed(of, Reporter::Kernel, now),
                Input::Disconnected => self.cluster.handle_disconnected(now),
                Input::Witness(witness) => self.cluster.handle_witness(&witness, now),
            }
        }
        if self.cluster.poll_timeout() <= now {
            self.cluster.handle_timeout(now);
        }
    }

    pub(super) fn permit(&mut self, may_send: MaySend) {
        self.sends_until = match may_send {
            MaySend::Never => Duration::ZERO,
            MaySend::Until(at) => self.clock.real(at),
            MaySend::Always => Duration::MAX,
        };
    }
}
