//! The records of policies: those of this process, and those of another process that are continued here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use evenkeel_core::Gateway;
use evenkeel_host::DataDocument;
use evenkeel_model::PolicyName;
use evenkeel_revisions::Revision;
use tokio::sync::oneshot;

use super::prepare::RevisionLoad;
use super::record::{Digest, PluginRecord, PolicyRecord, PolicyRecords, StoredPlugin, hexadecimal};
use super::thread::{LoadedPlugin, PolicyOrder};
use super::{PolicyThreads, RunningPolicy};

impl PolicyThreads {
    /// Continues records of another process. A record takes effect once its revisions are loaded or rejected: until then the
    /// revisions that are in force stay. Returns the revisions that are to be loaded. Plugins without a record wait for it.
    pub fn restore(
        &mut self,
        records: PolicyRecords,
        gateway: &mut Gateway,
        now: Instant,
    ) -> Vec<RevisionLoad> {
        let PolicyRecords { records, files } = records;
        self.files.extend(files);
        if records.is_empty() {
            return Vec::new();
        }
        let loads = records.into_iter().filter_map(|it| self.restore_record(it, gateway, now));
        let loads = loads.collect();
        let running = || self.running.values();
        let pending = running().filter_map(|running| running.pending.as_ref());
        let pending = pending.flat_map(PolicyRecord::digests);
        let rejected = running().flat_map(|running| running.rejected.values().flatten());
        let inherited = self.inherited.iter().flat_map(PolicyRecord::digests);
        let needed: BTreeSet<Digest> = pending.chain(rejected).chain(inherited).cloned().collect();
        self.files.retain(|digest, _| needed.contains(digest));
        loads
    }

    /// Supersedes pushes under way. Returns the revisions of the record that are to be loaded.
    pub(super) fn restore_record(
        &mut self,
        record: PolicyRecord,
        gateway: &mut Gateway,
        now: Instant,
    ) -> Option<RevisionLoad> {
        let policy = record.policy.clone();
        let stored = |plugin: &PluginRecord| (plugin.clone(), self.stored(plugin));
        let plugins: Vec<_> = record.plugins.iter().map(stored).collect();
        let Some(running) = self.running.get_mut(&policy) else {
            // A reload may start the policy.
            self.inherited.retain(|earlier| earlier.policy != policy);
            self.inherited.push(record);
            return None;
        };
        let is_named = |revision: &Arc<str>| record.life.revisions.has(revision);
        running.loading.retain(is_named);
        running.rejected.retain(|revision, _| is_named(revision));
        let mut missing = Vec::new();
        for (plugin, stored) in plugins {
            let revision = &plugin.revision;
            let is_known = running.plugins.contains_key(revision)
                || running.loading.contains(revision)
                || running.rejected.contains_key(revision);
            match stored {
                _ if is_known => {}
                Some(stored) => {
                    running.loading.insert(Arc::clone(revision));
                    missing.push((plugin, stored));
                }
                None => {
                    tracing::warn!(%policy, %revision, "plugin or data document of another process is missing");
                    let digests = plugin.digests().cloned().collect();
                    running.rejected.insert(Arc::clone(revision), digests);
                }
            }
        }
        let active = record.life.revisions.active_name();
        running.pending = Some(record);
        // The files that it names are beside an earlier version's file, or at another process.
        self.keep(&policy, gateway);
        self.finish_restore(&policy, gateway, now);
        let preparation = self.preparation(&policy, gateway)?;
        let load = RevisionLoad { preparation, plugins: missing, active };
        (!load.plugins.is_empty()).then_some(load)
    }

    /// Has the core continue the record, once all its revisions are loaded or rejected.
    fn finish_restore(&mut self, policy: &PolicyName, gateway: &mut Gateway, now: Instant) {
        let Some(running) = self.running.get_mut(policy).filter(|it| it.loading.is_empty()) else {
            return;
        };
        let Some(PolicyRecord { configured, mut life, .. }) = running.pending.take() else {
            return;
        };
        let is_loaded = |revision: &Revision| running.plugins.contains_key(&revision.name);
        if life.revisions.active.as_ref().is_none_or(is_loaded) {
            running.configured = configured;
        } else if let Some(here) = gateway.policy(policy) {
            // The revisions that are in force here decide, and not the native default.
            life.revisions = here.revisions().clone();
        }
        let shadowed = life.revisions.candidate.as_ref().filter(|it| it.share().is_none());
        if let Some(candidate) = shadowed.filter(|it| is_loaded(&it.revision)) {
            running.order(PolicyOrder::Compare(Arc::clone(&candidate.revision.name)));
        }
        gateway.restore_policy(policy, life, is_loaded, now);
        // A key may have been revoked meanwhile.
        let revoked = running.revoked(&self.rules);
        gateway.change_policy(policy, now, |life| life.handle_revoked(revoked, now));
        self.unload_unnamed(policy, gateway);
    }

    /// Unloads revisions that were loaded for a record and are not in force.
    fn unload_unnamed(&mut self, policy: &PolicyName, gateway: &Gateway) {
        let Some(running) = self.running.get_mut(policy) else { return };
        let Some(life) = gateway.policy(policy) else { return };
        let unnamed = running.plugins.extract_if(.., |revision, _| !life.revisions().has(revision));
        let unnamed: Vec<Arc<str>> = unnamed.map(|(revision, _)| revision).collect();
        unnamed.into_iter().for_each(|revision| running.order(PolicyOrder::Unload(revision)));
    }

