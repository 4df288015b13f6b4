//! Operations, breakers and failures: the sessions that they touch, and how sessions fared.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use evenkeel_config::Traceparent;
use evenkeel_control::{
    CallerSpan, EventRecord, GatewayEvent, MediaPause, NodeOrder, OrderStep, TraceCaller,
};
use evenkeel_media::trunk::message::NodeFault;
use evenkeel_model::{
    BreakerMode, BreakerState, ClientGroup, ClientLabel, CoreEvent, Decider, Health, Hook,
    MoveCause, NewcomerAction, NodeId, OfferRefusal, Op, PortMove, RegionId, RoomId, SessionId,
};
use evenkeel_revisions::{Actor, RolloutOutcome, RolloutReport, RolloutStage, Staged};
use evenkeel_telemetry::registry::Attribute;
use evenkeel_telemetry::{EventRecorder, MetricsFormat, Moment, Telemetry};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span as Received;

use crate::receiver::Receiver;
use crate::telemetry::{
    SOON, TRACEPARENT, check_registered, counted, down, hear, hop, moved, names, only, opened,
    policy, recorder, refused, said, session, settings, start, word,
};

const KILL: NodeOrder = NodeOrder::Break(NodeFault::Kill);

const REVISION: &str = "0123456789ab";

/// A step of the rollout of [`REVISION`].
fn rollout_step(hook: Hook, outcome: RolloutOutcome, stage: Option<RolloutStage>) -> RolloutReport {
    RolloutReport {
        policy: policy(hook),
        revision: Some(REVISION.into()),
        previous: None,
        outcome,
        code: None,
        stage: stage.map(|stage| Staged { stage, paused: false, next: 100, next_in: None }),
        by: Actor::Operator,
        reason: None,
        arrived: Instant::now(),
        activate: Duration::from_micros(40),
    }
}

/// The span is linked to these sessions, by their moves, and to no others.
fn assert_touches(span: &Received, spans: &[Received], sessions: &[&str]) {
    let moves = spans.iter().filter(|span| span.name == "session.move");
    let moves = moves.filter(|span| sessions.contains(&&*session(span)));
    let linked: Vec<_> = span.links.iter().map(|link| &link.span_id).collect();
    assert_eq!(linked, moves.map(|it| &it.parent_span_id).collect::<Vec<_>>(), "{}", span.name);
    assert_eq!(linked.len(), sessions.len());
    assert_eq!(said(span, Attribute::Sessions), Some(Value::IntValue(sessions.len() as i64)));
    assert_eq!(said(span, Attribute::DroppedLinks), Some(Value::IntValue(0)));
}

#[test]
fn drill_is_linked_to_the_sessions_that_left_its_node() {
    let receiver = Receiver::grpc();
    let (telemetry, mut recorder) = start("drill", receiver.address, "grpc", 1.0);
    let ordered = |recorder: &mut EventRecorder, node, order, step| {
        let event = GatewayEvent::NodeOrdered { node: NodeId(node), order, step };
        recorder.record(&EventRecord::now(event));
    };
    ordered(&mut recorder, 0, KILL, OrderStep::Sent);
    // The agent's answer may come later than the effect.
    hear(&mut recorder, &[moved(1, &[1, 2], MoveCause::NodeDown)]);
    ordered(&mut recorder, 0, KILL, OrderStep::Done);
    ordered(&mut recorder, 1, KILL, OrderStep::Sent);
    ordered(&mut recorder, 1, KILL, OrderStep::Refused);
    ordered(&mut recorder, 1, NodeOrder::Start, OrderStep::Done);
    ordered(&mut recorder, 0, NodeOrder::Start, OrderStep::Sent);
    ordered(&mut recorder, 0, NodeOrder::Start, OrderStep::Refused);
    assert!(telemetry.flush(SOON));
    assert!(!names(&receiver.spans()).contains(&"node.drill"), "the fault lasts");
    ordered(&mut recorder, 0, NodeOrder::Start, OrderStep::Done);
    hear(&mut recorder, &[moved(2, &[3], MoveCause::Drain)]);
    ordered(&mut recorder, 1, NodeOrder::Break(NodeFault::Cut), OrderStep::Sent);
    recorder.finish();
    assert!(telemetry.flush(SOON));
    let spans = receiver.spans();
    check_registered(&spans);
    let drills: Vec<_> = spans.iter().filter(|span| span.name == "node.drill").collect();
    let shown: Vec<_> = drills
        .iter()
        .map(|it| [Attribute::Node, Attribute::Fault, Attribute::Outcome].map(|of| word(it, of)))
        .collect();
    assert_eq!(shown, [["east-a1", "kill", "ok"], ["east-b1", "cut", "unrepaired"]]);
    assert_touches(drills[0], &spans, &["s1", "s2"]);
    assert_touches(drills[1], &spans, &[]);
}

