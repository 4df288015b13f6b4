//! Passes pushes, changed files and operators' orders about policies to the core. A separate thread prepares plugins
//! one after the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use evenkeel_model::PolicyName;
use evenkeel_policies::{ActivationOptions, PluginSource, Preparation};
use evenkeel_process::random::draw;
use evenkeel_revisions::{
    Actor, Lifecycle, RolloutAction, RolloutOutcome, RolloutReport, Strategy,
};
use tokio::sync::{broadcast, oneshot};

use super::messages::{ControlError, EventRecord, GatewayEvent};
use super::thread::{Control, PolicyRunner};

/// Rollouts that may wait, each with the bytes of its plugin; further ones are refused as busy.
const ROLLOUTS_MAX: usize = 8;

pub(super) type RolloutReply = oneshot::Sender<Result<RolloutReport, ControlError>>;

#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct PushRequest {
    /// Shares of the canary, per cent.
    pub canary: Option<Vec<u8>>,
    pub pace: Option<Duration>,
    /// Stay in the shadow stage until an operator promotes the revision.
    pub shadow: bool,
    /// Activate the revision at once, even if the policy set has `[rollout]`.
    pub now: bool,
    /// Accept a quarantined or older revision.
    pub force: bool,
}

impl PushRequest {
    /// `None` activates the revision at once.
    pub(super) fn strategy(
        &self,
        set: Option<&evenkeel_config::RolloutSettings>,
    ) -> Option<Strategy> {
        let asked = self.canary.is_some() || self.pace.is_some() || self.shadow;
        let set = set.cloned().unwrap_or_default();
        if self.now || !asked && !set.is_stated {
            return None;
        }
        let strategy = set.strategy();
        // A push with its own shares skips the shadow stage.
        let shadow = if self.canary.is_some() { Duration::ZERO } else { strategy.shadow };
        let strategy = Strategy {
            steps: self.canary.clone().unwrap_or(strategy.steps),
            each: self.pace.unwrap_or(strategy.each),
            shadow,
            stays_in_shadow: self.shadow,
            held: strategy.held,
        };
        (!strategy.is_at_once()).then_some(strategy)
    }
}

/// A revision that waits to be prepared.
pub(super) struct Rolling {
    preparation: Preparation,
    source: PluginSource,
    reply: RolloutReply,
}

/// Starts the thread that prepares revisions; it ends with control.
pub(super) fn start(
    events: broadcast::Sender<Arc<EventRecord>>,
) -> std::io::Result<Sender<Rolling>> {
    let (rollouts, waiting) = crossbeam_channel::bounded(ROLLOUTS_MAX);
    std::thread::Builder::new().name("rollout".into()).spawn(move || prepare(&waiting, &events))?;
    Ok(rollouts)
}

fn prepare(waiting: &Receiver<Rolling>, events: &broadcast::Sender<Arc<EventRecord>>) {
    for Rolling { preparation, source, reply } in waiting {
        let rollout = evenkeel_policies::prepare(&preparation, source);
        // The core sends the events of all other outcomes.
        if rollout.outcome == RolloutOutcome::Refused {
            let event = GatewayEvent::Rollout(rollout.clone());
            let _ = events.send(Arc::new(EventRecord::now(event)));
        }
        let _ = reply.send(Ok(rollout));
    }
}

impl Control {
    pub(super) fn push(
        &mut self,
        (policy, bytes, settings): (PolicyName, Vec<u8>, Option<serde_json::Value>),
        wish: &PushRequest,
        reply: RolloutReply,
        now: Instant,
    ) {
        let strategy = wish.strategy(self.policies.settings.get(&policy.set));
        let how = ActivationOptions {
            force: wish.force,
            strategy,
            ..ActivationOptions::at_once(Actor::Operator)
        };
        let (origin, seed) = ("pushed".into(), draw());
        let source = PluginSource { bytes, settings, origin, seed, arrived: now, how };
        self.roll_out(&policy, source, reply);
    }

    /// Queues a revision to be prepared. The reply is sent after the core's decision.
    pub(super) fn roll_out(
        &mut self,
        policy: &PolicyName,
        source: PluginSource,
        reply: RolloutReply,
    ) {
        // This revision would supersede the policy's first revision, and then the gateway might refuse it.
        if self.offers.awaits_policies() {
            let _ = reply.send(Err(ControlError::Starting));
            return;
        }
        // The check comes first, because a new preparation supersedes others. Only this thread sends to the channel, so
        // it stays true.
        if self.policies.rollouts.is_full() {
            let _ = reply.send(Err(ControlError::Unavailable));
            return;
        }
        let Some(preparation) = self.policies.threads.preparation(policy, &mut self.gateway) else {
            let _ = reply.send(Err(ControlError::NoPolicy(policy.clone())));
            return;
        };
        // Cannot fail: the thread ends with control, and the channel is not full.
        let _ = self.policies.rollouts.try_send(Rolling { preparation, source, reply });
    }

    pub(super) fn roll_back(&mut self, policy: &PolicyName, reply: RolloutReply, now: Instant) {
        let rollout = match self.policies.known_policy(policy) {
            Ok(()) if self.offers.awaits_policies() => Err(ControlError::Starting),
            known => known.and_then(|()| {
                let roll_back = |life: &mut Lifecycle| life.handle_rollback(now);
                answer(policy, self.gateway.change_policy(policy, now, roll_back))
            }),
        };
        let _ = reply.send(rollout);
    }

    /// Promotes, pauses, resumes or aborts a rollout for an operator.
    pub(super) fn act_on_rollout(
        &mut self,
        policy: &PolicyName,
        verb: RolloutAction,
        reply: RolloutReply,
        now: Instant,
    ) {
        let rollout = self.policies.known_policy(policy);
        let act = |life: &mut Lifecycle| life.handle_action(verb, now);
        let rollout =
            rollout.and_then(|()| answer(policy, self.gateway.change_policy(policy, now, act)));
        let _ = reply.send(rollout);
    }

    pub(super) fn policies_failing(&self, now: Instant) -> Vec<String> {
        let status = |policy: &PolicyName| self.gateway.policy(policy).map(|life| life.status(now));
        let is_failing =
            |policy: &&PolicyName| status(policy).is_some_and(|it| it.failing.is_some());
        self.policies.threads.names().filter(is_failing).map(ToString::to_string).collect()
    }

    /// Applies a changed `[rollout]` of policy sets.
    pub(super) fn take_rollout_settings(
        &mut self,
        paces: BTreeMap<Arc<str>, evenkeel_config::RolloutSettings>,
        now: Instant,
    ) {
        self.policies.settings = paces;
        for policy in self.policies.threads.names() {
            let rules =
                self.policies.settings.get(&policy.set).cloned().unwrap_or_default().rules();
            self.gateway.change_policy(policy, now, |life| life.set_rules(rules, now));
        }
    }
}

impl PolicyRunner {
    /// Returns an error for a stopped policy, too.
    fn known_policy(&self, policy: &PolicyName) -> Result<(), ControlError> {
        match self.threads.names().any(|name| name == policy) {
            true => Ok(()),
            false => Err(ControlError::NoPolicy(policy.clone())),
        }
    }
}

fn answer(
    policy: &PolicyName,
    rollout: Option<Result<RolloutReport, &'static str>>,
) -> Result<RolloutReport, ControlError> {
    let rollout = rollout.ok_or_else(|| ControlError::NoPolicy(policy.clone()))?;
    rollout.map_err(|reason| ControlError::Policy(reason.into()))
}

#[cfg(test)]
mod tests;
