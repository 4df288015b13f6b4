use evenkeel_model::RoomId;

use super::*;
use crate::samples::closed_session;

#[test]
fn missing_final_totals_default_to_the_last_summary() {
    let now = Instant::now();
    let closed = |number| CoreEvent::Closed {
        session: SessionId(number),
        room: RoomId(1),
        room_name: "room".into(),
        reason: CloseReason::Requested,
        closed: Box::new(closed_session(now)),
    };
    let totals = Totals { shed: 4, ..Totals::default() };
    let mut closings = Closings::default();
    closings.hold(SessionId(1), closed(1), totals, now);
    closings.hold(SessionId(2), closed(2), totals, now);
    assert_eq!(closings.take(SessionId(2)), Some((closed(2), totals)), "its worker reported");
    assert!(closings.late(now + TOTALS_WITHIN - Duration::from_millis(1)).is_empty());
    assert_eq!(closings.late(now + TOTALS_WITHIN), [(closed(1), totals)]);
    assert!(closings.is_empty());
}
