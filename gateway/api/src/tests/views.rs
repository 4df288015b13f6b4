//! Lists and operators' verbs, with names in place of control's ids.

use std::time::{Instant, SystemTime};

use evenkeel_contract::gateway::{Mode, Recovery};
use evenkeel_control::{
    AgentError, BreakerTarget, ListChange, NodeOrder, NotReloaded, Operation, OperationTarget,
    PolicyRefused, PushRequest, Reloaded, SessionView, Shrinks, TraceIds,
};
use evenkeel_core::{
    ArmStatistics, Failback, NodeStanding, RegionStanding, RoomStanding, SessionStanding,
};
use evenkeel_media::trunk::message::NodeFault;
use evenkeel_model::{
    Arm, BreachCount, BreakerMode, BreakerState, ClientTransport, EvidenceSource, FeedbackSupport,
    Figure, Health, Impossible, Measures, MediaDescription, MediaStream, Metric, Op, PayloadType,
    Plan, PluginFault, RedundancyMode, RtcpPort, Srtp, StreamKind,
};
use evenkeel_nodes::ProcessState;
use evenkeel_policies::{PluginView, PolicyView};
use evenkeel_process::unix_us;
use evenkeel_revisions::{
    CandidateCalls, CandidateStatus, CohortSize, PolicyStatus, QuarantinedRevision,
    RevokedRevision, RolloutAction, RolloutStage, Staged,
};

use super::*;

#[test]
fn status_shows_counts() {
    let mut world = World::start();
    let mut shown = |state| {
        let asking = world.ask("GET /v1/status", "");
        let ControlRequest::Status(reply) = world.request() else { panic!("status") };
        reply.send(status(state)).unwrap();
        let (_, body) = asking.answer();
        assert_eq!(body["state"], state);
        body
    };
    shown("starting");
    shown("draining");
    let body = shown("serving");
    assert_eq!(body["uptime_ms"], 1_500);
    assert_eq!(body["last_reload"]["at_us"], 1_000_000);
    assert_eq!(body["last_reload"]["reason"], "evenkeel.toml:3:1: found nothing");
    assert_eq!(body["policies_failing"], json!(["call/routing"]));
    assert_eq!(body["drops"], json!({"unknown-source": 3}));
    assert_eq!(body["quic_counts"], json!({"connections": 1}));
}

#[test]
fn sessions_are_paged() {
    let mut world = World::start();
    let mut ask = |query: &str| {
        let asking = world.ask(&format!("GET /v1/sessions?{query}"), "");
        let ControlRequest::Sessions(after, limit, reply) = world.request() else {
            panic!("sessions")
        };
        reply.send((1..=3).filter(|id| *id > after.0).take(limit).map(session).collect()).unwrap();
        let (_, body) = asking.answer();
        let ids = body["sessions"].as_array().unwrap().iter().map(|one| one["id"].clone());
        (ids.collect::<Vec<_>>(), body["next"].clone())
    };
    assert_eq!(ask(""), (vec![json!("s1"), json!("s2"), json!("s3")], Value::Null));
    assert_eq!(ask("limit=2"), (vec![json!("s1"), json!("s2")], json!("s2")));
    assert_eq!(ask("limit=2&after=s2"), (vec![json!("s3")], Value::Null));
    assert_eq!(ask("limit=1&after=s1"), (vec![json!("s2")], json!("s2")));
    for wrong in ["limit=0", "limit=2001", "limit=x", "page=2"] {
        let (status, body) = world.ask(&format!("GET /v1/sessions?{wrong}"), "").answer();
        assert_eq!((status, &body["error"]["code"]), (400, &json!("bad-request")), "{wrong}");
    }
}

#[test]
fn session_is_shown_and_closed_by_id() {
    let mut world = World::start();
    for (asked, right) in [("s17", 200), ("s16", 404)] {
        let asking = world.ask(&format!("GET /v1/sessions/{asked}"), "");
        let ControlRequest::Session(id, reply) = world.request() else { panic!("session") };
        reply.send((id == SessionId(17)).then(|| session(17))).unwrap();
        let (found, body) = asking.answer();
        assert_eq!(found, right);
        if right == 200 {
            assert_eq!(body["ingress"], "udp");
            assert_eq!((&body["hop"]["node"], &body["mode"]), (&json!("east-a1"), &json!("hot")));
            assert_eq!((&body["rung"], &body["cap_kbps"]), (&json!(1), &json!(null)));
            assert_eq!(body["actions"], json!({"voice-only": 1}));
            assert_eq!(body["measures"], json!({"loss-up": 1_000}));
            assert_eq!((&body["totals"]["shed"], &body["age_ms"]), (&json!(4), &json!(2_000)));
            assert_eq!(body["trace_id"], "ab".repeat(16));
        }
    }
    let gone = ControlError::Impossible(Impossible::NoSuchSession);
    for (result, right) in [(Ok(()), 204), (Err(gone), 404)] {
        let asking = world.ask("DELETE /v1/sessions/s17", "");
        let ControlRequest::Close(session, reply) = world.request() else { panic!("close") };
        assert_eq!(session, SessionId(17));
        reply.send(result).unwrap();
        assert_eq!(asking.answer().0, right);
    }
    for wrong in ["17", "s", "s-1", "x17"] {
        assert_eq!(world.ask(&format!("DELETE /v1/sessions/{wrong}"), "").answer().0, 404);
    }
}

