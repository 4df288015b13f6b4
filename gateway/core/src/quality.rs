//! Handles nodes that lose more than their siblings by the votes of rooms: they become Suspect, and rooms leave them.
//!
//! Loss is not death: the packets that still arrive are better than none. These witnesses therefore mark no node
//! down, neither alone nor together, because lost probes and lost media have one cause. If the accusation lasts, the
//! node's rooms move make-before-break to sound nodes with capacity, some at a time, within each room's limit of moves.
//! Rooms that fit nowhere stay. A node without rooms gets no votes and stays Suspect for its ejection, which grows with
//! each relapse.
//!
//! The nodes are found by a sequential likelihood-ratio test on the votes of rooms.
//!
//! A room votes once it has seen enough packets. Its vote is *bad* if at least 5 % of them were lost between the
//! gateway and the node, beyond the loss in its own clients' networks. Each room has one vote, so one bad publisher
//! with a thousand listeners counts once. Each evaluation counts the votes of the last 2 s and ends as soon as they are
//! clear enough.
//!
//! Loss caused by a node's death does not count against the node that takes the rooms: a room that comes from another
//! hop starts counting one second later, and RTCP reports count once none of them can cover an earlier time.
//!
//! With siblings, the votes must be 10⁶ times as likely if the two differ as if they are alike (generalised
//! likelihood ratio; for 8 bad rooms against 15 good ones at siblings, Fisher's exact test gives 2·10⁻⁶). Without
//! siblings, they must be 10⁶ times as likely for a node with 90 % bad rooms as for one with 30 % (Wald 1945). A
//! healthy node is therefore accused about once in 10⁶ windows of 2 s, or 23 days. At a node that loses 15 %, a room
//! votes wrongly with a probability of 2 %. Votes that are 100 times as likely for a healthy node withdraw the
//! accusation.

pub(crate) mod ballots;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_model::{
    EvidenceSource, FlowCounts, Hop, Metric, NodeId, RegionId, RoomId, SessionId,
};
use evenkeel_nodes::NodeTable;

use crate::effects::{Effects, Timer};
use crate::flow::{FlowTracker, SendingState};
use crate::quality::ballots::{CohortVerdict, NodeBallot, VoteCount, weigh};
use crate::rooms::RoomTable;
use crate::rooms::room::Room;
use crate::sessions::{Session, SessionTable};

#[derive(Default, Debug)]
pub(crate) struct Quality {
    /// Sessions that receive nothing any more after receiving media steadily.
    silent: BTreeSet<(RoomId, SessionId)>,
    /// Votes of rooms about nodes, by scenario. Only rooms of the same scenario are compared.
    ballots: BTreeMap<(NodeId, Arc<str>), NodeBallot>,
}

impl Quality {
    pub(crate) fn forget_node(&mut self, id: NodeId) {
        self.ballots.retain(|(node, _), _| *node != id);
    }

    pub(crate) fn forget_session(&mut self, room: RoomId, session: SessionId) {
        self.silent.remove(&(room, session));
    }

    /// Takes the vote of a room about a node.
    #[cfg(test)]
    pub(crate) fn vote(
        &mut self,
        about: (NodeId, Arc<str>),
        room: RoomId,
        bad: bool,
        now: Instant,
    ) {
        self.ballots.entry(about).or_default().vote(room, bad, now);
    }

    /// The number of sessions that receive nothing any more.
    pub(crate) fn silent(&self) -> usize {
        self.silent.len()
    }

    /// The number of pairs of a node and a scenario with votes.
    pub(crate) fn ballots(&self) -> usize {
        self.ballots.len()
    }
}

const JUDGE_EVERY: Duration = Duration::from_millis(100);

/// Maximum age of reports on a session while there are few sessions. Any further delay is passed as `slack`.
const TOLD_WITHIN: Duration = Duration::from_millis(200);

/// A node that was not heard for this long sends nothing to any session. That is no lost flow, and other witnesses
/// cover it.
const NODE_HEARD_WITHIN: Duration = Duration::from_millis(200);

/// The verdict on a session that receives nothing any more.
pub(crate) enum FlowVerdict {
    /// This hop fails to deliver what other sessions send.
    Lost(Hop),
    /// No hop is to blame, or it cannot be determined.
    Innocent,
    Wait,
}

