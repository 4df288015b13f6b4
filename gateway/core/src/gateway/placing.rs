//! A room's first route: asked of its routing policy, or natively.

use std::time::{Duration, Instant};

use super::Gateway;
use super::asking::{About, mismatched};
use crate::node::Node;
use crate::place::{self, Takes, Wish};
use crate::session::Phase;
use crate::timer::Timer;
use crate::{
    Answer, Decider, Fault, Guard, HOPS_MAX, Hook, Hop, NodeId, Outcome, PolicyName, Question,
    RoomId, SessionId,
};

/// A policy is not asked about one room more often than this, whatever it wishes.
const TTL_MIN: Duration = Duration::from_millis(100);

/// Rooms that are due within this are due together.
const DUE_GRAIN_MAX: Duration = Duration::from_millis(100);

impl Gateway {
    /// The first session of a room was admitted: its routing policy is asked, or the native default places it.
    pub(super) fn place(&mut self, id: RoomId, unasked: bool, now: Instant) {
        let Some(room) = self.rooms.get_mut(&id) else {
            return;
        };
        let (scenario, labels) = (room.scenario.clone(), room.labels.clone());
        let Some(settings) = self.settings.scenarios.get(&scenario) else {
            return;
        };
        if unasked || !settings.binds(Hook::Routing) {
            self.place_natively(id, now);
        } else if !room.placing {
            room.placing = true;
            let set = settings.set.clone();
            let arm = self.arm(&settings.policy(Hook::Routing), id.0);
            let question = Question::Place { room: id, scenario, labels, nodes: self.node_rows() };
            self.ask(&set, arm, About::Place(id), question, now);
        }
    }

    fn place_natively(&mut self, id: RoomId, now: Instant) {
        let busy = self.busy_nodes();
        let mut nodes = self.native_hops_but(id, &[], &busy, now);
        // Who has nowhere to go waits for these: a new room only takes what is of no use to them.
        let waits = if self.stranded_go_first() { &busy[..] } else { &[] };
        if nodes.is_empty() && !busy.is_empty() && waits.is_empty() {
            nodes = self.native_hops(id, &[], now);
        }
        if nodes.is_empty() {
            nodes = self.place_sparing(id, waits, now);
        }
        self.settle(id, &nodes, Decider::Native, now);
    }

    pub(super) fn placed(
        &mut self,
        id: RoomId,
        answer: Result<Answer, Fault>,
        by: Decider,
        now: Instant,
    ) -> Outcome {
        let Some(room) = self.rooms.get_mut(&id) else {
            return Outcome::Stale;
        };
        room.placing = false;
        if room.is_placed() || self.waiting_for_placement(id).is_empty() {
            return Outcome::Stale;
        }
        let outcome = match answer {
            Ok(Answer::Placed { hops, .. }) if hops.is_empty() => Outcome::Abstained,
            Ok(Answer::Placed { hops, ttl_ms, state, .. }) => {
                match self.check_placement(id, &hops, now) {
                    Err(guard) => Outcome::Guarded(guard),
                    Ok(()) => {
                        let differs = hops != self.native_hops(id, &[], now);
                        let policy = self.routing_policy(id);
                        let revised = policy.and_then(|policy| self.revised.get(&policy));
                        if let Some(room) = self.rooms.get_mut(&id) {
                            let revisions = revised.map(|revised| &revised.now);
                            room.memory.write(self.policy.states.share(state), revisions);
                            room.ttl_ms = ttl_ms;
                        }
                        self.settle(id, &hops, by, now);
                        return Outcome::Applied { differs };
                    }
                }
            }
            Ok(_) => mismatched(),
            Err(fault) => Outcome::Faulted(fault),
        };
        self.place_natively(id, now);
        outcome
    }

    /// Who is asked about the room.
    fn routing_policy(&self, id: RoomId) -> Option<PolicyName> {
        let scenario = self.rooms.get(&id).and_then(|room| self.scenario_of(room))?;
        Some(scenario.policy(Hook::Routing))
    }

    fn waiting_for_placement(&self, id: RoomId) -> Vec<SessionId> {
        let placing = |session: &SessionId| {
            self.sessions.get(session).is_some_and(|session| session.phase == Phase::Placing)
        };
        let sessions = self.rooms.get(&id).into_iter().flat_map(|room| room.sessions.iter());
        sessions.copied().filter(placing).collect()
    }

    /// Where the room stands from the beginning, and its sessions open.
    fn settle(&mut self, id: RoomId, nodes: &[NodeId], by: Decider, now: Instant) {
        let hops = self.hops(nodes);
        let waiting = self.waiting_for_placement(id);
        if hops.is_empty() {
            self.want_start(id, now);
            for session in waiting {
                self.turn_away(session, now);
            }
            return;
        }
        let unchosen = by == Decider::Native;
        self.rooms.set_placed_by(id, by);
        self.admit_at(id, &hops, None);
        self.note_away(id, nodes.first().copied().filter(|_| unchosen), now);
        self.set_due(id, now);
        for session in waiting {
            self.open(session, now);
        }
    }

