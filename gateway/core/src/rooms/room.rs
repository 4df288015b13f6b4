//! A room: its sessions, its route, where it goes, and its past. It changes itself and returns the consequences.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_instant as instant;
use evenkeel_model::{
    Board, CoreEvent, Decider, FailureScope, FlowCounts, HOPS_MAX, Hop, HopGrant, Labels, LeftHop,
    ModeChange, MoveCause, MoveOutcome, NodeId, Param, PluginState, PortMove, RedundancyMode,
    RegionId, RegionRole, RoomId, Route, RouteCell, Scenario, SessionId,
};
use evenkeel_nodes::{Node, NodeTable, OpeningClass};
use evenkeel_revisions::{Revision, Revisions, StateVersions};
use serde::{Deserialize, Serialize};

use crate::capacity::{CapacityChange, CapacityLedger, Cover, Holding, SecondNode};
use crate::collections::SmallSet;
use crate::hop_map::HopMap;
use crate::quality::ballots::RoomTally;

/// Maximum entries in a room's record of moves; the oldest is dropped.
const RECORDED_MAX: usize = 8;

/// The limit of moves counts those within this time.
const MOVES_WITHIN: Duration = Duration::from_secs(60);

/// Minimum interval of questions about one room, whatever its policy requests.
const TTL_MIN: Duration = Duration::from_millis(100);

/// Rooms due within this time are asked about together.
const DUE_GRAIN_MAX: Duration = Duration::from_millis(100);

/// Round trips that differ by less count as equal: sequence numbers reserved in vain look like loss.
const LEAD_MIN: Duration = Duration::from_millis(2);

/// Silent sessions are kept this long while their room waits for a node: as long as the longest start may take.
const HELD_FOR: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub(crate) struct Room {
    id: RoomId,
    name: Arc<str>,
    scenario: Arc<str>,
    /// Labels of the room's first session.
    labels: Labels,
    /// The region of the room's first session, else the gateway's.
    region: RegionId,
    spares: u8,
    mode: RedundancyMode,
    /// The room's number at nodes. All sessions of a call share one, even if each has its own room here.
    call: RoomId,
    /// Order of rescues; higher goes first.
    priority: i64,
    sessions: SmallSet<SessionId>,
    cell: Arc<RouteCell>,
    placement: Placement,
    placed_by: Arc<Decider>,
    /// The capacity that the room uses.
    holding: Holding,
    /// State of the routing policy for this room.
    memory: StateVersions,
    /// Milliseconds until the routing policy is asked again; 0: never.
    ttl_ms: u32,
    /// The room waits for a question to its routing policy.
    wants_review: bool,
    /// The room waits for the answer.
    is_reviewed: bool,
    /// Packets at the current hop since the room last voted.
    tally: Option<Box<RoomTally>>,
    /// The nodes under which the room is listed.
    nodes: Box<[NodeId]>,
    /// Rarely used fields.
    history: Option<Box<RoomHistory>>,
}

/// Where the room is, and where it goes.
#[derive(Debug)]
enum Placement {
    /// The room has no route yet. `asked`: a question to the routing policy is open.
    Nowhere { asked: bool },
    /// The room's packets take the first usable hop of its route.
    At,
    /// The same, until the sessions are open at the hops of another route.
    Moving(Box<PendingRoute>),
    /// No hop is left that the room's packets may take.
    Stranded(Box<StrandedRoom>),
}

#[derive(Debug)]
struct StrandedRoom {
    loss: Stranded,
    heading: Option<PendingRoute>,
}

impl Placement {
    fn heading(&self) -> Option<&PendingRoute> {
        match self {
            Placement::Nowhere { .. } | Placement::At => None,
            Placement::Moving(heading) => Some(heading),
            Placement::Stranded(room) => room.heading.as_ref(),
        }
    }

    fn heading_mut(&mut self) -> Option<&mut PendingRoute> {
        match self {
            Placement::Nowhere { .. } | Placement::At => None,
            Placement::Moving(heading) => Some(heading),
            Placement::Stranded(room) => room.heading.as_mut(),
        }
    }

    fn loss(&self) -> Option<&Stranded> {
        match self {
            Placement::Stranded(room) => Some(&room.loss),
            Placement::Nowhere { .. } | Placement::At | Placement::Moving(_) => None,
        }
    }

    /// The room heads for this route instead of the one before. An unplaced room heads nowhere: its first route is published at once.
    fn head_for(self, heading: PendingRoute) -> Placement {
        match self {
            Placement::Nowhere { .. } => self,
            Placement::At | Placement::Moving(_) => Placement::Moving(Box::new(heading)),
            Placement::Stranded(mut room) => {
                room.heading = Some(heading);
                Placement::Stranded(room)
            }
        }
    }

    /// The room heads nowhere any more.
    fn stay(self) -> (Placement, Option<PendingRoute>) {
        match self {
            Placement::Nowhere { .. } | Placement::At => (self, None),
            Placement::Moving(heading) => (Placement::At, Some(*heading)),
            Placement::Stranded(mut room) => {
                let heading = room.heading.take();
                (Placement::Stranded(room), heading)
            }
        }
    }

    /// A hop carries the room.
    fn arrive(self) -> Placement {
        match self {
            Placement::Nowhere { .. } | Placement::At => Placement::At,
            Placement::Moving(_) => self,
            Placement::Stranded(room) => {
                room.heading.map_or(Placement::At, |heading| Placement::Moving(Box::new(heading)))
            }
        }
    }

    /// The room has lost its last hop.
    fn strand(self, loss: Stranded) -> Placement {
        let heading = self.stay().1;
        Placement::Stranded(Box::new(StrandedRoom { loss, heading }))
    }
}

#[derive(PartialEq, Default, Debug)]
struct RoomHistory {
    /// Hops that did not take the room, with the time until which it avoids them.
    struck: BTreeMap<Hop, Instant>,
    moves: VecDeque<Instant>,
    /// Hops whose packets are no copies of each other.
    unalike: Option<[Hop; 2]>,
    /// The room's last moves, oldest first.
    record: VecDeque<MoveRecord>,
}

/// A pending route, published once the awaited sessions are open.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct PendingRoute {
    /// Best first; never empty.
    hops: Vec<Hop>,
    /// Hops where all sessions must be open first: the target of a move, else the new spares.
    awaited: BTreeSet<Hop>,
    waiting: BTreeSet<(SessionId, Hop)>,
    cause: MoveCause,
    by: Arc<Decider>,
    started: Instant,
}

impl PendingRoute {
    pub(crate) fn target(&self) -> Hop {
        self.hops[0]
    }

    pub(crate) fn hops(&self) -> &[Hop] {
        &self.hops
    }

    pub(crate) fn awaited(&self) -> &BTreeSet<Hop> {
        &self.awaited
    }

    pub(crate) fn cause(&self) -> MoveCause {
        self.cause
    }

