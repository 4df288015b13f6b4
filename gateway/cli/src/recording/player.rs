//! Plugins that repeat recorded calls, found by digest or as named on the command line.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use evenkeel_host::{
    BoundPlugin, CallBudgets, Component, Engine, GrantLimits, PluginGrant, PluginRefusal, shipped,
};
use evenkeel_model::{PluginFault, PolicyQuestion, RevisionAnswer};
use evenkeel_recording::{RecordedCall, RecordedCatalog, RecordedGrant, RecordedRevision};
use serde_json::Value;

use crate::command::CommandError;

/// Maximum players, each with the memory of a plugin. The oldest is replaced.
const PLAYERS_MAX: usize = 32;

/// A plugin in the state of a recorded revision.
pub(super) struct Player {
    policy: BoundPlugin,
    catalog: Arc<RecordedCatalog>,
}

impl Player {
    /// Installs a plugin for a recorded revision, with its hook, seed and catalog. The recorded plugin gets the
    /// recorded grant; another one gets all that it requests.
    pub(super) fn start(
        engine: &Engine,
        component: &Component,
        settings: Value,
        call: &RecordedCall,
    ) -> Result<Player, PluginRefusal> {
        let (revision, catalog) = (&call.revision, Arc::clone(&call.catalog));
        let (hook, entries) = (revision.policy.hook, catalog.entries.clone());
        let allowed = match *component.digest() == revision.digest {
            true => allowed(&revision.grant),
            false => GrantLimits::default(),
        };
        let seed = revision.seed;
        let policy = BoundPlugin::install_within(
            engine, component, hook, settings, entries, seed, &allowed,
        )?;
        Ok(Player { policy, catalog })
    }

    /// Updates the catalog if it changed, then makes the call.
    pub(super) fn ask(
        &mut self,
        call: &RecordedCall,
        question: &PolicyQuestion,
    ) -> Result<RevisionAnswer, PluginFault> {
        if !Arc::ptr_eq(&self.catalog, &call.catalog) {
            if self.catalog != call.catalog {
                // A plugin that faults here is restarted with the new catalog, as in the gateway.
                let _ = self.policy.catalog(call.catalog.entries.clone());
            }
            self.catalog = Arc::clone(&call.catalog);
        }
        self.policy.ask(question, call.now_us)
    }

    pub(super) fn component(&self) -> &Component {
        self.policy.component()
    }

    pub(super) fn grant(&self) -> RecordedGrant {
        let PluginGrant { subject_metrics, node_metrics, ops } = self.policy.grant().clone();
        RecordedGrant { subject_metrics, node_metrics, ops }
    }
}

#[derive(Default)]
pub(super) struct Players(Vec<(Arc<RecordedRevision>, Player)>);

impl Players {
    /// Returns the player of this call's revision, started if needed.
    pub(super) fn of<E>(
        &mut self,
        call: &RecordedCall,
        start: impl FnOnce() -> Result<Player, E>,
    ) -> Result<&mut Player, E> {
        let is_it = |known: &Arc<RecordedRevision>| {
            Arc::ptr_eq(known, &call.revision) || *known == call.revision
        };
        let place = match self.0.iter().position(|(known, _)| is_it(known)) {
            Some(place) => place,
            None => {
                if self.0.len() == PLAYERS_MAX {
                    self.0.remove(0);
                }
                self.0.push((Arc::clone(&call.revision), start()?));
                self.0.len() - 1
            }
        };
        // The revision was found by value. Store the pointer, so that later calls are found by pointer.
        self.0[place].0 = Arc::clone(&call.revision);
        Ok(&mut self.0[place].1)
    }
}

fn allowed(grant: &RecordedGrant) -> GrantLimits {
    let RecordedGrant { subject_metrics, node_metrics, ops } = grant;
    let metrics = subject_metrics.iter().chain(node_metrics).copied().collect();
    GrantLimits { ops: Some(ops.clone()), metrics: Some(metrics) }
}

/// Time limit of a call, far above the gateway's budget, so that a slow machine does not change decisions. Endless
/// loops still end.
const PATIENCE: Duration = Duration::from_secs(5);