#[test]
fn rooms_nodes_and_policies_are_listed() {
    let mut world = World::start();
    let asking = world.ask("GET /v1/rooms?after=r3", "");
    let ControlRequest::Rooms(after, limit, reply) = world.request() else { panic!("rooms") };
    assert_eq!((after, limit), (RoomId(3), 2_001));
    let room = RoomStanding {
        room: RoomId(4),
        name: "room-1".into(),
        scenario: "call".into(),
        mode: RedundancyMode::Hitless,
        kept: RedundancyMode::Hot,
        sessions: vec![SessionId(1), SessionId(2)],
        route: vec![hop(0), hop(1)],
        hop: Some(hop(1)),
        placed_by: Decider::Operator,
    };
    reply.send(vec![room]).unwrap();
    let (_, body) = asking.answer();
    assert_eq!(body["next"], Value::Null);
    let room = &body["rooms"][0];
    assert_eq!((&room["room"], &room["id"]), (&json!("room-1"), &json!("r4")));
    assert_eq!((&room["mode"], &room["effective_mode"]), (&json!("hitless"), &json!("hot")));
    assert_eq!((&room["sessions"], &room["placed_by"]), (&json!(["s1", "s2"]), &json!("operator")));
    assert_eq!((&room["route"][0]["zone"], &room["hop"]["node"]), (&json!("a"), &json!("west-b1")));

    let asking = world.ask("GET /v1/nodes", "");
    let ControlRequest::Nodes(reply) = world.request() else { panic!("nodes") };
    let before_us = unix_us(SystemTime::now());
    let started = Instant::now().checked_sub(Duration::from_secs(7)).unwrap();
    let node = NodeStanding {
        hop: Hop { node: NodeId(0), incarnation: Incarnation(2) },
        health: Health::Suspect,
        suspected_by: EvidenceSource::ALL.map(|witness| witness == EvidenceSource::Cohort),
        draining: true,
        leaves: false,
        ejected: false,
        started: true,
        stopping: false,
        need: Some(evenkeel_model::NodeNeed::Load),
        capacity_kbps: 900,
        opening: 4,
        waiting: 5,
        load_permille: 250,
        carried_kbps: 90,
        reported_permille: Some(420),
        process: Some(ProcessState { memory_permille: 300, started }),
        rooms: 3,
        round_trip: Some(Duration::from_micros(700)),
        loss_ppm: 12_500,
        impaired_sessions: 6,
        is_probed: true,
        zone_breaker: BreakerState::Closed,
        zone_breaker_mode: BreakerMode::Auto,
    };
    reply.send(vec![node]).unwrap();
    let mut body = asking.answer().1;
    let started_us = body["nodes"][0]["process_started_us"].take().as_u64().unwrap();
    let after_us = unix_us(SystemTime::now());
    // A millisecond for readings of two clocks.
    assert!((before_us - 7_001_000..after_us - 6_999_000).contains(&started_us), "{started_us}");
    let right = json!({"nodes": [{
        "node": "east-a1", "region": "east", "zone": "a", "incarnation": 2, "health": "suspect",
        "suspected_by": ["cohort"],
        "draining": true, "leaving": false, "ejected": false, "started": true, "stopping": false,
        "needed_for": "load", "capacity_kbps": 900,
        "opening": 4, "queued": 5, "load_permille": 250, "carried_permille": 100,
        "loss_ppm": 12_500, "impaired_sessions": 6, "reported_permille": 420,
        "memory_permille": 300, "process_started_us": null, "rooms": 3, "round_trip_us": 700,
    }]});
    assert_eq!(body, right);

    let asking = world.ask("GET /v1/policies", "");
    let ControlRequest::Policies(reply) = world.request() else { panic!("policies") };
    reply.send(vec![policy()]).unwrap();
    let canary = json!({
        "sessions": 10, "rooms": 5, "loss_percent": 1.5, "r_factor": 80.0, "rung": 0.5,
        "worse": {"loss": {"worse": 2, "of": 10}},
    });
    let right = json!({"policies": [{
        "policy": "call/routing", "plugin": "route-nearest 0.1.0", "revision": "5f0c5f0c5f0c",
        "previous": null, "origin": "embedded", "calls": 7, "faults": 1, "late": 4, "quarantined": 2,
        "hidden_state": {"differed": 1, "of": 5}, "failing": "trap: unreachable",
        "last_fault": format!("trap: {}…", "é".repeat(194)),
        "desired": "aaaaaaaaaaaa", "rollback_window_ms": 9_000, "last_rollout": null, "preparing_ms": 3_000,
        "rollout": {
            "revision": "aaaaaaaaaaaa", "plugin": "route-nearest 0.2.0", "origin": "pushed",
            "stage": "canary", "percent": 5, "paused": false, "lasted_ms": 1_500,
            "next_percent": 50, "next_in_ms": 8_500,
            "judged": {"of": "rooms", "count": 3, "required": 5},
            "steps": [5, 50], "pace_ms": 10_000, "calls": 3, "faults": 0,
            "last_fault": "out-of-memory",
            "shadow": {"same": 8, "different": 1, "faulted": 0},
            "cohorts": {"canary": canary},
        },
        "quarantined_revisions": [
            {"revision": "bbbbbbbbbbbb", "since_us": 7_000_000, "reason": "loss: 8 of 10 got worse"},
        ],
        "revoked_revisions": [{"revision": "5f0c5f0c5f0c", "reason": "key `ops`"}],
    }]});
    assert_eq!(asking.answer().1, right);
}

