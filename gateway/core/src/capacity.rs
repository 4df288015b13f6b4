//! Capacity of nodes: the ledger of what rooms use and reserve, the measured capacity of each node, sessions with a smaller
//! share, and the circuit breakers of regions and zones.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use evenkeel_breakers::{DomainBreakers, JudgedZone, WINDOW};
use evenkeel_model::{
    BreakerState, CoreEvent, CoreSettings, FailureDomain, FailureScope, GuardRule, Measures,
    Metric, NodeId, NodeNeed, RegionId, RoomId, Row, ZoneId,
};
use evenkeel_nodes::{Node, NodeTable};
use serde::{Deserialize, Serialize};

use crate::collections::SmallSet;
use crate::effects::{Effects, Timer};
use crate::shares::ReducedSessions;

/// The churn limit counts sessions moved by policies within this time.
const CHURN_WITHIN: Duration = Duration::from_secs(1);

/// Load of a region, in thousandths, from which a refusal by a policy may be for lack of capacity.
const SHORT_FROM: u64 = 900;

#[derive(Debug)]
pub(crate) struct Capacity {
    pub(crate) ledger: CapacityLedger,
    pub(crate) domain_breakers: DomainBreakers,
    pub(crate) reduced: ReducedSessions,
    /// Moves by policies within [`CHURN_WITHIN`]: time, and number of sessions moved.
    churn: VecDeque<(Instant, usize)>,
}

impl Capacity {
    pub(crate) fn new(settings: &CoreSettings, now: Instant) -> Capacity {
        Capacity {
            ledger: CapacityLedger::new(
                settings.nodes.iter().map(|node| node.capacity_kbps).collect(),
            ),
            domain_breakers: DomainBreakers::new(settings, now),
            reduced: ReducedSessions::default(),
            churn: VecDeque::new(),
        }
    }

