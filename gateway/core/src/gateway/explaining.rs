//! Why a session is where it is, and gets what it gets: for people and their tools to read. Nothing here changes anything.

use std::time::{Duration, Instant};

use super::noting::{Quarantine, Said, Subject};
use super::{FailBack, Gateway, MoveRecord};
use crate::node::Node;
use crate::room::Room;
use crate::session::WHOLE;
use crate::{
    BreakerState, Cause, Decider, Grant, Health, Hop, RegionId, RoomId, SessionId, SessionStanding,
    Witness,
};

/// A session, with why.
#[derive(Clone, PartialEq, Debug)]
pub struct Explanation {
    /// As it stands.
    pub standing: SessionStanding,
    /// Who let it in.
    pub admitted_by: Decider,
    /// Who placed its room.
    pub placed_by: Decider,
    /// Who goes first where not all can; higher is earlier.
    pub priority: i64,
    /// The room's hops, best first, and what packets may do there.
    pub route: Vec<(Hop, Grant)>,
    /// What it gets of what it needs above its floor, thousandths: less than all where not all fits.
    pub share_permille: u16,
    /// Who accuses the node where its packets go, and for how long.
    pub witnesses: Vec<(Witness, Duration)>,
    /// Where its room is on its way to.
    pub heading: Option<Heading>,
    /// Every node but the one where its packets go.
    pub candidates: Vec<Candidate>,
    /// Its room's last moves, the oldest first.
    pub moves: Vec<MoveRecord>,
    /// What policies said of it and of its room, the last time they said something.
    pub said: Vec<Said>,
    /// Revisions that are not asked about it, or about its room.
    pub quarantines: Vec<Quarantine>,
}

/// A move that is under way.
#[derive(Clone, PartialEq, Debug)]
pub struct Heading {
    /// Where it goes.
    pub to: Hop,
    /// Why.
    pub cause: Cause,
    /// Who decided.
    pub by: Decider,
    /// For how long it has been under way.
    pub since: Duration,
    /// Openings that are awaited.
    pub waiting: usize,
}

/// Where else the room could be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// The node.
    pub hop: Hop,
    /// Why the room is not there.
    pub why: Why,
    /// Load and reserves, thousandths of its capacity.
    pub load_permille: u32,
}

/// Why a room is not at a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// It is Down.
    Down,
    /// It does not run, and nothing needed it yet.
    Cold,
    /// It is being drained.
    Draining,
    /// It said that it takes no new sessions.
    Unwilling,
    /// The breaker of its region keeps new rooms out.
    BreakerOpen,
    /// It did not take the room a moment ago.
    KeptAway,
    /// There is no room for it.
    Full,
    /// It is accused, not trusted yet, or much of what it is asked is lost.
    Unsound,
    /// It is in another region than the room's people.
    Abroad,
    /// It stands by, and others can take the room.
    StandsBy,
    /// It is a spare of the room's.
    Spare,
    /// It would do as well: who decided found the other one better, or it was better then.
    AsGood,
}

impl Why {
    /// The word in the API: `breaker-open`.
    pub fn name(self) -> &'static str {
        match self {
            Why::Down => "down",
            Why::Cold => "cold",
            Why::Draining => "draining",
            Why::Unwilling => "unwilling",
            Why::BreakerOpen => "breaker-open",
            Why::KeptAway => "kept-away",
            Why::Full => "full",
            Why::Unsound => "unsound",
            Why::Abroad => "abroad",
            Why::StandsBy => "stands-by",
            Why::Spare => "spare",
            Why::AsGood => "as-good",
        }
    }
}

/// A region as it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RegionStanding {
    /// The region.
    pub region: RegionId,
    /// Its breaker.
    pub breaker: BreakerState,
    /// How long its breaker is open still.
    pub opens_for: Option<Duration>,
    /// Whether rooms go back to it by themselves.
    pub fail_back: FailBack,
    /// Its nodes.
    pub nodes: u32,
    /// Those of them that take rooms.
    pub nodes_up: u32,
    /// Those of them that are being drained.
    pub nodes_draining: u32,
    /// Rooms on them.
    pub rooms: u32,
    /// Rooms that would natively be there, and stand in other regions, or on nodes of it that stand by.
    pub away: u32,
}

