//! Reloads nodes and policy sets while the gateway runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_alerts::AlertHandle;
use evenkeel_api::ClientSecrets;
use evenkeel_config::{
    Colour, ConfigInForce, GatewayConfig, GatewaySettings, InvalidSetting, PluginLocation,
    PolicyBinding, PolicySet, SecretFile,
};
use evenkeel_control::{
    ControlError, Handle, ListChange, NodeList, NotReloaded, PolicyRefused, ReloadReport,
    ReloadRequest, Reloaded,
};
use evenkeel_group::Group;
use evenkeel_host::Component;
use evenkeel_model::PolicyName;
use evenkeel_policies::{ActivationOptions, Foundry, PluginSource, RefusalRecord, TrustRules};
use evenkeel_revisions::{Actor, RolloutOutcome, RolloutReport};
use evenkeel_telemetry::Instruments;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch as cell};

use super::paths::{self, ServeError, ServePaths};
use super::watch::{self, UnfinishedChanges, WatchedFolders};

/// Maximum reload requests that wait.
const ASKED_MAX: usize = 8;

pub(super) struct AppliedConfig {
    started: Arc<GatewayConfig>,
    /// The policy sets that apply.
    sets: Vec<PolicySet>,
    rules: TrustRules,
    /// The API shows it.
    pub(super) in_force: cell::Sender<ConfigInForce>,
    /// The gateway's foundry, so that the rollout of a candidate finds it compiled; `None`: they are compiled in a separate
    /// one.
    pub(super) foundry: Option<Foundry>,
    /// Its member is told of changed nodes, witnesses and secrets.
    pub(super) group: Option<Group>,
    /// The secrets of the group; empty without one.
    pub(super) group_secrets: cell::Sender<Vec<SecretFile>>,
    /// The API's, which are replaced; `None`: the API keeps them.
    pub(super) client_secrets: Option<ClientSecrets>,
    /// Their receivers, and the dependencies, are reloaded.
    pub(super) alerts: Option<AlertHandle>,
    /// Its series of new nodes and policies begin with the reload.
    pub(super) instruments: Option<Arc<Instruments>>,
}

/// A binding that differs from the applied one.
struct ChangedBinding {
    policy: PolicyName,
    binding: PolicyBinding,
    source: PluginSource,
    /// Set once the plugin is compiled.
    component: Option<Component>,
}

/// SIGHUP and operators' requests, which wait until [`follow`] reads them.
pub(super) struct ReloadTriggers {
    hangup: Signal,
    requests: mpsc::Receiver<ReloadRequest>,
}

impl ReloadTriggers {
    /// To be called before the gateway serves: until then SIGHUP ends the process, and requests are refused.
    pub(super) async fn listen(handle: &Handle) -> std::io::Result<ReloadTriggers> {
        let hangup = signal(SignalKind::hangup())?;
        let (asks, requests) = mpsc::channel(ASKED_MAX);
        // Fails only if control has ended, and the gateway with it.
        let _ = handle.follow_reloads(asks).await;
        Ok(ReloadTriggers { hangup, requests })
    }
}

