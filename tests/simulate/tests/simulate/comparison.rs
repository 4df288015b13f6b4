//! Comparisons of a seed with shipped and with changed policies.

use evenkeel_host::shipped;
use evenkeel_simulate::{Change, Comparison, policy_name};
use serde_json::json;

fn shipped_bytes(name: &str) -> Option<Vec<u8>> {
    shipped().iter().find(|one| one.name == name).map(|one| one.bytes.to_vec())
}

#[test]
fn shipped_plugin_gives_equal_outcome() {
    let policy = policy_name("call/routing").unwrap();
    let plugin = shipped_bytes("route-nearest");
    let same = Comparison::play(3, vec![Change { policy, plugin, settings: None }]).unwrap();
    assert!(same.before.asked > 0);
    assert_eq!(same.before, same.after);
}

#[test]
fn other_settings_change_moves_not_faults() {
    let restless = |seed| {
        let settings = json!({"review_interval": "1s", "min_stay": "0s", "hysteresis": 0.0});
        let change = |policy| {
            let policy = policy_name(policy).unwrap();
            Change { policy, plugin: None, settings: Some(settings.clone()) }
        };
        Comparison::play(seed, vec![change("call/routing"), change("live/routing")]).unwrap()
    };
    let changed = (0..6).map(restless).find(|one| one.before.moves != one.after.moves).unwrap();
    assert_eq!(changed.before.begun, changed.after.begun, "the faults are equal");
    let said = changed.to_string();
    assert!(said.contains("moves of sessions") && said.contains("difference"), "{said}");
}

#[test]
fn invalid_plugin_or_settings_are_refused() {
    let change = |policy, plugin, settings| {
        let policy = policy_name(policy).unwrap();
        Comparison::play(0, vec![Change { policy, plugin, settings }]).unwrap_err()
    };
    let other_hook = change("call/routing", shipped_bytes("degrade-ladder"), None);
    assert!(other_hook.contains("routing"), "{other_hook}");
    let bad = change("call/routing", None, Some(json!({"spares": 9})));
    assert!(bad.contains("spares"), "{bad}");
    let unknown = change("opera/routing", shipped_bytes("route-nearest"), None);
    assert!(unknown.contains("opera/routing"), "{unknown}");
    assert!(policy_name("routing").is_err());
}
