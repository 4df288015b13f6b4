use std::sync::Arc;

use evenkeel_model::{
    ClientIdentity, CoreEvent, DegradationAction, FeedbackSupport, GuardRule, Hook, HookAnswer,
    IngressProtocol, Measures, Metric, Op, Plan, PluginFault, PluginState, PolicyQuestion,
    SessionId, Srtp, StreamKind,
};

use super::super::GatewayEffect;
use super::revising::{alone, tried, turn};
use super::*;

fn video(world: &mut World, port: u16) -> SessionId {
    let address = ([127, 0, 0, 1], port).into();
    let ingress = IngressProtocol::Udp(ClientIdentity::Declared { address, rtcp: None });
    let streams = [(StreamKind::Audio, 111, None), (StreamKind::Video, 96, None)];
    let offer = world.offer_with("r", "call", &streams, ingress);
    world.accepted(offer).session
}

fn act(row: u32, op: u32, arg: u64) -> DegradationAction {
    DegradationAction { row, op, arg, reason: 0 }
}

/// The policy gives this answer at the next tick, and none after it.
fn tick(world: &mut World, actions: Vec<DegradationAction>, states: Vec<(u32, PluginState)>) {
    let mut answer = Some(HookAnswer::Actions { actions, states, memo: Some(state(b"memo")) });
    world.answer_with(move |_| answer.take().map(Ok));
    world.pass(ms(200));
}

fn world() -> World {
    World::with_policy(settings(), &[Hook::Degradation], |_| None)
}

fn plan(world: &World, session: SessionId) -> Plan {
    world.gateway.tables.sessions[&session].plan()
}

#[test]
fn all_sessions_are_asked_each_tick() {
    let mut world = world();
    let sessions = [video(&mut world, 1), video(&mut world, 2)];
    world.pass(ms(200));
    let PolicyQuestion::Tick { sessions: rows, memo } = &world.held[0].question else { panic!() };
    assert_eq!(rows.iter().map(|row| SessionId(row.row.id)).collect::<Vec<_>>(), sessions);
    assert_eq!(*memo, None);
    world.pass(ms(200));
    assert_eq!(world.held.len(), 2);
}

/// The sessions that ticks were about since the last call, one for each tick.
fn take_ticked(world: &mut World) -> Vec<SessionId> {
    let outputs = std::mem::take(&mut world.outputs);
    let rows = outputs.iter().filter_map(|output| match output {
        GatewayEffect::Ask(ask) => match &ask.question {
            PolicyQuestion::Tick { sessions, .. } => Some(sessions),
            _ => None,
        },
        _ => None,
    });
    rows.flatten().map(|session| SessionId(session.row.id)).collect()
}

#[test]
fn many_idle_sessions_are_asked_about_in_turns() {
    const SESSIONS: usize = 600;
    let mut world = World::with_policy(settings(), &[Hook::Degradation], place(&[A]));
    turn(&mut world, Hook::Degradation, alone());
    let sessions: Vec<_> = (0..SESSIONS).map(|room| world.open(&room.to_string())).collect();
    let last = sessions[SESSIONS - 1];
    // Three ticks end a round of the resting sessions.
    let round = |world: &mut World| {
        world.pass(ms(600));
        let ticked = take_ticked(world);
        let of_last = ticked.iter().filter(|session| **session == last).count();
        (ticked.len(), of_last)
    };
    world.pass(ms(200));
    assert_eq!(take_ticked(&mut world), sessions);
    assert_eq!(round(&mut world), (SESSIONS, 1));
    let measures = *Measures::default().set(Metric::LossUp, 10_000);
    world.gateway.handle_summary(last, measures, Some(world.now));
    assert_eq!(round(&mut world), (SESSIONS - 1 + 3, 3), "it is measured");
    world.gateway.handle_summary(last, Measures::default(), Some(world.now));
    // The tick that finds it idle again is beside the turns.
    assert_eq!(round(&mut world), (SESSIONS - 1 + 1 + 1, 2));
    world.gateway.degrade(last, Op::Cap, 100);
    world.pass(ms(200));
    assert!(take_ticked(&mut world).contains(&last), "it has another plan");
    turn(&mut world, Hook::Degradation, tried(10));
    world.pass(ms(200));
    take_ticked(&mut world);
    world.pass(ms(600));
    assert_eq!(take_ticked(&mut world).len(), 3 * SESSIONS, "a canary is judged by all");
}

