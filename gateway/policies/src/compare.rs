//! Compares the answers of two revisions.

use evenkeel_model::{DegradationAction, HookAnswer, RoutingMove};

/// Compares decisions only; states and reasons may differ.
pub(super) fn is_same(one: &HookAnswer, other: &HookAnswer) -> bool {
    match (one, other) {
        (HookAnswer::Params(one), HookAnswer::Params(other)) => one == other,
        (HookAnswer::Admit { verdict: one, .. }, HookAnswer::Admit { verdict: other, .. }) => {
            one == other
        }
        (HookAnswer::Placed { hops: one, .. }, HookAnswer::Placed { hops: other, .. }) => {
            one == other
        }
        (HookAnswer::Moves { moves: one, .. }, HookAnswer::Moves { moves: other, .. }) => {
            let steps = |moves: &[RoutingMove]| -> Vec<_> {
                moves.iter().map(|step| (step.row, step.hops.clone())).collect()
            };
            steps(one) == steps(other)
        }
        (HookAnswer::Actions { actions: one, .. }, HookAnswer::Actions { actions: other, .. }) => {
            let done = |actions: &[DegradationAction]| -> Vec<_> {
                actions.iter().map(|action| (action.row, action.op, action.arg)).collect()
            };
            done(one) == done(other)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