    pub(crate) fn ledger(&self) -> LedgerView<'_> {
        self.ledger.view()
    }

    /// Counts sessions that a policy moves, if it may move them now. One room may always move, whatever its size.
    pub(crate) fn count_churn(
        &mut self,
        sessions: usize,
        allowed: usize,
        now: Instant,
    ) -> Result<(), GuardRule> {
        let past =
            |&mut (at, _): &mut (Instant, usize)| now.saturating_duration_since(at) >= CHURN_WITHIN;
        while self.churn.pop_front_if(past).is_some() {}
        let moved: usize = self.churn.iter().map(|(_, sessions)| sessions).sum();
        if !self.churn.is_empty() && moved + sessions > allowed {
            return Err(GuardRule::Churn);
        }
        self.churn.push_back((now, sessions));
        Ok(())
    }

    fn node_measures(&self, node: &Node) -> Measures {
        let mut measures = Measures::default();
        node.measure(&mut measures);
        measures.set(Metric::Capacity, self.ledger().capacity(node.id));
        // The node knows better than the ledger that it is full.
        let least = if node.welcomes_rooms() { 0 } else { 1_000 };
        measures.set(Metric::Load, self.ledger().permille(node.id).max(least));
        measures.set(Metric::Carried, self.ledger().carried_permille(node.id));
        measures.set(Metric::Rooms, u64::from(self.ledger().rooms(node.id)));
        measures
    }

    pub(crate) fn node_rows(&self, nodes: &NodeTable) -> Vec<Row> {
        let row =
            |node: &Node| Row { id: u64::from(node.id.0), measures: self.node_measures(node) };
        nodes.iter().map(row).collect()
    }

    /// Load of a region in thousandths, 1,000 if no node takes rooms, and the capacity of the nodes that do.
    pub(crate) fn region_load(&self, region: RegionId, nodes: &NodeTable) -> (u64, u64) {
        let takers = || takers(region, nodes);
        let capacity: u64 = takers().map(|node| self.ledger().capacity(node.id)).sum();
        let used = |node: &Node| self.ledger().permille(node.id) * self.ledger().capacity(node.id);
        let used: u64 = takers().map(used).sum();
        (used.checked_div(capacity).unwrap_or(1_000), capacity)
    }

    /// True if little capacity of a region is left, or none.
    pub(crate) fn is_short(&self, region: RegionId, nodes: &NodeTable) -> bool {
        self.region_load(region, nodes).0 >= SHORT_FROM
    }

    /// `None` if the node may stop: it carries no room, and the other nodes of its region keep below this share of their
    /// capacity with its reserves and the expected load, and can take each of its reserves. `outside`: nodes in this domain
    /// of the dead node cannot.
    pub(crate) fn need_of(
        &self,
        id: NodeId,
        nodes: &NodeTable,
        percent: u64,
        outside: FailureScope,
        now: Instant,
    ) -> Option<NodeNeed> {
        let (ledger, region) = (self.ledger(), nodes.region_of(id));
        if ledger.rooms(id) > 0 || ledger.carried(id) > 0 {
            return Some(NodeNeed::Rooms);
        }
        let others = takers(region, nodes).map(|node| node.id).filter(|other| *other != id);
        let others: Vec<NodeId> = others.collect();
        let capacity: u64 = others.iter().map(|other| ledger.capacity(*other)).sum();
        let used = |id: &NodeId| ledger.carried(*id) + ledger.reserve(*id);
        let used: u64 = others.iter().chain([&id]).map(used).sum();
        let used = used.max(nodes.expected_load(region, now));
        if used * 100 > capacity * percent {
            return Some(NodeNeed::Load);
        }
        (!ledger.reserves_fit(id, &others, nodes, outside)).then_some(NodeNeed::Reserves)
    }

    /// One row per region. A region's load is the sum over its nodes.
    pub(crate) fn region_rows(&self, nodes: &NodeTable) -> Vec<Row> {
        let row = |region: RegionId| {
            let (load, capacity) = self.region_load(region, nodes);
            let takers = || takers(region, nodes);
            let carried: u64 = takers().map(|node| 1_000 * self.ledger().carried(node.id)).sum();
            let mut measures = Measures::default();
            measures.set(Metric::Load, load);
            if let Some(carried) = carried.checked_div(capacity) {
                measures.set(Metric::Carried, carried);
            }
            measures.set(Metric::NodesUp, takers().count() as u64);
            let breaker = self.domain_breakers.state(FailureDomain::Region(region));
            measures.set(Metric::Breaker, breaker as u64);
            measures.set(Metric::Capacity, capacity);
            Row { id: u64::from(region.0), measures }
        };
        nodes.regions().map(row).collect()
    }

    // The circuit breakers of regions and zones, and the nodes that they shut.

    /// Ends a window. Returns true if a breaker closed.
    pub(crate) fn weigh_breakers(
        &mut self,
        nodes: &NodeTable,
        now: Instant,
        effects: &mut Effects,
    ) -> bool {
        effects.set(Timer::Breakers, now + WINDOW);
        let zones: BTreeSet<ZoneId> = nodes.iter().map(|node| node.settings.zone).collect();
        let ledger = self.ledger();
        let judged = |zone| {
            let there = || nodes.in_domain(FailureDomain::Zone(zone));
            let running = || there().filter(|node| node.runs());
            let takers = there().filter(|node| node.welcomes_rooms() && !node.loses());
            JudgedZone {
                zone,
                region: nodes.zones()[zone.0 as usize].region,
                is_listed: there().any(|node| !node.trust.removed),
                load_permille: takers.map(|node| ledger.permille(node.id)).min(),
                loses: running().next().map(|_| running().all(Node::loses)),
            }
        };
        let zones: Vec<JudgedZone> = zones.into_iter().map(judged).collect();
        let events = self.domain_breakers.weigh(&zones, nodes.zones(), now);
        let closes =
            |it: &CoreEvent| matches!(it, CoreEvent::Breaker { to: BreakerState::Closed, .. });
        let closed = events.iter().any(closes);
        events.into_iter().for_each(|event| effects.event(event));
        closed
    }

    /// Ends the breakers of zones without nodes, before another zone gets the number of one.
    pub(crate) fn forget_empty_zones(&mut self, nodes: &NodeTable, effects: &mut Effects) {
        let used: BTreeSet<ZoneId> = nodes.iter().map(|node| node.settings.zone).collect();
        let events = self.domain_breakers.forget_empty(|zone| used.contains(&zone), nodes.zones());
        events.into_iter().for_each(|event| effects.event(event));
    }

    /// Counts a successful or failed opening at the node.
    pub(crate) fn note_opening(&mut self, node: NodeId, nodes: &NodeTable, opened: bool) {
        if let Some(node) = nodes.get(node) {
            self.domain_breakers.note_opening(node.settings.zone, opened);
        }
    }

    /// The breakers of the node's zone and region admit the room.
    pub(crate) fn may_enter(&self, room: RoomId, node: NodeId, nodes: &NodeTable) -> bool {
        nodes.domains_of(node).all(|place| self.domain_breakers.admits(place, room.0))
    }

    /// Nodes in zones and regions that do not accept the room, except nodes for which `kept` is true.
    pub(crate) fn shut_nodes(
        &self,
        room: RoomId,
        kept: impl Fn(NodeId) -> bool,
        nodes: &NodeTable,
    ) -> Vec<NodeId> {
        if self.domain_breakers.are_all_closed() {
            return Vec::new();
        }
        let shut = |node: &NodeId| !kept(*node) && !self.may_enter(room, *node, nodes);
        nodes.iter().map(|node| node.id).filter(shut).collect()
    }

    /// The time until the first node accepts new rooms.
    pub(crate) fn admit_in(&self, nodes: &NodeTable, now: Instant) -> Duration {
        let in_time = |node: &Node| {
            let places = nodes.domains_of(node.id);
            places.map(|place| self.domain_breakers.admits_in(place, now)).max()
        };
        nodes.iter().filter_map(in_time).min().unwrap_or_default()
    }
}

