//! Traces of sessions: what belongs to one, and which are sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_config::Traceparent;
use evenkeel_control::{
    CallerSpan, Continuation, EventRecord, GatewayEvent, NodeHook, TraceCaller, TraceRegistry,
    TraceShare,
};
use evenkeel_model::{
    BreakerMode, BreakerState, CloseReason, ClosedMove, CoreEvent, Decider, DecisionOutcome, Hook,
    Hop, Incarnation, MoveCause, NodeId, NotStarted, OfferRefusal, Op, RegionId, RoomId, SessionId,
    StartPhase, StopPhase,
};
use evenkeel_telemetry::registry::Attribute;
use evenkeel_telemetry::{Moment, Telemetry};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::sync::broadcast;

use crate::receiver::Receiver;
use crate::telemetry::{
    SOON, TRACEPARENT, check_registered, closed, continuing, decided, down, hear, moved, names,
    only, opened, policy, refused, said, session, settings, start, word,
};

fn degraded(session: u64, rung: u8, by: Decider) -> CoreEvent {
    let (session, room_name) = (SessionId(session), "room".into());
    CoreEvent::Degraded { session, room_name, op: Op::Cap, arg: 300, rung, by }
}

#[test]
fn ended_session_holds_no_spans() {
    let receiver = Receiver::grpc();
    let (telemetry, mut recorder) = start("ended", receiver.address, "grpc", 0.0);
    hear(&mut recorder, &[opened(1, 1), closed(1, 1, CloseReason::Requested)]);
    // A late event would release those that are still held.
    hear(&mut recorder, &[moved(1, &[1], MoveCause::NodeDown)]);
    assert!(telemetry.flush(SOON));
    assert_eq!(names(&receiver.spans()), ["session.move"]);
}

#[test]
fn affected_session_is_sent_whatever_the_share() {
    let receiver = Receiver::grpc();
    let (telemetry, mut recorder) = start("affected", receiver.address, "grpc", 0.0);
    let degraded = |session, rung| degraded(session, rung, Decider::Native);
    hear(&mut recorder, &[opened(1, 1), opened(2, 2), opened(3, 3)]);
    hear(&mut recorder, &[degraded(1, 1), degraded(1, 2), degraded(1, 0), degraded(2, 1)]);
    let closed = [1, 2, 3].map(|session| closed(session, session, CloseReason::Requested));
    hear(&mut recorder, &closed);
    assert!(telemetry.flush(SOON));
    let spans = receiver.spans();
    check_registered(&spans);
    let opened = ["admission", "session.open"];
    let ended = ["session", "session.degraded", "session"];
    let sent = [&opened[..], &["session.degraded"], &opened, &ended].concat();
    assert_eq!(names(&spans), sent, "the third one is not affected");
    let of_name = |name: &'static str| spans.iter().filter(move |span| span.name == name);
    let steps: Vec<_> = of_name("session.degraded").map(|span| span.events.len()).collect();
    assert_eq!(steps, [2, 1], "the second one lasted to the end");
    for (degraded, life) in of_name("session.degraded").zip(of_name("session")) {
        assert_eq!((&degraded.trace_id, &degraded.parent_span_id), (&life.trace_id, &life.span_id));
        assert_eq!(word(life, Attribute::Outcome), "affected");
    }
}

/// The names of the spans in the trace of a session's life, in alphabetical order.
fn trace_of<'a>(spans: &'a [Span], life: &Span) -> Vec<&'a str> {
    let of_trace = spans.iter().filter(|span| span.trace_id == life.trace_id);
    let mut names: Vec<_> = of_trace.map(|span| &*span.name).collect();
    names.sort_unstable();
    names
}

fn continued(cause: Continuation, sessions: &[u64]) -> EventRecord {
    EventRecord::now(GatewayEvent::Continued {
        cause,
        sessions: sessions.len(),
        oldest: sessions.iter().copied().map(SessionId).collect(),
        callers: Vec::new(),
        took: Duration::from_millis(4),
    })
}

