//! Nodes, policies, and modes of scenarios, that change while the gateway runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use evenkeel_core::{Affinity, Mode, PolicyName, RegionId, Scenario};
use evenkeel_host::Component;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::watch::{self, Underway, Watched};
use super::{Failure, Place, restart};
use crate::control::{
    Actor, ControlError, Handle, ListChange, NodeList, NotReloaded, PolicyRefused, Reload,
    Reloaded, Rollout, RolloutOutcome,
};
use crate::policy::{Foundry, How, Refusal, Rules, Source};
use crate::run;
use crate::settings::{self, Binding, Colour, Invalid, Plugin, Settings};

/// Reloads that may be asked for at a time.
const ASKED_MAX: usize = 8;

/// SHA-256 of a plugin's bytes.
type Digest = [u8; 32];

/// What the gateway was started with, and what answers for each of its policies now.
pub(super) struct Standing {
    started: Arc<Settings>,
    answering: BTreeMap<PolicyName, (Binding, Digest)>,
    rules: Rules,
    /// Where the gateway compiles; where it is not told, candidates are tried at a place of their own.
    foundry: Option<Foundry>,
    survival: Survival,
    /// How revisions come into force, by set.
    paces: BTreeMap<Arc<str>, settings::Rollout>,
}

/// How sessions of each scenario survive a node: what a reload takes of a scenario.
type Survival = BTreeMap<Arc<str>, (Mode, Affinity, Vec<RegionId>, u8)>;

fn survival(scenarios: &BTreeMap<Arc<str>, Scenario>) -> Survival {
    let of = |scenario: &Scenario| {
        let Scenario { mode, affinity, ref regions, spares, .. } = *scenario;
        (mode, affinity, regions.clone(), spares)
    };
    scenarios.iter().map(|(name, scenario)| (Arc::clone(name), of(scenario))).collect()
}

/// A binding that differs from the one that answers.
struct Candidate {
    policy: PolicyName,
    binding: Binding,
    source: Source,
    digest: Digest,
    /// Once it was tried.
    component: Option<Component>,
}

/// Takes what changed in the files, on SIGHUP, whenever a file changes, and when an operator asks for it. What does while the first
/// policies are still compiled is read when they are in force.
pub(super) async fn follow(
    place: &Place,
    mut standing: Standing,
    handle: &Handle,
) -> std::io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    let (word, mut changed) = mpsc::channel(1);
    let underway = Underway::default();
    let mut watched = watched(place, &standing.started);
    let mut watching = watch::watch(&watched, &word, &underway);
    let (asks, mut asked) = mpsc::channel(ASKED_MAX);
    if handle.follow_reloads(asks).await.is_err() {
        return Ok(());
    }
    if handle.policies_stand().await.is_err() {
        // Control is gone, and the gateway with it.
        return Ok(());
    }
    // Something may have changed between the first look at the files and the first watch of their folders.
    let _ = word.try_send(());
    loop {
        let mut wish = Wish { force: false, within: None, by: Actor::Signal };
        let mut reply = None;
        tokio::select! {
            _ = hangup.recv() => {}
            _ = changed.recv() => {
                wish.by = Actor::File;
                watch::settle(&mut changed, &underway).await;
            }
            Some(reload) = asked.recv() => {
                let Reload { force, within, reply: asker } = reload;
                wish = Wish { force, within, by: Actor::Operator };
                reply = Some(asker);
            }
        }
        // Watched anew before anything is read: a folder that took the place of another is seen like the first, and
        // what changes from here on is not missed.
        drop(std::mem::replace(&mut watching, watch::watch(&watched, &word, &underway)));
        let outcome = match place.load() {
            Ok(settings) => {
                let settings = Arc::new(settings);
                let outcome = standing.take(&settings, &wish, handle).await;
                let now = self::watched(place, &settings);
                if now != watched {
                    watched = now;
                    watching = watch::watch(&watched, &word, &underway);
                    // Something may have changed there before it was watched.
                    let _ = word.try_send(());
                }
                outcome
            }
            Err(Failure::Invalid(invalid)) => Err(refuse(&invalid)),
            Err(error) => {
                tracing::error!(%error, "nothing changed");
                Err(NotReloaded::Invalid(error.to_string()))
            }
        };
        if let Some(reply) = reply {
            // Who asked may have gone.
            let _ = reply.send(outcome);
        }
    }
}

