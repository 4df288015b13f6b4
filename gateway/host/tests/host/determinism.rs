//! A plugin that keeps something to itself is caught by a fresh instance that is asked the same.

use evenkeel_core::Hook;
use evenkeel_host::Policy;

use crate::plugin::{policy, tick};

/// Asks so often, and a fresh instance with it where one is due; what differed.
fn asked(policy: &mut Policy, times: usize) -> Vec<Box<str>> {
    let question = tick(&[1, 2]);
    let mut differed = Vec::new();
    for _ in 0..times {
        let first = policy.ask_around(&question, 0, std::time::Duration::MAX).unwrap();
        if policy.is_due_twice() {
            differed.extend(policy.ask_twice(&question, 0, &first));
        }
    }
    differed
}

#[test]
fn a_plugin_that_counts_its_calls_is_caught_with_the_second_answer() {
    let mut counting = policy(Hook::Degradation, "count");
    assert_eq!(asked(&mut counting, 1), [] as [Box<str>; 0], "at first all instances are fresh");
    assert_eq!(asked(&mut counting, 1), ["its actions".into()]);
    assert_eq!(counting.hidden_state(), (1, 2));
    let line = std::iter::from_fn(|| counting.poll_line()).count();
    assert_eq!(line, 0, "what the fresh instance said is nobody's");
}

#[test]
fn one_that_hides_nothing_is_never_told_of() {
    let mut quiet = policy(Hook::Degradation, "quiet");
    assert_eq!(asked(&mut quiet, 1_030), [] as [Box<str>; 0]);
    assert_eq!(quiet.hidden_state(), (0, 5));
}

#[test]
fn what_a_plugin_hides_in_states_memo_or_notes_is_told_by_its_place() {
    for (mode, place) in [
        ("hide-in-state", "states that it wrote"),
        ("hide-in-memo", "its memo"),
        ("hide-in-notes", "its notes"),
    ] {
        let mut policy = policy(Hook::Degradation, mode);
        let question = tick(&[1, 2]);
        policy.ask(&question, 0).unwrap();
        assert_eq!(asked(&mut policy, 2), [place.into(), place.into()], "{mode}");
    }
}

#[test]
fn an_answer_in_parts_is_not_held_against_an_answer_in_one() {
    let mut counting = policy(Hook::Degradation, "count");
    let question = tick(&[1, 666]);
    let first = counting.ask_around(&question, 0, std::time::Duration::MAX).unwrap();
    assert!(counting.is_due_twice());
    assert_eq!(counting.ask_twice(&question, 0, &first), None);
    assert_eq!(counting.hidden_state(), (0, 0));
}
