//! Telemetry from outside: what an OTLP receiver gets, and a gateway without one.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_config::{GatewayConfig, Traceparent};
use evenkeel_control::{
    CallerSpan, EventRecord, GatewayEvent, NodeNames, TraceCaller, TraceRegistry,
};
use evenkeel_model::{
    Advice, AdviceKind, Arm, AskId, BreakerMode, BreakerState, ClientGroup, ClientLabel,
    ClientTransport, CloseReason, ClosedSession, CoreEvent, Decider, DecisionNote, DecisionOutcome,
    EvidenceSource, GuardRule, Health, Hook, Hop, Incarnation, MediaDescription, MoveCause,
    NewcomerAction, NodeId, OfferId, OfferRefusal, Op, PathSegment, PluginFault, PolicyName,
    RedundancyMode, RegionId, RoomId, RtcpPort, SessionId, Srtp, StartPhase, StartRefusal,
    StopPhase, Strike,
};
use evenkeel_revisions::{Actor, RolloutOutcome, RolloutReport, RolloutStage, Staged};
use evenkeel_telemetry::registry::{Attribute, Count, Histogram, Level, Span};
use evenkeel_telemetry::{EventRecorder, LogLines, Moment, Telemetry};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span as Received;
use tokio::sync::broadcast;

use crate::receiver::Receiver;

/// Longer than any step takes.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

pub(crate) fn settings(
    name: &str,
    receiver: SocketAddr,
    protocol: &str,
    share: f64,
) -> GatewayConfig {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("telemetry");
    fs::create_dir_all(&folder).expect("the target folder can be written");
    let file = folder.join(format!("{name}.toml"));
    let mut text = format!(
        "[gateway]\nregion = \"east\"\n\n[telemetry]\notlp = \"http://{receiver}\"\n\
         protocol = \"{protocol}\"\nsample_ratio = {share:?}\nmetrics_interval = \"1h\"\n"
    );
    for (node, zone) in [("east-a1", "a"), ("east-b1", "b")] {
        let port = 4_000 + text.len();
        write!(
            text,
            "\n[[node]]\nname = \"{node}\"\naddress = \"127.0.0.1:{port}\"\nregion = \"east\"\n\
             zone = \"{zone}\"\ndriver = \"plain\"\ncapacity = \"1 Mbit/s\"\n"
        )
        .expect("writing into a string cannot fail");
    }
    fs::write(&file, text).expect("the target folder can be written");
    GatewayConfig::load(Some(&file), None, &evenkeel_drivers::kinds(evenkeel_drivers::DRIVERS))
        .expect("these settings are right")
}

pub(crate) fn start(
    name: &str,
    receiver: SocketAddr,
    protocol: &str,
    share: f64,
) -> (Telemetry, EventRecorder) {
    let settings = settings(name, receiver, protocol, share);
    let telemetry = Telemetry::start(&settings, "test").expect("telemetry starts");
    let recorder = recorder(&telemetry, &settings, Traceparent::Link);
    (telemetry, recorder)
}

pub(crate) fn recorder(
    telemetry: &Telemetry,
    settings: &GatewayConfig,
    trust: Traceparent,
) -> EventRecorder {
    continuing(telemetry, settings, &Arc::new(TraceRegistry::new(trust)))
}

pub(crate) fn continuing(
    telemetry: &Telemetry,
    settings: &GatewayConfig,
    traces: &Arc<TraceRegistry>,
) -> EventRecorder {
    let names = Arc::new(NodeNames::of(&settings.core()));
    telemetry.recorder(broadcast::channel(1).1, names, Arc::clone(traces))
}

pub(crate) fn policy(hook: Hook) -> PolicyName {
    PolicyName { set: Arc::from("call"), hook }
}

pub(crate) fn hop(node: u32) -> Hop {
    Hop { node: NodeId(node), incarnation: Incarnation(1) }
}

pub(crate) fn decided(
    hook: Hook,
    session: Option<u64>,
    room: Option<u64>,
    outcome: DecisionOutcome,
) -> CoreEvent {
    let faulted = matches!(outcome, DecisionOutcome::Faulted(_));
    CoreEvent::Decided {
        ask: AskId(1),
        policy: policy(hook),
        arm: Arm::Standing,
        revision: (!faulted).then(|| Arc::from("0123456789ab")),
        outcome,
        reason: (!faulted).then(|| "nearest".into()),
        session: session.map(SessionId),
        room: room.map(RoomId),
        rows: 1,
        asked: Instant::now(),
        took: Duration::from_micros(80),
        notes: [(0, "delay", 7), (0, "loss", 3), (1, "loss", 4)]
            .map(|(row, key, value)| DecisionNote { row, key: key.into(), value })
            .into(),
        native: vec![NodeId(1), NodeId(0)],
    }
}

