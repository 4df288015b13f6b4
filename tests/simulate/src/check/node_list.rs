//! The node list: only nodes marked to leave are forgotten, once nothing uses them, and all of them are.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use evenkeel_model::{Hop, NodeId};

use super::Scene;

/// A node that nothing uses is forgotten within this limit: packets in flight and the next turn of its drain.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(2);

type Found = Option<(&'static str, String)>;

#[derive(Default)]
pub(crate) struct NodeList {
    /// Nodes marked to leave, with the time since which nothing uses them.
    leaving: BTreeMap<NodeId, Option<Instant>>,
}

impl NodeList {
    pub(crate) fn leaves(&mut self, node: NodeId) {
        self.leaving.insert(node, None);
    }

    pub(crate) fn stays(&mut self, node: NodeId) {
        self.leaving.remove(&node);
    }

    /// A forgotten node was marked to leave, and neither a route nor an open session uses it.
    pub(super) fn forgotten(
        &mut self,
        node: NodeId,
        scene: &Scene,
        mut open: impl Iterator<Item = Hop>,
        now: Instant,
    ) -> Found {
        if self.leaving.remove(&node).is_none() {
            return Some(("list", format!("{node} is forgotten but listed")));
        }
        if let Some(room) = user_of(scene, node, now) {
            return Some(("list", format!("{node} is forgotten but used by room {room}")));
        }
        open.any(|hop| hop.node == node)
            .then(|| ("list", format!("{node} is forgotten but has an open session")))
    }

    /// Each unused node marked to leave is forgotten in time.
    pub(super) fn check(
        &mut self,
        scene: &Scene,
        open: &(impl Iterator<Item = Hop> + Clone),
        now: Instant,
    ) -> Found {
        let mut found = None;
        for (node, since) in &mut self.leaving {
            let used =
                user_of(scene, *node, now).is_some() || open.clone().any(|hop| hop.node == *node);
            let empty = *since.get_or_insert(now);
            if used {
                *since = None;
            } else if now - empty > FORGOTTEN_WITHIN {
                let text =
                    format!("{node} has been unused for {:?} and is not forgotten", now - empty);
                found.get_or_insert(("list", text));
            }
        }
        found
    }
}

/// A room that uses the node in its route, or still accepts its packets.
fn user_of(scene: &Scene, node: NodeId, now: Instant) -> Option<evenkeel_model::RoomId> {
    let leads = |room: &super::scene::SeenRoom| {
        let route = room.route.load();
        let leaving = route.leaving().is_some_and(|(hop, until)| hop.node == node && now < until);
        leaving || route.hops.iter().any(|(hop, _)| hop.node == node)
    };
    scene.rooms.iter().find(|(_, room)| leads(room)).map(|(id, _)| *id)
}
