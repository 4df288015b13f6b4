use super::*;

fn rooms(count: u64) -> IdSet<RoomId> {
    let mut rooms = IdSet::default();
    (1..=count).for_each(|id| _ = rooms.insert(RoomId(id)));
    rooms
}

#[test]
fn drain_without_deadline_takes_full_batches_in_turns() {
    let now = Instant::now();
    let mut drains = Drains::default();
    assert!(drains.next_batch(NodeId(0), &rooms(1), now).is_none());
    drains.begin(NodeId(0), None, now);
    let there = rooms(300);
    let first = drains.next_batch(NodeId(0), &there, now).unwrap();
    assert_eq!((first.rooms.len(), first.next), (256, Some(now + DRAIN_EVERY)));
    let second = drains.next_batch(NodeId(0), &there, now).unwrap();
    assert_eq!(second.rooms.first(), Some(&RoomId(257)));
    let third = drains.next_batch(NodeId(0), &there, now).unwrap();
    assert_eq!(third.rooms.first(), Some(&RoomId(1)), "those that stayed are tried again");
}

#[test]
fn drain_with_deadline_spreads_rooms_over_its_time() {
    let now = Instant::now();
    let mut drains = Drains::default();
    drains.begin(NodeId(0), Some(Duration::from_secs(10)), now);
    let batch = drains.next_batch(NodeId(0), &rooms(320), now).unwrap();
    assert_eq!(batch.rooms.len(), 2, "320 rooms in 160 batches");
    let late = drains.next_batch(NodeId(0), &rooms(3), now + Duration::from_secs(10)).unwrap();
    assert!(matches!(late.ended, Some(CoreEvent::Drained { left: 3, .. })));
    let later = drains.next_batch(NodeId(0), &rooms(3), now + Duration::from_secs(11)).unwrap();
    assert!(later.ended.is_none(), "the deadline is reported once");
}

#[test]
fn empty_node_is_reported_once_until_a_room_returns() {
    let now = Instant::now();
    let mut drains = Drains::default();
    drains.begin(NodeId(0), None, now);
    let mut next = |count| drains.next_batch(NodeId(0), &rooms(count), now).unwrap();
    let empty = next(0);
    assert!(matches!(empty.ended, Some(CoreEvent::Drained { left: 0, .. })));
    assert_eq!(empty.next, None);
    assert!(next(0).ended.is_none());
    assert!(next(1).ended.is_none());
    assert!(next(0).ended.is_some());
    drains.end(NodeId(0));
    assert_eq!(drains.len(), 0);
}