    pub(crate) fn by(&self) -> &Arc<Decider> {
        &self.by
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// The number of openings that the route waits for.
    pub(crate) fn waits_for(&self) -> usize {
        self.waiting.len()
    }

    /// An operator, the node itself, the loss of a hop or a bad link caused the move: a policy may not change it.
    fn is_beyond_policies(&self) -> bool {
        matches!(*self.by, Decider::Operator | Decider::Node)
            || self.cause.is_loss()
            || self.cause == MoveCause::Link
    }
}

/// A move whose sessions are being opened at the target.
#[derive(Clone, PartialEq, Debug)]
pub struct MoveUnderWay {
    /// The number of the room.
    pub room: RoomId,
    /// The reason of the move.
    pub cause: MoveCause,
    /// The author of the decision.
    pub by: Decider,
    /// The hop that carries the room, or carried it before it died.
    pub from: Hop,
    /// The hop after the move.
    pub to: Hop,
    /// The time of the decision.
    pub started: Instant,
}

/// A room without a hop that its packets may take.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub(crate) struct Stranded {
    lost: Hop,
    #[serde(with = "instant")]
    since: Instant,
    attempts: u32,
}

impl Stranded {
    /// The hop that carried the room.
    pub(crate) fn lost(&self) -> Hop {
        self.lost
    }

    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    /// Searches for a node that failed. Rooms with fewer attempts go first.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }
}

/// One entry in a room's record of moves.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct MoveRecord {
    /// The reason of the move.
    pub cause: MoveCause,
    /// The author of the decision.
    pub by: Arc<Decider>,
    /// The hop before the move.
    pub from: Hop,
    /// `None`: no hop was left for the room.
    pub to: Option<Hop>,
    /// The time of the decision.
    #[serde(with = "instant")]
    pub started: Instant,
    /// The time at which the move ended.
    #[serde(with = "instant")]
    pub ended: Instant,
    /// How the move ended.
    pub outcome: MoveOutcome,
}

/// A move that has ended, or a part of one.
#[derive(Clone, Debug)]
pub(crate) struct MoveStep {
    pub(crate) cause: MoveCause,
    pub(crate) by: Arc<Decider>,
    pub(crate) from: Hop,
    pub(crate) to: Option<Hop>,
    pub(crate) started: Instant,
}

/// The facts by which a room is weighed, made of its sessions and its scenario.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RoomNeed<'a> {
    kbps: u64,
    reserve: Option<FailureScope>,
    spares_outside: FailureScope,
    regions: &'a [RegionId],
}

impl<'a> RoomNeed<'a> {
    pub(crate) fn new(kbps: u64, scenario: Option<&'a Scenario>) -> RoomNeed<'a> {
        RoomNeed {
            kbps,
            reserve: scenario.map_or(Some(FailureScope::Node), |scenario| scenario.reserve),
            spares_outside: scenario.map_or(FailureScope::Node, |scenario| scenario.spares_outside),
            regions: scenario.map_or(&[], |scenario| &scenario.regions),
        }
    }

    /// The load of the room's sessions.
    pub(crate) fn kbps(&self) -> u64 {
        self.kbps
    }

    /// The spares are outside this domain of the first node.
    pub(crate) fn spares_outside(&self) -> FailureScope {
        self.spares_outside
    }

    /// In regional mode: the regions that the room tries next, in order.
    pub(crate) fn regions(&self) -> &'a [RegionId] {
        self.regions
    }

    /// The zone or region of `on`, if the first spare should cover its death: as the scenario's `reserve` says, or by default the
    /// zone, if another one of the region takes rooms. `None`: the death of the node alone.
    pub(crate) fn wanted_cover(&self, on: NodeId, nodes: &NodeTable) -> Option<Cover> {
        let scope = match self.reserve {
            Some(scope) => scope,
            None if nodes.has_other_zone(on) => FailureScope::Zone,
            None => FailureScope::Node,
        };
        let domain = nodes.domain_of(on, scope)?;
        Some(Cover { domain, yields: self.reserve.is_none() })
    }

    /// [`Self::wanted_cover`], unless `standby` would die as well.
    pub(crate) fn covers(&self, on: NodeId, standby: NodeId, nodes: &NodeTable) -> Option<Cover> {
        self.wanted_cover(on, nodes).filter(|cover| cover.is_survived_by(standby, nodes))
    }

    /// The hops without spares in the first one's domain that the scenario names in `spares_outside`.
    pub(crate) fn without_inside_spares<T: Copy>(
        &self,
        hops: &[T],
        node: impl Fn(&T) -> NodeId,
        nodes: &NodeTable,
    ) -> Vec<T> {
        let Some(first) = hops.first().map(&node) else { return Vec::new() };
        let may = |hop: &&T| {
            let spare = node(hop);
            spare == first || !nodes.share_domain(first, spare, self.spares_outside)
        };
        hops.iter().filter(may).copied().collect()
    }
}

/// The difference of round trips by which the new hop delivers sooner, plus the variation of both. Sequence numbers are
/// reserved for packets of the old hop that arrive within this time, at most `leave_within`.
fn lead(old: NodeId, new: NodeId, nodes: &NodeTable, leave_within: Duration) -> Duration {
    let round_trip = |id| nodes.get(id)?.detector.round_trip_seen();
    let Some(((old, late), (new, soon))) = round_trip(old).zip(round_trip(new)) else {
        return Duration::ZERO;
    };
    match old.saturating_sub(new) {
        sooner if sooner < LEAD_MIN => Duration::ZERO,
        sooner => (sooner + late + soon.min(new)).min(leave_within),
    }
}

/// The facts by which a room is weighed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RoomScales<'a> {
    need: RoomNeed<'a>,
    takes_reserves: bool,
    nodes: &'a NodeTable,
    ledger: &'a CapacityLedger,
    leave_within: Duration,
}

impl<'a> RoomScales<'a> {
    /// `takes_reserves`: no stranded room may need the capacity. Packets of a hop that a move leaves pass for
    /// `leave_within`.
    pub(crate) fn new(
        need: RoomNeed<'a>,
        takes_reserves: bool,
        nodes: &'a NodeTable,
        ledger: &'a CapacityLedger,
        leave_within: Duration,
    ) -> RoomScales<'a> {
        RoomScales { need, takes_reserves, nodes, ledger, leave_within }
    }
}

/// The second node of a room that is open ahead at it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) enum Protection {
    /// The room needs none, or has all that its scenario wants.
    #[default]
    Whole,
    /// The death of its node would strand the room.
    Unreserved,
    /// The death of its node is covered, and not that of the zone or region which its scenario wants covered.
    Uncovered,
}

/// The consequences of a change of a room, for the tables beside it.
#[must_use = "the gateway applies it"]
#[derive(Default, Debug)]
pub(crate) struct RoomChange {
    /// The room's record differs.
    pub(crate) is_recorded: bool,
    /// A move that ended without a change of the route.
    pub(crate) move_ended: Option<CoreEvent>,
    /// Hops of the current or the pending route differ.
    pub(crate) hops_differ: bool,
    /// The room has its first route.
    pub(crate) is_first_route: bool,
    pub(crate) capacity: Option<CapacityChange>,
    pub(crate) protection: Option<Protection>,
    pub(crate) rescue: Option<RescueChange>,
    /// The room is outside its native place without anyone's choice, or is not any more.
    pub(crate) away: Option<bool>,
    /// A hitless room is carried by one hop alone from now on, or by both again.
    pub(crate) kept: Option<CoreEvent>,
    /// The time at which the hop that the room leaves is closed.
    pub(crate) leaves_until: Option<Instant>,
    /// The time of the policy's next review of the room.
    pub(crate) review_at: Option<Instant>,
}

