//! A revision is tried on a share, and goes all the way or back: by command, and by itself where it does harm.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use evenkeel_core::{Arm, Decider, Hook, Judging, PolicyName, Revision, Revisions, Stage};
use evenkeel_media::rtcp::{self, ReportBlock};
use evenkeel_server::control::{
    Actor, Failed, Happened, Opened, PolicyView, Rollout, RolloutOutcome, Verb, Wish,
};
use evenkeel_server::settings;

use crate::harness::{
    Fails, Gateway, Manner, Node, Phone, World, declared, offer, plugin, talk, thrifty, udp_of,
    wait_until,
};

fn routing() -> PolicyName {
    PolicyName { set: "call".into(), hook: Hook::Routing }
}

fn view(gateway: &Gateway, policy: &PolicyName) -> PolicyView {
    let views = gateway.ask(gateway.handle.policies()).unwrap();
    views.into_iter().find(|view| view.policy == *policy).unwrap()
}

fn push(gateway: &Gateway, bytes: Vec<u8>, wish: Wish) -> Rollout {
    gateway.ask(gateway.handle.push_policy_as(routing(), bytes, None, wish)).unwrap()
}

fn canary(percent: u8) -> Wish {
    let pace = Some(Duration::from_secs(3_600));
    Wish { canary: Some(vec![percent]), pace, ..Wish::default() }
}

fn walk(gateway: &Gateway, verb: Verb) -> Result<Rollout, Failed> {
    gateway.ask(gateway.handle.walk_policy(routing(), verb))
}

/// The arm of a room while this candidate has that share.
fn arm(candidate: &str, percent: u8, opened: &Opened) -> Arm {
    let revision = |name: &str| Revision { name: name.into(), plugin: "x".into(), schema: 1 };
    let judging = Judging::default();
    let canary = evenkeel_core::Canary { revision: revision(candidate), percent, judging };
    Revisions { standing: revision(""), canary: Some(canary), kept: None, judging }
        .arm(opened.room.0)
}

/// Opens rooms of one; who placed each, or nobody where the answer came too late. Who is in them keeps his address.
fn placed(
    gateway: &Gateway,
    numbers: std::ops::Range<u64>,
    phones: &mut Vec<Phone>,
) -> Vec<(Opened, Option<String>)> {
    let open = |number: u64| {
        let mut phone = Phone::new(number);
        let opened = gateway.open(offer(&format!("room-{number}"), declared(&phone)));
        phone.dial(udp_of(&opened));
        phones.push(phone);
        let by = match &opened.routed_by {
            Decider::Policy { revision, .. } => Some(revision.to_string()),
            Decider::Native | Decider::Operator | Decider::Node => None,
        };
        (opened, by)
    };
    numbers.map(open).collect()
}

#[test]
fn a_canarys_rooms_are_the_candidates_and_others_are_not_until_it_is_promoted() {
    let nodes = [Node::agent("east-a1"), Node::agent("east-b1"), Node::agent("west-a1")];
    let gateway = World::of(&nodes.each_ref()).routed().start();
    let shipped = view(&gateway, &routing()).revision.unwrap();
    // It sends everybody far away, as nobody else would.
    let begun = push(&gateway, plugin(Manner::Places(2)), canary(50));
    assert_eq!((begun.outcome, begun.by), (RolloutOutcome::Begun, Actor::Operator), "{begun:?}");
    assert_eq!(begun.previous.as_ref(), Some(&shipped));
    let staged = begun.stage.unwrap();
    assert_eq!((staged.stage, staged.next), (Stage::Canary(50), 100));
    assert_eq!(staged.next_in, Some(Duration::from_secs(3_600)), "it goes on by itself");
    let candidate = begun.revision.unwrap();
    let shown = view(&gateway, &routing());
    assert_eq!(shown.revision.as_ref(), Some(&shipped));
    assert_eq!(shown.life.walk.map(|walk| walk.staged.stage), Some(Stage::Canary(50)));

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

    let paused = walk(&gateway, Verb::Pause).unwrap();
    assert!(paused.stage.unwrap().paused);
    assert!(view(&gateway, &routing()).life.walk.unwrap().staged.paused);
    assert!(!walk(&gateway, Verb::Resume).unwrap().stage.unwrap().paused);
    let promoted = walk(&gateway, Verb::Promote).unwrap();
    assert_eq!(
        (promoted.outcome, promoted.revision.as_ref()),
        (RolloutOutcome::Activated, Some(&candidate))
    );
    let rest = placed(&gateway, 100..130, &mut phones);
    assert!(rest.iter().any(|(_, by)| by.as_deref() == Some(&*candidate)));
    assert!(rest.iter().all(|(_, by)| by.as_deref() != Some(&*shipped)));
    let back = gateway.ask(gateway.handle.rollback_policy(routing())).unwrap();
    assert_eq!((back.outcome, back.revision), (RolloutOutcome::RolledBack, Some(shipped)));
    assert!(walk(&gateway, Verb::Promote).is_err(), "none is on its way");
}

