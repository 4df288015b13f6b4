//! The explanation of a session.

use std::time::Instant;

use evenkeel_core::{
    AskedRevision, CandidateReason, Explanation, MoveRecord, NodeCandidate, RoomDecisions,
    RoomExplanation, RoomStanding, SessionStanding, SubjectDecision, SubjectQuarantine,
};
use evenkeel_model::{
    Advice, AdviceKind, Arm, ClientTransport, DecisionOutcome, DegradationLimit, EvidenceSource,
    GuardRule, Hook, HopGrant, Impossible, Measures, MoveCause, MoveOutcome, PathSegment, Plan,
    PluginFault, RedundancyMode,
};

use super::*;

/// A session in a hitless room; the second node is full.
pub(super) fn explanation(id: SessionId) -> Explanation {
    let hop = |node| Hop { node: NodeId(node), incarnation: Incarnation(1) };
    let now = Instant::now();
    let standing = SessionStanding {
        session: id,
        room: "room-1".into(),
        scenario: "call".into(),
        labels: [("participant".into(), "anna".into())].into(),
        mode: RedundancyMode::Hitless,
        kept: RedundancyMode::Cold,
        transport: ClientTransport::Udp,
        hop: Some(hop(0)),
        plan: Plan::default().capped(44),
        measures: Measures::default(),
        impairment: Some(events::impairment()),
        advice: Some(Advice { kind: AdviceKind::SwitchNetwork, cause: PathSegment::Uplink }),
        policing: Some(events::policing()),
        mean_r_centi: Some(6_200),
        age: Duration::from_secs(3),
    };
    let step = MoveRecord {
        cause: MoveCause::Drain,
        by: Arc::new(Decider::Operator),
        from: hop(1),
        to: Some(hop(0)),
        started: now,
        ended: now + Duration::from_millis(12),
        outcome: MoveOutcome::Done,
    };
    Explanation {
        state: standing,
        admitted_by: Decider::Native,
        share_permille: 500,
        degradation_limits: vec![DegradationLimit::NoVideo],
        voice_only_for: Some(carrier()),
        room: decisions(step),
    }
}

fn decisions(step: MoveRecord) -> RoomDecisions {
    let hop = |node| Hop { node: NodeId(node), incarnation: Incarnation(1) };
    let answer = |hook, reason: Option<&str>, outcome, since| SubjectDecision {
        hook,
        by: Decider::Native,
        reason: reason.map(Into::into),
        outcome,
        since: Duration::from_secs(since),
        notes: [].into(),
    };
    let guarded = DecisionOutcome::Guarded(GuardRule::ArgumentOutOfBounds);
    RoomDecisions {
        placed_by: Decider::Policy { policy: routing(), revision: "5f0c5f0c5f0c".into() },
        priority: 5,
        route: vec![(hop(0), HopGrant::Admitted), (hop(1), HopGrant::Gated)],
        witnesses: vec![(EvidenceSource::Probe, Duration::from_millis(40))],
        heading: None,
        candidates: [CandidateReason::Full, CandidateReason::NotChosen]
            .map(|why| NodeCandidate {
                hop: hop(1),
                why,
                load_permille: 990,
                carried_permille: 400,
            })
            .into(),
        moves: vec![step],
        answers: vec![
            answer(Hook::Admission, None, DecisionOutcome::Faulted(PluginFault::Late), 4),
            answer(Hook::Routing, Some("nearest"), DecisionOutcome::Applied { differs: false }, 3),
            SubjectDecision {
                notes: [("loss_ppm".into(), 40_000)].into(),
                ..answer(Hook::Degradation, Some("lossy"), guarded, 2)
            },
        ],
        quarantines: vec![SubjectQuarantine {
            policy: routing(),
            revision: "5f0c5f0c5f0c".into(),
            fault: PluginFault::Trap("unreachable".into()),
            since: Duration::from_secs(7),
        }],
        asked: vec![AskedRevision {
            policy: routing(),
            arm: Arm::Canary,
            revision: Some("5f0c5f0c5f0c".into()),
            sessions: 2,
        }],
    }
}