/// The nodes of a region that take rooms.
fn takers(region: RegionId, nodes: &NodeTable) -> impl Iterator<Item = &Node> {
    nodes.in_domain(FailureDomain::Region(region)).filter(|node| node.welcomes_rooms())
}

/// The capacity that one room uses.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Holding {
    /// The node that carries the room; `None` before placement and while the room is stranded.
    pub(crate) on: Option<NodeId>,
    pub(crate) second: SecondNode,
    /// The node that the room is moving to. During the move the room counts at both nodes.
    pub(crate) heading: Option<NodeId>,
    pub(crate) kbps: u64,
}

/// A reserve covers the death of this zone or region, beside that of the first node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Cover {
    pub(crate) domain: FailureDomain,
    /// Load may use the reserve, which then covers the death of the first node alone: no scenario names it.
    pub(crate) yields: bool,
}

impl Cover {
    /// The node is outside the zone or region.
    pub(crate) fn is_survived_by(self, node: NodeId, nodes: &NodeTable) -> bool {
        nodes.domains_of(node).all(|domain| domain != self.domain)
    }
}

/// The capacity that a room has at its second node.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) enum SecondNode {
    #[default]
    None,
    /// Capacity for the death of the first node, and of this zone or region of it.
    Reserve { at: NodeId, covers: Option<Cover> },
    /// In hitless mode: the node carries all packets, too.
    Twin(NodeId),
}

impl Holding {
    /// The node that reserves capacity for the death of `on`.
    pub(crate) fn reserve(self) -> Option<NodeId> {
        match self.second {
            SecondNode::Reserve { at, .. } => Some(at),
            SecondNode::None | SecondNode::Twin(_) => None,
        }
    }

    /// The zone or region of `on`, if the reserve covers its death as well.
    pub(crate) fn covers(self) -> Option<Cover> {
        match self.second {
            SecondNode::Reserve { covers, .. } => covers,
            SecondNode::None | SecondNode::Twin(_) => None,
        }
    }

    /// The same, if the scenario names it: load may not use this reserve.
    pub(crate) fn firm_cover(self) -> Option<Cover> {
        self.covers().filter(|cover| !cover.yields)
    }

    /// In hitless mode: the second node that carries all packets.
    pub(crate) fn twin(self) -> Option<NodeId> {
        match self.second {
            SecondNode::Twin(node) => Some(node),
            SecondNode::None | SecondNode::Reserve { .. } => None,
        }
    }

    /// Nodes that carry the room, or are about to.
    pub(crate) fn loads(self) -> impl Iterator<Item = NodeId> {
        let heading = self.heading.filter(|heading| Some(*heading) != self.on);
        let twin = self.twin().filter(|twin| ![self.on, self.heading].contains(&Some(*twin)));
        self.on.into_iter().chain(heading).chain(twin)
    }

    /// The reserves that count the room's load. None if the standby already carries it, or if there is no first node.
    fn reserves(self) -> impl Iterator<Item = (NodeId, ReservedFor)> {
        let standby = self.reserve().filter(|standby| Some(*standby) != self.heading);
        let deaths = standby.zip(self.on.filter(|_| self.kbps > 0));
        deaths.into_iter().flat_map(move |(standby, on)| {
            ReservedFor::deaths(on, self.covers()).map(move |death| (standby, death))
        })
    }
}

