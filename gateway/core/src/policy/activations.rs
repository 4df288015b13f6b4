//! Revisions that replaced another one, judged by the objectives of their scenarios.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use evenkeel_model::{Arm, CoreSettings, Health, PolicyName};
use evenkeel_nodes::{Node, NodeTable};
use evenkeel_revisions::{RolloutOutcome, RolloutReport};
use evenkeel_slo::{ActivationBreach, SloTable};

use crate::effects::Effects;
use crate::policy::policies::Policies;

impl Policies {
    /// Has a revision that replaced another one judged.
    pub(crate) fn note_report(
        &mut self,
        report: &RolloutReport,
        slos: &SloTable,
        settings: &CoreSettings,
        nodes: &NodeTable,
        now: Instant,
    ) {
        if report.outcome == RolloutOutcome::Activated
            && report.previous.is_some()
            && let Some(revision) = &report.revision
        {
            let (policy, revision) = (report.policy.clone(), Arc::clone(revision));
            self.activations.begin(policy, revision, slos, settings, nodes_up(nodes), now);
        }
    }

    /// Finds revisions that burn an error budget fast, and can be rolled back.
    pub(crate) fn judge_activations(
        &mut self,
        slos: &mut SloTable,
        settings: &CoreSettings,
        nodes: &NodeTable,
        effects: &mut Effects,
        now: Instant,
    ) {
        let (up, with_canary) = (nodes_up(nodes), self.sets_with_canary());
        for found in self.activations.judge(slos, settings, up, &with_canary, now) {
            let ActivationBreach { policy, revision, breach } = found;
            let is_active = self
                .revisions(&policy)
                .is_some_and(|it| it.is_active(&revision) && it.previous.is_some());
            if is_active {
                self.breached(&policy, Arm::Standing, Some(breach), effects);
            }
        }
    }

    fn sets_with_canary(&self) -> BTreeSet<Arc<str>> {
        let decides = |policy: &PolicyName| self.canary(policy).is_some();
        self.changing().into_iter().filter(decides).map(|policy| policy.set).collect()
    }
}

/// The nodes that are up and not drained, as by an operator: without one, offers may be refused.
fn nodes_up(nodes: &NodeTable) -> usize {
    let is_up = |node: &&Node| node.health() == Health::Up && node.takes_rooms();
    nodes.iter().filter(is_up).count()
}
