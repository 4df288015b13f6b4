//! Placement: the native default of routing, and the rules that every placement obeys.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use evenkeel_model::{
    Decider, GuardRule, HOPS_MAX, Hop, NodeId, RedundancyMode, RegionId, RegionRole, RoomId,
    SessionId, Zone,
};

use super::{Room, Router};
use crate::capacity::CapacityLedger;
use crate::sessions::SessionPhase;
use crate::timer::Timer;
use evenkeel_nodes::{Node, NodeTable};

/// Minimum interval of questions about one room, whatever its policy requests.
const TTL_MIN: Duration = Duration::from_millis(100);

/// Rooms due within this time are asked about together.
const DUE_GRAIN_MAX: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Takes {
    /// Capacity that no room uses or reserves.
    Free,
    /// Free capacity and reserves for future deaths.
    Reserves,
}

#[derive(Clone, Copy, Debug)]
struct PlacementRequest<'a> {
    pub(crate) region: RegionId,
    pub(crate) mode: RedundancyMode,
    /// In regional mode: the regions that the room tries next, in order.
    pub(crate) regions: &'a [RegionId],
    pub(crate) kbps: u64,
    /// The capacity that the room's first node may use.
    pub(crate) takes: Takes,
    /// Number of spares that the room should have.
    pub(crate) spares: u8,
    /// The current node, where the room stays, and its existing spares; empty if the room is not placed.
    pub(crate) standing: &'a [NodeId],
    /// Nodes that recently refused the room.
    pub(crate) shunned: &'a [NodeId],
}

/// Hops for a room, best first; empty if no node can take it. `ledger` excludes the room's own holding.
///
/// Sorted by soundness, then nodes that are no standbys (if the mode uses standbys), then the room's region, then the
/// least load.
fn native(
    wish: PlacementRequest,
    nodes: &NodeTable,
    zones: &[Zone],
    ledger: &CapacityLedger,
) -> Vec<NodeId> {
    let survey = PlacementSurvey { wish, nodes, zones, ledger };
    let Some(first) = wish.standing.first().copied().or_else(|| survey.first()) else {
        return Vec::new();
    };
    let spares = match wish.mode {
        RedundancyMode::Hitless | RedundancyMode::Hot | RedundancyMode::ActiveActive => {
            survey.spares(&nodes[first])
        }
        RedundancyMode::Regional => survey.next_regions(&nodes[first]),
        RedundancyMode::Cold => Vec::new(),
    };
    let spares = spares.into_iter().take(usize::from(wish.spares).min(HOPS_MAX - 1));
    std::iter::once(first).chain(spares).collect()
}

struct PlacementSurvey<'a> {
    wish: PlacementRequest<'a>,
    nodes: &'a NodeTable,
    zones: &'a [Zone],
    ledger: &'a CapacityLedger,
}

