use std::time::Duration;

use super::*;

impl TimerQueue {
    pub(crate) fn iter(&self) -> impl Iterator<Item = Timer> {
        let rooms = self.rooms_by_time.values().flat_map(IdSet::iter).map(Timer::RoomDue);
        self.by_time.iter().map(|(_, timer)| timer.clone()).chain(rooms)
    }
}

fn room(number: u64) -> Timer {
    Timer::RoomDue(RoomId(number))
}

#[test]
fn reset_timer_fires_once() {
    let now = Instant::now();
    let later = now + Duration::from_millis(5);
    for timer in [Timer::Sweep, room(7)] {
        let mut timers = TimerQueue::default();
        timers.set(timer.clone(), now);
        timers.set(timer.clone(), later);
        assert_eq!((timers.len(), timers.due(&timer)), (1, Some(later)));
        assert_eq!(timers.pop(now), None);
        assert_eq!(timers.pop(later), Some(timer.clone()));
        assert_eq!((timers.pop(later), timers.due(&timer), timers.len()), (None, None, 0));
    }
}

#[test]
fn timers_fire_in_the_order_of_their_times() {
    let now = Instant::now();
    let at = |ms| now + Duration::from_millis(ms);
    let mut timers = TimerQueue::default();
    timers.set(Timer::Sweep, at(2));
    timers.set(room(8), at(3));
    timers.set(room(9), at(1));
    timers.set(Timer::Rescue, at(1));
    timers.set(room(7), at(1));
    timers.set(Timer::LeavingEnds(RoomId(10)), at(1));
    timers.set(Timer::Flows, at(9));
    timers.cancel(&Timer::Flows);
    assert_eq!(timers.next_at(), Some(at(1)));
    let fired: Vec<Timer> = std::iter::from_fn(|| timers.pop(at(9))).collect();
    // Of those of one time, in the order of the reasons.
    let first = [Timer::LeavingEnds(RoomId(10)), room(7), room(9), Timer::Rescue];
    assert_eq!((&fired[..4], &fired[4..]), (&first[..], &[Timer::Sweep, room(8)][..]));
    assert!(timers.rooms_by_time.is_empty());
}
