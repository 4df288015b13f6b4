//! An owner's right to send, a standby's view of the owner, and evidence about the other member.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use evenkeel_media::trunk::Vote;
use evenkeel_model::Since;

use crate::messages::{
    AgentVote, BEAT_EVERY, Beat, BeatRole, Blocked, Echo, MaySend, Reporter, Voter, WitnessId,
    majority,
};

/// For how long an echo or a hold lets the owner send, from the sending of the beat or of the question on.
pub const LEASE: Duration = Duration::from_millis(24);

/// Holds of near voters renew a lease within this time.
const RENEWED_WITHIN: Duration = Duration::from_millis(25);

/// Beats that are remembered. Echoes of older ones renew no lease.
const BEATS_MAX: usize = 32;

#[derive(Default, Debug)]
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
    /// The first end of a lease since the newest echo.
    lapsed_first: Option<Instant>,
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

    pub(super) fn handle_sent(&mut self, sequence: u64, now: Instant) {
        if self.sent.len() == BEATS_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back((sequence, now));
    }

    /// The peer had heard this beat. Returns true if that disarms it.
    pub(super) fn handle_echo(&mut self, sequence: u64) -> bool {
        let sent = self.sent.iter().find(|(number, _)| *number == sequence);
        let before = self.echoed;
        self.echoed = before.max(sent.map(|(_, at)| *at));
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

/// Timers of a process that runs are late by less.
pub(crate) const PUNCTUAL: Duration = Duration::from_millis(2);

/// The least time between two reports of a closed port that show the end of the process. A running one has the port open, and one
/// that starts anew may open it in between.
const ENDED_TWICE: Duration = Duration::from_millis(4);

/// Silence with which one report of a closed port shows the end of the process.
const ENDED_SILENT: Duration = Duration::from_millis(10);

/// The same once the connection to the peer has ended, as it does with the process: a beat of one that runs is overdue.
const ENDED_DISCONNECTED: Duration = BEAT_EVERY.saturating_add(PUNCTUAL);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BeatOrder {
    /// A beat that was heard before, or one of an earlier process.
    Old,
    New,
    /// The first beat of another process, so the one before has ended.
    Restarted,
}

#[derive(Debug)]
pub(super) struct PeerState {
    newest: Option<Beat>,
    /// The last beat, or the start.
    last_beat: Since,
    closed: Option<Closed>,
    /// The connection to the peer has ended since its last beat.
    disconnected: bool,
}

/// Reports of a closed port since the last beat.
#[derive(Clone, Copy, Debug)]
struct Closed {
    first: Instant,
    last: Instant,
    /// Of the last one.
    by: Reporter,
}

impl PeerState {
    pub(super) fn new(now: Instant) -> PeerState {
        PeerState { newest: None, last_beat: Since::new(now), closed: None, disconnected: false }
    }

    pub(super) fn handle_beat(&mut self, beat: Beat, now: Instant) -> BeatOrder {
        let known = self.newest.as_ref().map(|newest| (newest.incarnation, newest.sequence));
        if known.is_some_and(|known| (beat.incarnation, beat.sequence) <= known) {
            return BeatOrder::Old;
        }
        let restarted = known.is_some_and(|(incarnation, _)| beat.incarnation > incarnation);
        self.newest = Some(beat);
        self.last_beat = Since::new(now);
        (self.closed, self.disconnected) = (None, false);
        if restarted { BeatOrder::Restarted } else { BeatOrder::New }
    }

    pub(super) fn handle_closed(&mut self, by: Reporter, now: Instant) {
        let first = self.closed.map_or(now, |closed| closed.first);
        self.closed = Some(Closed { first, last: now, by });
    }

    pub(super) fn handle_disconnected(&mut self) {
        self.disconnected = true;
    }

    pub(super) fn excuse(&mut self, late: Duration) {
        self.last_beat.excuse(late);
    }

    pub(super) fn newest(&self) -> Option<&Beat> {
        self.newest.as_ref()
    }

    pub(super) fn echo(&self) -> Echo {
        self.newest().map_or(Echo::default(), |beat| Echo {
            incarnation: beat.incarnation,
            sequence: beat.sequence,
        })
    }

    pub(super) fn silence(&self, now: Instant) -> Duration {
        self.last_beat.lasted(now)
    }

    /// The peer is heard, and its standing is this one.
    pub(super) fn is(&self, standing: BeatRole, now: Instant) -> bool {
        self.silence(now) < 4 * BEAT_EVERY
            && self.newest().is_some_and(|beat| beat.role == standing)
    }

    pub(super) fn hears(&self, incarnation: u64) -> bool {
        self.newest().is_some_and(|beat| beat.echo.incarnation == incarnation)
    }

    /// The peer's host shows that its process has ended.
    pub(super) fn has_ended(&self, now: Instant) -> bool {
        self.ended_by(now).is_some()
    }

    /// The last reporter, if the peer's process has ended.
    pub(super) fn ended_by(&self, now: Instant) -> Option<Reporter> {
        let silent = if self.disconnected { ENDED_DISCONNECTED } else { ENDED_SILENT };
        let closed = self.closed.filter(|closed| {
            closed.last.saturating_duration_since(closed.first) >= ENDED_TWICE
                || self.silence(now) >= silent
        });
        closed.map(|closed| closed.by)
    }
}
