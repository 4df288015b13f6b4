//! What stands, for people and their tools to read. Nothing here changes anything.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Gateway;
use crate::session::Phase;
use crate::{
    Decider, Health, Hop, Measures, Mode, Plan, RoomId, Scenario, SessionId, Transport, Witness,
};

/// A session as it stands.
#[derive(Clone, PartialEq, Debug)]
pub struct SessionStanding {
    /// The session.
    pub session: SessionId,
    /// Its room's name.
    pub room: Arc<str>,
    /// Its scenario.
    pub scenario: Arc<str>,
    /// What it comes over.
    pub transport: Transport,
    /// How it is to survive the death of its node.
    pub mode: Mode,
    /// How it would now: a hitless room that one hop carries is hot, or cold. See [`Route::kept`](crate::Route::kept).
    pub kept: Mode,
    /// Where its packets go now.
    pub hop: Option<Hop>,
    /// What it gets.
    pub plan: Plan,
    /// As workers measured it last.
    pub measures: Measures,
    /// Since it was offered.
    pub age: Duration,
}

/// A room as it stands.
#[derive(Clone, PartialEq, Debug)]
pub struct RoomStanding {
    /// The room.
    pub room: RoomId,
    /// Its name.
    pub name: Arc<str>,
    /// Its scenario.
    pub scenario: Arc<str>,
    /// How it is to survive the death of its node.
    pub mode: Mode,
    /// How it would now: a hitless room that one hop carries is hot, or cold. See [`Route::kept`](crate::Route::kept).
    pub kept: Mode,
    /// Its sessions.
    pub sessions: Vec<SessionId>,
    /// Its hops, best first.
    pub route: Vec<Hop>,
    /// Where its packets go now.
    pub hop: Option<Hop>,
    /// Who placed it.
    pub placed_by: Decider,
}

/// A node as it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeStanding {
    /// The node, as its newest incarnation.
    pub hop: Hop,
    /// Its health.
    pub health: Health,
    /// Who accuses it now, in the order of [`Witness::ALL`].
    pub accused_by: [bool; Witness::ALL.len()],
    /// Whether it takes new rooms.
    pub draining: bool,
    /// Whether it is to go, and is forgotten when it is empty.
    pub leaves: bool,
    /// Whether an operator said that it is Down.
    pub ejected: bool,
    /// What it can take, as measured, kbit/s.
    pub capacity_kbps: u64,
    /// Sessions that it is opening.
    pub opening: u32,
    /// Sessions that wait until it has opened others.
    pub waiting: u32,
    /// Load and reserves, thousandths of its capacity.
    pub load_permille: u32,
    /// Its load as it measured it lately, thousandths of its capacity, where it says so.
    pub measured_permille: Option<u16>,
    /// Rooms on it.
    pub rooms: u32,
    /// Smoothed round trip to it.
    pub round_trip: Option<Duration>,
}

impl Gateway {
    /// Every live session.
    pub fn sessions(&self, now: Instant) -> impl Iterator<Item = SessionStanding> {
        self.sessions.keys().filter_map(move |id| self.session(*id, now))
    }

    /// How many live sessions there are.
    pub fn live(&self) -> usize {
        self.sessions.live
    }

    /// One of them.
    pub fn session(&self, id: SessionId, now: Instant) -> Option<SessionStanding> {
        let session = self.sessions.get(&id).filter(|session| session.phase == Phase::Live)?;
        Some(SessionStanding {
            session: session.id,
            room: self.rooms.get(&session.room)?.name.clone(),
            scenario: session.wanted.scenario.clone(),
            mode: self.rooms.get(&session.room)?.route().mode,
            kept: self.rooms.get(&session.room)?.route().kept(),
            transport: session.transport,
            hop: self.stands_at(session.room),
            plan: session.plan_now(),
            measures: session.measures(now),
            age: now.saturating_duration_since(session.offered),
        })
    }

    /// The mode in force for a session, and at how many hops it is open, or is to be.
    pub fn mode_of(&self, id: SessionId) -> Option<(Mode, usize)> {
        let session = self.sessions.get(&id)?;
        let route = self.rooms.get(&session.room)?.route();
        Some((route.mode, session.legs.iter().count()))
    }

    /// Every scenario, as it is in force.
    pub fn scenarios(&self) -> impl Iterator<Item = (&Arc<str>, &Scenario)> {
        self.settings.scenarios.iter()
    }

    /// How many rooms stand somewhere.
    pub fn standing_rooms(&self) -> usize {
        self.rooms.placed
    }

    /// Every room that stands somewhere.
    pub fn rooms(&self) -> impl Iterator<Item = RoomStanding> {
        self.rooms.values().filter(|room| room.is_placed()).map(|room| RoomStanding {
            room: room.id,
            name: room.name.clone(),
            scenario: room.scenario.clone(),
            mode: room.route().mode,
            kept: room.route().kept(),
            sessions: room.sessions.iter().copied().collect(),
            route: room.route().hops.iter().map(|(hop, _)| *hop).collect(),
            hop: self.stands_at(room.id),
            placed_by: (*room.placed_by).clone(),
        })
    }

    /// Every node, by its id.
    pub fn nodes(&self) -> impl Iterator<Item = NodeStanding> {
        self.nodes.iter().map(|node| {
            let (opening, waiting) = self.nodes.paces[node.id.0 as usize].counts();
            NodeStanding {
                hop: node.hop(),
                health: node.health(),
                accused_by: node.detector.accused_by(),
                draining: node.drains(),
                leaves: node.removed,
                ejected: node.ejected,
                capacity_kbps: self.capacity.ledger.capacity(node.id),
                opening,
                waiting: waiting as u32,
                load_permille: self.capacity.ledger.permille(node.id) as u32,
                measured_permille: node.measured_permille(),
                rooms: self.capacity.ledger.rooms(node.id),
                round_trip: node.detector.round_trip().map(|(smoothed, _)| smoothed),
            }
        })
    }

    /// How many questions about offers are not answered yet.
    pub fn offers_asked(&self) -> usize {
        self.policy.asks.values().filter(|asked| asked.about.is_of_offer()).count()
    }

    /// The room's name.
    pub fn room_name(&self, room: RoomId) -> Option<Arc<str>> {
        self.rooms.get(&room).map(|room| room.name.clone())
    }

    /// Whether new sessions are admitted.
    pub fn is_admitting(&self) -> bool {
        !self.shutting_down
    }
}