impl PlacementSurvey<'_> {
    fn region(&self, node: &Node) -> RegionId {
        self.zones[node.settings.zone.0 as usize].region
    }

    fn takes(&self, node: &Node) -> bool {
        let here = self.wish.standing.contains(&node.id);
        let may = if here { node.takes_rooms() } else { node.welcomes_rooms() };
        may && !self.wish.shunned.contains(&node.id)
    }

    /// In active-active mode, reserves at a node do not keep rooms from it.
    fn load(&self, node: &Node) -> (u64, NodeId) {
        let load = match self.wish.mode {
            RedundancyMode::ActiveActive => self.ledger.carried_permille(node.id),
            RedundancyMode::Hitless
            | RedundancyMode::Hot
            | RedundancyMode::Cold
            | RedundancyMode::Regional => self.ledger.permille(node.id),
        };
        (load, node.id)
    }

    /// The node is a standby to be avoided while other nodes can take the room.
    fn stands_by(&self, node: &Node) -> bool {
        self.wish.mode.leaves_standbys() && node.settings.role == RegionRole::Standby
    }

    /// Distance of a region from `from`. In most modes 0 or 1; in regional mode the position in the scenario's cyclic
    /// order after `from`. Regions not in that order come last.
    fn distance(&self, region: RegionId, from: RegionId) -> usize {
        let order = self.wish.regions;
        let place = |region| order.iter().position(|listed| *listed == region);
        match (self.wish.mode, place(region)) {
            _ if region == from => 0,
            (RedundancyMode::Regional, None) => order.len() + 1,
            (RedundancyMode::Regional, Some(at)) => {
                let start = place(from).map_or(0, |from| from + 1);
                1 + (at + order.len() - start) % order.len()
            }
            (
                RedundancyMode::Hitless
                | RedundancyMode::Hot
                | RedundancyMode::ActiveActive
                | RedundancyMode::Cold,
                _,
            ) => 1,
        }
    }

    fn first(&self) -> Option<NodeId> {
        let fits = |node: &&Node| {
            let (id, kbps) = (node.id, self.wish.kbps);
            let fits = match self.wish.takes {
                Takes::Free => self.ledger.fits(id, kbps),
                Takes::Reserves => self.ledger.carries(id, kbps),
            };
            self.takes(node) && fits
        };
        let cost = |node: &Node| {
            let unsound = !node.is_sound();
            let far = self.distance(self.region(node), self.wish.region);
            (unsound, self.stands_by(node), far, self.load(node))
        };
        self.nodes.iter().filter(fits).min_by_key(|node| cost(node)).map(|node| node.id)
    }

    /// Spares, best first. Nodes that can reserve capacity, or in hitless mode carry the room as well, come first, then
    /// existing spares. Other zones come before the same zone, and standbys before other nodes.
    fn spares(&self, first: &Node) -> Vec<NodeId> {
        let PlacementRequest { kbps, standing, mode, region, .. } = self.wish;
        let reserves = |node: &Node| self.ledger.fits_reserve(node.id, first.id, kbps);
        let may = |node: &&Node| {
            let kept = standing.contains(&node.id);
            node.id != first.id && self.takes(node) && (kept || reserves(node))
        };
        // In active-active mode, zones of the carrying region are spares for each other, wherever the room's clients
        // are.
        let home = if mode == RedundancyMode::ActiveActive { self.region(first) } else { region };
        let cost = |node: &&Node| {
            let provides = match mode {
                RedundancyMode::Hitless => self.ledger.fits(node.id, kbps),
                _ => reserves(node),
            };
            let kept = standing.iter().position(|standing| *standing == node.id);
            let unsound = !node.is_sound();
            let abroad = self.distance(self.region(node), home);
            let same_zone = node.settings.zone == first.settings.zone;
            let (place, stands_by) = ((abroad, same_zone), self.stands_by(node));
            (!provides, kept.unwrap_or(usize::MAX), unsound, place, !stands_by, self.load(node))
        };
        let mut spares: Vec<&Node> = self.nodes.iter().filter(may).collect();
        spares.sort_by_key(cost);
        spares.into_iter().map(|node| node.id).collect()
    }

    /// The best node of each region after the current one, in the scenario's order. No capacity is reserved there.
    fn next_regions(&self, first: &Node) -> Vec<NodeId> {
        let here = self.region(first);
        let cost = |node: &&Node| {
            let turn = self.distance(self.region(node), here);
            let (new, unsound) = (!self.wish.standing.contains(&node.id), !node.is_sound());
            (turn, self.region(node), new, unsound, self.load(node))
        };
        let fits = |node: &&Node| {
            self.region(node) != here
                && self.takes(node)
                && self.ledger.fits(node.id, self.wish.kbps)
        };
        let mut nodes: Vec<&Node> = self.nodes.iter().filter(fits).collect();
        nodes.sort_by_key(cost);
        let mut seen = BTreeSet::new();
        nodes.retain(|node| seen.insert(self.region(node)));
        nodes.into_iter().map(|node| node.id).collect()
    }
}

impl Room {
    /// Nodes that the room avoids. Another incarnation of an avoided node is not avoided.
    pub(crate) fn shunned_nodes(&self, nodes: &NodeTable, now: Instant) -> Vec<NodeId> {
        let is_there = |hop: &Hop| nodes.get(hop.node).is_some_and(|node| node.hop() == *hop);
        self.shunned(now).filter(is_there).map(|hop| hop.node).collect()
    }
}

