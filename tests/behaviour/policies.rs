//! Policies are replaced during calls: invalid plugins are refused, failing ones are rolled back.

use evenkeel_control::{ControlError, GatewayEvent, PushRequest, SessionAnswer};
use evenkeel_guests::module::Module;
use evenkeel_host::DataDocument;
use evenkeel_model::{CoreEvent, Decider, Hook, PolicyName};
use evenkeel_revisions::{RolloutOutcome, RolloutReport};
use serde_json::json;

use crate::harness::{
    Behaviour, Gateway, Node, Phone, World, assert_complete, declared, offer, routing_plugin, talk,
    udp_of,
};

fn routing() -> PolicyName {
    PolicyName { set: "call".into(), hook: Hook::Routing }
}

fn push(gateway: &Gateway, bytes: Vec<u8>) -> RolloutReport {
    gateway.ask(gateway.handle.push_policy(routing(), bytes, None, PushRequest::default())).unwrap()
}

fn shipped_bytes(name: &str) -> Vec<u8> {
    let shipped = evenkeel_host::shipped().iter().find(|shipped| shipped.name == name);
    shipped.unwrap().bytes.to_vec()
}

fn active(gateway: &Gateway) -> std::sync::Arc<str> {
    let views = gateway.ask(gateway.handle.policies()).unwrap();
    views.into_iter().find(|view| view.policy == routing()).unwrap().status.active.unwrap()
}

/// Opens a room with one client, which asks the policy.
fn room(gateway: &Gateway, number: u64) -> (Phone, SessionAnswer) {
    let mut phone = Phone::new(number);
    let opened = gateway.open(offer(&format!("room-{number}"), declared(&phone)));
    phone.set_target(udp_of(&opened));
    (phone, opened)
}

fn revision(opened: &SessionAnswer) -> Option<&str> {
    match &opened.routed_by {
        Decider::Policy { revision, .. } => Some(revision),
        Decider::Native | Decider::Operator | Decider::Node => None,
    }
}

/// Opens rooms until this revision placed one: on a busy machine some answers are late.
fn placed_by(gateway: &Gateway, wanted: &str, numbers: std::ops::Range<u64>) -> SessionAnswer {
    for number in numbers {
        let (_, opened) = room(gateway, number);
        match revision(&opened) {
            Some(revision) if revision == wanted => return opened,
            Some(other) => panic!("{other} answered, not {wanted}"),
            None => {}
        }
    }
    panic!("{wanted} never answered in time");
}

#[test]
fn pushed_revision_answers_until_rolled_back() {
    let nodes = [Node::agent("east-a1"), Node::agent("east-b1"), Node::agent("west-a1")];
    let gateway = World::of(&nodes.each_ref()).routed().start();
    let shipped = active(&gateway);
    let (mut ann, first) = room(&gateway, 1);
    talk(&mut [&mut ann], "she hears herself", |phones| phones[0].heard.len() >= 10);

    // The pushed plugin places rooms on the remote node, unlike all others.
    let rollout = push(&gateway, routing_plugin(Behaviour::Places(2)));
    assert_eq!(rollout.outcome, RolloutOutcome::Activated, "{rollout:?}");
    assert_eq!(rollout.previous.as_ref(), Some(&shipped));
    let pushed = rollout.revision.clone().unwrap();
    assert_eq!(active(&gateway), pushed);
    let far = placed_by(&gateway, &pushed, 10..40);
    assert_eq!(far.route[0].node.0, 2);

    let rollout = gateway.ask(gateway.handle.rollback_policy(routing(), false)).unwrap();
    assert_eq!(rollout.outcome, RolloutOutcome::RolledBack);
    assert_eq!(
        (rollout.revision.as_ref(), rollout.previous.as_ref()),
        (Some(&shipped), Some(&pushed))
    );
    // The same bytes with the active settings, which differ from the plugin's defaults.
    let again = push(&gateway, shipped_bytes("route-nearest"));
    assert_eq!(
        (again.outcome, again.revision.as_ref()),
        (RolloutOutcome::Unchanged, Some(&shipped))
    );
    let near = placed_by(&gateway, &shipped, 40..70);
    assert_ne!(near.route[0].node.0, 2);
    let nothing = gateway.ask(gateway.handle.rollback_policy(routing(), false));
    assert!(matches!(nothing, Err(ControlError::Policy(_))), "{nothing:?}");

    talk(&mut [&mut ann], "she hears herself throughout", |phones| phones[0].heard.len() >= 30);
    assert_complete(&ann.heard, 0, ann.heard.len() as u64);
    assert!(
        ann.heard
            .iter()
            .all(|heard| heard.mark.node == nodes[first.route[0].node.0 as usize].number())
    );
    let told: Vec<RolloutOutcome> = [RolloutOutcome::Activated, RolloutOutcome::RolledBack]
        .into_iter()
        .filter(|wanted| {
            gateway
                .happened(|told| match &told.event {
                    GatewayEvent::Rollout(rollout) => (rollout.outcome == *wanted).then_some(()),
                    _ => None,
                })
                .is_some()
        })
        .collect();
    assert_eq!(told.len(), 2);
}

