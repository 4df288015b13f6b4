//! However a plugin fails, the question costs one fault and the next one is answered.

use evenkeel_host::{BoundPlugin, Component, Engine, LogLevel};
use evenkeel_model::{CatalogEntry, EntryKind, Hook, HookAnswer, PluginFault, PolicyQuestion};
use serde_json::json;

use crate::plugin::{dressed, labels, manifest, policy, tick};

/// The test guest's hidden state: calls of the current instance.
fn calls(policy: &mut BoundPlugin) -> u32 {
    let HookAnswer::Actions { actions, .. } = policy.ask(&tick(&[1]), 0).unwrap().answer else {
        panic!()
    };
    actions[0].reason
}

fn malformed(mode: &str, part: &str) {
    let mut policy = policy(Hook::Degradation, mode);
    match policy.ask(&tick(&[1, 2]), 0) {
        Err(PluginFault::Malformed(said)) => assert!(said.contains(part), "{mode}: {said}"),
        other => panic!("{mode}: {other:?}"),
    }
}

#[test]
fn trap_carries_the_panic_message() {
    let mut policy = policy(Hook::Degradation, "count");
    let fault = policy.ask(&tick(&[1, 666]), 0).unwrap_err();
    let PluginFault::Trap(said) = fault else { panic!("{fault:?}") };
    assert!(said.starts_with("no plan for 666 (") && said.contains("unreachable"), "{said}");
    let line = policy.poll_line().unwrap();
    assert_eq!((line.level, &*line.words), (LogLevel::Error, "no plan for 666"));
}

#[test]
fn plugin_restarts_after_a_trap() {
    let mut policy = policy(Hook::Degradation, "count");
    assert_eq!(calls(&mut policy), 0);
    assert_eq!(calls(&mut policy), 1);
    policy.ask(&tick(&[666]), 0).unwrap_err();
    assert_eq!(calls(&mut policy), 0);
}

#[test]
fn restarted_plugin_gets_settings_seed_and_catalog() {
    let entry = |name: &str| CatalogEntry {
        kind: EntryKind::Node,
        id: 1,
        parent: 1,
        name: name.into(),
        labels: Vec::new(),
    };
    let mut policy = policy(Hook::Scenario, "");
    let question = PolicyQuestion::Resolve { scenario: "call".into(), labels: labels() };
    policy.catalog(vec![entry("a"), entry("b"), entry("c")]).unwrap();
    let before = policy.ask(&question, 0).unwrap().answer;

    assert!(matches!(policy.catalog(vec![entry("trap")]), Err(PluginFault::Trap(_))));
    assert_eq!(
        policy.ask(&question, 0),
        Err(PluginFault::Absent),
        "no instance accepts that catalog"
    );
    policy.catalog(vec![entry("a"), entry("b"), entry("c")]).unwrap();
    assert_eq!(policy.ask(&question, 0).unwrap().answer, before);
}

#[test]
fn endless_tick_is_stopped() {
    let engine = Engine::new();
    let component = Component::vet(&engine, &dressed(&manifest())).unwrap();
    let settings = json!({"mode": "loop-in-tick"});
    let mut policy =
        BoundPlugin::install(&engine, &component, Hook::Degradation, settings, vec![], 0).unwrap();
    assert_eq!(policy.ask(&tick(&[1]), 0), Err(PluginFault::Deadline));
    assert_eq!(policy.ask(&tick(&[1]), 0), Err(PluginFault::Deadline), "restarted and asked");
}

#[test]
fn memory_exhaustion_is_contained() {
    let mut policy = policy(Hook::Degradation, "memory-bomb");
    assert_eq!(policy.ask(&tick(&[1]), 0), Err(PluginFault::OutOfMemory));
}

#[test]
fn endless_recursion_is_a_trap() {
    let mut policy = policy(Hook::Degradation, "deep");
    assert!(matches!(policy.ask(&tick(&[1]), 0), Err(PluginFault::Trap(_))));
}

#[test]
fn excessive_logging_is_stopped_and_mostly_dropped() {
    let mut policy = policy(Hook::Degradation, "talk");
    let fault = policy.ask(&tick(&[1]), 0).unwrap_err();
    assert!(matches!(&fault, PluginFault::Trap(said) if said.contains("diag")), "{fault:?}");
    assert_eq!(std::iter::from_fn(|| policy.poll_line()).count(), 20);
    assert!(policy.suppressed_lines() > 9_000);
}

#[test]
fn mismatched_lengths_and_rows_are_malformed() {
    malformed("offsets", "keep");
    malformed("offsets-few", "keep: 1 offsets for 2 states");
    malformed("row", "keep: row 2 of 2 rows");
}

#[test]
fn oversized_state_or_memo_is_malformed() {
    malformed("large-state", "4097 bytes, at most 4096");
    malformed("large-memo", "65537 bytes, at most 65536");
    let mut policy = policy(Hook::Routing, "large-state");
    let place = PolicyQuestion::Place {
        room: evenkeel_model::RoomId(1),
        scenario: "call".into(),
        labels: labels(),
        nodes: vec![],
    };
    assert!(matches!(policy.ask(&place, 0), Err(PluginFault::Malformed(_))));
}

#[test]
fn disproportionate_answer_is_malformed() {
    malformed("flood", "fuel");
}

#[test]
fn actions_per_row_are_bounded() {
    let mut policy = policy(Hook::Degradation, "most");
    let HookAnswer::Actions { actions, .. } = policy.ask(&tick(&[1, 2]), 0).unwrap().answer else {
        panic!()
    };
    assert_eq!(actions.len(), 32);
    malformed("too-many", "33 actions, at most 32");
}

/// A policy that cannot start with any catalog.
fn unstartable() -> (BoundPlugin, PolicyQuestion) {
    let trap = CatalogEntry {
        kind: EntryKind::Node,
        id: 1,
        parent: 1,
        name: "trap".into(),
        labels: Vec::new(),
    };
    let mut policy = policy(Hook::Scenario, "");
    policy.catalog(vec![trap]).unwrap_err();
    (policy, PolicyQuestion::Resolve { scenario: "call".into(), labels: labels() })
}

#[test]
fn failed_restarts_back_off() {
    let (mut policy, question) = unstartable();
    let mut tries = Vec::new();
    for now_ms in 0..525 {
        match policy.ask(&question, now_ms * 1_000) {
            Err(PluginFault::Absent) => {}
            Err(PluginFault::Trap(_)) => tries.push(now_ms),
            other => panic!("{other:?}"),
        }
    }
    let [first, second] = tries[..] else { panic!("{tries:?}") };
    assert!((75..=100).contains(&first), "{tries:?}");
    assert!((150..=200).contains(&(second - first)), "{tries:?}");
    let lines = std::iter::from_fn(|| policy.poll_line());
    let logged = lines.filter(|line| line.words.contains("restart failed")).count();
    assert_eq!(logged, 3, "each failed attempt is logged");
}

#[test]
fn third_failed_restart_is_beyond_repair() {
    let (mut policy, question) = unstartable();
    policy.ask(&question, 100_000).unwrap_err();
    assert!(!policy.is_beyond_repair());
    policy.ask(&question, 400_000).unwrap_err();
    assert!(policy.is_beyond_repair());
    policy.catalog(Vec::new()).unwrap();
    assert!(!policy.is_beyond_repair(), "the cause is gone");
    assert!(policy.ask(&question, 400_000).is_ok());
}
