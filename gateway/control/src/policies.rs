//! Threads of policies and their rollouts: pushes, changed files and operators' actions are passed to the core. Each policy
//! set has a thread that prepares plugins one after the other, so that a plugin that compiles for long delays no other set.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use evenkeel_config::PolicySet;
use evenkeel_core::{ArmTally, Gateway};
use evenkeel_host::DataDocuments;
use evenkeel_model::{PolicyName, SessionId};
use evenkeel_policies::{
    ActivationOptions, PluginSource, PolicyRecords, PolicyThreads, PolicyView, Preparation,
    RevisionLoad, SourceDocuments,
};
use evenkeel_process::random::draw;
use evenkeel_revisions::{Actor, Lifecycle, RolloutOutcome, RolloutReport, Strategy};
use tokio::sync::{broadcast, oneshot};

use crate::messages::ControlError;
use crate::reporting::{EventRecord, GatewayEvent};

/// Rollouts of a policy set that may wait, each with the bytes of its plugin; further ones are refused as busy.
const ROLLOUTS_MAX: usize = 8;

pub(crate) type RolloutReply = oneshot::Sender<Result<RolloutReport, ControlError>>;

/// The options of a push.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct PushRequest {
    /// Shares of the canary, per cent.
    pub canary: Option<Vec<u8>>,
    /// The duration of each stage.
    pub pace: Option<Duration>,
    /// Stay in the shadow stage until an operator promotes the revision.
    pub shadow: bool,
    /// Activate the revision at once, even if the policy set has `[rollout]`.
    pub now: bool,
    /// Accept a quarantined or older revision.
    pub force: bool,
    /// End the rollout of another revision.
    pub replace: bool,
    /// Data documents in place of those of the active revision with these names.
    pub documents: DataDocuments,
}

