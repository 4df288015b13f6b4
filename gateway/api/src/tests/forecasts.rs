//! Forecasts in the status and as events.

use evenkeel_forecast::{DecaySign, Forecast, ForecastChange, ForecastEvidence};

use super::events::listening;
use super::*;

fn forecast() -> Forecast {
    let evidence = ForecastEvidence::Decay { sign: DecaySign::Loss, value: 0.015, limit: 0.02 };
    Forecast { subject: "east-a1".into(), since_us: 1, expected_us: 2, evidence }
}

#[test]
fn status_shows_forecasts() {
    let mut world = World::start();
    let asking = world.ask("GET /v1/status", "");
    let ControlRequest::Status(reply) = world.request() else { panic!("status") };
    reply.send(StatusReport { forecasts: vec![forecast()], ..status("serving") }).unwrap();
    let (_, body) = asking.answer();
    let expected = json!([{
        "kind": "decay", "subject": "east-a1", "since_us": 1, "expected_us": 2,
        "evidence": {"sign": "loss", "value": 0.015, "limit": 0.02},
    }]);
    assert_eq!(body["forecasts"], expected);
}

#[test]
fn forecast_is_an_event() {
    let (world, mut listening) = listening();
    for is_over in [false, true] {
        let change = ForecastChange { forecast: forecast(), is_over };
        world.happen(GatewayEvent::Forecast(change), None);
        let told = listening.notice("forecast");
        assert_eq!((&told["kind"], &told["subject"]), (&json!("decay"), &json!("east-a1")));
        assert_eq!((&told["expected_us"], &told["over"]), (&json!(2), &json!(is_over)));
        assert_eq!(told["evidence"]["limit"], 0.02);
    }
}
