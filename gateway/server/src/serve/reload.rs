//! Policies, and modes of scenarios, that change while the gateway runs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use evenkeel_core::{Affinity, Mode, PolicyName, RegionId, Scenario};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::{Failure, Place, restart, watch};
use crate::control::{Handle, Rollout, RolloutOutcome};
use crate::policy::Source;
use crate::run;
use crate::settings::{Binding, Colour, Invalid, Plugin, Settings};

/// SHA-256 of a plugin's bytes.
type Digest = [u8; 32];

/// What the gateway was started with, and what answers for each of its policies now.
pub(super) struct Standing {
    started: Arc<Settings>,
    answering: BTreeMap<PolicyName, (Binding, Digest)>,
    survival: Survival,
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
}

/// Rolls out what changed in the policies' files, on SIGHUP and whenever a file changes. What does while the first
/// policies are still compiled is read when they are in force.
pub(super) async fn follow(
    place: &Place,
    mut standing: Standing,
    handle: &Handle,
) -> std::io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    let (word, mut changed) = mpsc::channel(1);
    let mut folders = folders(place, &standing.started);
    let mut watching = watch::watch(&folders, &word);
    if handle.policies_stand().await.is_err() {
        // Control is gone, and the gateway with it.
        return Ok(());
    }
    loop {
        tokio::select! {
            _ = hangup.recv() => {}
            _ = changed.recv() => watch::settle(&mut changed).await,
        }
        // Watched anew before anything is read: a folder that took the place of another is seen like the first, and
        // what changes from here on is not missed.
        drop(std::mem::replace(&mut watching, watch::watch(&folders, &word)));
        match place.load() {
            Ok(settings) => {
                let settings = Arc::new(settings);
                standing.take(&settings, handle).await;
                let now = self::folders(place, &settings);
                if now != folders {
                    folders = now;
                    watching = watch::watch(&folders, &word);
                    // Something may have changed there before it was watched.
                    let _ = word.try_send(());
                }
            }
            Err(Failure::Invalid(invalid)) => refuse(&invalid),
            Err(error) => tracing::error!(%error, "nothing changed"),
        }
    }
}

/// Where policy sets and plugins are.
fn folders(place: &Place, settings: &Settings) -> BTreeSet<PathBuf> {
    let named = place.policies.as_ref().or(settings.gateway.policies.as_ref());
    let bindings = settings.sets.iter().flat_map(|set| &set.bindings);
    let beside = bindings.filter_map(|binding| match &binding.plugin {
        Plugin::File(path) => path.parent(),
        Plugin::Shipped(_) => None,
    });
    let folders = named.map(PathBuf::as_path).into_iter().chain(beside);
    let here = |folder: &Path| match folder.as_os_str().is_empty() {
        true => std::env::current_dir(),
        false => std::path::absolute(folder),
    };
    folders.filter_map(|folder| here(folder).ok()).collect()
}

fn refuse(invalid: &[Invalid]) {
    let found = Invalid::render(invalid, Colour::Plain);
    tracing::warn!("what was saved is not usable, nothing changed:\n{found}");
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
            survival: survival(&settings.scenarios_of(&settings.sets)),
        }
    }

    /// Has scenarios take what they say now and rolls out every binding that differs, or none of it where one could not
    /// run. What is refused later, by the
    /// questions its predecessor answered, keeps what it had, and is tried again the next time.
    async fn take(&mut self, settings: &Arc<Settings>, handle: &Handle) {
        let waiting = restart::needed(&self.started, settings);
        if !waiting.is_empty() {
            tracing::warn!("changed, and waiting for a restart: {}", waiting.join("; "));
        }
        let candidates = match self.candidates(settings) {
            Ok(candidates) if candidates.is_empty() => Ok(candidates),
            Ok(candidates) => try_out(Arc::clone(settings), candidates).await,
            Err(invalid) => Err(invalid),
        };
        match candidates {
            Ok(candidates) => {
                self.change_modes(settings, handle).await;
                for candidate in candidates {
                    self.roll_out(candidate, handle).await;
                }
            }
            Err(invalid) => refuse(&invalid),
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

    /// The bindings of policies that run and are to run otherwise: another plugin, other settings, other bytes.
    fn candidates(&self, settings: &Settings) -> Result<Vec<Candidate>, Vec<Invalid>> {
        let (mut candidates, mut invalid) = (Vec::new(), Vec::new());
        for (policy, binding) in bindings(settings) {
            let Some((standing, bytes)) = self.answering.get(&policy) else {
                continue;
            };
            match run::source(binding) {
                Ok(source) => {
                    let digest = digest(&source.bytes);
                    let same = standing.plugin == binding.plugin
                        && standing.settings == binding.settings
                        && *bytes == digest;
                    if !same {
                        candidates.push(Candidate {
                            policy,
                            binding: binding.clone(),
                            source,
                            digest,
                        });
                    }
                }
                Err(missing) => invalid.push(*missing),
            }
        }
        if invalid.is_empty() { Ok(candidates) } else { Err(invalid) }
    }

    async fn roll_out(&mut self, candidate: Candidate, handle: &Handle) {
        let Candidate { policy, binding, source, digest } = candidate;
        let began = Instant::now();
        match handle.roll_out(policy.clone(), source).await {
            Ok(Rollout {
                outcome: RolloutOutcome::Activated | RolloutOutcome::Unchanged, ..
            }) => {
                tracing::info!(%policy, took = ?began.elapsed(), "policy reloaded");
                self.answering.insert(policy, (binding, digest));
            }
            Ok(rollout) => {
                let reason = rollout.reason.as_deref().unwrap_or("it was refused");
                let invalid = binding.plugin_invalid(reason, "a plugin that may answer");
                let found = Invalid::render(&[invalid], Colour::Plain);
                tracing::warn!(%policy, "refused; the revision before answers on:\n{found}");
            }
            Err(failed) => tracing::warn!(%policy, ?failed, "policy not reloaded"),
        }
    }
}

/// Compiles each and has it take its settings, beside whatever else goes on; all of them, or what is wrong.
async fn try_out(
    settings: Arc<Settings>,
    candidates: Vec<Candidate>,
) -> Result<Vec<Candidate>, Vec<Invalid>> {
    let trying = tokio::task::spawn_blocking(move || {
        let engine = evenkeel_host::Engine::new();
        let unfit = candidates.iter().filter_map(|candidate| {
            let source = candidate.source.clone();
            run::try_out(&engine, &settings, &candidate.binding, source).err()
        });
        let unfit: Vec<Invalid> = unfit.map(|invalid| *invalid).collect();
        if unfit.is_empty() { Ok(candidates) } else { Err(unfit) }
    });
    // A panic there was reported where it happened; nothing is rolled out after one.
    trying.await.unwrap_or_else(|_| Ok(Vec::new()))
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
