//! The lines of `evenkeel status`; the test plays the gateway.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::api::{Api, evenkeel, policies, said};

#[test]
fn status_shows_start_and_shutdown() {
    for (state, words) in [("starting", "compiling policies"), ("draining", "shutting down")] {
        let status = json!({"state": state, "sessions": 2, "rooms": 1});
        let api = Api::start(vec![
            ("GET /v1/status ", status),
            ("GET /v1/nodes ", json!({"nodes": []})),
            ("GET /v1/policies ", policies(&json!("trap: unreachable"))),
        ]);
        let said = said(&evenkeel(&api.socket, &["status"]));
        assert!(said.contains("2 sessions in 1 rooms") && said.contains(words), "{said}");
        assert!(said.contains("failing: trap: unreachable"), "{said}");
    }
}

#[test]
fn status_shows_the_process_and_its_configuration() {
    let now_us = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
    let ago = |minutes: u64| now_us - minutes * 60_000_000;
    let status = json!({
        "sessions": 2, "rooms": 1, "version": "1.2.3", "uptime_ms": 90_061_000,
        "configuration": {
            "file": "evenkeel.toml", "sha256": "5f0c", "read_us": ago(130), "requires_restart": [],
        },
        "last_reload": {"at_us": ago(7), "by": "file", "reason": "evenkeel.toml:3:1: found nothing"},
        "export_failures": [{"signal": "spans", "since_us": ago(5), "failures": 12}],
    });
    let api = Api::start(vec![
        ("GET /v1/status ", status),
        ("GET /v1/nodes ", json!({"nodes": []})),
        ("GET /v1/policies ", json!({"policies": []})),
    ]);
    let said = said(&evenkeel(&api.socket, &["status"]));
    let lines: Vec<&str> = said.lines().skip(1).collect();
    let expected = [
        "  version 1.2.3, up 1 d 1 h",
        "  configuration evenkeel.toml, SHA-256 5f0c, read 2 h 10 min ago",
        "  last reload 7 min ago, by file: refused, nothing changed: evenkeel.toml:3:1: found nothing",
        "  spans not exported for 5 min: 12 attempts failed",
    ];
    assert_eq!(lines, expected);
}
