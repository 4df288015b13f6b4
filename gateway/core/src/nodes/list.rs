//! Changes to the list of nodes while packets flow.

use std::time::Instant;

use evenkeel_model::{Hop, NodeId, NodeProbing, NodeSettings, NotStarted, RegionId, Zone, ZoneId};

use super::{Node, NodeTable, OpeningWindow};
use crate::effects::Effects;
use crate::timer::Timer;
use crate::{GatewayEffect, Impossible};

impl NodeTable {
    /// The zone with this name in the region. A new zone takes the number of a zone without nodes, or the next number.
    /// The caller must add a node to it at once.
    pub(crate) fn zone(&mut self, name: &str, region: RegionId) -> Result<ZoneId, Impossible> {
        self.check_region(region)?;
        let zone = Zone { name: name.into(), region };
        if let Some(known) = self.zones.iter().position(|known| *known == zone) {
            return Ok(ZoneId(known as u32));
        }
        let empty = |at: &usize| self.iter().all(|node| node.settings.zone.0 as usize != *at);
        let place = (0..self.zones.len()).find(empty).unwrap_or(self.zones.len());
        match self.zones.get_mut(place) {
            Some(left) => *left = zone,
            None => self.zones.push(zone),
        }
        Ok(ZoneId(place as u32))
    }

    pub(crate) fn check_region(&self, region: RegionId) -> Result<(), Impossible> {
        if region.0 as usize >= self.regions { Err(Impossible::NoSuchRegion) } else { Ok(()) }
    }

    pub(crate) fn regions(&self) -> impl Iterator<Item = RegionId> + use<> {
        (0..self.regions as u32).map(RegionId)
    }

    pub(crate) fn home(&self) -> RegionId {
        self.home
    }

    pub(crate) fn zones(&self) -> &[Zone] {
        &self.zones
    }

    /// Adds a node as a new incarnation. It is Down until it answers, then Wary; a node that a hook starts is Cold.
    /// Also returns whether its region drains.
    pub(crate) fn add(
        &mut self,
        settings: NodeSettings,
        now: Instant,
        effects: &mut Effects,
    ) -> Result<(NodeId, bool), Impossible> {
        let id = self.next_slot(now).ok_or(Impossible::NoRoomForNodes)?;
        let incarnation = self.board.reincarnate(id).ok_or(Impossible::NoRoomForNodes)?;
        self.mark_down(Hop { node: id, incarnation }, now);
        let pace = OpeningWindow::new(self.limits.openings_at_once);
        match self.paces.get_mut(id.0 as usize) {
            Some(left) => *left = pace,
            None => self.paces.push(pace),
        }
        if settings.probed == NodeProbing::Yes {
            effects.set(Timer::Probe(id), now);
        }
        if settings.canary {
            effects.set(Timer::Canary(id), now);
        }
        let distance = self.distance(settings.zone);
        self.put(Node::added((id, incarnation), settings, distance, self.timings, now));
        Ok((id, self.drained.contains(&self.region_of(id))))
    }

    /// Changes a node's settings and returns the previous ones.
    pub(crate) fn change(
        &mut self,
        id: NodeId,
        settings: NodeSettings,
        now: Instant,
        effects: &mut Effects,
    ) -> Result<NodeSettings, Impossible> {
        let node = self.get_mut(id).ok_or(Impossible::NoSuchNode)?;
        let before = std::mem::replace(&mut node.settings, settings);
        match (before.canary, node.settings.canary) {
            (false, true) => effects.set(Timer::Canary(id), now),
            (true, false) => {
                effects.cancel(&Timer::Canary(id));
                node.detector.forget_canaries();
            }
            (true, true) | (false, false) => {}
        }
        Ok(before)
    }

    pub(crate) fn is_drained(&self, region: RegionId) -> bool {
        self.drained.contains(&region)
    }

    /// Sets whether the region's present and future nodes drain.
    pub(crate) fn set_drained(&mut self, region: RegionId, draining: bool) {
        match draining {
            true => self.drained.insert(region),
            false => self.drained.remove(&region),
        };
    }

    /// Frees the slot of a node to which no room leads any more.
    pub(crate) fn forget(&mut self, id: NodeId, now: Instant, effects: &mut Effects) {
        self.start_failed(id, NotStarted::Removed, now, effects);
        if let Some(node) = self.get(id) {
            self.mark_down(node.hop(), now);
        }
        for timer in [Timer::Probe(id), Timer::Canary(id), Timer::Drain(id)] {
            effects.cancel(&timer);
        }
        if self.slots.get_mut(id.0 as usize).and_then(Option::take).is_some() {
            self.free.push_back((id, now));
        }
        effects.push(GatewayEffect::Forget { node: id });
    }
}
