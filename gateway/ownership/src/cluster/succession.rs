//! Changes of ownership.

use std::cmp::Reverse;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::cluster::{
    Cluster, ECHO_LATE, GONE_AFTER, LISTENS_FOR, MemberRole, SILENCE, YIELDS_WITHIN,
};
use crate::messages::{
    BeatRole, Blocked, ClusterEvent, ClusterOutput, ClusterSettings, MaySend, PeerId, TakeoverCause,
};
use crate::ownership::{Appointment, Arming, Candidacy, Following, Ownership};
use crate::peer::PeerState;

/// A new owner appoints a standby this late: sending it all records takes processor time that packets need first.
const APPOINTS_AFTER: Duration = Duration::from_millis(300);

/// In a group of more than two, a standby that is silent for longer is not appointed any more, so that another member can be.
const APPOINTED_WHILE_HEARD: Duration = Duration::from_millis(250);

/// Silence during which a standby [misses](Cluster::misses_owner) its owner: from two intervals of beats and 2 ms on, until no vote is
/// likely to come any more.
const MISSED: Range<Duration> = Duration::from_millis(12)..Duration::from_millis(100);

/// A candidacy without success is reported after this time.
const BLOCKED_AFTER: Duration = Duration::from_millis(100);

impl Cluster {
    /// The standby is not heard, and cannot take over from this owner while that lives.
    pub fn is_alone(&self, now: Instant) -> bool {
        self.is_owner() && self.may_send == MaySend::Always && self.peer(now).is_none()
    }

    /// This member is the standby of an owner that may have failed: its beats are overdue, or the connection to it has ended.
    pub fn misses_owner(&self, now: Instant) -> bool {
        let MemberRole::Standby(following) = &self.role else { return false };
        let (owner, silence) = (self.peers.current(), self.peers.current().silence(now));
        let misses = MISSED.contains(&silence) || owner.is_disconnected() && silence < MISSED.end;
        following.follows && self.whole && self.is_appointed(now) && misses
    }

    /// This member is the standby of the owner that it follows. With two members, no other one can be.
    pub(super) fn is_appointed(&self, now: Instant) -> bool {
        let MemberRole::Standby(following) = &self.role else { return false };
        self.settings.members == 2 || following.is_appointed(now)
    }

    /// The peer is this owner's standby, and told so.
    pub(super) fn appoints_peer(&self, now: Instant) -> bool {
        let MemberRole::Owner(own) = &self.role else { return false };
        let runs = || {
            let standby =
                self.peers.current().newest().is_some_and(|beat| beat.role == BeatRole::Standby);
            standby && self.peers.current().silence(now) < APPOINTED_WHILE_HEARD
        };
        self.settings.members == 2 || runs() && own.may_appoint(self.peers.current_id(), now)
    }

    /// In a group of more than two, replaces a standby that is gone. It cannot believe any more that it is the standby.
    fn replace_standby(&mut self, now: Instant) {
        let MemberRole::Owner(own) = &self.role else { return };
        let is_new = self.damping.owned_for(now) < APPOINTS_AFTER;
        if self.settings.members == 2 || is_new || self.appoints_peer(now) || own.yielding.is_some()
        {
            return;
        }
        let disarmed = own.voters().is_none() || self.peers.current().has_ended(now);
        let next = {
            let heard = self.peers.iter().filter(|(_, state)| state.is(BeatRole::Standby, now));
            let mut others = heard.map(|(id, _)| id).filter(|id| *id != self.peers.current_id());
            others.find(|id| own.may_appoint(*id, now))
        };
        let Some(next) = next.filter(|_| disarmed && !self.resting) else { return };
        self.change_peer(next);
        if let MemberRole::Owner(own) = &mut self.role {
            own.handle_new_peer();
        }
        self.raise();
    }

    pub(super) fn change_peer(&mut self, peer: PeerId) {
        self.peers.change(peer);
        self.sent.clear();
        if let MemberRole::Standby(following) = &mut self.role {
            following.appointed = None;
            // The copy is that of another owner.
            (self.whole, self.records) = (false, 0);
        }
        (self.peer_silent, self.peer_ended) = (false, false);
        self.outputs.push_back(ClusterOutput::ChangePeer(peer));
    }

    /// Draws the conclusions of all evidence.
    pub(super) fn weigh(&mut self, now: Instant) {
        if !self.peer_silent && self.peers.current().silence(now) >= SILENCE {
            self.peer_silent = true;
            self.event(ClusterEvent::PeerSilent);
        }
        // A beat withdraws it.
        let ended = self.peers.current().ended_by(now);
        let known = std::mem::replace(&mut self.peer_ended, ended.is_some());
        if let Some(by) = ended.filter(|_| !known) {
            self.event(ClusterEvent::PeerEnded(by));
        }
        match &mut self.role {
            MemberRole::Owner(own) => {
                if own.is_barred() {
                    own.arming = Arming::Off;
                    self.event(ClusterEvent::Barred);
                }
            }
            MemberRole::Standby(_) => {
                if let Some(evidence) = self.evidence(now) {
                    self.take_over(evidence, now);
                }
            }
        }
        self.silent_at = self.silent_at(now);
        self.permit(now);
    }

