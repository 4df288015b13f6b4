//! One member of a group of gateways.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use evenkeel_media::trunk::{Hold, Vote};

use crate::damping::Damping;
use crate::messages::{
    AgentVote, BEAT_EVERY, Beat, BeatRole, Blocked, ClusterEvent, ClusterOutput, ClusterSettings,
    ContinuedOwnership, HandOverRefusal, MaySend, OWNER_HEARD, PeerId, Reporter, SURVEY_EVERY,
    TakeoverCause, TakeoverRefusal, VotingAgents, WitnessId,
};
use crate::ownership::{Appointment, Arming, Candidacy, Following, LEASE, Ownership};
use crate::peer::{BeatOrder, PUNCTUAL, PeerState, Peers, SentBeats};

/// A standby claims the ownership after this silence. Longer than [`LEASE`] by the greatest difference of clock rates.
pub const SILENCE: Duration = Duration::from_millis(25);

/// Voters hold this long. Longer than [`LEASE`] by the greatest difference of clock rates.
pub const HOLD: Duration = Duration::from_millis(25);

/// Interval of beats of a standby that misses its owner's: a port unreachable for one of them, or an answer of the agent beside
/// the owner, shows that the owner's process has ended. A candidate asks for missing votes as often, since holds end meanwhile.
const ASKED_EVERY: Duration = Duration::from_millis(1);

/// An owner asks its voters once the newest echoed beat is this old.
const ECHO_LATE: Duration = Duration::from_millis(10);

/// A standby that heard no beat for this long is barred from taking over in this epoch.
pub const GONE_AFTER: Duration = Duration::from_secs(1);

/// A member that starts listens for this long before it owns.
pub const LISTENS_FOR: Duration = Duration::from_secs(1);

/// A hand-over is given up if its last records are not ready by then.
const YIELDS_WITHIN: Duration = Duration::from_millis(500);

/// A new owner appoints a standby this late: sending it all records takes processor time that packets need first.
const APPOINTS_AFTER: Duration = Duration::from_millis(300);

/// In a group of more than two, a standby that is silent for longer is not appointed any more, so that another member can be.
const APPOINTED_WHILE_HEARD: Duration = Duration::from_millis(250);

/// Silence during which a standby [misses](Cluster::misses_owner) its owner: from two intervals of beats and 2 ms on, until no vote is
/// likely to come any more.
const MISSED: Range<Duration> = Duration::from_millis(12)..Duration::from_millis(100);

/// A candidacy without success is reported after this time.
const BLOCKED_AFTER: Duration = Duration::from_millis(100);

/// A member; see [the crate](crate).
#[derive(Debug)]
pub struct Cluster {
    settings: ClusterSettings,
    role: MemberRole,
    /// The owner's: this member's own, or that of the peer.
    epoch: u64,
    highest: u64,
    sequence: u64,
    sent: SentBeats,
    peers: Peers,
    agents: VotingAgents,
    damping: Damping,
    /// This member's copy of the records.
    whole: bool,
    records: u64,
    /// Keeps the standby disarmed.
    resting: bool,
    peer_silent: bool,
    peer_ended: bool,
    beat_due: Instant,
    survey_due: Instant,
    /// The time at which the silence of the owner suffices.
    silent_at: Option<Instant>,
    may_send: MaySend,
    outputs: VecDeque<ClusterOutput>,
}

#[derive(Debug)]
enum MemberRole {
    Owner(Ownership),
    Standby(Following),
}