#[test]
fn idle_sessions_are_ticked_while_their_policy_writes() {
    let ticked = |states: Vec<(u32, PluginState)>, memo: Option<PluginState>| {
        let mut world = World::with_policy(settings(), &[Hook::Degradation], move |_| {
            let (states, memo) = (states.clone(), memo.clone());
            Some(Ok(HookAnswer::Actions { actions: Vec::new(), states, memo }))
        });
        (0..600).for_each(|room| _ = world.open(&room.to_string()));
        world.pass(ms(400));
        take_ticked(&mut world);
        world.pass(ms(200));
        take_ticked(&mut world).len()
    };
    assert_eq!(ticked(Vec::new(), None), 256);
    assert_eq!(ticked(Vec::new(), Some(state(b"m"))), 600, "other memos give other answers");
    let first = (0..300).map(|row| (row, state(b"s"))).collect();
    assert_eq!(ticked(first, None), 300 + 44, "the end of a round of the resting sessions");
}

#[test]
fn policy_is_asked_about_its_live_sessions() {
    let mut settings = settings();
    settings.scenarios.get_mut("stream").unwrap().set = "live".into();
    let mut world = World::with_policy(settings, &[Hook::Degradation], |_| None);
    let ours = [video(&mut world, 1), video(&mut world, 2)];
    let address = ([127, 0, 0, 1], 3).into();
    let ingress = IngressProtocol::Udp(ClientIdentity::Declared { address, rtcp: None });
    let offer = world.offer_with("s", "stream", &[(StreamKind::Audio, 111, None)], ingress);
    let other = world.accepted(offer).session;
    let asked = |world: &mut World| {
        world.held.clear();
        world.pass(ms(200));
        let rows = |ask: &evenkeel_model::Ask| match &ask.question {
            PolicyQuestion::Tick { sessions, .. } => {
                (ask.policy.set.to_string(), sessions.iter().map(|row| row.row.id).collect())
            }
            question => panic!("{question:?}"),
        };
        let mut asked: Vec<(String, Vec<u64>)> = world.held.iter().map(rows).collect();
        asked.sort();
        asked
    };
    let call = |sessions: &[SessionId]| ("call".into(), sessions.iter().map(|id| id.0).collect());
    let live = |session: SessionId| ("live".into(), vec![session.0]);
    assert_eq!(asked(&mut world), [call(&ours), live(other)]);
    world.close(ours[0]);
    world.close(other);
    assert_eq!(asked(&mut world), [call(&ours[1..])], "nobody is left of the other set");
}

#[test]
fn failing_policy_changes_no_quality() {
    let mut world = world();
    let session = video(&mut world, 1);
    tick(&mut world, vec![act(0, Op::Cap as u32, 100)], Vec::new());
    let before = plan(&world, session);
    assert_eq!(before.cap_kbps(), 100);
    for fault in [PluginFault::Deadline, PluginFault::Trap("x".into()), PluginFault::OutOfMemory] {
        world.answer_with(move |_| Some(Err(fault.clone())));
        world.pass(ms(200));
        assert_eq!(plan(&world, session), before);
    }
    world.answer_with(|_| None);
    world.pass(ms(400));
    assert_eq!(plan(&world, session), before, "nor one that does not answer");
}

#[test]
fn video_resume_requests_key_frames() {
    let mut world = world();
    let [session, other] = [video(&mut world, 1), video(&mut world, 2)];
    tick(&mut world, vec![act(0, Op::VoiceOnly as u32, 1)], Vec::new());
    let limits = |session| world.gateway.tables.sessions[&session].plan_in_force().limits;
    assert!(limits(session).withholds(96) && !limits(session).withholds(111));
    assert!(!limits(other).withholds(96));
    let keys = |world: &World| {
        let keys = |o: &GatewayEffect| match o {
            GatewayEffect::KeyFrame(sessions) => Some(sessions.clone()),
            _ => None,
        };
        world.outputs.iter().filter_map(keys).collect::<Vec<_>>()
    };
    assert!(keys(&world).is_empty());
    tick(&mut world, vec![act(0, Op::VoiceOnly as u32, 0)], Vec::new());
    assert_eq!(keys(&world), [vec![other]]);
}

#[test]
fn cap_in_pair_is_lifted_by_third_listener() {
    let mut world = world();
    let [capped, other] = [video(&mut world, 1), video(&mut world, 1)];
    let cap = |world: &World, session| {
        world.gateway.tables.sessions[&session].plan_in_force().limits.send_kbps
    };
    tick(&mut world, vec![act(0, Op::Cap as u32, 100)], Vec::new());
    assert_eq!([cap(&world, capped), cap(&world, other)], [100, 100]);
    assert_eq!(plan(&world, other).rung(), 0, "it is not the one that is degraded");
    let third = video(&mut world, 1);
    assert_eq!([cap(&world, capped), cap(&world, other), cap(&world, third)], [100, 0, 0]);
    let now = world.now;
    world.gateway.handle_close(third, now).unwrap();
    world.pass(ms(1));
    assert_eq!(cap(&world, other), 100);
    tick(&mut world, vec![act(0, Op::Cap as u32, 0)], Vec::new());
    assert_eq!([cap(&world, capped), cap(&world, other)], [0, 0]);
}

