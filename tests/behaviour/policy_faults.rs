//! A policy that faults on one session, or does not restart, leaves other sessions unaffected and is reported.

use std::sync::Arc;

use evenkeel_control::{NodeList, PushRequest, SessionAnswer, SessionView};
use evenkeel_model::{CoreEvent, Hook, PolicyName, SessionId};
use evenkeel_policies::PolicyView;
use evenkeel_revisions::{Actor, RolloutOutcome};

use crate::harness::{
    Behaviour, Fault, Gateway, Node, Phone, World, capping_plugin, declared, offer, routing_plugin,
    wait_until,
};

fn policy(hook: Hook) -> PolicyName {
    PolicyName { set: "call".into(), hook }
}

fn view(gateway: &Gateway, hook: Hook) -> PolicyView {
    let views = gateway.ask(gateway.handle.policies()).unwrap();
    views.into_iter().find(|view| view.policy == policy(hook)).unwrap()
}

fn rungs(gateway: &Gateway, sessions: &[SessionAnswer]) -> Vec<u8> {
    let all: Vec<SessionView> = gateway.ask(gateway.handle.sessions()).unwrap();
    let rung =
        |opened: &SessionAnswer| all.iter().find(|view| view.state.session == opened.session);
    sessions.iter().filter_map(|opened| Some(rung(opened)?.state.plan.rung())).collect()
}

#[test]
fn trapping_session_is_quarantined_and_explained() {
    let node = Node::agent("east-a1");
    let mut world = World::of(&[&node]);
    world.hooks = "[degradation]\nplugin = \"degrade-ladder\"\n".into();
    let gateway = world.start();
    // Ids of sessions are drawn at the start.
    let phone = Phone::new(4);
    let SessionId(first) = gateway.open(offer("room-0", declared(&phone))).session;
    let push = gateway.handle.push_policy(
        policy(Hook::Degradation),
        capping_plugin(Fault::TrapsOnSession(first + 2)),
        None,
        PushRequest::default(),
    );
    let pushed = gateway.ask(push).unwrap();
    assert_eq!(pushed.outcome, RolloutOutcome::Activated, "{pushed:?}");
    let revision = pushed.revision.unwrap();

    let sessions: Vec<SessionAnswer> = (1..=3)
        .map(|number| {
            let phone = Phone::new(number);
            gateway.open(offer(&format!("room-{number}"), declared(&phone)))
        })
        .collect();
    assert_eq!(sessions[1].session.0, first + 2);
    wait_until("the others are capped", || rungs(&gateway, &sessions) == [1, 0, 1]);

    let told = gateway.expect_event("the quarantine event", |event| match event {
        CoreEvent::Quarantined { session, fault, .. } => Some((*session, fault.to_string())),
        _ => None,
    });
    assert_eq!(told.0, Some(sessions[1].session));
    assert!(told.1.starts_with("trap: wasm trap"), "{}", told.1);
    let explained = |opened: &SessionAnswer| {
        gateway.ask(gateway.handle.explain(opened.session)).unwrap().unwrap()
    };
    let quarantined = explained(&sessions[1]);
    assert!(quarantined.room.answers.is_empty());
    let [quarantine] = &quarantined.room.quarantines[..] else { panic!("{quarantined:?}") };
    assert_eq!((&quarantine.policy.hook, &quarantine.revision), (&Hook::Degradation, &revision));
    assert!(quarantine.fault.to_string().contains("unreachable"), "{quarantine:?}");
    for opened in [&sessions[0], &sessions[2]] {
        let explained = explained(opened);
        assert!(explained.room.quarantines.is_empty());
        let [said] = &explained.room.answers[..] else { panic!("{explained:?}") };
        assert_eq!(said.by.to_string(), format!("call/degradation@{revision}"));
        assert_eq!(&*said.notes[0].0, "sessions");
    }

    let view = view(&gateway, Hook::Degradation);
    assert_eq!((view.status.active, view.quarantined), (Some(revision), 1));
    assert_eq!(view.status.failing, None, "the policy itself answers");
    let faults = view.status.faults;
    assert!((1..=5).contains(&faults), "no faults after the quarantine: {faults}");
}

/// Pushes a plugin that cannot restart and waits until it is rolled back. Also returns the previous revision.
fn failed_restart(wish: PushRequest, nodes: &[Node; 2]) -> (Gateway, Option<Arc<str>>) {
    let all = World::of(&nodes.each_ref()).listed();
    let mut world = World::of(&[&nodes[0]]).routed();
    if wish.shadow {
        // The first trap does not end the rollout.
        world.hooks += "[rollout]\njudge = { faults_allowed = 1000 }\n";
    }
    let gateway = world.start();
    let shipped = view(&gateway, Hook::Routing).status.active;
    // The catalog has a region, a zone, a node and the gateway's location. The plugin fails to start with a second one.
    let bytes = routing_plugin(Behaviour::StartsWithin(0, 4));
    let pushing = gateway.handle.push_policy(policy(Hook::Routing), bytes, None, wish);
    let pushed = gateway.ask(pushing).unwrap();
    assert_ne!(pushed.outcome, RolloutOutcome::Refused, "{pushed:?}");

    let list = NodeList { nodes: all, force: false, within: None, by: Actor::File };
    gateway.ask(gateway.handle.list_nodes(Box::new(list))).unwrap().unwrap();
    let phone = Phone::new(1);
    wait_until("it is rolled back", || {
        // Each offer asks for a place; the native default decides while the plugin is down.
        let opened = gateway.open(offer("room", declared(&phone)));
        gateway.ask(gateway.handle.close(opened.session)).unwrap();
        let last = view(&gateway, Hook::Routing).status.last;
        last.is_some_and(|last| last.rollout.outcome == RolloutOutcome::RolledBack)
    });
    let last = view(&gateway, Hook::Routing).status.last.unwrap();
    let reason = last.rollout.reason.unwrap();
    assert!(reason.contains("could not be started again"), "{reason}");
    (gateway, shipped)
}

#[test]
fn policy_failing_to_restart_is_rolled_back() {
    let nodes = ["east-a1", "east-b1"].map(Node::agent);
    let (gateway, shipped) = failed_restart(PushRequest::default(), &nodes);
    let view = view(&gateway, Hook::Routing).status;
    assert_eq!(view.active, shipped);
    assert!(view.faults <= 5, "not asked while down");
}

#[test]
fn candidate_failing_to_restart_leaves_shadow() {
    let nodes = ["east-a1", "east-b1"].map(Node::agent);
    let wish = PushRequest { shadow: true, ..PushRequest::default() };
    let (gateway, shipped) = failed_restart(wish, &nodes);
    let view = view(&gateway, Hook::Routing).status;
    assert_eq!((view.active, view.candidate), (shipped, None));
}
