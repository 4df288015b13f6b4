//! The same world with another plugin.

use evenkeel_host::shipped;
use evenkeel_simulate::{Change, WhatIf, policy_name};
use serde_json::json;

fn shipped_bytes(name: &str) -> Option<Vec<u8>> {
    shipped().iter().find(|one| one.name == name).map(|one| one.bytes.to_vec())
}

#[test]
fn a_world_with_the_plugin_that_ships_is_the_same_world() {
    let policy = policy_name("call/routing").unwrap();
    let plugin = shipped_bytes("route-nearest");
    let same = WhatIf::play(3, vec![Change { policy, plugin, settings: None }]).unwrap();
    assert!(same.before.asked > 0);
    assert_eq!(same.before, same.after);
}

#[test]
fn other_settings_make_another_world_of_the_same_clients() {
    let restless = |seed| {
        let settings =
            json!({"review_every": "1s", "min_stay": "0s", "stay_unless_better_by": 0.0});
        let change = |policy| {
            let policy = policy_name(policy).unwrap();
            Change { policy, plugin: None, settings: Some(settings.clone()) }
        };
        WhatIf::play(seed, vec![change("call/routing"), change("live/routing")]).unwrap()
    };
    let changed = (0..6).map(restless).find(|one| one.before.moves != one.after.moves).unwrap();
    assert_eq!(changed.before.begun, changed.after.begun, "what breaks is the same");
    let said = changed.to_string();
    assert!(said.contains("moves of sessions") && said.contains("difference"), "{said}");
}

#[test]
fn what_does_not_run_there_is_refused_with_its_reason() {
    let change = |policy, plugin, settings| {
        let policy = policy_name(policy).unwrap();
        WhatIf::play(0, vec![Change { policy, plugin, settings }]).unwrap_err()
    };
    let other_hook = change("call/routing", shipped_bytes("degrade-ladder"), None);
    assert!(other_hook.contains("routing"), "{other_hook}");
    let bad = change("call/routing", None, Some(json!({"spares": 9})));
    assert!(bad.contains("spares"), "{bad}");
    let nobody = change("opera/routing", shipped_bytes("route-nearest"), None);
    assert!(nobody.contains("opera/routing"), "{nobody}");
    assert!(policy_name("routing").is_err());
}
