use std::sync::Arc;

use evenkeel_model::{Decider, HopGrant, Incarnation, MoveCause, Param, Route};
use evenkeel_nodes::NodeTable;

use super::*;
use crate::gateway::tests::{ms, settings};

const A: NodeId = NodeId(0);
const B: NodeId = NodeId(1);

fn hop(node: NodeId) -> Hop {
    Hop { node, incarnation: Incarnation(1) }
}

impl StrandedRooms {
    pub(crate) fn len(&self) -> usize {
        self.rooms.len()
    }
}

impl AwayRooms {
    pub(crate) fn rooms(&self) -> &BTreeSet<RoomId> {
        &self.rooms
    }
}

impl RoomsByNode {
    pub(crate) fn all(&self) -> &[IdSet<RoomId>] {
        &self.rooms
    }

    pub(crate) fn has_left_none(&self) -> bool {
        self.left.is_empty()
    }
}

/// A room whose route has these hops.
fn room(id: u64, priority: i64, hops: &[NodeId]) -> Room {
    let (name, scenario) = (Arc::from(id.to_string()), Arc::from("call"));
    let labels = Arc::from(Vec::new());
    let mut room = Room::new(RoomId(id), name, scenario, labels, RegionId(0), RoomId(id));
    room.resolve(&[(Param::Spares, 1), (Param::Priority, priority)]);
    let hops = hops.iter().map(|node| (hop(*node), HopGrant::Admitted)).collect::<Vec<_>>();
    room.cell().publish(Route::new(1, room.mode(), hops));
    room
}

#[test]
fn failover_lists_rooms_without_hop_first() {
    let now = Instant::now();
    let nodes = NodeTable::new(&mut settings(), now);
    let mut rooms = [room(1, 0, &[B, A]), room(2, 0, &[A]), room(3, 9, &[A])];
    let mut at = RoomsByNode { rooms: vec![IdSet::default(); 2], left: BTreeMap::new() };
    rooms.iter_mut().for_each(|room| at.relist(room));
    nodes.mark_down(hop(A), now);
    let mut failover = Failover::default();
    assert!(!failover.is_under_way() && failover.is_listed());
    failover.note_death(Death::new(hop(A), now), vec![B]);
    failover.begin(A);
    assert!(!failover.is_listed() && failover.concerns(A) && failover.concerns(B));
    assert!(rooms.iter().all(|room| failover.waits(room)));
    let find = |id: RoomId| rooms.iter().find(|room| room.id() == id);
    failover.list_next(&at, find, nodes.board());
    failover.unlist(&rooms[1]);
    assert_eq!(failover.next(), Some(RoomId(3)), "of higher priority");
    assert_eq!(failover.next(), Some(RoomId(1)), "it is carried by another node");
    assert_eq!(failover.next(), None);
    assert_eq!(failover.end(), BTreeSet::from([B]));
    assert!(!failover.is_under_way() && failover.deaths().is_empty());
}

#[test]
fn stranded_rooms_go_by_attempts_then_priority() {
    let mut stranded = StrandedRooms::default();
    let listed = |after| RescueChange::new(None, Some(after));
    stranded.apply(&room(1, 0, &[A]), listed(0));
    stranded.apply(&room(2, 5, &[A]), listed(0));
    stranded.apply(&room(3, 9, &[A]), listed(1));
    let batch = stranded.begin_batch();
    assert_eq!(batch.rooms().collect::<Vec<_>>(), [RoomId(2), RoomId(1), RoomId(3)]);
    stranded.end_batch(&batch, false);
    assert!(stranded.go_first() && !stranded.is_paced());
    assert!(stranded.go_before(RoomId(2)), "another one was not tried yet");
    let tried = RescueChange::new(Some(0), Some(1));
    stranded.apply(&room(1, 0, &[A]), tried);
    assert!(!stranded.go_before(RoomId(2)));
    stranded.apply(&room(2, 5, &[A]), RescueChange::new(Some(0), None));
    assert!(!stranded.go_first());
}

