use std::time::Duration;

use evenkeel_model::{Incarnation, NodeId};

use super::*;

fn hop(node: u32) -> Hop {
    Hop { node: NodeId(node), incarnation: Incarnation(1) }
}

#[test]
fn answer_for_a_waiting_leg_is_ignored() {
    let until = Instant::now();
    let mut legs = Legs::default();
    legs.wait(hop(0), RoomId(1));
    assert_eq!((legs.opened(hop(0)), legs.failed(hop(0))), (None, None));
    legs.begin(hop(0), until);
    assert_eq!(legs.opened(hop(0)), Some(LegState::Opening(until)));
    assert!(legs.is_open(&hop(0)));
    assert_eq!(legs.failed(hop(0)), Some(LegState::Open));
    assert!(!legs.contains(&hop(0)));
}

#[test]
fn leg_is_late_from_its_deadline_on() {
    let now = Instant::now();
    let mut legs = Legs::default();
    legs.begin(hop(0), now + Duration::from_millis(5));
    legs.begin(hop(1), now + Duration::from_millis(9));
    legs.wait(hop(2), RoomId(1));
    assert_eq!(legs.late(now + Duration::from_millis(4)), []);
    assert_eq!(legs.late(now + Duration::from_millis(5)), [hop(0)]);
    legs.resume(hop(0));
    assert_eq!(legs.next_late(), Some(now + Duration::from_millis(9)));
}

#[test]
fn unused_legs_are_left() {
    let mut legs = Legs::default();
    legs.wait(hop(0), RoomId(1));
    legs.resume(hop(1));
    let left = legs.leave_unused(|used| *used == hop(1));
    assert_eq!(left, [LeftLeg { hop: hop(0), state: LegState::Waiting { call: RoomId(1) } }]);
    assert_eq!(legs.iter().count(), 1);
}
