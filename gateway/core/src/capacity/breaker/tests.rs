use super::*;
use crate::gateway::tests::settings;

impl RegionBreakers {
    pub(crate) fn breaker_mut(&mut self, region: usize) -> &mut Breaker {
        &mut self.regions[region]
    }
}

#[test]
fn failed_openings_open_the_breaker_of_their_region() {
    let mut now = Instant::now();
    let mut settings = settings();
    let nodes = NodeTable::new(&mut settings, now);
    let mut breakers = RegionBreakers::new(&settings, now);
    let mut effects = Effects::default();
    let (home, away) = (RegionId(0), RegionId(1));
    for _ in 0..2 {
        (0..20).for_each(|_| breakers.note_opening(away, false));
        (0..20).for_each(|_| breakers.note_opening(home, true));
        now += WINDOW;
        assert!(!breakers.weigh(&nodes, now, &mut effects));
    }
    assert_eq!(breakers.of(away).state(), BreakerState::Open);
    assert!(!breakers.may_enter(RoomId(1), away) && breakers.may_enter(RoomId(1), home));
    let there = |node: &NodeId| nodes.region_of(*node) == away;
    assert!(breakers.shut_nodes(RoomId(1), |_| false, &nodes).iter().all(there));
    assert_eq!(breakers.shut_nodes(RoomId(1), |_| true, &nodes), []);
}