/// A room uses other capacity than before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CapacityChange {
    released: Holding,
    held: Holding,
}

impl CapacityChange {
    pub(crate) fn new(released: Holding, held: Holding) -> CapacityChange {
        CapacityChange { released, held }
    }
}

/// The death for which a node reserves capacity. Rooms that are covered against the death of a zone are counted in its
/// reserve and in that of their node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum ReservedFor {
    Node(NodeId),
    Domain(FailureDomain),
    /// The death of a zone or region, as far as reserves for it yield to load; firm ones are counted under [`ReservedFor::Domain`].
    Yielding(FailureDomain),
}

impl ReservedFor {
    const FIRST: ReservedFor = ReservedFor::Node(NodeId(0));
    const LAST: ReservedFor = ReservedFor::Yielding(FailureDomain::Region(RegionId(u32::MAX)));

    fn deaths(on: NodeId, covers: Option<Cover>) -> impl Iterator<Item = ReservedFor> {
        let covered = covers.map(|Cover { domain, yields }| match yields {
            true => ReservedFor::Yielding(domain),
            false => ReservedFor::Domain(domain),
        });
        std::iter::once(ReservedFor::Node(on)).chain(covered)
    }

    fn yields(self) -> bool {
        matches!(self, ReservedFor::Yielding(_))
    }
}

/// Capacity, load and reserves of every node.
///
/// A node's reserve is the largest load that one death would bring: of another node or, for the rooms that are covered
/// against it, of a zone or region. From a death on until its rooms have moved, their reserves count as load. Reserves that
/// yield are taken from capacity that is free, and keep no load from it.
#[derive(Debug)]
pub(crate) struct CapacityLedger {
    gauges: Vec<Gauge>,
    load: Vec<u64>,
    rooms: Vec<u32>,
    /// Other slots of the same machine. Their load uses the same capacity.
    beside: Vec<SmallSet<NodeId>>,
    /// By standby.
    reserved: BTreeMap<(NodeId, ReservedFor), u64>,
    /// Dead nodes until all their rooms have moved. The packets of these rooms take the second hops.
    dead: BTreeSet<NodeId>,
}

impl CapacityLedger {
    pub(crate) fn new(capacity: Vec<u64>) -> CapacityLedger {
        let nodes = capacity.len();
        let gauges = capacity.into_iter().map(Gauge::new).collect();
        CapacityLedger {
            gauges,
            load: vec![0; nodes],
            rooms: vec![0; nodes],
            beside: vec![SmallSet::default(); nodes],
            reserved: BTreeMap::new(),
            dead: BTreeSet::new(),
        }
    }

    pub(crate) fn view(&self) -> LedgerView<'_> {
        self.without(Holding::default())
    }

    pub(crate) fn without(&self, holding: Holding) -> LedgerView<'_> {
        LedgerView { ledger: self, without: holding }
    }

    pub(crate) fn apply(&mut self, change: CapacityChange) {
        self.release(change.released);
        self.hold(change.held);
    }

    /// The reserves for this death are load from now on.
    pub(crate) fn note_death(&mut self, dead: NodeId) {
        self.dead.insert(dead);
    }

    /// All rooms of dead nodes have moved.
    pub(crate) fn forget_deaths(&mut self) {
        self.dead.clear();
    }

    /// Adds a node with its configured capacity.
    pub(crate) fn add(&mut self, node: NodeId, kbps: u64) {
        let place = node.0 as usize;
        if place == self.gauges.len() {
            self.load.push(0);
            self.rooms.push(0);
            self.beside.push(SmallSet::default());
            self.gauges.push(Gauge::new(kbps));
        } else {
            self.gauges[place] = Gauge::new(kbps);
        }
    }

    /// The two nodes are the same machine under its old and its new name, so its capacity exists once.
    pub(crate) fn is_one_machine(&mut self, nodes: [NodeId; 2]) {
        let [one, other] = nodes;
        self.beside[one.0 as usize].insert(other);
        self.beside[other.0 as usize].insert(one);
    }

    /// Removes the node. Its machine then belongs to the other slot alone.
    pub(crate) fn forget(&mut self, node: NodeId) {
        self.beside[node.0 as usize] = SmallSet::default();
        self.beside.iter_mut().for_each(|beside| beside.remove(&node));
    }

    pub(crate) fn gauge_mut(&mut self, node: NodeId) -> &mut Gauge {
        &mut self.gauges[node.0 as usize]
    }

    pub(crate) fn handle_load(&mut self, node: NodeId, permille: u16, now: Instant) {
        let ours = self.view().load(node);
        self.gauges[node.0 as usize].handle_load(permille, ours, now);
    }

    /// Takes a node's refusal of a session because it is full.
    pub(crate) fn handle_full(&mut self, node: NodeId, now: Instant) {
        let ours = self.view().load(node);
        self.gauges[node.0 as usize].handle_full(ours, now);
    }

    /// Restores measured capacities over time.
    pub(crate) fn recover(&mut self, now: Instant) {
        self.gauges.iter_mut().for_each(|gauge| gauge.recover(now));
    }

    pub(crate) fn hold(&mut self, holding: Holding) {
        for node in holding.loads() {
            self.load[node.0 as usize] += holding.kbps;
        }
        if let Some(on) = holding.on {
            self.rooms[on.0 as usize] += 1;
        }
        for key in holding.reserves() {
            *self.reserved.entry(key).or_default() += holding.kbps;
        }
    }

    pub(crate) fn release(&mut self, holding: Holding) {
        for node in holding.loads() {
            self.load[node.0 as usize] -= holding.kbps;
        }
        if let Some(on) = holding.on {
            self.rooms[on.0 as usize] -= 1;
        }
        for key in holding.reserves() {
            let Some(kbps) = self.reserved.get_mut(&key) else { continue };
            *kbps -= holding.kbps;
            if *kbps == 0 {
                self.reserved.remove(&key);
            }
        }
    }
}

