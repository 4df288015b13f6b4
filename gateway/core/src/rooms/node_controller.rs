//! Drains, ejections and other changes of nodes, and the moves of rooms that follow.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::time::{Duration, Instant};

use evenkeel_model::{
    CoreEvent, Decider, FailureDomain, Health, IdSet, Impossible, MoveCause, NodeId, NodeSettings,
    NotStarted, RegionId, RoomId, StartPhase, Starts, ZoneId,
};
use evenkeel_nodes::{AgentWord, Node, NodeChange, NodeTransition};

use crate::effects::Timer;
use crate::record::NodeDrain;
use crate::rooms::moves::Moves;
use crate::rooms::placement::{CoreTables, Placement};
use crate::rooms::routes::Routes;

/// Maximum rooms that leave a draining node at once, so that one wake-up stays short and no node gets all at once.
const DRAINS_AT_ONCE: usize = 256;

/// Interval between batches of rooms that leave a draining node.
const DRAIN_EVERY: Duration = Duration::from_millis(50);

/// Divisor of the time until the deadline: this part is reserved for the last moves to complete.
const KEPT_FOR_ARRIVAL: u32 = 5;

/// Legs at a left node are closed after `leave_within`, and gone for certain after this additional time.
pub(crate) const GONE_AFTER: Duration = Duration::from_millis(100);

/// Drains nodes, follows changes of their health, their load and their list, and moves their rooms.
pub struct NodeController<'a>(pub(crate) &'a mut CoreTables);