#[test]
fn drill_lasts_until_it_is_repaired_or_its_node_is_removed() {
    let receiver = Receiver::grpc();
    let (telemetry, mut recorder) = start("removed", receiver.address, "grpc", 1.0);
    let mut record = |event| recorder.record(&EventRecord::now(event));
    let cut = NodeOrder::Break(NodeFault::Cut);
    for (node, order, step) in [
        (0, KILL, OrderStep::Sent),
        (0, KILL, OrderStep::Done),
        (0, cut, OrderStep::Sent),
        (0, cut, OrderStep::Refused),
        (0, NodeOrder::Start, OrderStep::Done),
        (1, cut, OrderStep::Sent),
        (1, cut, OrderStep::Done),
    ] {
        record(GatewayEvent::NodeOrdered { node: NodeId(node), order, step });
    }
    record(GatewayEvent::NodeRemoved { node: NodeId(1), name: "east-b1".into() });
    // Another node gets the number.
    record(GatewayEvent::NodeOrdered {
        node: NodeId(1),
        order: NodeOrder::Start,
        step: OrderStep::Done,
    });
    assert!(telemetry.flush(SOON));
    let spans = receiver.spans();
    let drills = spans.iter().filter(|span| span.name == "node.drill");
    let shown = drills.map(|it| [Attribute::Fault, Attribute::Outcome].map(|of| word(it, of)));
    assert_eq!(shown.collect::<Vec<_>>(), [["kill", "ok"], ["cut", "unrepaired"]]);
}

#[test]
fn drain_is_linked_to_the_sessions_that_it_moved() {
    let receiver = Receiver::grpc();
    let (telemetry, mut recorder) = start("drained", receiver.address, "grpc", 1.0);
    let draining = |draining| CoreEvent::Draining { node: NodeId(0), draining };
    let drained = || CoreEvent::Drained { node: NodeId(0), left: 0, started: Instant::now() };
    hear(&mut recorder, &[draining(true), moved(1, &[1, 2], MoveCause::Drain)]);
    hear(&mut recorder, &[moved(2, &[3], MoveCause::Quality), drained(), draining(false)]);
    hear(&mut recorder, &[moved(3, &[4], MoveCause::Drain), draining(true), drained()]);
    assert!(telemetry.flush(SOON));
    let spans = receiver.spans();
    check_registered(&spans);
    let drains: Vec<_> = spans.iter().filter(|span| span.name == "node.drain").collect();
    assert_touches(drains[0], &spans, &["s1", "s2"]);
    assert_touches(drains[1], &spans, &[]);
}

#[test]
fn breaker_of_clients_is_linked_to_the_offers_that_it_refused() {
    let receiver = Receiver::grpc();
    let (telemetry, mut recorder) = start("clients", receiver.address, "grpc", 0.0);
    let group = |carrier: &str| ClientGroup { label: ClientLabel::Carrier, value: carrier.into() };
    let breaker = |from, to| CoreEvent::ClientBreaker {
        group: group("ct"),
        is_configured: true,
        others_open: 0,
        action: NewcomerAction::Refuse,
        from,
        to,
        mode: BreakerMode::Auto,
        sessions: 40,
        bad: 30,
    };
    let refused = |carrier| {
        let reason = OfferRefusal::ClientsImpaired { group: group(carrier), retry_after: SOON };
        refused("call", reason, None)
    };
    let (shut, open, half) = (BreakerState::Closed, BreakerState::Open, BreakerState::HalfOpen);
    hear(&mut recorder, &[breaker(shut, open), refused("ct"), refused("other")]);
    hear(&mut recorder, &[breaker(open, half)]);
    assert!(telemetry.flush(SOON));
    assert_eq!(names(&receiver.spans()), ["session.open"; 2]);
    hear(&mut recorder, &[breaker(half, shut)]);
    assert!(telemetry.flush(SOON));
    let spans = receiver.spans();
    check_registered(&spans);
    let breaker = only(&spans, "client.breaker");
    assert_eq!(word(breaker, Attribute::LabelValue), "ct");
    let [link] = &breaker.links[..] else { panic!("{:?}", breaker.links) };
    assert_eq!((&link.trace_id, &link.span_id), (&spans[0].trace_id, &spans[0].span_id));
    assert_eq!(said(breaker, Attribute::Sessions), Some(Value::IntValue(1)));
}