pub(crate) fn opened(session: u64, room: u64) -> CoreEvent {
    let revision = Arc::from("0123456789ab");
    CoreEvent::Opened {
        session: SessionId(session),
        room: RoomId(room),
        room_name: Arc::from("standup"),
        scenario: Arc::from("call"),
        hop: hop(0),
        offered: Instant::now(),
        admitted_by: Decider::Native,
        routed_by: Decider::Policy { policy: policy(Hook::Routing), revision },
    }
}

pub(crate) fn refused(
    scenario: &str,
    reason: OfferRefusal,
    session: Option<(u64, u64)>,
) -> CoreEvent {
    let session = session.map(|(session, room)| (SessionId(session), RoomId(room)));
    CoreEvent::Refused { offer: OfferId(1), session, scenario: Arc::from(scenario), reason }
}

pub(crate) fn moved(room: u64, sessions: &[u64], cause: MoveCause) -> CoreEvent {
    CoreEvent::Moved {
        room: RoomId(room),
        room_name: "room".into(),
        scenario: "call".into(),
        sessions: sessions.iter().copied().map(SessionId).collect(),
        cause,
        by: Decider::Native,
        from: hop(0),
        to: Some(hop(1)),
        started: Instant::now(),
        is_final: cause != MoveCause::Link,
    }
}

pub(crate) fn closed(session: u64, room: u64, reason: CloseReason) -> CoreEvent {
    let (session, room, room_name) = (SessionId(session), RoomId(room), "room".into());
    let closed = Box::new(ClosedSession {
        scenario: "call".into(),
        labels: Arc::new([]),
        media: Arc::new(MediaDescription::new(Vec::new(), RtcpPort::Mux, Srtp::Plain)),
        mode: RedundancyMode::Hot,
        transport: ClientTransport::Udp,
        admitted_by: Arc::new(Decider::Native),
        routed_by: Decider::Native,
        node: None,
        mean_r_centi: None,
        offered: Instant::now(),
        ended: Instant::now(),
        moves: Vec::new(),
    });
    CoreEvent::Closed { session, room, room_name, reason, closed }
}

pub(crate) fn down(rooms: u32) -> CoreEvent {
    let now = Instant::now();
    CoreEvent::Node {
        hop: hop(0),
        from: Health::Suspect,
        to: Health::Down,
        witnesses: vec![(EvidenceSource::Silence, now), (EvidenceSource::Probe, now)],
        last_heard: Some(now),
        rooms,
    }
}

pub(crate) fn hear(recorder: &mut EventRecorder, events: &[CoreEvent]) {
    for event in events {
        recorder.handle_event(event, None, Moment::now());
    }
}

pub(crate) fn said(span: &Received, attribute: Attribute) -> Option<Value> {
    let found = span.attributes.iter().find(|kv| kv.key == attribute.key())?;
    found.value.clone()?.value
}

pub(crate) fn word(span: &Received, attribute: Attribute) -> String {
    match said(span, attribute) {
        Some(Value::StringValue(text)) => text,
        other => panic!("{attribute:?} of {} is {other:?}", span.name),
    }
}

pub(crate) fn session(span: &Received) -> String {
    word(span, Attribute::Session)
}

pub(crate) fn only<'a>(spans: &'a [Received], name: &str) -> &'a Received {
    let found: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
    assert_eq!(found.len(), 1, "{name} among {:?}", names(spans));
    found[0]
}

pub(crate) fn names(spans: &[Received]) -> Vec<&str> {
    spans.iter().map(|span| &*span.name).collect()
}

/// Every span conforms to the registry.
pub(crate) fn check_registered(spans: &[Received]) {
    for received in spans {
        let span = Span::ALL.iter().find(|span| span.name() == received.name);
        let span = span.unwrap_or_else(|| panic!("{} is not registered", received.name));
        for kv in &received.attributes {
            let registered = span.attributes().iter().any(|attribute| {
                let note = *attribute == Attribute::Note;
                attribute.key() == kv.key || note && kv.key.starts_with("evenkeel.note.")
            });
            assert!(registered, "{} of {}", kv.key, received.name);
        }
        assert!(received.end_time_unix_nano >= received.start_time_unix_nano, "{}", received.name);
    }
}