#[test]
fn a_canary_ends_by_rollback_and_by_abort_and_the_rest_was_never_touched() {
    let nodes = [Node::agent("east-a1"), Node::agent("east-b1"), Node::agent("west-a1")];
    let gateway = World::of(&nodes.each_ref()).routed().start();
    let shipped = view(&gateway, &routing()).revision.unwrap();
    for verb in [None, Some(Verb::Abort)] {
        let begun = push(&gateway, plugin(Manner::Places(2)), canary(5));
        let candidate = begun.revision.unwrap();
        let back = match verb {
            Some(verb) => walk(&gateway, verb),
            None => gateway.ask(gateway.handle.rollback_policy(routing())),
        }
        .unwrap();
        assert_eq!(
            (back.outcome, &back.revision),
            (RolloutOutcome::RolledBack, &Some(shipped.clone()))
        );
        assert_eq!(back.previous, Some(candidate));
        let shown = view(&gateway, &routing());
        assert_eq!((shown.life.walk, shown.life.tried), (None, None));
        assert!(shown.life.quarantined.is_empty(), "nobody found fault with it");
    }
    assert!(walk(&gateway, Verb::Abort).is_err(), "there is none any more");
    let by = placed(&gateway, 1..20, &mut Vec::new());
    assert!(by.iter().all(|(_, by)| by.as_deref().is_none_or(|by| by == &*shipped)));
}

/// Never degrades anybody, and judges nobody: a thousand sessions are not there.
const CALM: &str = "[degradation]\nplugin = \"degrade-ladder\"\n\
    settings = { steps = [\"cap\", \"voice-only\"], down_at_loss = 0.5, down_after = \"10s\", \
    hysteresis = 0.2, up_after = \"10s\", cap_factor = 0.5 }\n\
    [rollout]\npace = \"1h\"\nshadow = \"0s\"\njudge = { sessions = 1000 }\n";

/// What a phone says of the voice it hears: 1 % is lost, and nobody minds.
fn report(phone: &Phone) {
    let heard = phone.heard_of(phone.number, 0);
    let blocks: Vec<ReportBlock> = heard
        .last()
        .into_iter()
        .map(|heard| ReportBlock {
            ssrc: heard.header.ssrc,
            fraction_lost: 4,
            lost: 0,
            sequence_max: u32::from(heard.header.sequence),
            jitter: 0,
            last_sr: 0,
            delay_since_last_sr: 0,
        })
        .collect();
    let mut packet = Vec::new();
    rtcp::write_receiver_report(phone.voice.ssrc, &blocks, &mut packet);
    phone.send(&packet);
}

/// A gateway before this node, with a ladder that nobody goes down.
fn calm(node: &Node) -> Gateway {
    let mut world = World::of(&[node]);
    world.hooks = CALM.into();
    world.start()
}

fn degradation() -> PolicyName {
    PolicyName { set: "call".into(), hook: Hook::Degradation }
}

/// Four sessions, which are asked about.
fn four_asked_about(gateway: &Gateway) -> Vec<(Phone, Opened)> {
    let sessions = (1..=4).map(|number| {
        let phone = Phone::new(number);
        let opened = gateway.open(offer(&format!("room-{number}"), declared(&phone)));
        (phone, opened)
    });
    let sessions = sessions.collect();
    wait_until("all are asked about", || view(gateway, &degradation()).calls > 2);
    sessions
}

fn shadow(gateway: &Gateway, bytes: Vec<u8>) {
    let wish = Wish { shadow: true, ..Wish::default() };
    let begun = gateway.ask(gateway.handle.push_policy_as(degradation(), bytes, None, wish));
    let begun = begun.unwrap();
    assert_eq!(begun.outcome, RolloutOutcome::Begun, "{begun:?}");
}

/// As it would be asked in force: so it is not thought to fail.
#[test]
fn a_candidate_whose_memory_is_too_small_for_all_is_compared_over_fewer_at_a_time() {
    let node = Node::agent("east-a1");
    let gateway = calm(&node);
    let _sessions = four_asked_about(&gateway);
    shadow(&gateway, thrifty(Fails::Beyond(2)));
    // It caps everybody, and the one in force nobody.
    wait_until("its answers are compared", || {
        view(&gateway, &degradation()).life.tried.is_some_and(|tried| tried.different >= 3)
    });
}