/// Where policy sets and plugins are, and the file that lists nodes.
fn watched(place: &Place, settings: &Settings) -> Watched {
    let named = place.policies.as_ref().or(settings.gateway.policies.as_ref());
    let bindings = settings.sets.iter().flat_map(|set| &set.bindings);
    let plugins: Vec<&Path> = bindings
        .filter_map(|binding| match &binding.plugin {
            Plugin::File(path) => Some(path.as_path()),
            Plugin::Shipped(_) => None,
        })
        .collect();
    let beside = plugins.iter().filter_map(|plugin| plugin.parent());
    let config = place.config.as_deref();
    let folders = named.map(PathBuf::as_path).into_iter().chain(beside).chain(config);
    let here = |folder: &Path| match folder.as_os_str().is_empty() {
        true => std::env::current_dir(),
        false => std::path::absolute(folder),
    };
    Watched {
        folders: folders.filter_map(|folder| here(folder).ok()).collect(),
        plugins: plugins.iter().filter_map(|plugin| here(plugin).ok()).collect(),
    }
}

/// How a reload is meant.
struct Wish {
    /// More nodes may go than the guard lets go.
    force: bool,
    /// By when they are to be empty.
    within: Option<Duration>,
    by: Actor,
}

fn refuse(invalid: &[Invalid]) -> NotReloaded {
    let found = Invalid::render(invalid, Colour::Plain);
    tracing::warn!("what was saved is not usable, nothing changed:\n{found}");
    NotReloaded::Invalid(found)
}

impl Standing {
    pub(super) fn of(settings: &Arc<Settings>) -> Standing {
        let answering = bindings(settings).filter_map(|(policy, binding)| {
            let digest = digest(&run::source(binding).ok()?.bytes);
            Some((policy, (binding.clone(), digest)))
        });
        Standing {
            started: Arc::clone(settings),
            answering: answering.collect(),
            rules: Rules::of(settings),
            foundry: None,
            survival: survival(&settings.scenarios_of(&settings.sets)),
            paces: settings::paces(&settings.sets),
        }
    }

    /// What is tried there is compiled already when it is rolled out.
    pub(super) fn compiled_at(self, foundry: Foundry) -> Standing {
        Standing { foundry: Some(foundry), ..self }
    }

    /// Lists nodes anew, has scenarios take what they say now and rolls out every binding that differs; or none of it
    /// where one could not run, or the list cannot be taken. What is refused later, by the
    /// questions its predecessor answered, is named, keeps what it had, and is tried again the next time.
    async fn take(
        &mut self,
        settings: &Arc<Settings>,
        wish: &Wish,
        handle: &Handle,
    ) -> Result<Reloaded, NotReloaded> {
        let waiting = restart::needed(&self.started, settings);
        if !waiting.is_empty() {
            tracing::warn!("changed, and waiting for a restart: {}", waiting.join("; "));
        }
        let mut candidates = self.candidates(settings).map_err(|invalid| refuse(&invalid))?;
        if !candidates.is_empty() {
            let place = || Foundry::of(evenkeel_host::Engine::new(), settings);
            let foundry = self.foundry.get_or_insert_with(place).clone();
            candidates = try_out(foundry, Arc::clone(settings), candidates, handle).await?;
        }
        let nodes = self.list_nodes(settings, wish, handle).await?;
        self.change_modes(settings, handle).await;
        self.change_paces(settings, handle).await;
        let mut refused = self.govern(settings, &candidates, handle).await;
        for candidate in candidates {
            refused.extend(self.roll_out(candidate, wish.by, handle).await.err());
        }
        Ok(Reloaded { nodes, waiting, refused })
    }

