use super::*;

const HORIZON: u64 = 30;

fn names<T>(all: impl IntoIterator<Item = (&'static str, T)>) -> BTreeMap<Arc<str>, T> {
    all.into_iter().map(|(name, value)| (name.into(), value)).collect()
}

fn region(load_kbps: f64, capacity_kbps: f64) -> BTreeMap<Arc<str>, RegionSample> {
    names([("east", RegionSample { load_kbps, capacity_kbps })])
}

fn nodes(loss: f64, changes: u32) -> BTreeMap<Arc<str>, NodeMinute> {
    let sample = NodeSample { round_trip_ms: Some(10.0), loss, ..NodeSample::default() };
    names([("a", NodeMinute { sample, changes })])
}

/// The kinds of the changes, with `is_over`.
fn kinds(changes: &[ForecastChange]) -> Vec<(&'static str, bool)> {
    changes.iter().map(|it| (it.forecast.evidence.kind(), it.is_over)).collect()
}

#[test]
fn warning_of_exhaustion_begins_and_ends_once() {
    let mut table = ForecastTable::default();
    let mut sample = |minute, load| table.sample(minute, &region(load, 100.0), &names([]), HORIZON);
    assert_eq!(kinds(&sample(0, 50.0)), []);
    let begun = sample(1, 100.0);
    assert_eq!(kinds(&begun), [("load", false)]);
    let expected =
        ForecastEvidence::Load { load_kbps: 100, capacity_kbps: 100, confidence_percent: 100 };
    assert_eq!(begun[0].forecast.evidence, expected);
    assert_eq!(begun[0].forecast.expected_us, 60_000_000);
    assert_eq!(kinds(&sample(2, 110.0)), []);
    assert_eq!(kinds(&sample(31, 50.0)), []);
    let ended = sample(32, 50.0);
    assert_eq!(kinds(&ended), [("load", true)]);
    assert_eq!(ended[0].forecast.since_us, 60_000_000, "the time of its beginning");
    assert_eq!(table.forecasts().count(), 0);
}

#[test]
fn region_without_nodes_is_not_forecast() {
    let mut table = ForecastTable::default();
    assert_eq!(table.sample(0, &region(0.0, 0.0), &names([]), HORIZON), []);
    let exhausted: Vec<_> = table.exhaustions().map(|(name, at)| (&**name, at)).collect();
    assert_eq!(exhausted, [("east", None)]);
}

#[test]
fn warning_of_sick_node_ends_after_an_hour() {
    let mut table = ForecastTable::default();
    let mut begun = Vec::new();
    for minute in 0..60 {
        begun.extend(table.sample(minute, &names([]), &nodes(0.05, 0), HORIZON));
    }
    assert_eq!(kinds(&begun), [("decay", false)]);
    assert_eq!(
        table.decays().map(|(name, decay)| (&**name, decay)).collect::<Vec<_>>(),
        [("a", 1_000)]
    );
    let mut ended = Vec::new();
    for minute in 60..180 {
        ended.extend(table.sample(minute, &names([]), &nodes(0.0, 0), HORIZON));
    }
    assert_eq!(kinds(&ended), [("decay", true)]);
    assert_eq!(table.decays().map(|(_, decay)| decay).collect::<Vec<_>>(), [0]);
}

#[test]
fn nearer_limit_is_a_higher_decay() {
    let warning = |at| DecayWarning { sign: DecaySign::Loss, value: 0.0, limit: 1.0, at };
    assert_eq!([160, 130, 100].map(|at| permille(&warning(at), 100)), [500, 750, 1_000]);
}

#[test]
fn restart_continues_the_warnings() {
    let mut table = ForecastTable::default();
    table.sample(0, &region(100.0, 100.0), &nodes(0.0, 20), HORIZON);
    let written: Vec<ForecastRecord> = table.records().collect();
    let keys: Vec<String> = written.iter().map(ForecastRecord::key).collect();
    assert_eq!((keys.len(), table.count()), (2, 2));
    assert_eq!(keys, ["region/east", "node/a"]);
    let written = serde_json::to_string(&written).unwrap();
    let cut = written.replacen("\"today\":[[", "\"today\":[[1.0,1],[", 1);
    let cut = ForecastTable::from_records(serde_json::from_str::<Vec<_>>(&cut).unwrap());
    assert_eq!(cut.count(), 1, "a list of another length");
    let mut next = ForecastTable::from_records(serde_json::from_str::<Vec<_>>(&written).unwrap());
    let in_force: Vec<_> = next.forecasts().map(|it| it.evidence.kind()).collect();
    assert_eq!(in_force, ["load", "flap"]);
    let again = next.sample(1, &region(100.0, 100.0), &nodes(0.0, 0), HORIZON);
    assert_eq!(again, [], "both were reported");
    assert!(next.sample(2, &names([]), &names([]), HORIZON).is_empty());
    assert_eq!(next, ForecastTable::default(), "removed ones are forgotten");
}

#[test]
fn unusual_round_trip_is_reported_as_a_delay() {
    let mut table = ForecastTable::default();
    let mut changes = Vec::new();
    let day = crate::MINUTES_OF_DAY;
    for minute in 0..day + 200 {
        let is_slow = (day..day + 60).contains(&minute);
        let round_trip_ms = Some(if is_slow { 200.0 } else { 50.0 });
        let sample = NodeSample { round_trip_ms, ..NodeSample::default() };
        let nodes = names([("a", NodeMinute { sample, changes: 0 })]);
        changes.extend(table.sample(minute, &names([]), &nodes, HORIZON));
    }
    assert_eq!(kinds(&changes), [("delay", false), ("delay", true)]);
    let evidence = ForecastEvidence::Delay { round_trip_ms: 200, usual_ms: 50 };
    assert_eq!(changes[1].forecast.evidence, evidence);
    assert_eq!(
        table.decays().map(|(_, decay)| decay).collect::<Vec<_>>(),
        [0],
        "it does not decay"
    );
}