    /// When its policy wished to look at it again, or up to an eighth of the time later: rooms are due together, so that
    /// thousands of them are few questions.
    pub(super) fn set_due(&mut self, id: RoomId, now: Instant) {
        let ttl = self.rooms.get(&id).map_or(0, |room| room.ttl_ms);
        if ttl > 0 {
            let ttl = Duration::from_millis(u64::from(ttl)).max(TTL_MIN);
            let grain = (ttl / 8).min(DUE_GRAIN_MAX).as_micros() as u64;
            let due = self.now_us(now + ttl);
            let late = Duration::from_micros(due.next_multiple_of(grain) - due);
            self.effects.set(Timer::RoomDue(id), now + ttl + late);
        }
    }

    /// The native default: where the room would stand, or where it stands with what spares it would have.
    pub(super) fn native_hops(
        &mut self,
        id: RoomId,
        standing: &[NodeId],
        now: Instant,
    ) -> Vec<NodeId> {
        self.native_hops_but(id, standing, &[], now)
    }

    /// The native default without these nodes. Regions whose breakers are open are avoided: a room that stands has what
    /// is left, where there is nothing else; a new one has not.
    pub(super) fn native_hops_but(
        &mut self,
        id: RoomId,
        standing: &[NodeId],
        but: &[NodeId],
        now: Instant,
    ) -> Vec<NodeId> {
        let mut avoided = self.behind_breakers(id);
        let avoids = !avoided.is_empty();
        avoided.extend(but);
        let nodes = self.native_hops_without(id, Takes::Free, standing, &avoided, now);
        let enough = nodes.len() > 1 || !self.rooms.get(&id).is_some_and(|room| room.is_placed());
        if enough || !avoids {
            return nodes;
        }
        let first = nodes.first().map_or(standing, std::slice::from_ref);
        self.native_hops_without(id, Takes::Free, first, but, now)
    }

    /// The native default for a room that stands nowhere any more and may take so much of a node, whatever breakers say.
    pub(super) fn native_hops_taking(
        &mut self,
        id: RoomId,
        takes: Takes,
        but: &[NodeId],
        now: Instant,
    ) -> Vec<NodeId> {
        self.native_hops_without(id, takes, &[], but, now)
    }

    fn native_hops_without(
        &mut self,
        id: RoomId,
        takes: Takes,
        standing: &[NodeId],
        but: &[NodeId],
        now: Instant,
    ) -> Vec<NodeId> {
        let kbps = self.room_kbps(id);
        let Some(room) = self.rooms.get(&id) else {
            return Vec::new();
        };
        let (region, spares, mode) = (room.region, room.spares, room.mode);
        let regions = self.scenario_of(room).map_or(Vec::new(), |s| s.regions.clone());
        let mut shunned = self.shunned(id, now);
        shunned.extend(but);
        let (regions, shunned) = (&regions[..], &shunned[..]);
        let wish = Wish { region, mode, regions, kbps, takes, spares, standing, shunned };
        self.apart(id, |gateway| {
            place::native(wish, &gateway.nodes, &gateway.settings.zones, &gateway.capacity.ledger)
        })
    }

    /// Nodes that the room keeps away from: as another incarnation a node is another one.
    pub(super) fn shunned(&self, id: RoomId, now: Instant) -> Vec<NodeId> {
        let struck = self.rooms.get(&id).into_iter().flat_map(|room| room.shunned(now));
        let is_there = |hop: &Hop| self.node(hop.node).is_some_and(|node| node.hop() == *hop);
        struck.filter(is_there).map(|hop| hop.node).collect()
    }

    /// Whether the room may stand on the node.
    pub(super) fn fits(&mut self, id: RoomId, node: NodeId) -> bool {
        let kbps = self.room_kbps(id);
        self.apart(id, |gateway| gateway.capacity.ledger.fits(node, kbps))
    }

    /// Hops exist, take rooms or have this one, have not just refused it, and stand once each.
    pub(super) fn check_hops(
        &self,
        id: RoomId,
        nodes: &[NodeId],
        now: Instant,
    ) -> Result<(), Guard> {
        let shunned = self.shunned(id, now);
        let route = self.rooms.get(&id).map(|room| room.route());
        let takes = |node: &Node| {
            let has_it = route.as_ref().is_some_and(|route| route.holds(node.hop()));
            if has_it { node.takes_rooms() } else { node.welcomes_rooms() }
        };
        let usable = |node: &NodeId| self.node(*node).is_some_and(takes) && !shunned.contains(node);
        let distinct = nodes.iter().collect::<std::collections::BTreeSet<_>>().len() == nodes.len();
        let fine =
            !nodes.is_empty() && nodes.len() <= HOPS_MAX && distinct && nodes.iter().all(usable);
        let kept = |node: &&NodeId| route.as_ref().is_some_and(|r| r.leads_to(**node));
        let shut = |node: &NodeId| !self.may_enter(id, self.region_of(*node));
        match fine {
            true if nodes.iter().filter(|node| !kept(node)).any(shut) => Err(Guard::BreakerOpen),
            true => Ok(()),
            false => Err(Guard::UnusableNode),
        }
    }

    pub(super) fn check_placement(
        &mut self,
        id: RoomId,
        nodes: &[NodeId],
        now: Instant,
    ) -> Result<(), Guard> {
        self.check_hops(id, nodes, now)?;
        let is_new = self.rooms.get(&id).is_some_and(|room| !room.is_placed());
        let is_left = |place: NodeId| !self.nodes.paces[place.0 as usize].is_busy();
        let may = !is_new || !self.stranded_go_first() || is_left(nodes[0]);
        if may && self.fits(id, nodes[0]) { Ok(()) } else { Err(Guard::NoCapacity) }
    }
}
