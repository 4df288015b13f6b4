use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn evidence(sessions: u32, bad: u32, opened: u32, failed: u32) -> BreakerVerdict {
    BreakerEvidence { sessions, bad, opened, failed }.verdict(&CircuitSettings::default())
}

#[test]
fn a_few_say_nothing_and_half_of_many_do() {
    assert_eq!(evidence(19, 19, 0, 0), BreakerVerdict::Unknown);
    assert_eq!(evidence(20, 9, 0, 0), BreakerVerdict::Sound);
    assert_eq!(evidence(20, 10, 0, 0), BreakerVerdict::Bad);
    assert_eq!(evidence(0, 0, 9, 10), BreakerVerdict::Unknown);
    assert_eq!(evidence(0, 0, 9, 11), BreakerVerdict::Bad);
    assert_eq!(evidence(500, 3, 11, 9), BreakerVerdict::Sound);
}

#[test]
fn session_counts_once_per_window_as_worst() {
    let (mut evidence, mut judged) = (BreakerEvidence::default(), JudgedWindow::default());
    for bad in [false, true, true, false] {
        evidence.add(judged.count(7, bad));
    }
    assert_eq!((evidence.sessions, evidence.bad), (1, 1));
    evidence.add(judged.count(8, false));
    assert_eq!((evidence.sessions, evidence.bad), (2, 1));
}

#[test]
fn breaker_opens_longer_and_closes_when_sound() {
    let settings = CircuitSettings::default();
    let mut now = Instant::now();
    let mut breaker = Breaker::new(now);
    let mut times = Vec::new();
    for _ in 0..7 {
        while breaker.state() != BreakerState::Open {
            breaker.weigh(BreakerVerdict::Bad, &settings, now);
            now += SECOND;
        }
        let opened = now;
        while breaker.state() == BreakerState::Open {
            breaker.weigh(BreakerVerdict::Unknown, &settings, now);
            now += SECOND;
        }
        times.push((now - opened).as_secs());
    }
    assert_eq!(times, [10, 20, 40, 80, 160, 300, 300]);
    for window in 0..5 {
        assert_eq!(breaker.state(), BreakerState::HalfOpen, "{window}");
        breaker.weigh(BreakerVerdict::Unknown, &settings, now);
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
    now += FORGIVEN_AFTER;
    breaker.weigh(BreakerVerdict::Sound, &settings, now);
    breaker.weigh(BreakerVerdict::Bad, &settings, now);
    assert_eq!(breaker.state(), BreakerState::Closed, "once is not twice");
    breaker.weigh(BreakerVerdict::Sound, &settings, now);
    breaker.weigh(BreakerVerdict::Bad, &settings, now);
    assert_eq!(breaker.state(), BreakerState::Closed, "not in a row");
    breaker.weigh(BreakerVerdict::Bad, &settings, now);
    assert_eq!(breaker.half_open_in(now), Some(settings.open_for));
}

#[test]
fn held_breaker_ignores_evidence_until_it_is_auto() {
    let settings = CircuitSettings::default();
    let mut now = Instant::now();
    let mut breaker = Breaker::new(now);
    let (shut, open) = (BreakerState::Closed, BreakerState::Open);
    let opened = breaker.hold(BreakerMode::Open, now);
    assert_eq!(opened, Some(BreakerChange { from: shut, to: open }));
    assert_eq!((breaker.half_open_in(now), breaker.admits_in(now)), (None, Duration::MAX));
    for _ in 0..20 {
        now += SECOND;
        assert_eq!(breaker.weigh(BreakerVerdict::Sound, &settings, now), None);
    }
    assert!(breaker.state() == open && !breaker.is_at_rest() && !breaker.admits(1, &settings));
    let closed = breaker.hold(BreakerMode::Closed, now);
    assert_eq!(closed, Some(BreakerChange { from: open, to: shut }));
    for _ in 0..3 {
        assert_eq!(breaker.weigh(BreakerVerdict::Bad, &settings, now), None);
    }
    assert!(breaker.state() == shut && !breaker.is_at_rest());
    assert_eq!(breaker.hold(BreakerMode::Auto, now), None);
    assert!(breaker.is_at_rest());
    breaker.weigh(BreakerVerdict::Bad, &settings, now);
    assert_eq!(breaker.state(), shut, "the windows in which it was held do not count");
    breaker.weigh(BreakerVerdict::Bad, &settings, now);
    assert_eq!((breaker.state(), breaker.admits_in(now)), (open, settings.open_for));
}

#[test]
fn breaker_that_was_held_open_is_half_open_first() {
    let settings = CircuitSettings::default();
    let now = Instant::now();
    let mut breaker = Breaker::new(now);
    breaker.hold(BreakerMode::Open, now);
    assert_eq!(breaker.hold(BreakerMode::Auto, now), None);
    breaker.weigh(BreakerVerdict::Sound, &settings, now);
    assert_eq!((breaker.state(), breaker.is_at_rest()), (BreakerState::HalfOpen, false));
}

#[test]
fn circuit_follows_its_settings() {
    let settings = CircuitSettings {
        share_percent: 20,
        sessions_min: 5,
        open_for_max: 15 * SECOND,
        half_open_percent: 60,
        ..CircuitSettings::default()
    };
    let verdict =
        |bad| BreakerEvidence { sessions: 10, bad, ..Default::default() }.verdict(&settings);
    assert_eq!((verdict(1), verdict(2)), (BreakerVerdict::Sound, BreakerVerdict::Bad));
    let now = Instant::now();
    let mut breaker = Breaker { relapses: 1, ..Breaker::new(now) };
    breaker.open(&settings, now);
    assert_eq!(breaker.half_open_in(now), Some(15 * SECOND), "twice as long would be 20 s");
    breaker.weigh(BreakerVerdict::Unknown, &settings, now + 15 * SECOND);
    let admitted = (0..1_000).filter(|id| breaker.admits(*id, &settings)).count();
    assert!((540..660).contains(&admitted), "{admitted}");
}

#[test]
fn half_open_lets_a_share_in() {
    let settings = CircuitSettings::default();
    let now = Instant::now();
    let mut breaker = Breaker { state: CircuitState::Open { until: now }, ..Breaker::new(now) };
    let admitted =
        |breaker: &Breaker| (0..1_000).filter(|id| breaker.admits(*id, &settings)).count();
    assert_eq!(admitted(&breaker), 0);
    breaker.weigh(BreakerVerdict::Unknown, &settings, now);
    assert!((70..130).contains(&admitted(&breaker)), "{}", admitted(&breaker));
    breaker.state = CircuitState::Closed { since: now };
    assert_eq!(admitted(&breaker), 1_000);
}