#[test]
fn breaker_is_not_linked_to_an_offer_that_is_not_sent() {
    let receiver = Receiver::grpc();
    let settings = settings("unsent", receiver.address, "grpc", 1.0);
    let telemetry = Telemetry::start(&settings, "test").unwrap();
    let mut recorder = recorder(&telemetry, &settings, Traceparent::Parent);
    let breaker = |from, to| CoreEvent::Breaker {
        region: RegionId(0),
        zone: None,
        from,
        to,
        mode: BreakerMode::Auto,
        sessions: 10,
        bad: 8,
        opened: 1,
        failed: 0,
    };
    let unsampled = TRACEPARENT.replace("-01", "-00");
    let caller = TraceCaller { arrived: Instant::now(), span: CallerSpan::parse(&unsampled) };
    hear(&mut recorder, &[breaker(BreakerState::Closed, BreakerState::Open)]);
    let refused = refused("call", OfferRefusal::NoNode { retry_after: SOON }, None);
    recorder.handle_event(&refused, Some(&caller), Moment::now());
    hear(&mut recorder, &[breaker(BreakerState::Open, BreakerState::Closed)]);
    assert!(telemetry.flush(SOON));
    let spans = receiver.spans();
    assert_eq!(names(&spans), ["region.breaker"]);
    assert!(spans[0].links.is_empty());
    assert_eq!(said(&spans[0], Attribute::DroppedLinks), Some(Value::IntValue(1)));
}

#[test]
fn rollout_is_linked_to_the_sessions_of_its_revision() {
    let receiver = Receiver::grpc();
    let (telemetry, mut recorder) = start("touched", receiver.address, "grpc", 1.0);
    let step = |outcome, stage| rollout_step(Hook::Routing, outcome, stage);
    let by = |revision: &str| Decider::Policy {
        policy: policy(Hook::Routing),
        revision: revision.into(),
    };
    let moved_by = |room, session, decider| {
        let mut event = moved(room, &[session], MoveCause::Quality);
        if let CoreEvent::Moved { by, .. } = &mut event {
            *by = decider;
        }
        event
    };
    let started = step(RolloutOutcome::Started, Some(RolloutStage::Canary(5)));
    recorder.handle_rollout(&started, Moment::now());
    hear(&mut recorder, &[moved_by(1, 1, by(REVISION)), moved_by(2, 2, by("ba9876543210"))]);
    hear(&mut recorder, &[moved_by(3, 3, Decider::Native), moved_by(4, 4, by(REVISION))]);
    recorder.handle_rollout(&step(RolloutOutcome::Activated, None), Moment::now());
    assert!(telemetry.flush(SOON));
    let spans = receiver.spans();
    check_registered(&spans);
    assert_touches(only(&spans, "policy.rollout"), &spans, &["s1", "s4"]);
}