impl PushRequest {
    /// `None` activates the revision at once.
    pub(crate) fn strategy(
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

/// Threads of policies and their rollouts.
pub(crate) struct PolicyRunner {
    threads: PolicyThreads,
    counting: Option<CohortCount>,
    /// Threads that prepare revisions, by policy set; from the first rollout of the set on.
    preparations: BTreeMap<Arc<str>, Sender<PendingPreparation>>,
    events: broadcast::Sender<Arc<EventRecord>>,
    /// Rollout settings by policy set.
    settings: BTreeMap<Arc<str>, evenkeel_config::RolloutSettings>,
}

/// Readers that wait until the sessions of policies' cohorts are counted, some per turn of control.
struct CohortCount {
    replies: Vec<oneshot::Sender<Vec<PolicyView>>>,
    tallies: BTreeMap<PolicyName, ArmTally>,
    after: SessionId,
}

impl PolicyRunner {
    pub(crate) fn new(
        threads: PolicyThreads,
        settings: BTreeMap<Arc<str>, evenkeel_config::RolloutSettings>,
        events: broadcast::Sender<Arc<EventRecord>>,
    ) -> PolicyRunner {
        PolicyRunner { threads, counting: None, preparations: BTreeMap::new(), events, settings }
    }

    pub(crate) fn threads(&self) -> &PolicyThreads {
        &self.threads
    }

    pub(crate) fn threads_mut(&mut self) -> &mut PolicyThreads {
        &mut self.threads
    }

    /// The queue of the thread that prepares revisions of this set; the thread ends with control.
    fn preparations(&mut self, set: &Arc<str>) -> io::Result<&Sender<PendingPreparation>> {
        if !self.preparations.contains_key(set) {
            let (preparations, waiting) = crossbeam_channel::bounded(ROLLOUTS_MAX);
            let events = self.events.clone();
            let thread = std::thread::Builder::new().name(format!("rollout {set}"));
            thread.spawn(move || prepare(&waiting, &events))?;
            self.preparations.insert(Arc::clone(set), preparations);
        }
        Ok(&self.preparations[set])
    }

    /// Returns the revision of an operator's push, for [`PolicyRunner::roll_out`]. Without `bytes` it has the plugin of the
    /// active revision.
    pub(crate) fn pushed(
        &self,
        policy: &PolicyName,
        bytes: Option<Vec<u8>>,
        settings: Option<serde_json::Value>,
        push: PushRequest,
        gateway: &Gateway,
    ) -> Result<PluginSource, ControlError> {
        if !self.is_known(policy) {
            return Err(ControlError::NoPolicy(policy.clone()));
        }
        let active = || self.threads.active_plugin(policy, gateway).map(Vec::from);
        let missing = "no revision is active whose plugin the push could keep; push a plugin";
        let bytes = bytes.or_else(active).ok_or_else(|| ControlError::Policy(missing.into()))?;
        let strategy = push.strategy(self.settings.get(&policy.set));
        let how = ActivationOptions {
            force: push.force,
            replace: push.replace,
            strategy,
            ..ActivationOptions::at_once(Actor::Operator)
        };
        let (origin, seed, arrived) = ("pushed".into(), draw(), Instant::now());
        let (documents, configured) = (SourceDocuments::Changed(push.documents), None);
        Ok(PluginSource { bytes, settings, documents, origin, configured, seed, arrived, how })
    }

    /// Queues a revision to be prepared. The reply is sent after the core's decision.
    pub(crate) fn roll_out(
        &mut self,
        policy: &PolicyName,
        source: PluginSource,
        reply: RolloutReply,
        gateway: &mut Gateway,
    ) {
        if !self.is_known(policy) {
            let _ = reply.send(Err(ControlError::NoPolicy(policy.clone())));
            return;
        }
        let queue = match self.preparations(&policy.set) {
            Ok(queue) => queue.clone(),
            Err(error) => {
                tracing::error!(%policy, %error, "no thread for the rollout");
                let _ = reply.send(Err(ControlError::Unavailable));
                return;
            }
        };
        // The check comes first, because a new preparation supersedes others. Only this thread sends to the channel, so
        // it stays true.
        if queue.is_full() {
            let _ = reply.send(Err(ControlError::Unavailable));
            return;
        }
        let Some(preparation) = self.threads.preparation(policy, gateway) else {
            let _ = reply.send(Err(ControlError::NoPolicy(policy.clone())));
            return;
        };
        // Cannot fail: the thread ends with control, and the channel is not full.
        let _ = queue.try_send(PendingPreparation { preparation, source, reply });
    }

    /// Continues records of the process that decides about revisions. Plugins that are not loaded are prepared by a thread for
    /// each policy set.
    pub(crate) fn restore(&mut self, records: PolicyRecords, gateway: &mut Gateway, now: Instant) {
        let loads = self.threads.restore(records, gateway, now);
        self.load(loads, gateway, now);
    }

    fn load(&mut self, loads: Vec<RevisionLoad>, gateway: &mut Gateway, now: Instant) {
        let mut by_set: BTreeMap<Arc<str>, Vec<RevisionLoad>> = BTreeMap::new();
        for load in loads {
            by_set.entry(Arc::clone(&load.policy().set)).or_default().push(load);
        }
        for (set, loads) in by_set {
            let thread = std::thread::Builder::new().name(format!("restored {set}"));
            let policies: Vec<_> = loads.iter().map(|load| load.policy().clone()).collect();
            let loading = thread.spawn(move || {
                for load in loads {
                    evenkeel_policies::load(load);
                }
            });
            if let Err(error) = loading {
                tracing::error!(%set, %error, "revisions of the other process are not loaded");
                policies.iter().for_each(|policy| self.threads.reject(policy, gateway, now));
            }
        }
    }

    /// Returns true for a policy that was started and not stopped.
    pub(crate) fn is_known(&self, policy: &PolicyName) -> bool {
        self.threads.names().any(|name| name == policy)
    }

    /// Acts on the rollout of a policy. Returns an error for a stopped policy, too.
    pub(crate) fn change(
        &self,
        policy: &PolicyName,
        gateway: &mut Gateway,
        now: Instant,
        act: impl FnOnce(&mut Lifecycle) -> Result<RolloutReport, &'static str>,
    ) -> Result<RolloutReport, ControlError> {
        let rollout =
            self.is_known(policy).then(|| gateway.change_policy(policy, now, act)).flatten();
        let rollout = rollout.ok_or_else(|| ControlError::NoPolicy(policy.clone()))?;
        rollout.map_err(|reason| ControlError::Policy(reason.into()))
    }

    /// The policies with a failed last call.
    pub(crate) fn failing(&self, gateway: &Gateway, now: Instant) -> Vec<String> {
        let status = |policy: &PolicyName| gateway.policy(policy).map(|life| life.status(now));
        let is_failing =
            |policy: &&PolicyName| status(policy).is_some_and(|it| it.failing.is_some());
        self.threads.names().filter(is_failing).map(ToString::to_string).collect()
    }

    /// Applies `[rollout]` of the sets, starts the policies that they bind and those before did not, and ends those that they no longer
    /// bind. A policy that a drill stopped stays so.
    pub(crate) fn change_sets(
        &mut self,
        before: &[PolicySet],
        sets: &[PolicySet],
        gateway: &mut Gateway,
        now: Instant,
    ) -> io::Result<()> {
        let (mut loads, mut started) = (Vec::new(), Vec::new());
        for set in sets {
            let known = before.iter().find(|known| known.name == set.name);
            for hook in set.bindings.iter().map(|binding| binding.hook) {
                let policy = PolicyName { set: Arc::clone(&set.name), hook };
                let is_bound = known.is_some_and(|known| known.binding(hook).is_some());
                if is_bound || self.is_known(&policy) {
                    continue;
                }
                match self.threads.start(&policy, set.rollout.rules(), gateway) {
                    Ok(load) => loads.extend(load),
                    Err(error) => {
                        started.iter().for_each(|policy| _ = self.threads.stop(policy));
                        return Err(error);
                    }
                }
                started.push(policy);
            }
        }
        self.load(loads, gateway, now);
        let policies = |sets: &[PolicySet]| -> BTreeSet<PolicyName> {
            let of_set = |set: &PolicySet| {
                let policy = |hook| PolicyName { set: Arc::clone(&set.name), hook };
                set.bindings.iter().map(|it| policy(it.hook)).collect::<Vec<_>>()
            };
            sets.iter().flat_map(of_set).collect()
        };
        for policy in policies(before).difference(&policies(sets)) {
            self.threads.remove(policy);
            tracing::info!(%policy, "policy removed; the native default decides");
        }
        self.settings = evenkeel_config::rollout_settings(sets);
        self.preparations.retain(|name, _| sets.iter().any(|set| set.name == *name));
        for policy in self.threads.names() {
            let rules = self.settings.get(&policy.set).cloned().unwrap_or_default().rules();
            gateway.change_policy(policy, now, |life| life.set_rules(rules, now));
        }
        Ok(())
    }

    /// Replies once the sessions of policies' cohorts are counted.
    pub(crate) fn view(&mut self, reply: oneshot::Sender<Vec<PolicyView>>) {
        let begin =
            || CohortCount { replies: Vec::new(), tallies: BTreeMap::new(), after: SessionId(0) };
        self.counting.get_or_insert_with(begin).replies.push(reply);
    }

    /// Counts some sessions for policies' cohorts, and replies once all are counted.
    pub(crate) fn count_some(&mut self, gateway: &Gateway) {
        let Some(counting) = &mut self.counting else { return };
        if let Some(last) = gateway.tally(&mut counting.tallies, counting.after) {
            counting.after = last;
            return;
        }
        let Some(CohortCount { replies, tallies, .. }) = self.counting.take() else { return };
        let views = self.threads.views(gateway, &tallies, Instant::now());
        for reply in replies {
            let _ = reply.send(views.clone());
        }
    }
}

/// A revision that waits to be prepared.
struct PendingPreparation {
    preparation: Preparation,
    source: PluginSource,
    reply: RolloutReply,
}

fn prepare(waiting: &Receiver<PendingPreparation>, events: &broadcast::Sender<Arc<EventRecord>>) {
    for PendingPreparation { preparation, source, reply } in waiting {
        let rollout = evenkeel_policies::prepare(&preparation, source);
        // The status shows it as long as it exists.
        drop(preparation);
        // The core sends the events of all other outcomes.
        if rollout.outcome == RolloutOutcome::Refused {
            let event = GatewayEvent::Rollout(rollout.clone());
            let _ = events.send(Arc::new(EventRecord::now(event)));
        }
        let _ = reply.send(Ok(rollout));
    }
}

#[cfg(test)]
mod tests;
