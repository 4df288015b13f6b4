//! An owner's right to send.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::agents::{Voter, majority};

/// For how long an echo or a hold lets the owner send, from the sending of the beat or of the question on.
pub(super) const LEASE: Duration = Duration::from_millis(24);

/// Beats that are remembered. Echoes of older ones renew no lease.
const BEATS_MAX: usize = 32;

/// The time until which the workers may send.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum MaySend {
    Never,
    Until(Instant),
    Always,
}

#[derive(Debug)]
pub(super) struct Ownership {
    pub(super) arming: Arming,
    sent: VecDeque<(u64, Instant)>,
    /// Sending time of the newest beat that the peer echoed.
    pub(super) echoed: Option<Instant>,
    grants: BTreeMap<Voter, MaySend>,
    /// Holds to the end of this epoch were asked for, so the peer could not take over in it.
    pub(super) barred: bool,
    /// A hand-over began: this member sends no more, and its last records are on their way.
    pub(super) yielding: Option<Instant>,
    pub(super) lapsed: Option<Instant>,
}

/// An upper bound of what the peer may do: an armed peer may take over by silence.
#[derive(Debug)]
pub(super) enum Arming {
    Off,
    On(Vec<Voter>),
    /// Beats from this one on disarm the peer, which has echoed none of them yet.
    Ending {
        voters: Vec<Voter>,
        from: u64,
    },
}

impl Ownership {
    pub(super) fn new() -> Ownership {
        Ownership {
            arming: Arming::Off,
            sent: VecDeque::with_capacity(BEATS_MAX),
            echoed: None,
            grants: BTreeMap::new(),
            barred: false,
            yielding: None,
            lapsed: None,
        }
    }

    /// The voters of a peer that may be armed.
    pub(super) fn voters(&self) -> Option<&[Voter]> {
        match &self.arming {
            Arming::Off => None,
            Arming::On(voters) | Arming::Ending { voters, .. } => Some(voters),
        }
    }

    pub(super) fn handle_sent(&mut self, sequence: u64, now: Instant) {
        if self.sent.len() == BEATS_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back((sequence, now));
    }

    /// The peer had heard this beat. Returns true if that disarms it.
    pub(super) fn handle_echo(&mut self, sequence: u64) -> bool {
        let sent = self.sent.iter().find(|(number, _)| *number == sequence);
        self.echoed = self.echoed.max(sent.map(|(_, at)| *at));
        let disarmed = matches!(self.arming, Arming::Ending { from, .. } if sequence >= from);
        if disarmed {
            self.arming = Arming::Off;
        }
        disarmed
    }

    pub(super) fn handle_grant(&mut self, voter: Voter, until: MaySend) {
        let granted = self.grants.entry(voter).or_insert(until);
        *granted = until.max(*granted);
    }

    /// Grants are for one epoch.
    pub(super) fn handle_raise(&mut self) {
        self.grants.clear();
        self.barred = false;
    }

    /// Begins to disarm the peer by the beats from this one on.
    pub(super) fn disarm(&mut self, from: u64) {
        if let Arming::On(voters) = &mut self.arming {
            self.arming = Arming::Ending { voters: std::mem::take(voters), from };
        }
    }

    /// The agents bar the peer from taking over in this epoch.
    pub(super) fn is_barred(&self) -> bool {
        self.voters().is_some_and(|voters| self.granted(voters) == MaySend::Always)
    }

    pub(super) fn may_send(&self, peer_ended: bool) -> MaySend {
        let echoed = self.echoed.map_or(MaySend::Never, |at| MaySend::Until(at + LEASE));
        match self.voters() {
            _ if self.yielding.is_some() => MaySend::Never,
            None => MaySend::Always,
            Some(_) if peer_ended => MaySend::Always,
            Some(voters) => echoed.max(self.granted(voters)),
        }
    }

    /// The time until which a majority of the voters hold.
    fn granted(&self, voters: &[Voter]) -> MaySend {
        let grant = |voter: &Voter| self.grants.get(voter).copied().unwrap_or(MaySend::Never);
        let mut grants: Vec<MaySend> = voters.iter().map(grant).collect();
        grants.sort_unstable();
        // As many as a majority last at least this long.
        grants[grants.len() - majority(grants.len())]
    }
}