#[test]
fn rollout_is_linked_to_the_sessions_that_its_revision_degraded() {
    let receiver = Receiver::grpc();
    let (telemetry, mut recorder) = start("degrades", receiver.address, "grpc", 1.0);
    let step = |outcome, stage| rollout_step(Hook::Degradation, outcome, stage);
    let stage = Some(RolloutStage::Canary(5));
    recorder.handle_rollout(&step(RolloutOutcome::Started, stage), Moment::now());
    let (session, room_name) = (SessionId(1), "room".into());
    let by = Decider::Policy { policy: policy(Hook::Degradation), revision: REVISION.into() };
    let degraded = CoreEvent::Degraded { session, room_name, op: Op::Cap, arg: 300, rung: 1, by };
    hear(&mut recorder, &[degraded]);
    recorder.handle_rollout(&step(RolloutOutcome::Activated, None), Moment::now());
    recorder.finish();
    assert!(telemetry.flush(SOON));
    let spans = receiver.spans();
    let [link] = &only(&spans, "policy.rollout").links[..] else { panic!("one link") };
    assert_eq!(link.span_id, only(&spans, "session.degraded").parent_span_id);
}

#[test]
fn failover_span_links_moved_sessions() {
    let receiver = Receiver::grpc();
    let (telemetry, mut recorder) = start("failover", receiver.address, "grpc", 1.0);
    hear(&mut recorder, &[opened(1, 1), opened(2, 1), opened(3, 2), opened(4, 3)]);
    hear(&mut recorder, &[down(2), moved(1, &[1, 2], MoveCause::NodeDown)]);
    assert!(telemetry.flush(SOON));
    assert!(!names(&receiver.spans()).contains(&"node.failover"), "a room has not moved yet");
    hear(&mut recorder, &[moved(3, &[4], MoveCause::Quality), moved(2, &[3], MoveCause::NodeDown)]);
    assert!(telemetry.flush(SOON));
    let spans = receiver.spans();
    check_registered(&spans);
    let failover = only(&spans, "node.failover");
    let linked: BTreeSet<_> = failover.links.iter().map(|link| link.span_id.clone()).collect();
    let moves: Vec<_> = spans.iter().filter(|span| span.name == "session.move").collect();
    let failed_over = moves.iter().filter(|it| word(it, Attribute::Cause) == "node-down");
    assert_eq!(linked, failed_over.map(|span| span.parent_span_id.clone()).collect());
    let sessions = moves.iter().map(|span| session(span));
    assert_eq!(sessions.collect::<Vec<_>>(), ["s1", "s2", "s4", "s3"]);
    for moved in moves {
        assert_eq!(word(moved, Attribute::From), "east-a1");
        assert_eq!(word(moved, Attribute::Node), "east-b1");
    }
    assert_eq!(word(failover, Attribute::Node), "east-a1");
    assert_eq!(said(failover, Attribute::Rooms), Some(Value::IntValue(2)));
    assert_eq!(said(failover, Attribute::Sessions), Some(Value::IntValue(3)));
    assert_eq!(said(failover, Attribute::DroppedLinks), Some(Value::IntValue(0)));
    let Some(Value::ArrayValue(witnesses)) = said(failover, Attribute::Witness) else { panic!() };
    assert_eq!(witnesses.values.len(), 2);
}

#[test]
fn failover_links_are_bounded() {
    let receiver = Receiver::grpc();
    let (telemetry, mut recorder) = start("bounded", receiver.address, "grpc", 1.0);
    let sessions: Vec<u64> = (1..=200).collect();
    for &session in &sessions {
        hear(&mut recorder, &[opened(session, 1)]);
    }
    hear(&mut recorder, &[down(1), moved(1, &sessions, MoveCause::NodeDown)]);
    assert!(telemetry.flush(SOON));
    let spans = receiver.spans();
    let failover = only(&spans, "node.failover");
    assert_eq!(failover.links.len(), 128);
    assert_eq!(said(failover, Attribute::DroppedLinks), Some(Value::IntValue(72)));
}