    /// Nodes come, go and change. What became of it is told as an event.
    async fn list_nodes(
        &self,
        settings: &Settings,
        wish: &Wish,
        handle: &Handle,
    ) -> Result<ListChange, NotReloaded> {
        let &Wish { force, within, by } = wish;
        let list = NodeList { nodes: settings.nodes.clone(), force, within, by };
        match handle.list_nodes(list).await {
            Ok(listed) => Ok(listed?),
            // Control is gone, and the gateway with it.
            Err(_) => Err(NotReloaded::Nobody),
        }
    }

    /// How sessions survive a node, where that is to be otherwise.
    async fn change_modes(&mut self, settings: &Settings, handle: &Handle) {
        let scenarios = self.started.scenarios_of(&settings.sets);
        if survival(&scenarios) != self.survival {
            let survival = survival(&scenarios);
            // Control is gone, and the gateway with it, where that fails.
            if handle.change_scenarios(scenarios).await.is_ok() {
                self.survival = survival;
                tracing::info!("scenarios reloaded: how their sessions survive a node");
            }
        }
    }

    /// Whose plugins are taken from now on. What answers already goes on, and is named where it would not be taken any
    /// more: whether it is to go is for people to say, who may have nothing better yet. Policies tell by themselves of what
    /// was pushed, and is revoked.
    async fn govern(
        &mut self,
        settings: &Settings,
        candidates: &[Candidate],
        handle: &Handle,
    ) -> Vec<PolicyRefused> {
        let rules = Rules::of(settings);
        if rules == self.rules || handle.govern(rules.clone()).await.is_err() {
            return Vec::new();
        }
        tracing::info!("reloaded: whose plugins are taken, and what they may do");
        self.rules = rules;
        let replaced = |policy: &PolicyName| candidates.iter().any(|new| new.policy == *policy);
        let standing = bindings(settings).filter(|(policy, _)| !replaced(policy));
        let mistrusted = standing.filter_map(|(policy, binding)| {
            let refused = self.rules.judge(&policy, &run::source(binding).ok()?.bytes).err()?;
            tracing::warn!(%policy, code = refused.code(), %refused, "answers on, but would not be taken now");
            let reason = format!("answers on, but would not be taken now: {refused}");
            Some(PolicyRefused { policy, reason })
        });
        mistrusted.collect()
    }

    /// How revisions come into force, where that is to be otherwise.
    async fn change_paces(&mut self, settings: &Settings, handle: &Handle) {
        let paces = settings::paces(&settings.sets);
        // Control is gone, and the gateway with it, where that fails.
        if paces != self.paces && handle.change_paces(paces.clone()).await.is_ok() {
            self.paces = paces;
            tracing::info!("policy sets reloaded: how their revisions come into force");
        }
    }

    /// The bindings of policies that run and are to run otherwise: another plugin, other settings, other bytes, another
    /// grant.
    fn candidates(&self, settings: &Settings) -> Result<Vec<Candidate>, Vec<Invalid>> {
        let (mut candidates, mut invalid) = (Vec::new(), Vec::new());
        for (policy, binding) in bindings(settings) {
            let Some((standing, bytes)) = self.answering.get(&policy) else {
                continue;
            };
            let bound_alike = standing.plugin == binding.plugin
                && standing.settings == binding.settings
                && standing.allowed.grant == binding.allowed.grant;
            if bound_alike && matches!(binding.plugin, Plugin::Shipped(_)) {
                continue;
            }
            match run::source(binding) {
                Ok(source) => {
                    let digest = digest(&source.bytes);
                    if !bound_alike || *bytes != digest {
                        let (binding, component) = (binding.clone(), None);
                        let candidate = Candidate { policy, binding, source, digest, component };
                        candidates.push(candidate);
                    }
                }
                Err(missing) => invalid.push(*missing),
            }
        }
        if invalid.is_empty() { Ok(candidates) } else { Err(invalid) }
    }

