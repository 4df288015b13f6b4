use super::*;
use crate::gateway::tests::settings;

impl RegionBreakers {
    pub(crate) fn breaker_mut(&mut self, region: usize) -> &mut Breaker {
        &mut self.regions[region]
    }
}

const SECOND: Duration = Duration::from_secs(1);

fn evidence(sessions: u32, bad: u32, opened: u32, failed: u32) -> RegionVerdict {
    RegionEvidence { sessions, bad, opened, failed }.verdict(&Breakers::default())
}

#[test]
fn a_few_say_nothing_and_half_of_many_do() {
    assert_eq!(evidence(19, 19, 0, 0), RegionVerdict::Unknown);
    assert_eq!(evidence(20, 9, 0, 0), RegionVerdict::Sound);
    assert_eq!(evidence(20, 10, 0, 0), RegionVerdict::Bad);
    assert_eq!(evidence(0, 0, 9, 10), RegionVerdict::Unknown);
    assert_eq!(evidence(0, 0, 9, 11), RegionVerdict::Bad);
    assert_eq!(evidence(500, 3, 11, 9), RegionVerdict::Sound);
}

#[test]
fn session_counts_once_per_window_as_worst() {
    let (mut evidence, mut judged) = (RegionEvidence::default(), Judged::default());
    for bad in [false, true, true, false] {
        evidence.hear(&mut judged, 7, bad);
    }
    assert_eq!((evidence.sessions, evidence.bad), (1, 1));
    evidence.hear(&mut judged, 8, false);
    assert_eq!((evidence.sessions, evidence.bad), (2, 1));
}

#[test]
fn breaker_opens_longer_and_closes_when_sound() {
    let settings = Breakers::default();
    let mut now = Instant::now();
    let mut breaker = Breaker::new(now);
    let mut times = Vec::new();
    for _ in 0..7 {
        while breaker.state() != BreakerState::Open {
            breaker.weigh(RegionVerdict::Bad, &settings, now);
            now += SECOND;
        }
        let opened = now;
        while breaker.state() == BreakerState::Open {
            breaker.weigh(RegionVerdict::Unknown, &settings, now);
            now += SECOND;
        }
        times.push((now - opened).as_secs());
    }
    assert_eq!(times, [10, 20, 40, 80, 160, 300, 300]);
    for window in 0..5 {
        assert_eq!(breaker.state(), BreakerState::HalfOpen, "{window}");
        breaker.weigh(RegionVerdict::Unknown, &settings, now);
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
    now += FORGIVEN_AFTER;
    breaker.weigh(RegionVerdict::Sound, &settings, now);
    breaker.weigh(RegionVerdict::Bad, &settings, now);
    assert_eq!(breaker.state(), BreakerState::Closed, "once is not twice");
    breaker.weigh(RegionVerdict::Sound, &settings, now);
    breaker.weigh(RegionVerdict::Bad, &settings, now);
    assert_eq!(breaker.state(), BreakerState::Closed, "not in a row");
    breaker.weigh(RegionVerdict::Bad, &settings, now);
    assert_eq!(breaker.opens_until(), Some(now + settings.open_for));
}

#[test]
fn half_open_lets_a_share_in() {
    let settings = Breakers::default();
    let now = Instant::now();
    let mut breaker = Breaker { state: CircuitState::Open { until: now }, ..Breaker::new(now) };
    let admitted =
        |breaker: &Breaker| (0..1_000).filter(|id| breaker.admits(RoomId(*id), &settings)).count();
    assert_eq!(admitted(&breaker), 0);
    breaker.weigh(RegionVerdict::Unknown, &settings, now);
    assert!((70..130).contains(&admitted(&breaker)), "{}", admitted(&breaker));
    breaker.state = CircuitState::Closed { since: now };
    assert_eq!(admitted(&breaker), 1_000);
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