#[test]
fn free_queue_gives_the_first_rooms_the_turn() {
    let mut stranded = StrandedRooms::default();
    for id in 0..600 {
        stranded.apply(&room(id, 0, &[A]), RescueChange::new(None, Some(0)));
    }
    let batch = stranded.begin_batch();
    stranded.pace();
    stranded.end_batch(&batch, false);
    let next = stranded.begin_batch();
    assert_eq!(next.rooms().next(), Some(RoomId(512)), "the whole batch waits for queues");
    stranded.end_batch(&next, false);
    assert!(stranded.is_paced(), "rooms in front wait still");
    assert!(stranded.take_free_queue() && !stranded.take_free_queue());
    assert_eq!(stranded.begin_batch().rooms().next(), Some(RoomId(0)));
}

#[test]
fn turns_begin_again_after_the_last_room() {
    let mut turns = RoomTurns::default();
    (1..=3).for_each(|id| turns.set(RoomId(id), true));
    assert_eq!(turns.next(2), [RoomId(1), RoomId(2)]);
    assert_eq!(turns.next(2), [RoomId(3)]);
    turns.set(RoomId(2), false);
    assert_eq!(turns.next(2), [RoomId(1), RoomId(3)]);
}

#[test]
fn away_rooms_are_counted_by_region() {
    let mut lists = Worklists::new(2, 2);
    let new = |id| {
        let (name, scenario, labels) = ("r".into(), "call".into(), Arc::from(Vec::new()));
        Room::new(RoomId(id), name, scenario, labels, RegionId(1), RoomId(id))
    };
    lists.away.set(&new(1), true);
    lists.away.set(&new(1), true);
    lists.away.set(&new(2), true);
    assert_eq!((lists.away.of_region(RegionId(0)), lists.away.of_region(RegionId(1))), (0, 2));
    lists.away.set(&new(1), false);
    assert_eq!(lists.away.of_region(RegionId(1)), 1);
    assert!(!lists.away.set_failback(Some(RegionId(2)), Failback::Forbid));
    assert!(lists.away.set_failback(Some(RegionId(1)), Failback::Forbid));
    assert_eq!(lists.away.failback(RegionId(0)), Failback::Auto);
    assert_eq!(lists.away.failback(RegionId(1)), Failback::Forbid);
}

#[test]
fn return_continues_after_the_room_that_was_found() {
    let mut away = Worklists::new(1, 1).away;
    (1..=3).for_each(|id| away.set(&room(id, 0, &[]), true));
    let turn = away.turn();
    assert!(!away.end_turn(&turn, Some(RoomId(2))));
    assert_eq!(away.turn(), [RoomId(3)]);
    assert!(away.end_turn(&[RoomId(3)], None), "none can return at this time");
    assert_eq!(away.turn().len(), 3);
}

#[test]
fn port_move_is_explained_by_a_death_within_two_seconds() {
    let now = Instant::now();
    let moved = || PortMove {
        room: RoomId(1),
        room_name: "r".into(),
        scenario: "call".into(),
        sessions: Vec::new(),
        took: ms(5),
    };
    let mut ports = ClosedPorts::default();
    assert!(ports.note_move(hop(A), moved(), now), "its port was open");
    ports.note(RoomId(1), hop(A), now);
    assert!(!ports.note_move(hop(A), moved(), now + ms(1)));
    assert_eq!(ports.take_explained(hop(B), now + ms(2)), []);
    assert_eq!(ports.take_explained(hop(A), now + ms(1_999)).len(), 1);
    assert!(ports.is_empty());
    ports.note(RoomId(1), hop(A), now);
    assert!(!ports.note_move(hop(A), moved(), now));
    assert_eq!(ports.take_explained(hop(A), now + ms(2_000)), []);
    assert!(ports.take_settled(now + ms(1_999)).is_empty());
    assert_eq!(ports.take_settled(now + ms(2_000))[&hop(A)].len(), 1);
}

#[test]
fn ended_room_is_on_no_list() {
    let now = Instant::now();
    let mut lists = Worklists::new(2, 1);
    let mut room = room(1, 0, &[A]);
    lists.by_node.relist(&mut room);
    lists.away.set(&room, true);
    lists.changing.insert(room.id());
    lists.set_protection(room.id(), Protection::Unreserved);
    assert_eq!((lists.longest(), lists.unprotected()), (1, 1));
    let (to, by) = (vec![hop(B)], Arc::new(Decider::Native));
    let _ = room.head_for(to, MoveCause::Drain, by, Some(hop(A)), now);
    lists.forget(&room);
    assert_eq!((lists.longest(), lists.unprotected()), (0, 0));
}