/// The body of the answer to a question about a session with this change.
fn explained(world: &mut World, change: impl FnOnce(&mut Explanation)) -> Value {
    let asking = world.ask("GET /v1/sessions/s17/explain", "");
    let ControlRequest::Explain(id, reply) = world.request() else { panic!("explain") };
    let mut said = explanation(id);
    change(&mut said);
    reply.send(Some(said)).unwrap();
    let ControlRequest::Nodes(reply) = world.request() else { panic!("nodes") };
    reply.send(Vec::new()).unwrap();
    let ControlRequest::Session(_, reply) = world.request() else { panic!("session") };
    reply.send(Some(views::session(17))).unwrap();
    let (status, body) = asking.answer();
    assert_eq!(status, 200);
    body
}

fn asked() -> Value {
    json!({"policy": "call/routing", "arm": "canary", "revision": "5f0c5f0c5f0c", "sessions": 2})
}

#[test]
fn room_is_explained_with_revision_and_arm() {
    let mut world = World::start();
    let ask = |world: &mut World, room: Option<RoomStanding>| {
        let asking = world.ask("GET /v1/rooms/team%207/explain", "");
        let ControlRequest::ExplainRoom(name, reply) = world.request() else { panic!("explain") };
        assert_eq!(&*name, "team 7");
        let decisions = explanation(SessionId(17)).room;
        let is_there = room.is_some();
        reply.send(room.map(|state| RoomExplanation { state, decisions })).unwrap();
        if is_there {
            let ControlRequest::Nodes(reply) = world.request() else { panic!("nodes") };
            reply.send(Vec::new()).unwrap();
        }
        asking.answer()
    };
    let state = RoomStanding {
        room: RoomId(4),
        name: "team 7".into(),
        scenario: "call".into(),
        mode: RedundancyMode::Hitless,
        kept: RedundancyMode::Cold,
        sessions: vec![SessionId(17), SessionId(18)],
        route: vec![hop(0), hop(1)],
        hop: Some(hop(0)),
        placed_by: Decider::Policy { policy: routing(), revision: "5f0c5f0c5f0c".into() },
    };
    let (status, body) = ask(&mut world, Some(state));
    let by = "call/routing@5f0c5f0c5f0c";
    assert_eq!((status, &body["room"], &body["id"]), (200, &json!("team 7"), &json!("r4")));
    assert_eq!((&body["placed_by"], &body["asked"]), (&json!(by), &json!([asked()])));
    assert_eq!(
        (&body["sessions"], &body["hop"]["node"]),
        (&json!(["s17", "s18"]), &json!("east-a1"))
    );
    assert_eq!(
        body["mode_reason"],
        json!(format!("the standby that {by} names has too little capacity"))
    );
    assert_eq!(
        (&body["moves"][0]["cause"], &body["candidates"][0]["reason"]),
        (&json!("drain"), &json!("full"))
    );
    let (status, body) = ask(&mut world, None);
    assert_eq!((status, &body["error"]["message"]), (404, &json!("there is no such room: team 7")));
}

