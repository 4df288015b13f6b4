//! Plugins that repeat recorded calls.

use std::sync::Arc;

use evenkeel_host as host;
use evenkeel_model::{PluginFault, PolicyQuestion, RevisionAnswer};
use evenkeel_recording::{RecordedCall, RecordedCatalog, RecordedGrant, RecordedRevision};
use host::{BoundPlugin, Component, Engine, GrantLimits, PluginRefusal};
use serde_json::Value;

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
        let host::PluginGrant { subject_metrics, node_metrics, ops } = self.policy.grant().clone();
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
