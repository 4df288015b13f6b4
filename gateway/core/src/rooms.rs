//! Rooms and their routes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Index;
use std::sync::Arc;
use std::time::Instant;

use crate::alike::Alike;
use crate::few::FewSet;
use crate::gateway::calls::Call;
use crate::gateway::draining::Drain;
use crate::gateway::failing::Herd;
use crate::room::{Room, Stranded};
use crate::{Decider, FailBack, Hop, NodeId, RoomId};

#[derive(Debug)]
pub(crate) struct Rooms {
    pub(crate) all: BTreeMap<RoomId, Box<Room>>,
    pub(crate) next: u64,
    pub(crate) by_name: BTreeMap<Arc<str>, RoomId>,
    /// Calls whose sessions are rooms of their own, by name.
    pub(crate) calls: BTreeMap<Arc<str>, Call>,
    /// Rooms that have still to take what their scenarios say now.
    pub(crate) changing: BTreeSet<RoomId>,
    /// Rooms that stand somewhere.
    pub(crate) placed: usize,
    /// Rooms whose route leads to a node, in force or under way, by the node's number.
    pub(crate) at: Vec<BTreeSet<RoomId>>,
    /// Rooms of the node that died last, as long as some have still to go on without it.
    pub(crate) herd: Option<Herd>,
    /// Rooms without a usable hop: how often each was looked at in vain, its priority, its id.
    pub(crate) stranded: BTreeSet<(u32, Reverse<i64>, RoomId)>,
    /// The last of them that was looked at, where the next look begins behind it.
    pub(crate) rescued_last: Option<(u32, Reverse<i64>, RoomId)>,
    /// Rooms without a usable hop wait until a node has opened more of others.
    pub(crate) paced: bool,
    /// Rooms that would be stranded by the death of their node.
    pub(crate) unreserved: BTreeSet<RoomId>,
    /// The last of them that was weighed again.
    pub(crate) weighed_last: RoomId,
    /// Whether rooms go back there, by the region's number.
    pub(crate) fail_backs: Vec<FailBack>,
    /// Rooms that stand elsewhere than they natively would, and nobody meant it.
    pub(crate) away: BTreeSet<RoomId>,
    /// The last of them that went back, or was looked at.
    pub(crate) failed_back_last: RoomId,
    /// Nodes that are being drained.
    pub(crate) drains: BTreeMap<NodeId, Drain>,
    /// Rooms that left last a node that loses more than others.
    pub(crate) leave_cursors: BTreeMap<NodeId, RoomId>,
    pub(crate) deciders: Alike<Decider>,
}

impl Rooms {
    pub(crate) fn new(nodes: usize, regions: usize) -> Rooms {
        Rooms {
            all: BTreeMap::new(),
            next: 1,
            by_name: BTreeMap::new(),
            calls: BTreeMap::new(),
            changing: BTreeSet::new(),
            placed: 0,
            at: vec![BTreeSet::new(); nodes],
            herd: None,
            stranded: BTreeSet::new(),
            rescued_last: None,
            paced: false,
            unreserved: BTreeSet::new(),
            weighed_last: RoomId(0),
            fail_backs: vec![FailBack::default(); regions],
            away: BTreeSet::new(),
            failed_back_last: RoomId(0),
            drains: BTreeMap::new(),
            leave_cursors: BTreeMap::new(),
            deciders: Alike::default(),
        }
    }

    pub(crate) fn get(&self, id: &RoomId) -> Option<&Room> {
        self.all.get(id).map(|room| &**room)
    }

    pub(crate) fn get_mut(&mut self, id: &RoomId) -> Option<&mut Room> {
        self.all.get_mut(id).map(|room| &mut **room)
    }

    pub(crate) fn contains_key(&self, id: &RoomId) -> bool {
        self.all.contains_key(id)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &Room> {
        self.all.values().map(|room| &**room)
    }

    pub(crate) fn set_placed_by(&mut self, id: RoomId, by: Decider) {
        if let Some(room) = self.all.get_mut(&id) {
            room.placed_by = self.deciders.share(by);
        }
    }

    pub(crate) fn strand(&mut self, id: RoomId, lost: Hop, since: Instant) {
        if let Some(room) = self.all.get_mut(&id) {
            room.stranded = Some(Stranded { lost, since, attempts: 0 });
            self.stranded.insert((0, Reverse(room.priority), id));
        }
    }

    pub(crate) fn unstrand(&mut self, id: RoomId) {
        if let Some(room) = self.all.get_mut(&id)
            && let Some(Stranded { attempts, .. }) = room.stranded.take()
        {
            self.stranded.remove(&(attempts, Reverse(room.priority), id));
        }
    }

    /// Rooms that were tried less often go first.
    pub(crate) fn count_attempt(&mut self, id: RoomId) {
        if let Some(room) = self.all.get_mut(&id)
            && let Some(Stranded { attempts, .. }) = &mut room.stranded
        {
            self.stranded.remove(&(*attempts, Reverse(room.priority), id));
            *attempts = attempts.saturating_add(1);
            self.stranded.insert((*attempts, Reverse(room.priority), id));
        }
    }

    /// Lists the room under every node that its route leads to, in force or pending.
    pub(crate) fn list(&mut self, id: RoomId) {
        let Some(room) = self.all.get_mut(&id) else {
            return;
        };
        let route = room.route();
        let pending = room.pending.iter().flat_map(|pending| &pending.hops);
        let nodes: FewSet<NodeId> =
            route.hops.iter().map(|(hop, _)| hop).chain(pending).map(|hop| hop.node).collect();
        if nodes == room.listed {
            return;
        }
        for gone in room.listed.iter().filter(|node| !nodes.contains(node)) {
            self.at[gone.0 as usize].remove(&id);
        }
        for new in nodes.iter().filter(|node| !room.listed.contains(node)) {
            self.at[new.0 as usize].insert(id);
        }
        room.listed = nodes;
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }
}

impl Index<&RoomId> for Rooms {
    type Output = Room;

    fn index(&self, id: &RoomId) -> &Room {
        &self.all[id]
    }
}