pub(super) fn policy() -> PolicyView {
    PolicyView {
        policy: routing(),
        scenarios: vec!["call".into(), "idle".into()],
        status: policy_status(),
        active: plugin("route-nearest 0.1.0", "embedded"),
        candidate: plugin("route-nearest 0.2.0", "pushed"),
        cohorts: vec![ArmStatistics {
            arm: Arm::Canary,
            sessions: 10,
            rooms: 5,
            loss_ppm: Some(15_000),
            r_factor_centi: Some(8_000),
            rung_centi: 50,
            worse: vec![(Figure::Loss, BreachCount { of: 10, worse: 2 })],
        }],
        judged: Some(CohortSize { judged: 3, required: 5 }),
        quarantined: 2,
        hidden_state: (1, 5),
        preparing: Some(Duration::from_secs(3)),
    }
}

/// One revision in canary, another quarantined.
fn policy_status() -> PolicyStatus {
    PolicyStatus {
        active: Some("5f0c5f0c5f0c".into()),
        candidate: Some(CandidateStatus {
            revision: "aaaaaaaaaaaa".into(),
            staged: Staged {
                stage: RolloutStage::Canary(5),
                paused: false,
                next: 50,
                next_in: Some(Duration::from_millis(8_500)),
            },
            lasted: Duration::from_millis(1_500),
            steps: vec![5, 50],
            each: Duration::from_secs(10),
            calls: CandidateCalls {
                calls: 3,
                faults: 0,
                same: 8,
                different: 1,
                faulted: 0,
                last_fault: Some(PluginFault::OutOfMemory),
            },
        }),
        previous: None,
        previous_for: Some(Duration::from_secs(9)),
        last: None,
        quarantined: vec![QuarantinedRevision {
            revision: "bbbbbbbbbbbb".into(),
            since: SystemTime::UNIX_EPOCH + Duration::from_secs(7),
            reason: "loss: 8 of 10 got worse".into(),
        }],
        revoked: vec![RevokedRevision {
            revision: "5f0c5f0c5f0c".into(),
            reason: "key `ops`".into(),
        }],
        calls: 7,
        faults: 1,
        late: 4,
        failing: Some(PluginFault::Trap("unreachable".into())),
        last_fault: Some(PluginFault::Trap("é".repeat(1_024).into())),
    }
}

fn plugin(title: &str, origin: &str) -> PluginView {
    PluginView { title: title.into(), origin: origin.into(), ..PluginView::default() }
}

