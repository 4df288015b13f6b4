//! Failover: rooms go on without a dead node or a hop that does not carry them, and stranded rooms are rescued.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::time::{Duration, Instant};

use super::moves::Step;
use super::placement::Takes;
use super::{Room, Router};
use crate::nodes::{Change, Node, NodeChange};
use crate::timer::Timer;
use crate::{
    Cause, Decider, Event, Health, Hop, Mode, MoveOutcome, NodeId, NotStarted, RoomId, SessionId,
    Start, Strike,
};

/// A room keeps away from a hop that did not take it for so long.
const KEEP_AWAY: Duration = Duration::from_secs(10);

/// Between two turns of rooms that go on without a dead node there is time for what else goes on.
const LOST_EVERY: Duration = Duration::from_millis(1);

/// Rooms that have still to go on without a dead node.
#[derive(Debug)]
pub(crate) struct Herd {
    pub(crate) dead: Hop,
    died: Instant,
    /// Nodes with reserves for these rooms alone meanwhile.
    pub(crate) standbys: Vec<NodeId>,
    pub(crate) rooms: BTreeSet<RoomId>,
}

impl Herd {
    /// The node died with it, or keeps free the reserve that it takes.
    pub(crate) fn concerns(&self, node: NodeId) -> bool {
        self.dead.node == node || self.standbys.contains(&node)
    }
}

const RESCUE_EVERY: Duration = Duration::from_millis(50);

/// Stranded rooms that are looked at together, so that one wake-up stays short.
const RESCUES_AT_ONCE: usize = 512;

/// Clients of a room that waits for a node are kept so long, though they are silent: as long as the longest start may take.
const HELD_FOR: Duration = Duration::from_secs(600);

