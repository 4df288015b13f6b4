//! Rooms: sessions that are placed and moved together, with the route they share.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_model::{
    Board, Decider, HOPS_MAX, Hop, HopGrant, Labels, LeftHop, MoveCause, NodeId, RedundancyMode,
    RegionId, RegionRole, RoomId, Route, RouteCell, SessionId,
};
use evenkeel_nodes::{Node, NodeTable};
use evenkeel_revisions::StateVersions;

use crate::capacity::Holding;
use crate::collections::SmallSet;
use crate::quality::RoomTally;
use crate::record::{HopMap, MoveRecord, RecordedInstant, RoomRecord, Stranded, Struck};

/// Maximum entries in a room's record of moves; the oldest is dropped.
const RECORDED_MAX: usize = 8;

/// The limit of moves counts those within this time.
const MOVES_WITHIN: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) id: RoomId,
    pub(crate) name: Arc<str>,
    pub(crate) scenario: Arc<str>,
    /// Labels of the room's first session.
    pub(crate) labels: Labels,
    /// The region of the room's first session, else the gateway's.
    pub(crate) region: RegionId,
    pub(crate) spares: u8,
    pub(crate) mode: RedundancyMode,
    /// The room's number at nodes. All sessions of a call share one, even if each has its own room here.
    pub(crate) call: RoomId,
    /// Order of rescues; higher goes first.
    pub(crate) priority: i64,
    pub(crate) sessions: SmallSet<SessionId>,
    pub(crate) cell: Arc<RouteCell>,
    pub(crate) placed_by: Arc<Decider>,
    /// The capacity that the room uses.
    pub(crate) holding: Holding,
    /// A route whose hops are being opened.
    pub(crate) pending: Option<Box<PendingRoute>>,
    /// A question to the routing policy about its placement is open.
    pub(crate) placing: bool,
    /// State of the routing policy for this room.
    pub(crate) memory: StateVersions,
    /// Milliseconds until the routing policy is asked again; 0: never.
    pub(crate) ttl_ms: u32,
    /// Packets at the current hop since the room last voted.
    pub(crate) tally: Option<Box<RoomTally>>,
    /// The nodes under which `RoomTable` lists the room.
    pub(crate) nodes: Box<[NodeId]>,
    /// Rarely used fields.
    history: Option<Box<RoomHistory>>,
}

