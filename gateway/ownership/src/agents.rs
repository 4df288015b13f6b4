//! The nodes' agents, as witnesses and voters.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use evenkeel_media::trunk::{Vote, Voted};

use super::beat::VOTERS_MAX;

/// Interval at which every agent is asked.
pub(super) const SURVEY_EVERY: Duration = Duration::from_millis(250);

/// An agent that gave no answer for this long is no voter: several surveys were lost.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);

/// An owner that an agent heard this recently is alive: owners ask every agent more often.
pub(super) const OWNER_HEARD: Duration = Duration::from_secs(2);

/// A node with an agent. The number is the same at both members.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct WitnessId(pub u64);

/// A process of an agent. Its memory ends with it, and so does its vote.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Voter {
    pub id: WitnessId,
    pub instance: u32,
}

/// An agent's answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AgentVote {
    pub id: WitnessId,
    /// The time at which the question was sent.
    pub asked: Instant,
    pub vote: Vote,
    pub voted: Voted,
}

impl AgentVote {
    pub(super) fn voter(&self) -> Voter {
        Voter { id: self.id, instance: self.voted.instance }
    }
}

/// The number of voters that is a majority: two majorities share a voter.
pub(super) fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// The agents that answer this member.
#[derive(Default, Debug)]
pub(super) struct VotingAgents {
    seen: BTreeMap<WitnessId, AgentSighting>,
}

#[derive(Debug)]
struct AgentSighting {
    instance: u32,
    at: Instant,
    /// The latest time at which it heard the peer as the owner.
    peer_owned: Option<Instant>,
}

impl VotingAgents {
    pub(super) fn note(&mut self, voter: Voter, peer_owned: Option<Instant>, now: Instant) {
        self.seen.insert(voter.id, AgentSighting { instance: voter.instance, at: now, peer_owned });
    }

    /// An agent heard the peer as the owner a short time ago.
    pub(super) fn hear_peer(&self, now: Instant) -> bool {
        let recent = |at: Instant| now.saturating_duration_since(at) < OWNER_HEARD;
        self.seen.values().any(|seen| seen.peer_owned.is_some_and(recent))
    }

    pub(super) fn forget(&mut self, id: WitnessId) {
        self.seen.remove(&id);
    }

    /// The agents that should vote: an odd number, and those that vote now before others.
    pub(super) fn choose(&self, present: &[Voter], now: Instant) -> Vec<Voter> {
        let alive =
            |seen: &&AgentSighting| now.saturating_duration_since(seen.at) < ANSWERED_WITHIN;
        let mut voters: Vec<Voter> = (self.seen.iter())
            .filter(|(_, seen)| alive(seen))
            .map(|(id, seen)| Voter { id: *id, instance: seen.instance })
            .collect();
        voters.sort_by_key(|voter| !present.contains(voter));
        let odd = voters.len().div_ceil(2) * 2;
        voters.truncate(odd.saturating_sub(1).min(VOTERS_MAX));
        voters.sort();
        voters
    }
}
