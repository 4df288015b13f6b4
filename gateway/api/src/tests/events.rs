//! The event stream.

use std::time::Instant;

use evenkeel_control::samples::closed_session;
use evenkeel_dataplane::worker::ShedRun;
use evenkeel_model::{
    Advice, AdviceKind, BreakerMode, BreakerState, CloseReason, EvidenceSource, Health, Impairment,
    ImpairmentSign, MoveCause, MoveOutcome, NewcomerAction, Op, PathEvidence, PathSegment,
    PluginFault, Policing, PolicingStep, PortMove, StartPhase, StartRefusal, StopPhase,
};

use super::*;

#[test]
fn failure_and_its_moves_have_names_and_witnesses() {
    let (world, mut listening) = listening();
    world.tell(begun(), None);
    let told = listening.notice("opened");
    assert_eq!((&told["room"], &told["hop"]["node"]), (&json!("room-1"), &json!("east-a1")));
    assert_eq!(told["decided_by"], json!({"admission": "native", "routing": "native"}));
    assert!(told["at_us"].as_u64().unwrap() > 1_600_000_000_000_000);

    let ago = Instant::now().checked_sub(Duration::from_millis(250)).unwrap();
    let died = CoreEvent::Node {
        hop: hop(0),
        from: Health::Up,
        to: Health::Down,
        witnesses: vec![(EvidenceSource::Silence, ago)],
        last_heard: Some(ago),
        rooms: 1,
    };
    world.tell(died, None);
    let told = listening.notice("node");
    assert_eq!((&told["node"], &told["to"]), (&json!("east-a1"), &json!("down")));
    assert_eq!(told["witnesses"][0]["witness"], "silence");
    let detect_us = told["detect_us"].as_u64().unwrap();
    assert!(detect_us >= 249_000, "{detect_us}");

    world.tell(moved(MoveCause::NodeDown), None);
    let told = listening.notice("moved");
    assert_eq!((&told["room"], &told["cause"]), (&json!("room-1"), &json!("node-down")));
    assert_eq!((&told["from"], &told["to"]), (&json!("east-a1"), &json!("west-b1")));
    assert_eq!((&told["detect_us"], &told["sessions"]), (&json!(detect_us), &json!(["s1"])));
    assert_eq!(told["witnesses"][0]["witness"], "silence");

    world.tell(moved(MoveCause::Quality), None);
    let told = listening.notice("moved");
    assert_eq!((told.get("detect_us"), told.get("witnesses")), (None, None));
}

#[test]
fn cause_of_earlier_moves_names_their_sessions() {
    let (world, mut listening) = listening();
    let sessions = vec![SessionId(1), SessionId(2)];
    let (room, room_name, scenario, took) =
        (RoomId(1), "room-1".into(), "call".into(), Duration::ZERO);
    let moves = vec![PortMove { room, room_name, scenario, sessions, took }];
    for cause in [MoveCause::Link, MoveCause::NodeDown] {
        world.tell(CoreEvent::MoveCauseFound { hop: hop(0), cause, moves: moves.clone() }, None);
    }
    let mut told = listening.notice("move-cause");
    assert!(told.as_object_mut().unwrap().remove("at_us").is_some());
    let expected = json!({
        "node": "east-a1", "cause": "node-down", "rooms": ["room-1"], "sessions": ["s1", "s2"],
    });
    assert_eq!(told, expected);
}

