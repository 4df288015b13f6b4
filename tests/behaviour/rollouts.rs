//! A candidate gets a share of rooms, and is promoted or rolled back, by command or because it does harm.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use evenkeel_control::{ControlError, GatewayEvent, PushRequest, SessionAnswer};
use evenkeel_model::{Arm, Decider, Hook, PolicyName};
use evenkeel_policies::PolicyView;
use evenkeel_revisions::{
    Actor, Judging, RolloutAction, RolloutOutcome, RolloutReport, RolloutStage, is_in_cohort,
};

use crate::harness::{
    Behaviour, Fault, Gateway, Node, Phone, World, capping_plugin, declared, offer, routing_plugin,
    talk, udp_of, wait_until,
};

fn routing() -> PolicyName {
    PolicyName { set: "call".into(), hook: Hook::Routing }
}

fn view(gateway: &Gateway, policy: &PolicyName) -> PolicyView {
    let views = gateway.ask(gateway.handle.policies()).unwrap();
    views.into_iter().find(|view| view.policy == *policy).unwrap()
}

fn push(gateway: &Gateway, bytes: Vec<u8>, wish: PushRequest) -> RolloutReport {
    gateway.ask(gateway.handle.push_policy(routing(), bytes, None, wish)).unwrap()
}

fn canary(percent: u8) -> PushRequest {
    let pace = Some(Duration::from_secs(3_600));
    PushRequest { canary: Some(vec![percent]), pace, ..PushRequest::default() }
}

fn control(gateway: &Gateway, verb: RolloutAction) -> Result<RolloutReport, ControlError> {
    gateway.ask(gateway.handle.act_on_rollout(routing(), verb))
}

/// The arm of a room while the candidate has this share.
fn arm(candidate: &str, percent: u8, opened: &SessionAnswer) -> Arm {
    match is_in_cohort(candidate, percent, opened.room.0) {
        true => Arm::Canary,
        false => Arm::Standing,
    }
}

/// Opens rooms with one client each; returns the revision that placed each, if its answer was in time. The phones keep their
/// addresses.
fn placed(
    gateway: &Gateway,
    numbers: std::ops::Range<u64>,
    phones: &mut Vec<Phone>,
) -> Vec<(SessionAnswer, Option<String>)> {
    let open = |number: u64| {
        let mut phone = Phone::new(number);
        let opened = gateway.open(offer(&format!("room-{number}"), declared(&phone)));
        phone.set_target(udp_of(&opened));
        phones.push(phone);
        let by = match &opened.routed_by {
            Decider::Policy { revision, .. } => Some(revision.to_string()),
            Decider::Native | Decider::Operator | Decider::Node => None,
        };
        (opened, by)
    };
    numbers.map(open).collect()
}

/// A world with the shipped routing, where no canary is large enough to be judged.
fn unjudged(nodes: &[Node; 3]) -> World {
    let mut world = World::of(&nodes.each_ref()).routed();
    world.hooks += "[rollout]\njudge = { min_sessions = 1000 }\n";
    world
}

#[test]
fn canary_places_its_share_until_promoted() {
    let nodes = [Node::agent("east-a1"), Node::agent("east-b1"), Node::agent("west-a1")];
    let gateway = unjudged(&nodes).start();
    let shipped = view(&gateway, &routing()).status.active.unwrap();
    // The candidate places rooms on the remote node, unlike the shipped plugin.
    let begun = push(&gateway, routing_plugin(Behaviour::PlacesBeside(2, 0)), canary(50));
    assert_eq!((begun.outcome, begun.by), (RolloutOutcome::Started, Actor::Operator), "{begun:?}");
    assert_eq!(begun.previous.as_ref(), Some(&shipped));
    let staged = begun.stage.unwrap();
    assert_eq!((staged.stage, staged.next), (RolloutStage::Canary(50), 100));
    assert_eq!(staged.next_in, Some(Duration::from_secs(3_600)), "the next stage is timed");
    let candidate = begun.revision.unwrap();
    let shown = view(&gateway, &routing()).status;
    assert_eq!(shown.active.as_ref(), Some(&shipped));
    assert_eq!(
        shown.candidate.map(|candidate| candidate.staged.stage),
        Some(RolloutStage::Canary(50))
    );

    let mut by = BTreeMap::from([(&*shipped, 0), (&*candidate, 0)]);
    let mut phones = Vec::new();
    for (opened, revision) in placed(&gateway, 1..60, &mut phones) {
        let right = match arm(&candidate, 50, &opened) {
            Arm::Canary => &*candidate,
            Arm::Standing => &*shipped,
        };
        if let Some(revision) = revision {
            assert_eq!(revision, right);
            *by.get_mut(right).unwrap() += 1;
        }
    }
    assert!(by.values().all(|rooms| *rooms > 5), "{by:?}");

    let paused = control(&gateway, RolloutAction::Pause).unwrap();
    assert!(paused.stage.unwrap().paused);
    assert!(view(&gateway, &routing()).status.candidate.unwrap().staged.paused);
    assert!(!control(&gateway, RolloutAction::Resume).unwrap().stage.unwrap().paused);
    let promoted = control(&gateway, RolloutAction::Promote).unwrap();
    assert_eq!(
        (promoted.outcome, promoted.revision.as_ref()),
        (RolloutOutcome::Activated, Some(&candidate))
    );
    let rest = placed(&gateway, 100..130, &mut phones);
    assert!(rest.iter().any(|(_, by)| by.as_deref() == Some(&*candidate)));
    assert!(rest.iter().all(|(_, by)| by.as_deref() != Some(&*shipped)));
    let back = gateway.ask(gateway.handle.rollback_policy(routing(), false)).unwrap();
    assert_eq!((back.outcome, back.revision), (RolloutOutcome::RolledBack, Some(shipped)));
    assert!(control(&gateway, RolloutAction::Promote).is_err(), "no rollout is running");
}