#[test]
fn failover_is_linked_to_sessions_that_closed_ports_moved_before() {
    let receiver = Receiver::grpc();
    let (telemetry, mut recorder) = start("ports", receiver.address, "grpc", 1.0);
    let link = MoveCause::Link;
    let found = |node, cause, session| CoreEvent::MoveCauseFound {
        hop: hop(node),
        cause,
        moves: vec![PortMove {
            room: RoomId(session),
            room_name: "room".into(),
            scenario: "call".into(),
            sessions: vec![SessionId(session)],
            took: Duration::from_millis(1),
        }],
    };
    hear(&mut recorder, &[moved(1, &[1], link), moved(2, &[2], link)]);
    let counts = |cause| {
        let cause = format!("evenkeel_cause=\"{cause}\"");
        ["evenkeel_rooms_moved_total", "evenkeel_sessions_moved_total"]
            .map(|metric| counted(&telemetry, metric, &cause))
    };
    assert_eq!(["link", "node-down"].map(counts), [[0; 2]; 2]);
    hear(&mut recorder, &[down(1), found(0, MoveCause::NodeDown, 1)]);
    hear(&mut recorder, &[down(0), down(0), found(1, link, 2)]);
    assert_eq!(["link", "node-down"].map(counts), [[1; 2]; 2]);
    assert!(telemetry.flush(SOON));
    let spans = receiver.spans();
    check_registered(&spans);
    let failovers: Vec<_> = spans.iter().filter(|span| span.name == "node.failover").collect();
    assert_touches(failovers[0], &spans, &["s1"]);
    assert_touches(failovers[1], &spans, &[]);
    assert_touches(failovers[2], &spans, &[]);
}

#[test]
fn death_that_the_process_before_counted_is_not_counted_again() {
    let receiver = Receiver::grpc();
    let (telemetry, mut recorder) = start("restored", receiver.address, "grpc", 1.0);
    let restored = CoreEvent::Node {
        hop: hop(0),
        from: Health::Up,
        to: Health::Down,
        witnesses: Vec::new(),
        last_heard: None,
        rooms: 0,
    };
    hear(&mut recorder, &[restored]);
    let failures = |telemetry| counted(telemetry, "evenkeel_node_failures_total", "east-a1");
    assert_eq!(failures(&telemetry), 0);
    assert_eq!(counted(&telemetry, "evenkeel_node_health", "east-a1"), 3);
    assert!(telemetry.flush(SOON));
    assert!(receiver.spans().is_empty());
    hear(&mut recorder, &[down(0)]);
    assert_eq!(failures(&telemetry), 1);
}

#[test]
fn pauses_of_media_count_and_lead_to_the_trace() {
    let receiver = Receiver::grpc();
    let (telemetry, mut recorder) = start("pauses", receiver.address, "grpc", 1.0);
    hear(&mut recorder, &[opened(1, 1), moved(1, &[1], MoveCause::NodeDown)]);
    let pause = |session, gap: Option<u64>, freezes| MediaPause {
        session: SessionId(session),
        scenario: "call".into(),
        hop: hop(1),
        gap: gap.map(Duration::from_millis),
        freezes,
    };
    let pauses = vec![pause(1, Some(35), 2), pause(2, None, 1), pause(3, Some(700), 0)];
    recorder.record(&EventRecord::now(GatewayEvent::MediaPaused(pauses)));
    let place = "evenkeel_scenario=\"call\",evenkeel_zone=\"b\"";
    assert_eq!(counted(&telemetry, "evenkeel_session_freezes_total", place), 3);
    let gaps = "evenkeel_session_gap_duration_seconds";
    assert_eq!(counted(&telemetry, &format!("{gaps}_count"), place), 2);
    let moves = "evenkeel_rooms_move_duration_seconds_count";
    assert_eq!(counted(&telemetry, moves, "node-down"), 1);
    assert!(telemetry.flush(SOON));
    let spans = receiver.spans();
    let trace = only(&spans, "session.open").trace_id.iter();
    let trace = trace.map(|byte| format!("{byte:02x}")).collect::<String>();
    let text = telemetry.prometheus().render_as(MetricsFormat::OpenMetrics);
    for metric in
        [gaps, "evenkeel_rooms_move_duration_seconds", "evenkeel_session_open_duration_seconds"]
    {
        let exemplar = format!(" # {{trace_id=\"{trace}\"");
        let bucket = format!("{metric}_bucket{{");
        let is_found = text.lines().any(|it| it.starts_with(&bucket) && it.contains(&exemplar));
        assert!(is_found, "{metric} has no exemplar of {trace}: {text}");
    }
    let later = text.lines().find(|it| it.starts_with(gaps) && it.contains("le=\"0.04\""));
    assert!(later.is_some_and(|it| it.contains(&trace) && it.contains(" 0.035 ")), "{later:?}");
}