/// Reloads on SIGHUP, on a changed file, and on an operator's request. Changes made while the first policies are
/// compiled are read once these policies are active.
pub(super) async fn follow(
    place: &ServePaths,
    mut applied: AppliedConfig,
    handle: &Handle,
    mut triggers: ReloadTriggers,
) {
    let (word, mut changed) = mpsc::channel(1);
    let underway = UnfinishedChanges::default();
    let mut watched = watched(place, &applied.started);
    let mut watching = watch::watch(&watched, &word, &underway);
    if handle.policies_stand().await.is_err() {
        // Control ended, and the gateway with it.
        return;
    }
    // Files may have changed after they were read and before their folders were watched.
    let _ = word.try_send(());
    loop {
        let mut wish = ReloadOptions { force: false, within: None, by: Actor::Signal };
        let mut reply = None;
        tokio::select! {
            _ = triggers.hangup.recv() => {}
            _ = changed.recv() => {
                wish.by = Actor::File;
                watch::settle(&mut changed, &underway).await;
            }
            Some(reload) = triggers.requests.recv() => {
                let ReloadRequest { force, within, reply: asker } = reload;
                wish = ReloadOptions { force, within, by: Actor::Operator };
                reply = Some(asker);
            }
        }
        // Folders are watched again before files are read, since folders may have been replaced, and later changes must
        // not be missed.
        drop(std::mem::replace(&mut watching, watch::watch(&watched, &word, &underway)));
        let began = Instant::now();
        let outcome = match place.load_with_plugins().await {
            Ok(settings) => {
                let settings = Arc::new(settings);
                let outcome = applied.apply(&settings, &wish, handle).await;
                let now = self::watched(place, &settings);
                if now != watched {
                    watched = now;
                    watching = watch::watch(&watched, &word, &underway);
                    // Files there may have changed before they were watched.
                    let _ = word.try_send(());
                }
                outcome
            }
            Err(ServeError::Invalid(invalid)) => Err(refuse(&invalid)),
            Err(error) => {
                tracing::error!(%error, "reload failed; nothing changed");
                let rendered = error.to_string();
                Err(NotReloaded::Invalid { first: rendered.as_str().into(), rendered })
            }
        };
        let report = ReloadReport {
            by: wish.by,
            took: began.elapsed(),
            outcome: outcome.clone().map_err(|error| error.summary()),
        };
        // Fails only if control has ended.
        let _ = handle.note_reload(Box::new(report)).await;
        if let Some(reply) = reply {
            // The requester may have disconnected.
            let _ = reply.send(outcome);
        }
    }
}

/// The folders of policy sets, plugins and data documents, and the file that lists nodes.
fn watched(place: &ServePaths, settings: &GatewayConfig) -> WatchedFolders {
    let named = place.policies.as_ref().or(settings.gateway.policies.as_ref());
    let files: Vec<&Path> = settings
        .bindings()
        .flat_map(|(_, binding)| {
            let plugin = match &binding.plugin {
                PluginLocation::File(path) => Some(path),
                // A digest names the same plugin forever.
                PluginLocation::Shipped(_) | PluginLocation::Registry(_) => None,
            };
            plugin.into_iter().chain(binding.documents.values()).map(PathBuf::as_path)
        })
        .collect();
    let beside = files.iter().filter_map(|file| file.parent());
    let config = place.config.as_deref();
    let folders = named.map(PathBuf::as_path).into_iter().chain(beside).chain(config);
    let here = |folder: &Path| match folder.as_os_str().is_empty() {
        true => std::env::current_dir(),
        false => std::path::absolute(folder),
    };
    WatchedFolders {
        folders: folders.filter_map(|folder| here(folder).ok()).collect(),
        files: files.iter().filter_map(|file| here(file).ok()).collect(),
    }
}

struct ReloadOptions {
    /// Remove more nodes than the guard allows.
    force: bool,
    /// Deadline for removed nodes.
    within: Option<Duration>,
    by: Actor,
}

fn refuse(invalid: &[InvalidSetting]) -> NotReloaded {
    let found = InvalidSetting::render(invalid, Colour::Plain);
    tracing::warn!("saved configuration is invalid; nothing changed:\n{found}");
    let first = invalid.first().map(|invalid| format!("{}: {invalid}", invalid.place()));
    NotReloaded::Invalid { rendered: found, first: first.unwrap_or_default().into() }
}

impl AppliedConfig {
    pub(super) fn of(settings: &Arc<GatewayConfig>) -> AppliedConfig {
        AppliedConfig {
            started: Arc::clone(settings),
            sets: settings.sets.clone(),
            rules: TrustRules::of(settings),
            in_force: cell::Sender::new(ConfigInForce::at_start(settings)),
            foundry: None,
            group: None,
            group_secrets: cell::Sender::new(secrets_of_group(settings).to_vec()),
            client_secrets: None,
            alerts: None,
            instruments: None,
        }
    }

