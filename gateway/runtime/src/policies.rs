//! The policies of a configuration, at the start and on a reload.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};
use evenkeel_config::{GatewayConfig, PluginLocation};
use evenkeel_control::{Actor, ControlRequest};
use evenkeel_core::Gateway;
use evenkeel_host::{BINARY_BYTES_MAX, Component, PluginRefusal};
use evenkeel_model::{CatalogEntry, Hook, NodeId, PolicyName};
use evenkeel_policies::{ActivationOptions, Foundry, PluginSource, PolicyThreads, Preparation};
use evenkeel_process::file;
use tokio::sync::mpsc;

use super::vital::RunError;

/// First revisions grouped by plugin, so that a plugin of several policies is compiled once.
pub(super) type Firsts = VecDeque<Vec<(Preparation, PluginSource)>>;

/// Starts all policies, still without a revision.
pub(super) fn policies(
    settings: &GatewayConfig,
    core: &evenkeel_model::CoreSettings,
    gateway: &mut Gateway,
    words: mpsc::Sender<evenkeel_policies::PolicyReport>,
    recorder: evenkeel_policies::PolicyRecorder,
) -> Result<(PolicyThreads, Firsts), RunError> {
    let policies = PolicyThreads::new(catalog(core), &core.limits, words);
    let mut policies = policies.configured(settings).recorded_by(recorder);
    let mut firsts: Vec<(&PluginLocation, Vec<(Preparation, PluginSource)>)> = Vec::new();
    for set in &settings.sets {
        for hook in Hook::ALL {
            let Some(binding) = set.binding(hook) else {
                continue;
            };
            let policy = PolicyName { set: set.name.clone(), hook };
            let failed =
                |reason: String| RunError::Policy { policy: policy.clone(), reason: reason.into() };
            let source = source(binding).map_err(|invalid| failed(invalid.found))?;
            policies.start(&policy, set.rollout.rules(), gateway)?;
            let preparation = policies
                .preparation(&policy, gateway)
                .ok_or_else(|| failed("it was not started".into()))?;
            match firsts.iter_mut().find(|(plugin, _)| *plugin == &binding.plugin) {
                Some((_, same)) => same.push((preparation, source)),
                None => firsts.push((&binding.plugin, vec![(preparation, source)])),
            }
        }
    }
    Ok((policies, firsts.into_iter().map(|(_, same)| same).collect()))
}

/// The first revisions, which are compiled while packets are already forwarded.
#[derive(Debug)]
pub(super) struct Coming(Receiver<RunError>);

impl Default for Coming {
    fn default() -> Self {
        Coming(bounded(1).1)
    }
}

impl Coming {
    /// Loads the first revisions in parallel, one per core, and tells control when all are active.
    pub(super) fn begin(
        firsts: Firsts,
        requests: mpsc::Sender<ControlRequest>,
    ) -> std::io::Result<Coming> {
        let (failed, failures) = bounded(1);
        if !firsts.is_empty() {
            let bringing = std::thread::Builder::new().name("first policies".into());
            bringing.spawn(move || {
                if bring_in(firsts, &failed) {
                    // Control may have ended, and then needs no message.
                    let _ = requests.blocking_send(ControlRequest::PoliciesStand);
                }
            })?;
        }
        Ok(Coming(failures))
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
fn bring_in(firsts: Firsts, failed: &Sender<RunError>) -> bool {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(firsts.len());
    let firsts = Mutex::new(firsts);
    // No thread panics while it holds the lock.
    let firsts = || firsts.lock().unwrap_or_else(PoisonError::into_inner);
    let fail = |failure| {
        firsts().clear();
        // The first failure is enough.
        let _ = failed.try_send(failure);
        false
    };
    let next = || firsts().pop_front();
    let work = || {
        while let Some(same) = next() {
            for (preparation, source) in same {
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

/// Compiles a binding's plugin and applies its settings and trust rules.
pub fn try_out(
    foundry: &Foundry,
    settings: &GatewayConfig,
    binding: &evenkeel_config::PolicyBinding,
    source: &PluginSource,
) -> Result<Component, PluginRefusal> {
    let evenkeel_config::PluginLimits { ref grant, .. } = binding.allowed;
    let unsigned = settings.trust.unsigned(&binding.allowed);
    settings.trust.keys.judge(&source.bytes, unsigned)?;
    let component = foundry.vet(&source.bytes)?;
    let (engine, catalog) = (foundry.engine(), catalog(&settings.core()));
    let (hook, given) = (binding.hook, source.settings.clone().unwrap_or_default());
    let seed = source.seed;
    evenkeel_host::BoundPlugin::install_within(
        engine, &component, hook, given, catalog, seed, grant,
    )?;
    Ok(component)
}

/// Turns a refusal into an error at the plugin's place in the file.
pub fn at_place(
    binding: &evenkeel_config::PolicyBinding,
    refused: &PluginRefusal,
) -> Box<evenkeel_config::InvalidSetting> {
    match refused {
        PluginRefusal::Setting { path, expected, found } => {
            Box::new(binding.invalid(path.trim_start_matches("$."), &**found, &**expected))
        }
        refused => Box::new(binding.plugin_invalid(refused.to_string(), "a plugin that runs")),
    }
}

/// Reads a plugin from the binary or a file; an error shows the plugin's place in the policy set.
pub fn source(
    binding: &evenkeel_config::PolicyBinding,
) -> Result<PluginSource, Box<evenkeel_config::InvalidSetting>> {
    let missing =
        |found: String| Box::new(binding.plugin_invalid(found, "a plugin that can be read"));
    let (bytes, origin) = match &binding.plugin {
        PluginLocation::Shipped(name) => {
            let shipped = evenkeel_host::shipped().iter().find(|shipped| shipped.name == *name);
            let shipped =
                shipped.ok_or_else(|| missing(format!("no plugin {name} is in this binary")))?;
            (shipped.bytes.to_vec(), "embedded".to_owned())
        }
        PluginLocation::File(path) => {
            let bytes = file::read(path, BINARY_BYTES_MAX as u64)
                .map_err(|error| missing(format!("`{}`: {error}", path.display())))?;
            (bytes, path.display().to_string())
        }
    };
    let (settings, seed) = (Some(binding.settings.clone()), fastrand::u64(..));
    let how = ActivationOptions::at_once(Actor::File);
    Ok(PluginSource { bytes, settings, origin: origin.into(), seed, arrived: Instant::now(), how })
}

/// The catalog of regions, zones and nodes at the start.
fn catalog(core: &evenkeel_model::CoreSettings) -> Vec<CatalogEntry> {
    let regions = core.regions.iter().map(|name| &**name);
    let zones = core.zones.iter().map(|zone| (zone.region, &*zone.name));
    let nodes = (0..).map(NodeId).zip(&core.nodes);
    let nodes = nodes.map(|(id, node)| (id, node.zone, &*node.name));
    evenkeel_policies::catalog(core.home, regions, zones, nodes)
}

#[cfg(test)]
mod tests;