#[test]
fn affected_session_is_sent_whole() {
    let receiver = Receiver::grpc();
    let settings = settings("whole", receiver.address, "grpc", 0.0);
    let telemetry = Telemetry::start(&settings, "test").unwrap();
    let traces = Arc::default();
    let [mut first, mut second] = [(); 2].map(|()| continuing(&telemetry, &settings, &traces));
    let admitted = DecisionOutcome::Applied { differs: false };
    hear(&mut first, &[decided(Hook::Admission, Some(1), None, admitted)]);
    hear(&mut first, &[opened(1, 1), opened(2, 2), moved(1, &[1], MoveCause::Manual)]);
    assert!(telemetry.flush(SOON));
    assert!(receiver.spans().is_empty(), "no session is affected yet");
    hear(&mut first, &[down(1), moved(1, &[1], MoveCause::NodeDown)]);
    hear(&mut first, &[closed(2, 2, CloseReason::Requested)]);
    second.record(&continued(Continuation::Takeover, &[1, 3]));
    hear(&mut second, &[1, 3].map(|it| closed(it, it, CloseReason::Requested)));
    assert!(telemetry.flush(SOON));
    let spans = receiver.spans();
    check_registered(&spans);
    assert!(spans.iter().all(|span| span.flags & 1 == 1), "all are sampled");
    let lives: Vec<_> = spans.iter().filter(|span| span.name == "session").collect();
    let [life, taken_over] = lives[..] else { panic!("{:?}", names(&spans)) };
    let whole = ["admission", "policy.decide", "session", "session.continued"];
    let whole = [&whole[..], &["session.move", "session.move", "session.open"]].concat();
    assert_eq!(trace_of(&spans, life), whole);
    assert_eq!(trace_of(&spans, taken_over), ["session", "session.continued"]);
    assert_eq!(spans.len(), whole.len() + 2 + 2, "and the failover and the takeover themselves");
    assert_eq!(word(only(&spans, "gateway.continued"), Attribute::Cause), "takeover");
    assert_eq!(only(&spans, "gateway.continued").links.len(), 2);
}

#[test]
fn failure_or_earlier_failover_is_sent_at_the_end() {
    let receiver = Receiver::grpc();
    let (telemetry, mut recorder) = start("late", receiver.address, "grpc", 0.0);
    recorder.record(&continued(Continuation::Upgrade, &[1, 2]));
    hear(&mut recorder, &[moved(1, &[1, 2], MoveCause::Drain), opened(3, 3)]);
    let mut failed_over = closed(1, 1, CloseReason::Requested);
    let CoreEvent::Closed { closed: life, .. } = &mut failed_over else { panic!() };
    let hop = Hop { node: NodeId(0), incarnation: Incarnation(1) };
    life.moves.push(ClosedMove {
        cause: MoveCause::NodeDown,
        by: Arc::new(Decider::Native),
        from: hop,
        to: None,
        ended: Instant::now(),
    });
    hear(&mut recorder, &[failed_over, closed(2, 1, CloseReason::Requested)]);
    hear(&mut recorder, &[closed(3, 3, CloseReason::NotOpened)]);
    assert!(telemetry.flush(SOON));
    let spans = receiver.spans();
    check_registered(&spans);
    let lives: Vec<_> = spans.iter().filter(|span| span.name == "session").collect();
    let [failed_over, failed] = lives[..] else { panic!("{:?}", names(&spans)) };
    assert_eq!(trace_of(&spans, failed_over), ["session", "session.continued", "session.move"]);
    assert_eq!(word(failed_over, Attribute::Outcome), "affected");
    assert_eq!(trace_of(&spans, failed), ["admission", "session", "session.open"]);
    assert_eq!(word(failed, Attribute::Outcome), "failed");
    assert_eq!(word(failed, Attribute::ErrorType), "not-opened");
}

