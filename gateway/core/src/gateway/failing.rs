//! Failures of nodes and of single hops: packets already go on, and what is said and mended follows.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::Gateway;
use super::standing::Step;
use crate::timer::Timer;
use crate::{Cause, Decider, Event, Hop, MoveOutcome, NodeId, RoomId, SessionId, Strike};

/// How long a room keeps away from a hop that did not take it.
const KEEP_AWAY: Duration = Duration::from_secs(10);

/// Between two turns of rooms that go on without a dead node there is time for what else goes on.
const LOST_EVERY: Duration = Duration::from_millis(1);

/// Rooms that have still to go on without a dead node.
#[derive(Debug)]
pub(crate) struct Herd {
    pub(crate) dead: Hop,
    /// When it was found dead.
    died: Instant,
    /// Nodes whose reserves are free for these rooms alone meanwhile.
    pub(crate) standbys: Vec<NodeId>,
    pub(crate) rooms: BTreeSet<RoomId>,
}

impl Herd {
    /// Whether the node died with it, or keeps free what it takes.
    pub(crate) fn concerns(&self, node: NodeId) -> bool {
        self.dead.node == node || self.standbys.contains(&node)
    }
}

impl Gateway {
    /// The flip: packets take their second hops. What is kept free for this death is spent for it, unless it is for another.
    pub(crate) fn flip(&self, dead: Hop, now: Instant) {
        for standby in self.capacity.ledger.standbys_of(dead.node) {
            if self.nodes.board.cell(standby).is_some_and(|cell| cell.spent_for.is_none()) {
                self.nodes.board.spend(standby, Some(dead.node));
            }
        }
        self.condemn(dead, now);
    }

    /// The board says that it is dead, and since when the evidence does.
    fn condemn(&self, dead: Hop, now: Instant) {
        if self.nodes.board.is_up(dead.node, dead.incarnation) {
            let witnesses = self.node(dead.node).map(|node| node.detector.witnesses());
            let since = witnesses.into_iter().flatten().map(|(_, since)| since).min();
            self.nodes.board.condemn(dead.node, since.unwrap_or(now).min(now));
        }
    }

    /// The flip, and then what follows for rooms: packets take their second hops with the flip itself. How many rooms
    /// stood there.
    pub(crate) fn fail_over(&mut self, dead: Hop, now: Instant) -> u32 {
        self.condemn(dead, now);
        // A standby is spent for one death at a time. Until the herd before is through, packets of this one take second
        // hops that are not spent for that: what those keep free, nobody else takes meanwhile.
        while self.rooms.herd.is_some() {
            self.lose_some(now);
        }
        let stood_there = self.capacity.ledger.rooms(dead.node);
        for standby in self.capacity.ledger.standbys_of(dead.node) {
            self.nodes.board.spend(standby, Some(dead.node));
        }
        let spent = |node: &NodeId| {
            self.nodes.board.cell(*node).is_some_and(|cell| cell.spent_for == Some(dead.node))
        };
        let standbys = self.nodes.iter().map(|node| node.id).filter(spent).collect();
        let rooms = self.rooms.at[dead.node.0 as usize].clone();
        self.rooms.herd = Some(Herd { dead, died: now, standbys, rooms });
        self.lose_some(now);
        stood_there
    }

    /// The next rooms of a dead node go on without it. However many they are, control looks up in between: their packets
    /// are on their way already.
    pub(crate) fn lose_some(&mut self, now: Instant) {
        for _ in 0..self.settings.limits.lost_at_once {
            let Some(herd) = &mut self.rooms.herd else {
                return;
            };
            let dead = (herd.dead, herd.died);
            match herd.rooms.pop_first() {
                Some(id) => self.lose(id, dead, now),
                None => return self.free_standbys(now),
            }
        }
        self.effects.set(Timer::Herd, now + LOST_EVERY);
    }

    /// All rooms of the dead node have gone on.
    fn free_standbys(&mut self, now: Instant) {
        let Some(Herd { standbys, .. }) = self.rooms.herd.take() else {
            return;
        };
        self.effects.cancel(&Timer::Herd);
        for standby in standbys {
            self.gate_what_no_longer_fits(standby, now);
            self.nodes.board.spend(standby, None);
        }
    }

