//! Deaths of nodes and moves of their rooms, beside predictions.

use std::time::{Duration, Instant, SystemTime};

use evenkeel_model::{FailureScope, Incarnation, MoveCause};

use super::*;

fn hop(node: u32) -> Hop {
    Hop { node: NodeId(node), incarnation: Incarnation(1) }
}

fn record(at_ms: u64, event: CoreEvent) -> EventRecord {
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(at_ms);
    EventRecord { at, ..EventRecord::now(GatewayEvent::Core(event)) }
}

fn death(at_ms: u64, node: u32) -> EventRecord {
    let event = CoreEvent::Node {
        hop: hop(node),
        from: Health::Up,
        to: Health::Down,
        witnesses: vec![(EvidenceSource::Probe, Instant::now())],
        last_heard: None,
        rooms: 1,
    };
    record(at_ms, event)
}

/// A room of two sessions, the first of which has twice its number.
fn moved(at_ms: u64, room: u64, from: u32, to: Option<u32>) -> EventRecord {
    let event = CoreEvent::Moved {
        room: RoomId(room),
        room_name: "room".into(),
        scenario: "call".into(),
        sessions: vec![SessionId(2 * room), SessionId(2 * room + 1)],
        cause: MoveCause::NodeDown,
        by: Decider::Native,
        from: hop(from),
        to: to.map(hop),
        started: Instant::now(),
        is_final: true,
    };
    record(at_ms, event)
}

fn capped(at_ms: u64, session: u64, kbps: u64) -> EventRecord {
    let event = CoreEvent::Degraded {
        session: SessionId(session),
        room_name: "room".into(),
        op: Op::Cap,
        arg: kbps,
        rung: 1,
        by: Decider::Native,
    };
    record(at_ms, event)
}

/// The loss of these nodes would hit so many rooms.
fn predicted(nodes: &[u32], rooms: u32) -> PredictedLoss {
    PredictedLoss {
        at_us: 1,
        scope: if nodes.len() > 1 { FailureScope::Zone } else { FailureScope::Node },
        place: "place".into(),
        nodes: nodes.iter().copied().map(NodeId).collect(),
        figures: LossFigures { rooms, ..LossFigures::default() },
    }
}

fn compared(events: &[EventRecord]) -> Option<LossComparison> {
    let mut faults = FaultObserver::default();
    faults.predict(vec![predicted(&[0], 3), predicted(&[0, 1], 5)]);
    for event in events {
        assert_eq!(faults.handle(event), None);
    }
    assert_eq!(faults.end(5_999_999), None);
    faults.end(6_000_000)
}

#[test]
fn figures_count_rooms_of_dead_nodes() {
    let events = [
        moved(999, 1, 0, Some(1)),
        death(1_000, 0),
        capped(1_000, 4, 90),
        capped(1_000, 6, 90),
        capped(1_000, 20, 90),
        moved(1_001, 2, 0, Some(1)),
        moved(1_001, 3, 0, None),
        moved(1_001, 4, 0, None),
        moved(1_001, 5, 2, Some(1)),
        capped(1_002, 6, 0),
        moved(3_000, 4, 0, Some(1)),
    ];
    let compared = compared(&events).unwrap();
    let right = LossFigures { rooms: 3, sessions: 6, unplaced_sessions: 2, reduced_sessions: 1 };
    assert_eq!((compared.actual, compared.died_us), (right, 1_000_000));
    assert_eq!((compared.nodes, compared.predicted), (vec![hop(0)], Some(predicted(&[0], 3))));
    assert_eq!(compared.witnesses, [EvidenceSource::Probe].into());
}

#[test]
fn rooms_whose_ports_closed_before_count() {
    let port_move = |room: u64| PortMove {
        room: RoomId(room),
        room_name: "room".into(),
        scenario: "call".into(),
        sessions: vec![SessionId(2 * room), SessionId(2 * room + 1)],
        took: Duration::from_millis(1),
    };
    let found = |node, cause, room| {
        let moves = vec![port_move(room)];
        record(1_000, CoreEvent::MoveCauseFound { hop: hop(node), cause, moves })
    };
    let compared = compared(&[
        moved(999, 1, 0, Some(1)),
        death(1_000, 0),
        found(0, MoveCause::NodeDown, 1),
        found(2, MoveCause::NodeDown, 3),
        found(0, MoveCause::Link, 4),
        moved(1_001, 2, 0, Some(1)),
    ]);
    let right = LossFigures { rooms: 2, sessions: 4, ..LossFigures::default() };
    assert_eq!(compared.unwrap().actual, right);
}

#[test]
fn deaths_of_a_zone_are_one_fault() {
    let events = [death(1_000, 1), moved(1_000, 1, 1, Some(0)), death(1_400, 0)];
    let zone = compared(&events).unwrap();
    assert_eq!((zone.predicted, zone.actual.rooms), (Some(predicted(&[0, 1], 5)), 1));
    let unknown = compared(&[death(1_000, 2), moved(1_000, 1, 2, Some(0))]).unwrap();
    assert_eq!((unknown.predicted, unknown.actual.rooms), (None, 1));
    let idle = compared(&[death(1_000, 2)]).unwrap();
    assert_eq!((idle.predicted, idle.actual), (None, LossFigures::default()));
}

#[test]
fn fault_keeps_the_predictions_before_it() {
    let mut faults = FaultObserver::default();
    faults.predict(vec![predicted(&[0], 3)]);
    faults.handle(&death(1_000, 0));
    faults.predict(vec![predicted(&[0], 0)]);
    // The next fault ends the first.
    let first = faults.handle(&death(6_000, 0)).unwrap();
    assert_eq!(first.predicted, Some(predicted(&[0], 3)));
    assert!(faults.follows_fault());
    faults.forget();
    assert_eq!(faults.end(20_000_000), None);
}