/// A sample of the Prometheus text; 0 if it is missing.
pub(crate) fn counted(telemetry: &Telemetry, name: &str, label: &str) -> u64 {
    let text = telemetry.prometheus().render();
    let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
    lines
        .filter_map(|line| line.rsplit(' ').next())
        .map(|n| n.parse::<u64>().expect("a count"))
        .sum()
}

#[test]
fn session_span_holds_its_decisions() {
    let receiver = Receiver::grpc();
    let (telemetry, mut recorder) = start("session", receiver.address, "grpc", 1.0);
    let applied = || DecisionOutcome::Applied { differs: true };
    hear(
        &mut recorder,
        &[
            decided(Hook::Scenario, Some(7), None, DecisionOutcome::Abstained),
            decided(Hook::Admission, Some(7), Some(3), applied()),
            decided(Hook::Routing, None, Some(3), DecisionOutcome::Faulted(PluginFault::Deadline)),
            decided(Hook::Routing, None, Some(4), applied()),
            opened(7, 3),
            closed(7, 3, CloseReason::Requested),
        ],
    );
    assert!(telemetry.flush(SOON));
    let spans = receiver.spans();
    check_registered(&spans);
    let open = only(&spans, "session.open");
    assert_eq!(open.kind, 2, "a server's span");
    assert!(open.links.is_empty());
    let life = only(&spans, "session");
    assert_eq!((&open.trace_id, &open.parent_span_id), (&life.trace_id, &life.span_id));
    assert!(life.parent_span_id.is_empty());
    assert_eq!(word(life, Attribute::Outcome), "ok");
    assert_eq!(word(life, Attribute::Reason), "requested");
    assert_eq!(session(open), "s7");
    assert_eq!(word(open, Attribute::RoomName), "standup");
    assert_eq!(word(open, Attribute::Node), "east-a1");
    assert_eq!(word(open, Attribute::Zone), "a");
    assert_eq!(word(open, Attribute::RoutedBy), "call/routing@0123456789ab");
    let admission = only(&spans, "admission");
    assert_eq!(admission.parent_span_id, open.span_id);
    assert_eq!(word(admission, Attribute::By), "native");
    let decisions: Vec<_> = spans.iter().filter(|span| span.name == "policy.decide").collect();
    assert_eq!(decisions.len(), 3, "that of another room waits for its own session");
    for decision in decisions {
        assert_eq!(decision.trace_id, open.trace_id);
        let hook = word(decision, Attribute::Hook);
        let parent = if hook == "admission" { admission } else { open };
        assert_eq!(decision.parent_span_id, parent.span_id, "{hook}");
        let note = decision.attributes.iter().find(|kv| kv.key == "evenkeel.note.delay");
        assert_eq!(note.unwrap().value.clone().unwrap().value, Some(Value::IntValue(7)));
        let of_rows: Vec<_> =
            decision.attributes.iter().filter(|kv| kv.key == "evenkeel.note.loss").collect();
        assert_eq!(of_rows.len(), 1, "one value per key, however many rows had notes");
        assert!(matches!(
            of_rows[0].value.clone().unwrap().value,
            Some(Value::ArrayValue(list)) if list.values.len() == 2
        ));
        let native = word(decision, Attribute::Native);
        match &*hook {
            "routing" => {
                assert_eq!(native, "east-b1 east-a1");
                assert_eq!(word(decision, Attribute::ErrorType), "deadline");
                assert_eq!(decision.status.as_ref().unwrap().code, 2, "an error");
                assert_eq!(said(decision, Attribute::Revision), None);
            }
            "admission" => {
                assert_eq!(native, "accept");
                assert_eq!(word(decision, Attribute::Outcome), "ok");
                assert_eq!(word(decision, Attribute::Revision), "0123456789ab");
                assert_eq!(said(decision, Attribute::Differs), Some(Value::BoolValue(true)));
                assert_eq!(word(decision, Attribute::Reason), "nearest");
            }
            other => {
                let outcome = word(decision, Attribute::Outcome);
                assert_eq!((other, &*outcome), ("scenario", "abstained"));
            }
        }
    }
    assert_eq!(receiver.resource("service.name"), "evenkeel");
    assert_eq!(receiver.resource("service.instance.id"), "test");
    assert_eq!(receiver.resource("cloud.region"), "east");
}