    /// Applies nodes, policy sets and each changed binding; applies nothing if a plugin cannot run or the list of nodes
    /// is refused. A binding that is refused later is reported, and tried again at the next reload.
    async fn apply(
        &mut self,
        settings: &Arc<GatewayConfig>,
        wish: &ReloadOptions,
        handle: &Handle,
    ) -> Result<Reloaded, NotReloaded> {
        let mut waiting = keys_for_restart(&self.started, settings);
        let secrets = self.next_secrets(settings, &mut waiting);
        if !waiting.is_empty() {
            tracing::warn!("keys changed that need a restart: {}", waiting.join("; "));
        }
        let mut candidates =
            self.candidates(settings, handle).await?.map_err(|invalid| refuse(&invalid))?;
        if !candidates.is_empty() {
            let place = || Foundry::of(evenkeel_host::Engine::new(), settings);
            let foundry = self.foundry.get_or_insert_with(place).clone();
            candidates = try_out(foundry, Arc::clone(settings), candidates, handle).await?;
        }
        let nodes = self.list_nodes(settings, wish, handle).await?;
        if let Some(group) = &self.group {
            group.reload(settings).await;
            if let Some(secrets) = secrets {
                group.replace_secrets(secrets.to_vec()).await;
                self.group_secrets.send_replace(secrets.to_vec());
            }
        }
        if let Some(clients) = &self.client_secrets {
            clients.reload(settings);
        }
        if let Some(instruments) = &self.instruments {
            instruments.begin(settings);
        }
        if let Some(alerts) = &self.alerts {
            alerts.reload(settings).await;
        }
        let mut warnings = self.change_sets(&settings.sets, handle).await?;
        let mut refused = self.govern(settings, &candidates, handle).await;
        for candidate in candidates {
            refused.extend(self.roll_out(candidate, wish.by, handle).await.err());
        }
        let in_force = ConfigInForce::after_reload(&self.started, settings, waiting.clone());
        self.in_force.send_replace(in_force);
        let read = Arc::clone(settings);
        // A folder of the network may hang.
        let fault = tokio::task::spawn_blocking(move || paths::certificate_fault(&read)).await;
        warnings.extend(fault.ok().flatten());
        warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        Ok(Reloaded { nodes, waiting, refused, warnings })
    }

    /// The bindings that are new, or have another plugin, other settings, data documents or another grant than was rolled
    /// out last.
    async fn candidates(
        &self,
        settings: &GatewayConfig,
        handle: &Handle,
    ) -> Result<Result<Vec<ChangedBinding>, Vec<InvalidSetting>>, NotReloaded> {
        // Fails only if control ended, and the gateway with it.
        let configured = handle.configured_policies().await.map_err(|_| NotReloaded::NoReloader)?;
        let (mut candidates, mut invalid) = (Vec::new(), Vec::new());
        for (policy, binding) in settings.bindings() {
            let before = configured.get(&policy);
            let is_bound =
                |set: &PolicySet| set.name == policy.set && set.binding(policy.hook).is_some();
            if before.is_none() && self.sets.iter().any(is_bound) {
                // A drill stopped it.
                continue;
            }
            match PluginSource::read(binding) {
                Ok(source) if before == Some(&source.configured) => {}
                Ok(source) => {
                    let (binding, component) = (binding.clone(), None);
                    candidates.push(ChangedBinding { policy, binding, source, component });
                }
                Err(missing) => invalid.push(*missing),
            }
        }
        Ok(if invalid.is_empty() { Ok(candidates) } else { Err(invalid) })
    }