impl Router<'_> {
    pub(crate) fn place_natively(&mut self, id: RoomId, now: Instant) {
        let busy = self.nodes.busy();
        let mut nodes = self.native_hops_but(id, &[], &busy, now);
        // Stranded rooms wait for the busy nodes, so a new room only takes others.
        let waits = if self.rooms.stranded_go_first() { &busy[..] } else { &[] };
        if nodes.is_empty() && !busy.is_empty() && waits.is_empty() {
            nodes = self.native_hops(id, &[], now);
        }
        if nodes.is_empty() {
            nodes = self.place_with_less(id, waits, now);
        }
        self.settle(id, &nodes, Decider::Native, now);
    }

    pub(crate) fn waiting_for_placement(&self, id: RoomId) -> Vec<SessionId> {
        let placing = |session: &SessionId| {
            self.sessions.get(session).is_some_and(|session| session.phase == SessionPhase::Placing)
        };
        let sessions = self.rooms.get(&id).into_iter().flat_map(|room| room.sessions.iter());
        sessions.copied().filter(placing).collect()
    }

    /// Publishes the room's first route and opens its sessions.
    fn settle(&mut self, id: RoomId, nodes: &[NodeId], by: Decider, now: Instant) {
        let hops = self.nodes.hops(nodes);
        let waiting = self.waiting_for_placement(id);
        if hops.is_empty() {
            self.want_start(id, now);
            for session in waiting {
                self.turn_away(session, now);
            }
            return;
        }
        let unchosen = by == Decider::Native;
        self.rooms.set_placed_by(id, by);
        self.admit_at(id, &hops, None);
        self.note_away(id, nodes.first().copied().filter(|_| unchosen), now);
        self.set_due(id, now);
        for session in waiting {
            self.open(session, now);
        }
    }

    /// Places the room by its policy's answer.
    pub(crate) fn place_as_answered(
        &mut self,
        id: RoomId,
        nodes: &[NodeId],
        ttl_ms: u32,
        by: Decider,
        now: Instant,
    ) {
        if let Some(room) = self.rooms.get_mut(&id) {
            room.ttl_ms = ttl_ms;
        }
        self.settle(id, nodes, by, now);
    }

    /// Sets the time of the policy's next review of the room, delayed by up to an eighth, so that thousands of due
    /// rooms need few questions.
    pub(crate) fn set_due(&mut self, id: RoomId, now: Instant) {
        let ttl = self.rooms.get(&id).map_or(0, |room| room.ttl_ms);
        if ttl > 0 {
            let ttl = Duration::from_millis(u64::from(ttl)).max(TTL_MIN);
            let grain = (ttl / 8).min(DUE_GRAIN_MAX).as_micros() as u64;
            let due = (now + ttl).saturating_duration_since(self.rooms.started).as_micros() as u64;
            let late = Duration::from_micros(due.next_multiple_of(grain) - due);
            self.effects.set(Timer::RoomDue(id), now + ttl + late);
        }
    }

    /// The native default: where an unplaced room would go, or a placed room's node with its spares.
    pub(crate) fn native_hops(
        &mut self,
        id: RoomId,
        standing: &[NodeId],
        now: Instant,
    ) -> Vec<NodeId> {
        self.native_hops_but(id, standing, &[], now)
    }

    /// The native default without the nodes in `but`. Regions with open breakers are avoided, except that a placed room
    /// uses them if there is no alternative.
    pub(crate) fn native_hops_but(
        &mut self,
        id: RoomId,
        standing: &[NodeId],
        but: &[NodeId],
        now: Instant,
    ) -> Vec<NodeId> {
        let mut avoided = self.behind_breakers(id);
        let avoids = !avoided.is_empty();
        avoided.extend(but);
        let nodes = self.native_hops_without(id, Takes::Free, standing, &avoided, now);
        let enough = nodes.len() > 1 || !self.rooms.get(&id).is_some_and(Room::is_placed);
        if enough || !avoids {
            return nodes;
        }
        let first = nodes.first().map_or(standing, std::slice::from_ref);
        self.native_hops_without(id, Takes::Free, first, but, now)
    }

    /// The native default for a room without a node, which may use this kind of capacity, regardless of breakers.
    pub(crate) fn native_hops_taking(
        &mut self,
        id: RoomId,
        takes: Takes,
        but: &[NodeId],
        now: Instant,
    ) -> Vec<NodeId> {
        self.native_hops_without(id, takes, &[], but, now)
    }

    fn native_hops_without(
        &mut self,
        id: RoomId,
        takes: Takes,
        standing: &[NodeId],
        but: &[NodeId],
        now: Instant,
    ) -> Vec<NodeId> {
        let kbps = self.room_kbps(id);
        let Some(room) = self.rooms.get(&id) else {
            return Vec::new();
        };
        let (region, spares, mode) = (room.region, room.spares, room.mode);
        let regions = self.scenario_of(room).map_or(Vec::new(), |s| s.regions.clone());
        let mut shunned = self.shunned(id, now);
        shunned.extend(but);
        let (regions, shunned) = (&regions[..], &shunned[..]);
        let wish =
            PlacementRequest { region, mode, regions, kbps, takes, spares, standing, shunned };
        self.without_holding(id, |router| {
            native(wish, router.nodes, router.nodes.zones(), router.capacity.ledger())
        })
    }

    pub(crate) fn shunned(&self, id: RoomId, now: Instant) -> Vec<NodeId> {
        self.rooms.get(&id).map_or_else(Vec::new, |room| room.shunned_nodes(self.nodes, now))
    }

    fn behind_breakers(&self, id: RoomId) -> Vec<NodeId> {
        let kept = self.rooms.get(&id).map(Room::hops_to_open).unwrap_or_default();
        let keeps = |node| kept.iter().any(|hop| hop.node == node);
        self.capacity.behind_breakers(id, keeps, self.nodes)
    }

    pub(crate) fn fits(&mut self, id: RoomId, node: NodeId) -> bool {
        let kbps = self.room_kbps(id);
        self.without_holding(id, |router| router.capacity.ledger().fits(node, kbps))
    }

    /// Checks that each hop exists, takes rooms or already has this one, has not just refused it, and occurs once.
    pub(crate) fn check_hops(
        &self,
        id: RoomId,
        nodes: &[NodeId],
        now: Instant,
    ) -> Result<(), GuardRule> {
        let shunned = self.shunned(id, now);
        let route = self.rooms.get(&id).map(Room::route);
        let takes = |node: &Node| {
            let has_it = route.as_ref().is_some_and(|route| route.holds(node.hop()));
            if has_it { node.takes_rooms() } else { node.welcomes_rooms() }
        };
        let usable =
            |node: &NodeId| self.nodes.get(*node).is_some_and(takes) && !shunned.contains(node);
        let distinct = nodes.iter().collect::<BTreeSet<_>>().len() == nodes.len();
        let fine =
            !nodes.is_empty() && nodes.len() <= HOPS_MAX && distinct && nodes.iter().all(usable);
        let kept = |node: &&NodeId| route.as_ref().is_some_and(|r| r.leads_to(**node));
        let shut = |node: &NodeId| !self.capacity.may_enter(id, self.nodes.region_of(*node));
        match fine {
            true if nodes.iter().filter(|node| !kept(node)).any(shut) => {
                Err(GuardRule::BreakerOpen)
            }
            true => Ok(()),
            false => Err(GuardRule::UnusableNode),
        }
    }

    pub(crate) fn check_placement(
        &mut self,
        id: RoomId,
        nodes: &[NodeId],
        now: Instant,
    ) -> Result<(), GuardRule> {
        self.check_hops(id, nodes, now)?;
        let is_new = self.rooms.get(&id).is_some_and(|room| !room.is_placed());
        let is_left = |place: NodeId| !self.nodes.pace(place).is_busy();
        let may = !is_new || !self.rooms.stranded_go_first() || is_left(nodes[0]);
        if may && self.fits(id, nodes[0]) { Ok(()) } else { Err(GuardRule::NoCapacity) }
    }
}
