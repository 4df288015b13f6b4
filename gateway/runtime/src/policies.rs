//! The policies of a configuration at the start.

use std::collections::VecDeque;
use std::sync::Mutex;

use crossbeam_channel::{Receiver, Sender, bounded};
use evenkeel_config::{GatewayConfig, PluginLocation};
use evenkeel_control::ControlRequest;
use evenkeel_core::Gateway;
use evenkeel_model::{Hook, PolicyName};
use evenkeel_policies::{PluginSource, PolicyThreads, Preparation, RevisionLoad};
use evenkeel_process::lock;
use tokio::sync::mpsc;

use super::threads::RunError;

/// First revisions grouped by plugin, so that a plugin of several policies is compiled once.
pub(super) type FirstRevisionQueue = VecDeque<Vec<FirstRevision>>;

/// The first revision of a policy in this process.
pub(super) struct FirstRevision {
    /// The revisions of an earlier process.
    earlier: Option<RevisionLoad>,
    /// The plugin of the configuration, without an earlier one that runs.
    configured: (Preparation, PluginSource),
}

/// Starts all policies, still without a revision.
pub(super) fn start_policies(
    policies: &mut PolicyThreads,
    settings: &GatewayConfig,
    gateway: &mut Gateway,
) -> Result<FirstRevisionQueue, RunError> {
    let mut firsts: Vec<(&PluginLocation, Vec<FirstRevision>)> = Vec::new();
    for set in &settings.sets {
        for hook in Hook::ALL {
            let Some(binding) = set.binding(hook) else {
                continue;
            };
            let policy = PolicyName { set: set.name.clone(), hook };
            let failed =
                |reason: String| RunError::Policy { policy: policy.clone(), reason: reason.into() };
            let source = PluginSource::read(binding).map_err(|invalid| failed(invalid.found))?;
            let earlier = policies.start(&policy, set.rollout.rules(), gateway)?;
            let preparation = policies
                .preparation(&policy, gateway)
                .ok_or_else(|| failed("it was not started".into()))?;
            let first = FirstRevision { earlier, configured: (preparation, source) };
            match firsts.iter_mut().find(|(plugin, _)| *plugin == &binding.plugin) {
                Some((_, same)) => same.push(first),
                None => firsts.push((&binding.plugin, vec![first])),
            }
        }
    }
    Ok(firsts.into_iter().map(|(_, same)| same).collect())
}

/// The first revisions, which are compiled while packets are already forwarded.
#[derive(Debug)]
pub(super) struct FirstPolicies(Receiver<RunError>);

impl Default for FirstPolicies {
    fn default() -> Self {
        FirstPolicies(bounded(1).1)
    }
}

impl FirstPolicies {
    /// Loads the first revisions in parallel, one per core, and tells control when all are active.
    pub(super) fn begin(
        firsts: FirstRevisionQueue,
        requests: mpsc::Sender<ControlRequest>,
    ) -> std::io::Result<FirstPolicies> {
        let (failed, failures) = bounded(1);
        if !firsts.is_empty() {
            let loading = std::thread::Builder::new().name("first policies".into());
            loading.spawn(move || {
                if load_first_revisions(firsts, &failed) {
                    // Control may have ended, and then needs no message.
                    let _ = requests.blocking_send(ControlRequest::PoliciesStand);
                }
            })?;
        }
        Ok(FirstPolicies(failures))
    }

    /// Waits until all first revisions are active.
    pub(super) fn wait(&self) -> Result<(), RunError> {
        self.0.recv().map_or(Ok(()), Err)
    }

    pub(super) fn failure(&self) -> Option<RunError> {
        self.0.try_recv().ok()
    }
}

/// Loads the first revisions; returns true if all are active. The first failure is reported at once and ends the
/// gateway, so the remaining ones are skipped.
fn load_first_revisions(firsts: FirstRevisionQueue, failed: &Sender<RunError>) -> bool {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(firsts.len());
    let firsts = Mutex::new(firsts);
    let firsts = || lock(&firsts);
    let fail = |failure| {
        firsts().clear();
        // The first failure is enough.
        let _ = failed.try_send(failure);
        false
    };
    let next = || firsts().pop_front();
    let work = || {
        while let Some(same) = next() {
            for FirstRevision { earlier, configured: (preparation, source) } in same {
                if earlier.is_some_and(evenkeel_policies::load) {
                    continue;
                }
                let policy = preparation.policy().clone();
                if let Err(reason) = evenkeel_policies::begin(&preparation, source) {
                    return fail(RunError::Policy { policy, reason });
                }
            }
        }
        true
    };
    std::thread::scope(|scope| {
        let working: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let ended = working.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_| {
                let ended = "the thread that compiles policies ended";
                fail(std::io::Error::other(ended).into())
            })
        });
        // `count` waits for all threads.
        ended.filter(|good| !good).count() == 0
    })
}

#[cfg(test)]
mod tests;
