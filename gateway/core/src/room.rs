//! What is placed and moved: sessions that belong together, and the route they share.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::ledger::Holding;
use crate::{
    Cause, Decider, Hop, Labels, NodeId, RegionId, RoomId, Route, RouteCell, SessionId, State,
};

/// Damping counts moves within this.
const MOVES_WITHIN: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) id: RoomId,
    pub(crate) name: Arc<str>,
    pub(crate) scenario: Arc<str>,
    /// Of its first session.
    pub(crate) labels: Labels,
    /// Where its people are: the first session's region, else the gateway's.
    pub(crate) region: RegionId,
    pub(crate) spares: u8,
    pub(crate) sessions: BTreeSet<SessionId>,
    pub(crate) cell: Arc<RouteCell>,
    pub(crate) placed_by: Decider,
    /// What it counts for against capacity; none before it is placed.
    pub(crate) holding: Option<Holding>,
    /// A route whose hops are being opened.
    pub(crate) pending: Option<Pending>,
    /// Whether its routing policy is being asked to place it.
    pub(crate) placing: bool,
    /// What the routing policy wrote about it.
    pub(crate) memory: Option<State>,
    /// Milliseconds after which the routing policy is asked again; 0: never.
    pub(crate) ttl_ms: u32,
    moves: VecDeque<Instant>,
}

/// A route on its way: published once its sessions are open at its hops.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Pending {
    pub(crate) hops: Vec<Hop>,
    pub(crate) waiting: BTreeSet<(SessionId, Hop)>,
    pub(crate) cause: Cause,
    pub(crate) by: Decider,
    pub(crate) started: Instant,
}

/// What makes a room.
pub(crate) struct Founding {
    pub(crate) name: Arc<str>,
    pub(crate) scenario: Arc<str>,
    pub(crate) labels: Labels,
    pub(crate) region: RegionId,
    pub(crate) spares: u8,
}

impl Room {
    pub(crate) fn new(id: RoomId, founding: Founding) -> Room {
        let Founding { name, scenario, labels, region, spares } = founding;
        Room {
            id,
            name,
            scenario,
            labels,
            region,
            spares,
            sessions: BTreeSet::new(),
            cell: Arc::default(),
            placed_by: Decider::Native,
            holding: None,
            pending: None,
            placing: false,
            memory: None,
            ttl_ms: 0,
            moves: VecDeque::new(),
        }
    }

    pub(crate) fn route(&self) -> Arc<Route> {
        self.cell.load_full()
    }

    pub(crate) fn is_placed(&self) -> bool {
        self.route().version > 0
    }

    /// The nodes of its route, best first.
    pub(crate) fn standing(&self) -> Vec<NodeId> {
        self.route().hops.iter().map(|(hop, _)| hop.node).collect()
    }

    pub(crate) fn note_move(&mut self, now: Instant) {
        self.moves.push_back(now);
    }

    /// How often it moved within the last minute.
    pub(crate) fn recent_moves(&mut self, now: Instant) -> usize {
        while self
            .moves
            .front()
            .is_some_and(|&at| now.saturating_duration_since(at) >= MOVES_WITHIN)
        {
            self.moves.pop_front();
        }
        self.moves.len()
    }
}