#[test]
fn cap_of_one_direction_limits_one_sender() {
    let mut world = world();
    let [lossy, other] = [video(&mut world, 1), video(&mut world, 1)];
    let sent = |world: &World| {
        [lossy, other].map(|id| world.gateway.tables.sessions[&id].plan_in_force().limits.send_kbps)
    };
    tick(&mut world, vec![act(0, Op::CapUp as u32, 100)], Vec::new());
    assert_eq!(sent(&world), [100, 0], "what it sends");
    tick(
        &mut world,
        vec![act(0, Op::CapUp as u32, 0), act(0, Op::CapDown as u32, 200)],
        Vec::new(),
    );
    assert_eq!(sent(&world), [0, 200], "what it receives, the other sends");
    let limits = world.gateway.tables.sessions[&lossy].plan_in_force().limits;
    assert_eq!({ limits.receive_kbps }, 200);
    let now = world.now;
    world.gateway.handle_close(other, now).unwrap();
    world.pass(ms(1));
    assert_eq!(
        { world.gateway.tables.sessions[&lossy].plan_in_force().limits.send_kbps },
        200,
        "alone it may hear itself"
    );
}

#[test]
fn change_is_sent_once() {
    let mut world = world();
    video(&mut world, 1);
    for _ in 0..3 {
        tick(&mut world, vec![act(0, Op::Cap as u32, 100)], Vec::new());
    }
    let plans = world.outputs.iter().filter(|o| matches!(o, GatewayEffect::Plan { .. })).count();
    let told = world.events().filter(|e| matches!(e, CoreEvent::Degraded { rung: 1, .. })).count();
    assert_eq!((plans, told), (1, 1));
}

#[test]
fn repeated_changes_are_sent_once() {
    let mut world = world();
    let viewers: Vec<_> = (0..20).map(|_| video(&mut world, 1)).collect();
    let rows = || 0..viewers.len() as u32;
    let act_on_all = |ops: &[(Op, u64)]| {
        let of = |row| ops.iter().map(move |(op, arg)| act(row, *op as u32, *arg));
        rows().flat_map(of).collect::<Vec<_>>()
    };
    tick(&mut world, act_on_all(&[(Op::VoiceOnly, 1)]), Vec::new());
    world.outputs.clear();
    let back_and_forth = [(Op::VoiceOnly, 0), (Op::Cap, 100), (Op::VoiceOnly, 1), (Op::Cap, 90)];
    tick(
        &mut world,
        act_on_all(&[&back_and_forth[..], &[(Op::VoiceOnly, 0)]].concat()),
        Vec::new(),
    );
    let count = |what: fn(&GatewayEffect) -> bool| world.outputs.iter().filter(|o| what(o)).count();
    assert_eq!(count(|o| matches!(o, GatewayEffect::Plan { .. })), viewers.len());
    assert_eq!(count(|o| matches!(o, GatewayEffect::KeyFrame(_))), 1);
    assert_eq!(
        count(|o| matches!(o, GatewayEffect::Event(CoreEvent::Degraded { arg: 0 | 90, .. }))),
        40
    );
    assert_eq!(count(|o| matches!(o, GatewayEffect::Event(CoreEvent::Degraded { .. }))), 40);
    world.outputs.clear();
    let around = [(Op::VoiceOnly, 1), (Op::Cap, 100), (Op::VoiceOnly, 0), (Op::Cap, 90)];
    tick(&mut world, act_on_all(&around), Vec::new());
    let told = |o: &&GatewayEffect| {
        matches!(o, GatewayEffect::Plan { .. } | GatewayEffect::Event(CoreEvent::Degraded { .. }))
    };
    assert_eq!(world.outputs.iter().filter(told).count(), 0, "nothing is other than before");
}

#[test]
fn invalid_actions_are_dropped_rest_applied() {
    let mut world = world();
    let session = video(&mut world, 1);
    let actions = vec![
        act(1, Op::Cap as u32, 100),
        act(0, 99, 1),
        act(0, Op::Cap as u32, 23),
        act(0, Op::Cap as u32, 2_001),
        act(0, Op::VoiceOnly as u32, 2),
        act(0, Op::Cap as u32, 24),
    ];
    tick(&mut world, actions, Vec::new());
    assert_eq!(plan(&world, session).cap_kbps(), 24);
    let bounds = GuardRule::ArgumentOutOfBounds;
    let broken = [GuardRule::UnknownRow, GuardRule::UnknownAction, bounds, bounds, bounds];
    assert_eq!(world.guards(), broken);
}

