//! Inputs about the revisions of policies, and the consequences of their changes for rooms and sessions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use evenkeel_model::{Arm, PolicyName, SessionId};
use evenkeel_revisions::{Effect, Lifecycle, LifecycleRecord, Revision, RolloutRules, WallClock};

use super::Gateway;
use crate::effects::{GatewayEffect, Timer};
use crate::policy::policies::HarmfulRevision;
use crate::policy::subjects::{ArmStatistics, ArmTally};

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
        self.policies.are_held = true;
    }

    /// Takes the steps of rollouts from now on.
    pub fn release_rollouts(&mut self, now: Instant) {
        self.policies.are_held = false;
        self.tables.effects.set_if_idle(Timer::Rollouts, now);
    }

    /// Returns true if another process decides about revisions.
    pub fn holds_rollouts(&self) -> bool {
        self.policies.are_held
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
                    self.policies.note_report(&rollout, &self.tables, now);
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
                    self.degradation.tick_cursors.remove(&(policy.clone(), Arm::Canary));
                }
                Effect::DecidersChanged(before) => self.reroute_all(policy, Some(&before), now),
            }
        }
    }

    /// Removes harmful revisions, takes rollout steps that are due, and ends rollback windows.
    pub(super) fn poll_rollouts(&mut self, now: Instant) {
        self.policies.judge_activations(&mut self.tables, now);
        for HarmfulRevision { policy, revision, reason } in
            std::mem::take(&mut self.policies.harmful)
        {
            self.change_policy(&policy, now, |life| life.remove_harmful(&revision, &reason, now));
        }
        for policy in self.policies.changing() {
            let follows = self.judge(|policies, subjects, effects| {
                policies.poll(&policy, subjects, now, effects)
            });
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

    /// Statistics of both cohorts of a policy during a canary, from a complete tally.
    pub fn cohorts(&self, policy: &PolicyName, tally: &ArmTally) -> Option<[ArmStatistics; 2]> {
        self.policies.cohorts(policy, tally)
    }
}
