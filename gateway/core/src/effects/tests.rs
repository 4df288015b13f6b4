use std::time::Duration;

use super::*;

#[test]
fn reset_timer_fires_once() {
    let now = Instant::now();
    let later = now + Duration::from_millis(5);
    let mut timers = Effects::default();
    timers.set(Timer::Sweep, now);
    timers.set(Timer::Sweep, later);
    assert_eq!(timers.pop_timer(now), None);
    assert_eq!(timers.pop_timer(later), Some(Timer::Sweep));
    assert_eq!(timers.pop_timer(later), None);
}

#[test]
fn timers_fire_in_the_order_of_their_times() {
    let now = Instant::now();
    let mut timers = Effects::default();
    timers.set(Timer::Sweep, now + Duration::from_millis(2));
    timers.set(Timer::Rescue, now + Duration::from_millis(1));
    assert_eq!(timers.next_timer(), Some(now + Duration::from_millis(1)));
    assert_eq!(timers.pop_timer(now + Duration::from_millis(9)), Some(Timer::Rescue));
    assert_eq!(timers.pop_timer(now + Duration::from_millis(9)), Some(Timer::Sweep));
}
