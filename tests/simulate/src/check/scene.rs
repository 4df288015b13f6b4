//! What can be seen of a gateway from outside.

use std::collections::BTreeMap;
use std::sync::Arc;

use evenkeel_core::{
    Board, Gateway, Health, Hop, Incarnation, Kind, NodeId, NodeStanding, Offer, Output, Plan,
    Probed, RoomId, RouteCell, SessionId, Settings,
};

/// What a voice stream counts for where nobody said.
const VOICE_KBPS: u64 = 64;

pub(crate) struct Scene {
    pub(crate) board: Arc<Board>,
    pub(crate) nodes: Vec<SeenNode>,
    pub(crate) rooms: BTreeMap<RoomId, SeenRoom>,
    sessions: BTreeMap<SessionId, SeenSession>,
}

pub(crate) struct SeenNode {
    /// As its newest incarnation.
    pub(crate) hop: Hop,
    pub(crate) capacity: u64,
    /// What it can take by its own word and what it refused.
    pub(crate) measured: u64,
    pub(crate) probed: bool,
    pub(crate) health: Health,
    pub(crate) draining: bool,
}

pub(crate) struct SeenSession {
    room: RoomId,
    need: u64,
    /// What it counts for now.
    kbps: u64,
}

pub(crate) struct SeenRoom {
    pub(crate) route: Arc<RouteCell>,
    pub(crate) sessions: usize,
    pub(crate) kbps: u64,
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
    pub(crate) fn new(settings: &Settings, board: Arc<Board>) -> Scene {
        let node = |(at, node): (u32, &evenkeel_core::NodeSettings)| SeenNode {
            hop: Hop { node: NodeId(at), incarnation: Incarnation(1) },
            capacity: node.capacity_kbps,
            measured: node.capacity_kbps,
            probed: node.probed == Probed::Yes,
            health: Health::Up,
            draining: false,
        };
        let nodes = (0..).zip(&settings.nodes).map(node).collect();
        Scene { board, nodes, rooms: BTreeMap::new(), sessions: BTreeMap::new() }
    }

    pub(super) fn learn(&mut self, output: &Output) {
        match output {
            Output::Install { session, room, offer, route, plan } => {
                let need = kbps(offer);
                let kbps = within(need, plan);
                self.sessions.insert(*session, SeenSession { room: *room, need, kbps });
                let seen = self.rooms.entry(*room).or_insert_with(|| SeenRoom {
                    route: Arc::clone(route),
                    sessions: 0,
                    kbps: 0,
                });
                seen.sessions += 1;
                seen.kbps += kbps;
            }
            // Who was capped for want of room counts for what is left to it.
            Output::Plan { session, plan } => {
                let Some(seen) = self.sessions.get_mut(session) else { return };
                let kbps = within(seen.need, plan);
                if let Some(room) = self.rooms.get_mut(&seen.room) {
                    room.kbps = room.kbps - seen.kbps + kbps;
                }
                seen.kbps = kbps;
            }
            Output::End { session, .. } => {
                let seen = self.sessions.remove(session);
                let Some(SeenSession { room, kbps, .. }) = seen else { return };
                if let Some(seen) = self.rooms.get_mut(&room) {
                    seen.sessions -= 1;
                    seen.kbps -= kbps;
                    if seen.sessions == 0 {
                        self.rooms.remove(&room);
                    }
                }
            }
            _ => {}
        }
    }

    pub(super) fn look(&mut self, gateway: &Gateway) {
        for (seen, standing) in self.nodes.iter_mut().zip(gateway.nodes()) {
            let NodeStanding { hop, health, draining, capacity_kbps, .. } = standing;
            (seen.hop, seen.health) = (hop, health);
            (seen.draining, seen.measured) = (draining, capacity_kbps);
        }
    }

    /// What stands on each node, and per pair of standby and first node what would come.
    pub(crate) fn loads(&self) -> (Vec<u64>, BTreeMap<(usize, usize), u64>) {
        let mut loads = vec![0; self.nodes.len()];
        let mut reserved = BTreeMap::new();
        for room in self.rooms.values() {
            let Some(hop) = room.stands(&self.board) else { continue };
            loads[hop.node.0 as usize] += room.kbps;
            let route = room.route.load_full();
            if let Some(twin) = route.twin_of(hop, &self.board) {
                loads[twin.node.0 as usize] += room.kbps;
            }
            if let [(first, _), (second, evenkeel_core::Grant::Reserved), ..] = route.hops[..]
                && first == hop
            {
                *reserved.entry((second.node.0 as usize, first.node.0 as usize)).or_insert(0) +=
                    room.kbps;
            }
        }
        (loads, reserved)
    }
}

fn within(need: u64, plan: &Plan) -> u64 {
    if plan.cap_kbps > 0 { need.min(plan.cap_kbps.into()) } else { need }
}

fn kbps(offer: &Offer) -> u64 {
    let need = |stream: &evenkeel_core::Stream| match (stream.bitrate_kbps, stream.kind) {
        (Some(kbps), _) => u64::from(kbps),
        (None, Kind::Audio | Kind::Video) => VOICE_KBPS,
    };
    offer.media.streams.iter().map(need).sum()
}