#[test]
fn invalid_plugin_is_refused_with_reason() {
    let nodes = [Node::agent("east-a1"), Node::agent("east-b1")];
    let gateway = World::of(&nodes.each_ref()).routed().start();
    let shipped = active(&gateway);
    let (mut ann, _) = room(&gateway, 1);
    placed_by(&gateway, &shipped, 2..30);
    talk(&mut [&mut ann], "she hears herself", |phones| phones[0].heard.len() >= 10);
    for (bytes, reason) in [
        (b"not a plugin".to_vec(), ""),
        (routing_plugin(Behaviour::Traps), "trap"),
        (routing_plugin(Behaviour::NeverEnds), "did not return within 2 ms"),
        (routing_plugin(Behaviour::EatsMemory), "wanted more than 16 MiB"),
        (shipped_bytes("degrade-ladder"), "routing"),
    ] {
        let rollout = push(&gateway, bytes);
        assert_eq!(rollout.outcome, RolloutOutcome::Refused, "{rollout:?}");
        let why = rollout.reason.unwrap();
        assert!(why.contains(reason) && !why.is_empty(), "{why}");
        assert_eq!(active(&gateway), shipped);
        gateway.expect("the refusal is reported", |told| match &told.event {
            GatewayEvent::Rollout(told) => (told.reason.as_ref() == Some(&why)).then_some(()),
            _ => None,
        });
    }
    let settings = serde_json::json!({"spares": 9});
    let bytes = shipped_bytes("route-nearest");
    let rollout = gateway
        .ask(gateway.handle.push_policy(routing(), bytes, Some(settings), PushRequest::default()))
        .unwrap();
    assert_eq!(rollout.outcome, RolloutOutcome::Refused);
    assert!(rollout.reason.unwrap().contains("spares"));
    let unbound = PolicyName { set: "opera".into(), hook: Hook::Routing };
    let unknown = gateway.ask(gateway.handle.push_policy(
        unbound,
        Vec::<u8>::new(),
        None,
        PushRequest::default(),
    ));
    assert!(matches!(unknown, Err(ControlError::NoPolicy(_))), "{unknown:?}");

    placed_by(&gateway, &shipped, 30..60);
    talk(&mut [&mut ann], "she hears herself throughout", |phones| phones[0].heard.len() >= 30);
    assert_complete(&ann.heard, 0, ann.heard.len() as u64);
}

#[test]
fn push_of_a_document_keeps_the_plugin() {
    let nodes = [Node::agent("east-a1")];
    let gateway = World::of(&nodes.each_ref()).routed().start();
    let tenants = json!({"type": "object", "additionalProperties": {"type": "string"}});
    let plugin = Module::honest(Hook::Routing)
        .manifest_key("name", json!("by-hand"))
        .manifest_key("data", json!({"tenants": tenants}));
    let first = push(&gateway, plugin.build());
    assert_eq!(first.outcome, RolloutOutcome::Activated, "{first:?}");
    let document = |tier: &str| {
        let document = DataDocument::of("tenants", &json!({"acme": tier})).unwrap();
        let documents = [("tenants".into(), document)].into();
        let wish = PushRequest { documents, ..PushRequest::default() };
        gateway.ask(gateway.handle.push_policy(routing(), None::<Vec<u8>>, None, wish)).unwrap()
    };
    let gold = document("gold");
    assert_eq!((gold.outcome, &gold.previous), (RolloutOutcome::Activated, &first.revision));
    assert_eq!(document("gold").outcome, RolloutOutcome::Unchanged);
    let back = gateway.ask(gateway.handle.rollback_policy(routing(), false)).unwrap();
    assert_eq!(back.outcome, RolloutOutcome::RolledBack, "{back:?}");
    assert_eq!(Some(active(&gateway)), first.revision);
}

#[test]
fn failing_revision_is_rolled_back_by_gateway() {
    let nodes = [Node::agent("east-a1"), Node::agent("east-b1")];
    let gateway = World::of(&nodes.each_ref()).routed().start();
    let shipped = active(&gateway);
    let (_, last) = room(&gateway, 1);
    let rollout = push(&gateway, routing_plugin(Behaviour::TrapsFromRoom(0, last.room.0 + 1)));
    assert_eq!(rollout.outcome, RolloutOutcome::Activated, "{rollout:?}");
    let failing = rollout.revision.unwrap();
    let mut phones = Vec::new();
    for number in 2..60 {
        let (phone, opened) = room(&gateway, number);
        assert_ne!(revision(&opened), Some(&*failing), "it trapped");
        phones.push(phone);
        if active(&gateway) == shipped {
            break;
        }
    }
    let reason = gateway.expect("the rollback is reported", |told| match &told.event {
        GatewayEvent::Rollout(rollout) if rollout.outcome == RolloutOutcome::RolledBack => {
            assert_eq!(rollout.revision.as_ref(), Some(&shipped));
            rollout.reason.clone()
        }
        _ => None,
    });
    assert!(reason.contains("trap"), "{reason}");
    placed_by(&gateway, &shipped, 60..90);
    gateway.expect_event("the fault is reported", |event| {
        matches!(event, CoreEvent::Standing { fault: Some(_), .. }).then_some(())
    });
}
