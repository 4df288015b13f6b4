//! A plugin gets only what its operator allows.

use evenkeel_host::{BoundPlugin, GrantLimits};
use evenkeel_model::{Hook, HookAnswer, Metric, Op};
use serde_json::json;

use crate::plugin::{guest, roomy, tick};

fn installed(mode: &str, allowed: &GrantLimits) -> BoundPlugin {
    let (hook, settings) = (Hook::Degradation, json!({"mode": mode}));
    BoundPlugin::install_within(roomy(), guest(), hook, settings, Vec::new(), 77, allowed).unwrap()
}

/// Number of actions that the guest takes on two sessions.
fn actions(policy: &mut BoundPlugin) -> usize {
    match policy.ask(&tick(&[1, 2]), 0).unwrap().answer {
        HookAnswer::Actions { actions, .. } => actions.len(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn disallowed_action_is_dropped_and_counted() {
    let all = GrantLimits::default();
    let mut free = installed("count", &all);
    assert_eq!((actions(&mut free), free.ungranted()), (2, 0));
    let caps = GrantLimits { ops: Some(vec![Op::Cap]), ..all.clone() };
    assert_eq!(actions(&mut installed("count", &caps)), 2);
    let none = GrantLimits { ops: Some(Vec::new()), ..all };
    let mut held = installed("count", &none);
    assert_eq!((actions(&mut held), held.ungranted()), (0, 2));
}

#[test]
fn restricted_grant_changes_the_revision() {
    let all = installed("count", &GrantLimits::default());
    let of = |metrics: Vec<Metric>| {
        let allowed = GrantLimits { metrics: Some(metrics), ..GrantLimits::default() };
        installed("count", &allowed).revision().to_owned()
    };
    assert_eq!(of(Metric::ALL.to_vec()), all.revision());
    assert_ne!(of(vec![Metric::LossUp]), all.revision());
    assert_ne!(of(vec![Metric::LossUp]), of(Vec::new()));
}
