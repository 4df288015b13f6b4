//! However a plugin fails, it costs a fault; the next question finds it whole.

use evenkeel_core::{Answer, Entry, EntryKind, Fault, Hook, Question};
use evenkeel_host::{Component, Engine, Level, Policy};
use serde_json::json;

use crate::plugin::{dressed, labels, manifest, policy, tick};

/// How many calls the living instance has had: the hidden state of the test guest.
fn calls(policy: &mut Policy) -> u32 {
    let Answer::Actions { actions, .. } = policy.ask(&tick(&[1]), 0).unwrap().answer else {
        panic!()
    };
    actions[0].reason
}

fn malformed(mode: &str, part: &str) {
    let mut policy = policy(Hook::Degradation, mode);
    match policy.ask(&tick(&[1, 2]), 0) {
        Err(Fault::Malformed(said)) => assert!(said.contains(part), "{mode}: {said}"),
        other => panic!("{mode}: {other:?}"),
    }
}

#[test]
fn a_trap_is_told_with_the_plugins_last_words() {
    let mut policy = policy(Hook::Degradation, "count");
    let fault = policy.ask(&tick(&[1, 666]), 0).unwrap_err();
    let Fault::Trap(said) = fault else { panic!("{fault:?}") };
    assert!(said.contains("unreachable"), "{said}");
    assert!(said.contains("no plan for 666"), "{said}");
    let line = policy.poll_line().unwrap();
    assert_eq!((line.level, &*line.words), (Level::Error, "no plan for 666"));
}

#[test]
fn after_a_trap_the_plugin_is_made_anew() {
    let mut policy = policy(Hook::Degradation, "count");
    assert_eq!(calls(&mut policy), 0);
    assert_eq!(calls(&mut policy), 1);
    policy.ask(&tick(&[666]), 0).unwrap_err();
    assert_eq!(calls(&mut policy), 0);
}

#[test]
fn made_anew_it_knows_settings_seed_and_the_latest_catalog() {
    let entry = |name: &str| Entry {
        kind: EntryKind::Node,
        id: 1,
        parent: 1,
        name: name.into(),
        labels: Vec::new(),
    };
    let mut policy = policy(Hook::Scenario, "");
    let question = Question::Resolve { scenario: "call".into(), labels: labels() };
    policy.catalog(vec![entry("a"), entry("b"), entry("c")]).unwrap();
    let before = policy.ask(&question, 0).unwrap().answer;

    assert!(matches!(policy.catalog(vec![entry("trap")]), Err(Fault::Trap(_))));
    assert_eq!(policy.ask(&question, 0), Err(Fault::Absent), "no instance takes that catalog");
    policy.catalog(vec![entry("a"), entry("b"), entry("c")]).unwrap();
    assert_eq!(policy.ask(&question, 0).unwrap().answer, before);
}

#[test]
fn an_endless_tick_is_stopped_and_the_next_one_answered() {
    let engine = Engine::new();
    let component = Component::vet(&engine, &dressed(&manifest())).unwrap();
    let settings = json!({"mode": "loop-in-tick"});
    let mut policy =
        Policy::install(&engine, &component, Hook::Degradation, settings, vec![], 0).unwrap();
    assert_eq!(policy.ask(&tick(&[1]), 0), Err(Fault::Deadline));
    assert_eq!(policy.ask(&tick(&[1]), 0), Err(Fault::Deadline), "it was made anew and asked");
}

#[test]
fn a_memory_bomb_goes_off_within_its_bounds() {
    let mut policy = policy(Hook::Degradation, "memory-bomb");
    assert_eq!(policy.ask(&tick(&[1]), 0), Err(Fault::OutOfMemory));
}

#[test]
fn an_endless_recursion_is_a_trap() {
    let mut policy = policy(Hook::Degradation, "deep");
    assert!(matches!(policy.ask(&tick(&[1]), 0), Err(Fault::Trap(_))));
}

#[test]
fn a_plugin_that_only_talks_is_stopped_and_mostly_unheard() {
    let mut policy = policy(Hook::Degradation, "talk");
    let fault = policy.ask(&tick(&[1]), 0).unwrap_err();
    assert!(matches!(&fault, Fault::Trap(said) if said.contains("diag")), "{fault:?}");
    assert_eq!(std::iter::from_fn(|| policy.poll_line()).count(), 20);
    assert!(policy.unsaid() > 9_000);
}

#[test]
fn lengths_and_rows_that_do_not_match_are_malformed() {
    malformed("offsets", "keep");
    malformed("offsets-few", "keep: 1 offsets for 2 states");
    malformed("row", "keep: row 2 of 2 rows");
}

#[test]
fn a_state_or_memo_that_is_too_large_is_malformed() {
    malformed("large-state", "4097 bytes, at most 4096");
    malformed("large-memo", "65537 bytes, at most 65536");
    let mut policy = policy(Hook::Routing, "large-state");
    let place = Question::Place {
        room: evenkeel_core::RoomId(1),
        scenario: "call".into(),
        labels: labels(),
        nodes: vec![],
    };
    assert!(matches!(policy.ask(&place, 0), Err(Fault::Malformed(_))));
}

#[test]
fn an_answer_out_of_all_proportion_is_malformed() {
    malformed("flood", "fuel");
}

#[test]
fn so_many_actions_for_so_many_rows_and_no_more() {
    let mut policy = policy(Hook::Degradation, "most");
    let Answer::Actions { actions, .. } = policy.ask(&tick(&[1, 2]), 0).unwrap().answer else {
        panic!()
    };
    assert_eq!(actions.len(), 32);
    malformed("too-many", "33 actions, at most 32");
}

/// A policy whose plugin takes no catalog that there is.
fn homeless() -> (Policy, Question) {
    let trap =
        Entry { kind: EntryKind::Node, id: 1, parent: 1, name: "trap".into(), labels: Vec::new() };
    let mut policy = policy(Hook::Scenario, "");
    policy.catalog(vec![trap]).unwrap_err();
    (policy, Question::Resolve { scenario: "call".into(), labels: labels() })
}

#[test]
fn a_plugin_that_does_not_start_again_is_left_alone_for_longer_and_longer() {
    let (mut policy, question) = homeless();
    let mut tries = Vec::new();
    for now_ms in 0..525 {
        match policy.ask(&question, now_ms * 1_000) {
            Err(Fault::Absent) => {}
            Err(Fault::Trap(_)) => tries.push(now_ms),
            other => panic!("{other:?}"),
        }
    }
    let [first, second] = tries[..] else { panic!("{tries:?}") };
    assert!((75..=100).contains(&first), "{tries:?}");
    assert!((150..=200).contains(&(second - first)), "{tries:?}");
    let told = std::iter::from_fn(|| policy.poll_line());
    let told = told.filter(|line| line.words.contains("did not start again")).count();
    assert_eq!(told, 3, "each attempt is told of, and why it failed");
}

#[test]
fn three_restarts_that_fail_in_a_row_are_told_and_two_are_not() {
    let (mut policy, question) = homeless();
    policy.ask(&question, 100_000).unwrap_err();
    assert!(!policy.is_beyond_repair());
    policy.ask(&question, 400_000).unwrap_err();
    assert!(policy.is_beyond_repair());
    policy.catalog(Vec::new()).unwrap();
    assert!(!policy.is_beyond_repair(), "what kept it from starting is gone");
    assert!(policy.ask(&question, 400_000).is_ok());
}