#[test]
fn a_candidate_that_fails_in_shadow_says_over_what_and_goes() {
    let node = Node::agent("east-a1");
    let gateway = calm(&node);
    let _sessions = four_asked_about(&gateway);
    // What was asked before it came did not show that.
    shadow(&gateway, thrifty(Fails::Over(5)));
    let phone = Phone::new(5);
    gateway.open(offer("room-5", declared(&phone)));
    let (mut fault, mut last) = (None, None);
    wait_until("it goes", || {
        let life = view(&gateway, &degradation()).life;
        fault = life.tried.and_then(|tried| tried.last_fault).or(fault.take());
        last = life.last.map(|last| last.rollout);
        last.as_ref().is_some_and(|last| last.outcome == RolloutOutcome::RolledBack)
    });
    let reason = last.and_then(|last| last.reason);
    assert_eq!(reason.as_deref(), Some("too many faults in shadow; the last: trap"));
    let fault = fault.expect("it was told meanwhile").to_string();
    assert!(fault.contains("unreachable"), "{fault}");
}

#[test]
fn a_degradation_policy_that_harms_its_cohort_is_rolled_back_by_itself() {
    let node = Node::agent("east-a1");
    let gateway = calm(&node);
    let policy = degradation();
    let standing = view(&gateway, &policy).revision.unwrap();
    let mut phones: Vec<Phone> = (1..=40)
        .map(|number| {
            let mut phone = Phone::new(number);
            phone.films = true;
            let opened = gateway.open(offer(&format!("room-{number}"), declared(&phone)));
            phone.dial(udp_of(&opened));
            phone
        })
        .collect();
    let mut all: Vec<&mut Phone> = phones.iter_mut().collect();
    talk(&mut all, "everybody hears themselves", |phones| {
        phones.iter().all(|phone| phone.voices_of(phone.number) >= 10)
    });

    // It takes the least loss for a reason to go all the way down.
    let eager = serde_json::json!({
        "steps": ["cap", "voice-only"], "down_at_loss": 0.001, "voice_only_at_loss": 0.001, "down_after": "50ms",
        "hysteresis": 0.2, "up_after": "10s", "cap_factor": 0.1,
    });
    let shipped = evenkeel_host::shipped().iter().find(|one| one.name == "degrade-ladder").unwrap();
    let (bytes, wish) = (shipped.bytes.to_vec(), canary(50));
    let pushed =
        gateway.handle.push_policy_as(policy.clone(), bytes.clone(), Some(eager.clone()), wish);
    let begun = gateway.ask(pushed).unwrap();
    assert_eq!(begun.outcome, RolloutOutcome::Begun, "{begun:?}");
    let candidate = begun.revision.unwrap();
    assert!(view(&gateway, &policy).life.walk.is_some());
    // What its file says meanwhile holds at once: a few are enough.
    let set = gateway.settings.sets.iter().find(|set| &*set.name == "call").unwrap();
    let rollout = settings::Rollout { judging: Judging::default(), ..set.rollout.clone() };
    let paces = BTreeMap::from([("call".into(), rollout)]);
    gateway.ask(gateway.handle.change_paces(paces)).unwrap();
    let (mut reason, mut reported) = (None, Instant::now());
    talk(&mut all, "it is rolled back", |phones| {
        if reported.elapsed() >= Duration::from_millis(200) {
            phones.iter().for_each(|phone| report(phone));
            reported = Instant::now();
        }
        reason = gateway.happened(|told| match &told.event {
            Happened::Rollout(rollout) if rollout.outcome == RolloutOutcome::RolledBack => {
                assert_eq!(
                    (rollout.by, &rollout.previous),
                    (Actor::Gateway, &Some(candidate.clone()))
                );
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
        reason.is_some()
    });
    let reason = reason.unwrap();
    assert!(reason.contains("rung") && reason.contains("of the rest 0 of"), "{reason}");
    let shown = view(&gateway, &policy);
    assert_eq!((shown.revision, shown.life.tried), (Some(standing), None));
    assert_eq!(shown.life.quarantined[0].revision, candidate);
    assert_eq!(shown.life.last.unwrap().rollout.reason, Some(reason));

    let again = gateway.handle.push_policy_as(policy, bytes, Some(eager), canary(50));
    let again = gateway.ask(again).unwrap();
    assert_eq!(again.outcome, RolloutOutcome::Refused);
    assert!(again.reason.unwrap().contains("quarantined"));
}