impl Router<'_> {
    /// Takes the changes of nodes: all that died are down on the board before the rooms of one go on, since a node that died in
    /// the same watch is no place to go.
    pub(crate) fn nodes_changed(&mut self, changes: Vec<NodeChange>, now: Instant) {
        for NodeChange { node, change, since, .. } in &changes {
            if let Change::Died { .. } = change {
                // Reserves that are kept for this death are spent for it, unless they are for another.
                for standby in self.capacity.ledger().standbys_of(*node) {
                    self.nodes.spend_if_free(standby, *node);
                }
                self.nodes.mark_down(self.nodes[*node].hop(), *since);
            }
        }
        for change in changes {
            self.node_changed(change, now);
        }
    }

    fn node_changed(&mut self, changed: NodeChange, now: Instant) {
        let NodeChange { node: id, change, witnesses, .. } = changed;
        let node = &mut self.nodes[id];
        let last_heard = node.detector.last_heard();
        let (from, to) = match change {
            Change::Health { from, to } => (from, to),
            Change::Died { from } => (from, Health::Down),
            Change::Returned => (Health::Down, node.health()),
            Change::Started { to, .. } => (Health::Cold, to),
        };
        match change {
            Change::Health { .. } => {}
            Change::Died { .. } => {
                let hop = node.hop();
                node.detector.absolve();
                // Only a node that is ejected dies before it ran.
                self.nodes.start_failed(id, NotStarted::Ejected, now, self.effects);
                let place = self.effects.place();
                let rooms = self.fail_over(hop, now);
                let event = Event::Node { hop, from, to, witnesses, last_heard, rooms };
                self.effects.insert(place, event);
                return;
            }
            Change::Returned | Change::Started { .. } => self.nodes.reincarnate(id),
        }
        let hop = self.nodes[id].hop();
        self.effects.event(Event::Node { hop, from, to, witnesses, last_heard, rooms: 0 });
        if let Change::Started { after, .. } = change {
            self.started(id, after, now);
        }
        if matches!(change, Change::Returned | Change::Started { .. }) {
            // It wanted to be left in another life.
            self.decide_drain(id, |node| node.leaving = false, now);
        }
        if matches!(to, Health::Wary | Health::Up) && from != Health::Suspect {
            self.want_reroute_of_short_rooms();
        }
    }

    /// Rooms of a dead node go on; their packets took their second hops when it was marked down. Returns how many
    /// stood there.
    fn fail_over(&mut self, dead: Hop, now: Instant) -> u32 {
        // A standby is spent for one death at a time. Until the herd before is through, packets of this one take
        // second hops that are not spent for that; no other room takes those reserves meanwhile.
        while self.rooms.herd.is_some() {
            self.fail_over_some(now);
        }
        let stood_there = self.capacity.ledger().rooms(dead.node);
        for standby in self.capacity.ledger().standbys_of(dead.node) {
            self.nodes.spend(standby, Some(dead.node));
        }
        let standbys = self.nodes.spent_for(dead.node);
        let rooms = self.rooms.at[dead.node.0 as usize].clone();
        self.rooms.herd = Some(Herd { dead, died: now, standbys, rooms });
        self.fail_over_some(now);
        stood_there
    }

    /// The next rooms of a dead node go on without it. However many they are, control looks up in between: their packets
    /// are on their way already.
    pub(crate) fn fail_over_some(&mut self, now: Instant) {
        for _ in 0..self.settings.limits.lost_at_once {
            let Some(herd) = &mut self.rooms.herd else {
                return;
            };
            let dead = (herd.dead, herd.died);
            match herd.rooms.pop_first() {
                Some(id) => self.fail_over_room(id, dead, now),
                None => return self.free_standbys(),
            }
        }
        self.effects.set(Timer::Herd, now + LOST_EVERY);
    }

    /// All rooms of the dead node have gone on.
    fn free_standbys(&mut self) {
        let Some(Herd { standbys, .. }) = self.rooms.herd.take() else {
            return;
        };
        self.effects.cancel(&Timer::Herd);
        for standby in standbys {
            self.gate_unfit_reserves(standby);
            self.nodes.spend(standby, None);
        }
    }

    /// Something is about to happen to a room: if it still waits to go on without a dead node, it does now.
    pub(crate) fn catch_up(&mut self, id: RoomId, now: Instant) {
        if let Some(herd) = &mut self.rooms.herd
            && herd.rooms.remove(&id)
        {
            let dead = (herd.dead, herd.died);
            self.fail_over_room(id, dead, now);
        }
    }

    /// The room goes on without the dead hop. If it stands at another that died meanwhile, it has its turn then.
    fn fail_over_room(&mut self, id: RoomId, (dead, died): (Hop, Instant), now: Instant) {
        let Some(room) = self.rooms.get_mut(&id).filter(|room| room.leads_to(dead)) else {
            return;
        };
        let cut = room.cut_pending(dead);
        let stood_there = room.holding.on == Some(dead.node);
        let route = room.route();
        self.end_pending(id, cut, MoveOutcome::TargetLost, now);
        if stood_there {
            let next = route.first_usable(self.nodes.board()).map(|(hop, _)| hop);
            let others = route
                .hops
                .iter()
                .map(|(hop, _)| *hop)
                .filter(|hop| Some(*hop) != next && self.nodes.is_up(*hop));
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
        self.want_reroute(id);
    }

    /// It has still to go on without the node where it stands.
    fn stands_at_the_dead(&self, id: RoomId) -> bool {
        self.rooms.get(&id).filter(|room| room.stranded.is_none()).is_some_and(|room| {
            let first = room.route().hops.first().map(|(hop, _)| *hop);
            first.is_some_and(|hop| !self.nodes.is_up(hop))
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
    pub(crate) fn gate_unfit_reserves(&mut self, node: NodeId) {
        if self.capacity.ledger().fits(node, 0) {
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
                self.want_reroute(id);
            }
        }
    }

    /// The kernel says that no process listens at a port of a node's that serves one room: that hop leaves its route.
    pub(crate) fn handle_port_closed(&mut self, session: SessionId, hop: Hop, now: Instant) {
        let Some(room) = self.sessions.get(&session).map(|session| session.room) else {
            return;
        };
        self.catch_up(room, now);
        if !self.rooms[&room].leads_to(hop) {
            return;
        }
        if let Some(node) = self.nodes.get_mut(hop.node)
            && node.hop() == hop
        {
            node.handle_port_closed(room, now);
        }
        self.drop_hop(room, hop, (Strike::PortClosed, Some(session)), now);
    }

    /// A hop does not carry the room, though its node lives: it leaves the room's route, if there is another.
    pub(crate) fn drop_hop(
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
        self.end_pending(id, cut, MoveOutcome::NotOpened, now);
        if news {
            let room_name = self.rooms.name_of(id);
            self.effects.event(Event::HopRemoved { room: id, room_name, hop, why, session });
            self.effects.set_if_idle(Timer::RoomDue(id), now + KEEP_AWAY);
            self.want_reroute(id);
        }
        if stands == Some(hop) {
            self.rooms.list(id);
            self.regrant(id);
            self.leave_carrying_hop(id, hop, why, now);
        } else {
            self.drop_spare(id, hop);
        }
        self.close_left_hops(id, now);
        self.publish_pending_if_open(id, now);
    }

    /// The hop that carries the room does not carry all of it, though the node lives. If it still delivers, that
    /// passes for a while.
    fn leave_carrying_hop(&mut self, id: RoomId, hop: Hop, why: Strike, now: Instant) {
        if self.is_damped(id, now) {
            return;
        }
        let (cause, by) = (Cause::Link, Decider::Native);
        let ahead = self.rooms.get(&id).is_some_and(|room| room.mode.opens_ahead());
        if let Some(nodes) = self.own_next(id, Some(hop.node), now).filter(|_| ahead) {
            let hops = self.nodes.hops(&nodes);
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
            self.nodes.is_up(*hop)
                && Some(hop.node) != but
                && !shunned.contains(&hop.node)
                && self.nodes.get(hop.node).is_some_and(Node::takes_rooms)
        };
        let mut nodes: Vec<NodeId> =
            room.route().hops.iter().filter(|(hop, _)| fit(hop)).map(|(hop, _)| hop.node).collect();
        let first = self.without_holding(id, |router| {
            nodes.iter().position(|&node| router.capacity.ledger().fits(node, kbps))
        })?;
        nodes[..=first].rotate_right(1);
        Some(nodes)
    }

    /// Time has passed since a hop did not take the room, or its policy wished so: it is looked at again, and its
    /// sessions are opened where they are missing.
    pub(crate) fn room_due(&mut self, id: RoomId, now: Instant) {
        self.catch_up(id, now);
        if self.rooms.get(&id).is_some_and(Room::is_placed) {
            self.open_missing(id, now);
            self.want_reroute(id);
        }
    }

    /// Rooms without a usable hop take one of their own if they are open there, else any node with capacity, natively,
    /// at the pace at which it opens their sessions. The rooms that were tried least often go first, by their
    /// priority. A room that waits for its turn at a node does not block nodes without such turns: if a whole look
    /// found only waiting rooms, the next begins behind them.
    pub(crate) fn rescue_stranded(&mut self, now: Instant) {
        self.rooms.paced = false;
        let continues = self.rooms.rescued_last.is_some();
        let after = self.rooms.rescued_last.take().map_or(Bound::Unbounded, Bound::Excluded);
        let turn = self.rooms.stranded.range((after, Bound::Unbounded)).take(RESCUES_AT_ONCE);
        let turn: Vec<(u32, Reverse<i64>, RoomId)> = turn.copied().collect();
        let mut none_left = false;
        for &(.., id) in &turn {
            if self.take_own_hop(id, now) {
                continue;
            }
            none_left = none_left || self.rooms.paced && !self.has_free_node(1, &[]);
            if none_left || self.rooms.paced && !self.has_free_node_for(id, now) {
                continue;
            }
            match self.rescue(id, now) {
                true => self.rooms.count_attempt(id),
                false => self.rooms.paced = true,
            }
        }
        // If only nodes with turns are left, the rooms in front have the next turn.
        let goes_on = turn.len() == RESCUES_AT_ONCE && self.rooms.paced && !none_left;
        self.rooms.rescued_last = turn.last().copied().filter(|_| goes_on);
        // Rooms in front wait still.
        self.rooms.paced |= continues;
        if !self.rooms.stranded.is_empty() {
            self.effects.set(Timer::Rescue, now + RESCUE_EVERY);
        }
    }

    /// Some node without a queue has capacity for so much, kbit/s, and is none of the shunned.
    fn has_free_node(&self, kbps: u64, shunned: &[NodeId]) -> bool {
        self.nodes.iter().any(|node| {
            let (id, pace) = (node.id, self.nodes.pace(node.id));
            let open = node.welcomes_rooms() && !pace.is_busy() && !shunned.contains(&id);
            open && self.capacity.ledger().fits(id, kbps)
        })
    }

    /// Such a node may be one for this room: else it is not worth looking for.
    pub(crate) fn has_free_node_for(&self, id: RoomId, now: Instant) -> bool {
        self.has_free_node(self.room_kbps(id), &self.shunned(id, now))
    }

    /// The room goes on at a hop of its own at which its sessions are open: that needs no turn. Returns true if it
    /// does.
    fn take_own_hop(&mut self, id: RoomId, now: Instant) -> bool {
        let room = self.rooms.get(&id).filter(|room| room.mode.opens_ahead());
        let Some(lost) = room.and_then(|room| room.stranded) else {
            return false;
        };
        let Some(nodes) = self.own_next(id, None, now) else {
            return false;
        };
        let before = self.rooms.get_mut(&id).and_then(|room| room.pending.take());
        self.end_pending(id, before, MoveOutcome::Superseded, now);
        let hops = self.nodes.hops(&nodes);
        self.admit_at(id, &hops, None);
        let (from, to) = (lost.lost, hops.first().copied());
        let (cause, by) = (Cause::NodeDown, Decider::Native);
        self.moved(id, Step { cause, by, from, to, started: lost.since }, now);
        self.close_left_hops(id, now);
        self.want_reroute(id);
        true
    }

    /// Returns false if all nodes with capacity for the room have enough to open already.
    fn rescue(&mut self, id: RoomId, now: Instant) -> bool {
        match self.rooms.get(&id) {
            Some(room) if room.stranded.is_some() && room.pending.is_none() => {}
            Some(_) | None => return true,
        }
        let busy = self.nodes.busy();
        let mut nodes = self.native_hops_but(id, &[], &busy, now);
        if nodes.is_empty() && !self.native_hops(id, &[], now).is_empty() {
            return false;
        }
        if nodes.is_empty() {
            nodes = self.hops_of_reserves(id, &busy, now);
        }
        if nodes.is_empty() {
            nodes = self.place_with_less(id, &busy, now);
        }
        if nodes.is_empty() {
            self.want_start(id, now);
        }
        self.head_for(id, &nodes, Cause::NodeDown, Decider::Native, now);
        if let Some(taken) = nodes.first() {
            self.gate_unfit_reserves(*taken);
        }
        true
    }

    /// The hops that the room would have if no capacity were reserved: a call that goes on comes before deaths to
    /// come. Reserves that are being spent for a death just now are no longer free.
    fn hops_of_reserves(&mut self, id: RoomId, busy: &[NodeId], now: Instant) -> Vec<NodeId> {
        let mut but = busy.to_vec();
        but.extend(self.rooms.herd.iter().flat_map(|herd| &herd.standbys));
        self.native_hops_taking(id, Takes::Reserves, &but, now)
    }

    /// A room lost its node, is to leave it, or found none. In cold mode the node that is nearest to its region is
    /// started, while some session in the room is not silent.
    pub(crate) fn want_start(&mut self, id: RoomId, now: Instant) {
        let Some(room) = self.rooms.get(&id).filter(|room| room.mode == Mode::Cold) else {
            return;
        };
        if !self.all_silent(room, now) {
            self.nodes.start_nearest(room.region, now, self.effects);
        }
    }

    /// All sessions in the room are silent.
    fn all_silent(&self, room: &Room, now: Instant) -> bool {
        let mut sessions = room.sessions.iter().filter_map(|session| self.sessions.get(session));
        sessions.all(|session| session.is_silent(now, self.sessions.told_within()))
    }

    /// It runs: stranded rooms are looked at.
    pub(crate) fn started(&mut self, id: NodeId, after: Option<Duration>, now: Instant) {
        self.effects.cancel(&Timer::StartLate(id));
        self.effects.set(Timer::Probe(id), now);
        if let Some(took) = after {
            self.effects.event(Event::Start { node: id, step: Start::Done { took } });
        }
        if !self.rooms.stranded.is_empty() {
            self.effects.set(Timer::Rescue, now);
        }
    }

    /// The room has a node again: sessions that fell silent while it waited have their time to be heard.
    pub(crate) fn renew_last_heard(&mut self, id: RoomId, now: Instant) {
        let sessions = self.rooms.get(&id).filter(|room| room.mode == Mode::Cold);
        for session in sessions.into_iter().flat_map(|room| room.sessions.iter()) {
            if let Some(session) = self.sessions.get_mut(session) {
                session.last_heard = session.last_heard.max(now);
            }
        }
    }

    /// The room waits for a node to be started: its sessions are kept for a while, though they may have fallen silent.
    pub(crate) fn is_held(&self, id: RoomId, now: Instant) -> bool {
        let room = self.rooms.get(&id).filter(|room| room.mode == Mode::Cold);
        room.and_then(|room| room.stranded)
            .is_some_and(|stranded| now.saturating_duration_since(stranded.since) < HELD_FOR)
    }
}