#[test]
fn refused_offer_span_holds_its_decisions() {
    let receiver = Receiver::grpc();
    let (telemetry, mut recorder) = start("refused", receiver.address, "grpc", 1.0);
    let arrived = Instant::now().checked_sub(Duration::from_millis(30)).unwrap();
    let caller = TraceCaller { arrived, span: CallerSpan::parse(TRACEPARENT) };
    let applied = || DecisionOutcome::Applied { differs: true };
    hear(
        &mut recorder,
        &[
            decided(Hook::Admission, Some(7), Some(3), applied()),
            decided(Hook::Admission, Some(8), Some(4), applied()),
            decided(Hook::Routing, None, Some(4), applied()),
            decided(Hook::Routing, None, Some(5), applied()),
        ],
    );
    let rejected = OfferRefusal::Rejected { retry_after: Duration::from_secs(1) };
    let not_placed = OfferRefusal::PlacementRefused { reason: None, retry_after: SOON };
    let offers =
        [refused("call", rejected, Some((7, 3))), refused("call", not_placed, Some((8, 4)))];
    for offer in &offers {
        recorder.handle_event(offer, Some(&caller), Moment::now());
    }
    let homeless = Some((SessionId(9), RoomId(5)));
    for (reason, session) in [("address-taken", homeless), ("no-listener", None)] {
        let event = GatewayEvent::TurnedAway { scenario: "call".into(), reason, session };
        recorder.record(&EventRecord { caller: Some(caller.clone()), ..EventRecord::now(event) });
    }
    assert!(telemetry.flush(SOON));
    let spans = receiver.spans();
    check_registered(&spans);
    let opens: Vec<_> = spans.iter().filter(|span| span.name == "session.open").collect();
    let reasons: Vec<_> = opens.iter().map(|open| word(open, Attribute::Reason)).collect();
    assert_eq!(reasons, ["rejected", "rejected", "address-taken", "no-listener"]);
    let mut children = Vec::new();
    for open in opens {
        assert_eq!(open.links.len(), 1, "to its caller");
        assert!(open.end_time_unix_nano - open.start_time_unix_nano >= 30_000_000);
        let of_trace = spans.iter().filter(|span| span.trace_id == open.trace_id);
        let mut of_trace: Vec<_> = of_trace.map(|span| &*span.name).collect();
        of_trace.sort_unstable();
        children.push(of_trace);
    }
    let admitted = ["admission", "policy.decide", "policy.decide", "session.open"];
    assert_eq!(children[0], ["admission", "policy.decide", "session.open"]);
    assert_eq!(children[1], admitted);
    assert_eq!(children[2], ["policy.decide", "session.open"]);
    assert_eq!(children[3], ["session.open"]);
    assert_eq!(counted(&telemetry, "evenkeel_sessions_refused_total", "no-listener"), 1);
}

#[test]
fn caller_trace_is_parent_only_if_trusted() {
    let receiver = Receiver::grpc();
    let settings = settings("caller", receiver.address, "grpc", 0.0);
    let telemetry = Telemetry::start(&settings, "test").unwrap();
    let [mut trusting, mut mistrusting] = [Traceparent::Parent, Traceparent::Link]
        .map(|trust| recorder(&telemetry, &settings, trust));
    let caller = TraceCaller { arrived: Instant::now(), span: CallerSpan::parse(TRACEPARENT) };
    trusting.handle_event(&opened(1, 1), Some(&caller), Moment::now());
    trusting.handle_event(&closed(1, 1, CloseReason::Requested), None, Moment::now());
    mistrusting.handle_event(&opened(2, 2), Some(&caller), Moment::now());
    let refused = refused("call", OfferRefusal::Full { retry_after: SOON }, None);
    mistrusting.handle_event(&refused, Some(&caller), Moment::now());
    assert!(telemetry.flush(SOON));
    let spans = receiver.spans();
    check_registered(&spans);
    let opens: Vec<_> = spans.iter().filter(|span| span.name == "session.open").collect();
    let [trusted, refused] = opens[..] else {
        panic!("a stranger does not switch sampling on: {opens:?}")
    };
    let theirs: Vec<u8> = (0..16).map(|i| hex(&TRACEPARENT[3 + 2 * i..5 + 2 * i])).collect();
    let span: Vec<u8> = (0..8).map(|i| hex(&TRACEPARENT[36 + 2 * i..38 + 2 * i])).collect();
    let life = only(&spans, "session");
    assert_eq!((&life.trace_id, &life.parent_span_id), (&theirs, &span));
    assert_eq!((&trusted.trace_id, &trusted.parent_span_id), (&theirs, &life.span_id));
    assert!(trusted.links.is_empty());
    assert_ne!(refused.trace_id, theirs);
    assert!(refused.parent_span_id.is_empty());
    let [link] = &refused.links[..] else { panic!("{:?}", refused.links) };
    assert_eq!((&link.trace_id, &link.span_id), (&theirs, &span));
    assert_eq!(word(refused, Attribute::Reason), "full");
    assert_eq!(word(refused, Attribute::ErrorType), "full");
    assert_eq!(refused.status.as_ref().unwrap().code, 2, "an error");
}