impl Cluster {
    /// Starts as a standby, or as the owner if `continued` is set.
    pub fn new(settings: ClusterSettings, now: Instant) -> Cluster {
        let before = settings.continued.unwrap_or_default();
        let (role, may_send) = match settings.continued {
            // The agents may hold for the other process to the end of the epoch.
            Some(_) => {
                let mut own = Ownership::default();
                own.barred = true;
                // The other process may have appointed its standby until now.
                own.appointed = Some(Appointment { standby: before.standby, at: now });
                (MemberRole::Owner(own), MaySend::Always)
            }
            None => (MemberRole::Standby(Following::new(false, now)), MaySend::Never),
        };
        Cluster {
            settings,
            role,
            epoch: before.epoch,
            highest: before.highest,
            sequence: before.sequence,
            sent: SentBeats::default(),
            peers: Peers::new(settings.members - 1, before.standby.unwrap_or_default(), now),
            agents: VotingAgents::default(),
            damping: Damping::new(settings.hold_down, before.takeovers, now),
            whole: false,
            records: 0,
            resting: false,
            peer_silent: false,
            peer_ended: false,
            beat_due: now,
            survey_due: now,
            silent_at: None,
            may_send,
            outputs: VecDeque::from([ClusterOutput::MaySend(may_send)]),
        }
    }

    /// The ownership that another process of this member continues, if this one owns, its standby is disarmed, and no hand-over is under
    /// way.
    pub fn continued(&self, now: Instant) -> Option<ContinuedOwnership> {
        let MemberRole::Owner(own) = &self.role else { return None };
        let Cluster { sequence, epoch, highest, .. } = *self;
        let rests = own.voters().is_none() && own.yielding.is_none();
        let takeovers = self.damping.takeovers(now);
        let standby = Some(self.peers.current_id());
        rests.then_some(ContinuedOwnership { sequence, epoch, highest, takeovers, standby })
    }

    /// Returns true while this member owns the addresses.
    pub fn is_owner(&self) -> bool {
        matches!(self.role, MemberRole::Owner(_))
    }

    /// The epoch of this member's ownership, or of the peer's that it follows; 0 if none is known.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The standby may take over by silence.
    pub fn is_standby_armed(&self) -> bool {
        matches!(&self.role, MemberRole::Owner(Ownership { arming: Arming::On(_), .. }))
    }

    /// Returns the time for which the standby is not armed, because takeovers by silence follow each other.
    pub fn held_down(&self, now: Instant) -> Duration {
        self.damping.left(now)
    }

    /// Of an owner its standby, of others the owner that they follow.
    pub fn peer_id(&self) -> PeerId {
        self.peers.current_id()
    }

    /// The owner has another standby.
    pub fn is_spare(&self) -> bool {
        let MemberRole::Standby(following) = &self.role else { return false };
        let newest = self.peers.current().newest();
        let has_records = following.yielded.is_some()
            || newest.is_some_and(|beat| match beat.role {
                BeatRole::Owner => !beat.spare,
                BeatRole::Yielded => true,
                BeatRole::Standby => false,
            });
        self.settings.members > 2 && !has_records
    }

    /// The newest beat of a member, if it is heard.
    pub fn member(&self, member: PeerId, now: Instant) -> Option<&Beat> {
        let (_, state) = self.peers.iter().find(|(id, _)| *id == member)?;
        state.newest().filter(|_| state.silence(now) < SILENCE)
    }

    /// The newest beat of the peer, if it is heard.
    pub fn peer(&self, now: Instant) -> Option<&Beat> {
        self.peers.current().newest().filter(|_| self.peers.current().silence(now) < SILENCE)
    }