#[test]
fn session_events_name_the_room() {
    let (world, mut listening) = listening();
    let by = Decider::Native;
    let session = SessionId(1);
    let (op, room_name) = (Op::VoiceOnly, "room-1".into());
    world.tell(CoreEvent::Degraded { session, room_name, op, arg: 1, rung: 2, by }, None);
    let told = listening.notice("degraded");
    assert_eq!((&told["room"], &told["op"]), (&json!("room-1"), &json!("voice-only")));
    let (room_name, reason) = ("room-1".into(), CloseReason::MediaTimeout);
    let closed = Box::new(closed_session(Instant::now()));
    let closed = CoreEvent::Closed { session, room: RoomId(4), room_name, reason, closed };
    world.tell(closed, Some(Totals { shed: 4, ..Totals::default() }));
    let told = listening.notice("closed");
    assert_eq!((&told["room"], &told["reason"]), (&json!("room-1"), &json!("media-timeout")));
    assert_eq!(told["totals"]["shed"], 4);
}

#[test]
fn rollouts_faults_and_drains_are_published() {
    let (world, mut listening) = listening();
    world.happen(GatewayEvent::Rollout(rollout(RolloutOutcome::Activated)), None);
    let told = listening.notice("policy");
    assert_eq!((&told["outcome"], &told["activate_us"]), (&json!("activated"), &json!(900)));
    let fault = Some(PluginFault::Deadline);
    world.tell(CoreEvent::Standing { hook: Hook::Routing, policy: routing(), fault }, None);
    let told = listening.notice("policy");
    assert_eq!((&told["outcome"], &told["reason"]), (&json!("failing"), &json!("deadline")));
    let run = ShedRun { ssrc: 7, after: 65_535, first: 2, packets: 3 };
    world.happen(GatewayEvent::Shed { session: SessionId(4), run }, None);
    let told = listening.notice("shed");
    assert_eq!((&told["session"], &told["ssrc"]), (&json!("s4"), &json!(7)));
    assert_eq!((&told["after"], &told["first"]), (&json!(65_535), &json!(2)));
    assert_eq!(told["packets"], 3);
    world.tell(CoreEvent::OwnStall { late: Duration::ZERO }, None);
    world.tell(CoreEvent::ShuttingDown, None);
    let told = listening.notice("draining");
    assert_eq!((told.get("node"), &told["draining"]), (None, &json!(true)));
}

#[test]
fn listed_event_has_the_fields_of_its_row() {
    let (world, mut listening) = listening();
    let (room, group, gateway) = ("room-1".into(), "west".into(), "west-1".into());
    world.happen(GatewayEvent::RoomDuplicate { room, group, gateway }, None);
    let mut told = listening.notice("room-duplicate");
    assert!(told.as_object_mut().unwrap().remove("at_us").is_some());
    assert_eq!(told, json!({"room": "room-1", "group": "west", "gateway": "west-1"}));
}

#[test]
fn slow_listener_gets_missed_count() {
    let world = World::with(1);
    let mut listening = world.ask("GET /v1/events", "");
    assert_eq!(listening.status(), 200);
    let draining = |draining| CoreEvent::Draining { node: NodeId(0), draining };
    // More events than the channel holds, sent faster than the API's thread reads them.
    for number in 0..5_000 {
        world.tell(draining(number % 2 == 0), None);
    }
    while listening.find("event:") != "event: missed" {}
    let data = listening.find("data:");
    assert!(data.starts_with("data: {\"notices\":"), "{data}");
}

#[test]
fn event_stream_ends_with_the_api() {
    let (world, mut listening) = listening();
    world.tell(CoreEvent::Draining { node: NodeId(0), draining: true }, None);
    let told = listening.notice("draining");
    assert_eq!((&told["node"], &told["draining"]), (&json!("east-a1"), &json!(true)));
    drop(world.thread);
    assert_eq!(listening.end(), 0);
}

pub(super) fn listening() -> (World, Asking<UnixStream>) {
    let world = World::start();
    let mut listening = world.ask("GET /v1/events", "");
    assert_eq!(listening.status(), 200);
    (world, listening)
}

fn begun() -> CoreEvent {
    CoreEvent::Opened {
        session: SessionId(1),
        room: RoomId(4),
        room_name: "room-1".into(),
        scenario: "call".into(),
        hop: hop(0),
        offered: Instant::now(),
        admitted_by: Decider::Native,
        routed_by: Decider::Native,
    }
}

