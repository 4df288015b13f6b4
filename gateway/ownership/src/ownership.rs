//! An owner's right to send, and a standby's view of the owner.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use evenkeel_media::trunk::Vote;

use crate::messages::{AgentVote, Blocked, MaySend, PeerId, Voter, WitnessId, majority};

/// For how long an echo or a hold lets the owner send, from the sending of the beat or of the question on.
pub const LEASE: Duration = Duration::from_millis(24);

/// Holds of near voters renew a lease within this time.
const RENEWED_WITHIN: Duration = Duration::from_millis(25);

/// In a group of more than two, a member is the standby for this long after it sent the beat that is echoed by the last one that
/// appointed it.
pub(super) const APPOINTED_FOR: Duration = Duration::from_secs(1);

#[derive(Default, Debug)]
pub(super) struct Ownership {
    pub(super) arming: Arming,
    /// The last one.
    pub(super) appointed: Option<Appointment>,
    /// Sending time of the newest beat that the peer echoed.
    pub(super) echoed: Option<Instant>,
    grants: BTreeMap<Voter, MaySend>,
    /// Holds to the end of this epoch were asked for, so the peer could not take over in it.
    pub(super) barred: bool,
    /// A hand-over began: this member sends no more, and its last records are on their way.
    pub(super) yielding: Option<Instant>,
    pub(super) lapsed: Option<Instant>,
    /// The first end of a lease since the newest echo.
    lapsed_first: Option<Instant>,
}

/// A beat that told a member that it is the standby.
#[derive(Clone, Copy, Debug)]
pub(super) struct Appointment {
    /// `None`: a member that the settings do not have any more.
    pub(super) standby: Option<PeerId>,
    pub(super) at: Instant,
}

/// An upper bound of what the peer may do: an armed peer may take over by silence.
#[derive(Default, Debug)]
pub(super) enum Arming {
    #[default]
    Off,
    On(Vec<Voter>),
    /// Beats from this one on disarm the peer, which has echoed none of them yet.
    Ending {
        voters: Vec<Voter>,
        from: u64,
    },
}

impl Ownership {
    /// The voters of a peer that may be armed.
    pub(super) fn voters(&self) -> Option<&[Voter]> {
        match &self.arming {
            Arming::Off => None,
            Arming::On(voters) | Arming::Ending { voters, .. } => Some(voters),
        }
    }

    /// The peer had heard this beat, which was sent then unless it is too old. Returns true if that disarms it.
    pub(super) fn handle_echo(&mut self, sequence: u64, sent: Option<Instant>) -> bool {
        let before = self.echoed;
        self.echoed = before.max(sent);
        if self.echoed > before {
            self.lapsed_first = None;
        }
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

    /// Another member is the peer. The one before is not armed.
    pub(super) fn handle_new_peer(&mut self) {
        (self.arming, self.echoed, self.lapsed_first) = (Arming::Off, None, None);
    }

    /// The member may be the standby: no other one can still believe that it is.
    pub(super) fn may_appoint(&self, member: PeerId, now: Instant) -> bool {
        self.appointed.is_none_or(|Appointment { standby, at }| {
            standby == Some(member)
                || now.saturating_duration_since(at) >= APPOINTED_FOR.mul_f64(1.1)
        })
    }

    /// Begins to disarm the peer by the beats from this one on.
    pub(super) fn disarm(&mut self, from: u64) {
        if let Arming::On(voters) = &mut self.arming {
            self.arming = Arming::Ending { voters: std::mem::take(voters), from };
        }
    }

    /// This owner may not send.
    pub(super) fn note_lapse(&mut self, now: Instant) {
        self.lapsed_first.get_or_insert(now);
    }

    /// Since the newest echo, holds for a time did not keep the lease.
    pub(super) fn needs_lasting_hold(&self, now: Instant) -> bool {
        self.lapsed_first.is_some_and(|at| now.saturating_duration_since(at) >= RENEWED_WITHIN)
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
    /// The peer appointed this member its standby by a beat that echoes one of this time.
    pub(super) appointed: Option<Instant>,
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
    /// A voter has refused the claim: it hears the owner, or holds for it.
    pub(super) refused: bool,
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
            appointed: None,
        }
    }

    /// Follows no member until an owner is heard, and keeps the records that were yielded.
    pub(super) fn listen(&mut self, now: Instant) {
        let yielded = self.yielded;
        *self = Following { yielded, ..Following::new(false, now) };
    }

    /// The owner cannot have appointed another member since.
    pub(super) fn is_appointed(&self, now: Instant) -> bool {
        let yielded = self.yielded.map(|_| self.since);
        let at = self.appointed.max(yielded);
        at.is_some_and(|at| now.saturating_duration_since(at) < APPOINTED_FOR)
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
        let accepted = BTreeSet::new();
        Candidacy { base, claim, voters, accepted, refused: false, since: now }
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
                true => _ = self.accepted.insert(witness.id),
                false => self.refused = true,
            }
        }
    }

    pub(super) fn is_elected(&self) -> bool {
        self.accepted.len() >= majority(self.voters.len())
    }
}