#[derive(PartialEq, Default, Debug)]
struct RoomHistory {
    /// Set while no hop is left that the room's packets may take.
    stranded: Option<Stranded>,
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
    pub(crate) hops: Vec<Hop>,
    /// Hops where all sessions must be open first: the target of a move, else the new spares.
    pub(crate) awaited: BTreeSet<Hop>,
    pub(crate) waiting: BTreeSet<(SessionId, Hop)>,
    pub(crate) cause: MoveCause,
    pub(crate) by: Decider,
    pub(crate) started: Instant,
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

impl Room {
    /// A room without a route. Its redundancy and priority are set by the caller, from the scenario or a record.
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
            placed_by: Arc::new(Decider::Native),
            holding: Holding::default(),
            pending: None,
            placing: false,
            memory: StateVersions::default(),
            ttl_ms: 0,
            tally: None,
            nodes: Box::default(),
            history: None,
        }
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
        self.history.as_ref()?.stranded
    }

    pub(crate) fn set_stranded(&mut self, stranded: Option<Stranded>) {
        if stranded.is_some() || self.history.is_some() {
            self.history.get_or_insert_default().stranded = stranded;
        }
    }

    pub(crate) fn is_placed(&self) -> bool {
        self.route().version > 0
    }

    /// The nodes of the room's route, best first.
    pub(crate) fn nodes_of_route(&self) -> Vec<NodeId> {
        self.route().hops.iter().map(|(hop, _)| hop.node).collect()
    }

    pub(crate) fn leads_to(&self, hop: Hop) -> bool {
        self.route().holds(hop) || self.heads_for(hop)
    }

    pub(crate) fn heads_for(&self, hop: Hop) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.hops.contains(&hop))
    }

    /// Hops where the room's sessions are opened: those of its current and pending routes, or only the first of each if
    /// its mode opens none ahead. The current hop comes first.
    pub(crate) fn hops_to_open(&self) -> Vec<Hop> {
        let each = if self.mode.opens_ahead() { HOPS_MAX } else { 1 };
        let route = self.route();
        let pending = self.pending.iter().flat_map(|pending| pending.hops.iter().take(each));
        let standing = if self.stranded().is_some() && each == 1 { 0 } else { each };
        route.hops.iter().map(|(hop, _)| hop).take(standing).chain(pending).copied().collect()
    }

    /// Changes the room's survival mode. Pending spares that the old mode did not open are dropped if the new mode
    /// opens spares.
    pub(crate) fn take_mode(&mut self, mode: RedundancyMode) {
        if let Some(pending) = self.pending.as_mut()
            && mode.opens_ahead()
            && !self.mode.opens_ahead()
        {
            pending.hops.truncate(1);
        }
        self.mode = mode;
        if let Some(history) = &mut self.history {
            // The new mode gives these hops another chance.
            history.unalike = None;
        }
    }

    /// Stops the pending route from waiting for hops that the mode does not open.
    pub(crate) fn await_what_is_opened(&mut self) {
        if let Some(pending) = self.pending.as_mut().filter(|_| !self.mode.opens_ahead()) {
            let first = pending.hops[0];
            pending.awaited.retain(|hop| *hop == first);
            pending.waiting.retain(|(_, hop)| *hop == first);
        }
    }

    /// Every hop where the room's sessions should be open at this time.
    pub(crate) fn hops_in_use(&self, now: Instant) -> BTreeSet<Hop> {
        let leaving = self.route().leaving().filter(|(_, until)| now < *until).map(|(hop, _)| hop);
        self.hops_to_open().into_iter().chain(leaving).collect()
    }

    /// Notes that packets of these hops are no copies of each other. Returns true if that is new.
    pub(crate) fn note_unalike(&mut self, hops: [Hop; 2]) -> bool {
        let known = self.history.get_or_insert_default().unalike.replace(hops);
        known != Some(hops) && known != Some([hops[1], hops[0]])
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

    /// Removes a hop from the pending route. Returns the pending route, cancelled, if that was its first hop.
    pub(crate) fn cut_pending(&mut self, gone: Hop) -> Option<Box<PendingRoute>> {
        if self.pending.as_ref()?.hops[0] == gone {
            return self.pending.take();
        }
        let pending = self.pending.as_mut()?;
        pending.hops.retain(|hop| *hop != gone);
        pending.awaited.remove(&gone);
        pending.waiting.retain(|(_, hop)| *hop != gone);
        None
    }

    /// Makes the room avoid the hop until that time. Returns true if that is new.
    pub(crate) fn keep_away(&mut self, hop: Hop, until: Instant, now: Instant) -> bool {
        let struck = &mut self.history.get_or_insert_default().struck;
        struck.retain(|_, until| now < *until);
        struck.insert(hop, until).is_none()
    }

    pub(crate) fn shunned(&self, now: Instant) -> impl Iterator<Item = Hop> {
        let struck = self.history.iter().flat_map(|history| &history.struck);
        struck.filter(move |(_, until)| now < **until).map(|(hop, _)| *hop)
    }

    /// The room left this hop for a closed port, and the node turned out to be dead.
    pub(crate) fn explain_port_move(&mut self, dead: Hop) {
        for record in self.history.iter_mut().flat_map(|history| &mut history.record) {
            if record.from == dead && record.cause == MoveCause::Link {
                record.cause = MoveCause::NodeDown;
            }
        }
    }

    /// Adds a move to the room's record.
    pub(crate) fn record(&mut self, record: MoveRecord) {
        let records = &mut self.history.get_or_insert_default().record;
        if records.len() == RECORDED_MAX {
            records.pop_front();
        }
        records.push_back(record);
    }

    /// The room's last moves, oldest first.
    pub(crate) fn records(&self) -> impl Iterator<Item = &MoveRecord> {
        self.history.iter().flat_map(|history| &history.record)
    }

    /// Counts a move towards the limit. Only `counted_max` moves are kept.
    pub(crate) fn note_move(&mut self, now: Instant, counted_max: usize) {
        let moves = &mut self.history.get_or_insert_default().moves;
        moves.push_back(now);
        while moves.len() > counted_max {
            moves.pop_front();
        }
    }

    /// Number of stored move times, including expired ones.
    pub(crate) fn moves_noted(&self) -> usize {
        self.history.as_ref().map_or(0, |history| history.moves.len())
    }

    /// Number of moves within the last minute.
    pub(crate) fn recent_moves(&mut self, now: Instant) -> usize {
        let Some(history) = &mut self.history else { return 0 };
        let past = |at: &mut Instant| now.saturating_duration_since(*at) >= MOVES_WITHIN;
        while history.moves.pop_front_if(past).is_some() {}
        history.moves.len()
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

    /// Nodes that the room avoids. Another incarnation of an avoided node is not avoided.
    pub(crate) fn shunned_nodes(&self, nodes: &NodeTable, now: Instant) -> Vec<NodeId> {
        let is_there = |hop: &Hop| nodes.get(hop.node).is_some_and(|node| node.hop() == *hop);
        self.shunned(now).filter(is_there).map(|hop| hop.node).collect()
    }

    /// The room's record, without the facts that `RoomTable` and the timers hold.
    pub(crate) fn to_record(&self, now: Instant) -> RoomRecord {
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
            covers: self.holding.covers.is_some(),
            leaving: route.leaving().filter(|(_, until)| now < *until),
            placed_by: (*self.placed_by).clone(),
            stranded: self.stranded(),
            away: false,
            memory: self.memory.clone(),
            ttl_ms: self.ttl_ms,
            due: None,
            waits: self.pending.is_some(),
            struck: struck.map(|(hop, until)| Struck { hop: *hop, until: *until }).collect(),
            unalike: history.and_then(|history| history.unalike),
            counted: history
                .into_iter()
                .flat_map(|it| &it.moves)
                .map(|at| RecordedInstant(*at))
                .collect(),
            moves: self.records().cloned().collect(),
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
            stranded,
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
    pub(crate) fn granted(&self, kbps: u64) -> Holding {
        let route = self.route();
        let (on, second) = match self.stranded() {
            Some(_) => (None, None),
            None => (route.hops.first(), route.hops.get(1)),
        };
        let second_if = |wanted| second.filter(|(_, grant)| *grant == wanted);
        Holding {
            on: on.map(|(hop, _)| hop.node),
            reserve: second_if(HopGrant::Reserved).map(|(hop, _)| hop.node),
            covers: None,
            heading: None,
            twin: second_if(HopGrant::Admitted).map(|(hop, _)| hop.node),
            kbps,
        }
    }
}
