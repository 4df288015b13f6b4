//! Messages between the two members, the votes of the nodes' agents, and the settings and outputs of a member.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use evenkeel_media::trunk::{Vote, Voted};

use crate::damping::HoldDown;

/// Interval of beats.
pub const BEAT_EVERY: Duration = Duration::from_millis(5);

/// Limit of the voters of an arming.
pub const VOTERS_MAX: usize = 5;

/// Longest encoded beat, in bytes.
pub const BEAT_LEN_MAX: usize = HEAD_LEN + VOTERS_MAX * VOTER_LEN;

const HEAD_LEN: usize = 4 + 7 * 8;
const VOTER_LEN: usize = 8 + 4;

/// The role that a beat states.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BeatRole {
    /// The sender follows.
    Standby,
    /// The sender owns the addresses.
    Owner,
    /// The owner has handed its ownership to the peer.
    Yielded,
}

/// The newest beat that its receiver had heard from the peer when it sent its own.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Echo {
    /// The number of the process that sent the beat.
    pub incarnation: u64,
    /// The number of the newest beat.
    pub sequence: u64,
}

/// A member's message about itself, every 5 ms. The transport adds the names of both members and a signature.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Beat {
    /// Grows with each process of this member.
    pub incarnation: u64,
    /// Counts the beats of this incarnation from 1 on.
    pub sequence: u64,
    /// The role of the sender.
    pub role: BeatRole,
    /// The epoch of the ownership that this member has, had, or follows; 0 if none.
    pub epoch: u64,
    /// The newest epoch of which this member has heard, claims included.
    pub highest: u64,
    /// Zero until a beat was heard.
    pub echo: Echo,
    /// This member holds all records of the owner.
    pub whole: bool,
    /// With [`BeatRole::Owner`], in a group of more than two: the recipient is a spare. It gets no records, and takes nothing over.
    pub spare: bool,
    /// In a group of more than two: the sender owns if no member does.
    pub preferred: bool,
    /// With [`BeatRole::Yielded`]: the number of the last batch of records.
    pub records: u64,
    /// With [`BeatRole::Owner`]: takeovers by silence that followed each other; see [`HoldDown`](crate::HoldDown).
    pub takeovers: u8,
    /// With [`BeatRole::Owner`]: the agents; with a majority of them the process that this beat echoes may take over by
    /// silence. None: it may not.
    pub voters: Vec<Voter>,
}

impl Beat {
    /// Returns the bytes of the datagram.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(BEAT_LEN_MAX);
        bytes.extend([
            self.role as u8,
            u8::from(self.whole) | u8::from(self.spare) << 1 | u8::from(self.preferred) << 2,
            self.voters.len() as u8,
            self.takeovers,
        ]);
        let Echo { incarnation, sequence } = self.echo;
        for number in [
            self.incarnation,
            self.sequence,
            self.epoch,
            self.highest,
            incarnation,
            sequence,
            self.records,
        ] {
            bytes.extend(number.to_be_bytes());
        }
        for voter in &self.voters {
            bytes.extend(voter.id.0.to_be_bytes());
            bytes.extend(voter.instance.to_be_bytes());
        }
        bytes
    }

    /// None if the bytes are no beat.
    pub fn decode(bytes: &[u8]) -> Option<Beat> {
        let (head, voters) = bytes.split_at_checked(HEAD_LEN)?;
        let (first, numbers) = head.split_at(4);
        let &[standing, flags, count, takeovers] = first else { return None };
        let roles = [BeatRole::Standby, BeatRole::Owner, BeatRole::Yielded];
        let standing = *roles.get(usize::from(standing))?;
        let count = usize::from(count);
        if flags > 0b111 || count > VOTERS_MAX || voters.len() != count * VOTER_LEN {
            return None;
        }
        let mut numbers = numbers.chunks_exact(8).filter_map(u64_of);
        let mut next = || numbers.next();
        let (incarnation, sequence, epoch, highest) = (next()?, next()?, next()?, next()?);
        let echo = Echo { incarnation: next()?, sequence: next()? };
        let records = next()?;
        let voter = |bytes: &[u8]| {
            let (id, instance) = bytes.split_at(8);
            let instance = u32::from_be_bytes(instance.try_into().ok()?);
            Some(Voter { id: WitnessId(u64_of(id)?), instance })
        };
        let voters = voters.chunks_exact(VOTER_LEN).map(voter).collect::<Option<_>>()?;
        let [whole, spare, preferred] = [1, 2, 4].map(|flag| flags & flag != 0);
        Some(Beat {
            incarnation,
            sequence,
            role: standing,
            epoch,
            highest,
            echo,
            whole,
            spare,
            preferred,
            records,
            takeovers,
            voters,
        })
    }
}

