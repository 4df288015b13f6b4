use super::*;

#[test]
fn node_line_names_a_stop_and_its_obstacle() {
    let stopping = json!({"node": "east-b1", "draining": true, "stopping": true});
    assert!(
        node_line(&serde_json::from_value(stopping).unwrap())
            .ends_with(" kbit/s, draining, stopping")
    );
    let needed = json!({"node": "east-b1", "stopping": false, "needed_for": "reserves"});
    assert!(
        node_line(&serde_json::from_value(needed).unwrap())
            .ends_with(" kbit/s, needed for reserves")
    );
}
