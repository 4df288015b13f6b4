//! The choice of nodes for a room, and the rules that every placement obeys. A function of the room's need, the nodes and their
//! capacity: it changes nothing.

use std::collections::BTreeSet;
use std::time::Instant;

use evenkeel_model::{ClientLabel, GuardRule, HOPS_MAX, Hop, NodeId, RedundancyMode, RegionId};
use evenkeel_nodes::{Node, NodeTable};

use crate::capacity::{Capacity, LedgerView};
use crate::rooms::room::{Room, RoomNeed};

/// Capacity of a node in per cent that a raise leaves free, so that no session must be reduced again at once.
const LEAVES_FREE: u64 = 5;

/// Nodes that take rooms, in the order of their numbers.
#[derive(Default, Debug)]
pub(crate) struct UsableNodes(Box<[NodeId]>);

impl UsableNodes {
    pub(crate) fn of(nodes: &NodeTable) -> UsableNodes {
        UsableNodes(nodes.iter().filter(|node| node.takes_rooms()).map(|node| node.id).collect())
    }

    pub(crate) fn contains(&self, node: NodeId) -> bool {
        self.0.binary_search(&node).is_ok()
    }

    /// All of them still take rooms: no death or drain since changed what the native default would do.
    pub(crate) fn are_left(&self, nodes: &NodeTable) -> bool {
        self.0.iter().all(|node| nodes.get(*node).is_some_and(Node::takes_rooms))
    }

    pub(crate) fn first_other(&self, nodes: &[NodeId]) -> Option<NodeId> {
        nodes.iter().copied().find(|node| !self.contains(*node))
    }
}

/// Some node without a queue, and not in `shunned`, has capacity for this load in kbit/s.
pub(crate) fn has_free_node(
    kbps: u64,
    shunned: &[NodeId],
    nodes: &NodeTable,
    capacity: &Capacity,
) -> bool {
    nodes.iter().any(|node| {
        let (id, pace) = (node.id, nodes.pace(node.id));
        let open = node.welcomes_rooms() && !pace.is_busy() && !shunned.contains(&id);
        open && capacity.ledger().fits(id, kbps)
    })
}

/// Nodes for one room.
#[derive(Clone, Copy)]
pub(crate) struct NodeChoice<'a> {
    room: &'a Room,
    need: RoomNeed<'a>,
    nodes: &'a NodeTable,
    capacity: &'a Capacity,
    now: Instant,
}

