use evenkeel_model::{Measures, PluginState, RoomId};

use super::*;

fn row(id: u64, measured: &[(Metric, u64)]) -> Row {
    let mut measures = Measures::default();
    for &(metric, value) in measured {
        measures.set(metric, value);
    }
    Row { id, measures }
}

fn hops(numbers: &[u32]) -> Vec<NodeId> {
    numbers.iter().copied().map(NodeId).collect()
}

fn placed(numbers: &[u32]) -> Vec<Violation> {
    let nodes = [row(0, &[]), row(1, &[(Metric::Health, 3)]), row(2, &[(Metric::Draining, 1)])];
    route(&nodes, &hops(numbers))
}

#[test]
fn route_names_existing_nodes_once() {
    assert_eq!(placed(&[]), []);
    assert_eq!(placed(&[0]), []);
    assert_eq!(placed(&[3]), [Violation::UnknownNode(NodeId(3))]);
    assert_eq!(placed(&[0, 0]), [Violation::NodeTwice(NodeId(0))]);
    assert_eq!(placed(&[1]), [Violation::NodeDown(NodeId(1))]);
    assert_eq!(placed(&[2]), [Violation::NodeDraining(NodeId(2))]);
    assert!(placed(&[1])[0].is_guarded() && !placed(&[3])[0].is_guarded());
    let many: Vec<Row> = (0..6).map(|id| row(id, &[])).collect();
    assert_eq!(route(&many, &hops(&[0, 1, 2, 3])), []);
    assert_eq!(route(&many, &hops(&[0, 1, 2, 3, 4])), [Violation::TooManyHops(5)]);
}

#[test]
fn refusal_names_no_node() {
    let (room, labels) = (RoomId(1), std::sync::Arc::new([]));
    let question = PolicyQuestion::Place { room, scenario: "call".into(), labels, nodes: vec![] };
    let state = PluginState { plugin: "p".into(), schema: 0, bytes: [].into() };
    let placed = |numbers: &[u32]| HookAnswer::Placed {
        hops: hops(numbers),
        ttl_ms: 0,
        reason: 0,
        state: state.clone(),
    };
    assert_eq!(violations(&question, &placed(&[u32::MAX])), []);
    assert_eq!(violations(&question, &placed(&[u32::MAX, u32::MAX])).len(), 2);
}

#[test]
fn room_moves_once_and_to_a_node() {
    let step =
        |row, numbers: &[u32]| RoutingMove { row, hops: hops(numbers), ttl_ms: 0, reason: 0 };
    let nodes = [row(0, &[])];
    let judged = |moves: &[RoutingMove]| reroute(&nodes, 2, moves);
    assert_eq!(judged(&[step(0, &[0]), step(1, &[0])]), []);
    assert_eq!(judged(&[step(2, &[0])]), [Violation::UnknownRow { row: 2, rows: 2 }]);
    assert_eq!(judged(&[step(1, &[0]), step(1, &[0])]), [Violation::MovedTwice(1)]);
    assert_eq!(judged(&[step(1, &[])]), [Violation::Nowhere(1)]);
}

#[test]
fn redirect_needs_existing_region_and_new_room() {
    let regions = [row(7, &[])];
    let judged = |stands, region| admit(stands, &regions, AdmitVerdict::Redirect(RegionId(region)));
    assert_eq!(judged(false, 7), None);
    assert_eq!(judged(false, 8), Some(Violation::UnknownRegion(RegionId(8))));
    assert_eq!(judged(true, 7), Some(Violation::RedirectOfRoom));
    assert_eq!(admit(true, &regions, AdmitVerdict::AcceptCapped(0)), None);
}

#[test]
fn action_exists_and_cap_is_within_bounds() {
    let bounds = [(Metric::Floor, 100), (Metric::Ceiling, 200)];
    let session = |measured: &[(Metric, u64)]| SessionRow {
        row: row(1, measured),
        room: RoomId(1),
        scenario: "call".into(),
        labels: std::sync::Arc::new([]),
        state: None,
    };
    let sessions = [session(&bounds), session(&[])];
    let judged =
        |row, op, arg| action_violation(&sessions, &DegradationAction { row, op, arg, reason: 0 });
    for kbps in [0, 100, 200] {
        assert_eq!(judged(0, 1, kbps), None, "{kbps}");
    }
    for kbps in [99, 201, u64::MAX] {
        let violation = judged(0, 1, kbps).unwrap();
        assert_eq!(violation, Violation::CapOutOfBounds { row: 0, kbps, floor: 100, ceiling: 200 });
    }
    assert_eq!(judged(1, 1, 9_999), None, "unknown bounds");
    assert_eq!(judged(0, 2, 1), None);
    assert_eq!(judged(0, 99, 1), Some(Violation::UnknownAction(99)));
    assert_eq!(judged(2, 1, 0), Some(Violation::UnknownRow { row: 2, rows: 2 }));
}

#[test]
fn answer_belongs_to_its_question() {
    let question =
        PolicyQuestion::Resolve { scenario: "call".into(), labels: std::sync::Arc::new([]) };
    assert_eq!(violations(&question, &HookAnswer::Params(vec![])), []);
    let other = HookAnswer::Admit { verdict: AdmitVerdict::Accept, reason: 0 };
    assert_eq!(violations(&question, &other), [Violation::Mismatched]);
}
