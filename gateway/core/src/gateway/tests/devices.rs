//! Labels of a device bound what is sent to it.

use evenkeel_model::{
    AdmitVerdict, ClientIdentity, CoreEvent, DecisionOutcome, DegradationAction, DegradeOnFault,
    GuardRule, Hook, HookAnswer, IngressProtocol, Measures, MediaLimits, Metric, Op, PluginFault,
    PolicyQuestion, SessionId, StreamKind,
};

use super::super::GatewayEffect;
use super::*;

const VIDEO: u8 = 96;

/// Opens a session with voice and video. The codec of all payload types is `x`.
fn open(world: &mut World, labels: &[(&str, &str)], port: u16) -> SessionId {
    let labels: Vec<_> = labels.iter().map(|&(key, value)| (key.into(), value.into())).collect();
    world.labels = labels.into();
    let address = ([127, 0, 0, 1], port).into();
    let ingress = IngressProtocol::Udp(ClientIdentity::Declared { address, rtcp: None });
    let streams = [(StreamKind::Audio, 111, None), (StreamKind::Video, VIDEO, None)];
    let offer = world.offer_with("r", "call", &streams, ingress);
    world.accepted(offer).session
}

fn degrade(world: &mut World, op: Op, arg: u64) {
    let action = DegradationAction { row: 0, op: op as u32, arg, reason: 0 };
    let actions = vec![action];
    let mut answer = Some(HookAnswer::Actions { actions, states: Vec::new(), memo: None });
    world.answer_with(move |_| answer.take().map(Ok));
    world.pass(ms(200));
}

/// The session's limits that workers follow.
fn sent(world: &World, session: SessionId) -> MediaLimits {
    let told = |output: &GatewayEffect| match output {
        GatewayEffect::Install(installed, _) if installed.session == session => {
            Some(installed.limits)
        }
        GatewayEffect::Plan { session: of, limits, .. } if *of == session => Some(*limits),
        _ => None,
    };
    world.outputs.iter().filter_map(told).next_back().unwrap()
}

#[test]
fn cap_above_device_is_refused_and_counted() {
    for (cap, refused) in [(1_000, false), (1_001, true), (2_000, true)] {
        let mut world = World::with_policy(settings(), &[Hook::Degradation], |_| None);
        let session = open(&mut world, &[("max-height", "360")], 1);
        degrade(&mut world, Op::Cap, cap);
        assert_eq!(world.cap(session), if refused { 0 } else { cap as u32 });
        assert_eq!(world.guards(), vec![GuardRule::AboveDevice; usize::from(refused)], "{cap}");
    }
}

#[test]
fn admission_cap_above_device_is_refused() {
    for (cap, outcome) in [
        (500, DecisionOutcome::Applied { differs: true }),
        (501, DecisionOutcome::Guarded(GuardRule::AboveDevice)),
    ] {
        let mut world = World::with_policy(settings(), &[Hook::Admission], move |_| {
            let verdict = AdmitVerdict::AcceptCapped(cap);
            Some(Ok(HookAnswer::Admit { verdict, reason: 0 }))
        });
        let session = open(&mut world, &[("max-bitrate", "500")], 1);
        let decided = world.events().find_map(|event| match event {
            CoreEvent::Decided { outcome, .. } => Some(outcome.clone()),
            _ => None,
        });
        assert_eq!(decided, Some(outcome));
        assert_eq!(world.cap(session), if cap == 500 { 500 } else { 0 });
        assert_eq!({ sent(&world, session).receive_kbps }, 500, "with a cap and without one");
    }
}

#[test]
fn scenario_stays_within_device() {
    for (limit, bounds) in [("2000", (300, 1_500)), ("1499", (300, 1_499)), ("299", (299, 299))] {
        let mut world = World::with_policy(settings(), &[Hook::Scenario], |_| {
            let params = [("bitrate-floor", 300), ("bitrate-ceiling", 1_500)];
            Some(Ok(HookAnswer::Params(params.map(|(key, kbps)| (key.into(), kbps)).into())))
        });
        let session = open(&mut world, &[("max-bitrate", limit)], 1);
        let session = &world.gateway.tables.sessions[&session];
        let kept = session.bounds();
        assert_eq!((kept.floor_kbps, kept.ceiling_kbps), bounds, "{limit}");
        let measures = session.measures(world.now);
        assert_eq!(measures.measured(Metric::Ceiling), Some(bounds.1), "policies see the limit");
        assert_eq!({ session.plan_in_force().limits.ceiling_kbps }, bounds.1, "and workers");
    }
}