    async fn roll_out(
        &mut self,
        candidate: Candidate,
        by: Actor,
        handle: &Handle,
    ) -> Result<(), PolicyRefused> {
        let Candidate { policy, binding, mut source, digest, component } = candidate;
        let pace = self.paces.get(&policy.set).map(settings::Rollout::pace);
        let pace = pace.filter(|pace| !pace.is_at_once());
        // Who puts back the file that was there takes the newer one back.
        source.how = How { by, force: false, pace, returns: true };
        let began = Instant::now();
        let rolled_out = handle.roll_out(policy.clone(), source).await;
        // While it was held it did not have to be compiled, or read, again.
        drop(component);
        match rolled_out {
            Ok(Rollout {
                outcome:
                    RolloutOutcome::Activated | RolloutOutcome::Unchanged | RolloutOutcome::Started,
                ..
            }) => {
                tracing::info!(%policy, took = ?began.elapsed(), "policy reloaded, or on its way");
                self.answering.insert(policy, (binding, digest));
                Ok(())
            }
            Ok(rollout) => {
                let reason = rollout.reason.as_deref().unwrap_or("it was refused");
                let invalid = binding.plugin_invalid(reason, "a plugin that may answer");
                let found = Invalid::render(&[invalid], Colour::Plain);
                tracing::warn!(%policy, "refused; the revision before answers on:\n{found}");
                Err(PolicyRefused { policy, reason: reason.to_owned() })
            }
            Err(failed) => {
                tracing::warn!(%policy, ?failed, "policy not reloaded");
                let reason = match failed {
                    ControlError::Policy(reason) => reason.into_string(),
                    ControlError::NoPolicy(none) => format!("there is no policy {none}"),
                    // Others are rolled out already, as many as may be at a time; or control is gone.
                    _ => "the gateway took no more policies just then; reload again".to_owned(),
                };
                Err(PolicyRefused { policy, reason })
            }
        }
    }
}

/// Compiles each and has it take its settings, beside whatever else goes on; all of them, or what is wrong.
async fn try_out(
    foundry: Foundry,
    settings: Arc<Settings>,
    mut candidates: Vec<Candidate>,
    handle: &Handle,
) -> Result<Vec<Candidate>, NotReloaded> {
    let tried = beside(move || {
        let unfit = candidates.iter_mut().filter_map(|candidate| {
            let Candidate { policy, binding, source, component, .. } = candidate;
            let refused = match run::try_out(&foundry, &settings, binding, source) {
                Ok(vetted) => {
                    *component = Some(vetted);
                    return None;
                }
                Err(refused) => refused,
            };
            let refusal = Refusal {
                at: SystemTime::now(),
                policy: policy.clone(),
                origin: source.origin.clone(),
                code: refused.code(),
                reason: refused.to_string().into(),
            };
            Some((*run::at_place(binding, &refused), refusal))
        });
        let unfit: Vec<(Invalid, Refusal)> = unfit.collect();
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

/// Works on another thread, and waits for it; a panic there is a reload that took nothing.
async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, NotReloaded> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "what was saved could not be tried, nothing changed");
        NotReloaded::Untried(error.to_string())
    })
}

fn bindings(settings: &Settings) -> impl Iterator<Item = (PolicyName, &Binding)> {
    settings.sets.iter().flat_map(|set| {
        let name = move |hook| PolicyName { set: set.name.clone(), hook };
        set.bindings.iter().map(move |binding| (name(binding.hook), binding))
    })
}

fn digest(bytes: &[u8]) -> Digest {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
pub(super) mod tests;
