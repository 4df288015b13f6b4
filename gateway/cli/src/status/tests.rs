use super::*;

#[test]
fn unmeasured_mode_is_marked() {
    let hot = json!({
        "mode": "hot", "scenarios": ["call", "live"], "recoveries": 1_000,
        "recovery_ms": {"p50": 20.4, "p99": 41.0, "max": 63.24},
        "packets_lost": 1_204, "bandwidth_cost": 0.0123
    });
    let said: Vec<String> = mode_line(&hot).split_whitespace().map(Into::into).collect();
    let expected = ["hot", "1000", "20.4", "41.0", "63.2", "1204", "+1.2", "%", "call,", "live"];
    assert_eq!(said, expected);
    let cold = json!({
        "mode": "cold", "scenarios": [], "recoveries": 0,
        "recovery_ms": null, "packets_lost": null, "bandwidth_cost": null
    });
    let line = mode_line(&cold);
    assert!(line.contains(" – ") && line.ends_with("none (not measured yet)"), "{line}");
}
