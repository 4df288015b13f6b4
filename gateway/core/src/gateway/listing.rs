//! Nodes that come and go while packets flow. Who comes is trusted as far as it answers; who goes is drained first, and
//! forgotten when nothing leads there any more.

use std::time::{Duration, Instant};

use super::{Gateway, Impossible, Output};
use crate::node::Node;
use crate::pace::Pace;
use crate::settings::{NodeSettings, Probed, Zone};
use crate::timer::Timer;
use crate::{NodeId, NotStarted, RegionId, ZoneId};

/// What was left is closed `leave_within` later; so much after that it is gone for certain.
const GONE_AFTER: Duration = Duration::from_millis(100);

impl Gateway {
    /// How many nodes could be added now.
    pub fn vacancies(&self, now: Instant) -> usize {
        self.nodes.vacancies(now)
    }

    /// The zone of this name in a region. One that is new takes the number of a zone without nodes, or a new one; to be
    /// taken by a node at once.
    ///
    /// # Errors
    /// [`Impossible::NoSuchRegion`].
    pub fn zone(&mut self, name: &str, region: RegionId) -> Result<ZoneId, Impossible> {
        if region.0 as usize >= self.settings.regions.len() {
            return Err(Impossible::NoSuchRegion);
        }
        let zone = Zone { name: name.into(), region };
        let zones = &mut self.settings.zones;
        if let Some(known) = zones.iter().position(|known| *known == zone) {
            return Ok(ZoneId(known as u32));
        }
        let empty = |at: &usize| self.nodes.iter().all(|node| node.settings.zone.0 as usize != *at);
        let place = (0..zones.len()).find(empty).unwrap_or(zones.len());
        match zones.get_mut(place) {
            Some(left) => *left = zone,
            None => zones.push(zone),
        }
        Ok(ZoneId(place as u32))
    }

    /// The region that this gateway is in.
    pub fn home(&self) -> RegionId {
        self.settings.home
    }

    /// Every node, and the zone that it is in.
    pub fn zones_of_nodes(&self) -> impl Iterator<Item = (NodeId, ZoneId)> {
        self.nodes.iter().map(|node| (node.id, node.settings.zone))
    }

    /// The zones, by their numbers.
    pub fn zones(&self) -> &[Zone] {
        &self.settings.zones
    }

    /// A node is there from now on, as a new incarnation. It takes rooms once it answered, as one that came back does: Wary
    /// at first. One that its hook starts is Cold.
    ///
    /// # Errors
    /// [`Impossible::NoRoomForNodes`]: there are as many as there may be, with those that are still leaving and those that
    /// left within the last 10 s.
    pub fn handle_node_added(
        &mut self,
        settings: NodeSettings,
        now: Instant,
    ) -> Result<NodeId, Impossible> {
        let id = self.nodes.next_slot(now).ok_or(Impossible::NoRoomForNodes)?;
        let incarnation = self.nodes.board.reincarnate(id).ok_or(Impossible::NoRoomForNodes)?;
        self.nodes.board.condemn(id, now);
        let place = id.0 as usize;
        let pace = Pace::new(self.settings.limits.openings_at_once);
        self.capacity.ledger.add(id, settings.capacity_kbps);
        if place == self.nodes.paces.len() {
            self.nodes.paces.push(pace);
            self.rooms.at.push(std::collections::BTreeSet::new());
        } else {
            self.nodes.paces[place] = pace;
        }
        let distance = super::watching::distance(&self.settings, settings.zone);
        let (probed, canary) = (settings.probed, settings.canary);
        let timings = self.settings.timings;
        self.nodes.put(Node::added((id, incarnation), settings, distance, timings, now));
        if probed == Probed::Yes {
            self.effects.set(Timer::Probe(id), now);
        }
        if canary {
            self.effects.set(Timer::Canary(id), now);
        }
        let region = self.region_of(id);
        if self.nodes.drained.contains(&region) {
            self.decide_drain(id, |node| node.draining = true, now);
        }
        Ok(id)
    }

    /// A node that was just added comes in the place of one that is about to go, as a node whose key or address changed does:
    /// what an operator said of that one holds for it.
    ///
    /// # Errors
    /// [`Impossible::NoSuchNode`].
    pub fn handle_takes_place(
        &mut self,
        new: NodeId,
        old: NodeId,
        now: Instant,
    ) -> Result<(), Impossible> {
        let before = self.node(old).ok_or(Impossible::NoSuchNode)?;
        let (draining, ejected) = (before.draining, before.ejected);
        self.node(new).ok_or(Impossible::NoSuchNode)?;
        if draining {
            self.decide_drain(new, |node| node.draining = true, now);
        }
        if ejected {
            self.handle_eject(new, now)?;
        }
        Ok(())
    }

