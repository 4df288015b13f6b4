//! Changes of the node list while packets flow.

use std::time::Duration;

use evenkeel_model::{
    Affinity, NodeId, NodeProbing, NodeSettings, RedundancyMode, RegionId, RegionRole, Scenario,
    Stamp, Starts, ZoneId,
};

use super::{Event, World};
use crate::check::Why;
use crate::driver::LEASES_EVERY;
use crate::node::{Listing, Node};
use crate::script::draw_node;

impl World<'_> {
    /// Makes a random change.
    pub(super) fn relist(&mut self) {
        let of = |wanted: Listing| -> Vec<usize> {
            (0..self.nodes.len()).filter(|node| self.nodes[*node].listing == wanted).collect()
        };
        let (stay, leave) = (of(Listing::Stays), of(Listing::Leaves));
        match self.rng.u8(0..8) {
            0..3 => self.list_another(),
            3..5 if stay.len() > 1 => {
                let node = stay[self.rng.usize(0..stay.len())];
                let within =
                    self.rng.bool().then(|| Duration::from_millis(self.rng.u64(50..3_000)));
                self.delist(node, within);
            }
            5 if !leave.is_empty() => {
                let node = leave[self.rng.usize(0..leave.len())];
                self.keep(node);
            }
            _ if !stay.is_empty() => {
                let node = stay[self.rng.usize(0..stay.len())];
                self.change_node(node);
            }
            _ => {}
        }
        self.settle();
    }

    /// Lists a node in an existing or a new zone, if the limit allows.
    fn list_another(&mut self) {
        let settings = self.draw_listed();
        let slots = self.nodes.len();
        let Ok(id) = self
            .gateway
            .change_nodes(self.now, |nodes| nodes.handle_node_added(settings.clone(), self.now))
        else {
            return;
        };
        let node = id.0 as usize;
        let script = draw_node(&mut self.rng, &settings, &self.script.settings);
        self.trace.say(self.now, || format!("-- {id} is listed: {settings:?} {script:?}"));
        self.outcome.listed.added += 1;
        if node == slots {
            self.nodes.push(Node::new(script, self.rng.u64(..)));
            self.stamps.push(Stamp::default());
            self.checked.push((true, true));
            self.script.settings.nodes.push(settings);
            let phase = LEASES_EVERY.mul_f64(self.rng.f64());
            self.put_in(phase, Event::Leases { node });
            self.schedule_node(node);
        } else {
            self.outcome.listed.taken_again += 1;
            self.nodes[node].renew(script);
            self.script.settings.nodes[node] = settings;
        }
        self.checker.listed(id, &self.script.settings);
        self.update_catalog();
        self.refresh();
    }

    fn draw_listed(&mut self) -> NodeSettings {
        let settings = &self.script.settings;
        let zones = settings.zones.len();
        let (name, region) = match self.rng.usize(0..zones + 1) {
            new if new == zones => {
                let region = self.rng.usize(0..settings.regions.len());
                (format!("new{}", self.rng.u8(0..3)), RegionId(region as u32))
            }
            known => (settings.zones[known].name.to_string(), settings.zones[known].region),
        };
        let zone = self.gateway.zone(&name, region).expect("the region is there");
        self.script.settings.zones = self.gateway.node_table().zones().to_vec();
        let settings = &self.script.settings;
        let cold =
            settings.scenarios.values().any(|scenario| scenario.mode == RedundancyMode::Cold);
        let starts = match cold && self.rng.u8(0..3) == 0 {
            true => Starts::ByHook { within: Duration::from_millis(self.rng.u64(500..3_000)) },
            false => Starts::ByItself,
        };
        let probed = starts != Starts::ByItself
            || settings.scenarios.values().any(is_meshed)
            || self.rng.u8(0..8) > 0;
        let name = format!("listed{}", self.outcome.listed.added);
        let capacity_kbps = self.rng.u64(300..10_000);
        NodeSettings {
            probed: if probed { NodeProbing::Yes } else { NodeProbing::No },
            role: if self.rng.u8(0..4) == 0 { RegionRole::Standby } else { RegionRole::Active },
            starts,
            canary: self.rng.bool(),
            ..NodeSettings::new(name, zone, capacity_kbps)
        }
    }

    fn delist(&mut self, node: usize, within: Option<Duration>) {
        let id = NodeId(node as u32);
        self.trace.say(self.now, || format!("-- {id} is listed no longer, within {within:?}"));
        self.nodes[node].listing = Listing::Leaves;
        self.outcome.listed.removed += 1;
        self.checker.drains.over(id);
        if let Some(within) = within {
            self.checker.drains.begun(id, self.now + within);
        }
        self.checker.node_list.leaves(id);
        self.checker.causes.emptied(id, Why::Delisted, true);
        self.gateway
            .change_nodes(self.now, |nodes| nodes.handle_node_removed(id, within, self.now))
            .expect("it is there");
    }

    fn keep(&mut self, node: usize) {
        let id = NodeId(node as u32);
        self.trace.say(self.now, || format!("-- {id} stays after all"));
        self.nodes[node].listing = Listing::Stays;
        self.outcome.listed.kept += 1;
        self.checker.drains.over(id);
        self.checker.node_list.stays(id);
        self.checker.causes.emptied(id, Why::Delisted, false);
        self.gateway
            .change_nodes(self.now, |nodes| nodes.handle_node_kept(id, self.now))
            .expect("it is there, and leaves");
    }

    /// Changes capacity, role, canary, or zone within the region.
    fn change_node(&mut self, node: usize) {
        let id = NodeId(node as u32);
        let zones = &self.script.settings.zones;
        let before = &self.script.settings.nodes[node];
        let region = zones[before.zone.0 as usize].region;
        let near: Vec<usize> = (0..zones.len()).filter(|at| zones[*at].region == region).collect();
        let mut after = before.clone();
        match self.rng.u8(0..6) {
            0 => after.canary = !after.canary,
            1 => after.zone = ZoneId(near[self.rng.usize(0..near.len())] as u32),
            2 => {
                after.role = if self.rng.bool() { RegionRole::Standby } else { RegionRole::Active }
            }
            _ => after.capacity_kbps = self.rng.u64(300..10_000),
        }
        self.trace.say(self.now, || format!("-- {id} becomes {after:?}"));
        self.outcome.listed.changed += 1;
        self.script.settings.nodes[node] = after.clone();
        self.checker.changed(id, &after, self.now);
        self.gateway
            .change_nodes(self.now, |nodes| nodes.handle_node_changed(id, after, self.now))
            .expect("it is there");
        self.update_catalog();
    }

    /// The core forgot the node.
    pub(super) fn forget(&mut self, id: NodeId) {
        self.nodes[id.0 as usize].listing = Listing::Gone;
        self.stamps[id.0 as usize] = Stamp::default();
        self.outcome.listed.forgotten += 1;
        self.checker.drains.over(id);
        self.update_catalog();
    }

    /// True if canary sessions are open at the node.
    pub(super) fn keeps_canaries(&self, node: usize) -> bool {
        self.nodes[node].listing != Listing::Gone && self.script.settings.nodes[node].canary
    }

    fn update_catalog(&mut self) {
        let there = |node: usize| self.nodes[node].listing != Listing::Gone;
        let there: Vec<bool> = (0..self.nodes.len()).map(there).collect();
        self.policies.set_catalog(&self.script.settings, &there);
    }
}

/// True if nodes of the scenario forward media to each other.
pub(super) fn is_meshed(scenario: &Scenario) -> bool {
    scenario.affinity == Affinity::Session
}
