//! Random worlds for testing plugins: regions, nodes, rooms and sessions over time, from one seed.
//!
//! Every second drawn world is odd: values are missing, 0, maximal, or arbitrary, names are
//! strange, and the clock may go back, as for a state from a gateway that ran longer. All of it may
//! happen in production.

mod value;

use std::sync::Arc;

use evenkeel_model::{
    CatalogEntry, EntryKind, HookAnswer, Labels, Measures, Metric, NodeId, PluginState,
    PolicyQuestion, RegionId, RoomId, RoomRow, Row, SessionId, SessionRow,
};
use fastrand::Rng;

use self::value::Values;

const HOPS_MAX: usize = 4;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct WorldSize {
    pub(crate) regions: usize,
    pub(crate) nodes: usize,
    pub(crate) rooms: usize,
    pub(crate) sessions: usize,
}

pub(crate) struct RandomWorld {
    rng: Rng,
    values: Values,
    pub(crate) now_us: u64,
    /// Names of regions, zones and nodes.
    pub(crate) catalog: Vec<CatalogEntry>,
    nodes: Vec<Row>,
    regions: Vec<Row>,
    rooms: Vec<RoomRow>,
    sessions: Vec<SessionRow>,
    memo: Option<PluginState>,
    named: u64,
}

impl RandomWorld {
    /// A world of random size; odd seeds give odd worlds.
    pub(crate) fn drawn(seed: u64) -> RandomWorld {
        let mut rng = Rng::with_seed(seed);
        let values = if seed.is_multiple_of(2) { Values::Usual } else { Values::Odd };
        let size = WorldSize {
            regions: rng.usize(1..=6),
            // A gateway knows up to 1,024 nodes; more than a hundred show nothing new.
            nodes: [0, 1, rng.usize(2..=8), rng.usize(2..=8), rng.usize(9..=100)][rng.usize(0..5)],
            rooms: [0, 1, rng.usize(2..=40)][rng.usize(0..3)],
            sessions: [0, 1, rng.usize(2..=120)][rng.usize(0..3)],
        };
        RandomWorld::new(rng, values, size)
    }

    pub(crate) fn sized(seed: u64, size: WorldSize) -> RandomWorld {
        RandomWorld::new(Rng::with_seed(seed), Values::Usual, size)
    }

    fn new(rng: Rng, values: Values, size: WorldSize) -> RandomWorld {
        let mut world = RandomWorld {
            rng,
            values,
            now_us: 3_600_000_000,
            catalog: Vec::new(),
            nodes: Vec::new(),
            regions: Vec::new(),
            rooms: Vec::new(),
            sessions: Vec::new(),
            memo: None,
            named: 0,
        };
        world.create_places(&size);
        for _ in 0..size.rooms {
            let room = world.new_room();
            world.rooms.push(room);
        }
        for _ in 0..size.sessions {
            let session = world.new_session();
            world.sessions.push(session);
        }
        world
    }

    /// Creates regions, zones and nodes.
    fn create_places(&mut self, size: &WorldSize) {
        let entry = |kind, id, parent, name: String, labels| CatalogEntry {
            kind,
            id,
            parent,
            name: name.into(),
            labels,
        };
        self.catalog.push(entry(EntryKind::Home, 1, 1, "home".into(), vec![]));
        let mut zones = Vec::new();
        for region in 1..=size.regions as u64 {
            let labels = vec![("power".into(), "grid".into())];
            self.catalog.push(entry(EntryKind::Region, region, 0, value::region(region), labels));
            for _ in 0..self.rng.usize(1..=3) {
                let zone = zones.len() as u64 + 1;
                zones.push(zone);
                self.catalog.push(entry(
                    EntryKind::Zone,
                    zone,
                    region,
                    format!("zone-{zone}"),
                    vec![],
                ));
            }
            let measures = self.measures(true);
            self.regions.push(Row { id: region, measures });
        }
        let mut slot = 0;
        for _ in 0..size.nodes {
            let zone = zones[self.rng.usize(0..zones.len())];
            let labels = value::node_labels(&mut self.rng);
            self.catalog.push(entry(EntryKind::Node, slot, zone, format!("node-{slot}"), labels));
            let measures = self.measures(true);
            self.nodes.push(Row { id: slot, measures });
            // Slots of removed nodes stay free for a while.
            slot += if self.rng.u8(0..8) == 0 { 2 } else { 1 };
        }
    }

