//! Service level objectives in the status.

use evenkeel_model::SloIndicator;
use evenkeel_slo::{SloStanding, SloWindow};

use super::*;

#[test]
fn status_shows_burn_rates() {
    let mut world = World::start();
    let asking = world.ask("GET /v1/status", "");
    let ControlRequest::Status(reply) = world.request() else { panic!("status") };
    let of = |window, bad, burn_rate| {
        let counted = (window == "30d").then(|| Duration::from_secs(420));
        SloWindow { window, counted, sessions: 20, bad, burn_rate }
    };
    let slo = SloStanding {
        scenario: "call".into(),
        slo: SloIndicator::RFactor,
        objective: 0.99,
        budget: 0.25,
        windows: [
            of("5m", 0, None),
            of("1h", 1, Some(5.0)),
            of("6h", 1, Some(0.75)),
            of("30d", 1, Some(0.75)),
        ],
    };
    reply.send(StatusReport { slos: vec![slo], ..status("serving") }).unwrap();
    let (_, body) = asking.answer();
    let expected = json!([{
        "scenario": "call", "slo": "r-factor", "objective": 0.99, "budget": 0.25,
        "windows": [
            {"window": "5m", "sessions": 20, "bad": 0, "burn_rate": null},
            {"window": "1h", "sessions": 20, "bad": 1, "burn_rate": 5.0},
            {"window": "6h", "sessions": 20, "bad": 1, "burn_rate": 0.75},
            {"window": "30d", "counted_ms": 420_000, "sessions": 20, "bad": 1, "burn_rate": 0.75},
        ]
    }]);
    assert_eq!(body["slos"], expected);
}
