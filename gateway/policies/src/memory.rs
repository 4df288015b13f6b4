//! The records of policies as the next process reads them, with the plugins and data documents that they name.
//!
//! Each policy has a row in the store, which owns the files, too. A process reads the rows of the disk at its start, before it owns
//! them, and puts its own in their place. A standby and the process that replaces this one get the records otherwise, with the bytes
//! that they name. Times in a row count from the moment at which it was put: after each change, and each second of a canary.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use evenkeel_host::BINARY_BYTES_MAX;
use evenkeel_instant as instant;
use evenkeel_kept::{
    Document, Documents, EarlierDocument, Encoded, FollowerCopy, Kind, NotDecoded, Row, Store,
};
use evenkeel_model::PolicyName;
use evenkeel_process::file;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::record::{self, PluginFiles, PluginRecord, PolicyRecord, PolicyRecords};

/// Policies with a row, more than the plugins that the host runs at once.
const POLICIES_MAX: usize = 256;

/// The version of the files of records before there was a database.
const FILE_VERSION: u32 = 2;

/// The record of a policy. JSON `null`: a later process did not have the policy.
#[derive(Serialize, Deserialize, Debug)]
#[serde(transparent)]
struct KeptPolicy(Value);

impl KeptPolicy {
    /// The row of a record. Control encodes one each second of a canary, so no tree of values is made.
    fn encode(record: &PolicyRecord, now: Instant) -> Encoded<KeptPolicy> {
        // All times are within years.
        instant::relative_to(now, || Encoded::of(&record.policy.to_string(), record))
    }

    fn read(row: &Row<KeptPolicy>, now: Instant) -> Result<Option<PolicyRecord>, NotDecoded> {
        let KeptPolicy(value) = row.decode()?;
        let record = instant::relative_to(now, || serde_json::from_value(value));
        record.map_err(|error| NotDecoded::Malformed(error.to_string().into()))
    }
}

impl Document for KeptPolicy {
    const KIND: Kind =
        Kind { name: "policies", version: 1, rows_max: POLICIES_MAX, copy: FollowerCopy::None };

    const HAS_FILES: bool = true;

    const EARLIER_REPLACES: bool = true;

    fn file_names(&self) -> Option<Vec<Arc<str>>> {
        #[derive(Deserialize)]
        struct RecordPlugins {
            plugins: Vec<PluginRecord>,
        }
        let record: Option<RecordPlugins> = Deserialize::deserialize(&self.0).ok()?;
        // A policy that is gone has none.
        let plugins = record.map_or(Vec::new(), |record| record.plugins);
        Some(plugins.iter().flat_map(PluginRecord::digests).cloned().collect())
    }

    fn earlier_files(name: &str) -> Vec<PathBuf> {
        vec![earlier_folder(name).with_extension("json")]
    }

    fn read_earlier(bytes: &[u8]) -> io::Result<Vec<EarlierDocument>> {
        #[derive(Deserialize)]
        struct FileHead {
            version: u32,
        }
        #[derive(Deserialize)]
        struct FileContent {
            policies: Vec<Value>,
        }
        let FileHead { version } = serde_json::from_slice(bytes)?;
        if version != FILE_VERSION {
            let found = format!("version {version} of it, where {FILE_VERSION} is read");
            return Err(io::Error::other(found));
        }
        let FileContent { policies } = serde_json::from_slice(bytes)?;
        let document = |value: Value| {
            let policy = PolicyName::deserialize(&value["policy"])?;
            Ok(EarlierDocument { key: policy.to_string().into(), value })
        };
        policies.into_iter().map(document).collect()
    }
}

/// The folder in which versions without a database kept the plugins and data documents of their file, beside it. This version reads
/// it.
fn earlier_folder(name: &str) -> PathBuf {
    Path::new("policies").join(name)
}

/// The records that outlive the process.
#[derive(Debug)]
pub(super) struct PolicyMemory {
    kept: Documents<KeptPolicy>,
    /// Records of earlier processes, of policies that have not started yet.
    read: BTreeMap<PolicyName, PolicyRecord>,
    /// The keys of policies that have started.
    started: BTreeSet<String>,
    earlier: Option<PathBuf>,
}

