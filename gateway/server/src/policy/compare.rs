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
mod tests;