#[test]
fn batched_decision_is_linked_to_the_sessions_that_it_changed() {
    let receiver = Receiver::grpc();
    // Outside of the share the decision's effect has them sent.
    let (telemetry, mut recorder) = start("batch", receiver.address, "grpc", 0.0);
    let degraded = |session, by| degraded(session, 1, by);
    let revision: Arc<str> = Arc::from("0123456789ab");
    let by = Decider::Policy { policy: policy(Hook::Degradation), revision };
    let applied = DecisionOutcome::Applied { differs: false };
    hear(&mut recorder, &[opened(1, 1), opened(2, 1)]);
    hear(&mut recorder, &[decided(Hook::Degradation, None, None, applied)]);
    hear(&mut recorder, &[degraded(1, by.clone()), degraded(2, by), degraded(3, Decider::Native)]);
    hear(&mut recorder, &[1, 2].map(|it| closed(it, 1, CloseReason::Requested)));
    assert!(telemetry.flush(SOON));
    let spans = receiver.spans();
    check_registered(&spans);
    let decision = only(&spans, "policy.decide");
    let linked: Vec<_> = decision.links.iter().map(|link| &link.span_id).collect();
    let sessions = spans.iter().filter(|span| span.name == "session");
    assert_eq!(linked, sessions.map(|span| &span.span_id).collect::<Vec<_>>());
    assert_eq!(linked.len(), 2);
    assert_eq!(said(decision, Attribute::DroppedLinks), Some(Value::IntValue(0)));
}

#[test]
fn reroute_is_linked_to_the_sessions_that_moved() {
    let receiver = Receiver::grpc();
    let (telemetry, mut recorder) = start("reroute", receiver.address, "grpc", 1.0);
    let hop = |node| Hop { node: NodeId(node), incarnation: Incarnation(1) };
    let moved = |room, sessions: &[u64], by, started| CoreEvent::Moved {
        room: RoomId(room),
        room_name: "room".into(),
        scenario: "call".into(),
        sessions: sessions.iter().copied().map(SessionId).collect(),
        cause: MoveCause::Quality,
        by,
        from: hop(0),
        to: Some(hop(1)),
        started,
        is_final: true,
    };
    let policy = policy(Hook::Routing);
    let by = |revision: &str| Decider::Policy { policy: policy.clone(), revision: revision.into() };
    let earlier = Instant::now();
    let decision = decided(Hook::Routing, None, None, DecisionOutcome::Applied { differs: false });
    let then = Instant::now();
    hear(&mut recorder, &[decision]);
    let own = "0123456789ab";
    hear(&mut recorder, &[moved(1, &[1, 2], by(own), then), moved(2, &[3], by(own), earlier)]);
    hear(&mut recorder, &[moved(3, &[4], by("ba9876543210"), then)]);
    hear(&mut recorder, &[moved(4, &[5], Decider::Native, then)]);
    recorder.finish();
    assert!(telemetry.flush(SOON));
    let spans = receiver.spans();
    check_registered(&spans);
    let decision = only(&spans, "policy.decide");
    let linked: Vec<_> = decision.links.iter().map(|link| &link.span_id).collect();
    let moves = spans.iter().filter(|span| span.name == "session.move");
    let moves = moves.filter(|span| ["s1", "s2"].contains(&&*session(span)));
    assert_eq!(linked, moves.map(|span| &span.parent_span_id).collect::<Vec<_>>());
    assert_eq!(linked.len(), 2);
    assert_eq!(said(decision, Attribute::DroppedLinks), Some(Value::IntValue(0)));
}

#[tokio::test(start_paused = true)]
async fn reroute_is_sent_without_a_later_event() {
    let receiver = Receiver::grpc();
    let settings = settings("swept", receiver.address, "grpc", 1.0);
    let telemetry = Telemetry::start(&settings, "test").unwrap();
    let (events, queue) = broadcast::channel(1);
    let mut recorder = telemetry.recorder(queue, Arc::default(), Arc::default());
    let applied = DecisionOutcome::Applied { differs: false };
    let event = GatewayEvent::Core(decided(Hook::Routing, None, None, applied));
    events.send(Arc::new(EventRecord::now(event))).unwrap();
    for (seconds, sent) in [(4, 0), (2, 1)] {
        let following = tokio::time::timeout(Duration::from_secs(seconds), recorder.follow());
        assert!(following.await.is_err(), "control runs");
        assert!(telemetry.flush(SOON));
        assert_eq!(receiver.spans().len(), sent);
    }
}

