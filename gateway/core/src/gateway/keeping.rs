//! How much is kept of whatever grows with who comes: for those who watch that it stays within its limits.

use std::collections::BTreeSet;

use super::Gateway;
use crate::pace::Pace;
use crate::room::Room;

/// How much is kept.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Kept {
    /// Sessions, with those that are not live yet.
    pub sessions: usize,
    /// Rooms, with those that stand nowhere yet.
    pub rooms: usize,
    /// Calls whose sessions are rooms of their own.
    pub calls: usize,
    /// Entries of the longest list of rooms: those that are stranded, away, to be asked about, at one node, and so on. Each
    /// names a room at most once.
    pub rooms_listed: usize,
    /// Entries of the longest list of sessions.
    pub sessions_listed: usize,
    /// Questions in flight.
    pub asks: usize,
    /// Hops of the session that is open, or to be opened, at most.
    pub legs: usize,
    /// Openings at the node that has most of them under way.
    pub opening: usize,
    /// Openings that wait for their turn, at all nodes.
    pub waiting: usize,
    /// Moves on record, of the room that has most.
    pub moves: usize,
    /// Moves that damping counts, of the room that has most.
    pub damped: usize,
    /// What rooms say of nodes: pairs of a node and a scenario.
    pub ballots: usize,
    /// Nodes that are being drained.
    pub drains: usize,
    /// Numbers of nodes, with those that rest.
    pub slots: usize,
    /// Reasons to wake.
    pub timers: usize,
}

impl Gateway {
    /// How much is kept now. It looks at every session and room.
    pub fn kept(&self) -> Kept {
        let most = |counts: &mut dyn Iterator<Item = usize>| counts.max().unwrap_or(0);
        let rooms_listed = [
            self.rooms.by_name.len(),
            self.rooms.changing.len(),
            self.rooms.stranded.len(),
            self.rooms.unreserved.len(),
            self.rooms.away.len(),
            self.rooms.herd.as_ref().map_or(0, |herd| herd.rooms.len()),
            most(&mut self.policy.reroutes.values().map(BTreeSet::len)),
            most(&mut self.rooms.at.iter().map(BTreeSet::len)),
        ];
        let ticked = most(&mut self.sessions.ticked.values().map(BTreeSet::len));
        let judged = most(&mut self.revised.values().map(super::revising::Revised::known));
        let sessions_listed =
            [self.capacity.sparing.len(), self.quality.silent.len(), ticked, judged];
        let paces = || self.nodes.paces.iter().map(Pace::counts);
        Kept {
            sessions: self.sessions.len(),
            rooms: self.rooms.len(),
            calls: self.rooms.calls.len(),
            rooms_listed: most(&mut rooms_listed.into_iter()),
            sessions_listed: most(&mut sessions_listed.into_iter()),
            asks: self.policy.asks.len(),
            legs: most(&mut self.sessions.values().map(|session| session.legs.iter().count())),
            opening: most(&mut paces().map(|(under_way, _)| under_way as usize)),
            waiting: paces().map(|(_, waiting)| waiting).sum(),
            moves: most(&mut self.rooms.values().map(|room| room.records().count())),
            damped: most(&mut self.rooms.values().map(|room| Room::moves_noted(room))),
            ballots: self.quality.ballots.len(),
            drains: self.rooms.drains.len(),
            slots: self.nodes.slots(),
            timers: self.effects.timers.standing().len(),
        }
    }
}
