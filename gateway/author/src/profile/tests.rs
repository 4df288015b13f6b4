//! Profiles of shipped plugins, and of stacks by hand.

use evenkeel_host::shipped;

use super::*;

fn by_hand() -> ProfileReport {
    let stack = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let stacks = [
        (stack(&["tick", "a<T>"]), 3),
        (stack(&["tick", "a<T>", "a<T>"]), 1),
        (stack(&["tick"]), 4),
    ];
    ProfileReport { stacks: stacks.into() }
}

#[test]
fn time_is_a_functions_own_and_of_its_callees() {
    assert_eq!(by_hand().functions(), BTreeMap::from([("a<T>", (4, 4)), ("tick", (4, 8))]));
    assert!(by_hand().to_string().contains("\n   50.0    100.0  tick"), "{}", by_hand());
    assert_eq!(by_hand().json()["samples"], 8);
    assert_eq!(by_hand().folded(), "tick 4\ntick;a<T> 3\ntick;a<T>;a<T> 1\n");
}

#[test]
fn flame_graph_has_a_bar_per_call() {
    let svg = by_hand().flame_graph();
    assert_eq!(svg.matches("<rect").count(), 4, "all, tick, and a twice: {svg}");
    assert!(svg.contains("<title>a&lt;T&gt;: 4 samples, 50.0 %</title>"), "{svg}");
    assert!(svg.contains("width=\"1200.0\"") && svg.contains("width=\"600.0\""), "{svg}");
}

#[test]
fn plugin_is_sampled_by_name() {
    let plugin = shipped().iter().find(|plugin| plugin.name == "route-nearest").unwrap();
    let built = BuiltPlugin::from_bytes(plugin.bytes.to_vec()).unwrap();
    let report = profile(&built, &[], &Value::Null, 20).unwrap();
    assert!(report.samples() >= 20);
    let names: Vec<&str> = report.functions().into_keys().collect();
    assert!(
        names.iter().any(|name| name.contains("place") || name.contains("reroute")),
        "{names:?}"
    );
}
