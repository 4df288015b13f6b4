//! Policies are swapped under calls; what does not run never answers, and what fails gives way to what was.

use evenkeel_core::{Decider, Event, Hook, PolicyName};
use evenkeel_server::control::{Failed, Happened, Opened, Rollout, RolloutOutcome};

use crate::harness::{
    Gateway, Manner, Node, Phone, World, complete, declared, offer, plugin, talk, udp_of,
};

fn routing() -> PolicyName {
    PolicyName { set: "call".into(), hook: Hook::Routing }
}

fn push(gateway: &Gateway, bytes: Vec<u8>) -> Rollout {
    gateway.ask(gateway.handle.push_policy(routing(), bytes, None)).unwrap()
}

fn shipped_bytes(name: &str) -> Vec<u8> {
    let shipped = evenkeel_host::shipped().iter().find(|shipped| shipped.name == name);
    shipped.unwrap().bytes.to_vec()
}

/// The revision that answers now.
fn standing(gateway: &Gateway) -> std::sync::Arc<str> {
    let views = gateway.ask(gateway.handle.policies()).unwrap();
    views.into_iter().find(|view| view.policy == routing()).unwrap().revision.unwrap()
}

/// Opens a room of one; questions are asked of the policy by that.
fn room(gateway: &Gateway, number: u64) -> (Phone, Opened) {
    let mut phone = Phone::new(number);
    let opened = gateway.open(offer(&format!("room-{number}"), declared(&phone)));
    phone.dial(udp_of(&opened));
    (phone, opened)
}

fn revision(opened: &Opened) -> Option<&str> {
    match &opened.routed_by {
        Decider::Policy { revision, .. } => Some(revision),
        Decider::Native | Decider::Operator | Decider::Node => None,
    }
}

/// Opens rooms until one was placed by this revision: on a busy machine an answer may come too late.
fn placed_by(gateway: &Gateway, wanted: &str, numbers: std::ops::Range<u64>) -> Opened {
    for number in numbers {
        let (_, opened) = room(gateway, number);
        match revision(&opened) {
            Some(revision) if revision == wanted => return opened,
            Some(other) => panic!("{other} answers, not {wanted}"),
            None => {}
        }
    }
    panic!("{wanted} never answers in time");
}

#[test]
fn a_pushed_revision_answers_and_the_one_before_comes_back_by_command() {
    let nodes = [Node::agent("east-a1"), Node::agent("east-b1"), Node::agent("west-a1")];
    let gateway = World::of(&nodes.each_ref()).routed().start();
    let shipped = standing(&gateway);
    let (mut ann, first) = room(&gateway, 1);
    talk(&mut [&mut ann], "she hears herself", |phones| phones[0].heard.len() >= 10);

    // It sends everybody far away, as nobody else would.
    let rollout = push(&gateway, plugin(Manner::Places(2)));
    assert_eq!(rollout.outcome, RolloutOutcome::Activated, "{rollout:?}");
    assert_eq!(rollout.previous.as_ref(), Some(&shipped));
    let pushed = rollout.revision.clone().unwrap();
    assert_eq!(standing(&gateway), pushed);
    let far = placed_by(&gateway, &pushed, 10..40);
    assert_eq!(far.route[0].node.0, 2);

    let rollout = gateway.ask(gateway.handle.rollback_policy(routing())).unwrap();
    assert_eq!(rollout.outcome, RolloutOutcome::RolledBack);
    assert_eq!(
        (rollout.revision.as_ref(), rollout.previous.as_ref()),
        (Some(&shipped), Some(&pushed))
    );
    // The same bytes: their settings are those in force, which are not those of the file's defaults.
    let again = push(&gateway, shipped_bytes("route-nearest"));
    assert_eq!(
        (again.outcome, again.revision.as_ref()),
        (RolloutOutcome::Unchanged, Some(&shipped))
    );
    let near = placed_by(&gateway, &shipped, 40..70);
    assert_ne!(near.route[0].node.0, 2);
    let nothing = gateway.ask(gateway.handle.rollback_policy(routing()));
    assert!(matches!(nothing, Err(Failed::Policy(_))), "{nothing:?}");

    talk(&mut [&mut ann], "she talked all the while", |phones| phones[0].heard.len() >= 30);
    complete(&ann.heard, 0, ann.heard.len() as u64);
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
                    Happened::Rollout(rollout) => (rollout.outcome == *wanted).then_some(()),
                    Happened::Core(_)
                    | Happened::Shed { .. }
                    | Happened::NodeList(_)
                    | Happened::NodeGone { .. }
                    | Happened::TurnedAway { .. }
                    | Happened::NotOpened { .. } => None,
                })
                .is_some()
        })
        .collect();
    assert_eq!(told.len(), 2);
}