fn hex(digits: &str) -> u8 {
    u8::from_str_radix(digits, 16).expect("hexadecimal digits")
}

#[test]
fn zero_share_keeps_failures_and_rare_spans() {
    let receiver = Receiver::grpc();
    let (telemetry, mut recorder) = start("share", receiver.address, "grpc", 0.0);
    hear(&mut recorder, &[opened(1, 1), down(1), moved(1, &[1], MoveCause::NodeDown)]);
    let kept = decided(Hook::Degradation, None, None, DecisionOutcome::Kept);
    let trapped = DecisionOutcome::Faulted(PluginFault::Trap("unreachable".into()));
    hear(&mut recorder, &[kept, decided(Hook::Degradation, None, None, trapped)]);
    let rollout = RolloutReport {
        policy: policy(Hook::Routing),
        revision: Some(Arc::from("0123456789ab")),
        previous: Some(Arc::from("ba9876543210")),
        outcome: RolloutOutcome::RolledBack,
        code: None,
        stage: None,
        by: Actor::Gateway,
        reason: Some("traps".into()),
        arrived: Instant::now().checked_sub(Duration::from_millis(50)).unwrap(),
        activate: Duration::from_micros(40),
    };
    recorder.handle_rollout(&rollout, Moment::now());
    assert!(telemetry.flush(SOON));
    let spans = receiver.spans();
    check_registered(&spans);
    let failover = ["admission", "session.open", "session.move", "node.failover"];
    assert_eq!(names(&spans), [&failover[..], &["policy.decide", "policy.rollout"]].concat());
    let rollout = only(&spans, "policy.rollout");
    assert_eq!(word(rollout, Attribute::Outcome), "rolled-back");
    let took = rollout.end_time_unix_nano - rollout.start_time_unix_nano;
    assert!(took >= 50_000_000, "from its arrival");
    assert_eq!(word(rollout, Attribute::Previous), "ba9876543210");
}

#[test]
fn rollout_is_one_span_with_steps() {
    let receiver = Receiver::grpc();
    let (telemetry, mut recorder) = start("way", receiver.address, "grpc", 0.0);
    let step = |outcome, stage: Option<RolloutStage>| RolloutReport {
        policy: policy(Hook::Routing),
        revision: Some(Arc::from("0123456789ab")),
        previous: None,
        outcome,
        code: None,
        stage: stage.map(|stage| Staged { stage, paused: false, next: 100, next_in: None }),
        by: Actor::Operator,
        reason: Some("a reason".into()),
        arrived: Instant::now(),
        activate: Duration::from_micros(40),
    };
    for rollout in [
        step(RolloutOutcome::Started, Some(RolloutStage::Shadow)),
        step(RolloutOutcome::Advanced, Some(RolloutStage::Canary(5))),
        step(RolloutOutcome::Activated, None),
        step(RolloutOutcome::RolledBack, None),
    ] {
        recorder.handle_rollout(&rollout, Moment::now());
    }
    let rollouts = |outcome| counted(&telemetry, "evenkeel_policy_rollouts_total", outcome);
    assert_eq!((rollouts("reverted"), rollouts("rolled-back")), (1, 0), "no alert");
    assert!(telemetry.flush(SOON));
    let spans = receiver.spans();
    check_registered(&spans);
    assert_eq!(names(&spans), ["policy.rollout", "policy.rollout"]);
    let events = |outcome: &str, is_failure: bool| -> Vec<String> {
        let span = spans.iter().find(|span| word(span, Attribute::Outcome) == outcome).unwrap();
        assert_eq!(word(span, Attribute::By), "operator");
        assert_eq!(said(span, Attribute::ErrorType).is_some(), is_failure, "{outcome}");
        span.events.iter().map(|event| event.name.clone()).collect()
    };
    assert_eq!(events("activated", false), ["started: shadow 0 %", "advanced: canary 5 %"]);
    assert_eq!(events("rolled-back", true), [""; 0]);
}