#[test]
fn trace_goes_on_at_the_process_that_continues_the_session() {
    let receiver = Receiver::grpc();
    let settings = settings("continued", receiver.address, "grpc", 1.0);
    let telemetry = Telemetry::start(&settings, "test").unwrap();
    let traces = Arc::new(TraceRegistry::new(Traceparent::Parent));
    let [mut first, mut second] = [(); 2].map(|()| continuing(&telemetry, &settings, &traces));
    let span = CallerSpan::parse(TRACEPARENT);
    let caller = TraceCaller { arrived: Instant::now(), span: span.clone() };
    first.handle_event(&opened(1, 1), Some(&caller), Moment::now());
    first.handle_event(&opened(2, 2), None, Moment::now());
    second.record(&EventRecord::now(GatewayEvent::Continued {
        cause: Continuation::HandOver,
        sessions: 2,
        oldest: vec![SessionId(1), SessionId(2)],
        callers: vec![(SessionId(1), span.unwrap())],
        took: Duration::from_millis(4),
    }));
    hear(&mut second, &[1, 2].map(|it| closed(it, it, CloseReason::Requested)));
    assert!(telemetry.flush(SOON));
    let spans = receiver.spans();
    check_registered(&spans);
    let continued = only(&spans, "gateway.continued");
    assert_eq!(continued.links.len(), 2);
    let took = continued.end_time_unix_nano - continued.start_time_unix_nano;
    assert_eq!(took, 4_000_000);
    let traced: Vec<_> = spans.iter().filter(|span| span.name == "session").collect();
    assert_eq!(traced.len(), 2);
    assert_ne!(traced[0].trace_id, traced[1].trace_id);
    for life in traced {
        let whole = ["admission", "session", "session.continued", "session.open"];
        assert_eq!(trace_of(&spans, life), whole);
    }
}

#[test]
fn start_and_stop_of_a_node_are_parents_of_hooks() {
    let receiver = Receiver::grpc();
    let settings = settings("start", receiver.address, "grpc", 0.0);
    let telemetry = Telemetry::start(&settings, "test").unwrap();
    let traces = Arc::new(TraceRegistry::new(Traceparent::Link).sending(TraceShare(0.0)));
    let mut recorder = continuing(&telemetry, &settings, &traces);
    let start = |step| CoreEvent::Start { node: NodeId(0), step };
    let failed = StartPhase::Failed { why: NotStarted::Late, again: Duration::from_secs(1) };
    let ends = [failed, StartPhase::Done { took: Duration::from_secs(2) }];
    let mut hooks = Vec::from(ends.map(|end| {
        let headers = traces.begin_hook(NodeHook::Start, NodeId(0)).unwrap();
        hear(&mut recorder, &[start(StartPhase::Begun { attempt: 1 }), start(end)]);
        headers.traceparent
    }));
    let stop = |step| CoreEvent::Stop { node: NodeId(0), step };
    let headers = traces.begin_hook(NodeHook::Stop, NodeId(0)).unwrap();
    hear(&mut recorder, &[stop(StopPhase::Begun), stop(StopPhase::Failed)]);
    hooks.push(headers.traceparent);
    assert!(telemetry.flush(SOON));
    let spans = receiver.spans();
    check_registered(&spans);
    assert_eq!(names(&spans), ["node.start", "node.start", "node.stop"]);
    let hex = |id: &[u8]| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let parents =
        spans.iter().map(|it| format!("00-{}-{}-01", hex(&it.trace_id), hex(&it.span_id)));
    assert_eq!(parents.collect::<Vec<_>>(), hooks);
    let outcomes = spans.iter().map(|span| word(span, Attribute::Outcome));
    assert_eq!(outcomes.collect::<Vec<_>>(), ["failed", "ok", "failed"]);
    for failed in [&spans[0], &spans[2]] {
        assert_eq!(word(failed, Attribute::Reason), NotStarted::Late.name());
    }
}