    /// Takes a revision of the pending record, unless a newer one no longer names it or a push came after.
    pub(super) fn handle_restored(
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
        match loaded.filter(|loaded| self.rules.revoked(&loaded.facts.seal).is_none()) {
            Some(loaded) => {
                running.plugins.insert(Arc::clone(&revision), Arc::clone(&loaded.facts));
                running.order(PolicyOrder::Load { revision, loaded });
            }
            None => running.reject(revision),
        }
        self.finish_restore(policy, gateway, now);
    }

    /// Rejects revisions whose loading could not begin.
    pub fn reject(&mut self, policy: &PolicyName, gateway: &mut Gateway, now: Instant) {
        if let Some(running) = self.running.get_mut(policy) {
            std::mem::take(&mut running.loading).into_iter().for_each(|it| running.reject(it));
            self.finish_restore(policy, gateway, now);
        }
    }

    /// Revisions of other processes' records that do not run here: their plugins are missing, or did not load.
    pub fn not_loaded(&self) -> impl Iterator<Item = (&PolicyName, &Arc<str>)> {
        self.running.iter().flat_map(|(policy, running)| {
            running.rejected.keys().map(move |revision| (policy, revision))
        })
    }

    /// Returns true while revisions of another process are being loaded: no decision about this policy is taken yet.
    pub fn is_restoring(&self, policy: &PolicyName) -> bool {
        self.running.get(policy).is_some_and(|running| running.pending.is_some())
    }

    /// Replies once the records that were stored are on the disk, or with the reason for which they cannot be written.
    pub fn await_kept(&self, reply: oneshot::Sender<Result<(), Arc<str>>>) {
        // A caller may have gone.
        self.memory.await_written(move |written| _ = reply.send(written));
    }

    /// Stores the record of a policy across restarts.
    pub fn keep(&self, policy: &PolicyName, gateway: &Gateway) {
        if let Some(record) = self.record(policy, gateway) {
            let files = record.digests().filter_map(|it| Some((Arc::clone(it), self.file(it)?)));
            self.memory.keep(&record, files.collect());
        }
    }

    /// Drops the stored records of policies that this process does not have. It owns the records from now on.
    pub fn forget_others(&self) {
        self.memory.forget_others();
    }

    /// The record of a policy; `None` if it is unknown.
    pub fn record(&self, policy: &PolicyName, gateway: &Gateway) -> Option<PolicyRecord> {
        let running = self.running.get(policy)?;
        if let Some(pending) = &running.pending {
            return Some(pending.clone());
        }
        let life = gateway.policy_record(policy)?;
        let digest = |(name, document): (&Arc<str>, &DataDocument)| {
            (Arc::clone(name), hexadecimal(document.digest()))
        };
        let plugin = |revision: &Revision| {
            let plugin = running.plugins.get(&revision.name)?;
            Some(PluginRecord {
                revision: Arc::clone(&revision.name),
                digest: Arc::clone(&plugin.digest),
                settings: plugin.inputs.settings.clone(),
                origin: plugin.origin.clone(),
                documents: plugin.inputs.documents.iter().map(digest).collect(),
            })
        };
        let plugins = life.revisions.all().filter_map(plugin).collect();
        let (policy, configured) = (policy.clone(), running.configured.clone());
        Some(PolicyRecord { policy, configured, life, plugins })
    }

    /// The bytes of a plugin or data document that a record names.
    pub fn file(&self, digest: &str) -> Option<Bytes> {
        let mut plugins = self.running.values().flat_map(|running| running.plugins.values());
        let loaded = plugins.find_map(|plugin| plugin.file(digest));
        loaded.or_else(|| self.files.get(digest).cloned())
    }

    /// The files of a plugin, if all are there.
    fn stored(&self, plugin: &PluginRecord) -> Option<StoredPlugin> {
        let document =
            |(name, digest): (&Arc<str>, &Digest)| Some((Arc::clone(name), self.file(digest)?));
        let documents = plugin.documents.iter().map(document).collect::<Option<_>>()?;
        Some(StoredPlugin { bytes: self.file(&plugin.digest)?, documents })
    }

    /// The records of all policies, with their files.
    pub fn records(&self, gateway: &Gateway) -> PolicyRecords {
        let records: Vec<_> = self.names().filter_map(|it| self.record(it, gateway)).collect();
        let digests = records.iter().flat_map(PolicyRecord::digests);
        let files = digests.filter_map(|it| Some((Arc::clone(it), self.file(it)?))).collect();
        PolicyRecords { records, files }
    }

    /// The bindings that were rolled out last, by their identifications. A record of another process counts before its revisions
    /// are loaded.
    pub fn configured(&self) -> BTreeMap<PolicyName, Option<Arc<str>>> {
        let configured = |(policy, running): (&PolicyName, &RunningPolicy)| {
            let pending = running.pending.as_ref();
            let last = pending.map_or(&running.configured, |record| &record.configured);
            (policy.clone(), last.clone())
        };
        self.running.iter().map(configured).collect()
    }
}

impl RunningPolicy {
    /// Leaves a revision of the pending record out.
    fn reject(&mut self, revision: Arc<str>) {
        let mut plugins = self.pending.iter().flat_map(|pending| &pending.plugins);
        if let Some(plugin) = plugins.find(|plugin| plugin.revision == revision) {
            let digests = plugin.digests().cloned().collect();
            self.rejected.insert(revision, digests);
        }
    }
}