    /// Advances time: measures change, sessions leave and join.
    pub(crate) fn advance(&mut self) {
        self.now_us = self.values.later(&mut self.rng, self.now_us);
        for at in 0..self.nodes.len() {
            self.nodes[at].measures = self.measures(true);
        }
        for at in 0..self.regions.len() {
            self.regions[at].measures = self.measures(true);
        }
        for at in 0..self.rooms.len() {
            self.rooms[at].row.measures = self.measures(false);
            if self.rng.u8(0..10) == 0 {
                self.rooms[at] = self.new_room();
            }
        }
        for at in 0..self.sessions.len() {
            self.sessions[at].row.measures = self.measures(false);
            if self.rng.u8(0..10) == 0 {
                self.sessions[at] = self.new_session();
            }
        }
    }

    /// A scenario question for some session.
    pub(crate) fn resolve(&mut self) -> PolicyQuestion {
        let labels = self.labels();
        PolicyQuestion::Resolve { scenario: self.values.scenario(&mut self.rng), labels }
    }

    pub(crate) fn admit(&mut self) -> PolicyQuestion {
        let id = self.next_id();
        let region = |row: &Row| RegionId(row.id as u32);
        let standing = match self.rng.u8(0..4) {
            0 => self.rng.choice(&self.regions).map(region),
            _ => None,
        };
        PolicyQuestion::Admit {
            session: SessionId(id),
            room: RoomId(id),
            standing,
            scenario: self.values.scenario(&mut self.rng),
            labels: self.labels(),
            regions: self.regions.clone(),
        }
    }

    /// A placement of a new room.
    pub(crate) fn place(&mut self) -> PolicyQuestion {
        PolicyQuestion::Place {
            room: RoomId(self.next_id()),
            scenario: self.values.scenario(&mut self.rng),
            labels: self.labels(),
            nodes: self.nodes.clone(),
        }
    }

    pub(crate) fn reroute(&self) -> PolicyQuestion {
        let (nodes, rooms, memo) = (self.nodes.clone(), self.rooms.clone(), self.memo.clone());
        PolicyQuestion::Reroute { nodes, rooms, memo }
    }

    pub(crate) fn tick(&self) -> PolicyQuestion {
        PolicyQuestion::Tick { sessions: self.sessions.clone(), memo: self.memo.clone() }
    }

    /// Applies an answer: states are kept, and rooms move.
    pub(crate) fn apply(&mut self, answer: &HookAnswer) {
        match answer {
            HookAnswer::Params(_) | HookAnswer::Admit { .. } | HookAnswer::Placed { .. } => {}
            HookAnswer::Moves { moves, states, memo } => {
                for (row, state) in states {
                    if let Some(room) = self.rooms.get_mut(*row as usize) {
                        room.state = Some(state.clone());
                    }
                }
                for step in moves {
                    if let Some(room) = self.rooms.get_mut(step.row as usize) {
                        room.standing = step.hops.iter().copied().take(HOPS_MAX).collect();
                    }
                }
                self.memo = memo.clone().or(self.memo.take());
            }
            HookAnswer::Actions { actions: _, states, memo } => {
                for (row, state) in states {
                    if let Some(session) = self.sessions.get_mut(*row as usize) {
                        session.state = Some(state.clone());
                    }
                }
                self.memo = memo.clone().or(self.memo.take());
            }
        }
    }

    fn new_room(&mut self) -> RoomRow {
        let mut standing: Vec<NodeId> = Vec::new();
        for _ in 0..self.rng.usize(0..=HOPS_MAX) {
            if let Some(row) = self.rng.choice(&self.nodes) {
                standing.push(NodeId(row.id as u32));
            }
        }
        standing.dedup();
        // A removed node may still be in a route.
        if self.values == Values::Odd && self.rng.u8(0..20) == 0 {
            standing.push(NodeId(900));
        }
        let (id, measures) = (self.next_id(), self.measures(false));
        let scenario: Arc<str> = self.values.scenario(&mut self.rng);
        let row = Row { id, measures };
        RoomRow { row, scenario, labels: self.labels(), standing, state: None }
    }

    fn new_session(&mut self) -> SessionRow {
        let (id, measures) = (self.next_id(), self.measures(false));
        let room = RoomId(self.rng.u64(0..=id));
        let scenario = self.values.scenario(&mut self.rng);
        let row = Row { id, measures };
        SessionRow { row, room, scenario, labels: self.labels(), state: None }
    }

    fn measures(&mut self, of_nodes: bool) -> Measures {
        let mut measures = Measures::default();
        for &metric in Metric::ALL.iter().filter(|metric| metric.is_subject() != of_nodes) {
            if let Some(value) = self.values.measured(&mut self.rng, metric) {
                measures.set(metric, value.into());
            }
        }
        self.values.settle(&mut measures);
        measures
    }

    fn labels(&mut self) -> Labels {
        let regions = self.regions.len() as u64;
        self.values.labels(&mut self.rng, regions)
    }

    fn next_id(&mut self) -> u64 {
        self.named += 1;
        self.named
    }
}

#[cfg(test)]
mod tests;
