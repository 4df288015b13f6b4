//! Compares the answers of two revisions.

use evenkeel_core::{Action, Answer, Move};

/// Compares decisions only; states and reasons may differ.
pub(super) fn is_same(one: &Answer, other: &Answer) -> bool {
    match (one, other) {
        (Answer::Params(one), Answer::Params(other)) => one == other,
        (Answer::Admit { verdict: one, .. }, Answer::Admit { verdict: other, .. }) => one == other,
        (Answer::Placed { hops: one, .. }, Answer::Placed { hops: other, .. }) => one == other,
        (Answer::Moves { moves: one, .. }, Answer::Moves { moves: other, .. }) => {
            let steps = |moves: &[Move]| -> Vec<_> {
                moves.iter().map(|step| (step.row, step.hops.clone())).collect()
            };
            steps(one) == steps(other)
        }
        (Answer::Actions { actions: one, .. }, Answer::Actions { actions: other, .. }) => {
            let done = |actions: &[Action]| -> Vec<_> {
                actions.iter().map(|action| (action.row, action.op, action.arg)).collect()
            };
            done(one) == done(other)
        }
        (
            Answer::Params(_)
            | Answer::Admit { .. }
            | Answer::Placed { .. }
            | Answer::Moves { .. }
            | Answer::Actions { .. },
            _,
        ) => false,
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_core::{NodeId, State};

    use super::*;

    #[test]
    fn states_and_reasons_are_not_compared() {
        let state = |byte| State { plugin: "p".into(), schema: 1, bytes: Box::new([byte]) };
        let placed = |hops: &[u32], byte| Answer::Placed {
            hops: hops.iter().map(|node| NodeId(*node)).collect(),
            ttl_ms: u32::from(byte),
            reason: 0,
            state: state(byte),
        };
        assert!(is_same(&placed(&[1, 2], 1), &placed(&[1, 2], 2)));
        assert!(!is_same(&placed(&[1, 2], 1), &placed(&[2, 1], 1)));
        let acts = |arg, reason| Answer::Actions {
            actions: vec![Action { row: 0, op: 1, arg, reason }],
            states: Vec::new(),
            memo: Some(state(reason as u8)),
        };
        assert!(is_same(&acts(100, 1), &acts(100, 2)));
        assert!(!is_same(&acts(100, 1), &acts(200, 1)));
        assert!(!is_same(&acts(100, 1), &placed(&[], 1)));
    }
}