    /// Takes a beat of a member, with a valid signature. A replayed one changes nothing.
    pub fn handle_beat(&mut self, from: PeerId, mut beat: Beat, now: Instant) {
        self.note_lateness(now);
        let Beat { role: standing, epoch, echo, records, takeovers, spare, .. } = beat;
        let highest = beat.highest.max(epoch);
        let echoed = echo.incarnation == self.settings.incarnation;
        if !echoed {
            // The owner armed another process of this member, and may know that it ended.
            beat.voters.clear();
        }
        let Some(state) = self.peers.get_mut(from) else { return };
        let heard = state.handle_beat(beat, now);
        if heard == BeatOrder::Old {
            return;
        }
        self.highest = self.highest.max(highest);
        let outranked = standing == BeatRole::Owner && self.is_outranked(epoch);
        if from != self.peers.current_id() {
            let follows = matches!(&self.role, MemberRole::Standby(following) if following.follows);
            let is_newer = standing == BeatRole::Owner && (epoch >= self.epoch || !follows);
            let changes_peer = if self.is_owner() { outranked } else { is_newer };
            if !changes_peer {
                return self.weigh(now);
            }
            self.change_peer(from);
        }
        if std::mem::take(&mut self.peer_silent) {
            self.event(ClusterEvent::PeerHeard);
        }
        let restarted = heard == BeatOrder::Restarted;
        if restarted {
            self.event(ClusterEvent::PeerRestarted);
        }
        if standing == BeatRole::Owner && (outranked || !self.is_owner()) {
            self.damping.handle_told(takeovers);
        }
        let sent = self.sent.at(echo.sequence).filter(|_| echoed);
        let is_appointed = self.is_appointed(now);
        match &mut self.role {
            MemberRole::Owner(_) if outranked => self.step_down(epoch, now),
            MemberRole::Owner(own) => {
                if restarted && own.voters().is_some() {
                    own.arming = Arming::Off;
                    self.event(ClusterEvent::Disarmed);
                } else if echoed && own.handle_echo(echo.sequence, sent) {
                    self.event(ClusterEvent::Disarmed);
                }
            }
            MemberRole::Standby(following) => {
                following.candidacy = None;
                following.blocked = None;
                match standing {
                    BeatRole::Owner if spare => {
                        // Another member's copy counts.
                        (self.whole, self.records) = (false, 0);
                        self.follow(epoch, None, now);
                    }
                    BeatRole::Owner => {
                        let appointed = following.appointed.max(sent);
                        self.follow(epoch, appointed, now);
                    }
                    BeatRole::Yielded if echoed && following.follows => {
                        following.handle_yielded(records, now);
                    }
                    _ if restarted && following.follows && is_appointed => {
                        self.take_over(TakeoverCause::PeerRestarted, now);
                    }
                    // The successor, or a standby of it, may have owned.
                    _ if restarted && following.yielded.is_some() => following.listen(now),
                    BeatRole::Standby if following.follows && following.yielded.is_none() => {
                        *following = Following::new(false, now);
                    }
                    BeatRole::Standby | BeatRole::Yielded => {}
                }
            }
        }
        self.weigh(now);
    }

    /// The kernel of a member's host reports that no process reads a beat that was sent (port unreachable), or the agent
    /// there that no process has the port. Errors of other hosts, such as host unreachable, are no evidence.
    pub fn handle_peer_closed(&mut self, member: PeerId, by: Reporter, now: Instant) {
        self.note_lateness(now);
        if let Some(state) = self.peers.get_mut(member) {
            state.handle_closed(by, now);
        }
        self.weigh(now);
    }

    /// The connection to the peer has ended, as it does with the peer's process. A beat asks at once whether a process has the
    /// port.
    pub fn handle_disconnected(&mut self, now: Instant) {
        self.note_lateness(now);
        self.peers.current_mut().handle_disconnected();
        self.beat_due = self.beat_due.min(now);
        self.weigh(now);
    }

    /// Takes an agent's answer to an [`ClusterOutput::Ask`].
    pub fn handle_witness(&mut self, witness: &AgentVote, now: Instant) {
        self.note_lateness(now);
        let (voter, voted) = (witness.voter(), witness.voted);
        self.highest = self.highest.max(voted.epoch).max(voted.promised);
        let lives = voted.heard.is_some_and(|heard| heard < OWNER_HEARD);
        let own_epoch = self.is_own(voted.epoch);
        let peer_owned =
            voted.heard.filter(|_| !own_epoch).and_then(|heard| now.checked_sub(heard));
        self.agents.note(voter, peer_owned, now);
        match &mut self.role {
            // The peer owns. An epoch that no owner uses any more is one to exceed.
            MemberRole::Owner(_) if voted.epoch > self.epoch && lives && !own_epoch => {
                let owner = self.owner_of(voted.epoch);
                if owner != self.peers.current_id() {
                    self.change_peer(owner);
                }
                self.step_down(voted.epoch, now);
            }
            MemberRole::Owner(own) => {
                if let Vote::Owner { epoch, hold } = witness.vote
                    && [epoch, voted.epoch] == [self.epoch; 2]
                    && voted.promised <= epoch
                {
                    own.handle_grant(
                        voter,
                        match hold {
                            Hold::For(_) => MaySend::Until(witness.asked + LEASE),
                            Hold::Epoch => MaySend::Always,
                        },
                    );
                }
            }
            MemberRole::Standby(following) => {
                if let Some(candidacy) = &mut following.candidacy {
                    candidacy.handle_witness(witness);
                }
            }
        }
        self.weigh(now);
    }