#[test]
fn peer_sends_within_device_without_policy() {
    let mut world = World::new(settings());
    let small = open(&mut world, &[("max-bitrate", "700")], 1);
    assert_eq!({ sent(&world, small).send_kbps }, 0, "the device may send more than it receives");
    let large = open(&mut world, &[], 2);
    assert_eq!({ sent(&world, large).send_kbps }, 700);
    assert_eq!((sent(&world, small).send_kbps, sent(&world, large).receive_kbps), (0, 0));

    // A lower cap counts; a lifted one leaves the device's limit.
    for (cap, sends) in [(600, 600), (0, 700)] {
        world.gateway.degrade(small, Op::Cap, cap);
        world.settle();
        assert_eq!({ sent(&world, large).send_kbps }, sends);
        assert_eq!({ sent(&world, small).receive_kbps }, 700);
    }

    // In a larger room the node selects; it reads the limit in the client's own feedback.
    open(&mut world, &[], 3);
    assert_eq!({ sent(&world, large).send_kbps }, 0);
    assert_eq!({ sent(&world, small).receive_kbps }, 700);
}

#[test]
fn device_survives_its_gateway() {
    let mut world = World::new(settings());
    let session = open(&mut world, &[("max-bitrate", "700"), ("codec", "y")], 1);
    world.hand_over(ms(0));
    let restored = world.outputs.iter().find_map(|output| match output {
        GatewayEffect::Restore(installed) if installed.session == session => Some(installed.limits),
        _ => None,
    });
    let limits = restored.unwrap();
    assert!(limits.withholds(VIDEO));
    assert_eq!({ limits.receive_kbps }, 700);
}

#[test]
fn undecodable_video_is_withheld() {
    for (codec, withheld) in [("x", false), ("y, X", false), ("y", true)] {
        let mut world = World::with_policy(settings(), &[Hook::Degradation], |_| None);
        let session = open(&mut world, &[("codec", codec)], 1);
        assert_eq!(sent(&world, session).withholds(VIDEO), withheld, "{codec}");
        assert!(!sent(&world, session).withholds(111));
        let measures = world.gateway.tables.sessions[&session].measures(world.now);
        assert_eq!(measures.measured(Metric::Video), Some(u32::from(!withheld)));
        assert_eq!(measures.measured(Metric::Rung), Some(0), "the device is not degraded");

        degrade(&mut world, Op::VoiceOnly, 1);
        assert!(sent(&world, session).withholds(VIDEO));
        degrade(&mut world, Op::VoiceOnly, 0);
        assert_eq!(sent(&world, session).withholds(VIDEO), withheld, "{codec}");
        assert_eq!(world.guards(), vec![GuardRule::AboveDevice; usize::from(withheld)]);
    }
}

#[test]
fn native_ladder_stays_within_device() {
    let mut settings = settings();
    for scenario in settings.scenarios.values_mut() {
        scenario.on_degradation_fault = DegradeOnFault::NativeLadder;
    }
    let mut world = World::with_policy(settings, &[Hook::Degradation], |ask| {
        let PolicyQuestion::Tick { .. } = ask.question else { return None };
        Some(Err(PluginFault::Deadline))
    });
    let session = open(&mut world, &[("max-bitrate", "700")], 1);
    let lossy = |world: &mut World, ppm| {
        let session = world.gateway.tables.sessions.get_mut(&session).unwrap();
        let mut measures = Measures::default();
        measures.set(Metric::LossDown, ppm);
        session.take_summary(measures, None);
    };
    lossy(&mut world, 100_000);
    world.pass(ms(2_600));
    assert_eq!(world.cap(session), 350, "half of what the device takes");
    lossy(&mut world, 0);
    world.pass(ms(12_000));
    assert_eq!(world.cap(session), 0, "700 is the device's limit");
    assert_eq!({ sent(&world, session).receive_kbps }, 700);
    assert!(world.guards().is_empty());
}