    /// A reason to take over.
    fn evidence(&mut self, now: Instant) -> Option<TakeoverCause> {
        self.run(now);
        let MemberRole::Standby(following) = &self.role else { return None };
        let listened = now.saturating_duration_since(following.since) >= LISTENS_FOR;
        let candidacy = following.candidacy.as_ref();
        let no_owner = self.is_without_owner(now);
        let continues =
            || self.settings.members > 2 && self.holds_copy() && no_owner && self.is_first(now);
        let peer_ended = self.peers.current().has_ended(now);
        if peer_ended && following.follows && (self.is_appointed(now) || continues())
            || !following.follows && listened && self.peers.iter().all(|(_, it)| it.has_ended(now))
        {
            Some(TakeoverCause::PeerEnded)
        } else if following.is_handed(self.records, now) {
            Some(TakeoverCause::HandOver)
        } else if candidacy.is_some_and(Candidacy::is_elected) {
            Some(TakeoverCause::Silence)
        } else if no_owner && !following.follows && listened && self.is_first(now) {
            Some(TakeoverCause::Start)
        } else {
            None
        }
    }

    /// The member has ended, or it is heard and hears this one. A standby of this member's former process would have taken over when
    /// it heard this one.
    pub(super) fn does_not_own(&self, member: &PeerState, now: Instant) -> bool {
        let hears = member.hears(self.settings.incarnation);
        member.has_ended(now) || hears && member.is(BeatRole::Standby, now)
    }

    fn is_without_owner(&self, now: Instant) -> bool {
        self.peers.iter().all(|(_, state)| self.does_not_own(state, now))
            && self.peers.iter().any(|(_, state)| !state.has_ended(now))
    }

    /// This member has all records of the owner that it follows, or those that it yielded.
    pub(super) fn holds_copy(&self) -> bool {
        let yielded = matches!(&self.role, MemberRole::Standby(it) if it.yielded.is_some());
        self.whole || yielded
    }

    /// No other member that runs is to own before this one if none does: one that holds a copy, the newest before others, then the
    /// preferred one, then by rank.
    fn is_first(&self, now: Instant) -> bool {
        let ClusterSettings { members, rank, preferred, .. } = self.settings;
        let order = |whole: bool, epoch, preferred: bool| {
            (Reverse(whole.then_some(epoch)), Reverse(preferred))
        };
        let own = order(self.holds_copy(), self.epoch, preferred);
        let mut others = self.peers.iter().filter(|(_, state)| !state.has_ended(now));
        let precedes = |(PeerId(id), state): (PeerId, &PeerState)| {
            let other = state.newest().map(|beat| order(beat.whole, beat.epoch, beat.preferred));
            // Members of lower rank have lower numbers.
            other.is_some_and(|other| other < own || other == own && id < rank)
        };
        if members == 2 { preferred } else { !others.any(precedes) }
    }

    /// Becomes a candidate if the owner is silent and armed this member.
    fn run(&mut self, now: Instant) {
        let claim = self.next_epoch();
        // The owner's standby takes over.
        let is_spare = !self.is_appointed(now);
        let MemberRole::Standby(following) = &mut self.role else { return };
        if self.peers.current().silence(now) < SILENCE {
            return;
        }
        let armed = self.peers.current().newest().filter(|beat| {
            following.follows && beat.role == BeatRole::Owner && !beat.voters.is_empty()
        });
        let mut blocked = None;
        match (&following.candidacy, armed) {
            (Some(candidacy), _) => {
                if now.saturating_duration_since(candidacy.since) >= BLOCKED_AFTER {
                    let heard = candidacy.refused;
                    blocked = Some(if heard { Blocked::OwnerHeard } else { Blocked::NoAgent });
                }
            }
            (None, Some(beat)) => {
                let candidacy = Candidacy::new(beat.epoch, claim, beat.voters.clone(), now);
                let (ids, vote) = (candidacy.missing().collect(), candidacy.vote());
                following.candidacy = Some(candidacy);
                self.highest = claim;
                self.ask(ids, vote);
            }
            (None, None) if following.follows => {
                let waits = is_spare && self.peers.current().silence(now) < GONE_AFTER;
                blocked = (!waits).then_some(Blocked::NotArmed);
            }
            // A peer that ended is replaced once this member has listened.
            (None, None) if self.peers.current().has_ended(now) => {}
            (None, None) => {
                let listened = now.saturating_duration_since(following.since) >= LISTENS_FOR;
                blocked = listened.then_some(Blocked::Unknown);
            }
        }
        // The first reason of each silence is reported.
        if let Some(blocked) = blocked
            && let MemberRole::Standby(following) = &mut self.role
            && following.blocked.replace(blocked).is_none()
        {
            self.event(ClusterEvent::TakeoverBlocked(blocked));
        }
    }

    /// The time at which a candidacy begins if no beat comes.
    fn silent_at(&self, now: Instant) -> Option<Instant> {
        let MemberRole::Standby(Following { follows: true, candidacy: None, .. }) = &self.role
        else {
            return None;
        };
        let left = SILENCE
            .checked_sub(self.peers.current().silence(now))
            .filter(|left| !left.is_zero())?;
        Some(now + left)
    }

