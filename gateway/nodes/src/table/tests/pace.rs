use evenkeel_model::{Incarnation, NodeId};

use super::super::*;

impl OpeningWindow {
    pub(crate) fn window(&self) -> u32 {
        self.window
    }
}

const HOP: Hop = Hop { node: NodeId(0), incarnation: Incarnation(1) };
const MS: Duration = Duration::from_millis(1);

fn turn(class: OpeningClass, priority: i64, order: u64) -> QueuePosition {
    (class, Reverse(priority), order)
}

#[test]
fn queue_order_is_stranded_existing_new() {
    let mut pace = OpeningWindow::new(1);
    assert!(pace.begin(turn(OpeningClass::Spare, 0, 0), SessionId(0), HOP));
    let waiting = [
        (OpeningClass::Spare, 9),
        (OpeningClass::Newcomer, 0),
        (OpeningClass::Newcomer, 5),
        (OpeningClass::Moving, 0),
        (OpeningClass::Stranded, -1),
        (OpeningClass::Stranded, 3),
    ];
    for (order, (class, priority)) in (1..).zip(waiting) {
        assert!(!pace.begin(turn(class, priority, order), SessionId(order), HOP));
    }
    pace.forget(SessionId(4), HOP);
    let mut order = Vec::new();
    assert_eq!(pace.start_next(), None, "one is under way");
    loop {
        pace.end();
        let Some((session, _)) = pace.start_next() else { break };
        order.push(session.0);
    }
    assert_eq!(order, [6, 5, 3, 2, 1]);
}

#[test]
fn window_grows_on_time_and_halves_late() {
    let now = Instant::now();
    let mut pace = OpeningWindow::new(8);
    pace.faster();
    assert_eq!(pace.window(), 8, "nobody waits");
    for order in 0..20 {
        pace.begin(turn(OpeningClass::Spare, 0, order), SessionId(order), HOP);
    }
    (0..8).for_each(|_| pace.faster());
    assert_eq!(pace.window(), 16);
    pace.slower(now);
    pace.slower(now + 99 * MS);
    assert_eq!(pace.window(), 8, "late together is late once");
    (0..7).for_each(|_| pace.faster());
    assert_eq!(pace.window(), 8);
    pace.faster();
    assert_eq!(pace.window(), 9, "carefully from here on");
    for late in 1..9 {
        pace.slower(now + late * 100 * MS);
    }
    assert_eq!(pace.window(), WINDOW_MIN);
    pace.renew();
    assert_eq!(pace.window(), 8);
    for order in 20..5_000 {
        pace.begin(turn(OpeningClass::Spare, 0, order), SessionId(order), HOP);
        pace.faster();
    }
    assert_eq!(pace.window(), WINDOW_MAX);
}
