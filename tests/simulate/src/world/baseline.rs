//! The baseline: periodic health checks, and clients that reopen sessions of a node that fails a check.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_model::{
    Hop, HopGrant, Incarnation, MediaLimits, NodeId, RedundancyMode, RoomId, Route, RouteCell,
    SessionId,
};

use super::{Event, World};
use crate::client::Phase;
use crate::node::Arrival;
use crate::worker::SessionState;

const ANSWERED_WITHIN: Duration = Duration::from_secs(1);

/// Distinguishes checks from probes.
const CHECK: u64 = 1 << 60;

impl World<'_> {
    pub(super) fn check_node(&mut self, node: usize) {
        if let Some(period) = self.script.baseline {
            self.put_in(period, Event::Check(node));
            self.checked[node].1 = false;
            self.send(node, Arrival::Probe { sequence: CHECK });
            self.put_in(ANSWERED_WITHIN, Event::Checked(node));
        }
    }

    /// The clients of a node that failed its check reopen, after a round trip.
    pub(super) fn judge_node(&mut self, node: usize) {
        let answered = self.checked[node].1;
        let was_healthy = std::mem::replace(&mut self.checked[node].0, answered);
        if answered || !was_healthy {
            return;
        }
        for client in 0..self.clients.len() as u32 {
            let one = &self.clients[client as usize];
            let stands = |id: SessionId| {
                self.sessions.get(id.0 as usize)?.as_deref()?.route.load().hops.first().copied()
            };
            let here =
                one.session.and_then(stands).is_some_and(|(hop, _)| hop.node.0 as usize == node);
            if here && one.phase == Phase::Live {
                let there_and_back = one.join.delay * 2;
                self.put_in(there_and_back, Event::Reopen(client));
            }
        }
    }

    /// Nodes that answered the last check: those of the home region, or all if there are none.
    fn healthy(&self) -> Vec<usize> {
        let settings = &self.script.settings;
        let is_home = |node: &usize| {
            settings.zones[settings.nodes[*node].zone.0 as usize].region == settings.home
        };
        let healthy: Vec<usize> =
            (0..self.nodes.len()).filter(|node| self.checked[*node].0).collect();
        let near: Vec<usize> = healthy.iter().copied().filter(is_home).collect();
        if near.is_empty() { healthy } else { near }
    }

    /// A client asks for a node; all clients of a room get the same one.
    pub(super) fn reopen(&mut self, client: u32) {
        let healthy = self.healthy();
        let room = self.clients[client as usize].join.room;
        if healthy.is_empty() {
            return self.put_in(Duration::from_secs(1), Event::Reopen(client));
        }
        let hop = Hop {
            node: NodeId(healthy[room as usize % healthy.len()] as u32),
            incarnation: Incarnation(1),
        };
        let session = SessionId(u64::from(client) + 1);
        let place = session.0 as usize;
        if self.sessions.len() <= place {
            self.sessions.resize_with(place + 1, || None);
        }
        if self.sessions[place].is_none() {
            let state = SessionState::new(
                session,
                RoomId(u64::from(room) + 1),
                client,
                Arc::default(),
                MediaLimits::default(),
            );
            self.sessions[place] = Some(Box::new(state));
        }
        self.open(session, RoomId(u64::from(room) + 1), hop);
    }

    /// The node accepted the session.
    pub(super) fn reopened(&mut self, tag: u32) {
        let tag = self.tags[tag as usize];
        let Some(state) = self.session(tag.session) else { return };
        let version = state.route.load().version + 1;
        let route = Route::new(version, RedundancyMode::Hot, [(tag.hop, HopGrant::Admitted)]);
        state.route = Arc::new(RouteCell::holding(route));
        if self.clients[tag.client as usize].phase == Phase::Offered {
            self.accepted(tag.client, tag.session);
        }
    }
}