#[test]
fn session_is_explained() {
    let mut body = explained(&mut World::start(), |_| {});
    assert!(body["moves"][0]["ago_ms"].is_u64());
    body["moves"][0]["ago_ms"] = json!(0);
    let place = |node, region, zone| json!({"node": node, "region": region, "zone": zone});
    let merge = |mut one: Value, other: Value| {
        one.as_object_mut().unwrap().extend(other.as_object().unwrap().clone());
        one
    };
    let east = merge(place("east-a1", "east", "a"), json!({"incarnation": 1}));
    let place_west = merge(place("west-b1", "west", "b"), json!({"carrier": "cn"}));
    let candidate = |reason: Value| {
        let load = json!({"load_permille": 990, "carried_permille": 400});
        merge(merge(place_west.clone(), load), reason)
    };
    let west = merge(place_west.clone(), json!({"incarnation": 1}));
    let right = json!({
        "id": "s17", "room": "room-1", "scenario": "call", "mode": "hitless", "effective_mode": "cold",
        "mode_reason": "the standby that call/routing@5f0c5f0c5f0c names has too little capacity",
        "priority": 5, "hop": east,
        "health": null, "witnesses": [{"witness": "probe", "for_ms": 40}],
        "decided_by": {"admission": "native", "routing": "call/routing@5f0c5f0c5f0c"},
        "route": [
            merge(east.clone(), json!({"grant": "admitted"})),
            merge(west, json!({"grant": "gated"})),
        ],
        "rung": 1, "cap_kbps": 44, "actions": {"cap": 44}, "measures": {}, "degradation_limits": ["no-video"], "share_permille": 500,
        "voice_only_for": {"label": "carrier", "value": "ct"},
        "impairment": events::impairment_json(),
        "advice": {"advice": "switch-network", "cause": "uplink"},
        "policing": {"step": "frames", "limit_kbps": 2_000, "sent_kbps": 3_100},
        "candidates": [
            candidate(json!({"reason": "full"})),
            candidate(json!({"reason": "not-chosen", "policy_reason": "nearest"})),
        ],
        "moves": [{
            "cause": "drain", "by": "operator", "from": "west-b1", "to": "east-a1", "ago_ms": 0,
            "took_ms": 12, "outcome": "completed",
        }],
        "policy_answers": [{
            "hook": "admission", "by": "native", "reason": null, "outcome": "faulted",
            "guard": null, "fault": "late", "ago_ms": 4_000, "notes": [],
        }, {
            "hook": "routing", "by": "native", "reason": "nearest", "outcome": "applied",
            "guard": null, "fault": null, "ago_ms": 3_000, "notes": [],
        }, {
            "hook": "degradation", "by": "native", "reason": "lossy", "outcome": "guarded",
            "guard": "argument-out-of-bounds", "fault": null, "ago_ms": 2_000,
            "notes": [{"key": "loss_ppm", "value": 40_000}],
        }],
        "asked": [asked()],
        "quarantined": [{
            "by": "call/routing@5f0c5f0c5f0c", "fault": "trap: unreachable", "for_ms": 7_000,
        }],
        "trace_id": "ab".repeat(16),
    });
    assert_eq!(body, right);
}

#[test]
fn reason_of_the_mode_names_the_policy() {
    let mut world = World::start();
    let policy = || Decider::Policy { policy: routing(), revision: "5f0c5f0c5f0c".into() };
    let (native, none) = (Decider::Native, "no usable standby with capacity");
    let unnamed = "call/routing@5f0c5f0c5f0c names no usable standby";
    for (placed_by, hops, kept, right) in [
        (policy(), 1, RedundancyMode::Cold, json!(unnamed)),
        (native.clone(), 1, RedundancyMode::Cold, json!(none)),
        (native, 2, RedundancyMode::Cold, json!(none)),
        (policy(), 2, RedundancyMode::Hitless, Value::Null),
    ] {
        let body = explained(&mut world, |said| {
            said.room.route.truncate(hops);
            said.state.kept = kept;
            said.room.placed_by = placed_by;
        });
        assert_eq!(body["mode_reason"], right);
    }
}

#[test]
fn reason_of_a_guarded_decision_explains_no_node() {
    let mut world = World::start();
    let body = explained(&mut world, |said| {
        said.room.answers[1].outcome = DecisionOutcome::Guarded(GuardRule::UnusableNode);
    });
    let other = &body["candidates"][1];
    assert_eq!((&other["reason"], &other["policy_reason"]), (&json!("not-chosen"), &Value::Null));
}

#[test]
fn session_of_another_group_is_named_as_such() {
    let mut world = World::start();
    let own = SessionId::first_of_group(u64::MAX);
    world.handle.traces.set_group(own);
    let other = SessionId::first_of_group(1 << 40);
    let mut says = |id: SessionId| {
        let asking = world.ask(&format!("DELETE /v1/sessions/{id}"), "");
        let ControlRequest::Close(session, reply) = world.request() else { panic!("close") };
        assert_eq!(session, id);
        reply.send(Err(ControlError::Impossible(Impossible::NoSuchSession))).unwrap();
        let (status, body) = asking.answer();
        assert_eq!(status, 404);
        body["error"]["message"].as_str().unwrap().to_owned()
    };
    assert_eq!(says(own), format!("there is no such session: {own}"));
    let message = says(other);
    let begin = own.to_string();
    let begin = begin.strip_suffix('1').unwrap();
    assert!(message.ends_with(&format!("ids of this group begin with `{begin}`")), "{message}");
}
