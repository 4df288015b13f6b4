//! What others do: a health check now and then, and clients that open again once their node is found dead.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::{
    Grant, Hop, Incarnation, Mode, NodeId, Plan, RoomId, Route, RouteCell, SessionId,
};

use super::{Event, World};
use crate::client::Phase;
use crate::node::Arrival;
use crate::worker::Home;

/// What does not answer a check for so long is dead.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);

/// A check is told from a probe by its number.
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

    /// Whoever is at a node that did not answer opens again, as soon as they were told.
    pub(super) fn judge_node(&mut self, node: usize) {
        let answered = self.checked[node].1;
        let was_well = std::mem::replace(&mut self.checked[node].0, answered);
        if answered || !was_well {
            return;
        }
        for client in 0..self.clients.len() as u32 {
            let one = &self.clients[client as usize];
            let stands = |id: SessionId| {
                self.homes.get(id.0 as usize)?.as_deref()?.route.load().hops.first().copied()
            };
            let here =
                one.session.and_then(stands).is_some_and(|(hop, _)| hop.node.0 as usize == node);
            if here && one.phase == Phase::Live {
                let there_and_back = one.join.delay * 2;
                self.put_in(there_and_back, Event::Reopen(client));
            }
        }
    }

    /// Nodes that answered the last check, of the region at home; where none is left there, of all.
    fn well(&self) -> Vec<usize> {
        let settings = &self.script.settings;
        let is_home = |node: &usize| {
            settings.zones[settings.nodes[*node].zone.0 as usize].region == settings.home
        };
        let well: Vec<usize> = (0..self.nodes.len()).filter(|node| self.checked[*node].0).collect();
        let near: Vec<usize> = well.iter().copied().filter(is_home).collect();
        if near.is_empty() { well } else { near }
    }

    /// A client asks for its room's node; all of a room are told the same one.
    pub(super) fn reopen(&mut self, client: u32) {
        let well = self.well();
        let room = self.clients[client as usize].join.room;
        if well.is_empty() {
            return self.put_in(Duration::from_secs(1), Event::Reopen(client));
        }
        let hop = Hop {
            node: NodeId(well[room as usize % well.len()] as u32),
            incarnation: Incarnation(1),
        };
        let session = SessionId(u64::from(client) + 1);
        let place = session.0 as usize;
        if self.homes.len() <= place {
            self.homes.resize_with(place + 1, || None);
        }
        if self.homes[place].is_none() {
            let home = Home::new(
                session,
                RoomId(u64::from(room) + 1),
                client,
                Arc::default(),
                Plan::default(),
            );
            self.homes[place] = Some(Box::new(home));
        }
        self.open(session, RoomId(u64::from(room) + 1), hop);
    }

    /// The node took it: from now on this is its way.
    pub(super) fn reopened(&mut self, tag: u32) {
        let tag = self.tags[tag as usize];
        let Some(home) = self.home(tag.session) else { return };
        let version = home.route.load().version + 1;
        let route = Route {
            version,
            mode: Mode::Hot,
            hops: vec![(tag.hop, Grant::Admitted)],
            leaving: None,
            lead: Duration::ZERO,
        };
        home.route = Arc::new(RouteCell::holding(route));
        if self.clients[tag.client as usize].phase == Phase::Offered {
            self.accepted(tag.client, tag.session);
        }
    }
}
