//! Changes to the list of nodes while packets flow.

use std::time::Instant;

use evenkeel_model::{
    Hop, Impossible, NodeId, NodeProbing, NodeSettings, NotStarted, RegionId, Zone, ZoneId,
};

use super::{Node, NodeEffect, NodeTable, NodeTimer, OpeningWindow};

impl NodeTable {
    /// The zone with this name in the region. A new zone takes the number of a zone without nodes, or the next number.
    /// The caller must add a node to it at once.
    pub fn zone(&mut self, name: &str, region: RegionId) -> Result<ZoneId, Impossible> {
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

    pub fn check_region(&self, region: RegionId) -> Result<(), Impossible> {
        if region.0 as usize >= self.regions { Err(Impossible::NoSuchRegion) } else { Ok(()) }
    }

    pub fn regions(&self) -> impl Iterator<Item = RegionId> + use<> {
        (0..self.regions as u32).map(RegionId)
    }

    pub fn home(&self) -> RegionId {
        self.home
    }

    pub fn zones(&self) -> &[Zone] {
        &self.zones
    }

    /// Adds a node as a new incarnation. It is Down until it answers, then Wary; a node that a hook starts is Cold.
    /// Also returns whether its region drains.
    pub fn add(
        &mut self,
        settings: NodeSettings,
        now: Instant,
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
            self.set(NodeTimer::Probe(id), now);
        }
        if settings.canary {
            self.set(NodeTimer::Canary(id), now);
        }
        let distance = self.distance(settings.zone);
        self.put(Node::added((id, incarnation), settings, distance, self.timings, now));
        Ok((id, self.drained.contains(&self.region_of(id))))
    }

    /// Changes a node's settings and returns the previous ones.
    pub fn change(
        &mut self,
        id: NodeId,
        settings: NodeSettings,
        now: Instant,
    ) -> Result<NodeSettings, Impossible> {
        let node = self.get_mut(id).ok_or(Impossible::NoSuchNode)?;
        let before = std::mem::replace(&mut node.settings, settings);
        match (before.canary, node.settings.canary) {
            (false, true) => self.set(NodeTimer::Canary(id), now),
            (true, false) => {
                node.detector.forget_canaries();
                self.cancel(NodeTimer::Canary(id));
            }
            (true, true) | (false, false) => {}
        }
        Ok(before)
    }

    pub fn is_drained(&self, region: RegionId) -> bool {
        self.drained.contains(&region)
    }

    /// Sets whether the region's present and future nodes drain.
    pub fn set_drained(&mut self, region: RegionId, draining: bool) {
        match draining {
            true => self.drained.insert(region),
            false => self.drained.remove(&region),
        };
    }

    /// Frees the slot of a node to which no room leads any more.
    pub fn forget(&mut self, id: NodeId, now: Instant) {
        self.start_failed(id, NotStarted::Removed, now);
        if let Some(node) = self.get(id) {
            self.mark_down(node.hop(), now);
        }
        for timer in [NodeTimer::Probe(id), NodeTimer::Canary(id), NodeTimer::Drain(id)] {
            self.cancel(timer);
        }
        if self.slots.get_mut(id.0 as usize).and_then(Option::take).is_some() {
            self.free.push_back((id, now));
        }
        self.effects.push_back(NodeEffect::Forget { node: id });
    }
}