/// The ledger without one room's holding, which that room may use again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LedgerView<'a> {
    ledger: &'a CapacityLedger,
    without: Holding,
}

impl<'a> LedgerView<'a> {
    pub(crate) fn gauge(self, node: NodeId) -> &'a Gauge {
        &self.ledger.gauges[node.0 as usize]
    }

    pub(crate) fn capacity(self, node: NodeId) -> u64 {
        self.gauge(node).kbps()
    }

    pub(crate) fn rooms(self, node: NodeId) -> u32 {
        self.ledger.rooms[node.0 as usize]
    }

    /// Other slots of the node's machine.
    pub(crate) fn beside(self, node: NodeId) -> impl Iterator<Item = NodeId> + use<'a> {
        self.ledger.beside[node.0 as usize].iter().copied()
    }

    /// Nodes that reserve capacity for the death of `first`.
    pub(crate) fn standbys_of(self, first: NodeId) -> Vec<NodeId> {
        self.ledger
            .reserved
            .keys()
            .filter(|(_, death)| *death == ReservedFor::Node(first))
            .map(|(standby, _)| *standby)
            .collect()
    }

    /// A room may stand on the node without breaking a reserve.
    pub(crate) fn fits(self, node: NodeId, kbps: u64) -> bool {
        self.load(node) + self.reserve(node) + kbps <= self.capacity(node)
    }

    /// A room may stand on the node if its reserves are given up.
    pub(crate) fn carries(self, node: NodeId, kbps: u64) -> bool {
        self.load(node) + kbps <= self.capacity(node)
    }

    /// The node could also carry this room if `first` died, or its zone or region in `covers`. Loads that other deaths would
    /// bring are not added.
    pub(crate) fn fits_reserve(
        self,
        standby: NodeId,
        first: NodeId,
        covers: Option<Cover>,
        kbps: u64,
    ) -> bool {
        ReservedFor::deaths(first, covers).all(|death| {
            let brought = self.brought(standby, death) + kbps;
            self.load(standby) + brought <= self.capacity(standby)
        })
    }

    /// Load has taken capacity of the node's reserves that yield.
    pub(crate) fn is_overdrawn(self, node: NodeId) -> bool {
        let free = self.capacity(node).saturating_sub(self.load(node));
        let mut deaths = self.deaths_at(node);
        deaths.any(|death| death.yields() && self.brought(node, death) > free)
    }

    /// The deaths for which the node reserves capacity.
    fn deaths_at(self, node: NodeId) -> impl Iterator<Item = ReservedFor> + use<'a> {
        let of_node = (node, ReservedFor::FIRST)..=(node, ReservedFor::LAST);
        self.ledger.reserved.range(of_node).map(|((_, death), _)| *death)
    }

    /// The other nodes that survive each death have capacity for what the node reserves for it, unless that yields.
    fn reserves_fit(
        self,
        node: NodeId,
        others: &[NodeId],
        nodes: &NodeTable,
        outside: FailureScope,
    ) -> bool {
        let of_node = (node, ReservedFor::FIRST)..=(node, ReservedFor::LAST);
        let mut firm =
            self.ledger.reserved.range(of_node).filter(|((_, death), _)| !death.yields());
        firm.all(|((_, death), kbps)| {
            let survives = |other: &&NodeId| match death {
                ReservedFor::Node(dead) => {
                    *other != dead && !nodes.share_domain(**other, *dead, outside)
                }
                ReservedFor::Domain(domain) | ReservedFor::Yielding(domain) => {
                    nodes.in_domain(*domain).all(|dead| dead.id != **other)
                }
            };
            let free = |other: &NodeId| {
                let used = self.load(*other) + self.reserved((*other, *death));
                self.capacity(*other).saturating_sub(used)
            };
            others.iter().filter(survives).map(free).sum::<u64>() >= *kbps
        })
    }

    /// The load of the node's machine, over all its slots.
    fn load(self, node: NodeId) -> u64 {
        let beside = self.ledger.beside[node.0 as usize].iter();
        self.slot_load(node) + beside.map(|other| self.slot_load(*other)).sum::<u64>()
    }

    fn slot_load(self, node: NodeId) -> u64 {
        let carries = self.without.loads().any(|carrier| carrier == node);
        let own = if carries { self.without.kbps } else { 0 };
        let dead = self.ledger.dead.iter().map(|dead| ReservedFor::Node(*dead));
        let brought: u64 = dead.map(|death| self.held_for((node, death))).sum();
        self.ledger.load[node.0 as usize] - own + brought
    }

    /// The largest load that one death would bring, without reserves that yield.
    pub(crate) fn reserve(self, node: NodeId) -> u64 {
        let firm = self.deaths_at(node).filter(|death| !death.yields());
        firm.map(|death| self.brought(node, death)).max().unwrap_or(0)
    }

    /// The load that one death would bring to the node.
    fn brought(self, node: NodeId, death: ReservedFor) -> u64 {
        let firm = match death {
            ReservedFor::Yielding(domain) => self.reserved((node, ReservedFor::Domain(domain))),
            ReservedFor::Node(_) | ReservedFor::Domain(_) => 0,
        };
        firm + self.reserved((node, death))
    }

    /// The reserve under this key; none if the node is dead. A domain keeps its dead node's rooms until they have moved.
    fn reserved(self, key: (NodeId, ReservedFor)) -> u64 {
        match key.1 {
            ReservedFor::Node(dead) if self.ledger.dead.contains(&dead) => 0,
            ReservedFor::Node(_) | ReservedFor::Domain(_) | ReservedFor::Yielding(_) => {
                self.held_for(key)
            }
        }
    }

    fn held_for(self, key: (NodeId, ReservedFor)) -> u64 {
        let is_own = self.without.reserves().any(|own| own == key);
        let own = if is_own { self.without.kbps } else { 0 };
        self.ledger.reserved.get(&key).map_or(0, |kbps| kbps - own)
    }

    /// Load plus reserve, in thousandths of the capacity, without reserves that yield.
    pub(crate) fn permille(self, node: NodeId) -> u64 {
        self.ppb(node, self.load(node) + self.reserve(node)) / 1_000_000
    }

    /// Load and all reserves as a share of the capacity, in 10⁻⁹: a room changes it at any node.
    pub(crate) fn used_ppb(self, node: NodeId) -> u64 {
        let brought = self.deaths_at(node).map(|death| self.brought(node, death));
        self.ppb(node, self.load(node) + brought.max().unwrap_or(0))
    }

    /// Load without reserve, in thousandths of the capacity.
    pub(crate) fn carried_permille(self, node: NodeId) -> u64 {
        self.carried_ppb(node) / 1_000_000
    }

    /// Load without reserve as a share of the capacity, in 10⁻⁹.
    pub(crate) fn carried_ppb(self, node: NodeId) -> u64 {
        self.ppb(node, self.load(node))
    }

    fn ppb(self, node: NodeId, kbps: u64) -> u64 {
        kbps.saturating_mul(1_000_000_000) / self.capacity(node).max(1)
    }

    /// Load alone, in kbit/s.
    pub(crate) fn carried(self, node: NodeId) -> u64 {
        self.load(node)
    }
}

