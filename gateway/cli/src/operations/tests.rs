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

#[test]
fn node_line_shows_delay_loss_and_impaired_sessions() {
    let bad = json!({"node": "east-b1", "round_trip_us": 12_345, "loss_ppm": 15_000, "impaired_sessions": 3});
    let line = node_line(&serde_json::from_value(bad).unwrap());
    assert!(line.ends_with(" kbit/s, 12.3 ms away, 1.5 % lost, impairs 3 sessions"), "{line}");
    let one = json!({"node": "east-b1", "impaired_sessions": 1});
    let line = node_line(&serde_json::from_value(one).unwrap());
    assert!(line.ends_with(", impairs 1 session"), "{line}");
    let good = json!({"node": "east-b1", "round_trip_us": 900});
    let line = node_line(&serde_json::from_value(good).unwrap());
    assert!(line.ends_with(" kbit/s, 0.9 ms away"), "{line}");
}