#[test]
fn what_does_not_run_is_refused_with_its_reason_and_nothing_changes() {
    let nodes = [Node::agent("east-a1"), Node::agent("east-b1")];
    let gateway = World::of(&nodes.each_ref()).routed().start();
    let shipped = standing(&gateway);
    let (mut ann, _) = room(&gateway, 1);
    placed_by(&gateway, &shipped, 2..30);
    talk(&mut [&mut ann], "she hears herself", |phones| phones[0].heard.len() >= 10);
    for (bytes, reason) in [
        (b"these are no bytes of a plugin".to_vec(), ""),
        (plugin(Manner::Traps), "trap"),
        (plugin(Manner::NeverEnds), "deadline"),
        (plugin(Manner::EatsMemory), "out-of-memory"),
        (shipped_bytes("degrade-ladder"), "routing"),
    ] {
        let rollout = push(&gateway, bytes);
        assert_eq!(rollout.outcome, RolloutOutcome::Refused, "{rollout:?}");
        let why = rollout.reason.unwrap();
        assert!(why.contains(reason) && !why.is_empty(), "{why}");
        assert_eq!(standing(&gateway), shipped);
        gateway.expect("it is told", |told| match &told.event {
            Happened::Rollout(told) => (told.reason.as_ref() == Some(&why)).then_some(()),
            Happened::Core(_)
            | Happened::Shed { .. }
            | Happened::NodeList(_)
            | Happened::NodeGone { .. }
            | Happened::TurnedAway { .. }
            | Happened::NotOpened { .. } => None,
        });
    }
    let settings = serde_json::json!({"spares": 9});
    let bytes = shipped_bytes("route-nearest");
    let rollout =
        gateway.ask(gateway.handle.push_policy(routing(), bytes, Some(settings))).unwrap();
    assert_eq!(rollout.outcome, RolloutOutcome::Refused);
    assert!(rollout.reason.unwrap().contains("spares"));
    let nobody = PolicyName { set: "opera".into(), hook: Hook::Routing };
    let unknown = gateway.ask(gateway.handle.push_policy(nobody, Vec::new(), None));
    assert!(matches!(unknown, Err(Failed::NoPolicy(_))), "{unknown:?}");

    placed_by(&gateway, &shipped, 30..60);
    talk(&mut [&mut ann], "she talked all the while", |phones| phones[0].heard.len() >= 30);
    complete(&ann.heard, 0, ann.heard.len() as u64);
}

#[test]
fn a_revision_that_fails_later_is_rolled_back_and_meanwhile_the_native_default_decides() {
    let nodes = [Node::agent("east-a1"), Node::agent("east-b1")];
    let gateway = World::of(&nodes.each_ref()).routed().start();
    let shipped = standing(&gateway);
    let (_, last) = room(&gateway, 1);
    let rollout = push(&gateway, plugin(Manner::TrapsFromRoom(0, last.room.0 + 1)));
    assert_eq!(rollout.outcome, RolloutOutcome::Activated, "{rollout:?}");
    let failing = rollout.revision.unwrap();
    let mut phones = Vec::new();
    for number in 2..60 {
        let (phone, opened) = room(&gateway, number);
        assert_ne!(revision(&opened), Some(&*failing), "its answer was a trap");
        phones.push(phone);
        if standing(&gateway) == shipped {
            break;
        }
    }
    let reason = gateway.expect("it is told", |told| match &told.event {
        Happened::Rollout(rollout) if rollout.outcome == RolloutOutcome::RolledBack => {
            assert_eq!(rollout.revision.as_ref(), Some(&shipped));
            rollout.reason.clone()
        }
        Happened::Rollout(_)
        | Happened::Core(_)
        | Happened::NotOpened { .. }
        | Happened::Shed { .. }
        | Happened::NodeList(_)
        | Happened::NodeGone { .. }
        | Happened::TurnedAway { .. } => None,
    });
    assert!(reason.contains("trap"), "{reason}");
    placed_by(&gateway, &shipped, 60..90);
    gateway.expect_event("that it failed is told", |event| {
        matches!(event, Event::Standing { fault: Some(_), .. }).then_some(())
    });
}
