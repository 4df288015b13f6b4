//! A policy that fails over one session, or does not start again, costs nobody else anything, and says so.

use std::sync::Arc;

use evenkeel_core::{Event, Hook, PolicyName};
use evenkeel_server::control::{
    Actor, NodeList, Opened, PolicyView, RolloutOutcome, SessionView, Wish,
};

use crate::harness::{
    Fails, Gateway, Manner, Node, Phone, World, declared, offer, plugin, thrifty, wait_until,
};

fn policy(hook: Hook) -> PolicyName {
    PolicyName { set: "call".into(), hook }
}

fn view(gateway: &Gateway, hook: Hook) -> PolicyView {
    let views = gateway.ask(gateway.handle.policies()).unwrap();
    views.into_iter().find(|view| view.policy == policy(hook)).unwrap()
}

fn rungs(gateway: &Gateway, sessions: &[Opened]) -> Vec<u8> {
    let all: Vec<SessionView> = gateway.ask(gateway.handle.sessions()).unwrap();
    let rung = |opened: &Opened| all.iter().find(|view| view.session == opened.session);
    sessions.iter().filter_map(|opened| Some(rung(opened)?.rung)).collect()
}

#[test]
fn a_session_over_which_its_policy_traps_is_left_out_and_explained_and_the_others_are_decided() {
    let node = Node::agent("east-a1");
    let mut world = World::of(&[&node]);
    world.hooks = "[degradation]\nplugin = \"degrade-ladder\"\n".into();
    let gateway = world.start();
    let push = gateway.handle.push_policy(policy(Hook::Degradation), thrifty(Fails::Over(2)), None);
    let pushed = gateway.ask(push).unwrap();
    assert_eq!(pushed.outcome, RolloutOutcome::Activated, "{pushed:?}");
    let revision = pushed.revision.unwrap();

    let sessions: Vec<Opened> = (1..=3)
        .map(|number| {
            let phone = Phone::new(number);
            gateway.open(offer(&format!("room-{number}"), declared(&phone)))
        })
        .collect();
    assert_eq!(sessions[1].session.0, 2);
    wait_until("the others are capped", || rungs(&gateway, &sessions) == [1, 0, 1]);

    let told = gateway.expect_event("that it is left out is told", |event| match event {
        Event::Quarantined { session, fault, .. } => Some((*session, fault.to_string())),
        _ => None,
    });
    assert_eq!(told.0, Some(sessions[1].session));
    assert!(told.1.starts_with("trap: wasm trap"), "{}", told.1);
    let explained =
        |opened: &Opened| gateway.ask(gateway.handle.explain(opened.session)).unwrap().unwrap();
    let left_out = explained(&sessions[1]);
    assert!(left_out.said.is_empty());
    let [quarantine] = &left_out.quarantines[..] else { panic!("{left_out:?}") };
    assert_eq!((&quarantine.policy.hook, &quarantine.revision), (&Hook::Degradation, &revision));
    assert!(quarantine.fault.to_string().contains("unreachable"), "{quarantine:?}");
    for opened in [&sessions[0], &sessions[2]] {
        let explained = explained(opened);
        assert!(explained.quarantines.is_empty());
        let [said] = &explained.said[..] else { panic!("{explained:?}") };
        assert_eq!(said.by.to_string(), format!("call/degradation@{revision}"));
        assert_eq!(&*said.notes[0].0, "sessions");
    }

    let view = view(&gateway, Hook::Degradation);
    assert_eq!((view.revision, view.quarantined), (Some(revision), 1));
    assert_eq!(view.failing, None, "it answers");
    let faults = view.faults;
    assert!((1..=5).contains(&faults), "once it is left out nothing fails any more: {faults}");
}

/// A plugin comes in like this, and does not start again from then on; until it goes. Its gateway, and what was in force before.
fn does_not_start_again(wish: Wish, nodes: &[Node; 2]) -> (Gateway, Option<Arc<str>>) {
    let all = World::of(&nodes.each_ref()).listed();
    let gateway = World::of(&[&nodes[0]]).routed().start();
    let shipped = view(&gateway, Hook::Routing).revision;
    // A region, a zone, a node, and where we are: with one node more it does not start.
    let bytes = plugin(Manner::StartsWithin(0, 4));
    let pushing = gateway.handle.push_policy_as(policy(Hook::Routing), bytes, None, wish);
    let pushed = gateway.ask(pushing).unwrap();
    assert_ne!(pushed.outcome, RolloutOutcome::Refused, "{pushed:?}");

    let list = NodeList { nodes: all, force: false, within: None, by: Actor::File };
    gateway.ask(gateway.handle.list_nodes(list)).unwrap().unwrap();
    let phone = Phone::new(1);
    wait_until("it goes", || {
        // Each time it is asked for a place, and the native default stands in where nobody answers.
        let opened = gateway.open(offer("room", declared(&phone)));
        gateway.ask(gateway.handle.close(opened.session)).unwrap();
        let last = view(&gateway, Hook::Routing).life.last;
        last.is_some_and(|last| last.rollout.outcome == RolloutOutcome::RolledBack)
    });
    let last = view(&gateway, Hook::Routing).life.last.unwrap();
    let reason = last.rollout.reason.unwrap();
    assert!(reason.contains("could not be started again"), "{reason}");
    (gateway, shipped)
}

#[test]
fn a_policy_that_does_not_start_again_three_times_gives_way_to_the_last_good_one() {
    let nodes = ["east-a1", "east-b1"].map(Node::agent);
    let (gateway, shipped) = does_not_start_again(Wish::default(), &nodes);
    let view = view(&gateway, Hook::Routing);
    assert_eq!(view.revision, shipped);
    assert!(view.faults <= 5, "it was not asked while it was down");
}

#[test]
fn a_candidate_that_does_not_start_again_does_not_stay_in_shadow() {
    let nodes = ["east-a1", "east-b1"].map(Node::agent);
    let wish = Wish { shadow: true, ..Wish::default() };
    let (gateway, shipped) = does_not_start_again(wish, &nodes);
    let view = view(&gateway, Hook::Routing);
    assert_eq!((view.revision, view.life.tried), (shipped, None));
}
