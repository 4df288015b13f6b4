//! Operator actions: drains, moves, failback, and mode changes.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::Failback;
use evenkeel_model::{Hook, NodeId, PolicyName, RedundancyMode, Scenario};

use super::World;
use crate::check::Why;
use crate::script::any_mode;

impl World<'_> {
    pub(super) fn failback(&mut self, failback: Failback) {
        self.checker.causes.failback(failback, self.now);
        let _ = self.gateway.handle_failback(None, failback, self.now);
        self.settle();
    }

    pub(super) fn drain_timeout(&mut self, nodes: &[usize], within: Duration) {
        for node in nodes {
            let node = NodeId(*node as u32);
            // The call fails for a forgotten node.
            if self
                .gateway
                .change_nodes(self.now, |nodes| {
                    nodes.handle_drain(node, true, Some(within), self.now)
                })
                .is_ok()
            {
                self.checker.causes.emptied(node, Why::Drained, true);
                self.expect_drained(&[node.0 as usize], within);
            }
        }
        self.settle();
    }

    pub(super) fn expect_drained(&mut self, nodes: &[usize], within: Duration) {
        for node in nodes {
            self.checker.drains.begun(NodeId(*node as u32), self.now + within);
        }
    }

    pub(super) fn drain(&mut self, node: usize, draining: bool) {
        let node = NodeId(node as u32);
        self.checker.drains.over(node);
        if self
            .gateway
            .change_nodes(self.now, |nodes| nodes.handle_drain(node, draining, None, self.now))
            .is_ok()
        {
            self.checker.causes.emptied(node, Why::Drained, draining);
        }
        self.settle();
    }

    /// Asks about every room, as after a new revision of each routing policy.
    pub(super) fn ask_about_every_room(&mut self) {
        for set in ["call", "live"] {
            let policy = PolicyName { set: set.into(), hook: Hook::Routing };
            self.gateway.handle_policy_changed(&policy, self.now);
            self.settle();
        }
    }

    pub(super) fn change_modes(&mut self) {
        let regions = self.script.settings.regions.len() as u32;
        let mut scenarios = self.script.settings.scenarios.clone();
        for scenario in scenarios.values_mut() {
            any_mode(&mut self.rng, regions, scenario);
            if self.rng.u8(0..3) == 0 {
                scenario.mode = RedundancyMode::Hot;
            }
            scenario.spares = self.rng.u8(1..4);
        }
        self.gateway.handle_scenarios(&scenarios, self.now);
        self.settle();
    }

    /// Performs a random action.
    pub(super) fn operate(&mut self) {
        let hot = |scenario: &Scenario| scenario.mode == RedundancyMode::Hot;
        if !self.script.settings.scenarios.values().all(hot) && self.rng.u8(0..4) == 0 {
            self.change_modes();
        }
        let node = self.rng.usize(0..self.nodes.len());
        let room: Arc<str> = format!("room{}", self.rng.usize(0..self.room_clients.len())).into();
        match self.rng.u8(0..6) {
            0 => self.drain(node, true),
            1 | 2 => self.drain(node, false),
            _ => {
                // The move fails if the room is already at the node or the node is full.
                let to = NodeId(node as u32);
                if self.gateway.handle_move(&room, to, self.now).is_ok() {
                    self.checker.causes.asked(&room, to);
                }
                self.settle();
            }
        }
    }
}