    /// Arms and disarms the standby, and raises the epoch while it is disarmed.
    pub(super) fn maintain(&mut self, now: Instant) {
        self.replace_standby(now);
        let (followed, complete) = (self.is_followed(now), self.is_copied());
        let outdated = self.highest > self.epoch;
        let is_held_down = !self.damping.left(now).is_zero();
        let MemberRole::Owner(own) = &mut self.role else { return };
        if own.yielding.is_some_and(|since| now.saturating_duration_since(since) >= YIELDS_WITHIN) {
            return self.give_up_hand_over();
        }
        match &own.arming {
            Arming::Ending { .. } => {}
            Arming::On(voters) => {
                let silent = self.peers.current().silence(now) >= SILENCE;
                let stays = !outdated
                    && !own.barred
                    && complete
                    && self.agents.choose(voters, now) == *voters;
                if !silent && !stays {
                    own.disarm(self.sequence + 1);
                }
            }
            Arming::Off => {
                let arms = followed && !self.resting && !is_held_down && own.yielding.is_none();
                if outdated || arms && own.barred {
                    self.raise();
                } else if arms {
                    let voters = self.agents.choose(&[], now);
                    if !voters.is_empty() {
                        own.arming = Arming::On(voters.clone());
                        self.event(ClusterEvent::Armed(voters));
                    }
                }
            }
        }
    }

    /// The peer holds all records of this owner in this epoch, and hears it.
    pub fn is_followed(&self, now: Instant) -> bool {
        let MemberRole::Owner(own) = &self.role else { return false };
        let recent = |at| now.saturating_duration_since(at) < 2 * ECHO_LATE;
        own.echoed.is_some_and(recent)
            && self.peers.current().is(BeatRole::Standby, now)
            && self.is_copied()
    }

    /// The peer's process holds all records of this owner in this epoch.
    pub(super) fn is_copied(&self) -> bool {
        self.peers.current().newest().is_some_and(|beat| beat.whole && beat.epoch == self.epoch)
    }

    pub(super) fn raise(&mut self) {
        self.epoch = self.next_epoch();
        self.highest = self.epoch;
        if let MemberRole::Owner(own) = &mut self.role {
            own.handle_raise();
        }
        self.outputs.push_back(ClusterOutput::Raise(self.epoch));
    }

    /// The peer's ownership is newer than this member's. Equal epochs are a mistake of configuration.
    pub(super) fn is_outranked(&self, epoch: u64) -> bool {
        epoch > self.epoch || epoch == self.epoch && !self.settings.preferred
    }

    /// Follows the owner of this epoch. `appointed`: see [`Following`].
    pub(super) fn follow(&mut self, epoch: u64, appointed: Option<Instant>, now: Instant) {
        let MemberRole::Standby(following) = &mut self.role else { return };
        let (yielded, known) = (following.yielded.is_some(), following.follows);
        *following = Following::new(true, now);
        following.appointed = appointed;
        let changed = std::mem::replace(&mut self.epoch, epoch) != epoch;
        if yielded {
            self.outputs.push_back(ClusterOutput::StepDown(epoch));
        }
        if changed || !known {
            self.event(ClusterEvent::Followed(epoch));
        }
        // The owner's lease depends on the echo.
        self.send_beat(now);
    }

    pub(super) fn step_down(&mut self, epoch: u64, now: Instant) {
        self.role = MemberRole::Standby(Following::new(true, now));
        self.epoch = epoch;
        self.permit(now);
        self.outputs.push_back(ClusterOutput::StepDown(epoch));
        self.event(ClusterEvent::Followed(epoch));
        self.send_beat(now);
    }

    pub(super) fn take_over(&mut self, evidence: TakeoverCause, now: Instant) {
        let MemberRole::Standby(following) = &self.role else { return };
        let elected = following.candidacy.as_ref().filter(|_| evidence == TakeoverCause::Silence);
        let yielded = following.yielded.is_some();
        let by_silence = evidence == TakeoverCause::Silence;
        self.damping.handle_takeover(by_silence, now);
        self.epoch = elected.map_or_else(|| self.next_epoch(), |candidacy| candidacy.claim);
        self.highest = self.highest.max(self.epoch);
        let mut own = Ownership::default();
        if evidence == TakeoverCause::HandOver {
            // The member that yielded takes over again if it finds that this process has ended.
            own.appointed = Some(Appointment { standby: Some(self.peers.current_id()), at: now });
        }
        self.role = MemberRole::Owner(own);
        self.sent.clear();
        // The copy is restored, and grows old from now on.
        self.whole = false;
        if yielded {
            self.event(ClusterEvent::HandOverFailed);
        }
        self.outputs.push_back(ClusterOutput::TakeOver { epoch: self.epoch, evidence });
        let held_down = self.damping.left(now);
        if !held_down.is_zero() {
            self.event(ClusterEvent::HeldDown(self.damping.takeovers(now), held_down));
        }
        self.send_beat(now);
        self.survey(now);
    }
}