#[test]
fn open_degradation_is_sent_at_the_end_of_the_gateway() {
    let receiver = Receiver::grpc();
    let (telemetry, mut recorder) = start("end", receiver.address, "grpc", 1.0);
    hear(&mut recorder, &[degraded(1, 1, Decider::Native)]);
    recorder.finish();
    assert!(telemetry.flush(SOON));
    assert_eq!(names(&receiver.spans()), ["session.degraded"]);
}

#[test]
fn drain_and_open_breaker_are_spans() {
    let receiver = Receiver::grpc();
    let (telemetry, mut recorder) = start("drain", receiver.address, "grpc", 0.0);
    let started = Instant::now().checked_sub(Duration::from_millis(30)).unwrap();
    let breaker_of = |zone: bool, from, to| CoreEvent::Breaker {
        region: RegionId(0),
        zone: zone.then(|| "a".into()),
        from,
        to,
        mode: BreakerMode::Auto,
        sessions: 10,
        bad: 8,
        opened: 1,
        failed: 0,
    };
    let breaker = |from, to| breaker_of(false, from, to);
    let (shut, open, half) = (BreakerState::Closed, BreakerState::Open, BreakerState::HalfOpen);
    hear(&mut recorder, &[CoreEvent::Drained { node: NodeId(0), left: 2, started }]);
    hear(&mut recorder, &[breaker(shut, open), breaker(open, half), breaker(half, open)]);
    assert!(telemetry.flush(SOON));
    assert_eq!(names(&receiver.spans()), ["node.drain"]);
    // The breaker of a zone is another one.
    hear(&mut recorder, &[breaker_of(true, shut, open), breaker_of(true, open, shut)]);
    assert!(telemetry.flush(SOON));
    assert_eq!(word(only(&receiver.spans(), "region.breaker"), Attribute::Zone), "a");
    let full = refused("call", OfferRefusal::Full { retry_after: SOON }, None);
    let without_node = refused("call", OfferRefusal::NoNode { retry_after: SOON }, None);
    hear(&mut recorder, &[opened(1, 1), moved(2, &[2], MoveCause::Link), full, without_node]);
    hear(&mut recorder, &[breaker(open, half), breaker(half, shut)]);
    assert!(telemetry.flush(SOON));
    let spans = receiver.spans();
    check_registered(&spans);
    let drain = only(&spans, "node.drain");
    assert_eq!(word(drain, Attribute::Node), "east-a1");
    assert_eq!(said(drain, Attribute::Rooms), Some(Value::IntValue(2)));
    assert!(drain.end_time_unix_nano - drain.start_time_unix_nano >= 30_000_000);
    let breaker = spans.iter().rfind(|span| span.name == "region.breaker").unwrap();
    assert_eq!(word(breaker, Attribute::Region), "east");
    assert_eq!(said(breaker, Attribute::Zone), None);
    let of_name = |name: &'static str| spans.iter().filter(move |span| span.name == name);
    let left = of_name("session.move").map(|span| &span.parent_span_id);
    let turned_away = of_name("session.open").filter(|it| word(it, Attribute::Reason) == "no-node");
    let touched: Vec<_> = left.chain(turned_away.map(|span| &span.span_id)).collect();
    assert_eq!(breaker.links.iter().map(|link| &link.span_id).collect::<Vec<_>>(), touched);
    assert_eq!(said(breaker, Attribute::Sessions), Some(Value::IntValue(3)));
    assert_eq!(said(breaker, Attribute::DroppedLinks), Some(Value::IntValue(1)), "not sampled");
}
