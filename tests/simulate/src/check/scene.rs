//! The state of a gateway as seen from outside.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_core::{Gateway, GatewayEffect, InstalledSession, NodeStanding};
use evenkeel_model::{
    Board, CoreSettings, EvidenceSource, Health, Hop, Incarnation, NodeId, NodeProbing,
    NodeSettings, Offer, Plan, RegionId, RegionRole, RoomId, RouteCell, SessionId, Starts,
    StreamKind,
};

/// The load of a stream without a declared bitrate.
const VOICE_KBPS: u64 = 64;

/// Rooms on their way to a node have arrived, or gone elsewhere, within this time.
const ARRIVED_WITHIN: Duration = Duration::from_secs(3);

pub(crate) struct Scene {
    pub(crate) board: Arc<Board>,
    pub(crate) nodes: Vec<SeenNode>,
    pub(crate) rooms: BTreeMap<RoomId, SeenRoom>,
    sessions: BTreeMap<SessionId, SeenSession>,
}

pub(crate) struct SeenNode {
    /// The node's current incarnation.
    pub(crate) hop: Hop,
    pub(crate) capacity: u64,
    /// The load that the node may carry. After its capacity shrank, the limit is higher until rooms have left.
    pub(crate) limit: u64,
    /// The time until which rooms on their way may still arrive after a change of capacity.
    shrinks_until: Option<Instant>,
    /// The capacity according to the node's load reports and refusals.
    pub(crate) measured: u64,
    pub(crate) probed: bool,
    pub(crate) health: Health,
    pub(crate) draining: bool,
    pub(crate) suspected_by: [bool; EvidenceSource::ALL.len()],
    pub(crate) role: RegionRole,
    pub(crate) region: RegionId,
}

pub(crate) struct SeenSession {
    room: RoomId,
    need: u64,
    /// The session's current load.
    kbps: u64,
}

pub(crate) struct SeenRoom {
    pub(crate) route: Arc<RouteCell>,
    pub(crate) sessions: usize,
    /// The room's minimum load. Caps are visible, but the checker cannot see whether a policy or admission set them.
    pub(crate) kbps: u64,
    /// The room's maximum load.
    pub(crate) need: u64,
}

impl SeenNode {
    fn new(id: NodeId, settings: &NodeSettings, region: RegionId) -> SeenNode {
        SeenNode {
            hop: Hop { node: id, incarnation: Incarnation(1) },
            capacity: settings.capacity_kbps,
            limit: settings.capacity_kbps,
            shrinks_until: None,
            measured: settings.capacity_kbps,
            probed: settings.probed == NodeProbing::Yes,
            health: match settings.starts {
                Starts::ByItself => Health::Up,
                Starts::ByHook { .. } => Health::Cold,
            },
            draining: false,
            suspected_by: Default::default(),
            role: settings.role,
            region,
        }
    }
}

impl SeenRoom {
    pub(crate) fn stands(&self, board: &Board) -> Option<Hop> {
        self.route.load().first_usable(board).map(|(hop, _)| hop)
    }

    pub(crate) fn is_placed(&self) -> bool {
        self.route.load().version > 0
    }
}

impl Scene {
    pub(crate) fn new(settings: &CoreSettings, board: Arc<Board>) -> Scene {
        let region = |node: &NodeSettings| settings.zones[node.zone.0 as usize].region;
        let nodes = (0..).zip(&settings.nodes);
        let nodes = nodes.map(|(at, node)| SeenNode::new(NodeId(at), node, region(node))).collect();
        Scene { board, nodes, rooms: BTreeMap::new(), sessions: BTreeMap::new() }
    }

    pub(super) fn learn(&mut self, output: &GatewayEffect) {
        match output {
            GatewayEffect::Install(InstalledSession { session, room, route, plan, .. }, offer) => {
                let need = kbps(offer);
                let kbps = within(need, plan);
                self.sessions.insert(*session, SeenSession { room: *room, need, kbps });
                let seen = self.rooms.entry(*room).or_insert_with(|| SeenRoom {
                    route: Arc::clone(route),
                    sessions: 0,
                    kbps: 0,
                    need: 0,
                });
                seen.sessions += 1;
                seen.kbps += kbps;
                seen.need += need;
            }
            // A session capped for lack of capacity counts with its cap.
            GatewayEffect::Plan { session, plan, .. } => {
                let Some(seen) = self.sessions.get_mut(session) else { return };
                let kbps = within(seen.need, plan);
                if let Some(room) = self.rooms.get_mut(&seen.room) {
                    room.kbps = room.kbps - seen.kbps + kbps;
                }
                seen.kbps = kbps;
            }
            GatewayEffect::End { session, .. } => {
                let seen = self.sessions.remove(session);
                let Some(SeenSession { room, need, kbps }) = seen else { return };
                if let Some(seen) = self.rooms.get_mut(&room) {
                    seen.sessions -= 1;
                    seen.kbps -= kbps;
                    seen.need -= need;
                    if seen.sessions == 0 {
                        self.rooms.remove(&room);
                    }
                }
            }
            _ => {}
        }
    }