/// Time constant of smoothing: a load reported for this long is almost fully believed.
const SMOOTHED_OVER: Duration = Duration::from_secs(1);

/// An older report is ignored.
const WORD_HOLDS: Duration = Duration::from_secs(5);

/// The minimum capacity is the configured one divided by this.
const LEAST: u64 = 10;

/// Without a load report or a refusal, the full configured capacity is restored within this time.
const RECOVERS_IN: Duration = Duration::from_secs(8);

/// Upper bound on the elapsed time of one recovery step, so that rare calls do not restore much at once.
const LOOKED_AT_WITHIN: Duration = Duration::from_secs(1);

#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub(crate) struct Gauge {
    claimed: u64,
    /// In bit/s, because smoothing takes steps smaller than 1 kbit/s.
    measured: u64,
    #[serde(with = "evenkeel_instant::option")]
    word: Option<Instant>,
    #[serde(with = "evenkeel_instant::option")]
    refused: Option<Instant>,
    #[serde(with = "evenkeel_instant::option")]
    looked_at: Option<Instant>,
}

impl Gauge {
    pub(crate) fn new(claimed: u64) -> Gauge {
        Gauge { claimed, measured: claimed * 1_000, word: None, refused: None, looked_at: None }
    }

    /// Takes a changed configured capacity. A measurement is kept within the new bounds; an unmeasured node takes the
    /// new capacity.
    pub(crate) fn claim(&mut self, claimed: u64) {
        let all = self.measured == self.claimed * 1_000;
        self.claimed = claimed;
        self.measured = self.bounded(if all { claimed } else { self.kbps() });
    }