#[test]
fn revoked_revision_is_no_refusal_and_no_step() {
    let receiver = Receiver::grpc();
    let (telemetry, mut recorder) = start("revoked", receiver.address, "grpc", 0.0);
    let told = |outcome, stage: Option<RolloutStage>, code| RolloutReport {
        policy: policy(Hook::Routing),
        revision: Some(Arc::from("0123456789ab")),
        previous: None,
        outcome,
        code,
        stage: stage.map(|stage| Staged { stage, paused: false, next: 100, next_in: None }),
        by: Actor::Gateway,
        reason: Some("key `ops`".into()),
        arrived: Instant::now(),
        activate: Duration::from_micros(40),
    };
    let at = Moment::now();
    let begun = told(RolloutOutcome::Activated, None, Some("quarantined"));
    recorder.handle_rollout(&begun, at);
    recorder
        .handle_rollout(&told(RolloutOutcome::Started, Some(RolloutStage::Canary(5)), None), at);
    recorder.handle_rollout(&told(RolloutOutcome::Revoked, None, Some("revoked")), at);
    let counts = [
        ("policy_rollouts_total", "revoked", 1),
        ("policy_refusals_total", "", 0),
        ("policy_stage", "call/routing", 2),
        ("policy_canary", "call/routing", 5),
    ];
    for (name, label, expected) in counts {
        let found = counted(&telemetry, &format!("evenkeel_{name}"), label);
        assert_eq!(found, expected, "{name} {label}");
    }
    recorder.handle_rollout(&told(RolloutOutcome::Refused, None, Some("revoked")), at);
    assert_eq!(counted(&telemetry, "evenkeel_policy_refusals_total", "revoked"), 1);
}

#[test]
fn metrics_arrive_as_registered() {
    let receiver = Receiver::grpc();
    let (telemetry, mut recorder) = start("metrics", receiver.address, "grpc", 1.0);
    hear(&mut recorder, &[opened(1, 1), opened(2, 1), down(1)]);
    let closed = closed(1, 1, CloseReason::MediaTimeout);
    hear(&mut recorder, &[closed, moved(1, &[2], MoveCause::NodeDown)]);
    assert!(telemetry.flush(SOON));
    let counts = Count::ALL.iter().map(|metric| metric.described());
    let levels = Level::ALL.iter().map(|metric| metric.described());
    let all = counts.chain(levels).chain(Histogram::ALL.iter().map(|metric| metric.described()));
    let registered: BTreeSet<_> = all.map(|metric| (metric.name, metric.unit)).collect();
    let metrics = receiver.metrics();
    for metric in &metrics {
        let known = registered.contains(&(&*metric.name, &*metric.unit));
        assert!(known, "{} in {}", metric.name, metric.unit);
    }
    let arrived: BTreeSet<_> = metrics.iter().map(|metric| &*metric.name).collect();
    for name in [
        "evenkeel.sessions.opened",
        "evenkeel.session.open.duration",
        "evenkeel.node.failures",
        "evenkeel.node.detection.duration",
        "evenkeel.rooms.moved",
    ] {
        assert!(arrived.contains(name), "{name} is not among {arrived:?}");
    }
    assert_eq!(counted(&telemetry, "evenkeel_sessions_closed_total", "media-timeout"), 1);
    assert_eq!(counted(&telemetry, "evenkeel_node_witnesses_total", "probe"), 1);
}

#[test]
fn log_lines_from_info_arrive() {
    let receiver = Receiver::grpc();
    let (telemetry, mut recorder) = start("logs", receiver.address, "grpc", 1.0);
    tracing::subscriber::with_default(
        telemetry.subscriber("off", LogLines::to(std::io::sink()).unwrap()).unwrap().0,
        || {
            hear(&mut recorder, &[opened(1, 1), down(0)]);
            tracing::warn!(target: "h2::proto", "a carrier speaks");
        },
    );
    assert!(telemetry.flush(SOON));
    let lines = receiver.log_lines();
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!(line.severity_text, "WARN");
    let body = line.body.clone().unwrap().value;
    assert_eq!(body, Some(Value::StringValue("node marked down".to_owned())));
    let node = line.attributes.iter().find(|kv| kv.key == "node").unwrap();
    assert_eq!(node.value.clone().unwrap().value, Some(Value::StringValue("east-a1".to_owned())));
}

#[test]
fn dead_receiver_drops_are_counted() {
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for protocol in ["grpc", "http"] {
        let (telemetry, mut recorder) = start(&format!("dead-{protocol}"), dead, protocol, 1.0);
        hear(&mut recorder, &[opened(1, 1), down(0)]);
        assert!(telemetry.flush(SOON));
        let dropped = |signal| {
            let labels = format!("reason=\"not-taken\",evenkeel_signal=\"{signal}\"");
            counted(&telemetry, "evenkeel_telemetry_dropped_total", &labels)
        };
        assert_eq!(dropped("spans"), 3, "{protocol}");
        assert_eq!(dropped("metrics"), 1, "{protocol}");
        assert_eq!(counted(&telemetry, "evenkeel_telemetry_sent_total", ""), 0);
    }
}