fn moved(cause: MoveCause) -> CoreEvent {
    CoreEvent::Moved {
        room: RoomId(4),
        room_name: "room-1".into(),
        scenario: "call".into(),
        sessions: vec![SessionId(1)],
        cause,
        by: Decider::Native,
        from: hop(0),
        to: Some(hop(1)),
        started: Instant::now(),
        is_final: true,
    }
}

#[test]
fn drain_breaker_and_move_ends_are_published() {
    let (world, mut listening) = listening();
    let started = Instant::now();
    world.tell(CoreEvent::Drained { node: NodeId(0), left: 3, started }, None);
    let told = listening.notice("drained");
    assert_eq!((&told["node"], &told["rooms_left"]), (&json!("east-a1"), &json!(3)));
    let (from, to) = (BreakerState::Closed, BreakerState::Open);
    let (region, sessions, bad, opened, failed) = (RegionId(0), 60, 59, 2, 1);
    let mode = BreakerMode::Auto;
    let breaker =
        |zone| CoreEvent::Breaker { region, zone, from, to, mode, sessions, bad, opened, failed };
    world.tell(breaker(Some("a".into())), None);
    let told = listening.notice("breaker");
    assert_eq!((&told["region"], &told["zone"]), (&json!("east"), &json!("a")));
    world.tell(breaker(None), None);
    let told = listening.notice("breaker");
    assert!(told.get("zone").is_none());
    assert_eq!((&told["region"], &told["to"]), (&json!("east"), &json!("open")));
    assert_eq!(told["mode"], "auto");
    assert_eq!((&told["sessions"], &told["bad"]), (&json!(60), &json!(59)));
    let (group, action) = (carrier(), NewcomerAction::VoiceOnly);
    let (is_configured, others_open) = (true, 0);
    let changed = CoreEvent::ClientBreaker {
        group,
        is_configured,
        others_open,
        action,
        from,
        to,
        mode: BreakerMode::Open,
        sessions,
        bad,
    };
    world.tell(changed, None);
    let told = listening.notice("client-breaker");
    assert_eq!((&told["label"], &told["value"]), (&json!("carrier"), &json!("ct")));
    assert_eq!((&told["action"], &told["to"]), (&json!("voice-only"), &json!("open")));
    assert_eq!(told["mode"], "open", "an operator holds it");
    assert_eq!((&told["sessions"], &told["bad"]), (&json!(60), &json!(59)));
    let hop = |node| Hop { node: NodeId(node), incarnation: Incarnation(1) };
    let given_up = CoreEvent::MoveEnded {
        room: RoomId(4),
        room_name: "room-1".into(),
        cause: MoveCause::Manual,
        by: Decider::Operator,
        from: hop(0),
        to: hop(1),
        started,
        outcome: MoveOutcome::TargetLost,
    };
    world.tell(given_up, None);
    let told = listening.notice("move-ended");
    assert_eq!((&told["cause"], &told["outcome"]), (&json!("manual"), &json!("target-lost")));
    assert_eq!((&told["from"], &told["to"]), (&json!("east-a1"), &json!("west-b1")));
}

#[test]
fn steps_of_elastic_nodes_are_published() {
    let (world, mut listening) = listening();
    let node = NodeId(0);
    let step = StartPhase::Refused { why: StartRefusal::Cost };
    world.tell(CoreEvent::Start { node, step }, None);
    let told = listening.notice("start");
    assert_eq!((&told["step"], &told["reason"]), (&json!("refused"), &json!("budget")));
    let step = StopPhase::Done { took: Duration::from_secs(4) };
    world.tell(CoreEvent::Stop { node, step }, None);
    let told = listening.notice("stop");
    assert_eq!((&told["node"], &told["step"]), (&json!("east-a1"), &json!("stopped")));
    assert_eq!(told["took_us"], json!(4_000_000));
    let (from, to) = (BreakerState::Open, BreakerState::HalfOpen);
    let changed = CoreEvent::ProviderBreaker { provider: "cloud".into(), from, to, failures: 5 };
    world.tell(changed, None);
    let told = listening.notice("provider-breaker");
    assert_eq!((&told["provider"], &told["to"]), (&json!("cloud"), &json!("half-open")));
    assert_eq!(told["failures"], json!(5));
}

