//! Scenarios and policies that a reload removes.

use std::collections::BTreeMap;
use std::sync::Arc;

use evenkeel_model::{
    AdmitOnFault, Arm, Ask, CoreEvent, DegradationAction, Hook, HookAnswer, OfferRefusal, Op,
    PluginFault, PolicyName, PolicyQuestion, Scenario,
};

use super::*;

/// Replaces the scenarios by changed ones.
fn reload(world: &mut World, change: impl FnOnce(&mut BTreeMap<Arc<str>, Scenario>)) {
    let mut scenarios = world.gateway.tables.settings.scenarios.clone();
    change(&mut scenarios);
    world.gateway.handle_scenarios(&scenarios, world.now);
    world.settle();
}

fn bind(world: &mut World, hook: Hook, binds: bool) {
    reload(world, |scenarios| {
        scenarios.values_mut().for_each(|scenario| scenario.bound[hook as usize] = binds);
    });
}

fn is_unknown(world: &mut World, room: &str) -> bool {
    let offer = world.offer_as(room, "call");
    matches!(denied(world.replies.get(&offer)), Some(OfferRefusal::UnknownScenario(_)))
}

#[test]
fn removed_scenario_keeps_its_rooms_until_they_end() {
    let mut world = World::new(settings());
    let call = world.gateway.tables.settings.scenarios["call"].clone();
    let session = world.open("r");
    reload(&mut world, |scenarios| _ = scenarios.remove("call"));
    assert_eq!(world.gateway.retired_scenarios(), BTreeMap::from([("call".into(), 1)]));
    assert!(is_unknown(&mut world, "other") && is_unknown(&mut world, "r"));
    world.kill(A);
    world.pass(ms(1_000));
    assert_eq!(world.stands("r"), Some(B), "in the mode of its scenario");
    world.close(session);
    world.pass(ms(1_000));
    assert_eq!(world.gateway.retired_scenarios(), BTreeMap::new());
    assert!(!world.gateway.tables.settings.scenarios.contains_key("call"));
    assert!(is_unknown(&mut world, "r"));
    reload(&mut world, |scenarios| _ = scenarios.insert("call".into(), call));
    world.open("r");
}

#[test]
fn scenario_without_rooms_is_removed_at_once() {
    let mut world = World::new(settings());
    world.open("r");
    reload(&mut world, |scenarios| _ = scenarios.remove("stream"));
    assert_eq!(world.gateway.retired_scenarios(), BTreeMap::new());
    assert!(!world.gateway.tables.settings.scenarios.contains_key("stream"));
}

#[test]
fn scenario_that_comes_back_takes_offers() {
    let mut world = World::new(settings());
    world.open("r");
    let call = world.gateway.tables.settings.scenarios["call"].clone();
    reload(&mut world, |scenarios| _ = scenarios.remove("call"));
    reload(&mut world, |scenarios| _ = scenarios.insert("call".into(), call));
    assert_eq!(world.gateway.retired_scenarios(), BTreeMap::new());
    world.open("r");
}

#[test]
fn rooms_of_a_removed_set_are_routed_natively() {
    let mut world = World::with_policy(settings(), &[Hook::Routing], place(&[B]));
    world.open("r");
    assert_eq!(world.route("r").len(), 1);
    let asked = world.asked(Hook::Routing);
    reload(&mut world, BTreeMap::clear);
    world.pass(ms(1_000));
    assert_eq!((world.stands("r"), world.route("r").len()), (Some(B), 2), "with a spare");
    assert_eq!(world.asked(Hook::Routing), asked);
}

#[test]
fn removed_routing_policy_is_not_asked() {
    let mut world = World::with_policy(settings(), &[Hook::Routing], place(&[B]));
    world.open("r");
    let asked = world.asked(Hook::Routing);
    bind(&mut world, Hook::Routing, false);
    world.pass(ms(1_000));
    world.open("s");
    assert_eq!(world.asked(Hook::Routing), asked);
    assert_ne!(world.stands("s"), Some(B), "the room there is load");
    assert_eq!(world.route("r").len(), 2, "with a spare");
    bind(&mut world, Hook::Routing, true);
    world.open("t");
    assert!(world.asked(Hook::Routing) > asked);
    assert_eq!(world.stands("t"), Some(B));
}

#[test]
fn question_to_a_removed_policy_is_decided_natively() {
    let mut settings = settings();
    for scenario in settings.scenarios.values_mut() {
        scenario.on_admission_fault = AdmitOnFault::AdmitCapped;
    }
    let mut world = World::with_policy(settings, &[Hook::Admission], |_| None);
    let offer = world.offer("r");
    assert!(!world.replies.contains_key(&offer));
    bind(&mut world, Hook::Admission, false);
    let session = world.accepted(offer).session;
    assert_eq!(world.cap(session), 0, "not as after a fault");
}

#[test]
fn removed_policy_fails_no_more() {
    let mut world =
        World::with_policy(settings(), &[Hook::Admission], |_| Some(Err(PluginFault::Absent)));
    world.open("r");
    let faults = |world: &World| -> Vec<bool> {
        let standing = |event: &CoreEvent| match event {
            CoreEvent::Standing { fault, .. } => Some(fault.is_some()),
            _ => None,
        };
        world.events().filter_map(standing).collect()
    };
    assert_eq!(faults(&world), [true]);
    bind(&mut world, Hook::Admission, false);
    assert_eq!(faults(&world), [true, false]);
}

#[test]
fn sessions_of_a_removed_policy_get_whole_plans() {
    let caps = |ask: &Ask| {
        let PolicyQuestion::Tick { sessions, .. } = &ask.question else { return None };
        let cap = |row| DegradationAction { row, op: Op::Cap as u32, arg: 100, reason: 0 };
        let actions = (0..sessions.len() as u32).map(cap).collect();
        let memo = Some(state(b"memo"));
        Some(Ok(HookAnswer::Actions { actions, states: Vec::new(), memo }))
    };
    let mut world = World::with_policy(settings(), &[Hook::Degradation], caps);
    // More than are released at once.
    let sessions: Vec<_> = (0..300).map(|room| world.open(&format!("r{room}"))).collect();
    world.pass(ms(1_000));
    assert!(sessions.iter().all(|session| world.cap(*session) == 100));
    let policy = PolicyName { set: "call".into(), hook: Hook::Degradation };
    let memo = |world: &World| world.gateway.policies.memo(&policy, Arm::Standing);
    assert!(memo(&world).is_some());
    bind(&mut world, Hook::Degradation, false);
    world.pass(ms(1_000));
    assert!(sessions.iter().all(|session| world.cap(*session) == 0));
    assert_eq!(memo(&world), None, "a policy that is added later begins without");
    assert!(world.gateway.tables.sessions.ticked(&policy).is_none());
    world.audit();
}