impl<'a> NodeChoice<'a> {
    pub(crate) fn new(
        room: &'a Room,
        need: RoomNeed<'a>,
        nodes: &'a NodeTable,
        capacity: &'a Capacity,
        now: Instant,
    ) -> NodeChoice<'a> {
        NodeChoice { room, need, nodes, capacity, now }
    }

    /// The ledger without the room's own holding.
    fn ledger(self) -> LedgerView<'a> {
        self.capacity.ledger.without(self.room.holding())
    }

    fn shunned(self) -> Vec<NodeId> {
        self.room.shunned_nodes(self.nodes, self.now)
    }

    fn stands_at(self) -> Option<Hop> {
        self.room.stands_at(self.nodes.board())
    }

    /// The route's hops in order, without `but`, starting with the first that has capacity for the room. `None` if none
    /// has.
    pub(crate) fn own_next(self, but: Option<NodeId>) -> Option<Vec<NodeId>> {
        let shunned = self.shunned();
        let fit = |hop: &Hop| {
            self.nodes.is_up(*hop)
                && Some(hop.node) != but
                && !shunned.contains(&hop.node)
                && self.nodes.get(hop.node).is_some_and(Node::takes_rooms)
        };
        let route = self.room.route();
        let fitting = route.hops.iter().filter(|(hop, _)| fit(hop));
        let mut nodes: Vec<NodeId> = fitting.map(|(hop, _)| hop.node).collect();
        let first = nodes.iter().position(|&node| self.ledger().fits(node, self.need.kbps()))?;
        nodes[..=first].rotate_right(1);
        Some(nodes)
    }

    /// Some node without a queue has capacity for this room; otherwise a search is useless.
    pub(crate) fn has_free_node(self) -> bool {
        has_free_node(self.need.kbps(), &self.shunned(), self.nodes, self.capacity)
    }

    /// The native default: where an unplaced room would go, or a placed room's node with its spares.
    pub(crate) fn native_hops(self, standing: &[NodeId]) -> Vec<NodeId> {
        self.native_hops_but(standing, &[])
    }

    /// The native default without the nodes in `but`. Zones and regions with open breakers are avoided, except that a placed room
    /// uses them if there is no alternative.
    pub(crate) fn native_hops_but(self, standing: &[NodeId], but: &[NodeId]) -> Vec<NodeId> {
        let kept = self.room.hops_to_open();
        let keeps = |node| kept.iter().any(|hop| hop.node == node);
        let mut avoided = self.capacity.shut_nodes(self.room.id(), keeps, self.nodes);
        let avoids = !avoided.is_empty();
        avoided.extend(but);
        let nodes = self.native_hops_without(Takes::Free, standing, &avoided);
        let enough = nodes.len() > 1 || !self.room.is_placed();
        if enough || !avoids {
            return nodes;
        }
        let first = nodes.first().map_or(standing, std::slice::from_ref);
        self.native_hops_without(Takes::Free, first, but)
    }

    /// The room's hops if reserves are ignored: a running call takes precedence over possible future deaths.
    pub(crate) fn hops_of_reserves(self, busy: &[NodeId]) -> Vec<NodeId> {
        self.native_hops_without(Takes::Reserves, &[], busy)
    }

    /// The native default, whose first node may use this kind of capacity, regardless of breakers.
    fn native_hops_without(self, takes: Takes, standing: &[NodeId], but: &[NodeId]) -> Vec<NodeId> {
        let mut shunned = self.shunned();
        shunned.extend(but);
        let survey = PlacementSurvey {
            room: self.room,
            need: self.need,
            carrier: ClientLabel::Carrier.value(self.room.labels()),
            takes,
            current: standing,
            shunned: &shunned,
            nodes: self.nodes,
            ledger: self.ledger(),
        };
        survey.hops()
    }

    pub(crate) fn fits(self, node: NodeId) -> bool {
        self.ledger().fits(node, self.need.kbps())
    }

    /// The nodes without spares in the first one's domain that the scenario names in `spares_outside`. A stranded room
    /// keeps all, since it may continue at any.
    pub(crate) fn without_inside_spares(self, nodes: &[NodeId]) -> Vec<NodeId> {
        match self.room.stranded() {
            Some(_) => nodes.to_vec(),
            None => self.need.without_inside_spares(nodes, |node| *node, self.nodes),
        }
    }

    /// Checks that each hop exists, takes rooms or already has this one, has not just refused it, and occurs once. A revision
    /// that names only nodes that its question showed as usable could not know better.
    pub(crate) fn check_hops(self, nodes: &[NodeId], shown: &UsableNodes) -> Result<(), GuardRule> {
        let shunned = self.shunned();
        let route = self.room.route();
        let takes = |node: &Node| {
            if route.holds(node.hop()) { node.takes_rooms() } else { node.welcomes_rooms() }
        };
        let usable =
            |node: &NodeId| self.nodes.get(*node).is_some_and(takes) && !shunned.contains(node);
        let distinct = nodes.iter().collect::<BTreeSet<_>>().len() == nodes.len();
        let possible = (1..=HOPS_MAX).contains(&nodes.len()) && distinct;
        let kept = |node: &&NodeId| route.leads_to(**node);
        let shut = |node: &NodeId| !self.capacity.may_enter(self.room.id(), *node, self.nodes);
        match nodes.iter().all(usable) {
            _ if !possible => Err(GuardRule::UnusableNode),
            true if nodes.iter().filter(|node| !kept(node)).any(shut) => {
                Err(GuardRule::BreakerOpen)
            }
            true => Ok(()),
            false if nodes.iter().all(|node| shown.contains(*node)) => Err(GuardRule::Outdated),
            false => Err(GuardRule::UnusableNode),
        }
    }

    /// Checks the hops, and the capacity of the first. `stranded_go_first`: stranded rooms need the nodes with queues.
    pub(crate) fn check(
        self,
        nodes: &[NodeId],
        shown: &UsableNodes,
        stranded_go_first: bool,
    ) -> Result<(), GuardRule> {
        self.check_hops(nodes, shown)?;
        let waits = !self.room.is_placed() && stranded_go_first;
        let may = !waits || !self.nodes.pace(nodes[0]).is_busy();
        if may && self.fits(nodes[0]) { Ok(()) } else { Err(GuardRule::NoCapacity) }
    }

    /// The native default for the room's route: it stays on its node.
    pub(crate) fn native_route(self) -> Vec<NodeId> {
        let standing = self.stands_at().map_or_else(Vec::new, |stands| {
            let nodes = self.room.nodes_of_route().into_iter();
            std::iter::once(stands.node).chain(nodes.filter(|node| *node != stands.node)).collect()
        });
        self.native_hops(&standing)
    }

    /// 2: on these nodes the room has a standby with capacity for the death that its scenario names; 1: only for the death of its
    /// node; 0: for none. A reserve that yields counts for no policy: its question does not show it.
    fn redundancy(self, hops: &[NodeId]) -> u8 {
        let [first, second, ..] = hops else { return 0 };
        let (ledger, kbps) = (self.ledger(), self.need.kbps());
        let fits = |covers| match self.room.mode() {
            RedundancyMode::Hitless => ledger.fits(*second, kbps),
            _ => ledger.fits_reserve(*second, *first, covers, kbps),
        };
        let covers = self.need.covers(*first, *second, self.nodes).filter(|cover| !cover.yields);
        u8::from(fits(None)) + u8::from(covers.is_some() && fits(covers))
    }

    /// On these nodes the room has less redundancy than the native default would give it.
    pub(crate) fn spends_redundancy(self, hops: &[NodeId]) -> bool {
        let first = hops.get(..1).unwrap_or_default();
        let native = || self.native_hops(first);
        let hops = self.without_inside_spares(hops);
        self.room.mode().opens_ahead() && self.redundancy(&hops) < self.redundancy(&native())
    }

    /// Another route could protect the room better. If a policy decides about routes, only a spare is missing: one without a
    /// reserve that it chose is deliberate.
    pub(crate) fn can_gain_reserve(self, policy_decides: bool) -> bool {
        let Some(standing) = self.stands_at().filter(|_| self.room.heading().is_none()) else {
            return false;
        };
        let (holding, ledger, kbps) = (self.room.holding(), self.ledger(), self.need.kbps());
        let gains = |second: &NodeId| {
            let wanted = self.need.covers(standing.node, *second, self.nodes);
            match (self.room.mode(), holding.twin(), holding.reserve()) {
                (RedundancyMode::Hitless, None, _) => ledger.fits(*second, kbps),
                (RedundancyMode::Hitless, Some(_), _) => {
                    wanted.is_some() && ledger.fits(*second, kbps)
                }
                (_, _, None) => true,
                (_, _, Some(_)) => {
                    wanted.is_some() && ledger.fits_reserve(*second, standing.node, wanted, kbps)
                }
            }
        };
        (self.room.is_bare() || !policy_decides)
            && self.native_hops(&[standing.node]).get(1).is_some_and(gains)
    }

    /// All nodes that the room uses have this much more capacity free.
    pub(crate) fn leaves_room_for(self, kbps: u64) -> bool {
        let (holding, ledger) = (self.room.holding(), self.capacity.ledger());
        let fits = |node: NodeId| {
            let free = ledger.capacity(node) * LEAVES_FREE / 100;
            ledger.fits(node, kbps + free)
        };
        let reserved = holding.on.zip(holding.reserve());
        let reserves = |(on, at)| ledger.fits_reserve(at, on, holding.firm_cover(), kbps);
        holding.on.is_some() && holding.loads().all(fits) && reserved.is_none_or(reserves)
    }

    /// All nodes that the room uses have capacity for one more session of this load.
    pub(crate) fn takes_session(self, kbps: u64) -> bool {
        let mut carriers = self.room.holding().loads().peekable();
        let ledger = self.capacity.ledger();
        carriers.peek().is_some() && carriers.all(|node| ledger.fits(node, kbps))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Takes {
    /// Capacity that no room uses or reserves.
    Free,
    /// Free capacity and reserves for future deaths.
    Reserves,
}

/// The nodes that a room may take, by soundness, then nodes that are no standbys (if the mode uses standbys), then the room's
/// region, then nodes that are not expected to fail, then the carrier of its clients, then the least load.
struct PlacementSurvey<'a> {
    room: &'a Room,
    need: RoomNeed<'a>,
    /// The carrier that the room's label names.
    carrier: Option<&'a str>,
    /// The capacity that the room's first node may use.
    takes: Takes,
    /// The current node, where the room stays, and its existing spares; empty if the room is not placed.
    current: &'a [NodeId],
    /// Nodes that recently refused the room.
    shunned: &'a [NodeId],
    nodes: &'a NodeTable,
    /// The ledger without the room's own holding.
    ledger: LedgerView<'a>,
}

