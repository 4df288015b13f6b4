use super::*;

fn session(node: &str, zone: &str, rung: u64, measures: &Value) -> Value {
    json!({
        "id": "s1", "hop": {"node": node, "region": "east", "zone": zone}, "rung": rung,
        "measures": measures,
    })
}

#[test]
fn quality_has_units() {
    let measures = json!({
        "r-factor": 8_204, "loss-up": 1_250, "loss-down": 120_000, "jitter-up": 2_100,
        "rtt-client": 30_000, "bitrate-up": 64,
    });
    let said = quality(&session("east-a1", "a", 0, &measures));
    let expected = "R 82.04, loss 0.12 % up and 12.00 % down, jitter 3 ms up, round trip 30 ms";
    assert_eq!(said, expected);
    assert_eq!(quality(&session("east-a1", "a", 0, &json!({}))), "");
}

#[test]
fn list_is_filtered_by_place_and_quality() {
    let all = ListArgs { node: None, zone: None, bad: false };
    let good = session("east-a1", "a", 0, &json!({"r-factor": 7_000, "loss-up": 19_999}));
    assert!(all.takes(&good) && !ListArgs { bad: true, ..all }.takes(&good));
    for bad in [
        session("east-a1", "a", 0, &json!({"r-factor": 6_999})),
        session("east-a1", "a", 0, &json!({"loss-down": 20_000})),
        session("east-a1", "a", 1, &json!({})),
        json!({"id": "s2", "hop": null, "rung": 0, "measures": {}}),
    ] {
        let args = ListArgs { node: None, zone: None, bad: true };
        assert!(args.takes(&bad), "{bad}");
    }
    let at = |node: Option<&str>, zone: Option<&str>| ListArgs {
        node: node.map(str::to_owned),
        zone: zone.map(str::to_owned),
        bad: false,
    };
    assert!(at(Some("east-a1"), Some("a")).takes(&good));
    assert!(!at(Some("east-b1"), None).takes(&good));
    assert!(!at(None, Some("b")).takes(&good));
}
