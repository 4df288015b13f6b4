//! Handles nodes that lose more than their siblings by the votes of rooms: they become Suspect, and rooms leave them.
//!
//! Loss is not death: the packets that still arrive are better than none. These witnesses therefore mark no node
//! down, neither alone nor together, because lost probes and lost media have one cause. If the accusation lasts, the
//! node's rooms move make-before-break to sound nodes with capacity, some at a time, within each room's limit of moves.
//! Rooms that fit nowhere stay. A node without rooms gets no votes and stays Suspect for its ejection, which grows with
//! each relapse.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_model::{
    EvidenceSource, FlowCounts, Hop, Metric, NodeId, RegionId, RoomId, SessionId, Strike,
};
use evenkeel_nodes::NodeTable;

use crate::cohort::{CohortVerdict, NodeBallot, RoomTally, VoteCount, weigh};
use crate::effects::Timer;
use crate::flow::{FlowTracker, SendingState};
use crate::rooms::moves::Moves;
use crate::rooms::placement::{CoreTables, Placement};
use crate::rooms::reroutes::Reroutes;
use crate::sessions::{SessionPhase, SessionTable};

#[derive(Default, Debug)]
pub(crate) struct Quality {
    /// Sessions that receive nothing any more after receiving media steadily.
    pub(crate) silent: BTreeSet<(RoomId, SessionId)>,
    /// Votes of rooms about nodes, by scenario. Only rooms of the same scenario are compared.
    pub(crate) ballots: BTreeMap<(NodeId, Arc<str>), NodeBallot>,
}

impl Quality {
    pub(crate) fn forget_session(&mut self, room: RoomId, session: SessionId) {
        self.silent.remove(&(room, session));
    }

    pub(crate) fn forget_node(&mut self, id: NodeId) {
        self.ballots.retain(|(node, _), _| *node != id);
    }
}

const JUDGE_EVERY: Duration = Duration::from_millis(100);

/// Maximum age of reports on a session while there are few sessions. Any further delay is passed as `slack`.
const TOLD_WITHIN: Duration = Duration::from_millis(200);

/// A node that was not heard for this long sends nothing to any session. That is no lost flow, and other witnesses
/// cover it.
const NODE_HEARD_WITHIN: Duration = Duration::from_millis(200);

/// The verdict on a session that receives nothing any more.
enum FlowVerdict {
    /// This hop fails to deliver what other sessions send.
    Lost(Hop),
    /// No hop is to blame, or it cannot be determined.
    Innocent,
    Wait,
}

impl Quality {
    /// Takes the packets between a session and its node since the last report. Returns whether the session is live and
    /// carried.
    pub(crate) fn handle_flow(
        &mut self,
        id: SessionId,
        flow: &FlowCounts,
        tables: &mut CoreTables,
        now: Instant,
    ) -> bool {
        let slack = slack(&tables.sessions);
        let Some(session) =
            tables.sessions.unrecorded_mut(&id).filter(|s| s.phase == SessionPhase::Live)
        else {
            return false;
        };
        let room = session.room;
        let carriers =
            tables.rooms.get(&room).and_then(|room| room.cell.carriers(tables.nodes.board()));
        let Some((first, other)) = carriers else { return false };
        // With two carrying hops, the client receives from the leading one.
        let hop = other.filter(|other| flow.hears == Some(*other)).unwrap_or(first);
        let track = session.track.get_or_insert_with(|| Box::new(FlowTracker::new(hop, now)));
        if track.hop() != hop {
            track.goes_to(hop, now);
        }
        if flow.came != [0; 2]
            && let Some(from) = flow.hears
            && let Some(node) = tables.nodes.get_mut(from.node)
            && node.hop() == from
        {
            node.detector.handle_delivered(now);
        }
        // Packets from a previous hop say nothing about this one.
        let is_here = flow.hears == Some(hop);
        // With two carrying hops, loss at both accuses neither, and the other hop covers the loss at one.
        let is_its_own = is_here && other.is_none();
        let (expected, lost) = if is_its_own { (flow.expected, flow.lost) } else { (0, 0) };
        let came = if is_here { flow.came } else { [0; 2] };
        let falls_silent = track.note(&FlowCounts { came, expected, lost, ..*flow }, slack, now);
        if is_its_own {
            self.tally(room, hop, flow, tables, now);
        }
        if falls_silent {
            self.silent.insert((room, id));
            tables.effects.set_if_idle(Timer::Flows, now + JUDGE_EVERY);
        }
        true
    }