impl RoomChange {
    /// The room's record differs, and nothing else.
    fn of_record() -> RoomChange {
        RoomChange { is_recorded: true, ..RoomChange::default() }
    }
}

/// A room is stranded, was tried in vain, or has a hop again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RescueChange {
    before: Option<u32>,
    after: Option<u32>,
}

impl RescueChange {
    pub(crate) fn new(before: Option<u32>, after: Option<u32>) -> RescueChange {
        RescueChange { before, after }
    }

    /// The attempts by which the room was listed.
    pub(crate) fn before(&self) -> Option<u32> {
        self.before
    }

    /// The attempts by which the room is to be listed.
    pub(crate) fn after(&self) -> Option<u32> {
        self.after
    }
}

impl Room {
    /// A room without a route, with the redundancy and the priority of its scenario.
    pub(crate) fn new(
        id: RoomId,
        name: Arc<str>,
        scenario: Arc<str>,
        labels: Labels,
        region: RegionId,
        call: RoomId,
    ) -> Room {
        Room {
            id,
            name,
            scenario,
            labels,
            region,
            spares: 0,
            mode: RedundancyMode::default(),
            call,
            priority: 0,
            sessions: SmallSet::default(),
            cell: Arc::default(),
            placement: Placement::Nowhere { asked: false },
            placed_by: Arc::new(Decider::Native),
            holding: Holding::default(),
            memory: StateVersions::default(),
            ttl_ms: 0,
            wants_review: false,
            is_reviewed: false,
            tally: None,
            nodes: Box::default(),
            history: None,
        }
    }