fn u64_of(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}

/// Interval at which every agent is asked.
pub(super) const SURVEY_EVERY: Duration = Duration::from_millis(250);

/// An agent that gave no answer for this long is no voter: several surveys were lost.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);

/// An owner that an agent heard this recently is alive: owners ask every agent more often.
pub(super) const OWNER_HEARD: Duration = Duration::from_secs(2);

/// One of the other members, by its place in the settings of this one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct PeerId(pub usize);

/// A voter: an agent or a witness. The number is the same at both members.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct WitnessId(pub u64);

/// A process of an agent. Its memory ends with it, and so does its vote.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Voter {
    /// The agent.
    pub id: WitnessId,
    /// The process of the agent; another after a restart.
    pub instance: u32,
}

/// An agent's answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AgentVote {
    /// The agent.
    pub id: WitnessId,
    /// The time at which the question was sent.
    pub asked: Instant,
    /// The vote that was asked for.
    pub vote: Vote,
    /// The answer.
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
    sightings: BTreeMap<WitnessId, AgentSighting>,
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
        self.sightings
            .insert(voter.id, AgentSighting { instance: voter.instance, at: now, peer_owned });
    }

    /// An agent heard the peer as the owner a short time ago.
    pub(super) fn hear_peer(&self, now: Instant) -> bool {
        let recent = |at: Instant| now.saturating_duration_since(at) < OWNER_HEARD;
        self.sightings.values().any(|seen| seen.peer_owned.is_some_and(recent))
    }

    pub(super) fn forget(&mut self, id: WitnessId) {
        self.sightings.remove(&id);
    }

    /// The agents that should vote: an odd number, and those that vote now before others.
    pub(super) fn choose(&self, present: &[Voter], now: Instant) -> Vec<Voter> {
        let alive =
            |seen: &&AgentSighting| now.saturating_duration_since(seen.at) < ANSWERED_WITHIN;
        let mut voters: Vec<Voter> = (self.sightings.iter())
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

/// Outputs are carried out in their order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClusterOutput {
    /// Send a beat to a member.
    Send(PeerId, Beat),
    /// The peer is another member from now on: of an owner its standby, of others the owner. Connections go to it alone.
    ChangePeer(PeerId),
    /// Ask an agent, or every agent, at once. Its answer is handed to `handle_witness` with the time of asking.
    Ask {
        /// One agent; `None`: all agents.
        to: Option<WitnessId>,
        /// The question.
        vote: Vote,
    },
    /// The workers' lease.
    MaySend(MaySend),
    /// Own the addresses: restore the records, unless the workers are those that yielded, and use this epoch.
    TakeOver {
        /// The epoch of the ownership; it only grows.
        epoch: u64,
        /// The proof that allows the takeover.
        evidence: TakeoverCause,
    },
    /// The peer owns in this epoch: drop all sessions and what the workers had read, and follow it.
    StepDown(u64),
    /// Use this newer epoch. Messages under way with the older one may be refused, and are sent again.
    Raise(u64),
    /// Suspend the workers, send the last records, then call `handle_yielded`. [`ClusterOutput::StepDown`] follows when the
    /// peer owns; [`ClusterEvent::HandOverFailed`] if it does not, before an [`ClusterOutput::TakeOver`].
    Yield,
    /// Report an event.
    Event(ClusterEvent),
}

/// A witness that no process has the peer's port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reporter {
    /// The kernel of the peer's host, by a port unreachable.
    Kernel,
    /// The agent beside the peer.
    Agent,
}