    /// The secrets of the group, if they changed. The first one signs: until the others accept it, too, the members would part, so
    /// that a new one comes second. Otherwise they wait for a restart.
    fn next_secrets<'settings>(
        &self,
        settings: &'settings GatewayConfig,
        waiting: &mut Vec<String>,
    ) -> Option<&'settings [SecretFile]> {
        let (applied, saved) = (self.group_secrets.borrow(), secrets_of_group(settings));
        let first = saved.first().filter(|_| !applied.is_empty() && *applied != saved)?;
        if applied.contains(first) {
            return Some(saved);
        }
        tracing::warn!(
            "the first secret of [cluster] is a new one, which no other member accepts yet: add it as the second line at all members first"
        );
        waiting.push("[cluster] secret_file".to_owned());
        None
    }

    async fn list_nodes(
        &self,
        settings: &GatewayConfig,
        wish: &ReloadOptions,
        handle: &Handle,
    ) -> Result<ListChange, NotReloaded> {
        let &ReloadOptions { force, within, by } = wish;
        let list = NodeList { nodes: settings.nodes.clone(), force, within, by };
        match handle.list_nodes(Box::new(list)).await {
            Ok(listed) => Ok(listed?),
            // Control ended, and the gateway with it.
            Err(_) => Err(NotReloaded::NoReloader),
        }
    }

    /// Returns a warning for each scenario that is gone and has open rooms.
    async fn change_sets(
        &mut self,
        sets: &[PolicySet],
        handle: &Handle,
    ) -> Result<Vec<String>, NotReloaded> {
        if sets.iter().map(settings_of).eq(self.sets.iter().map(settings_of)) {
            return Ok(Vec::new());
        }
        match handle.change_sets(sets.to_vec()).await {
            Ok(Ok(retired)) => {
                self.sets = sets.to_vec();
                tracing::info!("policy sets reloaded");
                let warnings = retired.into_iter().map(|(scenario, rooms)| {
                    format!(
                        "scenario `{scenario}` is gone: open rooms ({rooms}) keep its settings until they end; new offers are refused"
                    )
                });
                return Ok(warnings.collect());
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "no thread for a new policy; policy sets stay");
                return Err(NotReloaded::NoThread(error.to_string()));
            }
            // Control ended, and the gateway with it.
            Err(_) => {}
        }
        Ok(Vec::new())
    }

    /// Applies `[trust]` and the grants of bindings. Active plugins that violate them are reported but stay, since no
    /// replacement may exist yet. Policies report revoked plugins that were pushed.
    async fn govern(
        &mut self,
        settings: &GatewayConfig,
        candidates: &[ChangedBinding],
        handle: &Handle,
    ) -> Vec<PolicyRefused> {
        let rules = TrustRules::of(settings);
        if rules == self.rules || handle.govern(Box::new(rules.clone())).await.is_err() {
            return Vec::new();
        }
        tracing::info!("[trust] and grants reloaded");
        self.rules = rules;
        let replaced = |policy: &PolicyName| candidates.iter().any(|new| new.policy == *policy);
        let kept = settings.bindings().filter(|(policy, _)| !replaced(policy));
        let mistrusted = kept.filter_map(|(policy, binding)| {
            let refused = self.rules.judge(&policy, &PluginSource::read(binding).ok()?.bytes).err()?;
            tracing::warn!(%policy, code = refused.code(), %refused, "active plugin violates [trust]; kept");
            let reason = format!("active plugin violates [trust]; kept: {refused}");
            Some(PolicyRefused { policy, reason })
        });
        mistrusted.collect()
    }

    async fn roll_out(
        &self,
        candidate: ChangedBinding,
        by: Actor,
        handle: &Handle,
    ) -> Result<(), PolicyRefused> {
        let ChangedBinding { policy, binding, mut source, component } = candidate;
        let set = self.sets.iter().find(|set| set.name == policy.set);
        let strategy = set.map(|set| set.rollout.strategy());
        let strategy = strategy.filter(|strategy| !strategy.is_at_once());
        // Restoring the previous file rolls the revision back immediately.
        source.how =
            ActivationOptions { strategy, returns: true, ..ActivationOptions::at_once(by) };
        let began = Instant::now();
        let rolled_out = handle.roll_out(policy.clone(), Box::new(source)).await;
        // Dropped only here, so that the rollout found the plugin compiled.
        drop(component);
        match rolled_out {
            Ok(RolloutReport {
                outcome:
                    RolloutOutcome::Activated
                    | RolloutOutcome::Unchanged
                    | RolloutOutcome::Started
                    | RolloutOutcome::RolledBack,
                ..
            }) => {
                tracing::info!(%policy, took = ?began.elapsed(), "policy reloaded, or its rollout began");
                Ok(())
            }
            Err(ControlError::NotOwner) => {
                tracing::info!(%policy, "the owner of the group decides about revisions; this one waits for a reload as the owner");
                Ok(())
            }
            Ok(rollout) => {
                let reason = rollout.reason.as_deref().unwrap_or("it was refused");
                let invalid = binding.plugin_invalid(reason, "a plugin that may answer");
                let found = InvalidSetting::render(&[invalid], Colour::Plain);
                tracing::warn!(%policy, "plugin refused; the active revision stays:\n{found}");
                Err(PolicyRefused { policy, reason: reason.to_owned() })
            }
            Err(failed) => {
                tracing::warn!(%policy, ?failed, "policy not reloaded");
                let reason = match failed {
                    ControlError::Policy(reason) => reason.into_string(),
                    ControlError::NoPolicy(none) => format!("there is no policy {none}"),
                    ControlError::Starting => {
                        "revisions of an earlier process are being loaded; reload again".to_owned()
                    }
                    // Too many rollouts wait, or control ended.
                    _ => "too many rollouts wait; reload again".to_owned(),
                };
                Err(PolicyRefused { policy, reason })
            }
        }
    }
}