    /// The node was removed, or has no agent any more.
    pub fn handle_no_witness(&mut self, id: WitnessId) {
        self.agents.forget(id);
    }

    /// An agent refused a message of this member because it knows a newer epoch. All agents are asked at once.
    pub fn handle_refused_epoch(&mut self, epoch: u64, now: Instant) {
        self.note_lateness(now);
        if epoch > self.highest {
            self.highest = epoch;
            self.survey(now);
        }
        self.weigh(now);
    }

    /// This member's copy of the owner's records: whether it is complete, and the number of its newest batch.
    pub fn handle_replica(&mut self, whole: bool, number: u64, now: Instant) {
        self.note_lateness(now);
        let changed = self.whole != whole;
        (self.whole, self.records) = (whole, number);
        self.weigh(now);
        if changed && !self.is_owner() {
            self.send_beat(now);
        }
    }

    /// The reason for which this member takes nothing over from its silent peer.
    pub fn blocked(&self) -> Option<Blocked> {
        match &self.role {
            MemberRole::Standby(following) => following.blocked,
            MemberRole::Owner(_) => None,
        }
    }

    /// Keeps the standby disarmed, so that this member may pause, or lets it be armed again. The pause may begin once
    /// [`Self::continued`] is there.
    pub fn set_resting(&mut self, resting: bool, now: Instant) {
        self.note_lateness(now);
        self.resting = resting;
        let next = self.sequence + 1;
        if let MemberRole::Owner(own) = &mut self.role
            && resting
        {
            own.disarm(next);
            self.send_beat(now);
        }
        self.weigh(now);
    }

