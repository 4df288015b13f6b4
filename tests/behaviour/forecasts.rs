//! Forecasts at a running gateway.

use evenkeel_control::{ForecastReport, GatewayEvent};
use evenkeel_forecast::{Forecast, ForecastChange, ForecastEvidence};
use evenkeel_model::{CoreEvent, NodeId, NodeNeed, StartPhase};

use crate::harness::{Node, World, wait_until};

#[test]
fn expected_exhaustion_is_shown_and_starts_a_node() {
    let [node, mut cold] = ["east-a1", "east-b1"].map(Node::agent);
    cold.die();
    let mut world = World::of(&[&node]);
    world.nodes += &format!(
        "{}start = {{ command = [\"/bin/true\"], stop = [\"/bin/true\"], stop_after = \"1h\" }}\n",
        cold.text()
    );
    let gateway = world.start();
    let evidence =
        ForecastEvidence::Load { load_kbps: 990, capacity_kbps: 1_000, confidence_percent: 60 };
    let forecast = Forecast { subject: "east".into(), since_us: 1, expected_us: 2, evidence };
    let change = ForecastChange { forecast: forecast.clone(), is_over: false };
    let report = ForecastReport {
        forecasts: vec![forecast.clone()],
        changes: vec![change.clone()],
        exhausted: vec!["east".into()],
        // Of 200 Mbit/s of the other node.
        expected: vec![("east".into(), 190_000)],
        decays: Vec::new(),
    };
    // A cold node may be started once it has missed a probe.
    wait_until("a node is started", || {
        gateway.ask(gateway.handle.note_forecasts(Box::new(report.clone()))).unwrap();
        let begun = gateway.happened(|record| match record.event {
            GatewayEvent::Core(CoreEvent::Start { node, step: StartPhase::Begun { .. } }) => {
                Some(node)
            }
            _ => None,
        });
        begun == Some(NodeId(1))
    });
    cold.revive();
    wait_until("the node is kept for the expected load", || {
        let nodes = gateway.ask(gateway.handle.nodes()).unwrap();
        nodes.iter().any(|node| (node.hop.node, node.need) == (NodeId(1), Some(NodeNeed::Load)))
    });
    assert_eq!(gateway.status().forecasts, [forecast]);
    let told = gateway.happened(|record| match &record.event {
        GatewayEvent::Forecast(change) => Some(change.clone()),
        _ => None,
    });
    assert_eq!(told, Some(change));
}