/// Compiles each candidate and installs it with its settings. Fails if any of them fails.
async fn try_out(
    foundry: Foundry,
    settings: Arc<GatewayConfig>,
    mut candidates: Vec<ChangedBinding>,
    handle: &Handle,
) -> Result<Vec<ChangedBinding>, NotReloaded> {
    let tried = on_thread(move || {
        let unfit = candidates.iter_mut().filter_map(|candidate| {
            let ChangedBinding { policy, binding, source, component, .. } = candidate;
            let refused = match evenkeel_policies::try_out(&foundry, &settings, binding, source) {
                Ok(vetted) => {
                    *component = Some(vetted);
                    return None;
                }
                Err(refused) => refused,
            };
            let (origin, reason) = (source.origin.clone(), refused.to_string().into());
            let refusal = RefusalRecord::now(policy.clone(), origin, refused.code(), reason);
            Some((binding.refused(&refused), refusal))
        });
        let unfit: Vec<(InvalidSetting, RefusalRecord)> = unfit.collect();
        if unfit.is_empty() { Ok(candidates) } else { Err(unfit) }
    });
    match tried.await? {
        Ok(candidates) => Ok(candidates),
        Err(unfit) => {
            let (invalid, refusals): (Vec<_>, Vec<_>) = unfit.into_iter().unzip();
            for refusal in refusals {
                handle.note_refusal(refusal).await;
            }
            Err(refuse(&invalid))
        }
    }
}

/// Runs `work` on another thread and waits for it; a panic there fails the reload.
async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, NotReloaded> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "saved configuration could not be tried; nothing changed");
        NotReloaded::Untried(error.to_string())
    })
}

/// Empty without a group.
fn secrets_of_group(settings: &GatewayConfig) -> &[SecretFile] {
    settings.cluster.as_ref().map_or(&[][..], |group| &group.secrets)
}

/// Lists each changed table that needs a restart, by its name in the file. A reload applies nodes, witnesses, policy
/// sets, receivers of advice and alerts, dependencies, and secrets of clients and of the group.
fn keys_for_restart(old: &GatewayConfig, new: &GatewayConfig) -> Vec<String> {
    // The sets of another folder are reloaded.
    let gateway = GatewaySettings { policies: old.gateway.policies.clone(), ..new.gateway.clone() };
    let (mut admin, mut webrtc, mut cluster) =
        (new.admin.clone(), new.webrtc.clone(), new.cluster.clone());
    if let (Some(tcp), Some(old)) = (&mut admin.tcp, &old.admin.tcp) {
        (tcp.tokens, tcp.read_tokens) = (old.tokens.clone(), old.read_tokens.clone());
    }
    if let (Some(webrtc), Some(old)) = (&mut webrtc, &old.webrtc) {
        webrtc.token_keys = old.token_keys.clone();
    }
    if let (Some(cluster), Some(old)) = (&mut cluster, &old.cluster) {
        cluster.secrets = old.secrets.clone();
    }
    let tables = [
        (old.gateway != gateway, "[gateway]"),
        (old.listens != new.listens, "[[listen]]"),
        (new.regions.iter().any(|region| !old.regions.contains(region)), "[[region]]"),
        (old.admin != admin, "[admin]"),
        (old.webrtc != webrtc, "[webrtc]"),
        (old.telemetry != new.telemetry, "[telemetry]"),
        (old.limits != new.limits, "[limits]"),
        (old.breaker != new.breaker || old.client_breakers != new.client_breakers, "[breaker]"),
        (old.forecast != new.forecast, "[forecast]"),
        (old.elastic != new.elastic, "[elastic]"),
        (old.detector != new.detector, "[detector]"),
        (old.cluster != cluster, "[cluster]"),
        (old.index != new.index, "[index]"),
    ];
    let tables = tables.into_iter().filter(|(differs, _)| *differs);
    tables.map(|(_, table)| table.to_owned()).collect()
}

/// The part of a set that its plugins do not contain.
fn settings_of(set: &PolicySet) -> impl PartialEq + use<> {
    let bindings = set.bindings.iter().map(|binding| (binding.hook, binding.on_fault));
    let bindings: Vec<_> = bindings.collect();
    (Arc::clone(&set.name), set.scenarios.clone(), set.rollout.clone(), bindings)
}

#[cfg(test)]
pub(crate) mod tests;