#[test]
fn canary_ends_by_rollback_and_by_abort() {
    let nodes = [Node::agent("east-a1"), Node::agent("east-b1"), Node::agent("west-a1")];
    let gateway = unjudged(&nodes).start();
    let shipped = view(&gateway, &routing()).status.active.unwrap();
    for verb in [None, Some(RolloutAction::Abort)] {
        let begun = push(&gateway, routing_plugin(Behaviour::PlacesBeside(2, 0)), canary(5));
        let candidate = begun.revision.unwrap();
        let back = match verb {
            Some(verb) => control(&gateway, verb),
            None => gateway.ask(gateway.handle.rollback_policy(routing(), false)),
        }
        .unwrap();
        assert_eq!(
            (back.outcome, &back.revision),
            (RolloutOutcome::RolledBack, &Some(shipped.clone()))
        );
        assert_eq!(back.previous, Some(candidate));
        let shown = view(&gateway, &routing()).status;
        assert_eq!(shown.candidate, None);
        assert!(shown.quarantined.is_empty(), "it is not quarantined");
    }
    assert!(control(&gateway, RolloutAction::Abort).is_err(), "no rollout is running");
    let by = placed(&gateway, 1..20, &mut Vec::new());
    assert!(by.iter().all(|(_, by)| by.as_deref().is_none_or(|by| by == &*shipped)));
}

/// A policy that never degrades a session, and whose rollouts never end, because 1,000 sessions are not reached.
const CALM: &str = "[degradation]\nplugin = \"degrade-ladder\"\n\
    settings = { steps = [\"cap\", \"voice-only\"], down_at_loss = 0.5, down_after = \"10s\", \
    hysteresis = 0.2, up_after = \"10s\", cap_factor = 0.5 }\n\
    [rollout]\npace = \"1h\"\nshadow = \"0s\"\njudge = { min_sessions = 1000 }\n";

/// Reports 1 % loss of audio, which the active settings tolerate.
fn report(phone: &Phone) {
    let last = phone.heard_from(phone.number, 0).pop();
    phone.report_loss(last.as_slice(), 4);
}

/// A gateway with the ladder of `CALM`.
fn calm(node: &Node) -> Gateway {
    let mut world = World::of(&[node]);
    world.hooks = CALM.into();
    world.start()
}

fn degradation() -> PolicyName {
    PolicyName { set: "call".into(), hook: Hook::Degradation }
}

/// Opens four sessions and waits until the policy was asked about them.
fn four_asked_about(gateway: &Gateway) -> Vec<(Phone, SessionAnswer)> {
    let sessions = (1..=4).map(|number| {
        let phone = Phone::new(number);
        let opened = gateway.open(offer(&format!("room-{number}"), declared(&phone)));
        (phone, opened)
    });
    let sessions = sessions.collect();
    wait_until("the policy is asked", || view(gateway, &degradation()).status.calls > 2);
    sessions
}

fn shadow(gateway: &Gateway, bytes: Vec<u8>) {
    let wish = PushRequest { shadow: true, ..PushRequest::default() };
    let begun = gateway.ask(gateway.handle.push_policy(degradation(), bytes, None, wish));
    let begun = begun.unwrap();
    assert_eq!(begun.outcome, RolloutOutcome::Started, "{begun:?}");
}