#[test]
fn agent_orders_succeed_or_conflict() {
    let mut world = World::start();
    for (body, how) in [
        (r#"{"how": "kill"}"#, NodeFault::Kill),
        (r#"{"how": "hang"}"#, NodeFault::Hang),
        (r#"{"how": "wake"}"#, NodeFault::Wake),
        (r#"{"how": "cut"}"#, NodeFault::Cut),
        (r#"{"how": "heal"}"#, NodeFault::Heal),
    ] {
        let asking = world.ask("POST /v1/nodes/east-a1:break", body);
        let ControlRequest::Order(node, order, reply) = world.request() else { panic!("order") };
        assert_eq!((&*node, order), ("east-a1", NodeOrder::Break(how)));
        reply.send(Ok(())).unwrap();
        assert_eq!(asking.answer().0, 204);
    }
    let kill = NodeOrder::Break(NodeFault::Kill);
    for (why, status, word) in [
        (AgentError::NoAgent, 409, "has no agent"),
        (AgentError::Forbidden, 409, "allows no drills: set `drills = true`"),
        (AgentError::Unable(kill), 409, "no agent watches a running process"),
        (AgentError::Unable(NodeOrder::Break(NodeFault::Cut)), 409, "do not go through an agent"),
        (AgentError::Unable(NodeOrder::Start), 409, "names no command"),
        (AgentError::Silent, 503, "did not answer"),
    ] {
        let asking = world.ask("POST /v1/nodes/east-a1:start", "");
        let ControlRequest::Order(_, NodeOrder::Start, reply) = world.request() else {
            panic!("order")
        };
        reply.send(Err(ControlError::Agent { node: "east-a1".into(), why })).unwrap();
        let (found, body) = asking.answer();
        let message = body["error"]["message"].as_str().unwrap().to_owned();
        assert_eq!(found, status, "{message}");
        assert!(message.contains(word) && message.contains("`east-a1`"), "{message}");
    }
    for wrong in ["", "{}", r#"{"how": "burn"}"#, r#"{"how": "kill", "why": 1}"#] {
        let (status, body) = world.ask("POST /v1/nodes/east-a1:break", wrong).answer();
        assert_eq!((status, &body["error"]["code"]), (400, &json!("bad-request")), "{wrong}");
    }
    let world = World::without_drills();
    let (status, _) = world.ask("POST /v1/nodes/east-a1:break", r#"{"how": "kill"}"#).answer();
    assert_eq!(status, 403);
}

#[test]
fn rooms_move_and_nodes_drain_by_name() {
    let mut world = World::start();
    let asking = world.ask("POST /v1/rooms/a%2Fb:c:move", r#"{"node": "east-a1"}"#);
    let ControlRequest::Move(room, node, reply) = world.request() else { panic!("move") };
    assert_eq!((&*room, &*node), ("a/b:c", "east-a1"));
    reply.send(Err(ControlError::Impossible(Impossible::NodeUnfit))).unwrap();
    assert_eq!(asking.answer().0, 409);
    for (verb, right) in [("drain", true), ("undrain", false)] {
        let asking = world.ask(&format!("POST /v1/nodes/east-a1:{verb}"), "");
        let ControlRequest::Operate(operation, reply) = world.operation() else { panic!("drain") };
        let place = OperationTarget::Node("east-a1".into());
        assert_eq!(operation, Operation::Drain { place, draining: right, within: None });
        reply.send(Ok(())).unwrap();
        assert_eq!(asking.answer().0, 204);
    }
    let asking = world.ask("POST /v1/nodes/nope:drain", "");
    let ControlRequest::Operate(_, reply) = world.operation() else { panic!("drain") };
    let known = (1..=10).map(|number| format!("east-a{number}").into()).collect();
    let reason = Impossible::NoSuchNode;
    reply.send(Err(ControlError::Unfound { reason, known })).unwrap();
    let (status, body) = asking.answer();
    let message = body["error"]["message"].as_str().unwrap();
    assert_eq!(status, 404);
    assert!(
        message.contains("nope; there are east-a1, ") && message.contains("east-a8 and 2 others")
    );
    let (room, node) = (Impossible::NoSuchRoom, Impossible::NoSuchNode);
    let known = vec!["east-a1".into(), "west-b1".into()];
    for (failed, right) in [
        (ControlError::Impossible(room), "there is no such room: r"),
        (
            ControlError::Unfound { reason: node, known },
            "there is no such node: east-a9; there are east-a1, west-b1",
        ),
        (
            ControlError::Impossible(Impossible::AlreadyThere),
            "the room is already at this node: r to east-a9",
        ),
    ] {
        let asking = world.ask("POST /v1/rooms/r:move", r#"{"node": "east-a9"}"#);
        let ControlRequest::Move(.., reply) = world.request() else { panic!("move") };
        reply.send(Err(failed)).unwrap();
        assert_eq!(asking.answer().1["error"]["message"], right);
    }
    let asking = world.ask("POST /v1/rooms/r:move", r#"{"node": "east-a1"}"#);
    let ControlRequest::Move(.., reply) = world.request() else { panic!("move") };
    let health = Health::Suspect;
    let unfit =
        ControlError::Unfit { health, draining: true, load_permille: 970, capacity_kbps: 8_000 };
    reply.send(Err(unfit)).unwrap();
    let (status, body) = asking.answer();
    let message = body["error"]["message"].as_str().unwrap();
    assert_eq!(status, 409);
    assert!(message.ends_with("it is suspect, draining, at 97 % of 8000 kbit/s"), "{message}");
    for wrong in ["/v1/nodes/east-a1", "/v1/nodes/east-a1:kill", "/v1/rooms/r:drain"] {
        let (status, body) = world.ask(&format!("POST {wrong}"), "{}").answer();
        assert_eq!((status, &body["error"]["code"]), (404, &json!("not-found")), "{wrong}");
    }
    assert_eq!(world.ask("POST /v1/rooms/r:move", "{}").answer().0, 400);
}

#[test]
fn closed_api_ends_its_thread_and_socket() {
    let world = World::start();
    assert!(world.thread.is_running());
    world.thread.close();
    while world.thread.is_running() {
        std::thread::yield_now();
    }
    assert!(UnixStream::connect(&world.socket).is_err());
}

#[test]
fn oversized_plugin_is_listed_as_refusal() {
    let mut world = World::start();
    let large = "\0".repeat(evenkeel_host::BINARY_BYTES_MAX + 1);
    let asking = world.ask("PUT /v1/policies/call/routing", &large);
    let ControlRequest::Policies(reply) = world.request() else { panic!("policies") };
    reply.send(vec![policy()]).unwrap();
    let ControlRequest::NoteRefusal(noted) = world.request() else { panic!("a refusal") };
    assert_eq!((noted.policy, &*noted.origin, noted.code), (routing(), "pushed", "too-large"));
    assert_eq!(&*noted.reason, "the body is larger than 16777216 bytes");
    let (status, body) = asking.answer();
    assert_eq!((status, &body["error"]["code"]), (413, &json!("too-large")));
    assert_eq!(body["error"]["message"], *noted.reason);

    let asking = world.ask("PUT /v1/policies/nobody/routing", &large);
    let ControlRequest::Policies(reply) = world.request() else { panic!("policies") };
    reply.send(vec![policy()]).unwrap();
    let (status, body) = asking.answer();
    assert_eq!((status, &body["error"]["code"]), (404, &json!("not-found")));
    assert!(world.requests.try_recv().is_err(), "no refusal is noted for an unknown policy");
}

#[test]
fn policy_is_pushed_and_rolled_back() {
    let mut world = World::start();
    let wasm = "\0asm".repeat(100_000);
    let asking = world.ask("PUT /v1/policies/call/routing?settings=%7B%22a%22%3A1%7D", &wasm);
    let ControlRequest::Push { policy, bytes, settings, push, reply } = world.request() else {
        panic!("push")
    };
    assert_eq!((policy, push), (routing(), PushRequest::default()));
    assert_eq!((bytes.unwrap().len(), settings), (wasm.len(), Some(json!({"a": 1}))));
    reply.send(Ok(rollout(RolloutOutcome::Refused))).unwrap();
    let (status, body) = asking.answer();
    assert_eq!((status, &body["outcome"]), (400, &json!("refused")));
    assert_eq!((&body["policy"], &body["activate_us"]), (&json!("call/routing"), &json!(900)));
    assert_eq!(body["reason"], "it imports a clock");
    assert_eq!(body["code"], "import");

    let asking = world.ask("PUT /v1/policies/call/routing?force=true", "x");
    let ControlRequest::Push { push, reply, .. } = world.request() else { panic!("push") };
    assert_eq!(push, PushRequest { force: true, ..PushRequest::default() });
    reply.send(Ok(rollout(RolloutOutcome::Activated))).unwrap();
    world.keep_policies();
    assert_eq!(asking.answer().0, 200);

    let asking = world.ask("GET /v1/policies/refusals", "");
    let ControlRequest::Refusals(reply) = world.request() else { panic!("refusals") };
    let (policy, origin, code) = (routing(), "pushed".into(), "import");
    let reason = "it imports a clock".into();
    reply
        .send(vec![evenkeel_policies::RefusalRecord { at_us: 7, policy, origin, code, reason }])
        .unwrap();
    let (status, body) = asking.answer();
    let kept = json!([{"at_us": 7, "policy": "call/routing", "origin": "pushed", "code": "import",
                       "reason": "it imports a clock"}]);
    assert_eq!((status, &body["refusals"]), (200, &kept));

    let largest = "\0".repeat(evenkeel_host::BINARY_BYTES_MAX);
    let asking = world.ask("PUT /v1/policies/call/routing", &largest);
    let ControlRequest::Push { bytes, reply, .. } = world.request() else { panic!("push") };
    assert_eq!(bytes.unwrap().len(), largest.len());
    reply.send(Ok(rollout(RolloutOutcome::Unchanged))).unwrap();
    world.keep_policies();
    assert_eq!(asking.answer().0, 200);

    let asking = world.ask("POST /v1/policies/call/routing:rollback", "");
    let ControlRequest::Rollback(_, force, reply) = world.request() else { panic!("rollback") };
    assert!(!force);
    reply.send(Ok(rollout(RolloutOutcome::RolledBack))).unwrap();
    world.keep_policies();
    let (status, body) = asking.answer();
    assert_eq!((status, &body["outcome"]), (200, &json!("rolled-back")));
    let asking = world.ask("POST /v1/policies/call/routing:rollback?force=true", "");
    let ControlRequest::Rollback(_, force, reply) = world.request() else { panic!("rollback") };
    assert!(force);
    reply.send(Ok(rollout(RolloutOutcome::RolledBack))).unwrap();
    world.keep_policies();
    assert_eq!(asking.answer().0, 200);

    let asking = world.ask("PUT /v1/policies/none/routing", "x");
    let ControlRequest::Push { reply, .. } = world.request() else { panic!("push") };
    reply.send(Err(ControlError::NoPolicy(routing()))).unwrap();
    let (status, body) = asking.answer();
    assert_eq!((status, &body["error"]["code"]), (404, &json!("not-found")));
    let asking = world.ask("POST /v1/policies/call/routing:promote", "");
    let ControlRequest::ActOnRollout(.., reply) = world.request() else { panic!("promote") };
    reply.send(Err(ControlError::Policy("no rollout is running".into()))).unwrap();
    let (status, body) = asking.answer();
    assert_eq!((status, &body["error"]["code"]), (409, &json!("conflict")));
    for (wrong, body, right) in [
        ("PUT /v1/policies/call/steering", "x", 404),
        ("PUT /v1/policies/call/routing", "", 400),
        ("PUT /v1/policies/call/routing?settings=%7B", "x", 400),
        ("POST /v1/policies/call/routing:elect", "", 404),
        ("PUT /v1/policies/call/routing?canary=25,5", "x", 400),
        ("PUT /v1/policies/call/routing?canary=101", "x", 400),
        ("PUT /v1/policies/call/routing?pace=10", "x", 400),
        ("PUT /v1/policies/call/routing?now=true&canary=5", "x", 400),
        ("POST /v1/policies/call/routing:pause?force=true", "", 400),
        ("POST /v1/policies/call/routing:rollback?now=true", "", 400),
    ] {
        assert_eq!(world.ask(wrong, body).answer().0, right, "{wrong}");
    }
}

#[test]
fn push_with_steps_reports_the_next_step() {
    let mut world = World::start();
    let asking = world.ask("PUT /v1/policies/call/routing?canary=1,5&pace=2s&replace=true", "x");
    let ControlRequest::Push { push, reply, .. } = world.request() else { panic!("push") };
    let right = PushRequest {
        canary: Some(vec![1, 5]),
        pace: Some(Duration::from_secs(2)),
        replace: true,
        ..PushRequest::default()
    };
    assert_eq!(push, right);
    let (stage, next_in) = (RolloutStage::Canary(1), Some(Duration::from_secs(2)));
    let staged = Staged { stage, paused: false, next: 5, next_in };
    let begun = RolloutReport { stage: Some(staged), ..rollout(RolloutOutcome::Started) };
    reply.send(Ok(begun)).unwrap();
    world.keep_policies();
    let (status, body) = asking.answer();
    assert_eq!(
        (status, &body["outcome"], &body["by"]),
        (200, &json!("started"), &json!("operator"))
    );
    assert_eq!((&body["stage"], &body["percent"]), (&json!("canary"), &json!(1)));
    assert_eq!((&body["next_percent"], &body["next_in_ms"]), (&json!(5), &json!(2_000)));
    for (word, right, outcome) in [
        ("promote", RolloutAction::Promote, RolloutOutcome::Advanced),
        ("promote-all", RolloutAction::PromoteAll, RolloutOutcome::Activated),
        ("pause", RolloutAction::Pause, RolloutOutcome::Paused),
        ("resume", RolloutAction::Resume, RolloutOutcome::Resumed),
        ("abort", RolloutAction::Abort, RolloutOutcome::RolledBack),
    ] {
        let asking = world.ask(&format!("POST /v1/policies/call/routing:{word}"), "");
        let ControlRequest::ActOnRollout(policy, action, reply) = world.request() else {
            panic!("{word}")
        };
        assert_eq!((policy, action), (routing(), right));
        reply.send(Ok(rollout(outcome))).unwrap();
        world.keep_policies();
        let (status, body) = asking.answer();
        assert_eq!((status, &body["outcome"]), (200, &json!(outcome.name())), "{word}");
    }
}

#[test]
fn modes_show_measurements_or_null() {
    let mut world = World::start();
    let asking = world.ask("GET /v1/modes", "");
    let ControlRequest::Modes(reply) = world.request() else { panic!("modes") };
    let none = Mode {
        mode: "cold".into(),
        scenarios: Vec::new(),
        recoveries: 0,
        recovery_ms: None,
        packets_lost: None,
        bandwidth_cost: None,
    };
    let hot = Mode {
        mode: "hot".into(),
        scenarios: vec!["call".into()],
        recoveries: 9,
        recovery_ms: Some(Recovery { p50: 20.0, p99: 40.0, max: 41.0 }),
        packets_lost: Some(11),
        bandwidth_cost: Some(0.25),
    };
    reply.send(vec![hot, none]).unwrap();
    let right = json!({"modes": [
        {"mode": "hot", "scenarios": ["call"], "recoveries": 9,
         "recovery_ms": {"p50": 20.0, "p99": 40.0, "max": 41.0},
         "packets_lost": 11, "bandwidth_cost": 0.25},
        {"mode": "cold", "scenarios": [], "recoveries": 0, "recovery_ms": null,
         "packets_lost": null, "bandwidth_cost": null},
    ]});
    assert_eq!(asking.answer().1, right);
}

fn voice_only() -> Plan {
    let video = MediaStream {
        kind: StreamKind::Video,
        payload_types: vec![PayloadType::new(96, "VP8", 90_000)],
        feedback: FeedbackSupport::default(),
        bitrate_kbps: None,
    };
    let media = MediaDescription::new(vec![video], RtcpPort::Mux, Srtp::Plain);
    Plan::default().with(Op::VoiceOnly, 1, &media)
}

pub(super) fn session(number: u64) -> SessionView {
    let mut measures = Measures::default();
    measures.set(Metric::LossUp, 1_000);
    let standing = SessionStanding {
        session: SessionId(number),
        room: "room-1".into(),
        scenario: "call".into(),
        labels: [("participant".into(), "anna".into())].into(),
        mode: RedundancyMode::Hot,
        kept: RedundancyMode::Hot,
        transport: ClientTransport::Udp,
        hop: Some(hop(0)),
        plan: voice_only(),
        measures,
        impairment: None,
        advice: None,
        policing: None,
        mean_r_centi: None,
        age: Duration::from_secs(2),
    };
    let trace = TraceIds { trace_id: [0xab; 16], span_id: [1; 8] };
    SessionView {
        state: standing,
        totals: Totals { shed: 4, ..Totals::default() },
        trace,
        ice: None,
    }
}

#[test]
fn nodes_zones_and_regions_are_operated_by_name() {
    let mut world = World::start();
    let node = || OperationTarget::Node("east-a1".into());
    let zone = || OperationTarget::Zone("east/a".into());
    let region = || OperationTarget::Region("east".into());
    let drain = |place, draining, seconds: Option<u64>| Operation::Drain {
        place,
        draining,
        within: seconds.map(Duration::from_secs),
    };
    let cases = [
        ("nodes/east-a1:drain", r#"{"deadline": "60s"}"#, drain(node(), true, Some(60))),
        ("nodes/east-a1:drain", "{}", drain(node(), true, None)),
        ("nodes/east-a1:eject", "", Operation::Eject("east-a1".into())),
        ("nodes/east-a1:uneject", "", Operation::Return("east-a1".into())),
        ("regions/east:drain", r#"{"deadline": "5m"}"#, drain(region(), true, Some(300))),
        ("regions/east:undrain", "", drain(region(), false, None)),
        ("zones/east%2Fa:drain", r#"{"deadline": "5m"}"#, drain(zone(), true, Some(300))),
        ("zones/east%2Fa:undrain", "", drain(zone(), false, None)),
        ("zones/east%2Fa:eject", "", Operation::EjectZone("east/a".into())),
        ("zones/east%2Fa:uneject", "", Operation::ReturnZone("east/a".into())),
        (
            "regions/east:failback",
            r#"{"mode": "forbid"}"#,
            Operation::Failback(Some("east".into()), Failback::Forbid),
        ),
        ("regions:failback", r#"{"mode": "force"}"#, Operation::Failback(None, Failback::Force)),
        (
            "regions/east:breaker",
            r#"{"mode": "closed"}"#,
            Operation::Breaker(BreakerTarget::Region("east".into()), BreakerMode::Closed),
        ),
        (
            "zones/east%2Fa:breaker",
            r#"{"mode": "auto"}"#,
            Operation::Breaker(BreakerTarget::Zone("east/a".into()), BreakerMode::Auto),
        ),
        (
            "clients/carrier/ct:breaker",
            r#"{"mode": "open"}"#,
            Operation::Breaker(BreakerTarget::Clients(carrier()), BreakerMode::Open),
        ),
    ];
    for (path, body, right) in cases {
        let asking = world.ask(&format!("POST /v1/{path}"), body);
        let ControlRequest::Operate(operation, reply) = world.operation() else { panic!("{path}") };
        assert_eq!(operation, right, "{path}");
        reply.send(Ok(())).unwrap();
        assert_eq!(asking.answer().0, 204, "{path}");
    }
    let wrong = [
        ("nodes/east-a1:drain", r#"{"deadline": "60"}"#, "deadline"),
        ("nodes/east-a1:drain", r#"{"by": "60s"}"#, "by"),
        ("regions/east:failback", r#"{"mode": "now"}"#, "mode"),
        ("clients/region/eu:breaker", r#"{"mode": "half-open"}"#, "mode"),
    ];
    for (path, body, field) in wrong {
        let (status, body) = world.ask(&format!("POST /v1/{path}"), body).answer();
        assert_eq!((status, &body["error"]["field"]), (400, &json!(field)), "{body}");
    }
    for path in ["clients/city/x:breaker", "clients/carrier/:breaker", "clients/carrier/ct:eject"] {
        let (status, body) = world.ask(&format!("POST /v1/{path}"), r#"{"mode": "open"}"#).answer();
        assert_eq!(status, 404, "{path}: {body}");
    }
    for (reason, right) in [
        (Impossible::NoBreakerAction, 409),
        (Impossible::NoRoomForBreakers, 409),
        (Impossible::NoSuchRegion, 404),
        (Impossible::NoSuchZone, 404),
        (Impossible::AlreadyEjected, 409),
        (Impossible::NotDown, 409),
        (Impossible::NodeLeaves, 409),
        (Impossible::NodeDrains, 409),
    ] {
        let asking = world.ask("POST /v1/nodes/east-a1:uneject", "");
        let ControlRequest::Operate(_, reply) = world.request() else { panic!("return") };
        reply.send(Err(ControlError::Impossible(reason))).unwrap();
        assert_eq!(asking.answer().0, right, "{reason:?}");
    }
    let asking = world.ask("GET /v1/regions", "");
    let ControlRequest::Regions(reply) = world.request() else { panic!("regions") };
    let standing = RegionStanding {
        region: RegionId(0),
        breaker: BreakerState::Open,
        breaker_mode: BreakerMode::Auto,
        half_open_in: Some(Duration::from_secs(9)),
        failback: Failback::Auto,
        nodes: 2,
        nodes_up: 1,
        nodes_draining: 0,
        capacity_kbps: 1_000,
        load_kbps: 500,
        rooms: 3,
        away: 4,
    };
    reply.send(vec![standing]).unwrap();
    let right = json!({"regions": [{
        "region": "east", "breaker": "open", "breaker_mode": "auto", "half_open_in_ms": 9_000,
        "failback": "auto", "nodes": 2, "nodes_up": 1, "nodes_draining": 0, "rooms": 3, "rooms_displaced": 4,
    }]});
    assert_eq!(asking.answer().1, right);
}

#[test]
fn reload_reports_changes_or_refusal() {
    let mut world = World::start();
    let reload = "POST /v1/configuration:reload";
    let asking = world.ask(reload, r#"{"force": true, "deadline": "60s"}"#);
    let ControlRequest::Reload(asked) = world.request() else { panic!("reload") };
    assert_eq!((asked.force, asked.within), (true, Some(Duration::from_secs(60))));
    let nodes = ListChange {
        added: vec!["east-b1".into()],
        removed: vec!["east-a1".into()],
        changed: Vec::new(),
    };
    let refused = vec![PolicyRefused { policy: routing(), reason: "a trap".to_owned() }];
    let reloaded = Reloaded {
        nodes,
        waiting: vec!["[limits]".into()],
        refused,
        warnings: vec!["[webrtc]: the certificate expired".into()],
    };
    asked.reply.send(Ok(reloaded)).unwrap();
    let right = json!({
        "added": ["east-b1"], "removed": ["east-a1"], "changed": [], "requires_restart": ["[limits]"],
        "refused": [{"policy": "call/routing", "reason": "a trap"}],
        "warnings": ["[webrtc]: the certificate expired"],
    });
    assert_eq!(asking.answer(), (200, right));
    let shrinks = Shrinks { removing: 2, before: 0, of: 4 };
    for (reason, status) in [
        (NotReloaded::NodeList(shrinks.into()), 409),
        (NotReloaded::Invalid { rendered: "a line, a column".into(), first: "a line".into() }, 400),
        (NotReloaded::Untried("a panic".into()), 503),
        (NotReloaded::NoReloader, 404),
    ] {
        let asking = world.ask(reload, "");
        let ControlRequest::Reload(asked) = world.request() else { panic!("reload") };
        assert_eq!((asked.force, asked.within), (false, None));
        let said = reason.to_string();
        asked.reply.send(Err(reason)).unwrap();
        let (found, body) = asking.answer();
        assert_eq!((found, &body["error"]["message"]), (status, &json!(said)));
    }
    let (status, body) = world.ask(reload, r#"{"deadline": "60"}"#).answer();
    assert_eq!((status, &body["error"]["field"]), (400, &json!("deadline")));
}