    pub(crate) fn id(&self) -> RoomId {
        self.id
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn scenario(&self) -> &Arc<str> {
        &self.scenario
    }

    pub(crate) fn labels(&self) -> &Labels {
        &self.labels
    }

    pub(crate) fn region(&self) -> RegionId {
        self.region
    }

    /// The room's number at nodes.
    pub(crate) fn call(&self) -> RoomId {
        self.call
    }

    pub(crate) fn spares(&self) -> u8 {
        self.spares
    }

    pub(crate) fn mode(&self) -> RedundancyMode {
        self.mode
    }

    pub(crate) fn priority(&self) -> i64 {
        self.priority
    }

    pub(crate) fn sessions(&self) -> &SmallSet<SessionId> {
        &self.sessions
    }

    pub(crate) fn cell(&self) -> &Arc<RouteCell> {
        &self.cell
    }

    pub(crate) fn placed_by(&self) -> &Decider {
        &self.placed_by
    }

    pub(crate) fn holding(&self) -> Holding {
        self.holding
    }

    /// The route whose hops are being opened.
    pub(crate) fn heading(&self) -> Option<&PendingRoute> {
        self.placement.heading()
    }

    pub(crate) fn memory(&self) -> &StateVersions {
        &self.memory
    }

    pub(crate) fn route(&self) -> Arc<Route> {
        self.cell.load_full()
    }

    /// The hop that the room's packets take now.
    pub(crate) fn stands_at(&self, board: &Board) -> Option<Hop> {
        self.route().first_usable(board).map(|(hop, _)| hop)
    }

    /// Set while no hop is left that the room's packets may take.
    pub(crate) fn stranded(&self) -> Option<Stranded> {
        self.placement.loss().copied()
    }

    pub(crate) fn is_placed(&self) -> bool {
        !matches!(self.placement, Placement::Nowhere { .. })
    }

    /// The nodes of the room's route, best first.
    pub(crate) fn nodes_of_route(&self) -> Vec<NodeId> {
        self.route().hops.iter().map(|(hop, _)| hop.node).collect()
    }

    pub(crate) fn leads_to(&self, hop: Hop) -> bool {
        self.route().holds(hop) || self.heading().is_some_and(|heading| heading.hops.contains(&hop))
    }

    /// Hops where the room's sessions are opened: those of its current and pending routes, or only the first of each if
    /// its mode opens none ahead. The current hop comes first.
    pub(crate) fn hops_to_open(&self) -> Vec<Hop> {
        let each = if self.mode.opens_ahead() { HOPS_MAX } else { 1 };
        let route = self.route();
        let heading = self.heading().into_iter().flat_map(|heading| heading.hops.iter().take(each));
        let standing = if self.stranded().is_some() && each == 1 { 0 } else { each };
        route.hops.iter().map(|(hop, _)| hop).take(standing).chain(heading).copied().collect()
    }

    /// Every hop where the room's sessions should be open at this time.
    pub(crate) fn hops_in_use(&self, now: Instant) -> BTreeSet<Hop> {
        let leaving = self.route().leaving().filter(|(_, until)| now < *until).map(|(hop, _)| hop);
        self.hops_to_open().into_iter().chain(leaving).collect()
    }

    /// The room's mode over these hops: hitless only while no worker reported that their packets are no copies.
    pub(crate) fn mode_over(&self, hops: &[Hop]) -> RedundancyMode {
        let unalike = self.history.as_ref().and_then(|history| history.unalike);
        let stands = |pair: [Hop; 2]| hops.iter().take(2).all(|hop| pair.contains(hop));
        match self.mode {
            RedundancyMode::Hitless if hops.len() > 1 && unalike.is_some_and(stands) => {
                RedundancyMode::Hot
            }
            mode => mode,
        }
    }

    /// The hop that a move leaves: the carrying one, or the one that carried the room before it died.
    pub(crate) fn stood(&self) -> Option<Hop> {
        let first = || self.route().hops.first().map(|(hop, _)| *hop);
        self.stranded().map(|stranded| stranded.lost).or_else(first)
    }

    /// The move under way, if the room moves to another hop.
    pub(crate) fn move_under_way(&self) -> Option<MoveUnderWay> {
        let PendingRoute { cause, by, started, .. } = self.heading()?;
        let to = self.heading()?.target();
        let from = self.stood().filter(|from| *from != to)?;
        let (cause, by, started) = (*cause, Decider::clone(by), *started);
        Some(MoveUnderWay { room: self.id, cause, by, from, to, started })
    }

    /// The room has no spare at all. A missing policy answer must not leave it so.
    pub(crate) fn is_bare(&self) -> bool {
        self.is_placed() && self.heading().is_none() && self.route().hops.len() < 2
    }

    /// The room has fewer spares than its scenario wants.
    pub(crate) fn is_short_of_spares(&self) -> bool {
        self.is_placed() && self.route().hops.len() <= usize::from(self.spares)
    }

    /// The route still has this version and neither an operator nor a rescue is moving the room.
    pub(crate) fn awaits_policy_since(&self, version: u64) -> bool {
        self.route().version == version
            && !self.heading().is_some_and(PendingRoute::is_beyond_policies)
    }

    /// The room waits for a node to start, so its silent sessions are kept for a while.
    pub(crate) fn is_held(&self, now: Instant) -> bool {
        self.mode == RedundancyMode::Cold
            && self
                .stranded()
                .is_some_and(|stranded| now.saturating_duration_since(stranded.since) < HELD_FOR)
    }

    /// The region that carries the room, or carried it before its node died.
    pub(crate) fn region_now(&self, nodes: &NodeTable) -> Option<RegionId> {
        let on = self.holding.on.or(self.stranded().map(|stranded| stranded.lost.node))?;
        Some(nodes.region_of(on))
    }

    /// The room has a second node with capacity for the death that its scenario wants covered. True of a room without a node.
    pub(crate) fn is_covered(&self, need: RoomNeed, nodes: &NodeTable) -> bool {
        let Holding { on, second, .. } = self.holding;
        let Some(on) = on else { return true };
        let wanted = need.wanted_cover(on, nodes);
        match second {
            SecondNode::Twin(twin) => wanted.is_none_or(|it| it.is_survived_by(twin, nodes)),
            SecondNode::Reserve { covers, .. } => wanted.is_none() || covers.is_some(),
            SecondNode::None => false,
        }
    }

    /// Order of openings: sessions of stranded rooms before those of live ones, then new sessions, then spares.
    pub(crate) fn opening_class(&self, hop: Hop, is_live: bool) -> OpeningClass {
        let carries = self.heading().is_some_and(|heading| heading.target() == hop)
            || self.route().is_first(hop);
        match (carries, self.stranded(), is_live) {
            (false, ..) => OpeningClass::Spare,
            (true, Some(_), _) => OpeningClass::Stranded,
            (true, None, true) => OpeningClass::Moving,
            (true, None, false) => OpeningClass::Newcomer,
        }
    }

    pub(crate) fn shunned(&self, now: Instant) -> impl Iterator<Item = Hop> {
        let struck = self.history.iter().flat_map(|history| &history.struck);
        struck.filter(move |(_, until)| now < **until).map(|(hop, _)| *hop)
    }

    /// Nodes that the room avoids. Another incarnation of an avoided node is not avoided.
    pub(crate) fn shunned_nodes(&self, nodes: &NodeTable, now: Instant) -> Vec<NodeId> {
        let is_there = |hop: &Hop| nodes.get(hop.node).is_some_and(|node| node.hop() == *hop);
        self.shunned(now).filter(is_there).map(|hop| hop.node).collect()
    }

    /// The node is not the room's native place: it is in another region, or is a standby.
    pub(crate) fn is_away(&self, on: NodeId, nodes: &NodeTable) -> bool {
        let stands_by = nodes.get(on).is_some_and(|node| self.leaves_to_others(node));
        nodes.region_of(on) != self.region || stands_by
    }

    /// The node is a standby to be avoided while other nodes can take the room.
    pub(crate) fn leaves_to_others(&self, node: &Node) -> bool {
        self.mode.leaves_standbys() && node.settings.role == RegionRole::Standby
    }

    /// The room's last moves, oldest first.
    pub(crate) fn records(&self) -> impl Iterator<Item = &MoveRecord> {
        self.history.iter().flat_map(|history| &history.record)
    }

    /// Number of stored move times, including expired ones.
    pub(crate) fn moves_noted(&self) -> usize {
        self.history.as_ref().map_or(0, |history| history.moves.len())
    }

    pub(crate) fn join(&mut self, session: SessionId) {
        self.sessions.insert(session);
    }

    /// The session ended. Returns true if it was the last one.
    pub(crate) fn leave(&mut self, session: SessionId) -> bool {
        self.sessions.remove(&session);
        if let Some(heading) = self.placement.heading_mut() {
            heading.waiting.retain(|(waits, _)| *waits != session);
        }
        self.sessions.is_empty()
    }

    /// Takes the parameters of a scenario plugin, before the room is placed. Returns true if they change it.
    pub(crate) fn resolve(&mut self, params: &[(Param, i64)]) -> bool {
        let before = (self.spares, self.priority);
        for &(param, value) in params {
            match param {
                Param::Spares => self.spares = param.within(value) as u8,
                Param::Priority => self.priority = param.within(value),
                Param::BitrateFloor | Param::BitrateCeiling | Param::CloseAfter => {}
            }
        }
        before != (self.spares, self.priority)
    }

    /// Takes the redundancy and the priority of its scenario.
    pub(crate) fn take_scenario(&mut self, scenario: &Scenario) {
        (self.spares, self.mode, self.priority) =
            (scenario.spares, scenario.mode, scenario.priority);
    }

    /// Takes another number of spares of its scenario.
    pub(crate) fn set_spares(&mut self, spares: u8) -> RoomChange {
        self.spares = spares;
        RoomChange::of_record()
    }

    /// Applies the scenario's survival mode. Pending spares that the old mode did not open are dropped if the new mode
    /// opens spares, and a pending route does not wait for hops that the mode does not open.
    pub(crate) fn take_mode(&mut self, mode: RedundancyMode) -> RoomChange {
        let before = std::mem::replace(&mut self.mode, mode);
        if before != mode {
            if let Some(heading) = self.placement.heading_mut()
                && mode.opens_ahead()
                && !before.opens_ahead()
            {
                heading.hops.truncate(1);
            }
            if let Some(history) = &mut self.history {
                // The new mode gives these hops another chance.
                history.unalike = None;
            }
        }
        if let Some(heading) = self.placement.heading_mut().filter(|_| !mode.opens_ahead()) {
            let first = heading.hops[0];
            heading.awaited.retain(|hop| *hop == first);
            heading.waiting.retain(|(_, hop)| *hop == first);
        }
        RoomChange::of_record()
    }

    /// Returns true if the routing policy may be asked to place the room: no such question is open.
    pub(crate) fn ask_placement(&mut self) -> bool {
        match &mut self.placement {
            Placement::Nowhere { asked } => !std::mem::replace(asked, true),
            Placement::At | Placement::Moving(_) | Placement::Stranded(_) => false,
        }
    }

    /// The question about the room's placement is over.
    pub(crate) fn placement_answered(&mut self) {
        if let Placement::Nowhere { asked } = &mut self.placement {
            *asked = false;
        }
    }

    /// The policy reviews the room after this time.
    pub(crate) fn review_after(&mut self, ttl_ms: u32) -> RoomChange {
        self.ttl_ms = ttl_ms;
        RoomChange::of_record()
    }

    /// Plans the policy's next review of the room, delayed by up to an eighth, so that thousands of due rooms need few
    /// questions. Does nothing if the policy asked for none.
    pub(crate) fn plan_review(&mut self, began: Instant, now: Instant) -> RoomChange {
        if self.ttl_ms == 0 {
            return RoomChange::default();
        }
        let ttl = Duration::from_millis(u64::from(self.ttl_ms)).max(TTL_MIN);
        let grain = (ttl / 8).min(DUE_GRAIN_MAX).as_nanos() as u64;
        let due = (now + ttl).saturating_duration_since(began).as_nanos() as u64;
        let delay = Duration::from_nanos(due.next_multiple_of(grain) - due);
        RoomChange { review_at: Some(now + ttl + delay), ..RoomChange::of_record() }
    }

    /// The routing policy is to be asked about the room.
    pub(crate) fn want_review(&mut self) -> RoomChange {
        self.wants_review = true;
        RoomChange::of_record()
    }

    /// The room has its turn to be asked about.
    pub(crate) fn take_review(&mut self) -> RoomChange {
        self.wants_review = false;
        RoomChange::of_record()
    }

    /// The routing policy is asked about the room.
    pub(crate) fn begin_review(&mut self) -> RoomChange {
        self.is_reviewed = true;
        RoomChange::of_record()
    }

    /// The question about the room is over.
    pub(crate) fn end_review(&mut self) -> RoomChange {
        self.is_reviewed = false;
        RoomChange::of_record()
    }

    /// A session of the room is live, or has left. The room is recorded while one is live.
    pub(crate) fn note_live_changed(&self) -> RoomChange {
        RoomChange::of_record()
    }

    /// Keeps the state that the routing policy wrote about the room.
    pub(crate) fn remember(
        &mut self,
        state: Arc<PluginState>,
        revisions: Option<&Revisions>,
    ) -> RoomChange {
        self.memory.write(state, revisions);
        RoomChange::of_record()
    }

    /// Forgets states of other revisions.
    pub(crate) fn settle_memory(&mut self, active: &Revision) -> RoomChange {
        self.memory.settle(active);
        RoomChange::of_record()
    }

    /// Counts one session's flow towards the room's vote about its hop. Returns the packets of a vote that is due.
    pub(crate) fn tally(&mut self, hop: Hop, flow: &FlowCounts, now: Instant) -> Option<RoomTally> {
        let tally = self.tally.get_or_insert_with(|| Box::new(RoomTally::new(hop, now)));
        tally.stands_at(hop, now);
        if !tally.add(flow, now) {
            return None;
        }
        let next = tally.restarted(now);
        Some(std::mem::replace(&mut **tally, next))
    }

    /// The room is outside its native place without anyone's choice, or is not any more.
    pub(crate) fn set_away(&mut self, is_away: bool) -> RoomChange {
        RoomChange { away: Some(is_away), ..RoomChange::of_record() }
    }

    /// Notes that packets of these hops are no copies of each other. `None` if that is known.
    pub(crate) fn note_unalike(&mut self, hops: [Hop; 2]) -> Option<RoomChange> {
        let known = &mut self.history.get_or_insert_default().unalike;
        let is_new = *known != Some(hops) && *known != Some([hops[1], hops[0]]);
        is_new.then(|| {
            *known = Some(hops);
            RoomChange::of_record()
        })
    }

    /// Makes the room avoid the hop until that time.
    pub(crate) fn keep_away(&mut self, hop: Hop, until: Instant, now: Instant) -> RoomChange {
        let struck = &mut self.history.get_or_insert_default().struck;
        struck.retain(|_, until| now < *until);
        struck.insert(hop, until);
        RoomChange::of_record()
    }

    /// The room left this hop for a closed port, and the node turned out to be dead.
    pub(crate) fn explain_port_move(&mut self, dead: Hop) -> RoomChange {
        for record in self.history.iter_mut().flat_map(|history| &mut history.record) {
            if record.from == dead && record.cause == MoveCause::Link {
                record.cause = MoveCause::NodeDown;
            }
        }
        RoomChange::of_record()
    }

    /// The cause of a move off a closed port is final: the room's record lists it as open no longer.
    pub(crate) fn settle_port_move(&self) -> RoomChange {
        RoomChange::of_record()
    }

    /// The room has moved, or has lost its last hop. Moves without a loss count towards the limit; of them only
    /// `counted_max` are kept.
    pub(crate) fn moved(&mut self, step: MoveStep, counted_max: usize, now: Instant) -> RoomChange {
        if !step.cause.is_loss() {
            let moves = &mut self.history.get_or_insert_default().moves;
            moves.push_back(now);
            while moves.len() > counted_max {
                moves.pop_front();
            }
        }
        let outcome = if step.to.is_some() { MoveOutcome::Done } else { MoveOutcome::Stranded };
        self.record(step, outcome, now);
        RoomChange::of_record()
    }

    /// Adds a move to the room's record.
    fn record(&mut self, step: MoveStep, outcome: MoveOutcome, now: Instant) {
        let MoveStep { cause, by, from, to, started } = step;
        let records = &mut self.history.get_or_insert_default().record;
        if records.len() == RECORDED_MAX {
            records.pop_front();
        }
        records.push_back(MoveRecord { cause, by, from, to, started, ended: now, outcome });
    }

    /// Forgets moves that no longer count towards the limit.
    pub(crate) fn forget_old_moves(&mut self, now: Instant) -> RoomChange {
        let Some(history) = &mut self.history else { return RoomChange::default() };
        let past = |at: &mut Instant| now.saturating_duration_since(*at) >= MOVES_WITHIN;
        let mut is_recorded = false;
        while history.moves.pop_front_if(past).is_some() {
            is_recorded = true;
        }
        RoomChange { is_recorded, ..RoomChange::default() }
    }

    /// The room heads for this route; `stands` is the hop that carries it. A moving room does not wait for its spares; if
    /// its mode opens none ahead, they are not opened.
    pub(crate) fn head_for(
        &mut self,
        hops: Vec<Hop>,
        cause: MoveCause,
        by: Arc<Decider>,
        stands: Option<Hop>,
        now: Instant,
    ) -> RoomChange {
        let moves = stands != Some(hops[0]);
        let awaited = match (moves, self.mode.opens_ahead()) {
            (false, true) => hops.len(),
            _ => 1,
        };
        let awaited = hops.iter().take(awaited).copied().collect();
        let before = self.take_heading();
        let (same, other) = match before {
            Some(before) if before.hops[0] == hops[0] => (Some(before), None),
            other => (None, other),
        };
        let started = same.map_or(now, |before| before.started);
        let ended = other.map(|other| self.end_move(other, MoveOutcome::Superseded, now));
        let waiting = BTreeSet::new();
        let heading = PendingRoute { hops, awaited, waiting, cause, by, started };
        self.change_placement(|placement| placement.head_for(heading));
        RoomChange { is_recorded: true, hops_differ: true, ..ended.unwrap_or_default() }
    }

    /// The pending route waits for these openings.
    pub(crate) fn await_openings(&mut self, openings: impl IntoIterator<Item = (SessionId, Hop)>) {
        if let Some(heading) = self.placement.heading_mut() {
            heading.waiting.extend(openings);
        }
    }

    /// A new session is opened at the hops that the pending route waits for.
    pub(crate) fn await_session(&mut self, session: SessionId) {
        if let Some(PendingRoute { awaited, waiting, .. }) = self.placement.heading_mut() {
            waiting.extend(awaited.iter().map(|hop| (session, *hop)));
        }
    }

    /// The session is open at the hop. Returns true if the room heads for another route.
    pub(crate) fn opened_at(&mut self, session: SessionId, hop: Hop) -> bool {
        let Some(heading) = self.placement.heading_mut() else { return false };
        heading.waiting.remove(&(session, hop));
        true
    }

    /// All sessions are open that the pending route waits for.
    pub(crate) fn is_opened(&self) -> bool {
        self.heading().is_some_and(|heading| heading.waiting.is_empty())
    }

    /// Takes the pending route if all sessions are open that it waits for.
    pub(crate) fn take_opened(&mut self) -> Option<PendingRoute> {
        if self.is_opened() { self.take_heading() } else { None }
    }

    /// The room heads nowhere any more.
    pub(crate) fn stay(&mut self, outcome: MoveOutcome, now: Instant) -> RoomChange {
        let heading = self.take_heading();
        heading.map(|heading| self.end_move(heading, outcome, now)).unwrap_or_default()
    }

    /// The last session has left.
    pub(crate) fn dissolve(&mut self, now: Instant) -> RoomChange {
        RoomChange { is_recorded: true, ..self.stay(MoveOutcome::Closed, now) }
    }

    /// Removes a hop from the pending route. Without its first hop, the room heads nowhere any more.
    pub(crate) fn lose_hop(&mut self, gone: Hop, outcome: MoveOutcome, now: Instant) -> RoomChange {
        let Some(heading) = self.placement.heading_mut() else { return RoomChange::default() };
        if heading.hops[0] == gone {
            return self.stay(outcome, now);
        }
        heading.hops.retain(|hop| *hop != gone);
        heading.awaited.remove(&gone);
        heading.waiting.retain(|(_, hop)| *hop != gone);
        RoomChange { hops_differ: true, ..RoomChange::of_record() }
    }

    /// Ends a move that does not take place. Nothing is reported if the route would not have moved the room.
    pub(crate) fn end_move(
        &mut self,
        heading: PendingRoute,
        outcome: MoveOutcome,
        now: Instant,
    ) -> RoomChange {
        let PendingRoute { hops, cause, by, started, .. } = heading;
        let mut change = RoomChange { hops_differ: true, ..RoomChange::of_record() };
        let to = hops[0];
        if let Some(from) = self.stood().filter(|from| *from != to) {
            let step = MoveStep { cause, by: Arc::clone(&by), from, to: Some(to), started };
            self.record(step, outcome, now);
            let (room, room_name, by) = (self.id, Arc::clone(&self.name), Decider::clone(&by));
            let ended =
                CoreEvent::MoveEnded { room, room_name, cause, by, from, to, started, outcome };
            change.move_ended = Some(ended);
        }
        change
    }

    /// The author of this route places the room anew.
    pub(crate) fn place(
        &mut self,
        by: Arc<Decider>,
        hops: &[Hop],
        left: Option<LeftHop>,
        scales: &RoomScales,
    ) -> RoomChange {
        self.placed_by = by;
        self.admit_at(hops, left, scales)
    }

    /// Publishes a route whose first hop carries the room. The caller has checked or reserved the capacity.
    pub(crate) fn admit_at(
        &mut self,
        hops: &[Hop],
        left: Option<LeftHop>,
        scales: &RoomScales,
    ) -> RoomChange {
        let before = self.stranded().map(|stranded| stranded.attempts);
        let is_first_route = !self.is_placed();
        self.change_placement(Placement::arrive);
        let rescue = before.map(|before| RescueChange::new(Some(before), None));
        RoomChange { is_first_route, rescue, ..self.publish(hops, left, scales) }
    }

    /// No hop is left that the room's packets may take. Publishes what remains of its route.
    pub(crate) fn strand(
        &mut self,
        lost: Hop,
        since: Instant,
        hops: &[Hop],
        scales: &RoomScales,
    ) -> RoomChange {
        let before = self.stranded().map(|stranded| stranded.attempts);
        self.change_placement(|it| it.strand(Stranded { lost, since, attempts: 0 }));
        let rescue = Some(RescueChange::new(before, Some(0)));
        RoomChange { rescue, ..self.publish(hops, None, scales) }
    }

    /// A stranded room found no node.
    pub(crate) fn count_attempt(&mut self) -> RoomChange {
        let Placement::Stranded(room) = &mut self.placement else { return RoomChange::default() };
        let before = room.loss.attempts;
        room.loss.attempts = before.saturating_add(1);
        let rescue = RescueChange::new(Some(before), Some(room.loss.attempts));
        RoomChange { rescue: Some(rescue), ..RoomChange::of_record() }
    }

    /// Publishes a route, or for a stranded room what remains of its route.
    pub(crate) fn publish(
        &mut self,
        hops: &[Hop],
        left: Option<LeftHop>,
        scales: &RoomScales,
    ) -> RoomChange {
        let RoomScales { nodes, leave_within, .. } = *scales;
        let left = left.map(|left| {
            let lead = |to: &Hop| lead(left.hop.node, to.node, nodes, leave_within);
            Box::new(LeftHop { lead: hops.first().map(lead).unwrap_or_default(), ..left })
        });
        // A stranded room keeps all hops, since it may continue at any.
        let hops = match self.stranded() {
            Some(_) => hops.to_vec(),
            None => scales.need.without_inside_spares(hops, |hop| hop.node, scales.nodes),
        };
        let (grants, weighed) = self.weigh(&hops, scales);
        let before = self.route();
        let (version, mode) = (before.version + 1, self.mode_over(&hops));
        let leaves_until = left.as_ref().map(|left| left.until);
        let hops = hops.into_iter().zip(grants).collect();
        self.cell.publish(Route { version, mode, hops, left });
        RoomChange {
            is_recorded: true,
            hops_differ: true,
            kept: self.kept_since(&before),
            leaves_until,
            ..weighed
        }
    }

    /// Publishes the route of a record.
    pub(crate) fn republish(&mut self, scales: &RoomScales) -> RoomChange {
        let route = self.route();
        let hops: Vec<Hop> = route.hops.iter().map(|(hop, _)| *hop).collect();
        self.publish(&hops, route.left.as_deref().copied(), scales)
    }

    /// Removes this hop from the room's route, if it contains it.
    pub(crate) fn drop_spare(&mut self, gone: Hop, scales: &RoomScales) -> RoomChange {
        let route = self.route();
        let hops = route.hops.iter().map(|(hop, _)| *hop);
        let hops: Vec<Hop> = hops.filter(|hop| *hop != gone).collect();
        if hops.len() == route.hops.len() {
            return self.regrant(scales);
        }
        let left = route.left.as_deref().filter(|left| left.hop != gone);
        self.publish(&hops, left.copied(), scales)
    }

    /// Weighs the same hops again, because the room's sessions, its target or the capacity of its nodes changed.
    pub(crate) fn regrant(&mut self, scales: &RoomScales) -> RoomChange {
        if !self.is_placed() {
            return RoomChange::default();
        }
        let before = self.route();
        let hops: Vec<Hop> = before.hops.iter().map(|(hop, _)| *hop).collect();
        let covers = self.holding.covers();
        let (after, weighed) = self.weigh(&hops, scales);
        let mut change = RoomChange { is_recorded: covers != self.holding.covers(), ..weighed };
        if before.hops.iter().map(|(_, grant)| *grant).ne(after.iter().copied()) {
            let hops = hops.into_iter().zip(after).collect();
            self.cell.publish(Route { version: before.version + 1, hops, ..(*before).clone() });
            change = RoomChange { is_recorded: true, kept: self.kept_since(&before), ..change };
        }
        change
    }

    /// The room of a record holds the capacity that its grants say. `covers`: its reserve covers a zone or region.
    pub(crate) fn resume_holding(&mut self, covers: bool, scales: &RoomScales) -> RoomChange {
        let granted = self.granted(scales.need.kbps);
        let second = match (granted.on, granted.second) {
            (Some(on), SecondNode::Reserve { at, .. }) if covers => {
                SecondNode::Reserve { at, covers: scales.need.covers(on, at, scales.nodes) }
            }
            (_, second) => second,
        };
        let released = std::mem::replace(&mut self.holding, Holding { second, ..granted });
        let capacity = Some(CapacityChange::new(released, self.holding));
        RoomChange { capacity, protection: Some(Protection::Whole), ..RoomChange::of_record() }
    }

    /// Updates the room's holding and returns the grant of each hop. The first is admitted; the second is reserved if
    /// capacity is kept for it. In hitless mode both are admitted if both can carry the room. Spares that are not
    /// opened ahead are gated.
    fn weigh(&mut self, hops: &[Hop], scales: &RoomScales) -> (Vec<HopGrant>, RoomChange) {
        let RoomScales { need, takes_reserves, nodes, ledger, .. } = *scales;
        let kbps = need.kbps;
        let mode = self.mode_over(hops);
        let before = self.holding;
        let ledger = ledger.without(before);
        let on = hops.first().map(|hop| hop.node).filter(|_| self.stranded().is_none());
        let heading = self.heading().map(|heading| heading.hops[0].node);
        let second = hops.get(1).filter(|_| mode.opens_ahead()).map(|hop| hop.node);
        let twin =
            second.filter(|_| mode == RedundancyMode::Hitless && on.is_some()).filter(|second| {
                let had = before.second == SecondNode::Twin(*second);
                let fits = (had || takes_reserves) && ledger.fits(*second, kbps);
                heading == Some(*second) || fits
            });
        let reserved = on.zip(second).filter(|_| twin.is_none()).and_then(|(on, second)| {
            let had = before.reserve() == Some(second) && before.on == Some(on);
            let fits = |covers: Option<Cover>| {
                let had = had && (covers.is_none() || covers == before.covers());
                let fits = (had || takes_reserves) && ledger.fits_reserve(second, on, covers, kbps);
                heading == Some(second) || fits
            };
            // The death of the node alone is covered if capacity for that of its zone is missing.
            let wanted = need.covers(on, second, nodes);
            let covers = wanted.filter(|wanted| fits(Some(*wanted)));
            let reserve = SecondNode::Reserve { at: second, covers };
            (covers.is_some() || fits(None)).then_some(reserve)
        });
        let second = twin.map(SecondNode::Twin).or(reserved).unwrap_or_default();
        self.holding = Holding { on, second, heading, kbps };
        let is_hitless = mode == RedundancyMode::Hitless;
        let provided = if is_hitless { twin } else { self.holding.reserve() };
        let protection = match (on.is_some() && mode.opens_ahead(), provided) {
            (true, None) => Protection::Unreserved,
            (true, Some(_)) if !self.is_covered(need, nodes) => Protection::Uncovered,
            _ => Protection::Whole,
        };
        let grant = |place| match (place, second) {
            (0, _) if on.is_some() => HopGrant::Admitted,
            (1, SecondNode::Twin(_)) => HopGrant::Admitted,
            (1, SecondNode::Reserve { .. }) => HopGrant::Reserved,
            _ => HopGrant::Gated,
        };
        let capacity = Some(CapacityChange::new(before, self.holding));
        let change = RoomChange { capacity, protection: Some(protection), ..RoomChange::default() };
        ((0..hops.len()).map(grant).collect(), change)
    }

    /// The start and the end of a time in which one hop alone carries a hitless room.
    fn kept_since(&self, before: &Route) -> Option<CoreEvent> {
        match (before.version, before.mode) {
            (0, _) => self.kept(RedundancyMode::Hitless),
            (_, RedundancyMode::Hitless) => self.kept(before.effective_mode()),
            // The change to hitless emits its own event first.
            _ => None,
        }
    }

    /// The event for a hitless room that capacity keeps in another mode than `from`.
    pub(crate) fn kept(&self, from: RedundancyMode) -> Option<CoreEvent> {
        let route = self.route();
        let to = route.effective_mode();
        (route.mode == RedundancyMode::Hitless && from != to).then(|| {
            let (room_name, why) = (Arc::clone(&self.name), ModeChange::Capacity);
            CoreEvent::Mode { room: self.id, room_name, from, to, why }
        })
    }

    /// Takes the nodes under which the room is to be listed. Returns those of before, if they differ.
    pub(crate) fn relist(&mut self) -> Option<Box<[NodeId]>> {
        let route = self.route();
        let heading = self.heading().into_iter().flat_map(|heading| &heading.hops);
        let hops = route.hops.iter().map(|(hop, _)| hop).chain(heading);
        let mut nodes: Vec<NodeId> = hops.map(|hop| hop.node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        (*nodes != *self.nodes).then(|| std::mem::replace(&mut self.nodes, nodes.into()))
    }

    /// The nodes under which the room is listed.
    pub(crate) fn listed_at(&self) -> &[NodeId] {
        &self.nodes
    }

    fn take_heading(&mut self) -> Option<PendingRoute> {
        let nowhere = Placement::Nowhere { asked: false };
        let (placement, heading) = std::mem::replace(&mut self.placement, nowhere).stay();
        self.placement = placement;
        heading
    }

    fn change_placement(&mut self, change: impl FnOnce(Placement) -> Placement) {
        let nowhere = Placement::Nowhere { asked: false };
        self.placement = change(std::mem::replace(&mut self.placement, nowhere));
    }

    /// The room's record, with facts that lists and timers hold.
    pub(crate) fn to_record(
        &self,
        is_away: bool,
        due: Option<Instant>,
        port_moves: Vec<PortMoveRecord>,
        now: Instant,
    ) -> RoomRecord {
        let route = self.route();
        let history = self.history.as_deref();
        let struck = history.into_iter().flat_map(|history| &history.struck);
        RoomRecord {
            id: self.id,
            name: Arc::clone(&self.name),
            scenario: Arc::clone(&self.scenario),
            labels: Arc::clone(&self.labels),
            region: self.region,
            spares: self.spares,
            mode: self.mode,
            call: self.call,
            priority: self.priority,
            version: route.version,
            hops: route.hops.to_vec(),
            covers: self.holding.covers().is_some(),
            leaving: route.leaving().filter(|(_, until)| now < *until),
            placed_by: (*self.placed_by).clone(),
            stranded: self.stranded(),
            away: is_away,
            memory: self.memory.clone(),
            ttl_ms: self.ttl_ms,
            due,
            waits: self.wants_review || self.is_reviewed || self.heading().is_some(),
            struck: struck.map(|(hop, until)| Struck { hop: *hop, until: *until }).collect(),
            unalike: history.and_then(|history| history.unalike),
            counted: history
                .into_iter()
                .flat_map(|it| &it.moves)
                .map(|at| RecordedInstant(*at))
                .collect(),
            moves: self.records().cloned().collect(),
            port_moves,
        }
    }

    /// The room of a record. Hops that lead nowhere any more are dropped; without its first hop, the room is stranded.
    pub(crate) fn of_record(
        record: RoomRecord,
        region: RegionId,
        hops: &HopMap,
        now: Instant,
    ) -> Room {
        let stranded = match (record.stranded, record.hops.first()) {
            (Some(stranded), _) => Some(Stranded { lost: hops.past(stranded.lost), ..stranded }),
            (None, Some((first, _))) if hops.map(*first).is_none() => {
                Some(Stranded { lost: hops.past(*first), since: now, attempts: 0 })
            }
            (None, _) => None,
        };
        let history = RoomHistory {
            struck: (record.struck.iter())
                .filter_map(|struck| Some((hops.map(struck.hop)?, struck.until)))
                .collect(),
            moves: record.counted.iter().map(|RecordedInstant(at)| *at).collect(),
            unalike: record
                .unalike
                .and_then(|[one, other]| Some([hops.map(one)?, hops.map(other)?])),
            record: (record.moves.into_iter())
                .map(|it| MoveRecord {
                    from: hops.past(it.from),
                    to: it.to.map(|to| hops.past(to)),
                    ..it
                })
                .collect(),
        };
        let room = Room {
            spares: record.spares,
            mode: record.mode,
            priority: record.priority,
            placed_by: Arc::new(record.placed_by),
            memory: record.memory,
            ttl_ms: record.ttl_ms,
            placement: match stranded {
                Some(loss) => Placement::Stranded(Box::new(StrandedRoom { loss, heading: None })),
                None => Placement::At,
            },
            history: (history != RoomHistory::default()).then(|| Box::new(history)),
            ..Room::new(record.id, record.name, record.scenario, record.labels, region, record.call)
        };
        let stay = |(hop, grant): &(Hop, HopGrant)| Some((hops.map(*hop)?, *grant));
        let route: Vec<(Hop, HopGrant)> = record.hops.iter().filter_map(stay).collect();
        let order: Vec<Hop> = route.iter().map(|(hop, _)| *hop).collect();
        let left = record.leaving.and_then(|(hop, until)| {
            Some(Box::new(LeftHop { hop: hops.map(hop)?, until, lead: Duration::ZERO }))
        });
        let route = Route::new(record.version, room.mode_over(&order), route);
        room.cell.publish(Route { left, ..route });
        room
    }

    /// The capacity that the grants of the room's route say it uses.
    fn granted(&self, kbps: u64) -> Holding {
        let route = self.route();
        let (on, second) = match self.stranded() {
            Some(_) => (None, None),
            None => (route.hops.first(), route.hops.get(1)),
        };
        let second = match second {
            Some((hop, HopGrant::Reserved)) => SecondNode::Reserve { at: hop.node, covers: None },
            Some((hop, HopGrant::Admitted)) => SecondNode::Twin(hop.node),
            Some((_, HopGrant::Gated)) | None => SecondNode::None,
        };
        Holding { on: on.map(|(hop, _)| hop.node), second, heading: None, kbps }
    }
}

/// A room with a live session.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct RoomRecord {
    /// The number, which the other process continues.
    pub id: RoomId,
    /// The name by which the other process finds it.
    pub name: Arc<str>,
    scenario: Arc<str>,
    labels: Labels,
    /// The room's native region.
    region: RegionId,
    spares: u8,
    mode: RedundancyMode,
    /// The room's number at nodes.
    call: RoomId,
    /// The order of rescues; higher goes first.
    priority: i64,
    /// The version of the route. The restored route has a higher one.
    version: u64,
    /// The route, best first, with its grants.
    hops: Vec<(Hop, HopGrant)>,
    /// The reserve at the second hop covers the zone or region that the scenario wants covered.
    #[serde(default)]
    covers: bool,
    /// The hop that a move left, until its packets are refused.
    #[serde(with = "instant::paired")]
    pub leaving: Option<(Hop, Instant)>,
    placed_by: Decider,
    stranded: Option<Stranded>,
    /// The room is outside its native place without anyone's choice.
    away: bool,
    memory: StateVersions,
    /// Milliseconds between reviews by the policy; 0: none.
    ttl_ms: u32,
    #[serde(with = "instant::option")]
    due: Option<Instant>,
    /// The room was moving, or waited for its routing policy. The policy is asked again.
    waits: bool,
    struck: Vec<Struck>,
    unalike: Option<[Hop; 2]>,
    /// Times of moves that count towards the limit.
    counted: Vec<RecordedInstant>,
    moves: Vec<MoveRecord>,
    /// Moves of the last two seconds without a final cause.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    port_moves: Vec<PortMoveRecord>,
}

impl RoomRecord {
    /// The largest number of a room in the record: its own or that at nodes.
    pub(crate) fn largest_number(&self) -> u64 {
        self.id.0.max(self.call.0)
    }

