use serde::de::DeserializeOwned;
use serde_json::Value;

use super::*;

fn read<T: DeserializeOwned>(answer: Value) -> T {
    serde_json::from_value(answer).unwrap()
}

#[test]
fn slo_shows_its_highest_burn_rate() {
    let window = |window: &str, rate: Option<f64>| json!({"window": window, "burn_rate": rate});
    let slo = |windows: [Value; 2]| {
        let slo = json!({"scenario": "call", "slo": "gap", "budget": -0.5, "windows": windows});
        slo_line(&read(slo))
    };
    let line = slo([window("5m", Some(2.0)), window("1h", Some(14.5))]);
    assert!(line.ends_with("burn rate 14.5 within 1h, -50 % of the budget left"), "{line}");
    let young = json!({"window": "30d", "burn_rate": 14.5, "counted_ms": 420_000});
    let line = slo([window("5m", Some(2.0)), young]);
    let right = "burn rate 14.5 within the 7 min counted so far, -50 % of the budget left so far";
    assert!(line.ends_with(right), "{line}");
    let line = slo([window("5m", None), window("1h", None)]);
    assert!(line.contains("too few sessions"), "{line}");
}

#[test]
fn last_reload_shows_its_outcome() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(60);
    let outcome = |fields: Value| {
        let mut reload = json!({"at_us": 57_000_000, "by": "file"});
        reload.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        last_reload(&read(reload), now)
    };
    assert_eq!(outcome(json!({})), "last reload 3 s ago, by file: applied");
    let refused = outcome(json!({"reason": "found nothing"}));
    assert_eq!(refused, "last reload 3 s ago, by file: refused, nothing changed: found nothing");
    let partly = outcome(json!({"refused": [{}], "requires_restart": ["[limits]", "[admin]"]}));
    assert!(partly.ends_with(": 1 policies not replaced; restart for [limits], [admin]"));
}

#[test]
fn failed_exports_show_their_duration_and_number() {
    let failing = json!({"signal": "spans", "since_us": 1_000_000, "failures": 12});
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(301);
    let expected = "  spans not exported for 5 min: 12 attempts failed";
    assert_eq!(export_failure_line(&read(failing), now), expected);
    let failing = json!({
        "signal": "logs", "since_us": 1_000_000, "failures": 2, "reason": "gRPC status UNIMPLEMENTED",
    });
    let line = export_failure_line(&read(failing), now);
    assert!(line.ends_with(": 2 attempts failed, the last: gRPC status UNIMPLEMENTED"), "{line}");
}

#[test]
fn forecast_shows_its_time_and_evidence() {
    let line = |kind: &str, evidence: Value| {
        let forecast = json!({
            "kind": kind, "subject": "east", "expected_us": 1_260_000_000, "evidence": evidence,
        });
        forecast_line(&read(forecast), 60_000_000)
    };
    let load = json!({"load_kbps": 990, "capacity_kbps": 1_000, "confidence_percent": 48});
    let expected =
        "capacity of region east is exhausted in 20 min: 990 of 1000 kbit/s, 48 % certain";
    assert!(line("load", load).ends_with(expected));
    let decay = json!({"sign": "loss", "value": 0.015, "limit": 0.02});
    assert!(line("decay", decay).ends_with("reaches its limit in 20 min: loss 0.015 of 0.02"));
    let decay = json!({"sign": "delay", "value": 21.5, "limit": 24.0});
    assert!(line("decay", decay).ends_with("delay 21.5 of 24.0 ms"));
    let flap = json!({"changes": 9});
    assert!(line("flap", flap).ends_with("link to node east flaps: 9 changes within an hour"));
    let delay = json!({"round_trip_ms": 203, "usual_ms": 48});
    let expected = "round trip to node east is 203 ms, usually 48 ms at this hour";
    assert!(line("delay", delay).ends_with(expected));
    let later = json!({"figure_of_a_later_version": 1});
    assert!(line("later", later).ends_with("later of east, which this version does not know"));
}