impl Quality {
    /// Takes the packets between a session and its node since the last report. Returns those that measure the hop that
    /// carries the session; `None` if the session is not live, or not carried.
    pub(crate) fn handle_flow(
        &mut self,
        id: SessionId,
        flow: &FlowCounts,
        sessions: &mut SessionTable,
        rooms: &mut RoomTable,
        nodes: &mut NodeTable,
        effects: &mut Effects,
        now: Instant,
    ) -> Option<FlowCounts> {
        let slack = slack(sessions);
        let session = sessions.unrecorded_mut(&id).filter(|session| session.is_live())?;
        let room = rooms.get_mut(&session.room())?;
        let (first, other) = room.cell().carriers(nodes.board())?;
        // With two carrying hops, the client receives from the leading one.
        let hop = other.filter(|other| flow.hears == Some(*other)).unwrap_or(first);
        let track = session.track_at(hop, now);
        if flow.received != [0; 2]
            && let Some(from) = flow.hears
            && let Some(node) = nodes.get_mut(from.node)
            && node.hop() == from
        {
            node.detector.handle_delivered(now);
        }
        // Packets from a previous hop say nothing about this one.
        let is_here = flow.hears == Some(hop);
        // With two carrying hops, loss at both accuses neither, and the other hop covers the loss at one.
        let is_its_own = is_here && other.is_none();
        let count_if = |counts| if counts { (flow.expected, flow.lost) } else { (0, 0) };
        let (expected, lost) = count_if(is_its_own);
        let received = if is_here { flow.received } else { [0; 2] };
        let jitter_us = flow.jitter_us.filter(|_| is_here);
        let measured = FlowCounts { received, expected, lost, jitter_us, ..*flow };
        let falls_silent = track.note(&measured, slack, now);
        if is_its_own {
            self.tally(room, hop, flow, sessions, effects, now);
        }
        if falls_silent {
            self.silent.insert((room.id(), id));
            effects.set_if_idle(Timer::Flows, now + JUDGE_EVERY);
        }
        // The loss after the copies of both hops are merged is that of the path.
        let (expected, lost) = count_if(is_here);
        Some(FlowCounts { expected, lost, ..measured })
    }

    /// The silent sessions, with their rooms, each to be [judged](Self::judge_flow).
    pub(crate) fn take_silent(&mut self) -> BTreeSet<(RoomId, SessionId)> {
        std::mem::take(&mut self.silent)
    }

    pub(crate) fn judge_flow(
        &mut self,
        room: &Room,
        session: SessionId,
        sessions: &mut SessionTable,
        nodes: &NodeTable,
        now: Instant,
    ) -> FlowVerdict {
        let verdict = judge_flow(room, session, sessions, nodes, now);
        match verdict {
            FlowVerdict::Wait => _ = self.silent.insert((room.id(), session)),
            FlowVerdict::Innocent => with_track(sessions, session, FlowTracker::forget),
            FlowVerdict::Lost(_) => with_track(sessions, session, FlowTracker::moved),
        }
        verdict
    }

    /// Sessions that are silent still are judged again.
    pub(crate) fn judge_again(&self, effects: &mut Effects, now: Instant) {
        if !self.silent.is_empty() {
            effects.set(Timer::Flows, now + JUDGE_EVERY);
        }
    }

    /// The control thread was late: packets of sessions that seem silent may not have been read.
    pub(crate) fn excuse_flows(&self, late: Duration, sessions: &mut SessionTable) {
        for (_, session) in &self.silent {
            with_track(sessions, *session, |track| track.excuse(late));
        }
    }
}

fn slack(sessions: &SessionTable) -> Duration {
    sessions.reports_within().saturating_sub(TOLD_WITHIN)
}

fn with_track(
    sessions: &mut SessionTable,
    session: SessionId,
    change: impl FnOnce(&mut FlowTracker),
) {
    if let Some(track) = sessions.unrecorded_mut(&session).and_then(Session::track_mut) {
        change(track);
    }
}

fn judge_flow(
    room: &Room,
    session: SessionId,
    sessions: &SessionTable,
    nodes: &NodeTable,
    now: Instant,
) -> FlowVerdict {
    let slack = slack(sessions);
    let Some(track) = sessions.get(&session).and_then(Session::track) else {
        return FlowVerdict::Innocent;
    };
    let carries =
        |(first, other): (Hop, Option<Hop>)| first == track.hop() || other == Some(track.hop());
    if !track.is_silent() || !room.cell().carriers(nodes.board()).is_some_and(carries) {
        return FlowVerdict::Innocent;
    }
    let Some(silent) = track.lost_since(slack, now) else { return FlowVerdict::Wait };
    if !is_heard(nodes, track.hop(), now) {
        return FlowVerdict::Innocent;
    }
    let kinds = track.steady_kinds();
    let mut fed = false;
    for other in room.sessions().iter() {
        let track = sessions.get(other).and_then(Session::track);
        match track.map_or(SendingState::Not, |track| track.sending(kinds, silent, slack, now)) {
            // The silent session may have been hearing this sender.
            SendingState::Stopped => return FlowVerdict::Innocent,
            // A session alone in its room may hear itself.
            SendingState::On => fed |= *other != session || room.sessions().len() == 1,
            SendingState::Not => {}
        }
    }
    if fed { FlowVerdict::Lost(track.hop()) } else { FlowVerdict::Innocent }
}

