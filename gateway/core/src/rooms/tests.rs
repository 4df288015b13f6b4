//! Accessors for tests of the gateway.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_model::{Hop, IdSet, NodeId, RoomId};

use super::*;

impl RoomTable {
    /// The dead hops that the room has not left yet.
    pub(crate) fn dead_hops(&self, id: &RoomId) -> Vec<Hop> {
        let deaths = self.failover.iter().flat_map(|failover| &failover.deaths);
        deaths.map(|(dead, _)| *dead).filter(|dead| self.all[*id].leads_to(*dead)).collect()
    }

    pub(crate) fn at(&self) -> &[IdSet<RoomId>] {
        &self.at
    }

    pub(crate) fn by_name(&self) -> &BTreeMap<Arc<str>, RoomId> {
        &self.by_name
    }

    pub(crate) fn away(&self) -> &BTreeSet<RoomId> {
        &self.away
    }

    pub(crate) fn changing(&self) -> &BTreeSet<RoomId> {
        &self.changing
    }

    pub(crate) fn stranded(&self) -> usize {
        self.stranded.len()
    }

    pub(crate) fn leave_cursors(&self) -> &BTreeMap<NodeId, RoomId> {
        &self.leave_cursors
    }
}

#[test]
fn session_room_name_is_recognised() {
    assert!(is_session_room_name(&session_room_name("conf", SessionId(7))));
    for room in ["conf", "conf~", "conf~s", "conf~7", "conf~s7x", "~", "conf~s7~a"] {
        assert!(!is_session_room_name(room), "{room}");
        assert_eq!(requested_room_name(room), room);
    }
    assert_eq!(requested_room_name("conf~s7"), "conf");
}

#[test]
fn room_takes_232_bytes() {
    assert_eq!(size_of::<Room>(), 232, "a gateway has very many");
}