    /// A node that was just added is the machine of another one, by its new name: what that one carries still is taken of the
    /// capacity of both.
    ///
    /// # Errors
    /// [`Impossible::NoSuchNode`].
    pub fn handle_same_machine(&mut self, new: NodeId, old: NodeId) -> Result<(), Impossible> {
        let there = [new, old].iter().all(|id| self.node(*id).is_some());
        if new == old || !there {
            return Err(Impossible::NoSuchNode);
        }
        self.capacity.ledger.is_one_machine([new, old]);
        Ok(())
    }

    /// A node has another capacity, zone of its region, role, hook or canary from now on. Nothing leaves it for that; where
    /// it can take less than it carries, only reserves go.
    ///
    /// # Errors
    /// [`Impossible::NoSuchNode`].
    pub fn handle_node_changed(
        &mut self,
        id: NodeId,
        settings: NodeSettings,
        now: Instant,
    ) -> Result<(), Impossible> {
        let node = self.nodes.get_mut(id.0 as usize).ok_or(Impossible::NoSuchNode)?;
        let before = std::mem::replace(&mut node.settings, settings);
        let (canary, capacity) = (node.settings.canary, node.settings.capacity_kbps);
        match (before.canary, canary) {
            (false, true) => self.effects.set(Timer::Canary(id), now),
            (true, false) => {
                self.effects.cancel(&Timer::Canary(id));
                self.nodes[id.0 as usize].detector.forget_canaries();
            }
            (true, true) | (false, false) => {}
        }
        if before.capacity_kbps != capacity {
            self.capacity.ledger.claim(id, capacity);
            self.gate_what_no_longer_fits(id, now);
        }
        self.want_reroute_of_short_rooms(now);
        Ok(())
    }

    /// A node is to go: it is drained, by a deadline if there is one, whoever else may want it to take rooms; and when
    /// nobody is left it is forgotten, which comes out by [`Output::Forget`]. Where it drains already it goes on as it does,
    /// unless there is a new deadline.
    ///
    /// # Errors
    /// [`Impossible::NoSuchNode`].
    pub fn handle_node_removed(
        &mut self,
        id: NodeId,
        within: Option<Duration>,
        now: Instant,
    ) -> Result<(), Impossible> {
        let node = self.nodes.get_mut(id.0 as usize).ok_or(Impossible::NoSuchNode)?;
        node.removed = true;
        match within {
            None if self.rooms.drains.contains_key(&id) => self.drain(id, now),
            Some(_) | None => self.drains(id, true, within, now),
        }
        Ok(())
    }

    /// A node that was to go stays after all, and takes rooms again where nobody else has it drain.
    ///
    /// # Errors
    /// Where it is gone, or was not to go.
    pub fn handle_node_kept(&mut self, id: NodeId, now: Instant) -> Result<(), Impossible> {
        let removed = |node: &&mut Node| node.removed;
        self.nodes.get_mut(id.0 as usize).filter(removed).ok_or(Impossible::NoSuchNode)?;
        self.effects.cancel(&Timer::Forget(id));
        self.decide_drain(id, |node| node.removed = false, now);
        Ok(())
    }

    /// No room leads there any more: what it left behind has its time to end.
    pub(super) fn forget_soon(&mut self, id: NodeId, now: Instant) {
        if self.node(id).is_some_and(|node| node.removed) {
            let after = self.settings.limits.leave_within + GONE_AFTER;
            self.effects.set(Timer::Forget(id), now + after);
        }
    }

    /// The node is forgotten, unless something leads there again.
    pub(super) fn forget_node(&mut self, id: NodeId, now: Instant) {
        if !self.node(id).is_some_and(|node| node.removed) {
            return;
        }
        if !self.rooms.at[id.0 as usize].is_empty() {
            return self.drain(id, now);
        }
        if self.nodes.paces[id.0 as usize].counts() != (0, 0) || self.is_mourned(id) {
            return self.forget_soon(id, now);
        }
        self.not_started(id, NotStarted::Removed, now);
        self.nodes.board.condemn(id, now);
        for timer in [Timer::Probe(id), Timer::Canary(id), Timer::Drain(id)] {
            self.effects.cancel(&timer);
        }
        self.rooms.drains.remove(&id);
        self.rooms.leave_cursors.remove(&id);
        self.quality.ballots.retain(|(node, _), _| *node != id);
        self.nodes.forget(id, now);
        self.capacity.ledger.forget(id);
        self.effects.push(Output::Forget { node: id });
    }

    /// Whether rooms have still to go on without it, or take what was kept free there for another's death.
    fn is_mourned(&self, id: NodeId) -> bool {
        self.rooms.herd.as_ref().is_some_and(|herd| herd.concerns(id))
    }
}
