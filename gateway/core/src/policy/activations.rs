//! Revisions that replaced another one, judged by the objectives of their scenarios.

use std::sync::Arc;
use std::time::Instant;

use evenkeel_model::{Arm, Health};
use evenkeel_nodes::Node;
use evenkeel_revisions::{RolloutOutcome, RolloutReport};
use evenkeel_slo::ActivationBreach;

use crate::policy::policies::Policies;
use crate::rooms::placement::CoreTables;

impl Policies {
    /// Has a revision that replaced another one judged.
    pub(crate) fn note_report(
        &mut self,
        report: &RolloutReport,
        tables: &CoreTables,
        now: Instant,
    ) {
        if report.outcome == RolloutOutcome::Activated
            && report.previous.is_some()
            && let Some(revision) = &report.revision
        {
            let (policy, revision) = (report.policy.clone(), Arc::clone(revision));
            let CoreTables { slos, settings, .. } = tables;
            self.activations.begin(policy, revision, slos, settings, nodes_up(tables), now);
        }
    }

    /// Finds revisions that burn an error budget fast, and can be rolled back.
    pub(crate) fn judge_activations(&mut self, tables: &mut CoreTables, now: Instant) {
        let up = nodes_up(tables);
        let CoreTables { slos, settings, effects, .. } = tables;
        for found in self.activations.judge(slos, settings, up, now) {
            let ActivationBreach { policy, revision, breach } = found;
            let is_active = self
                .revisions(&policy)
                .is_some_and(|it| it.is_active(&revision) && it.previous.is_some());
            if is_active {
                self.breached(&policy, Arm::Standing, Some(breach), effects);
            }
        }
    }
}

/// The nodes that are up and not drained, as by an operator: without one, offers may be refused.
fn nodes_up(tables: &CoreTables) -> usize {
    let is_up = |node: &&Node| node.health() == Health::Up && node.takes_rooms();
    tables.nodes.iter().filter(is_up).count()
}