impl PlacementSurvey<'_> {
    /// Hops for the room, best first; empty if no node can take it.
    fn hops(&self) -> Vec<NodeId> {
        let Some(first) = self.current.first().copied().or_else(|| self.first()) else {
            return Vec::new();
        };
        let spares = match self.room.mode() {
            RedundancyMode::Hitless | RedundancyMode::Hot | RedundancyMode::ActiveActive => {
                self.spares(&self.nodes[first])
            }
            RedundancyMode::Regional => self.next_regions(&self.nodes[first]),
            RedundancyMode::Cold => Vec::new(),
        };
        let spares = spares.into_iter().take(usize::from(self.room.spares()).min(HOPS_MAX - 1));
        std::iter::once(first).chain(spares).collect()
    }

    fn region(&self, node: &Node) -> RegionId {
        self.nodes.region_of(node.id)
    }

    fn takes(&self, node: &Node) -> bool {
        let here = self.current.contains(&node.id);
        let may = if here { node.takes_rooms() } else { node.welcomes_rooms() };
        may && !self.shunned.contains(&node.id)
    }

    /// Orders nodes that are equal otherwise: those that are not expected to fail first, then those of the clients' carrier, then by
    /// load. In active-active mode, reserves at a node do not keep rooms from it.
    fn rank(&self, node: &Node) -> (bool, bool, u64, NodeId) {
        let is_foreign = self.carrier.is_some() && node.settings.carrier.as_deref() != self.carrier;
        let load = match self.room.mode() {
            RedundancyMode::ActiveActive => self.ledger.carried_ppb(node.id),
            RedundancyMode::Hitless
            | RedundancyMode::Hot
            | RedundancyMode::Cold
            | RedundancyMode::Regional => self.ledger.used_ppb(node.id),
        };
        (node.decays(), is_foreign, load, node.id)
    }

    /// The node is a standby to be avoided while other nodes can take the room.
    fn stands_by(&self, node: &Node) -> bool {
        self.room.leaves_to_others(node)
    }

    /// Distance of a region from `from`. In most modes 0 or 1; in regional mode the position in the scenario's cyclic
    /// order after `from`. Regions not in that order come last.
    fn distance(&self, region: RegionId, from: RegionId) -> usize {
        let order = self.need.regions();
        let place = |region| order.iter().position(|listed| *listed == region);
        match (self.room.mode(), place(region)) {
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
            let (id, kbps) = (node.id, self.need.kbps());
            let fits = match self.takes {
                Takes::Free => self.ledger.fits(id, kbps),
                Takes::Reserves => self.ledger.carries(id, kbps),
            };
            self.takes(node) && fits
        };
        let cost = |node: &Node| {
            let unsound = !node.is_sound();
            let far = self.distance(self.region(node), self.room.region());
            (unsound, self.stands_by(node), far, self.rank(node))
        };
        self.nodes.iter().filter(fits).min_by_key(|node| cost(node)).map(|node| node.id)
    }

    /// Spares, best first. Nodes that can reserve capacity, or in hitless mode carry the room as well, come first, then
    /// existing spares; of the former those that survive the death that the scenario wants covered: by default no node abroad is
    /// preferred for it. Other zones come before the same zone, and standbys before other nodes.
    fn spares(&self, first: &Node) -> Vec<NodeId> {
        let PlacementSurvey { current: standing, need, .. } = *self;
        let (kbps, mode, region) = (need.kbps(), self.room.mode(), self.room.region());
        let wanted = need.wanted_cover(first.id, self.nodes);
        let reserves =
            |node: &Node, covers| self.ledger.fits_reserve(node.id, first.id, covers, kbps);
        let may = |node: &&Node| {
            let kept = standing.contains(&node.id);
            let is_outside = !self.nodes.share_domain(first.id, node.id, need.spares_outside());
            let may = node.id != first.id && self.takes(node) && is_outside;
            may && (kept || reserves(node, None))
        };
        // In active-active mode, zones of the carrying region are spares for each other, wherever the room's clients
        // are.
        let home = if mode == RedundancyMode::ActiveActive { self.region(first) } else { region };
        let cost = |node: &&Node| {
            let provides = match mode {
                RedundancyMode::Hitless => self.ledger.fits(node.id, kbps),
                _ => reserves(node, None),
            };
            let abroad = self.distance(self.region(node), home);
            let covers = wanted.is_none_or(|cover| {
                cover.is_survived_by(node.id, self.nodes)
                    && (mode == RedundancyMode::Hitless || reserves(node, wanted))
                    && (!cover.yields || abroad == 0)
            });
            let kept = standing.iter().position(|standing| *standing == node.id);
            let unsound = !node.is_sound();
            let same_zone = node.settings.zone == first.settings.zone;
            let (place, stands_by) = ((abroad, same_zone), self.stands_by(node));
            let lacks = (!provides, !covers);
            (lacks, kept.unwrap_or(usize::MAX), unsound, place, !stands_by, self.rank(node))
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
            let (new, unsound) = (!self.current.contains(&node.id), !node.is_sound());
            (turn, self.region(node), new, unsound, self.rank(node))
        };
        let fits = |node: &&Node| {
            self.region(node) != here
                && self.takes(node)
                && self.ledger.fits(node.id, self.need.kbps())
        };
        let mut nodes: Vec<&Node> = self.nodes.iter().filter(fits).collect();
        nodes.sort_by_key(cost);
        let mut seen = BTreeSet::new();
        nodes.retain(|node| seen.insert(self.region(node)));
        nodes.into_iter().map(|node| node.id).collect()
    }
}
