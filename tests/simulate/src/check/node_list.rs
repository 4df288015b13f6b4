//! The list of nodes: who is forgotten was to go, and nothing leads there any more; and who can be forgotten is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use evenkeel_core::{Hop, NodeId};

use super::Scene;

/// A node that nothing leads to any more is forgotten within this: what it still delivers, and a drain's next turn.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(2);

type Found = Option<(&'static str, String)>;

#[derive(Default)]
pub(crate) struct Listing {
    /// Nodes that are to go, and since when nothing leads there.
    leaving: BTreeMap<NodeId, Option<Instant>>,
}

impl Listing {
    pub(crate) fn leaves(&mut self, node: NodeId) {
        self.leaving.insert(node, None);
    }

    pub(crate) fn stays(&mut self, node: NodeId) {
        self.leaving.remove(&node);
    }

    /// The node is forgotten: it was to go, and no route leads there, nor is a session open there.
    pub(super) fn forgotten(
        &mut self,
        node: NodeId,
        scene: &Scene,
        mut open: impl Iterator<Item = Hop>,
        now: Instant,
    ) -> Found {
        if self.leaving.remove(&node).is_none() {
            return Some(("list", format!("{node} is forgotten, and is listed")));
        }
        if let Some(room) = leads(scene, node, now) {
            return Some(("list", format!("{node} is forgotten, and room {room} leads there")));
        }
        open.any(|hop| hop.node == node)
            .then(|| ("list", format!("{node} is forgotten, and a session is open there")))
    }

    /// Nobody stays for ever that could go.
    pub(super) fn forgotten_in_time(
        &mut self,
        scene: &Scene,
        open: &(impl Iterator<Item = Hop> + Clone),
        now: Instant,
    ) -> Found {
        let mut found = None;
        for (node, since) in &mut self.leaving {
            let used =
                leads(scene, *node, now).is_some() || open.clone().any(|hop| hop.node == *node);
            let empty = *since.get_or_insert(now);
            if used {
                *since = None;
            } else if now - empty > FORGOTTEN_WITHIN {
                let text = format!(
                    "nothing leads to {node} for {:?}, and it is not forgotten",
                    now - empty
                );
                found.get_or_insert(("list", text));
            }
        }
        found
    }
}

/// A room whose route leads to the node, or that still hears it.
fn leads(scene: &Scene, node: NodeId, now: Instant) -> Option<evenkeel_core::RoomId> {
    let leads = |room: &super::scene::SeenRoom| {
        let route = room.route.load();
        let leaving = route.leaving.is_some_and(|(hop, until)| hop.node == node && now < until);
        leaving || route.hops.iter().any(|(hop, _)| hop.node == node)
    };
    scene.rooms.iter().find(|(_, room)| leads(room)).map(|(id, _)| *id)
}
