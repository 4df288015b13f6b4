//! The records of policies: those of this process, and those of another process that are continued here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use evenkeel_core::Gateway;
use evenkeel_model::PolicyName;
use evenkeel_revisions::Revision;
use tokio::sync::oneshot;

use super::prepare::RevisionLoad;
use super::record::{PluginRecord, PolicyRecord, PolicyRecords};
use super::thread::{LoadedPlugin, PolicyOrder};
use super::{PolicyThreads, RunningPolicy};

impl PolicyThreads {
    /// Continues records of another process. Loaded revisions take effect at once; returns the others.
    pub fn adopt(
        &mut self,
        newer: PolicyRecords,
        gateway: &mut Gateway,
        now: Instant,
    ) -> Vec<RevisionLoad> {
        let policies: Vec<PolicyName> =
            newer.records.iter().map(|record| record.policy.clone()).collect();
        self.adopted.extend(newer);
        let loads = policies.iter().filter_map(|it| self.continue_adopted(it, gateway, now));
        loads.collect()
    }

    /// Supersedes pushes under way, and continues the adopted record of the policy. Returns its revisions that are not
    /// loaded.
    pub(super) fn continue_adopted(
        &mut self,
        policy: &PolicyName,
        gateway: &mut Gateway,
        now: Instant,
    ) -> Option<RevisionLoad> {
        let record = self.adopted.of(policy)?;
        let running = self.running.get_mut(policy)?;
        let RunningPolicy { loading, unfit, .. } = running;
        loading.retain(|revision| record.life.revisions.has(revision));
        unfit.retain(|revision| record.life.revisions.has(revision));
        let active = record.life.revisions.active_name();
        let mut plugins = Vec::new();
        for plugin in &record.plugins {
            let revision = &plugin.revision;
            let is_known = running.plugins.contains_key(revision)
                || running.loading.contains(revision)
                || running.unfit.contains(revision);
            if is_known {
                continue;
            }
            match self.adopted.files.get(&plugin.digest) {
                Some(bytes) => {
                    running.loading.insert(Arc::clone(revision));
                    plugins.push((plugin.clone(), bytes.clone()));
                }
                None => {
                    running.unfit.insert(Arc::clone(revision));
                    tracing::warn!(%policy, %revision, "plugin of another process is missing");
                }
            }
        }
        self.apply_adopted(policy, gateway, now);
        let preparation = self.preparation(policy, gateway)?;
        let load = RevisionLoad { preparation, plugins, active };
        (!load.plugins.is_empty()).then_some(load)
    }

    /// Has the core continue the loaded revisions of the adopted record.
    fn apply_adopted(&mut self, policy: &PolicyName, gateway: &mut Gateway, now: Instant) {
        let Some(record) = self.adopted.of(policy) else { return };
        let Some(running) = self.running.get_mut(policy) else { return };
        let is_loaded = |revision: &Revision| running.plugins.contains_key(&revision.name);
        let life = record.life.clone();
        let candidate = life.revisions.candidate.as_ref();
        if let Some(candidate) = candidate.filter(|it| it.share().is_none()) {
            let revision = &candidate.revision;
            if is_loaded(revision) {
                running.order(PolicyOrder::Compare(Arc::clone(&revision.name)));
            }
        }
        gateway.restore_policy(policy, life, is_loaded, now);
        running.configured.clone_from(&record.configured);
    }

    /// Loads a revision of the adopted record, unless the record no longer names it or a push came after.
    pub(super) fn handle_adopted(
        &mut self,
        policy: &PolicyName,
        revision: Arc<str>,
        loaded: Option<Box<LoadedPlugin>>,
        gateway: &mut Gateway,
        now: Instant,
    ) {
        let Some(running) = self.running.get_mut(policy) else { return };
        if !running.loading.remove(&revision) {
            return;
        }
        match loaded {
            Some(loaded) => {
                running.plugins.insert(Arc::clone(&revision), Arc::clone(&loaded.facts));
                running.order(PolicyOrder::Load { revision, loaded });
            }
            None => _ = running.unfit.insert(revision),
        }
        self.apply_adopted(policy, gateway, now);
    }

    /// Replies once the records that were stored are on the disk.
    pub fn await_kept(&self, reply: oneshot::Sender<()>) {
        match &self.memory {
            Some(memory) => memory.await_written(reply),
            // A caller may have gone.
            None => _ = reply.send(()),
        }
    }

    /// Stores the record of a policy across restarts.
    pub fn keep(&self, policy: &PolicyName, gateway: &Gateway) {
        let keeper = self.running.get(policy).and_then(|running| running.keeper.as_ref());
        if let Some((keeper, record)) = keeper.zip(self.record(policy, gateway)) {
            let files = record.digests().filter_map(|it| Some((Arc::clone(it), self.file(it)?)));
            keeper.note(PolicyRecords { files: files.collect(), records: vec![record] });
        }
    }

    /// The record of a policy; `None` if it is unknown.
    pub fn record(&self, policy: &PolicyName, gateway: &Gateway) -> Option<PolicyRecord> {
        let running = self.running.get(policy)?;
        if let Some(adopted) = self.adopted.of(policy).filter(|_| !running.loading.is_empty()) {
            return Some(adopted.clone());
        }
        let life = gateway.policy_record(policy)?;
        let plugin = |revision: &Revision| {
            let plugin = running.plugins.get(&revision.name)?;
            Some(PluginRecord {
                revision: Arc::clone(&revision.name),
                digest: Arc::clone(&plugin.digest),
                settings: plugin.settings.clone(),
                origin: plugin.origin.clone(),
            })
        };
        let plugins = life.revisions.all().filter_map(plugin).collect();
        let (policy, configured) = (policy.clone(), running.configured.clone());
        Some(PolicyRecord { policy, configured, life, plugins })
    }

    /// The bytes of a plugin that a record names.
    pub fn file(&self, digest: &str) -> Option<Bytes> {
        let mut plugins = self.running.values().flat_map(|running| running.plugins.values());
        let loaded = plugins.find(|plugin| *plugin.digest == *digest);
        loaded
            .map(|plugin| plugin.bytes.clone())
            .or_else(|| self.adopted.files.get(digest).cloned())
    }

    /// The records of all policies, with their plugins.
    pub fn records(&self, gateway: &Gateway) -> PolicyRecords {
        let records: Vec<_> = self.names().filter_map(|it| self.record(it, gateway)).collect();
        let digests = records.iter().flat_map(PolicyRecord::digests);
        let files = digests.filter_map(|it| Some((Arc::clone(it), self.file(it)?))).collect();
        PolicyRecords { records, files }
    }

    /// The bindings that were rolled out last, by their identifications.
    pub fn configured(&self) -> BTreeMap<PolicyName, Option<Arc<str>>> {
        let configured = |(policy, running): (&PolicyName, &RunningPolicy)| {
            (policy.clone(), running.configured.clone())
        };
        self.running.iter().map(configured).collect()
    }
}