/// An engine with the time limit [`PATIENCE`].
pub(super) fn patient_engine() -> Engine {
    Engine::with_budgets(CallBudgets::all(PATIENCE))
}

/// A plugin from a file, or a shipped one by name.
pub(super) fn load_plugin(engine: &Engine, named: &str) -> Result<Component, CommandError> {
    let wrong = |said: String| CommandError::Wrong(format!("{named}: {said}"));
    let embedded = shipped().iter().find(|one| one.name == named);
    let bytes = match (std::fs::read(Path::new(named)), embedded) {
        (Ok(bytes), _) => bytes,
        (Err(_), Some(embedded)) => embedded.bytes.to_vec(),
        (Err(error), None) => return Err(wrong(error.to_string())),
    };
    Component::vet(engine, &bytes).map_err(|refused| wrong(refused.to_string()))
}

struct NamedPlugin {
    /// The plugin's name in messages.
    shown: String,
    policy: Option<String>,
    component: Component,
}

pub(super) struct Plugins {
    engine: Engine,
    named: Vec<NamedPlugin>,
    shipped: Vec<Component>,
}

impl Plugins {
    /// Shipped plugins and named ones: `FILE` or `SET/HOOK=FILE`.
    pub(super) fn new(named: &[String]) -> Result<Plugins, CommandError> {
        let engine = patient_engine();
        let named = named.iter().map(|text| {
            let (policy, file) = match text.split_once('=') {
                Some((policy, file)) if policy.contains('/') => (Some(policy.to_owned()), file),
                Some(_) | None => (None, text.as_str()),
            };
            let component = load_plugin(&engine, file)?;
            Ok(NamedPlugin { shown: file.to_owned(), policy, component })
        });
        let named = named.collect::<Result<_, CommandError>>()?;
        Ok(Plugins { engine, named, shipped: Vec::new() })
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The plugin for a revision: one named for its policy, one with its digest, or a named one with the same plugin
    /// name.
    ///
    /// # Errors
    /// No plugin fits; the error tells how to name one.
    pub(super) fn of(&mut self, revision: &RecordedRevision) -> Result<Component, CommandError> {
        let policy = revision.policy.to_string();
        let named = |fits: &dyn Fn(&NamedPlugin) -> bool| {
            self.named.iter().find(|named| fits(named)).map(|named| named.component.clone())
        };
        let by_policy = named(&|named| named.policy.as_ref() == Some(&policy));
        let by_digest = || named(&|named| *named.component.digest() == revision.digest);
        let by_name = || {
            named(&|named| {
                named.policy.is_none() && named.component.manifest().name == revision.plugin
            })
        };
        if let Some(found) = by_policy.or_else(by_digest).or_else(by_name) {
            return Ok(found);
        }
        self.embedded(&revision.digest)?.ok_or_else(|| self.missing(revision))
    }

    /// The shipped plugin with this digest. Shipped plugins are compiled on first use.
    fn embedded(&mut self, digest: &[u8; 32]) -> Result<Option<Component>, CommandError> {
        if self.shipped.is_empty() {
            for one in shipped() {
                let component = Component::vet(&self.engine, one.bytes);
                let failed = |refused| CommandError::Failed(format!("{}: {refused}", one.name));
                self.shipped.push(component.map_err(failed)?);
            }
        }
        Ok(self.shipped.iter().find(|one| one.digest() == digest).cloned())
    }

    fn missing(&self, revision: &RecordedRevision) -> CommandError {
        let RecordedRevision { policy, plugin, version, digest, .. } = revision;
        let digest = HEXLOWER.encode(&digest[..6]);
        let mut words = format!(
            "{policy} ran {plugin} {version} (SHA-256 {digest}…), which this evenkeel does not ship; name its file with --plugin FILE, or another plugin to run in its place with --plugin {policy}=FILE"
        );
        for named in &self.named {
            let manifest = named.component.manifest();
            words += &format!("; {} is {} {}", named.shown, manifest.name, manifest.version);
        }
        CommandError::Wrong(words)
    }
}
