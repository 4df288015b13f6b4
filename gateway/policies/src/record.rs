//! Records of policies: the lives of their revisions, and the plugins and data documents of these. The process after a restart or an
//! upgrade continues them, and so does a standby.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use evenkeel_model::PolicyName;
use evenkeel_process::sha256;
use evenkeel_revisions::LifecycleRecord;
use serde::{Deserialize, Serialize};

/// SHA-256 in hexadecimal.
pub(crate) type Digest = Arc<str>;

pub(crate) fn digest(bytes: &[u8]) -> Digest {
    hexadecimal(&sha256(bytes))
}

pub(crate) fn hexadecimal(digest: &[u8; 32]) -> Digest {
    HEXLOWER.encode(digest).into()
}

/// Plugins and data documents by the digest of their bytes.
pub type PluginFiles = BTreeMap<Arc<str>, Bytes>;

/// The record of one policy.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct PolicyRecord {
    /// The policy, by set and hook.
    pub policy: PolicyName,
    /// Identifies the binding of the configuration that was rolled out last. The same one is not rolled out again.
    pub(crate) configured: Option<Digest>,
    pub(crate) life: LifecycleRecord,
    pub(crate) plugins: Vec<PluginRecord>,
}

/// A plugin that runs as a revision.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub(crate) struct PluginRecord {
    pub(crate) revision: Arc<str>,
    /// The digest of its bytes.
    pub(crate) digest: Digest,
    /// The settings as given, without defaults.
    pub(crate) settings: serde_json::Value,
    /// `embedded`, the path of a file, or `pushed`.
    pub(crate) origin: Box<str>,
    /// The digests of its data documents, by their names.
    #[serde(default)]
    pub(crate) documents: BTreeMap<Arc<str>, Digest>,
}

impl PluginRecord {
    /// The digests of the plugin and its data documents.
    pub(crate) fn digests(&self) -> impl Iterator<Item = &Digest> {
        std::iter::once(&self.digest).chain(self.documents.values())
    }
}

impl PolicyRecord {
    /// The digests of the plugins and their data documents.
    pub fn digests(&self) -> impl Iterator<Item = &Arc<str>> {
        self.plugins.iter().flat_map(PluginRecord::digests)
    }
}

/// The files of a plugin that a record names.
#[derive(Clone, Debug)]
pub(crate) struct StoredPlugin {
    pub(crate) bytes: Bytes,
    pub(crate) documents: BTreeMap<Arc<str>, Bytes>,
}

/// Records of policies, and plugins and data documents that they name.
#[derive(Clone, Default, Serialize, Deserialize, Debug)]
pub struct PolicyRecords {
    /// At most one of each policy.
    pub records: Vec<PolicyRecord>,
    /// A receiver may have other files from earlier records.
    pub files: PluginFiles,
}

impl PolicyRecords {
    /// Returns true without a record and without a file.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.files.is_empty()
    }

    /// Adds newer records.
    pub fn extend(&mut self, newer: PolicyRecords) {
        let PolicyRecords { records, files } = newer;
        self.records.retain(|old| records.iter().all(|new| new.policy != old.policy));
        self.records.extend(records);
        self.files.extend(files);
    }
}