#[test]
fn breaker_of_a_provider_shows_its_failures() {
    let breaker = json!({"provider": "cloud", "breaker": "open", "failures": 5});
    assert_eq!(
        provider_breaker_line(&read(breaker)),
        "  provider cloud breaker open: 5 starts failed in a row"
    );
}

#[test]
fn held_breaker_of_clients_is_marked() {
    let breaker = |mode: &str, voice_only: u64| {
        let breaker = json!({
            "label": "carrier", "value": "ct", "breaker": "open", "breaker_mode": mode,
            "voice_only_sessions": voice_only,
        });
        client_breaker_line(&read(breaker))
    };
    assert!(breaker("auto", 3).ends_with("breaker open, 3 sessions with voice only"));
    assert!(breaker("open", 0).ends_with("breaker open, held by an operator"));
}

#[test]
fn unmeasured_mode_is_marked() {
    let hot = json!({
        "mode": "hot", "scenarios": ["call", "live"], "recoveries": 1_000,
        "recovery_ms": {"p50": 20.4, "p99": 41.0, "max": 63.24},
        "packets_lost": 1_204, "bandwidth_cost": 0.0123
    });
    let said: Vec<String> = mode_line(&read(hot)).split_whitespace().map(Into::into).collect();
    let expected = ["hot", "1000", "20.4", "41.0", "63.2", "1204", "+1.2", "%", "call,", "live"];
    assert_eq!(said, expected);
    let cold = json!({
        "mode": "cold", "scenarios": [], "recoveries": 0,
        "recovery_ms": null, "packets_lost": null, "bandwidth_cost": null
    });
    let line = mode_line(&read(cold));
    assert!(line.contains(" – ") && line.ends_with("none (not measured yet)"), "{line}");
}

#[test]
fn dependency_is_shown_if_it_is_down() {
    let up = json!({"dependency": "idp", "up": true});
    assert_eq!(dependency_line(&read(up)), None);
    let down = json!({"dependency": "idp", "up": false, "reason": "status 503"});
    assert_eq!(
        dependency_line(&read(down)).as_deref(),
        Some("  dependency idp is down: status 503")
    );
}

#[test]
fn credential_line_has_the_date_of_the_end() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_735_689_600);
    let line = |ends_us: u64| {
        let (credential, ends) = ("webrtc-certificate".into(), "2025-01-02 02:00 UTC".to_owned());
        credential_line(&Credential { credential, ends_us, ends }, now)
    };
    let ends = "  webrtc-certificate ends on 2025-01-02 02:00 UTC, in 1 d 2 h";
    assert_eq!(line(1_735_783_200_000_000), ends);
    let ended = "  webrtc-certificate ended on 2025-01-02 02:00 UTC: renew it";
    assert_eq!(line(1_735_000_000_000_000), ended);
}

#[test]
fn ratings_are_compared_by_scenario_node_and_revision() {
    let group = |name: &str, measured: u32, r: Value| {
        json!({
            "name": name, "ratings": 2, "mean_rating_centi": 350, "measured": measured,
            "mean_r_centi": r,
        })
    };
    let compared = json!({
        "scenarios": [group("call", 2, json!(8_105))],
        "nodes": [group("east-a1", 1, json!(8_000))],
        "revisions": [group("native", 0, Value::Null)],
    });
    let lines = rating_lines(&read(compared));
    let words: Vec<Vec<&str>> =
        lines.lines().map(|line| line.split_whitespace().collect()).collect();
    let said: Vec<String> = words.iter().map(|words| words.join(" ")).collect();
    let right = [
        "scenario call 2 ratings, mean 3.50 of 5, measured R 81.05",
        "node east-a1 2 ratings, mean 3.50 of 5, measured R 80.00 (of 1)",
        "revision native 2 ratings, mean 3.50 of 5, R not measured",
    ];
    assert_eq!(said, right);
    assert_eq!(rating_lines(&RatingComparison::default()), "no ratings");
}