impl NodeController<'_> {
    /// Begins or ends an operator's drain. A draining node takes no new rooms, and its rooms move within the given
    /// time. Rooms that fit on no other node stay until they do. [`CoreEvent::Drained`] reports that the node is empty, or
    /// the number of rooms left at the deadline.
    ///
    /// A drain does not end while the node is being removed ([`Impossible::NodeLeaves`]), or while its agent drains it
    /// ([`Impossible::NodeDrains`]).
    pub fn handle_drain(
        &mut self,
        node: NodeId,
        draining: bool,
        within: Option<Duration>,
        now: Instant,
    ) -> Result<(), Impossible> {
        let found = self.0.nodes.get_mut(node).ok_or(Impossible::NoSuchNode)?;
        if found.trust.removed && !draining {
            return Err(Impossible::NodeLeaves);
        }
        found.trust.draining = draining;
        found.trust.elastic.stopping &= draining;
        // The node would repeat its request with its next answer.
        if found.trust.leaving && !draining {
            return Err(Impossible::NodeDrains);
        }
        match within {
            // The node list may have set a deadline.
            None if draining && found.trust.removed => self.drain(node, now),
            Some(_) | None => self.drains(node, draining, within, now),
        }
        Ok(())
    }

    /// Starts or ends the drain of a node.
    pub(crate) fn drains(
        &mut self,
        node: NodeId,
        draining: bool,
        within: Option<Duration>,
        now: Instant,
    ) {
        self.0.effects.event(CoreEvent::Draining { node, draining });
        if draining {
            let deadline = within.map(|within| now + within);
            let drain = NodeDrain { started: now, deadline, last: RoomId(0), empty: false };
            self.0.rooms.drains.insert(node, drain);
            self.drain(node, now);
        } else {
            self.0.effects.cancel(&Timer::Drain(node));
            self.0.rooms.drains.remove(&node);
            Routes(self.0).want_reroute_of_short_rooms();
        }
    }

    /// Changes a reason to drain, and starts or ends the drain if the outcome changes.
    pub(crate) fn decide_drain(
        &mut self,
        id: NodeId,
        change: impl FnOnce(&mut Node),
        now: Instant,
    ) {
        let Some(node) = self.0.nodes.get_mut(id) else { return };
        let before = node.drains();
        change(node);
        let drains = node.drains();
        if before != drains {
            self.drains(id, drains, None, now);
        }
    }

    /// Begins or ends the drain of a zone or region: of all its nodes, including those that are added later. Nodes that
    /// an agent drains stay drained.
    pub fn handle_drain_domain(
        &mut self,
        domain: FailureDomain,
        draining: bool,
        within: Option<Duration>,
        now: Instant,
    ) -> Result<(), Impossible> {
        self.0.nodes.check_domain(domain)?;
        let mut nodes: Vec<NodeId> = self.0.nodes.in_domain(domain).map(|node| node.id).collect();
        self.0.nodes.set_drained(domain, draining);
        nodes.retain(|node| draining || !self.0.nodes[*node].trust.removed);
        // All nodes are marked first, so that rooms do not move from one to another.
        for node in &nodes {
            self.0.nodes[*node].trust.draining = draining;
        }
        for node in nodes {
            match self.handle_drain(node, draining, within, now) {
                Ok(()) | Err(Impossible::NodeDrains) => {}
                Err(impossible) => return Err(impossible),
            }
        }
        Ok(())
    }

    /// Moves the next rooms away from the node and schedules the rest.
    pub(crate) fn drain(&mut self, node: NodeId, now: Instant) {
        let Some(mut drain) = self.0.rooms.drains.get(&node).copied() else { return };
        let there = &self.0.rooms.at[node.0 as usize];
        let (left, at_once) = (there.len(), at_once(there.len(), &drain, now));
        let after = (Bound::Excluded(drain.last), Bound::Unbounded);
        let turn: Vec<RoomId> = there.range(after).take(at_once).collect();
        let next = turn.last().filter(|_| turn.len() == at_once).copied();
        drain.last = next.unwrap_or(RoomId(0));
        let is_late = drain.deadline.is_some_and(|deadline| deadline <= now);
        if left == 0 && !drain.empty || is_late {
            let (left, started) = (left as u32, drain.started);
            (drain.empty, drain.deadline) = (left == 0, None);
            self.0.effects.event(CoreEvent::Drained { node, left, started });
        }
        let next = now + DRAIN_EVERY;
        if left == 0 {
            self.forget_soon(node, now);
        } else {
            drain.empty = false;
            self.0.effects.set(Timer::Drain(node), drain.deadline.map_or(next, |at| at.min(next)));
        }
        self.0.rooms.drains.insert(node, drain);
        for id in turn {
            Moves(self.0).catch_up(id, now);
            self.leave_draining_node(id, node, now);
        }
    }

    fn leave_draining_node(&mut self, id: RoomId, node: NodeId, now: Instant) {
        let stands = Placement(self.0).stands_at(id).map(|hop| hop.node);
        let by = match self.0.nodes.get(node).map(|node| node.trust) {
            Some(trust) if trust.draining || trust.removed => Decider::Operator,
            Some(trust) if trust.elastic.stopping => Decider::Native,
            Some(_) | None => Decider::Node,
        };
        if by == Decider::Node && stands == Some(node) && Moves(self.0).is_damped(id, now) {
            return;
        }
        let Some(room) = self.0.rooms.get(&id) else { return };
        let ahead = room.mode.opens_ahead();
        let heads_there = room.pending.as_ref().map(|p| p.hops.iter().any(|hop| hop.node == node));
        if heads_there == Some(false) {
            return;
        }
        let nodes = if stands == Some(node) {
            let own = Placement(self.0).own_next(id, Some(node), now).filter(|_| ahead);
            Placement(self.0).native_hops(id, &own.unwrap_or_default(), now)
        } else {
            let standing = self.0.rooms[&id].nodes_of_route();
            let stays: Vec<NodeId> = standing.into_iter().filter(|on| *on != node).collect();
            match stands {
                Some(_) => Placement(self.0).native_hops(id, &stays, now),
                // The rescue will find a place, and knows that the node takes no rooms.
                None => Vec::new(),
            }
        };
        if nodes.is_empty() {
            Moves(self.0).want_start(id, now);
        }
        Moves(self.0).head_for(id, &nodes, MoveCause::Drain, by, now);
    }

    /// Adds a node as a new incarnation. It is Down until it answers, then Wary. A node that a hook starts is Cold.
    ///
    /// Nodes that are being removed, or were removed within the last 10 s, count towards the limit
    /// ([`Impossible::NoRoomForNodes`]).
    pub fn handle_node_added(
        &mut self,
        settings: NodeSettings,
        now: Instant,
    ) -> Result<NodeId, Impossible> {
        let kbps = settings.capacity_kbps;
        let (id, drained) = self.0.nodes.add(settings, now)?;
        self.0.effects.take(&mut self.0.nodes);
        self.0.capacity.ledger.add(id, kbps);
        if id.0 as usize == self.0.rooms.at.len() {
            self.0.rooms.at.push(IdSet::default());
        }
        if drained {
            self.decide_drain(id, |node| node.trust.draining = true, now);
        }
        Ok(id)
    }

    /// A node that was just added replaces one that is about to be removed, as after a change of key or address. An
    /// operator's drain or eject of the old node applies to the new one, and so does its start by the gateway.
    pub fn handle_takes_place(
        &mut self,
        new: NodeId,
        old: NodeId,
        now: Instant,
    ) -> Result<(), Impossible> {
        let before = self.0.nodes.get(old).ok_or(Impossible::NoSuchNode)?.trust;
        self.0.nodes.get_mut(new).ok_or(Impossible::NoSuchNode)?.take_place(&before);
        if before.draining {
            self.decide_drain(new, |node| node.trust.draining = true, now);
        }
        if before.ejected {
            self.handle_eject(new, now)?;
        }
        Ok(())
    }

    /// An earlier process of this gateway started the node, if a hook still starts it.
    pub fn handle_started(&mut self, id: NodeId) {
        let node = self.0.nodes.get_mut(id);
        if let Some(node) = node.filter(|node| node.settings.starts != Starts::ByItself) {
            node.resume_start();
        }
    }

    /// An operator ejects the node. Its rooms leave it at once, and it stays Down until
    /// [`handle_return`](Self::handle_return). Fails if the node is already ejected.
    pub fn handle_eject(&mut self, id: NodeId, now: Instant) -> Result<(), Impossible> {
        let node = self.0.nodes.get(id).ok_or(Impossible::NoSuchNode)?;
        if node.trust.ejected {
            return Err(Impossible::AlreadyEjected);
        }
        let change = self.0.nodes.eject(id, now);
        self.nodes_changed(change.into_iter().collect(), now);
        Ok(())
    }

    /// An operator ejects all nodes of the zone at once, so that no room moves from one to another. Fails if all are
    /// ejected already.
    pub fn handle_eject_zone(&mut self, zone: ZoneId, now: Instant) -> Result<(), Impossible> {
        let nodes = self.nodes_of_zone(zone, |node| !node.trust.ejected)?;
        if nodes.is_empty() {
            return Err(Impossible::AlreadyEjected);
        }
        let changes = nodes.into_iter().filter_map(|id| self.0.nodes.eject(id, now)).collect();
        self.nodes_changed(changes, now);
        Ok(())
    }

    /// Ends the ejection of the zone's nodes. Fails if none is ejected.
    pub fn handle_return_zone(&mut self, zone: ZoneId) -> Result<(), Impossible> {
        let nodes = self.nodes_of_zone(zone, |node| node.trust.ejected)?;
        if nodes.is_empty() {
            return Err(Impossible::NotDown);
        }
        nodes.into_iter().try_for_each(|id| self.handle_return(id))
    }

    fn nodes_of_zone(
        &self,
        zone: ZoneId,
        matches: impl Fn(&Node) -> bool,
    ) -> Result<Vec<NodeId>, Impossible> {
        let zone = FailureDomain::Zone(zone);
        self.0.nodes.check_domain(zone)?;
        let nodes = self.0.nodes.in_domain(zone).filter(|node| matches(node));
        Ok(nodes.map(|node| node.id).collect())
    }

    /// The nodes die in one moment, by certain evidence such as the reports of their agents, so that no room moves from one to
    /// another. Returns those that ran.
    pub fn lose(
        &mut self,
        nodes: impl IntoIterator<Item = NodeId>,
        now: Instant,
    ) -> BTreeSet<NodeId> {
        let changes = nodes.into_iter().filter_map(|id| self.0.nodes.handle_gone(id, now));
        let changes: Vec<NodeChange> = changes.collect();
        let died = changes.iter().map(|change| change.node).collect();
        self.nodes_changed(changes, now);
        died
    }

    /// A node that was just added is the machine of another node under a new name. The load of the old node counts
    /// against the capacity of both.
    pub fn handle_same_machine(&mut self, new: NodeId, old: NodeId) -> Result<(), Impossible> {
        let there = [new, old].iter().all(|id| self.0.nodes.get(*id).is_some());
        if new == old || !there {
            return Err(Impossible::NoSuchNode);
        }
        self.0.capacity.ledger.is_one_machine([new, old]);
        Ok(())
    }

    /// Changes a node's capacity, zone within its region, role, hook or canary. No room leaves the node. If its load
    /// exceeds the new capacity, only reservations are given up.
    pub fn handle_node_changed(
        &mut self,
        id: NodeId,
        settings: NodeSettings,
        now: Instant,
    ) -> Result<(), Impossible> {
        let (capacity, zone) = (settings.capacity_kbps, settings.zone);
        let before = self.0.nodes.change(id, settings, now)?;
        self.0.effects.take(&mut self.0.nodes);
        if before.zone != zone {
            // Reserves may not cover the new zone. A drain of the old one goes on.
            let rooms = &mut self.0.rooms;
            rooms.changing.extend(rooms.at[id.0 as usize].iter());
            self.0.effects.set_if_idle(Timer::Change, now);
            // A drain of the region reached the node in its old zone, unless an operator ended it there.
            if self.0.nodes.is_drained(FailureDomain::Zone(zone)) {
                self.decide_drain(id, |node| node.trust.draining = true, now);
            }
        }
        if before.capacity_kbps != capacity {
            self.0.capacity.ledger.gauge_mut(id).claim(capacity);
            Routes(self.0).gate_unfit_reserves(id);
        }
        Routes(self.0).want_reroute_of_short_rooms();
        Ok(())
    }

    /// Removes a node. The node is drained, whatever its agent or an operator says, and forgotten with
    /// [`NodeEffect::Forget`](crate::NodeEffect::Forget) when it is empty. A drain in progress continues unless there is a new deadline.
    pub fn handle_node_removed(
        &mut self,
        id: NodeId,
        within: Option<Duration>,
        now: Instant,
    ) -> Result<(), Impossible> {
        let node = self.0.nodes.get_mut(id).ok_or(Impossible::NoSuchNode)?;
        node.trust.removed = true;
        match within {
            None if self.0.rooms.drains.contains_key(&id) => self.drain(id, now),
            Some(_) | None => self.drains(id, true, within, now),
        }
        Ok(())
    }

    /// Cancels the removal of a node. It takes rooms again unless it drains for another reason. Fails if the node is
    /// gone, or is not being removed.
    pub fn handle_node_kept(&mut self, id: NodeId, now: Instant) -> Result<(), Impossible> {
        let removed = |node: &&Node| node.trust.removed;
        self.0.nodes.get(id).filter(removed).ok_or(Impossible::NoSuchNode)?;
        self.0.effects.cancel(&Timer::Forget(id));
        self.decide_drain(id, |node| node.trust.removed = false, now);
        Ok(())
    }

    /// Forgets the node after its legs had time to close, since no room leads there any more.
    fn forget_soon(&mut self, id: NodeId, now: Instant) {
        if self.0.nodes.get(id).is_some_and(|node| node.trust.removed) {
            let after = self.0.settings.limits.leave_within + GONE_AFTER;
            self.0.effects.set(Timer::Forget(id), now + after);
        }
    }

    /// Forgets the node unless something leads there again. Returns true if it was forgotten.
    pub(crate) fn forget_node(&mut self, id: NodeId, now: Instant) -> bool {
        if !self.0.nodes.get(id).is_some_and(|node| node.trust.removed) {
            return false;
        }
        if !self.0.rooms.at[id.0 as usize].is_empty() {
            self.drain(id, now);
            return false;
        }
        if !self.is_settled(id) {
            self.forget_soon(id, now);
            return false;
        }
        self.0.rooms.drains.remove(&id);
        self.0.rooms.leave_cursors.remove(&id);
        self.0.capacity.ledger.forget(id);
        self.0.nodes.forget(id, now);
        self.0.effects.take(&mut self.0.nodes);
        true
    }

    /// No session is being opened at the node, and no failover concerns it.
    pub(crate) fn is_settled(&self, id: NodeId) -> bool {
        let failover = self.0.rooms.failover.as_ref();
        self.0.nodes.pace(id).counts() == (0, 0) && !failover.is_some_and(|it| it.concerns(id))
    }

    /// A node reported its load in thousandths of its capacity; valid for 5 s. The report corrects the measured
    /// capacity, up to the configured one. A draining node's measured capacity is unchanged.
    pub fn handle_load(&mut self, id: NodeId, permille: u16, now: Instant) {
        let Some(node) = self.0.nodes.get_mut(id) else { return };
        node.handle_load(permille, now);
        if node.drains() {
            return self.0.capacity.ledger.gauge_mut(id).hold(now);
        }
        self.0.capacity.ledger.handle_load(id, permille, now);
        Routes(self.0).gate_unfit_reserves(id);
    }

    /// A node refused a session because it is full. Its present load counts as its capacity for now. A draining node
    /// refuses sessions because it drains, so its capacity is unchanged.
    pub fn handle_full(&mut self, id: NodeId, now: Instant) {
        let Some(node) = self.0.nodes.get(id) else { return };
        if !node.drains() {
            self.0.capacity.ledger.handle_full(id, now);
            Routes(self.0).gate_unfit_reserves(id);
        }
        if let Some(node) = self.0.nodes.get_mut(id) {
            node.handle_willing(false, now);
        }
    }

    /// An agent reported the state of its node. [`AgentWord::Gone`] marks the node down at once. The other reports
    /// withdraw that evidence, and begin or end the agent's drain.
    pub fn handle_agent_word(&mut self, id: NodeId, word: AgentWord, now: Instant) {
        let Some(node) = self.0.nodes.get_mut(id) else { return };
        if word == AgentWord::Gone {
            self.lose([id], now);
            return;
        }
        node.detector.handle_agent(true, now);
        let leaving = word == AgentWord::Draining;
        self.decide_drain(id, |node| node.trust.leaving = leaving, now);
    }

    /// Takes the changes of nodes. All dead nodes are marked down on the board before any room fails over, since a node
    /// that died in the same watch is no target.
    pub(crate) fn nodes_changed(&mut self, changes: Vec<NodeChange>, now: Instant) {
        for NodeChange { node, change, since, .. } in &changes {
            if let NodeTransition::Died { .. } = change {
                let hop = self.0.nodes[*node].hop();
                Moves(self.0).mark_down(hop, *since, now);
            }
        }
        for change in changes {
            self.node_changed(change, now);
        }
    }

    fn node_changed(&mut self, changed: NodeChange, now: Instant) {
        let NodeChange { node: id, change, witnesses, .. } = changed;
        let node = &mut self.0.nodes[id];
        let last_heard = node.detector.last_heard();
        let (from, to) = match change {
            NodeTransition::Health { from, to } => (from, to),
            NodeTransition::Died { from } => (from, Health::Down),
            NodeTransition::Returned => (Health::Down, node.health()),
            NodeTransition::Started { to, .. } => (Health::Cold, to),
        };
        match change {
            NodeTransition::Health { .. } => {}
            NodeTransition::Died { .. } => {
                let hop = node.hop();
                node.detector.absolve();
                // A node that dies before it ran was ejected.
                self.0.nodes.start_failed(id, NotStarted::Ejected, now);
                self.0.effects.take(&mut self.0.nodes);
                let moves = Moves(self.0).explain_port_moves(hop, now);
                let rooms = Moves(self.0).fail_over(id, now) + moves.len() as u32;
                let event = CoreEvent::Node { hop, from, to, witnesses, last_heard, rooms };
                self.0.effects.event(event);
                if !moves.is_empty() {
                    let cause = MoveCause::NodeDown;
                    self.0.effects.event(CoreEvent::MoveCauseFound { hop, cause, moves });
                }
                return;
            }
            NodeTransition::Returned | NodeTransition::Started { .. } => {
                self.0.nodes.reincarnate(id);
            }
        }
        let hop = self.0.nodes[id].hop();
        self.0.effects.event(CoreEvent::Node { hop, from, to, witnesses, last_heard, rooms: 0 });
        if let NodeTransition::Started { after, .. } = change {
            self.started(id, after, now);
        }
        if matches!(change, NodeTransition::Returned | NodeTransition::Started { .. }) {
            // The node's request to drain was made by its previous incarnation.
            self.decide_drain(id, |node| node.trust.leaving = false, now);
        }
        if matches!(to, Health::Wary | Health::Up) && from != Health::Suspect {
            Routes(self.0).want_reroute_of_short_rooms();
        }
    }

    /// The node is running, so stranded rooms are tried again.
    pub(crate) fn started(&mut self, id: NodeId, after: Option<Duration>, now: Instant) {
        self.0.effects.cancel(&Timer::StartLate(id));
        self.0.effects.set(Timer::Probe(id), now);
        if let Some(took) = after {
            self.0.effects.event(CoreEvent::Start { node: id, step: StartPhase::Done { took } });
        }
        if !self.0.rooms.stranded.is_empty() {
            self.0.effects.set(Timer::Rescue, now);
        }
    }

    /// The connection to the node's agent is lost. All reports of the agent are withdrawn.
    pub fn handle_agent_lost(&mut self, id: NodeId, now: Instant) {
        if let Some(node) = self.0.nodes.get_mut(id) {
            node.detector.handle_agent(true, now);
        }
        self.decide_drain(id, |node| node.trust.leaving = false, now);
    }

    /// The capacity of the region will be exhausted: with `early_start`, starts one of its nodes, unless a node is being
    /// started.
    pub fn handle_exhaustion(&mut self, region: RegionId, now: Instant) {
        if !self.0.settings.limits.early_start {
            return;
        }
        self.0.nodes.start_in_region(region, now);
        self.0.effects.take(&mut self.0.nodes);
    }

    /// The highest load that is expected in the region within the horizon of forecasts: nodes that it needs are not stopped.
    pub fn handle_expected_load(&mut self, region: RegionId, kbps: u64, now: Instant) {
        self.0.nodes.note_expected_load(region, kbps, now);
    }

    /// The trend of the node reaches its limit, in thousandths; 0: it has none.
    pub fn handle_decay(&mut self, id: NodeId, permille: u16) {
        if let Some(node) = self.0.nodes.get_mut(id) {
            node.decay_permille = permille;
        }
    }

    /// The hook that starts the node failed. It is called again later if the node is still needed.
    pub fn handle_start_failed(&mut self, id: NodeId, now: Instant) {
        self.0.nodes.start_failed(id, NotStarted::Hook, now);
        self.0.effects.take(&mut self.0.nodes);
    }

    /// Ends the ejection of a node that is Down. The node is Wary as soon as it answers.
    pub fn handle_return(&mut self, id: NodeId) -> Result<(), Impossible> {
        let node = self.0.nodes.get_mut(id).ok_or(Impossible::NoSuchNode)?;
        if node.health() != Health::Down {
            return Err(Impossible::NotDown);
        }
        node.let_back();
        Ok(())
    }
}

/// The number of rooms, out of `left`, that leave in this batch: with a deadline as few as suffice, else the maximum.
fn at_once(left: usize, drain: &NodeDrain, now: Instant) -> usize {
    let Some(deadline) = drain.deadline else { return DRAINS_AT_ONCE };
    let last = deadline - (deadline - drain.started) / KEPT_FOR_ARRIVAL;
    let time = last.saturating_duration_since(now);
    let turns = (time.as_micros() / DRAIN_EVERY.as_micros()) as usize;
    left.div_ceil(turns.max(1)).clamp(1, DRAINS_AT_ONCE)
}
