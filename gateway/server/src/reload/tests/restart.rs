use evenkeel_config::SetOrigin;
use evenkeel_model::Hook;

use super::*;

const CALL: &str = "[scenario.call]\nspares = 2\n\n[admission]\nplugin = \"admit-capacity\"\n";

/// The sets that apply after `saved`, and the keys that wait for a restart.
fn merged(applied: &GatewayConfig, saved: &GatewayConfig) -> (Vec<PolicySet>, Vec<String>) {
    let mut waiting = keys_for_restart(applied, saved);
    let sets = merge(&applied.sets, &saved.sets, &mut waiting);
    (sets, waiting)
}

#[test]
fn keys_of_sets_need_no_restart() {
    let folder = Folder::with("call.toml", CALL);
    let before = folder.load();
    let scenario = |key: &str| CALL.replace("spares = 2", key);
    for text in [
        CALL,
        &scenario("spares = 3"),
        &scenario("mode = \"active-active\""),
        &scenario("affinity = \"session\""),
        &scenario("bitrate = { floor = \"9 kbit/s\", ceiling = \"1 Mbit/s\" }"),
        &scenario("close_after = \"9s\""),
        &scenario("await_first_packet = false"),
        &scenario("dscp = { voice = \"CS5\" }"),
        &scenario("priority = 9"),
        &scenario("[scenario.talk]"),
        &format!("{CALL}settings = {{ cap = 200 }}\n"),
        &format!("{CALL}on_fault = \"reject\"\n"),
        &format!("{CALL}[degradation]\nplugin = \"degrade-ladder\"\n"),
    ] {
        folder.write("call.toml", text);
        let saved = folder.load();
        let (sets, waiting) = merged(&before, &saved);
        assert_eq!(waiting, [""; 0], "{text}");
        assert!(sets.iter().map(settings_of).eq(saved.sets.iter().map(settings_of)), "{text}");
    }
    folder.write("opera.toml", "[scenario.opera]\n");
    assert_eq!(merged(&before, &folder.load()).1, [""; 0]);
}

#[test]
fn parts_that_are_gone_stay_until_a_restart() {
    let folder = Folder::with("call.toml", CALL);
    let before = folder.load();
    let saved = |text: &str| {
        folder.write("call.toml", text);
        let (sets, waiting) = merged(&before, &folder.load());
        let own = sets.iter().filter(|set| !matches!(set.origin, SetOrigin::Shipped));
        let scenarios = own.flat_map(|set| &set.scenarios);
        let scenarios = scenarios.map(|scenario| scenario.name.to_string()).collect::<Vec<_>>();
        let bound = sets.iter().any(|set| set.binding(Hook::Admission).is_some());
        assert!(bound, "the policy is asked until then");
        (waiting, scenarios)
    };
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let unbound = saved("[scenario.call]\n");
    assert_eq!(unbound, (words(&["call.toml [admission]"]), words(&["call"])));
    let renamed = saved(&CALL.replace("[scenario.call]", "[scenario.talk]"));
    assert_eq!(renamed, (words(&["call.toml [scenario.call]"]), words(&["call", "talk"])));
    folder.write("opera.toml", "[scenario.call]\n");
    let moved = saved(&CALL.replace("[scenario.call]", "[scenario.talk]"));
    assert_eq!(moved, (words(&[]), words(&["talk", "call"])));
    let both = folder.load();
    assert_eq!(
        merged(&both, &before).1,
        ["call.toml [scenario.talk]", "opera.toml, which is gone"]
    );
}