#[test]
fn silent_receiver_blocks_nothing() {
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let (telemetry, mut recorder) = start("mute", mute.local_addr().unwrap(), "grpc", 1.0);
    // Two spans each: far more than the queue holds.
    for session in 0..10_000 {
        hear(&mut recorder, &[opened(session, session)]);
    }
    let dropped = counted(&telemetry, "evenkeel_telemetry_dropped_total", "queue-full");
    let waiting = 20_000 - dropped;
    assert!((8_192..=8_192 + 2 * 512).contains(&waiting), "{waiting} wait");
    assert!(!telemetry.flush(Duration::ZERO));
}

#[test]
fn spans_of_a_large_failover_fit_into_the_queue() {
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let (telemetry, mut recorder) = start("large", mute.local_addr().unwrap(), "grpc", 0.0);
    let applied = || DecisionOutcome::Applied { differs: false };
    for session in 1..=1_000 {
        let [scenario, admission] = [Hook::Scenario, Hook::Admission]
            .map(|hook| decided(hook, Some(session), Some(session), applied()));
        let routing = decided(Hook::Routing, None, Some(session), applied());
        hear(&mut recorder, &[scenario, admission, routing, opened(session, session)]);
    }
    // Five held spans of each, and one of its move.
    for session in 1..=1_000 {
        hear(&mut recorder, &[moved(session, &[session], MoveCause::NodeDown)]);
    }
    assert_eq!(counted(&telemetry, "evenkeel_telemetry_dropped_total", "queue-full"), 0);
}