    /// The room has a route that leads somewhere, or is stranded.
    pub(crate) fn has_route(&self) -> bool {
        let places = usize::from(self.stranded.is_none())..=HOPS_MAX;
        self.version > 0 && places.contains(&self.hops.len())
    }

    /// The hop that carries the room leads nowhere here.
    pub(crate) fn lost_carrier(&self, hops: &HopMap) -> bool {
        let first = self.hops.first().map(|(hop, _)| *hop);
        self.stranded.is_none() && first.is_some_and(|hop| hops.map(hop).is_none())
    }

    /// The reserve at the second hop covers the zone or region that the scenario wants covered.
    pub(crate) fn is_covered(&self) -> bool {
        self.covers
    }

    /// The room is outside its native place without anyone's choice.
    pub(crate) fn is_away(&self) -> bool {
        self.away
    }

    /// The time of the next review by the policy.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// The room's native region, by its number in the record.
    pub(crate) fn region(&self) -> RegionId {
        self.region
    }

    /// The room was moving, or waited for its routing policy.
    pub(crate) fn awaits_policy(&self) -> bool {
        self.waits
    }

    /// The policy is not asked about the room where the record is continued, unless the room `moves`.
    pub(crate) fn forget_review(&mut self, moves: bool) {
        self.waits = moves;
    }

