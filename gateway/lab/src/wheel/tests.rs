use super::*;

const MS: u64 = 1_000_000;
const NONE: [usize; 0] = [];

fn turned(wheel: &mut Wheel, now_ns: u64) -> Vec<usize> {
    let mut due = Vec::new();
    wheel.turn(now_ns, &mut due);
    due
}

#[test]
fn key_wakes_at_its_time_and_not_before() {
    let mut wheel = Wheel::new(0);
    wheel.arm(7, 20 * MS);
    assert_eq!(wheel.sleep_ms(0), Some(20));
    assert_eq!(turned(&mut wheel, 20 * MS - 1), NONE);
    assert_eq!(turned(&mut wheel, 20 * MS), [7]);
    assert_eq!(turned(&mut wheel, 2_000 * MS), NONE);
    assert_eq!(wheel.sleep_ms(2_000 * MS), None);
}

#[test]
fn key_beyond_a_turn_waits() {
    let mut wheel = Wheel::new(0);
    wheel.arm(1, 5 * MS);
    wheel.arm(2, (5 + SLOTS as u64) * MS);
    assert_eq!(turned(&mut wheel, 5 * MS), [1]);
    assert_eq!(turned(&mut wheel, (4 + SLOTS as u64) * MS), NONE);
    assert_eq!(turned(&mut wheel, (5 + SLOTS as u64) * MS), [2]);
}

#[test]
fn long_stall_wakes_every_key_once() {
    let mut wheel = Wheel::new(0);
    for key in 0..50 {
        wheel.arm(key, key as u64 * 90 * MS);
    }
    let mut due = turned(&mut wheel, 10_000 * MS);
    due.sort_unstable();
    assert_eq!(due, (0..50).collect::<Vec<_>>());
}

#[test]
fn time_already_past_wakes_at_the_next_turn() {
    let mut wheel = Wheel::new(100 * MS);
    wheel.arm(3, 10 * MS);
    assert_eq!(turned(&mut wheel, 100 * MS), NONE);
    assert_eq!(turned(&mut wheel, 101 * MS), [3]);
}