/// The node sends to some session.
fn is_heard(nodes: &NodeTable, hop: Hop, now: Instant) -> bool {
    let received = nodes.get(hop.node).and_then(|node| node.detector.last_received());
    received.is_some_and(|at| now.saturating_duration_since(at) < NODE_HEARD_WITHIN)
}

const WEIGH_EVERY: Duration = Duration::from_millis(100);

/// The time that an accusation must last before rooms leave, so that a brief one moves no room.
const LEAVE_AFTER: Duration = Duration::from_secs(1);

impl Quality {
    /// Counts one session's flow towards the room's vote about its hop.
    fn tally(
        &mut self,
        room: &mut Room,
        hop: Hop,
        flow: &FlowCounts,
        sessions: &SessionTable,
        effects: &mut Effects,
        now: Instant,
    ) {
        if flow.expected == 0 && flow.reported_ppm.is_none() {
            return;
        }
        let Some(seen) = room.tally(hop, flow, now) else { return };
        let worst = |metric| worst(room, sessions, metric);
        let bad = seen.vote(worst(Metric::LossUp), worst(Metric::LossDown));
        let scenario = Arc::clone(room.scenario());
        self.ballots.entry((hop.node, scenario)).or_default().vote(room.id(), bad, now);
        effects.set_if_idle(Timer::Cohorts, now + WEIGH_EVERY);
    }

    /// Weighs the votes about each node against those about its siblings. Returns the nodes that rooms leave.
    pub(crate) fn weigh_cohorts(&mut self, nodes: &mut NodeTable, now: Instant) -> Vec<NodeId> {
        let (words, at) = self.words(nodes, now);
        let mut left = Vec::new();
        for node in nodes.iter_mut() {
            node.fares_badly = at.get(&node.id).is_some_and(|count| count.is_bad());
            match words.get(&node.id) {
                Some(CohortVerdict::WorseThanSiblings) => {
                    node.found_worse(EvidenceSource::Cohort, now);
                }
                Some(CohortVerdict::Bad) => node.found_worse(EvidenceSource::Feedback, now),
                word => node.found_no_worse(word == Some(&CohortVerdict::Well), now),
            }
            if node.worse_for(now).is_some_and(|lasted| lasted >= LEAVE_AFTER) {
                left.push(node.id);
            }
        }
        left
    }

    /// Votes are weighed again while a node is accused or there are votes.
    pub(crate) fn weigh_again(&self, nodes: &NodeTable, effects: &mut Effects, now: Instant) {
        let watched = nodes.iter().any(|node| node.worse_for(now).is_some());
        if watched || !self.ballots.is_empty() {
            effects.set(Timer::Cohorts, now + WEIGH_EVERY);
        }
    }

    /// The verdict on each node, and the votes about the node by rooms of all scenarios.
    fn words(
        &mut self,
        nodes: &NodeTable,
        now: Instant,
    ) -> (BTreeMap<NodeId, CohortVerdict>, BTreeMap<NodeId, VoteCount>) {
        let mut counts: BTreeMap<(NodeId, Arc<str>), VoteCount> = BTreeMap::new();
        self.ballots.retain(|place, ballot| {
            counts.insert(place.clone(), ballot.count(now));
            !ballot.is_empty()
        });
        let mut cohorts: BTreeMap<(RegionId, Arc<str>), VoteCount> = BTreeMap::new();
        for ((node, kind), count) in &counts {
            cohorts.entry((nodes.region_of(*node), kind.clone())).or_default().add(*count);
        }
        let (mut words, mut at) = (BTreeMap::new(), BTreeMap::<_, VoteCount>::new());
        for ((node, kind), own) in counts {
            at.entry(node).or_default().add(own);
            let word = weigh(own, cohorts[&(nodes.region_of(node), kind)].less(own));
            let said = words.entry(node).or_insert(word);
            *said = word.max(*said);
        }
        (words, at)
    }
}

/// The worst value of this metric over the room's sessions.
fn worst(room: &Room, sessions: &SessionTable, metric: Metric) -> u64 {
    let measured = |id| sessions.get(id).and_then(|session| session.measured(metric));
    room.sessions().iter().filter_map(measured).max().unwrap_or(0).into()
}
