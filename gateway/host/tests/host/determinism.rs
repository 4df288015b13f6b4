//! A plugin with hidden state is detected by a fresh instance.

use evenkeel_host::BoundPlugin;
use evenkeel_model::Hook;

use crate::plugin::{policy, tick};

/// Asks the policy `times` times, and a fresh instance when one is due. Returns the reported differences.
fn asked(policy: &mut BoundPlugin, times: usize) -> Vec<Box<str>> {
    let question = tick(&[1, 2]);
    let mut differed = Vec::new();
    for _ in 0..times {
        let first = policy.ask_isolating(&question, 0, std::time::Duration::MAX).unwrap();
        if policy.is_check_due() {
            differed.extend(policy.check_determinism(&question, 0, &first));
        }
    }
    differed
}

#[test]
fn hidden_counter_is_detected_by_second_answer() {
    let mut counting = policy(Hook::Degradation, "count");
    assert_eq!(asked(&mut counting, 1), [] as [Box<str>; 0], "all instances are fresh at first");
    assert_eq!(asked(&mut counting, 1), ["its actions".into()]);
    assert_eq!(counting.hidden_state(), (1, 2));
    let line = std::iter::from_fn(|| counting.poll_line()).count();
    assert_eq!(line, 0, "the fresh instance's log is discarded");
}

#[test]
fn deterministic_plugin_has_no_differences() {
    let mut quiet = policy(Hook::Degradation, "quiet");
    assert_eq!(asked(&mut quiet, 1_030), [] as [Box<str>; 0]);
    assert_eq!(quiet.hidden_state(), (0, 20));
}

#[test]
fn difference_names_states_memo_or_notes() {
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
fn answer_in_parts_is_not_compared() {
    let mut counting = policy(Hook::Degradation, "count");
    let question = tick(&[1, 666]);
    let first = counting.ask_isolating(&question, 0, std::time::Duration::MAX).unwrap();
    assert!(counting.is_check_due());
    assert_eq!(counting.check_determinism(&question, 0, &first), None);
    assert_eq!(counting.hidden_state(), (0, 0));
}
