//! The epoch of a group of gateways, as a node's agent keeps it.
//!
//! A group has one owner at a time, and each ownership has an epoch. An agent refuses messages of an older epoch than the
//! newest that it served. It also arbitrates between members that do not hear each other: it grants the owner *holds*,
//! and promises a standby that it grants the old owner nothing more, but never while a hold lasts. An agent that
//! restarts forgets all this, so it is then another instance, whose answers do not count with those of the old one.
//!
//! An agent keeps a ballot for each group of gateways that shares its node.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// For how long an agent makes no promise to a standby.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hold {
    /// For this time from now on.
    For(Duration),
    /// Until the agent hears a newer epoch.
    Epoch,
}

/// A question of a member of a group to an agent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Vote {
    /// The owner asks for a hold.
    Owner {
        /// The owner's epoch.
        epoch: u64,
        /// How long no other member may claim.
        hold: Hold,
    },
    /// A standby asks only for the state.
    Standby,
    /// A standby of the owner with epoch `base`, which it no longer hears, claims a newer epoch.
    Claim {
        /// The epoch in force.
        base: u64,
        /// The claimed epoch.
        claim: u64,
    },
}

/// An agent's state after a [`Vote`].
///
/// A hold was granted if `epoch` is the owner's and `promised` is not newer. A claim was accepted if `promised` is the
/// claim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Voted {
    /// The newest epoch whose owner sent a message, 0 if none did.
    pub epoch: u64,
    /// The newest epoch promised to a standby, 0 if none.
    pub promised: u64,
    /// Time since the owner's last message; none if it sent none.
    pub heard: Option<Duration>,
    /// Random number of the agent's process.
    pub instance: u32,
}

/// An agent's memory of one group.
#[derive(Debug)]
pub struct OwnershipBallot {
    instance: u32,
    epoch: u64,
    promised: u64,
    lease: BallotLease,
    heard: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum BallotLease {
    Until(Instant),
    Epoch,
}

impl OwnershipBallot {
    /// `instance` differs from that of every earlier process of this agent.
    pub fn new(instance: u32, now: Instant) -> OwnershipBallot {
        OwnershipBallot {
            instance,
            epoch: 0,
            promised: 0,
            lease: BallotLease::Until(now),
            heard: None,
        }
    }

    /// Takes any message of an owner. The error is the newer epoch because of which the message must be refused.
    ///
    /// A promise alone refuses nothing, because the claim may not succeed.
    pub(crate) fn handle_owner(&mut self, epoch: u64, now: Instant) -> Result<(), u64> {
        if epoch < self.epoch {
            return Err(self.epoch);
        }
        if epoch > self.epoch {
            self.epoch = epoch;
            self.lease = BallotLease::Until(now);
        }
        self.heard = Some(now);
        Ok(())
    }

    /// Answers a member's question.
    pub fn handle_vote(&mut self, vote: Vote, now: Instant) -> Voted {
        match vote {
            Vote::Owner { epoch, hold } => {
                if self.handle_owner(epoch, now).is_ok() && self.promised <= epoch {
                    let held = match hold {
                        Hold::For(time) => BallotLease::Until(now + time),
                        Hold::Epoch => BallotLease::Epoch,
                    };
                    self.lease = self.lease.max(held);
                }
            }
            Vote::Standby => {}
            Vote::Claim { base, claim } => {
                let ended = matches!(self.lease, BallotLease::Until(end) if end <= now);
                let free = self.epoch < base || self.epoch == base && ended;
                if free && claim > base {
                    self.promised = self.promised.max(claim);
                }
            }
        }
        let heard = self.heard.map(|at| now.saturating_duration_since(at));
        Voted { epoch: self.epoch, promised: self.promised, heard, instance: self.instance }
    }
}

/// Limit of groups at a node. A message of a group beyond it is served without an epoch.
const GROUPS_MAX: usize = 64;

/// The ownership in whose name a gateway of a group asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupOwner {
    /// Number of the group.
    pub group: u32,
    /// At least 1.
    pub epoch: u64,
}

/// A node's memory of all groups.
#[derive(Debug)]
pub struct Ballots {
    instance: u32,
    groups: BTreeMap<u32, OwnershipBallot>,
}

impl Ballots {
    /// `instance` differs from that of every earlier process of this node.
    pub fn new(instance: u32) -> Ballots {
        Ballots { instance, groups: BTreeMap::new() }
    }

    /// Takes a message of an owner with a verified signature. The error is the newer epoch because of which the message
    /// must be refused.
    ///
    /// # Errors
    /// Another gateway of the group has become its owner.
    pub fn handle_owner(&mut self, owner: GroupOwner, now: Instant) -> Result<(), u64> {
        let ballot = self.of(owner.group, now);
        ballot.map_or(Ok(()), |ballot| ballot.handle_owner(owner.epoch, now))
    }

    /// Returns the answer to a verified vote.
    pub fn handle_vote(&mut self, group: u32, vote: Vote, now: Instant) -> Option<Voted> {
        self.of(group, now).map(|ballot| ballot.handle_vote(vote, now))
    }

    fn of(&mut self, group: u32, now: Instant) -> Option<&mut OwnershipBallot> {
        if self.groups.len() >= GROUPS_MAX && !self.groups.contains_key(&group) {
            return None;
        }
        Some(self.groups.entry(group).or_insert_with(|| OwnershipBallot::new(self.instance, now)))
    }
}

#[cfg(test)]
mod tests;
