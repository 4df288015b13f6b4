use std::path::Path;

use evenkeel_kept::StoreThread;
use evenkeel_model::{BreakerState, SloIndicator};
use serde_json::json;
use tempfile::{TempDir, tempdir};

use super::*;
use crate::snapshot::tests::with_slo;

/// The store of a process, with the thread that writes it.
fn open(folder: &TempDir) -> (Judgements, Store, StoreThread) {
    let store = Store::default();
    let judgements = Judgements::new(&store, Instant::now());
    let thread =
        store.open(Some(folder.path()), Path::new("/admin.sock"), &Default::default()).unwrap();
    store.begin(Duration::from_secs(20));
    (judgements, store, thread)
}

/// A gateway with these scenarios.
fn gateway(scenarios: &[&str], now: Instant) -> Gateway {
    let mut settings = evenkeel_config::GatewayConfig::load(None, None, &[]).unwrap().core();
    settings.scenarios.extend(scenarios.iter().map(|name| (Arc::from(*name), with_slo())));
    Gateway::new(settings, now)
}

/// Refused offers of the scenario within five minutes.
fn refused(gateway: &Gateway, scenario: &str, now: Instant) -> u32 {
    let mut slos = gateway.views().slos(now);
    let slo = slos.find(|it| &*it.scenario == scenario && it.slo == SloIndicator::Refusals);
    slo.unwrap().windows[0].bad
}

fn breaker(gateway: &Gateway, now: Instant) -> BreakerState {
    gateway.views().regions(now).next().unwrap().breaker
}

/// The region's breaker, open for this time.
fn opened(region: &str, open_for: Duration) -> BreakersRecord {
    let until = i64::try_from(open_for.as_nanos()).unwrap();
    let breaker = json!({"state": {"Open": {"until": until}}, "row": 0, "relapses": 1});
    let regions = [json!({"region": region, "zone": null, "breaker": breaker})];
    let record = json!({"regions": regions, "clients": [], "providers": {}});
    instant::relative_to(Instant::now(), || serde_json::from_value(record)).unwrap()
}

#[test]
fn budgets_and_breakers_continue_after_a_lone_restart() {
    let folder = tempdir().unwrap();
    let scenarios: Vec<String> = (0..40).map(|number| format!("call-{number:02}")).collect();
    let scenarios: Vec<&str> = scenarios.iter().map(|name| &**name).collect();
    let (mut judgements, store, thread) = open(&folder);
    let now = Instant::now();
    let mut before = gateway(&scenarios, now);
    for name in &scenarios {
        (0..10).for_each(|_| before.handle_turned_away(name, now));
    }
    let region = evenkeel_config::GatewayConfig::load(None, None, &[]).unwrap().core().regions;
    before.records().restore_breakers(opened(&region[0], Duration::from_secs(300)), now);
    assert_eq!(breaker(&before, now), BreakerState::Open);
    judgements.keep_last(&mut before, now);
    // The thread writes them before it ends.
    drop((judgements, store, thread));
    let (judgements, _store, _thread) = open(&folder);
    let mut after = gateway(&scenarios, now);
    judgements.restore(&mut after, Instant::now());
    let now = Instant::now();
    assert!(scenarios.iter().all(|name| refused(&after, name, now) == 10));
    assert_eq!(breaker(&after, now), BreakerState::Open);
    let standing = after.views().regions(now).next().unwrap();
    let left = standing.half_open_in.unwrap();
    assert!(left <= Duration::from_secs(300) && left > Duration::from_secs(200), "{left:?}");
}

#[test]
fn windows_are_kept_in_their_interval_and_in_turn() {
    let now = Instant::now();
    let scenarios: Vec<String> = (0..20).map(|number| format!("call-{number:02}")).collect();
    let scenarios: Vec<&str> = scenarios.iter().map(|name| &**name).collect();
    let (store, mut before) = (Store::default(), gateway(&scenarios, now));
    let mut judgements = Judgements::new(&store, now);
    let rows = |judgements: &Judgements| judgements.windows.rows().len();
    scenarios.iter().for_each(|name| before.handle_turned_away(name, now));
    judgements.keep(&mut before, now + WINDOWS_EVERY - Duration::from_millis(1));
    assert_eq!(rows(&judgements), 0);
    judgements.keep(&mut before, now + WINDOWS_EVERY);
    assert_eq!(rows(&judgements), WINDOWS_AT_ONCE);
    judgements.keep(&mut before, now + 2 * WINDOWS_EVERY);
    assert_eq!(rows(&judgements), 20);
}

#[test]
fn breakers_are_kept_when_they_change() {
    let (now, store) = (Instant::now(), Store::default());
    let mut gateway = gateway(&[], now);
    let mut judgements = Judgements::new(&store, now);
    let changed = |judgements: &Judgements| judgements.breakers.row(ONE).unwrap();
    judgements.keep(&mut gateway, now);
    let first = changed(&judgements);
    let region = evenkeel_config::GatewayConfig::load(None, None, &[]).unwrap().core().regions;
    gateway.records().restore_breakers(opened(&region[0], Duration::from_secs(9)), now);
    judgements.keep(&mut gateway, now);
    let second = changed(&judgements);
    assert_ne!(first, second);
    judgements.keep(&mut gateway, now + Duration::from_secs(1));
    assert_eq!(changed(&judgements), second, "nothing changed");
}

#[test]
fn windows_of_another_beginning_are_left_out() {
    let now = Instant::now();
    let judgements = Judgements::new(&Store::default(), now);
    for (scenario, began) in [("old", now), ("new", now + Duration::from_secs(60))] {
        let mut gateway = gateway(&["old", "new"], began);
        gateway.handle_turned_away(scenario, began);
        let windows = gateway.records().next_slo_record_once_ended(&mut None, began).unwrap();
        let row = instant::relative_to(now, || Encoded::new(scenario, &KeptWindows(windows)));
        judgements.windows.put_encoded(row);
    }
    let mut after = gateway(&["old", "new"], now);
    judgements.restore(&mut after, Instant::now());
    let now = now + Duration::from_secs(61);
    assert_eq!([refused(&after, "old", now), refused(&after, "new", now)], [0, 1]);
}
