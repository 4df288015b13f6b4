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

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_model::{
    EvidenceSource, FlowCounts, Hop, Metric, NodeId, RegionId, RoomId, SessionId, Strike,
};
use evenkeel_nodes::NodeTable;

use crate::effects::Timer;
use crate::flow::{FlowTracker, SendingState};
use crate::rooms::moves::Moves;
use crate::rooms::placement::{CoreTables, Placement};
use crate::rooms::reroutes::Reroutes;
use crate::sessions::{Session, SessionPhase, SessionTable};

#[derive(Default, Debug)]
pub(crate) struct Quality {
    /// Sessions that receive nothing any more after receiving media steadily.
    pub(crate) silent: BTreeSet<(RoomId, SessionId)>,
    /// Votes of rooms about nodes, by scenario. Only rooms of the same scenario are compared.
    pub(crate) ballots: BTreeMap<(NodeId, Arc<str>), NodeBallot>,
}

impl Quality {
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
    /// Takes the packets between a session and its node since the last report. Returns those that measure the hop that
    /// carries the session; `None` if the session is not live, or not carried.
    pub(crate) fn handle_flow(
        &mut self,
        id: SessionId,
        flow: &FlowCounts,
        tables: &mut CoreTables,
        now: Instant,
    ) -> Option<FlowCounts> {
        let slack = slack(&tables.sessions);
        let session =
            tables.sessions.unrecorded_mut(&id).filter(|s| s.phase == SessionPhase::Live)?;
        let room = session.room;
        let carriers =
            tables.rooms.get(&room).and_then(|room| room.cell.carriers(tables.nodes.board()));
        let (first, other) = carriers?;
        // With two carrying hops, the client receives from the leading one.
        let hop = other.filter(|other| flow.hears == Some(*other)).unwrap_or(first);
        let media = session.media.get_or_insert_default();
        let track = media.track.get_or_insert_with(|| FlowTracker::new(hop, now));
        if track.hop() != hop {
            track.goes_to(hop, now);
        }
        if flow.received != [0; 2]
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
        let count_if = |counts| if counts { (flow.expected, flow.lost) } else { (0, 0) };
        let (expected, lost) = count_if(is_its_own);
        let received = if is_here { flow.received } else { [0; 2] };
        let jitter_us = flow.jitter_us.filter(|_| is_here);
        let measured = FlowCounts { received, expected, lost, jitter_us, ..*flow };
        let falls_silent = track.note(&measured, slack, now);
        if is_its_own {
            self.tally(room, hop, flow, tables, now);
        }
        if falls_silent {
            self.silent.insert((room, id));
            tables.effects.set_if_idle(Timer::Flows, now + JUDGE_EVERY);
        }
        // The loss after the copies of both hops are merged is that of the path.
        let (expected, lost) = count_if(is_here);
        Some(FlowCounts { expected, lost, ..measured })
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
            with_track(sessions, *session, |track| track.excuse(late));
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
    if let Some(track) = sessions.unrecorded_mut(&session).and_then(Session::track_mut) {
        change(track);
    }
}

fn judge_flow(id: RoomId, session: SessionId, state: Placement, now: Instant) -> FlowVerdict {
    let CoreTables { sessions, rooms, nodes, .. } = state.0;
    let slack = slack(sessions);
    let track = sessions.get(&session).and_then(Session::track);
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
    let kinds = track.steady_kinds();
    let mut fed = false;
    for other in room.sessions.iter() {
        let track = sessions.get(other).and_then(Session::track);
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

/// Packets after which a room votes: 800 ms of voice.
const VOTES_AFTER: u32 = 40;

/// The shortest interval between votes of a room, however many sessions it has.
const VOTES_EVERY: Duration = Duration::from_millis(400);

/// Loss between the gateway and the node, in ppm, from which a room votes against it.
const BAD_PPM: u64 = 50_000;

const COUNTS_FOR: Duration = Duration::from_secs(2);

/// A room that takes longer than this to see enough packets starts its tally again, because the old packets are
/// outdated.
const BEGINS_ANEW: Duration = Duration::from_secs(2);

/// A room that came from another hop counts from this time on: all rooms have moved, and its streams continue.
const SETTLES_IN: Duration = Duration::from_secs(1);

/// A report covers the time since the previous report: at most 5 s · 1.5 / 1.21828 (RFC 3550, 6.3.1), plus half a
/// second of transit. Earlier reports partly describe the previous hop.
const REPORTS_SETTLE_IN: Duration = Duration::from_millis(6_700);

/// Rooms that siblings must carry to serve as a comparison or as an alternative.
const SIBLINGS_MIN: u32 = 5;

/// The share of bad rooms always attributed to chance, and the share attributed to chance without siblings.
const CHANCE_MIN: f64 = 0.05;
const CHANCE_ALONE: f64 = 0.3;

const CHANCE_MAX: f64 = 0.5;

/// Minimum difference between the shares of bad rooms at a node and at its siblings, regardless of certainty.
const DIFFERS: f64 = 0.3;

/// The share of bad rooms at a node that rooms should leave.
const WORSE: f64 = 0.9;

/// Log-likelihood ratios that accuse (ln 10⁶) and withdraw (ln 0.01).
const ACCUSES: f64 = 13.815_510_557_964_274;
const WITHDRAWS: f64 = -4.605_170_185_988_091;

/// Packets that a room has seen since its last vote.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RoomTally {
    hop: Hop,
    /// The time at which the room came from another hop.
    arrived: Option<Instant>,
    began: Instant,
    expected: u32,
    lost: u32,
    reported_ppm: u64,
    reports: u64,
}

impl RoomTally {
    pub(crate) fn new(hop: Hop, now: Instant) -> RoomTally {
        RoomTally {
            hop,
            arrived: None,
            began: now,
            expected: 0,
            lost: 0,
            reported_ppm: 0,
            reports: 0,
        }
    }

    /// Sets the room's current hop. A new hop resets the tally.
    pub(crate) fn stands_at(&mut self, hop: Hop, now: Instant) {
        if self.hop != hop {
            *self = RoomTally { arrived: Some(now), ..RoomTally::new(hop, now) };
        }
    }

    /// A fresh tally for the same room at the same hop.
    pub(crate) fn anew(&self, now: Instant) -> RoomTally {
        RoomTally { arrived: self.arrived, ..RoomTally::new(self.hop, now) }
    }

    fn is_here_for(&self, time: Duration, now: Instant) -> bool {
        self.arrived.is_none_or(|arrived| now.saturating_duration_since(arrived) >= time)
    }

    /// Adds one session's flow. Returns true once there are enough packets for a vote.
    pub(crate) fn add(&mut self, flow: &FlowCounts, now: Instant) -> bool {
        if !self.is_here_for(SETTLES_IN, now) {
            return false;
        }
        if now.saturating_duration_since(self.began) >= BEGINS_ANEW {
            *self = self.anew(now);
        }
        self.expected = self.expected.saturating_add(flow.expected);
        self.lost = self.lost.saturating_add(flow.lost);
        if let Some(ppm) = flow.reported_ppm
            && self.is_here_for(REPORTS_SETTLE_IN, now)
        {
            self.reported_ppm += u64::from(ppm);
            self.reports += 1;
        }
        self.expected >= VOTES_AFTER && now.saturating_duration_since(self.began) >= VOTES_EVERY
    }

    /// The room's vote, true for bad. The arguments are the loss in its clients' own networks, in ppm.
    pub(crate) fn vote(&self, lost_up_ppm: u64, lost_down_ppm: u64) -> bool {
        let from_node = u64::from(self.lost) * 1_000_000 / u64::from(self.expected.max(1));
        // Packets lost before they reached the node cannot be sent on, and the reports may be about other clients.
        let from_node = from_node.saturating_sub(lost_up_ppm);
        let to_node = self.reported_ppm.checked_div(self.reports).unwrap_or(0);
        let to_node = to_node.saturating_sub(lost_up_ppm + lost_down_ppm);
        from_node.max(to_node) >= BAD_PPM
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct VoteCount {
    pub(crate) bad: u32,
    pub(crate) good: u32,
}

impl VoteCount {
    pub(crate) fn add(&mut self, other: VoteCount) {
        self.bad += other.bad;
        self.good += other.good;
    }

    pub(crate) fn less(self, other: VoteCount) -> VoteCount {
        VoteCount { bad: self.bad - other.bad, good: self.good - other.good }
    }

    fn all(self) -> u32 {
        self.bad + self.good
    }

    pub(crate) fn is_bad(self) -> bool {
        self.all() >= SIBLINGS_MIN && self.bad > self.good
    }

    fn share(self) -> f64 {
        f64::from(self.bad) / f64::from(self.all().max(1))
    }

    /// The log-likelihood of these votes if the share of bad rooms is the share observed here.
    fn likely(self) -> f64 {
        let term = |votes: u32| {
            let share = f64::from(votes) / f64::from(self.all().max(1));
            if votes == 0 { 0.0 } else { f64::from(votes) * share.ln() }
        };
        term(self.bad) + term(self.good)
    }

    fn of(&mut self, bad: bool) -> &mut u32 {
        if bad { &mut self.bad } else { &mut self.good }
    }
}

/// The votes about one node by rooms of one scenario.
#[derive(Default, Debug)]
pub(crate) struct NodeBallot {
    latest: BTreeMap<RoomId, (Instant, bool)>,
    order: VecDeque<(Instant, RoomId)>,
    count: VoteCount,
}

impl NodeBallot {
    /// Takes a room's vote, which replaces its previous one.
    pub(crate) fn vote(&mut self, room: RoomId, bad: bool, now: Instant) {
        self.order.push_back((now, room));
        *self.count.of(bad) += 1;
        if let Some((_, before)) = self.latest.insert(room, (now, bad)) {
            *self.count.of(before) -= 1;
        }
    }

    pub(crate) fn count(&mut self, now: Instant) -> VoteCount {
        let over = |at: Instant| now.saturating_duration_since(at) >= COUNTS_FOR;
        while let Some((at, room)) = self.order.pop_front_if(|(at, _)| over(*at)) {
            if let Some(&(_, bad)) = self.latest.get(&room).filter(|(latest, _)| *latest == at) {
                self.latest.remove(&room);
                *self.count.of(bad) -= 1;
            }
        }
        self.count
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

/// The verdict on a node. Of verdicts by several kinds of rooms, the greatest applies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum CohortVerdict {
    /// The node is healthy.
    Well,
    Nothing,
    /// Most rooms are bad, and there are no siblings to compare with.
    Bad,
    WorseThanSiblings,
}

/// Weighs the votes about a node against those about its siblings.
pub(crate) fn weigh(own: VoteCount, siblings: VoteCount) -> CohortVerdict {
    let compared = siblings.all() >= SIBLINGS_MIN;
    // Adds two votes of each kind: a small sample leaves much to chance (Agresti and Coull 1998).
    let theirs = f64::from(siblings.bad + 2) / f64::from(siblings.all() + 4);
    let chance = if compared { theirs.clamp(CHANCE_MIN, CHANCE_MAX) } else { CHANCE_ALONE };
    let bad = f64::from(own.bad) * (WORSE / chance).ln();
    let good = f64::from(own.good) * ((1.0 - WORSE) / (1.0 - chance)).ln();
    let worse = own.bad > own.good && own.share() >= siblings.share() + DIFFERS;
    if compared && worse && differ(own, siblings) >= ACCUSES {
        CohortVerdict::WorseThanSiblings
    } else if !compared && bad + good >= ACCUSES {
        CohortVerdict::Bad
    } else if bad + good <= WITHDRAWS {
        CohortVerdict::Well
    } else {
        CohortVerdict::Nothing
    }
}

/// The log of the ratio between the likelihood of the votes if the two nodes differ and if they are alike.
fn differ(one: VoteCount, other: VoteCount) -> f64 {
    let mut both = one;
    both.add(other);
    one.likely() + other.likely() - both.likely()
}

#[cfg(test)]
mod tests;
