use super::*;
use crate::gateway::tests::{ms, settings};

impl Capacity {
    pub(crate) fn breaker_mut(&mut self, region: usize) -> &mut Breaker {
        &mut self.breakers[region]
    }
}

#[test]
fn churn_beyond_allowance_is_refused_for_a_second() {
    let now = Instant::now();
    let mut capacity = Capacity::new(&settings(), now);
    assert_eq!(capacity.check_churn(50, 10, now), Ok(()), "one room may always move");
    capacity.note_churn(50, now);
    assert_eq!(capacity.check_churn(1, 51, now), Ok(()));
    assert_eq!(capacity.check_churn(1, 50, now), Err(GuardRule::Churn));
    assert_eq!(capacity.check_churn(1, 50, now + ms(999)), Err(GuardRule::Churn));
    assert_eq!(capacity.check_churn(1, 50, now + ms(1_000)), Ok(()));
}

#[test]
fn reduced_sessions_are_due_after_their_time() {
    let now = Instant::now();
    let mut capacity = Capacity::new(&settings(), now);
    capacity.set_reduced(SessionId(1), Some(now));
    capacity.set_reduced(SessionId(2), Some(now + ms(5)));
    capacity.set_reduced(SessionId(3), Some(now));
    capacity.set_reduced(SessionId(3), None);
    assert_eq!(capacity.next_reduced(ms(10), now + ms(9)), []);
    assert_eq!(capacity.next_reduced(ms(10), now + ms(10)), [SessionId(1)]);
    assert_eq!(capacity.reduced(), 2);
}

#[test]
fn failed_openings_open_the_breaker_of_their_region() {
    let mut now = Instant::now();
    let mut settings = settings();
    let nodes = NodeTable::new(&mut settings, now);
    let mut capacity = Capacity::new(&settings, now);
    let mut effects = Effects::default();
    let (home, away) = (RegionId(0), RegionId(1));
    for _ in 0..2 {
        (0..20).for_each(|_| capacity.note_opening(away, false));
        (0..20).for_each(|_| capacity.note_opening(home, true));
        now += WINDOW;
        assert!(!capacity.weigh_breakers(&nodes, now, &mut effects));
    }
    assert_eq!(capacity.breaker(away), BreakerState::Open);
    assert!(!capacity.may_enter(RoomId(1), away) && capacity.may_enter(RoomId(1), home));
    let there = |node: &NodeId| nodes.region_of(*node) == away;
    assert!(capacity.behind_breakers(RoomId(1), |_| false, &nodes).iter().all(there));
    assert_eq!(capacity.behind_breakers(RoomId(1), |_| true, &nodes), []);
}