/// An impairment, and its fields in notices and lists.
pub(super) fn impairment() -> Impairment {
    Impairment {
        segment: PathSegment::Uplink,
        sign: ImpairmentSign::Loss,
        at: SessionId(18),
        loss_ppm: 100_000,
        confidence: 99,
        evidence: PathEvidence {
            senders_ppm: Some(100_000),
            from_node_ppm: Some(102_000),
            client_jitter_us: Some(12_000),
            frames: Some([5, 25]),
            late: Duration::from_millis(3),
            ..PathEvidence::default()
        },
    }
}

pub(super) fn impairment_json() -> Value {
    json!({
        "segment": "uplink", "sign": "loss", "impaired_by": "s18", "loss_ppm": 100_000,
        "confidence_percent": 99,
        "evidence": {
            "senders_ppm": 100_000, "from_node_ppm": 102_000, "client_jitter_us": 12_000,
            "frames_per_second": 5,
            "usual_frames_per_second": 25, "gateway_late_ms": 3, "gateway_dropped_ppm": 0,
        },
    })
}

#[test]
fn impairment_and_its_end_are_published() {
    let (world, mut listening) = listening();
    let tell = |impairment, ended| {
        let (session, room_name, scenario) = (SessionId(17), "room-1".into(), "call".into());
        let event = CoreEvent::Impaired { session, room_name, scenario, impairment, ended };
        world.tell(event, None);
    };
    tell(Some(Box::new(impairment())), None);
    let told = listening.notice("impaired");
    assert_eq!((&told["session"], &told["room"]), (&json!("s17"), &json!("room-1")));
    assert_eq!((&told["scenario"], &told["impairment"]), (&json!("call"), &impairment_json()));
    tell(None, Some((Box::new(impairment()), Instant::now())));
    assert_eq!(listening.notice("impaired").get("impairment"), None);
}

#[test]
fn advice_is_published_with_its_cause() {
    let (world, mut listening) = listening();
    let advice = Advice { kind: AdviceKind::LowerQuality, cause: PathSegment::Leg };
    let (session, room_name, scenario) = (SessionId(17), "room-1".into(), "call".into());
    world.tell(CoreEvent::Advised { session, room_name, scenario, advice }, None);
    let mut told = listening.notice("advice");
    assert!(told["at_us"].take().is_u64());
    let right = json!({
        "at_us": null, "session": "s17", "room": "room-1", "scenario": "call",
        "advice": "lower-quality", "cause": "leg",
    });
    assert_eq!(told, right);
}

pub(super) fn policing() -> Policing {
    Policing { step: PolicingStep::Frames, limit_kbps: 2_000, sent_kbps: 3_100 }
}

#[test]
fn policing_and_its_end_are_published() {
    let (world, mut listening) = listening();
    let tell = |policing| {
        let (session, room_name, scenario) = (SessionId(17), "room-1".into(), "call".into());
        world.tell(CoreEvent::Policed { session, room_name, scenario, policing }, None);
    };
    tell(Some(policing()));
    let mut told = listening.notice("policed");
    assert!(told["at_us"].take().is_u64());
    let right = json!({
        "at_us": null, "session": "s17", "room": "room-1", "scenario": "call",
        "policing": {"step": "frames", "limit_kbps": 2_000, "sent_kbps": 3_100},
    });
    assert_eq!(told, right);
    tell(None);
    assert_eq!(listening.notice("policed").get("policing"), None);
}
