//! The processes of one member.

use std::time::{Duration, Instant};

use evenkeel_ownership::{AgentVote, Beat, Cluster, MaySend, PeerId, Reporter, WitnessId};

use super::clock::Clock;
use super::store::{StoreResult, StoreVoter};

/// A message that waits in a socket of a member.
#[derive(Clone, Debug)]
pub(super) enum Input {
    Beat(PeerId, Beat),
    Closed(PeerId),
    Disconnected,
    Witness(AgentVote),
    Store { number: u64, result: StoreResult },
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
    pub(super) store_voter: StoreVoter,
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
    /// Its vote completed the last majority.
    pub(super) elected_by: Option<WitnessId>,
}

impl Process {
    pub(super) fn new(cluster: Cluster, incarnation: u64, clock: Clock) -> Process {
        Process {
            cluster,
            store_voter: StoreVoter::default(),
            incarnation,
            clock,
            stopped: false,
            inbox: Vec::new(),
            wakes: None,
            sends_until: Duration::ZERO,
            records: 0,
            owned: 0,
            elected_by: None,
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
                Input::Witness(witness) => self.handle_witness(&witness, now),
                Input::Store { number, result } => {
                    self.store_voter.handle_result(number, result, now);
                }
            }
        }
        if self.cluster.poll_timeout() <= now {
            self.cluster.handle_timeout(now);
        }
    }

    pub(super) fn handle_witness(&mut self, witness: &AgentVote, now: Instant) {
        let owned = self.cluster.is_owner();
        self.cluster.handle_witness(witness, now);
        if !owned && self.cluster.is_owner() {
            self.elected_by = Some(witness.id);
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