    /// Takes the moves of the last two seconds without a final cause.
    pub(crate) fn take_port_moves(&mut self) -> Vec<PortMoveRecord> {
        std::mem::take(&mut self.port_moves)
    }

    /// States of revisions that are no longer loaded may be among those of the policy.
    pub(crate) fn keeps_other_states(&self) -> bool {
        self.memory.keeps_other()
    }
}

/// A move off a hop where the room's port was closed. It is counted once the node was found dead, or was not.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub(crate) struct PortMoveRecord {
    hop: Hop,
    #[serde(with = "instant")]
    closed: Instant,
    sessions: Vec<SessionId>,
    took: Duration,
}

impl PortMoveRecord {
    pub(crate) fn new(hop: Hop, closed: Instant, moved: &PortMove) -> PortMoveRecord {
        PortMoveRecord { hop, closed, sessions: moved.sessions.clone(), took: moved.took }
    }

    pub(crate) fn hop(&self) -> Hop {
        self.hop
    }

    /// The time at which the port was closed.
    pub(crate) fn closed_at(&self) -> Instant {
        self.closed
    }

    /// Names the hop as this process does.
    pub(crate) fn translate(&mut self, hops: &HopMap) {
        self.hop = hops.past(self.hop);
    }

    pub(crate) fn into_move(self, room: &Room) -> PortMove {
        PortMove {
            room: room.id,
            room_name: Arc::clone(&room.name),
            scenario: Arc::clone(&room.scenario),
            sessions: self.sessions,
            took: self.took,
        }
    }
}

/// A hop that did not take the room.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize, Debug)]
struct Struck {
    hop: Hop,
    #[serde(with = "instant")]
    until: Instant,
}

#[derive(Clone, Copy, PartialEq, Serialize, Deserialize, Debug)]
struct RecordedInstant(#[serde(with = "instant")] Instant);

#[cfg(test)]
mod tests;
