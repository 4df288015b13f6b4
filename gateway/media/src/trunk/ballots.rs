//! The groups of gateways that share a node.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{OwnershipBallot, Vote, Voted};

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
