use evenkeel_host::shipped;

use super::*;

fn measured(name: &str) -> MeasurementReport {
    let plugin = shipped().iter().find(|plugin| plugin.name == name).unwrap();
    let built = Built::from_bytes(plugin.bytes.to_vec()).unwrap();
    measure(&built, &Value::Null, None).unwrap()
}

#[test]
fn every_call_of_every_hook_is_measured() {
    let sizes = |name| -> Vec<(&str, u32)> {
        measured(name).calls.iter().map(|call| (call.name, call.rows)).collect()
    };
    let routing = [("place", 10), ("place", 50), ("place", 200), ("reroute", 64)];
    assert_eq!(sizes("route-nearest"), routing);
    assert_eq!(sizes("degrade-ladder"), [("tick", 1), ("tick", 256), ("tick", 4_096)]);
    assert_eq!(sizes("admit-capacity"), [("admit", 3), ("admit", 20)]);
    assert_eq!(sizes("scenario-call"), [("resolve", 1)]);
}

#[test]
fn instructions_repeat_and_grow_with_rows() {
    let counted = || -> Vec<u64> {
        measured("degrade-ladder").calls.iter().map(|call| call.instructions).collect()
    };
    let counts = counted();
    assert_eq!(counts, counted());
    assert!(
        counts[0] > 0 && counts[1] > counts[0] * 10 && counts[2] > counts[1] * 10,
        "{counts:?}"
    );
}

#[test]
fn declared_cost_is_inclusive() {
    let of = |found| Exceeded::of("tick", 100, found, Some(32_000));
    assert_eq!(of(32_000), None);
    let broken = Exceeded { call: "tick", rows: 100, found: 32_001, promised: 32_000 };
    assert_eq!(of(32_001), Some(broken));
    assert_eq!(Exceeded::of("open", 100, u64::MAX, None), None);
}
