//! States in questions and answers are created, migrated, kept through a fault, and never applied in part.

use evenkeel_host::BoundPlugin;
use evenkeel_model::{Hook, HookAnswer, PluginFault, PluginState, PolicyQuestion, SessionRow};

use crate::plugin::{policy, session, state, tick};

type Kept = (Vec<(u32, PluginState)>, Option<PluginState>);

fn ask(
    policy: &mut BoundPlugin,
    sessions: Vec<SessionRow>,
    memo: Option<PluginState>,
) -> Result<Kept, PluginFault> {
    match policy.ask(&PolicyQuestion::Tick { sessions, memo }, 0)?.answer {
        HookAnswer::Actions { states, memo, .. } => Ok((states, memo)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn changed_state_is_returned_with_its_schema() {
    let mut policy = policy(Hook::Degradation, "count");
    let sessions =
        vec![session(1, 0, Some(state(2, &[5]))), session(2, 0, Some(state(2, &[9, 9])))];
    let (states, memo) = ask(&mut policy, sessions, Some(state(2, &[30]))).unwrap();
    assert_eq!(states, [(0, state(2, &[6])), (1, state(2, &[10, 9]))]);
    assert_eq!(memo, Some(state(2, &[31])));
}

#[test]
fn new_rows_are_opened_and_their_states_returned() {
    let mut counting = policy(Hook::Degradation, "count");
    let newcomers = || vec![session(1, 0, Some(state(2, &[5]))), session(2, 0, None)];
    let (states, _) = ask(&mut counting, newcomers(), None).unwrap();
    assert_eq!(states, [(0, state(2, &[6])), (1, state(2, &[3]))], "two labels, and one tick");

    let mut still = policy(Hook::Degradation, "still");
    let (states, memo) = ask(&mut still, newcomers(), None).unwrap();
    assert_eq!(states, [(1, state(2, &[2]))]);
    assert_eq!(memo, None);
}

#[test]
fn foreign_or_newer_states_are_hidden() {
    let mut policy = policy(Hook::Degradation, "count");
    let theirs = || PluginState { plugin: "other".into(), schema: 2, bytes: [70].into() };
    let sessions = vec![session(1, 0, Some(theirs())), session(2, 0, Some(state(3, &[70])))];
    let (states, memo) = ask(&mut policy, sessions, Some(theirs())).unwrap();
    assert_eq!(states, [(0, state(2, &[3])), (1, state(2, &[3]))]);
    assert_eq!(memo, Some(state(2, &[1])));
    let (_, memo) = ask(&mut policy, vec![], Some(state(3, &[70]))).unwrap();
    assert_eq!(memo, Some(state(2, &[1])));
}

#[test]
fn older_states_are_migrated_per_schema() {
    let mut still = policy(Hook::Degradation, "still");
    let sessions = vec![
        session(1, 0, Some(state(1, &[50]))),
        session(2, 0, Some(state(2, &[60]))),
        session(3, 0, Some(state(0, &[70]))),
        session(4, 0, Some(state(1, &[80]))),
    ];
    let (states, memo) = ask(&mut still, sessions, Some(state(1, &[9]))).unwrap();
    assert_eq!(states, [(0, state(2, &[1, 50])), (2, state(2, &[0, 70])), (3, state(2, &[1, 80]))]);
    assert_eq!(memo, Some(state(2, &[1, 9])), "a migrated memo is returned even if unchanged");
}

#[test]
fn tick_gets_migrated_states() {
    let mut policy = policy(Hook::Degradation, "count");
    let sessions = vec![session(1, 0, Some(state(1, &[50])))];
    let (states, memo) = ask(&mut policy, sessions, Some(state(1, &[9]))).unwrap();
    assert_eq!(states, [(0, state(2, &[2, 50]))]);
    assert_eq!(memo, Some(state(2, &[2])), "the guest counts from the first byte");
}

#[test]
fn failed_migration_loses_no_state() {
    let mut policy = policy(Hook::Degradation, "unwilling");
    let fault = ask(&mut policy, vec![session(1, 0, Some(state(1, &[50])))], None).unwrap_err();
    assert_eq!(fault, PluginFault::Malformed("migrate from schema 1: cannot read that".into()));
}

#[test]
fn state_survives_a_trap() {
    let mut policy = policy(Hook::Degradation, "count");
    let (states, memo) = ask(&mut policy, vec![session(1, 0, None)], None).unwrap();
    let carried = states[0].1.clone();

    let poisoned = vec![session(1, 666, Some(carried.clone())), session(2, 0, None)];
    assert!(matches!(ask(&mut policy, poisoned, memo.clone()), Err(PluginFault::Trap(_))));

    let (states, memo) = ask(&mut policy, vec![session(1, 0, Some(carried))], memo).unwrap();
    assert_eq!(states, [(0, state(2, &[4]))], "opened with 2, then two ticks besides the trap");
    assert_eq!(memo, Some(state(2, &[2])));
}

#[test]
fn answer_is_equal_before_and_after_a_fault() {
    let mut policy = policy(Hook::Degradation, "count");
    let first = policy.ask(&tick(&[1, 2, 3]), 0).unwrap();
    policy.ask(&tick(&[666]), 0).unwrap_err();
    let again = policy.ask(&tick(&[1, 2, 3]), 0).unwrap();
    assert_eq!(first.answer, again.answer);
    assert_eq!(first.notes, again.notes);
}