#[test]
fn state_and_decision_apply_together() {
    let mut world = world();
    let [refused, taken] = [video(&mut world, 1), video(&mut world, 2)];
    let states = vec![(0, state(b"0")), (1, state(b"1")), (2, state(b"2"))];
    let actions = vec![act(0, Op::Cap as u32, 1), act(1, Op::Cap as u32, 100)];
    tick(&mut world, actions, states);
    let memory = |id: SessionId| world.gateway.tables.sessions[&id].memory().read(None).cloned();
    assert_eq!((memory(refused), memory(taken)), (None, Some(Arc::new(state(b"1")))));
    world.answer_with(|_| None);
    world.pass(ms(200));
    let PolicyQuestion::Tick { sessions, memo } = &world.held.last().unwrap().question else {
        panic!()
    };
    assert_eq!((&sessions[0].state, &sessions[1].state), (&None, &Some(state(b"1"))));
    assert_eq!(*memo, Some(state(b"memo")));
}

#[test]
fn unsupported_cap_is_refused_and_visible() {
    let none = FeedbackSupport::default();
    let remb = FeedbackSupport { remb: true, ..none };
    let tmmbr = FeedbackSupport { tmmbr: true, ..none };
    for (srtp, feedback, capped) in [
        (Srtp::Plain, [remb, none], [100, 100]),
        (Srtp::Plain, [none, tmmbr], [100, 100]),
        (Srtp::Plain, [none, none], [0, 0]),
        (Srtp::Opaque, [remb, tmmbr], [0, 0]),
    ] {
        let mut world = world();
        let sessions = [video(&mut world, 1), video(&mut world, 2)];
        for (id, feedback) in sessions.into_iter().zip(feedback) {
            let session = world.gateway.tables.sessions.get_mut(&id).unwrap();
            let media = session.media_mut();
            media.srtp = srtp;
            media.streams.iter_mut().for_each(|stream| stream.feedback = feedback);
        }
        let actions = (0..2).map(|row| act(row, Op::Cap as u32, 100)).collect();
        tick(&mut world, actions, Vec::new());
        let refused = usize::from(capped == [0, 0]) * 2;
        assert_eq!(sessions.map(|id| plan(&world, id).cap_kbps()), capped);
        assert_eq!(world.guards(), vec![GuardRule::CapUnsupported; refused]);
        world.pass(ms(200));
        let PolicyQuestion::Tick { sessions: rows, .. } = &world.held[0].question else { panic!() };
        let floor = if refused > 0 { 2_000 } else { 24 };
        assert!(rows.iter().all(|row| row.row.measures.measured(Metric::Floor) == Some(floor)));
    }
}

#[test]
fn cap_on_what_a_deaf_client_sends_is_no_rung() {
    for (other_takes_caps, guards) in [(true, vec![]), (false, vec![GuardRule::CapUnsupported])] {
        let mut world = world();
        world.takes_remb = false;
        let deaf = video(&mut world, 1);
        world.takes_remb = other_takes_caps;
        video(&mut world, 2);
        tick(&mut world, vec![act(0, Op::CapUp as u32, 100)], Vec::new());
        assert_eq!(world.guards(), guards);
        assert_eq!(plan(&world, deaf).rung(), 0);
    }
}

#[test]
fn session_that_joins_after_the_question_blames_none() {
    let mut world = world();
    world.takes_remb = false;
    let first = video(&mut world, 1);
    world.takes_remb = true;
    video(&mut world, 2);
    world.pass(ms(200));
    let asked = std::mem::take(&mut world.held);
    // Senders in a room of three are not limited for one listener.
    video(&mut world, 3);
    let actions = vec![act(0, Op::Cap as u32, 100)];
    let answer = HookAnswer::Actions { actions, states: Vec::new(), memo: None };
    world.answer(&asked[0], Ok(answer));
    world.settle();
    assert_eq!((plan(&world, first).cap_kbps(), world.guards()), (0, vec![GuardRule::Outdated]));
}

#[test]
fn explanation_names_the_limits_of_degradation() {
    let limits = |world: &World, id| {
        let explained = world.gateway.views().explain(id, world.now).unwrap();
        explained.degradation_limits.iter().map(|limit| limit.name()).collect::<Vec<_>>()
    };
    let mut world = World::with_policy(settings(), &[Hook::Degradation], |_| None);
    world.takes_remb = false;
    let deaf = world.open("deaf");
    assert_eq!(limits(&world, deaf), ["cap-unsupported", "no-video"]);
    world.takes_remb = true;
    let voice = world.open("voice");
    assert_eq!(limits(&world, voice), ["no-video"]);
    let both = video(&mut world, 3);
    assert!(limits(&world, both).is_empty());
    let mut world = World::new(settings());
    let id = world.open("room");
    assert_eq!(limits(&world, id), ["no-policy"]);
}