    /// A node is listed, possibly with a reused number.
    pub(super) fn list(&mut self, id: NodeId, settings: &CoreSettings) {
        let place = id.0 as usize;
        let node = &settings.nodes[place];
        let node = SeenNode::new(id, node, settings.zones[node.zone.0 as usize].region);
        if place == self.nodes.len() {
            self.nodes.push(node);
        } else {
            self.nodes[place] = node;
        }
        self.nodes[place].health = Health::Down;
    }

    pub(super) fn change(&mut self, id: NodeId, settings: &NodeSettings, now: Instant) {
        let node = &mut self.nodes[id.0 as usize];
        (node.capacity, node.role) = (settings.capacity_kbps, settings.role);
        node.limit = node.limit.max(node.capacity);
        node.shrinks_until = Some(now + ARRIVED_WITHIN);
    }

    pub(super) fn update(&mut self, gateway: &Gateway, now: Instant) {
        self.shrink(now);
        for node in &mut self.nodes {
            node.health = Health::Down;
        }
        for standing in gateway.views().nodes() {
            let seen = &mut self.nodes[standing.hop.node.0 as usize];
            let NodeStanding { hop, health, draining, capacity_kbps, suspected_by, .. } = standing;
            (seen.hop, seen.health, seen.suspected_by) = (hop, health, suspected_by);
            (seen.draining, seen.measured) = (draining, capacity_kbps);
        }
    }

    /// A node's limit follows its load down to its capacity.
    fn shrink(&mut self, now: Instant) {
        let shrinks = |node: &SeenNode| node.limit > node.capacity;
        if !self.nodes.iter().any(shrinks) {
            return;
        }
        let (loads, _) = self.needs();
        for (node, load) in self.nodes.iter_mut().zip(loads) {
            if node.shrinks_until.is_none_or(|until| now >= until) {
                node.limit = node.capacity.max(load.min(node.limit));
            }
        }
    }

    /// The minimum load of each node, and the reserved load by standby and first node.
    pub(crate) fn loads(&self) -> (Vec<u64>, BTreeMap<(usize, usize), u64>) {
        self.loads_of(|room| room.kbps)
    }

    /// Like `loads`, with maximum loads.
    pub(crate) fn needs(&self) -> (Vec<u64>, BTreeMap<(usize, usize), u64>) {
        self.loads_of(|room| room.need)
    }

    fn loads_of(&self, count: fn(&SeenRoom) -> u64) -> (Vec<u64>, BTreeMap<(usize, usize), u64>) {
        let mut loads = vec![0; self.nodes.len()];
        let mut reserved = BTreeMap::new();
        for room in self.rooms.values() {
            let Some(hop) = room.stands(&self.board) else { continue };
            loads[hop.node.0 as usize] += count(room);
            let route = room.route.load_full();
            if let Some(twin) = route.twin_of(hop, &self.board) {
                loads[twin.node.0 as usize] += count(room);
            }
            if let [(first, _), (second, evenkeel_model::HopGrant::Reserved), ..] = route.hops[..]
                && first == hop
            {
                *reserved.entry((second.node.0 as usize, first.node.0 as usize)).or_insert(0) +=
                    count(room);
            }
        }
        (loads, reserved)
    }
}

fn within(need: u64, plan: &Plan) -> u64 {
    if plan.cap_kbps() > 0 { need.min(plan.cap_kbps().into()) } else { need }
}

fn kbps(offer: &Offer) -> u64 {
    let need = |stream: &evenkeel_model::MediaStream| match (stream.bitrate_kbps, stream.kind) {
        (Some(kbps), _) => u64::from(kbps),
        (None, StreamKind::Audio | StreamKind::Video) => VOICE_KBPS,
    };
    offer.media.streams.iter().map(need).sum()
}