#[test]
fn every_event_changes_a_metric() {
    let settings = GatewayConfig::load(None, None, &[]).unwrap();
    let telemetry = Telemetry::start(&settings, "test").unwrap();
    let mut recorder = recorder(&telemetry, &settings, Traceparent::Link);
    let (room, native) = (RoomId(1), Decider::Native);
    let guarded = DecisionOutcome::Guarded(GuardRule::Churn);
    let hook = Hook::Routing;
    let stands = |fault| CoreEvent::Standing { hook, policy: policy(hook), fault };
    let stranger = OfferRefusal::UnknownScenario(Arc::from("x"));
    let clients = |carrier: &str, is_configured, others_open| CoreEvent::ClientBreaker {
        group: ClientGroup { label: ClientLabel::Carrier, value: carrier.into() },
        is_configured,
        others_open,
        action: NewcomerAction::Refuse,
        from: BreakerState::Closed,
        to: BreakerState::Open,
        mode: BreakerMode::Auto,
        sessions: 40,
        bad: 30,
    };
    hear(
        &mut recorder,
        &[
            decided(hook, None, Some(1), DecisionOutcome::Applied { differs: true }),
            decided(hook, None, Some(1), DecisionOutcome::Applied { differs: false }),
            decided(hook, None, Some(1), DecisionOutcome::Faulted(PluginFault::Deadline)),
            decided(hook, None, Some(1), guarded.clone()),
            decided(hook, None, None, guarded),
            CoreEvent::Guarded { policy: policy(hook), guard: GuardRule::Churn, times: 1 },
            CoreEvent::Guarded { policy: policy(hook), guard: GuardRule::UnknownRow, times: 900 },
            CoreEvent::Quarantined {
                policy: policy(hook),
                revision: "0123456789ab".into(),
                session: None,
                room: Some(room),
                fault: PluginFault::OutOfMemory,
            },
            CoreEvent::HiddenState {
                policy: policy(hook),
                revision: "0123456789ab".into(),
                differs: "its memo".into(),
            },
            refused("call", OfferRefusal::Full { retry_after: SOON }, None),
            refused("x", stranger, None),
            CoreEvent::Rerouted { room, hops: vec![hop(0)], by: native.clone() },
            CoreEvent::HopRemoved {
                room,
                room_name: "room".into(),
                hop: hop(0),
                why: Strike::FlowLost,
                session: None,
            },
            CoreEvent::Draining { node: NodeId(0), draining: true },
            CoreEvent::Degraded {
                session: SessionId(1),
                room_name: "room".into(),
                op: Op::Cap,
                arg: 9,
                rung: 1,
                by: native,
            },
            CoreEvent::Advised {
                session: SessionId(1),
                room_name: "room".into(),
                scenario: "call".into(),
                advice: Advice { kind: AdviceKind::AudioOnly, cause: PathSegment::Downlink },
            },
            clients("ct", true, 0),
            clients("invented", false, 2),
            CoreEvent::Breaker {
                region: RegionId(0),
                zone: Some("a".into()),
                from: BreakerState::Closed,
                to: BreakerState::Open,
                mode: BreakerMode::Auto,
                sessions: 40,
                bad: 30,
                opened: 0,
                failed: 0,
            },
            CoreEvent::ProviderBreaker {
                provider: "cloud".into(),
                from: BreakerState::Closed,
                to: BreakerState::Open,
                failures: 5,
            },
            CoreEvent::Start {
                node: NodeId(0),
                step: StartPhase::Refused { why: StartRefusal::Nodes },
            },
            CoreEvent::Stop { node: NodeId(0), step: StopPhase::Begun },
            CoreEvent::OwnStall { late: Duration::from_millis(9) },
            CoreEvent::Uplink { doubted: true, silent: 3, of: 4 },
            stands(Some(PluginFault::Absent)),
            CoreEvent::ShuttingDown,
        ],
    );
    let marks = [
        ("policy_calls_total", "guarded", 2),
        ("policy_calls_total", "applied", 2),
        ("policy_differs_total", "call/routing", 1),
        ("policy_faults_total", "deadline", 1),
        // Only the rejected rows of a decision count.
        ("policy_guarded_total", "churn", 2),
        ("policy_guarded_total", "unknown-row", 900),
        ("policy_quarantined_total", "out-of-memory", 1),
        ("policy_call_duration_seconds_count", "call/routing", 4),
        ("sessions_refused_total", "full", 1),
        ("sessions_refused_total", "evenkeel_scenario=\"\"", 1),
        ("rooms_rerouted_total", "native", 1),
        ("hops_removed_total", "flow-lost", 1),
        ("node_draining", "n0", 1),
        ("degradations_total", "cap", 1),
        ("advices_total", "audio-only", 1),
        ("zone_breaker", "evenkeel_zone=\"a\"", 1),
        ("region_breaker", "", 0),
        ("client_breaker", "\"ct\"", 1),
        ("client_breaker", "\"other\"", 1),
        ("client_breaker", "", 2),
        ("provider_breaker", "\"cloud\"", 1),
        ("node_starts_total", "refused", 1),
        ("node_stops_total", "stopping", 1),
        ("event_loop_stalls_total", "", 1),
        ("event_loop_stall_duration_seconds_count", "", 1),
        ("uplink_suspicions_total", "", 1),
        ("policy_failing", "call/routing", 1),
    ];
    for (name, label, expected) in marks {
        let found = counted(&telemetry, &format!("evenkeel_{name}"), label);
        assert_eq!(found, expected, "{name} {label}");
    }
    hear(&mut recorder, &[stands(None)]);
    assert_eq!(counted(&telemetry, "evenkeel_policy_failing", "call/routing"), 0);
}

#[test]
fn unclaimed_decision_is_a_root_span() {
    let receiver = Receiver::grpc();
    let (telemetry, mut recorder) = start("unclaimed", receiver.address, "grpc", 1.0);
    let admitted = DecisionOutcome::Applied { differs: false };
    hear(&mut recorder, &[decided(Hook::Admission, Some(1), None, admitted)]);
    assert!(telemetry.flush(SOON));
    assert!(receiver.spans().is_empty(), "its session may still open");
    let kept = decided(Hook::Degradation, None, None, DecisionOutcome::Kept);
    let later = Moment { now: Instant::now() + Duration::from_secs(6), ..Moment::now() };
    recorder.handle_event(&kept, None, later);
    assert!(telemetry.flush(SOON));
    let spans = receiver.spans();
    let decision = only(&spans, "policy.decide");
    assert_eq!(word(decision, Attribute::Hook), "admission");
    assert!(decision.parent_span_id.is_empty());
}

#[test]
fn missing_receiver_still_counts() {
    let settings = GatewayConfig::load(None, None, &[]).unwrap();
    let telemetry = Telemetry::start(&settings, "test").unwrap();
    let mut recorder = recorder(&telemetry, &settings, Traceparent::Link);
    hear(&mut recorder, &[opened(1, 1)]);
    assert_eq!(counted(&telemetry, "evenkeel_sessions_opened_total", "call"), 1);
    assert!(telemetry.flush(Duration::ZERO), "nothing waits");
}