    /// Takes the steps that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.note_lateness(now);
        if self.beat_due <= now {
            self.turn(now);
        }
        if self.survey_due <= now {
            self.survey(now);
        }
        self.weigh(now);
    }

    /// Returns the time of the next [`handle_timeout`](Self::handle_timeout).
    pub fn poll_timeout(&self) -> Instant {
        let due = self.beat_due.min(self.survey_due);
        self.silent_at.map_or(due, |at| at.min(due))
    }

    /// Returns the next output.
    pub fn poll_output(&mut self) -> Option<ClusterOutput> {
        self.outputs.pop_front()
    }

    /// Time for which this member itself was not running is no silence of the peer.
    fn note_lateness(&mut self, now: Instant) {
        let late = now.saturating_duration_since(self.poll_timeout());
        if late > PUNCTUAL {
            self.peers.excuse(late);
        }
    }

    fn beat_every(&self, now: Instant) -> Duration {
        let misses = (BEAT_EVERY..2 * SILENCE).contains(&self.peers.current().silence(now));
        match &self.role {
            MemberRole::Standby(following) if following.follows && misses => ASKED_EVERY,
            _ => BEAT_EVERY,
        }
    }

    /// Sends a beat, and asks the voters if that is due.
    fn turn(&mut self, now: Instant) {
        self.maintain(now);
        self.send_beat(now);
        match &self.role {
            MemberRole::Owner(own) => {
                let Some(voters) = own.voters() else { return };
                let since = |at| now.saturating_duration_since(at);
                let age = own.echoed.map_or(Duration::MAX, since);
                let ended = self.peers.current().has_ended(now);
                if age < ECHO_LATE && !ended {
                    return;
                }
                // Holds for a time end on the way from voters that are far away.
                let gone = ended || age >= GONE_AFTER || own.needs_lasting_hold(now);
                let hold = if gone { Hold::Epoch } else { Hold::For(HOLD) };
                let vote = Vote::Owner { epoch: self.epoch, hold };
                let ids: Vec<WitnessId> = voters.iter().map(|voter| voter.id).collect();
                self.ask(ids, vote);
                if let MemberRole::Owner(own) = &mut self.role {
                    own.barred |= gone;
                }
            }
            MemberRole::Standby(following) => {
                let recent = |since| now.saturating_duration_since(since) < GONE_AFTER;
                let candidacy = following.candidacy.as_ref();
                if let Some(candidacy) = candidacy.filter(|it| recent(it.since)) {
                    self.ask(candidacy.missing().collect(), candidacy.vote());
                }
            }
        }
    }

    /// Asks every agent: an owner shows that it lives, and a standby learns epochs.
    fn survey(&mut self, now: Instant) {
        self.survey_due = now + SURVEY_EVERY;
        let vote = match &self.role {
            MemberRole::Owner(_) => Vote::Owner { epoch: self.epoch, hold: Hold::For(HOLD) },
            MemberRole::Standby(following) => {
                following.candidacy.as_ref().map_or(Vote::Standby, Candidacy::vote)
            }
        };
        self.outputs.push_back(ClusterOutput::Ask { to: None, vote });
    }

    fn ask(&mut self, ids: Vec<WitnessId>, vote: Vote) {
        let ask = |id| ClusterOutput::Ask { to: Some(id), vote };
        self.outputs.extend(ids.into_iter().map(ask));
    }

    fn send_beat(&mut self, now: Instant) {
        // A beat that arms the standby must not leave before the lease counts.
        self.permit(now);
        self.sequence += 1;
        self.beat_due = now + self.beat_every(now);
        self.sent.push(self.sequence, now);
        let (peer, appoints) = (self.peers.current_id(), self.appoints_peer(now));
        if let MemberRole::Owner(own) = &mut self.role
            && appoints
        {
            own.appointed = Some(Appointment { standby: Some(peer), at: now });
        }
        for (member, state) in self.peers.iter() {
            let beat = self.beat_to(state, member == peer, appoints, now);
            self.outputs.push_back(ClusterOutput::Send(member, beat));
        }
    }

    fn beat_to(&self, member: &PeerState, is_peer: bool, appoints: bool, now: Instant) -> Beat {
        let mut beat = Beat {
            incarnation: self.settings.incarnation,
            sequence: self.sequence,
            role: BeatRole::Standby,
            epoch: self.epoch,
            highest: self.highest,
            echo: member.echo(),
            whole: self.holds_copy(),
            spare: false,
            preferred: self.settings.members > 2 && self.settings.preferred,
            records: self.records,
            takeovers: 0,
            voters: Vec::new(),
        };
        match &self.role {
            MemberRole::Owner(own) => {
                (beat.role, beat.takeovers) = (BeatRole::Owner, self.damping.takeovers(now));
                beat.spare = !(is_peer && appoints);
                if let Arming::On(voters) = &own.arming
                    && is_peer
                {
                    beat.voters.clone_from(voters);
                }
            }
            MemberRole::Standby(following) => {
                if let Some(records) = following.yielded.filter(|_| is_peer && following.follows) {
                    (beat.role, beat.records) = (BeatRole::Yielded, records);
                }
            }
        }
        beat
    }

    /// Sets the workers' lease.
    fn permit(&mut self, now: Instant) {
        let ended = self.peers.current().has_ended(now);
        let (may_send, lapsed) = match &mut self.role {
            MemberRole::Standby(_) => (MaySend::Never, None),
            MemberRole::Owner(own) => {
                let may_send = own.may_send(ended);
                let waits = may_send <= MaySend::Until(now) && own.yielding.is_none();
                if waits {
                    own.note_lapse(now);
                }
                let lapsed = match (own.lapsed, waits) {
                    (None, true) => {
                        own.lapsed = Some(now);
                        Some(ClusterEvent::LeaseLapsed)
                    }
                    (Some(since), false) => {
                        own.lapsed = None;
                        let after = now.saturating_duration_since(since);
                        Some(ClusterEvent::LeaseRenewed(after))
                    }
                    _ => None,
                };
                (may_send, lapsed)
            }
        };
        if may_send != self.may_send {
            self.may_send = may_send;
            self.outputs.push_back(ClusterOutput::MaySend(may_send));
        }
        if let Some(event) = lapsed {
            self.event(event);
        }
    }

    fn event(&mut self, event: ClusterEvent) {
        self.outputs.push_back(ClusterOutput::Event(event));
    }

    /// The next epoch of this member. Members use different numbers.
    fn next_epoch(&self) -> u64 {
        (self.highest + 1..).find(|epoch| self.is_own(*epoch)).expect("one of the next is")
    }

    fn is_own(&self, epoch: u64) -> bool {
        epoch % self.settings.members as u64 == self.settings.rank as u64
    }

    /// The other member that owns in this epoch.
    fn owner_of(&self, epoch: u64) -> PeerId {
        let rank = (epoch % self.settings.members as u64) as usize;
        PeerId(if rank < self.settings.rank { rank } else { rank.saturating_sub(1) })
    }

    // Changes of ownership.

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
    fn is_appointed(&self, now: Instant) -> bool {
        let MemberRole::Standby(following) = &self.role else { return false };
        self.settings.members == 2 || following.is_appointed(now)
    }

    /// The peer is this owner's standby, and told so.
    fn appoints_peer(&self, now: Instant) -> bool {
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

    fn change_peer(&mut self, peer: PeerId) {
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
    fn weigh(&mut self, now: Instant) {
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
    fn does_not_own(&self, member: &PeerState, now: Instant) -> bool {
        let hears = member.hears(self.settings.incarnation);
        member.has_ended(now) || hears && member.is(BeatRole::Standby, now)
    }

    fn is_without_owner(&self, now: Instant) -> bool {
        self.peers.iter().all(|(_, state)| self.does_not_own(state, now))
            && self.peers.iter().any(|(_, state)| !state.has_ended(now))
    }

    /// This member has all records of the owner that it follows, or those that it yielded.
    fn holds_copy(&self) -> bool {
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
    fn maintain(&mut self, now: Instant) {
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
    fn is_copied(&self) -> bool {
        self.peers.current().newest().is_some_and(|beat| beat.whole && beat.epoch == self.epoch)
    }

    fn raise(&mut self) {
        self.epoch = self.next_epoch();
        self.highest = self.epoch;
        if let MemberRole::Owner(own) = &mut self.role {
            own.handle_raise();
        }
        self.outputs.push_back(ClusterOutput::Raise(self.epoch));
    }

    /// The peer's ownership is newer than this member's. Equal epochs are a mistake of configuration.
    fn is_outranked(&self, epoch: u64) -> bool {
        epoch > self.epoch || epoch == self.epoch && !self.settings.preferred
    }

    /// Follows the owner of this epoch. `appointed`: see [`Following`].
    fn follow(&mut self, epoch: u64, appointed: Option<Instant>, now: Instant) {
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

    fn step_down(&mut self, epoch: u64, now: Instant) {
        self.role = MemberRole::Standby(Following::new(true, now));
        self.epoch = epoch;
        self.permit(now);
        self.outputs.push_back(ClusterOutput::StepDown(epoch));
        self.event(ClusterEvent::Followed(epoch));
        self.send_beat(now);
    }

    fn take_over(&mut self, evidence: TakeoverCause, now: Instant) {
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

    // The hand-over: an owner stops, sends its last records, and its standby owns.

    /// The reason why the ownership cannot be handed to the peer now.
    pub fn hand_over_refusal(&self, now: Instant) -> Option<HandOverRefusal> {
        match &self.role {
            MemberRole::Standby(_) => Some(HandOverRefusal::NotOwner),
            _ if !self.peers.current().is(BeatRole::Standby, now) => {
                Some(HandOverRefusal::PeerSilent)
            }
            _ if !self.is_followed(now) => Some(HandOverRefusal::RecordsIncomplete),
            MemberRole::Owner(_) => None,
        }
    }

    /// Hands the ownership to the peer. [`ClusterOutput::Yield`] follows.
    pub fn handle_hand_over(&mut self, now: Instant) -> Result<(), HandOverRefusal> {
        self.note_lateness(now);
        if let Some(refusal) = self.hand_over_refusal(now) {
            return Err(refusal);
        }
        if let MemberRole::Owner(own) = &mut self.role
            && own.yielding.is_none()
        {
            own.yielding = Some(now);
            self.permit(now);
            self.outputs.push_back(ClusterOutput::Yield);
        }
        Ok(())
    }

    /// The last records of a hand-over were sent, and the last of them is in this batch. From now on the peer owns, if it
    /// still is the process that holds the records; otherwise this member remains the owner.
    pub fn handle_yielded(&mut self, records: u64, now: Instant) {
        self.note_lateness(now);
        let follows = self.is_copied() && !self.peers.current().has_ended(now);
        if follows && matches!(&self.role, MemberRole::Owner(own) if own.yielding.is_some()) {
            let mut following = Following::new(true, now);
            following.yielded = Some(records);
            self.role = MemberRole::Standby(following);
            self.send_beat(now);
        } else {
            self.give_up_hand_over();
        }
        self.weigh(now);
    }

    /// The last records of a hand-over cannot be sent: this member remains the owner, and sends again.
    pub fn handle_not_yielded(&mut self, now: Instant) {
        self.note_lateness(now);
        self.give_up_hand_over();
        self.weigh(now);
    }

    /// Ends a hand-over that this owner began, if there is one.
    fn give_up_hand_over(&mut self) {
        if let MemberRole::Owner(own) = &mut self.role
            && own.yielding.take().is_some()
        {
            self.event(ClusterEvent::HandOverFailed);
        }
    }

    // The takeover by an operator, who confirms that silent members are down.

    /// An operator makes this member the owner that sends, and confirms that these others are down. This member cannot know it:
    /// it refuses if it hears one of them, if another one is silent too, or if agents hear the peer as the owner.
    pub fn handle_take_over(
        &mut self,
        down: &[PeerId],
        now: Instant,
    ) -> Result<(), TakeoverRefusal> {
        self.note_lateness(now);
        if let Some(refusal) = self.takeover_refusal(down, now) {
            return Err(refusal);
        }
        match &mut self.role {
            MemberRole::Standby(_) => self.take_over(TakeoverCause::Operator, now),
            MemberRole::Owner(own) => {
                // The peer may have been armed.
                own.arming = Arming::Off;
                self.event(ClusterEvent::Disarmed);
                self.raise();
                self.survey(now);
            }
        }
        self.weigh(now);
        Ok(())
    }

    /// The reason for which this member takes nothing over although these others are confirmed to be down.
    pub fn takeover_refusal(&self, down: &[PeerId], now: Instant) -> Option<TakeoverRefusal> {
        if matches!(&self.role, MemberRole::Owner(own) if own.lapsed.is_none()) {
            return Some(TakeoverRefusal::OwnerAlready);
        }
        for (id, state) in self.peers.iter() {
            let newest = state.newest().filter(|_| state.silence(now) < GONE_AFTER);
            let refusal = match newest {
                Some(beat) if down.contains(&id) => match beat.role {
                    BeatRole::Owner => TakeoverRefusal::PeerOwns(id),
                    BeatRole::Standby | BeatRole::Yielded => TakeoverRefusal::PeerHeard(id),
                },
                None if state.silence(now) < GONE_AFTER => TakeoverRefusal::Joining(id),
                // That one is asked; this one would lose the records.
                Some(beat) if beat.role == BeatRole::Owner || beat.whole => {
                    TakeoverRefusal::HeldElsewhere(id)
                }
                _ if down.contains(&id) || self.does_not_own(state, now) => continue,
                _ => TakeoverRefusal::AlsoSilent(id),
            };
            return Some(refusal);
        }
        self.agents.hear_peer(now).then_some(TakeoverRefusal::AgentsHearPeer)
    }
}

#[cfg(test)]
mod tests;
