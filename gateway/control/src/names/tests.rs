use evenkeel_config::{ConfigBitRate, DriverSettings, NodeProbe, Signalling};

use super::*;

const A: NodeId = NodeId(0);

fn hop(incarnation: u32) -> Hop {
    Hop { node: A, incarnation: Incarnation(incarnation) }
}

fn node(name: &str) -> evenkeel_config::NodeConfig {
    evenkeel_config::NodeConfig::new(
        name.into(),
        ([10, 0, 0, 1], 4_000).into(),
        "east".into(),
        "a".into(),
        DriverSettings::new("plain", NodeProbe::None, Signalling::None),
        ConfigBitRate(1_000_000),
    )
}

#[test]
fn hop_is_named_by_its_incarnation() {
    let names = NodeNames::default();
    for (since, name) in [(1, "first"), (4, "second")] {
        names.come(hop(since), &node(name));
    }
    let called = |at| names.of_hop(hop(at)).node;
    assert_eq!([1, 3, 4, 9].map(called), ["first", "first", "second", "second"].map(Arc::from));
    assert_eq!(*names.of_node(A).node, *"second");
    let carrier = Some("ct".into());
    let moved = evenkeel_config::NodeConfig { zone: "elsewhere".into(), carrier, ..node("second") };
    names.change(A, &moved);
    assert_eq!(names.of_node(A).carrier.as_deref(), Some("ct"));
    assert_eq!((*names.of_hop(hop(9)).zone).to_owned(), "elsewhere");
    assert_ne!((*names.of_hop(hop(1)).zone).to_owned(), "elsewhere", "the zone of another node");
}

#[test]
fn older_nodes_of_a_slot_are_named_by_number() {
    let names = NodeNames::default();
    (1..=KNOWN_MAX as u32 + 1).for_each(|since| names.come(hop(since), &node("some")));
    assert_eq!(*names.of_hop(hop(1)).node, *A.to_string());
    assert_eq!(*names.of_hop(hop(2)).node, *"some");
    let nobody = Hop { node: NodeId(7), incarnation: Incarnation(1) };
    assert_eq!(*names.of_hop(nobody).node, *NodeId(7).to_string());
}