    /// Continues another process's measurement under the present configured capacity.
    pub(crate) fn resume(&mut self, before: &Gauge) {
        let (claimed, said) = (self.claimed, before.claimed.min(u64::MAX / 1_000));
        *self = Gauge { claimed: said, measured: before.measured.min(said * 1_000), ..*before };
        if claimed != said {
            self.claim(claimed);
        }
    }

    pub(crate) fn kbps(&self) -> u64 {
        self.measured / 1_000
    }

    /// Takes the node's reported load. `ours` is the load that the ledger places there; the free capacity in the report
    /// comes on top of it.
    pub(crate) fn handle_load(&mut self, permille: u16, ours: u64, now: Instant) {
        let free = u64::from(1_000_u16.saturating_sub(permille));
        let says = self.bounded(ours + self.claimed * free / 1_000);
        let since = self.word.map_or(Duration::ZERO, |word| now.saturating_duration_since(word));
        self.word = Some(now);
        // A node that refused a session recently gets no more load, even if it reports free capacity.
        if says > self.measured && self.refused(now) {
            return;
        }
        let weight = since.min(SMOOTHED_OVER).as_micros() as u64;
        let over = SMOOTHED_OVER.as_micros() as u64;
        let step = says.abs_diff(self.measured) * weight / over;
        self.measured =
            if says > self.measured { self.measured + step } else { self.measured - step };
    }

    /// Keeps the capacity of a draining node: its falling load says nothing about capacity.
    pub(crate) fn hold(&mut self, now: Instant) {
        self.word = Some(now);
    }

    /// It refused a session since it is full, while we counted on it for `ours`.
    pub(crate) fn handle_full(&mut self, ours: u64, now: Instant) {
        self.measured = self.measured.min(self.bounded(ours));
        self.refused = Some(now);
    }

    /// Restores configured capacity over time.
    pub(crate) fn recover(&mut self, now: Instant) {
        let before = self.looked_at.replace(now).unwrap_or(now);
        let since = now.saturating_duration_since(before).min(LOOKED_AT_WITHIN);
        let speaks = self.word.is_some_and(|at| now.saturating_duration_since(at) < WORD_HOLDS);
        if !speaks && !self.refused(now) {
            let share = since.as_millis() as u64 * 1_000 / RECOVERS_IN.as_millis() as u64;
            self.measured = (self.measured + self.claimed * share).min(self.claimed * 1_000);
        }
    }

    fn refused(&self, now: Instant) -> bool {
        self.refused.is_some_and(|at| now.saturating_duration_since(at) < WORD_HOLDS)
    }

    /// The capacity within its bounds, in bit/s.
    fn bounded(&self, kbps: u64) -> u64 {
        kbps.clamp(self.claimed / LEAST, self.claimed) * 1_000
    }
}

#[cfg(test)]
mod tests;
