use evenkeel_host::shipped;

use super::*;
use crate::conformance::tests::{behaving, guest};

fn measured(name: &str) -> MeasurementReport {
    let plugin = shipped().iter().find(|plugin| plugin.name == name).unwrap();
    let built = BuiltPlugin::from_bytes(plugin.bytes.to_vec()).unwrap();
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
fn question_beyond_the_memory_is_left_out() {
    let report = measure(&guest("degradation", &behaving("hungry")), &Value::Null, None).unwrap();
    let measured: Vec<u32> = report.calls.iter().map(|call| call.rows).collect();
    assert_eq!((measured, &report.too_large[..]), (vec![1, 256], &[("tick", 4_096)][..]));
    assert!(report.to_string().contains("wanted more than 16 MiB of memory"), "{report}");
}

#[test]
fn endless_call_is_not_measured() {
    let endless = guest("degradation", &behaving("loop-in-tick"));
    let refused = measure(&endless, &Value::Null, None).unwrap_err();
    assert!(refused.to_string().starts_with("`tick` did not return within 5 ms"), "{refused}");
}

#[test]
fn declared_cost_is_inclusive() {
    let of = |found| ExceededBound::of("tick", 100, found, Some(32_000));
    assert_eq!(of(32_000), None);
    let broken = ExceededBound { call: "tick", rows: 100, found: 32_001, promised: 32_000 };
    assert_eq!(of(32_001), Some(broken));
    assert_eq!(ExceededBound::of("open", 100, u64::MAX, None), None);
}
