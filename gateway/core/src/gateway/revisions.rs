//! Inputs about the revisions of policies, and the consequences of their changes for rooms and sessions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use evenkeel_model::{BreachCount, Health, Hook, PolicyName, RoomId, SessionId};
use evenkeel_nodes::{Node, NodeTable};
use evenkeel_revisions::{
    CohortSize, Effect, Lifecycle, LifecycleRecord, Revision, Revisions, RolloutOutcome,
    RolloutReport, RolloutRules, WallClock,
};

use crate::effects::{GatewayEffect, Timer};
use crate::gateway::{Gateway, Tables};
use crate::policy::subjects::{ArmStatistics, ArmTally};
use crate::rooms::room::Room;

impl Gateway {
    /// Adds a policy that has no revision yet.
    pub fn handle_policy(&mut self, policy: &PolicyName, rules: RolloutRules, clock: WallClock) {
        let life = Lifecycle::new(policy.clone(), rules, clock);
        self.policies.add(policy.clone(), life);
    }

    /// Returns the record of a policy's revisions; `None` if the policy is unknown.
    pub fn policy_record(&self, policy: &PolicyName) -> Option<LifecycleRecord> {
        self.policies.record(policy)
    }

    /// Continues a policy's revisions of another process, those that are loaded here.
    pub fn restore_policy(
        &mut self,
        policy: &PolicyName,
        record: LifecycleRecord,
        is_loaded: impl Fn(&Revision) -> bool,
        now: Instant,
    ) {
        let effects = &mut self.tables.effects;
        let follows = self.policies.restore(policy, record, is_loaded, now, effects);
        self.follow(policy, follows, now);
    }

    /// Another process decides about revisions until [`Gateway::release_rollouts`]: no step of a rollout is taken here.
    pub fn hold_rollouts(&mut self) {
        self.policies.hold();
    }

    /// Takes the steps of rollouts from now on.
    pub fn release_rollouts(&mut self, now: Instant) {
        self.policies.release();
        self.tables.effects.set_if_idle(Timer::Rollouts, now);
    }

    /// Returns true if another process decides about revisions.
    pub fn holds_rollouts(&self) -> bool {
        self.policies.are_held()
    }

    /// Follows steps of the wall clock. Changes from now on are stamped by this clock.
    pub fn handle_wall_clock(&mut self, clock: WallClock) {
        self.policies.set_clock(clock);
    }

    /// Returns the lifecycle of the policy; `None` if the policy is unknown.
    pub fn policy(&self, policy: &PolicyName) -> Option<&Lifecycle> {
        self.policies.get(policy)
    }

    /// Changes a policy's revisions and applies the consequences. Returns `None` if the policy is unknown.
    pub fn change_policy<T>(
        &mut self,
        policy: &PolicyName,
        now: Instant,
        change: impl FnOnce(&mut Lifecycle) -> T,
    ) -> Option<T> {
        let (result, follows) =
            self.policies.change(policy, now, &mut self.tables.effects, change)?;
        self.follow(policy, follows, now);
        Some(result)
    }

    fn follow(&mut self, policy: &PolicyName, effects: Vec<Effect>, now: Instant) {
        for effect in effects {
            match effect {
                Effect::Report(rollout) => {
                    self.judge_activation(&rollout, now);
                    self.tables.effects.push(GatewayEffect::Rollout(rollout));
                }
                Effect::RecordChanged => {
                    self.tables.effects.push(GatewayEffect::PolicyChanged(policy.clone()));
                }
                Effect::Unload(name) => {
                    let (unloaded, revision) = (policy.clone(), Arc::clone(&name));
                    self.tables.effects.push(GatewayEffect::Unload { policy: unloaded, revision });
                    self.ask_again(policy, &name, now);
                }
                Effect::CanaryChanged => {
                    self.degradation.restart_canary(policy);
                }
                Effect::DecidersChanged(before) => self.reroute_all(policy, Some(&before), now),
            }
        }
    }