/// The reason of a takeover.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TakeoverCause {
    /// Neither member owned.
    Start,
    /// The process of the owner ended.
    PeerEnded,
    /// The owner's process was replaced by one that does not own.
    PeerRestarted,
    /// The owner is silent, and a majority of the voters does not hear it either.
    Silence,
    /// The owner yielded.
    HandOver,
    /// An operator confirmed that the peer is down.
    Operator,
}

/// An event of a member, for telemetry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClusterEvent {
    /// The peer sends beats again.
    PeerHeard,
    /// No beat of the peer for the limit of silence.
    PeerSilent,
    /// The process of the peer has ended, as this reporter says.
    PeerEnded(Reporter),
    /// Another process sends the beats of the peer.
    PeerRestarted,
    /// This member follows the owner of this epoch.
    Followed(u64),
    /// The standby may take over by silence, with the votes of these agents.
    Armed(Vec<Voter>),
    /// The standby may not take over by silence.
    Disarmed,
    /// The agents keep the peer from taking over in this epoch, because it is gone.
    Barred,
    /// Takeovers by silence, this many, followed each other. The standby may not take over so again for this time.
    HeldDown(u8, Duration),
    /// The owner may not send.
    LeaseLapsed,
    /// The owner may send again, after this time without a lease.
    LeaseRenewed(Duration),
    /// The last records were not ready in time.
    HandOverFailed,
    /// The owner is silent, and no takeover follows.
    TakeoverBlocked(Blocked),
}

/// The reason why no takeover follows from silence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blocked {
    /// This member did not hold all records, no voter answered the owner, or a hold-down lasts.
    NotArmed,
    /// Voters hear the owner, or hold for it.
    OwnerHeard,
    /// Too few voters answer: this member may be the one that is cut off.
    NoAgent,
    /// This member has not followed its silent peer as the owner; the peer may own.
    Unknown,
}

/// The reason for which an owner hands nothing over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HandOverRefusal {
    /// This member does not own the addresses.
    NotOwner,
    /// No beat of the peer for the limit of silence.
    PeerSilent,
    /// The peer does not hold all records.
    RecordsIncomplete,
}

/// The reason for which a member takes nothing over at an operator's request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TakeoverRefusal {
    /// This member owns, and may send.
    OwnerAlready,
    /// This member owns the addresses.
    PeerOwns(PeerId),
    /// This member is heard, and does not own.
    PeerHeard(PeerId),
    /// This process has just started, and listens for this member.
    Joining(PeerId),
    /// Agents hear the peer as the owner.
    AgentsHearPeer,
    /// This other member owns, or holds the records.
    HeldElsewhere(PeerId),
    /// This other member is silent too, and was not confirmed to be down.
    AlsoSilent(PeerId),
}

/// The time until which the workers may send.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum MaySend {
    /// No packet may leave.
    Never,
    /// Packets may leave until this time.
    Until(Instant),
    /// Packets may leave without end.
    Always,
}

/// The settings of a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClusterSettings {
    /// The members of the group, at least two.
    pub members: usize,
    /// The number of this member among these, from 0 on. Epochs of a member have this remainder.
    pub rank: usize,
    /// At most one member is preferred. It owns when none does.
    pub preferred: bool,
    /// Grows with each process of this member, such as the wall-clock time of its start. A process that replaces another
    /// in an upgrade keeps it.
    pub incarnation: u64,
    /// The ownership of the process that this one replaces in an upgrade.
    pub continued: Option<ContinuedOwnership>,
    /// Damping of takeovers by silence.
    pub hold_down: HoldDown,
}

/// An ownership that another process of the same member continues. Its standby must be disarmed ([`set_resting`](super::Cluster::set_resting)).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ContinuedOwnership {
    /// The number of the newest beat.
    pub sequence: u64,
    /// The epoch that was owned.
    pub epoch: u64,
    /// The highest epoch that was seen.
    pub highest: u64,
    /// Takeovers by silence that followed each other.
    pub takeovers: u8,
    /// The standby; `None` if it is no member any more.
    pub standby: Option<PeerId>,
}