/// The gateway splits the candidate's batches as for an active revision, so the candidate does not count as failing.
#[test]
fn shadow_candidate_is_compared_in_smaller_batches() {
    let node = Node::agent("east-a1");
    let gateway = calm(&node);
    let _sessions = four_asked_about(&gateway);
    shadow(&gateway, capping_plugin(Fault::MemoryForRows(2)));
    // The candidate caps all sessions, the active revision none.
    wait_until("its answers are compared", || {
        view(&gateway, &degradation()).status.candidate.is_some_and(|it| it.calls.different >= 3)
    });
}

#[test]
fn shadow_candidate_that_faults_is_dropped() {
    let node = Node::agent("east-a1");
    let gateway = calm(&node);
    let sessions = four_asked_about(&gateway);
    // The recorded questions do not contain the fifth session.
    let fifth = sessions[3].1.session.0 + 1;
    shadow(&gateway, capping_plugin(Fault::TrapsOnSession(fifth)));
    let phone = Phone::new(5);
    gateway.open(offer("room-5", declared(&phone)));
    let mut last = None;
    wait_until("it is dropped", || {
        let status = view(&gateway, &degradation()).status;
        last = status.last.map(|last| last.rollout);
        last.as_ref().is_some_and(|last| last.outcome == RolloutOutcome::RolledBack)
    });
    let reason = last.and_then(|last| last.reason);
    assert_eq!(reason.as_deref(), Some("too many faults in shadow; the last: trap"));
}

#[test]
fn harmful_canary_is_rolled_back_by_gateway() {
    let node = Node::agent("east-a1");
    let gateway = calm(&node);
    let policy = degradation();
    let standing = view(&gateway, &policy).status.active.unwrap();
    let mut phones: Vec<Phone> = (1..=40)
        .map(|number| {
            let mut phone = Phone::new(number);
            phone.sends_video = true;
            let opened = gateway.open(offer(&format!("room-{number}"), declared(&phone)));
            phone.set_target(udp_of(&opened));
            phone
        })
        .collect();
    let mut all: Vec<&mut Phone> = phones.iter_mut().collect();
    talk(&mut all, "all hear themselves", |phones| {
        phones.iter().all(|phone| phone.audio_from(phone.number) >= 10)
    });

    // This ladder goes to the last step at the smallest loss.
    let eager = serde_json::json!({
        "steps": ["cap", "voice-only"], "down_at_loss": 0.001, "voice_only_at_loss": 0.001, "down_after": "50ms",
        "hysteresis": 0.2, "up_after": "10s", "cap_factor": 0.1, "cut_per_loss": 1000,
    });
    let shipped = evenkeel_host::shipped().iter().find(|one| one.name == "degrade-ladder").unwrap();
    let (bytes, wish) = (shipped.bytes.to_vec(), canary(50));
    let pushed =
        gateway.handle.push_policy(policy.clone(), bytes.clone(), Some(eager.clone()), wish);
    let begun = gateway.ask(pushed).unwrap();
    assert_eq!(begun.outcome, RolloutOutcome::Started, "{begun:?}");
    let candidate = begun.revision.unwrap();
    assert!(view(&gateway, &policy).status.candidate.is_some());
    // A changed file applies to the running rollout: few sessions suffice.
    let mut sets = gateway.settings.sets.clone();
    let set = sets.iter_mut().find(|set| &*set.name == "call").unwrap();
    set.rollout.judging = Judging::default();
    gateway.ask(gateway.handle.change_sets(sets)).unwrap().unwrap();
    let (mut reason, mut reported) = (None, Instant::now());
    talk(&mut all, "it is rolled back", |phones| {
        if reported.elapsed() >= Duration::from_millis(200) {
            phones.iter().for_each(|phone| report(phone));
            reported = Instant::now();
        }
        reason = gateway.happened(|told| match &told.event {
            GatewayEvent::Rollout(rollout) if rollout.outcome == RolloutOutcome::RolledBack => {
                assert_eq!(
                    (rollout.by, &rollout.previous),
                    (Actor::Gateway, &Some(candidate.clone()))
                );
                rollout.reason.clone()
            }
            _ => None,
        });
        reason.is_some()
    });
    let reason = reason.unwrap();
    assert!(reason.contains("rung") && reason.contains("of the rest 0 of"), "{reason}");
    let shown = view(&gateway, &policy).status;
    assert_eq!((shown.active, shown.candidate), (Some(standing), None));
    assert_eq!(shown.quarantined[0].revision, candidate);
    assert_eq!(shown.last.unwrap().rollout.reason, Some(reason));

    let again = gateway.handle.push_policy(policy, bytes, Some(eager), canary(50));
    let again = gateway.ask(again).unwrap();
    assert_eq!(again.outcome, RolloutOutcome::Refused);
    assert!(again.reason.unwrap().contains("quarantined"));
}