    /// Has a revision that replaced another one judged by the objectives of its scenarios.
    fn judge_activation(&mut self, report: &RolloutReport, now: Instant) {
        if report.outcome == RolloutOutcome::Activated
            && report.previous.is_some()
            && let Some(revision) = &report.revision
        {
            let Tables { slos, settings, nodes, .. } = &mut self.tables;
            let (policy, revision) = (report.policy.clone(), Arc::clone(revision));
            self.activations.begin(policy, revision, slos, settings, nodes_up(nodes), now);
        }
    }

    /// A revision answered differently from a fresh instance. After repeated mismatches it is removed, if it is a
    /// candidate or another revision can take over.
    pub fn handle_hidden_state(
        &mut self,
        policy: &PolicyName,
        revision: &Arc<str>,
        differs: Box<str>,
        answers: BreachCount,
    ) {
        let effects = &mut self.tables.effects;
        self.policies.handle_hidden_state(policy, revision, differs, answers, effects);
    }

    /// A policy was replaced. The new one is asked about every room of its scenarios.
    pub fn handle_policy_changed(&mut self, policy: &PolicyName, now: Instant) {
        self.reroute_all(policy, None, now);
    }

    /// Asks a routing policy about its rooms; with `before`, only about rooms that have another revision now.
    fn reroute_all(&mut self, policy: &PolicyName, before: Option<&Revisions>, now: Instant) {
        if policy.hook != Hook::Routing {
            return;
        }
        let is_concerned = |room: &&Room| {
            let (Some(before), Some(after)) = (before, self.policies.revisions(policy)) else {
                return true;
            };
            before.name_for(room.id().0) != after.name_for(room.id().0)
        };
        let placed = self.subjects().rooms_of(policy).filter(|room| room.is_placed());
        let concerned: Vec<RoomId> = placed.filter(is_concerned).map(Room::id).collect();
        for room in concerned {
            self.want_reroute(room, now);
        }
    }

    /// Removes harmful revisions, takes rollout steps that are due, and ends rollback windows.
    pub(super) fn poll_rollouts(&mut self, now: Instant) {
        let Tables { slos, settings, nodes, effects, .. } = &mut self.tables;
        let with_canary = self.policies.sets_with_canary();
        let breaches = self.activations.judge(slos, settings, nodes_up(nodes), &with_canary, now);
        for breach in breaches {
            self.policies.activation_breached(breach, effects);
        }
        for harmful in self.policies.take_harmful() {
            self.change_policy(harmful.policy(), now, |life| harmful.remove_from(life, now));
        }
        for policy in self.policies.changing() {
            let follows = self.policies.poll(&policy, now, &mut self.tables.effects);
            self.follow(&policy, follows, now);
        }
    }

    /// Adds sessions after this one to the tallies of policies in the canary stage. Returns the session to continue
    /// after, until all are counted.
    pub fn tally(
        &self,
        tallies: &mut BTreeMap<PolicyName, ArmTally>,
        after: SessionId,
    ) -> Option<SessionId> {
        self.policies.tally(tallies, after, self.subjects())
    }

    /// The part of a policy's canary that was judged in its present step; `None` without a canary.
    pub fn judged(&self, policy: &PolicyName) -> Option<CohortSize> {
        self.policies.judged(policy)
    }

    /// Statistics of both cohorts of a policy during a canary, from a complete tally.
    pub fn cohorts(&self, policy: &PolicyName, tally: &ArmTally) -> Option<[ArmStatistics; 2]> {
        self.policies.cohorts(policy, tally)
    }
}

/// The nodes that are up and not drained, as by an operator: without one, offers may be refused.
fn nodes_up(nodes: &NodeTable) -> usize {
    let is_up = |node: &&Node| node.health() == Health::Up && node.takes_rooms();
    nodes.iter().filter(is_up).count()
}