    /// Something is about to happen to a room: if it still waits to go on without a dead node, it does now.
    pub(crate) fn catch_up(&mut self, id: RoomId, now: Instant) {
        if let Some(herd) = &mut self.rooms.herd
            && herd.rooms.remove(&id)
        {
            let dead = (herd.dead, herd.died);
            self.lose(id, dead, now);
        }
    }

    /// The room goes on without the dead hop. Where it stands at another that died meanwhile, it has its turn then.
    fn lose(&mut self, id: RoomId, (dead, died): (Hop, Instant), now: Instant) {
        let Some(room) = self.rooms.get_mut(&id).filter(|room| room.leads_to(dead)) else {
            return;
        };
        let cut = room.cut_pending(dead);
        let stood_there = room.holding.on == Some(dead.node);
        let route = room.route();
        self.given_up(id, cut, MoveOutcome::TargetLost, now);
        if stood_there {
            let next = route.first_usable(&self.nodes.board).map(|(hop, _)| hop);
            let others = route.hops.iter().map(|(hop, _)| *hop).filter(|hop| {
                Some(*hop) != next && self.nodes.board.is_up(hop.node, hop.incarnation)
            });
            let hops: Vec<Hop> = next.into_iter().chain(others).collect();
            match next {
                Some(_) => self.admit_at(id, &hops, None),
                None => self.strand(id, (dead, died), &hops, now),
            }
            self.want_start(id, now);
            let cause = Cause::NodeDown;
            let step = Step { cause, by: Decider::Native, from: dead, to: next, started: died };
            self.moved(id, step, now);
        } else {
            self.drop_spare(id, dead);
        }
        self.close_left_hops(id, now);
        if !self.stands_at_the_dead(id) {
            self.publish_pending_if_open(id, now);
        }
        self.want_reroute(id, now);
    }

    /// Whether it has still to go on without the node where it stands.
    fn stands_at_the_dead(&self, id: RoomId) -> bool {
        self.rooms.get(&id).filter(|room| room.stranded.is_none()).is_some_and(|room| {
            let first = room.route().hops.first().map(|(hop, _)| *hop);
            first.is_some_and(|hop| !self.nodes.board.is_up(hop.node, hop.incarnation))
        })
    }

    /// The route without this hop, if it holds it.
    fn drop_spare(&mut self, id: RoomId, gone: Hop) {
        let route = self.rooms[&id].route();
        let leaving = route.leaving.filter(|(hop, _)| *hop != gone);
        let hops: Vec<Hop> =
            route.hops.iter().map(|(hop, _)| *hop).filter(|hop| *hop != gone).collect();
        if hops.len() < route.hops.len() {
            self.publish(id, &hops, leaving);
        } else {
            self.rooms.list(id);
            self.regrant(id);
        }
    }

    /// The load that came ate reserves of other nodes' rooms: their second hops are gated until they have others.
    pub(crate) fn gate_what_no_longer_fits(&mut self, node: NodeId, now: Instant) {
        if self.capacity.ledger.fits(node, 0) {
            return;
        }
        let holders = self.rooms.at[node.0 as usize].iter().filter_map(|id| self.rooms.get(id));
        let mut holders: Vec<(i64, Reverse<RoomId>)> = holders
            .filter(|room| room.holding.reserve == Some(node))
            .map(|room| (room.priority, Reverse(room.id)))
            .collect();
        holders.sort_unstable();
        for (_, Reverse(id)) in holders {
            self.regrant(id);
            if self.rooms[&id].holding.reserve.is_none() {
                self.want_reroute(id, now);
            }
        }
    }

    /// The kernel says that nobody listens at a port of a node's that serves one room: that hop leaves its route.
    pub fn handle_port_closed(&mut self, session: SessionId, hop: Hop, now: Instant) {
        let Some(room) = self.sessions.get(&session).map(|session| session.room) else {
            return;
        };
        self.catch_up(room, now);
        if !self.rooms[&room].leads_to(hop) {
            return;
        }
        if let Some(node) = self.nodes.get_mut(hop.node.0 as usize)
            && node.hop() == hop
        {
            node.handle_port_closed(room, now);
        }
        self.strike(room, hop, (Strike::PortClosed, Some(session)), now);
    }