    /// Judges the silent sessions only.
    pub(crate) fn judge_flows(&mut self, tables: &mut CoreTables, now: Instant) {
        for (room, session) in std::mem::take(&mut self.silent) {
            Moves(tables).catch_up(room, now);
            match judge_flow(room, session, Placement(tables), now) {
                FlowVerdict::Wait => _ = self.silent.insert((room, session)),
                FlowVerdict::Innocent => {
                    with_track(&mut tables.sessions, session, FlowTracker::forget);
                }
                FlowVerdict::Lost(hop) => {
                    with_track(&mut tables.sessions, session, FlowTracker::moved);
                    Moves(tables).drop_hop(room, hop, (Strike::FlowLost, Some(session)), now);
                }
            }
        }
        if !self.silent.is_empty() {
            tables.effects.set(Timer::Flows, now + JUDGE_EVERY);
        }
    }

    /// The control thread was late: packets of sessions that seem silent may not have been read.
    pub(crate) fn excuse_flows(&self, late: Duration, sessions: &mut SessionTable) {
        for (_, session) in &self.silent {
            let session = sessions.unrecorded_mut(session);
            if let Some(track) = session.and_then(|session| session.track.as_deref_mut()) {
                track.excuse(late);
            }
        }
    }
}

fn slack(sessions: &SessionTable) -> Duration {
    sessions.told_within.saturating_sub(TOLD_WITHIN)
}

fn with_track(
    sessions: &mut SessionTable,
    session: SessionId,
    change: impl FnOnce(&mut FlowTracker),
) {
    if let Some(track) = sessions.unrecorded_mut(&session).and_then(|s| s.track.as_deref_mut()) {
        change(track);
    }
}

fn judge_flow(id: RoomId, session: SessionId, state: Placement, now: Instant) -> FlowVerdict {
    let CoreTables { sessions, rooms, nodes, .. } = state.0;
    let slack = slack(sessions);
    let track = sessions.get(&session).and_then(|session| session.track.as_deref());
    let (Some(track), Some(room)) = (track, rooms.get(&id)) else { return FlowVerdict::Innocent };
    let carries =
        |(first, other): (Hop, Option<Hop>)| first == track.hop() || other == Some(track.hop());
    if !track.is_silent() || !room.cell.carriers(nodes.board()).is_some_and(carries) {
        return FlowVerdict::Innocent;
    }
    let Some(silent) = track.lost_since(slack, now) else { return FlowVerdict::Wait };
    if !is_heard(nodes, track.hop(), now) {
        return FlowVerdict::Innocent;
    }
    let kinds = track.heard();
    let mut fed = false;
    for other in room.sessions.iter() {
        let track = sessions.get(other).and_then(|session| session.track.as_deref());
        match track.map_or(SendingState::Not, |track| track.sending(kinds, silent, slack, now)) {
            // The silent session may have been hearing this sender.
            SendingState::Stopped => return FlowVerdict::Innocent,
            // A session alone in its room may hear itself.
            SendingState::On => fed |= *other != session || room.sessions.len() == 1,
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
    pub(crate) fn tally(
        &mut self,
        id: RoomId,
        hop: Hop,
        flow: &FlowCounts,
        tables: &mut CoreTables,
        now: Instant,
    ) {
        if flow.expected == 0 && flow.reported_ppm.is_none() {
            return;
        }
        let Some(room) = tables.rooms.unrecorded_mut(&id) else { return };
        let tally = room.tally.get_or_insert_with(|| Box::new(RoomTally::new(hop, now)));
        tally.stands_at(hop, now);
        if !tally.add(flow, now) {
            return;
        }
        let next = tally.anew(now);
        let seen = std::mem::replace(&mut **tally, next);
        let scenario = Arc::clone(&room.scenario);
        let worst = |metric| worst(Placement(tables), id, metric);
        let bad = seen.vote(worst(Metric::LossUp), worst(Metric::LossDown));
        self.ballots.entry((hop.node, scenario)).or_default().vote(id, bad, now);
        tables.effects.set_if_idle(Timer::Cohorts, now + WEIGH_EVERY);
    }

    /// Weighs the votes about each node against those about its siblings, and lets rooms leave worse nodes.
    pub(crate) fn weigh_cohorts(&mut self, tables: &mut CoreTables, now: Instant) {
        let (words, at) = self.words(&tables.nodes, now);
        let mut left = Vec::new();
        for node in tables.nodes.iter_mut() {
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
        for node in left {
            Reroutes(tables).leave_worse(node, now);
        }
        let watched = tables.nodes.iter().any(|node| node.worse_for(now).is_some());
        if watched || !self.ballots.is_empty() {
            tables.effects.set(Timer::Cohorts, now + WEIGH_EVERY);
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
fn worst(state: Placement, id: RoomId, metric: Metric) -> u64 {
    let sessions = state.0.rooms.get(&id).into_iter().flat_map(|room| room.sessions.iter());
    let measured = |id| state.0.sessions.get(id).and_then(|s| s.measured(metric));
    sessions.filter_map(measured).max().unwrap_or(0).into()
}
