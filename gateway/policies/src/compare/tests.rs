use evenkeel_model::{NodeId, PluginState};

use super::*;

#[test]
fn states_and_reasons_are_not_compared() {
    let state = |byte: u8| PluginState { plugin: "p".into(), schema: 1, bytes: [byte].into() };
    let placed = |hops: &[u32], byte| HookAnswer::Placed {
        hops: hops.iter().map(|node| NodeId(*node)).collect(),
        ttl_ms: u32::from(byte),
        reason: 0,
        state: state(byte),
    };
    assert!(is_same(&placed(&[1, 2], 1), &placed(&[1, 2], 2)));
    assert!(!is_same(&placed(&[1, 2], 1), &placed(&[2, 1], 1)));
    let acts = |arg, reason| HookAnswer::Actions {
        actions: vec![DegradationAction { row: 0, op: 1, arg, reason }],
        states: Vec::new(),
        memo: Some(state(reason as u8)),
    };
    assert!(is_same(&acts(100, 1), &acts(100, 2)));
    assert!(!is_same(&acts(100, 1), &acts(200, 1)));
    assert!(!is_same(&acts(100, 1), &placed(&[], 1)));
}
