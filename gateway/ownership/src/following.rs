//! A standby's view of the owner, and its takeover.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use evenkeel_media::trunk::Vote;

use super::agents::{AgentVote, Voter, WitnessId, majority};
use super::event::Blocked;

/// Time for the last records of a hand-over to arrive. They were sent before the beat that announces them.
const RECORDS_WITHIN: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(super) struct Following {
    /// The peer owns, or took over from this member.
    pub(super) follows: bool,
    /// The time of the latest change or sign of an owner.
    pub(super) since: Instant,
    /// The number of the last batch, if this member has yielded to the peer.
    pub(super) yielded: Option<u64>,
    pub(super) handed: Option<Handed>,
    pub(super) candidacy: Option<Candidacy>,
    /// The reason for which the current silence leads to no takeover.
    pub(super) blocked: Option<Blocked>,
}

/// The peer yielded to this member.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handed {
    records: u64,
    since: Instant,
}

/// An attempt to take over by silence. A beat of the peer ends it, and its claim is never used again.
#[derive(Debug)]
pub(super) struct Candidacy {
    pub(super) base: u64,
    pub(super) claim: u64,
    voters: Vec<Voter>,
    accepted: BTreeSet<WitnessId>,
    refused: BTreeSet<WitnessId>,
    pub(super) since: Instant,
}

impl Following {
    pub(super) fn new(follows: bool, now: Instant) -> Following {
        Following {
            follows,
            since: now,
            yielded: None,
            handed: None,
            candidacy: None,
            blocked: None,
        }
    }

    pub(super) fn handle_yielded(&mut self, records: u64, now: Instant) {
        self.handed.get_or_insert(Handed { records, since: now });
    }

    /// The peer yielded, and its last records are here or do not come.
    pub(super) fn is_handed(&self, records: u64, now: Instant) -> bool {
        self.handed.is_some_and(|handed| {
            let waited = now.saturating_duration_since(handed.since);
            records >= handed.records || waited >= RECORDS_WITHIN
        })
    }
}

impl Candidacy {
    pub(super) fn new(base: u64, claim: u64, voters: Vec<Voter>, now: Instant) -> Candidacy {
        Candidacy {
            base,
            claim,
            voters,
            accepted: BTreeSet::new(),
            refused: BTreeSet::new(),
            since: now,
        }
    }

    pub(super) fn vote(&self) -> Vote {
        Vote::Claim { base: self.base, claim: self.claim }
    }

    /// The voters that have not accepted the claim.
    pub(super) fn missing(&self) -> impl Iterator<Item = WitnessId> {
        self.voters.iter().map(|voter| voter.id).filter(|id| !self.accepted.contains(id))
    }

    pub(super) fn handle_witness(&mut self, witness: &AgentVote) {
        if witness.vote == self.vote() && self.voters.contains(&witness.voter()) {
            match witness.voted.promised == self.claim {
                true => self.accepted.insert(witness.id),
                false => self.refused.insert(witness.id),
            };
        }
    }

    pub(super) fn is_elected(&self) -> bool {
        self.accepted.len() >= majority(self.voters.len())
    }

    pub(super) fn is_answered(&self) -> bool {
        !self.accepted.is_empty() || !self.refused.is_empty()
    }
}