    /// A hop does not carry the room, though its node lives: it leaves the room's route, if there is another.
    pub(crate) fn strike(
        &mut self,
        id: RoomId,
        hop: Hop,
        (why, session): (Strike, Option<SessionId>),
        now: Instant,
    ) {
        let stands = self.stands_at(id);
        let Some(room) = self.rooms.get_mut(&id).filter(|room| room.leads_to(hop)) else {
            return;
        };
        let news = room.keep_away(hop, now + KEEP_AWAY, now);
        let cut = room.cut_pending(hop);
        self.given_up(id, cut, MoveOutcome::NotOpened, now);
        if news {
            let room_name = self.name_of(id);
            self.effects.event(Event::Struck { room: id, room_name, hop, why, session });
            self.effects.set_if_idle(Timer::RoomDue(id), now + KEEP_AWAY);
            self.want_reroute(id, now);
        }
        if stands == Some(hop) {
            self.rooms.list(id);
            self.regrant(id);
            self.leave_struck_hop(id, hop, why, now);
        } else {
            self.drop_spare(id, hop);
        }
        self.close_left_hops(id, now);
        self.publish_pending_if_open(id, now);
    }

    /// The hop that carries the room does not carry all of it, though the node lives. What it still delivers passes for
    /// a while, where it delivers something.
    fn leave_struck_hop(&mut self, id: RoomId, hop: Hop, why: Strike, now: Instant) {
        if self.moved_enough(id, now) {
            return;
        }
        let (cause, by) = (Cause::Link, Decider::Native);
        let ahead = self.rooms.get(&id).is_some_and(|room| room.mode.opens_ahead());
        if let Some(nodes) = self.own_next(id, Some(hop.node), now).filter(|_| ahead) {
            let hops = self.hops(&nodes);
            let until = now + self.settings.limits.leave_within;
            self.admit_at(id, &hops, (why == Strike::FlowLost).then_some((hop, until)));
            let to = hops.first().copied();
            self.moved(id, Step { cause, by, from: hop, to, started: now }, now);
        } else if self.rooms[&id].pending.is_none() {
            let nodes = self.native_hops(id, &[], now);
            if nodes.is_empty() {
                self.want_start(id, now);
            }
            self.head_for(id, &nodes, cause, by, now);
        }
    }

    /// Its own hops in their order, but for one: beginning with the first that has room for it, if any has.
    pub(crate) fn own_next(
        &mut self,
        id: RoomId,
        but: Option<NodeId>,
        now: Instant,
    ) -> Option<Vec<NodeId>> {
        let kbps = self.room_kbps(id);
        let shunned = self.shunned(id, now);
        let room = self.rooms.get(&id)?;
        let fit = |hop: &Hop| {
            self.nodes.board.is_up(hop.node, hop.incarnation)
                && Some(hop.node) != but
                && !shunned.contains(&hop.node)
                && self.node(hop.node).is_some_and(crate::node::Node::takes_rooms)
        };
        let mut nodes: Vec<NodeId> =
            room.route().hops.iter().filter(|(hop, _)| fit(hop)).map(|(hop, _)| hop.node).collect();
        let first = self.apart(id, |gateway| {
            nodes.iter().position(|&node| gateway.capacity.ledger.fits(node, kbps))
        })?;
        nodes[..=first].rotate_right(1);
        Some(nodes)
    }

    /// Time has passed since a hop did not take the room, or its policy wished so: it is looked at again, and its
    /// sessions are opened where they are missing.
    pub(crate) fn room_due(&mut self, id: RoomId, now: Instant) {
        self.catch_up(id, now);
        if self.rooms.get(&id).is_some_and(|room| room.is_placed()) {
            self.open_missing(id, now);
            self.want_reroute(id, now);
        }
    }
}