impl Default for PolicyMemory {
    fn default() -> PolicyMemory {
        PolicyMemory {
            kept: Store::default().documents(),
            read: BTreeMap::new(),
            started: BTreeSet::new(),
            earlier: None,
        }
    }
}

impl PolicyMemory {
    /// Reads the records on the disk. `cache`: the folder of the store. `socket`: the API's, after which the files of this gateway are
    /// named.
    ///
    /// # Errors
    /// If the disk cannot be read: a process without its records would forget what operators and rollouts decided.
    pub(super) fn read(
        store: &Store,
        cache: Option<&Path>,
        socket: &Path,
    ) -> io::Result<PolicyMemory> {
        let kept = store.documents::<KeptPolicy>();
        let (mut read, now) = (BTreeMap::new(), Instant::now());
        for row in kept.rows_of_disk()? {
            match KeptPolicy::read(&row, now) {
                Ok(record) => read.extend(record.map(|record| (record.policy.clone(), record))),
                Err(error) => {
                    tracing::warn!(policy = %row.key, %error, "record of a policy's revisions cannot be read; starting without");
                }
            }
        }
        let earlier = cache.map(|cache| cache.join(earlier_folder(&file::name_of(socket))));
        Ok(PolicyMemory { kept, read, started: BTreeSet::new(), earlier })
    }

    /// Starts to keep a policy; returns the record of earlier processes. A file that is missing or damaged is left out.
    pub(super) fn begin(&mut self, policy: &PolicyName) -> PolicyRecords {
        let key = policy.to_string();
        let is_forgotten = self.kept.get(&key).is_some_and(|KeptPolicy(value)| value.is_null());
        let records = self.read.remove(policy).filter(|_| !is_forgotten);
        let records: Vec<_> = records.into_iter().collect();
        self.started.insert(key);
        let digests = records.iter().flat_map(PolicyRecord::digests);
        let files = digests.filter_map(|it| Some((Arc::clone(it), self.file(it)?))).collect();
        PolicyRecords { records, files }
    }

    /// Reads a plugin or data document.
    fn file(&self, digest: &str) -> Option<Bytes> {
        let kept = self.kept.file(digest, BINARY_BYTES_MAX as u64);
        kept.or_else(|| self.earlier_file(digest))
    }

    fn earlier_file(&self, digest: &str) -> Option<Bytes> {
        let path = self.earlier.as_ref()?.join(digest);
        let read =
            |ending: &str| file::read(&path.with_extension(ending), BINARY_BYTES_MAX as u64).ok();
        let bytes = ["wasm", "json"].into_iter().find_map(read)?;
        (*record::digest(&bytes) == *digest).then(|| bytes.into())
    }

    /// Keeps a record with its files, in place of that of an earlier process.
    pub(super) fn keep(&self, record: &PolicyRecord, files: PluginFiles) {
        self.kept.put_with_files(KeptPolicy::encode(record, Instant::now()), files);
    }

    /// Drops the record of a policy that has ended.
    pub(super) fn forget(&mut self, policy: &PolicyName) {
        let key = policy.to_string();
        self.read.remove(policy);
        self.kept.put(&key, &KeptPolicy(Value::Null));
        self.started.remove(&key);
    }

    /// Drops the records of policies that this process does not have.
    pub(super) fn forget_others(&self) {
        for row in self.kept.rows().iter().filter(|row| !self.started.contains(&*row.key)) {
            // An equal row is no change.
            self.kept.put(&row.key, &KeptPolicy(Value::Null));
        }
    }

    /// Calls `done` once the records are on the disk, or with the reason for which they cannot be written.
    pub(super) fn await_written(&self, done: impl FnOnce(Result<(), Arc<str>>) + Send + 'static) {
        self.kept.when_written(done);
    }
}

#[cfg(test)]
mod tests;