impl Gateway {
    /// Every region, by its number.
    pub fn regions(&self, now: Instant) -> impl Iterator<Item = RegionStanding> {
        (0..self.settings.regions.len() as u32).map(move |id| self.region(RegionId(id), now))
    }

    fn region(&self, region: RegionId, now: Instant) -> RegionStanding {
        let nodes = || self.nodes.iter().filter(|node| self.region_of(node.id) == region);
        let breaker = &self.capacity.breakers[region.0 as usize];
        let of_it = |id: &&RoomId| self.rooms.get(id).is_some_and(|room| room.region == region);
        RegionStanding {
            region,
            breaker: breaker.state(),
            opens_for: breaker.opens_until().map(|at| at.saturating_duration_since(now)),
            fail_back: self.rooms.fail_backs[region.0 as usize],
            nodes: nodes().count() as u32,
            nodes_up: nodes().filter(|node| node.takes_rooms()).count() as u32,
            nodes_draining: nodes().filter(|node| node.drains()).count() as u32,
            rooms: nodes().map(|node| self.capacity.ledger.rooms(node.id)).sum(),
            away: self.rooms.away.iter().filter(of_it).count() as u32,
        }
    }

    /// Why a live session is where it is.
    pub fn explain(&self, id: SessionId, now: Instant) -> Option<Explanation> {
        let standing = self.session(id, now)?;
        let session = self.sessions.get(&id)?;
        let room = self.rooms.get(&session.room)?;
        let on = standing.hop.map(|hop| hop.node);
        let witnesses = on.and_then(|on| self.node(on)).map(|node| node.detector.witnesses());
        let since = |at: Instant| now.saturating_duration_since(at);
        Some(Explanation {
            admitted_by: (*session.admitted_by).clone(),
            placed_by: (*room.placed_by).clone(),
            priority: room.priority,
            route: room.route().hops.clone(),
            share_permille: session.share.min(WHOLE),
            witnesses: witnesses
                .into_iter()
                .flatten()
                .map(|(witness, at)| (witness, since(at)))
                .collect(),
            heading: room.pending.as_ref().map(|pending| Heading {
                to: pending.hops[0],
                cause: pending.cause,
                by: pending.by.clone(),
                since: since(pending.started),
                waiting: pending.waiting.len(),
            }),
            candidates: self
                .nodes
                .iter()
                .filter(|node| Some(node.id) != on)
                .map(|node| self.candidate(room, node, now))
                .collect(),
            moves: room.records().cloned().collect(),
            said: self.policy.noted.said(&[Subject::Session(id), Subject::Room(room.id)], now),
            quarantines: self
                .policy
                .noted
                .held(&[Subject::Session(id), Subject::Room(room.id)], now),
            standing,
        })
    }

    fn candidate(&self, room: &Room, node: &Node, now: Instant) -> Candidate {
        let load_permille = self.capacity.ledger.permille(node.id) as u32;
        Candidate { hop: node.hop(), why: self.why_not(room, node, now), load_permille }
    }

    fn why_not(&self, room: &Room, node: &Node, now: Instant) -> Why {
        let stays = room.holding.on.is_some_and(|on| {
            let reserved = [room.holding.reserve, room.holding.twin].contains(&Some(node.id));
            reserved && self.capacity.ledger.fits_reserve(node.id, on, 0)
        });
        let fits = stays || self.capacity.ledger.fits(node.id, room.holding.kbps);
        match node.health() {
            Health::Down => Why::Down,
            Health::Cold => Why::Cold,
            _ if node.drains() => Why::Draining,
            _ if !node.welcomes_rooms() => Why::Unwilling,
            _ if self.shunned(room.id, now).contains(&node.id) => Why::KeptAway,
            _ if room.standing().contains(&node.id) => Why::Spare,
            _ if !self.may_enter(room.id, self.region_of(node.id)) => Why::BreakerOpen,
            _ if !fits => Why::Full,
            Health::Suspect | Health::Wary => Why::Unsound,
            Health::Up if node.loses() => Why::Unsound,
            Health::Up if self.stands_by(room, node.id) => Why::StandsBy,
            Health::Up if self.is_away(room.id, node.id) => Why::Abroad,
            Health::Up => Why::AsGood,
        }
    }
}
