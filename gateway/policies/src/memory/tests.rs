//! Records after a restart, and unreadable files.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use evenkeel_config::RolloutSettings;
use evenkeel_model::Hook;
use evenkeel_revisions::{
    AcceptedRevision, Lifecycle, QuarantinedRevision, Remembered, Version, WallClock,
};
use tempfile::{TempDir, tempdir};

use super::*;
use crate::record::PluginRecord;

/// A temporary folder.
struct Folder(TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempdir().unwrap())
    }

    /// Opens the memory of the test's gateway.
    fn open(&self) -> RecordFile {
        self.open_as("admin.sock")
    }

    fn open_as(&self, socket: &str) -> RecordFile {
        let memory = self.open_for_later(socket);
        memory.begin_writing();
        memory
    }

    /// Opens the memory of a gateway that another process still serves.
    fn open_for_later(&self, socket: &str) -> RecordFile {
        RecordFile::open(self.0.path(), &self.0.path().join(socket), UnwrittenDocuments::default())
            .unwrap()
    }

    fn policies(&self) -> PathBuf {
        self.0.path().join("policies")
    }

    fn files(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(self.policies()).unwrap();
        files.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect()
    }

    /// The plugins of the test's gateway.
    fn plugins(&self) -> Vec<PathBuf> {
        let folder = self.file().with_extension("");
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    /// The file of the test's gateway.
    fn file(&self) -> PathBuf {
        RecordPath::of(self.policies(), &self.0.path().join("admin.sock")).path
    }
}

fn of(hook: Hook) -> PolicyName {
    PolicyName { set: "call".into(), hook }
}

fn remembered(revision: &str) -> Remembered {
    let (plugin, version) = ("near".into(), Version::read("1.2.0"));
    let since = SystemTime::UNIX_EPOCH + Duration::from_secs(7);
    let reason = "loss: 8 of 10 got worse".into();
    Remembered {
        accepted: vec![AcceptedRevision { revision: revision.into(), plugin, version }],
        quarantined: vec![QuarantinedRevision { revision: "bad".into(), since, reason }],
    }
}

/// The record of a policy with these facts, and a plugin with these bytes.
fn records(hook: Hook, revision: &str) -> PolicyRecords {
    let (policy, now) = (of(hook), Instant::now());
    let clock = WallClock { instant: now, time: SystemTime::UNIX_EPOCH };
    let life = Lifecycle::new(policy.clone(), RolloutSettings::default().rules(), clock);
    let mut life = life.record();
    life.remembered = remembered(revision);
    let bytes = Bytes::from(revision.to_owned());
    let digest = record::digest(&bytes);
    let plugin = PluginRecord {
        revision: revision.into(),
        digest: Arc::clone(&digest),
        settings: serde_json::json!({"spares": 2}),
        origin: "pushed".into(),
        documents: Default::default(),
    };
    let record = PolicyRecord { policy, configured: None, life, plugins: vec![plugin] };
    PolicyRecords { records: vec![record], files: [(digest, bytes)].into() }
}

fn known(memory: &mut RecordFile, hook: Hook) -> Remembered {
    let PolicyRecords { mut records, .. } = memory.begin(&of(hook)).0;
    records.pop().map(|record| record.life.remembered).unwrap_or_default()
}

/// Notes the facts, and ends the gateway.
fn note(mut memory: RecordFile, hook: Hook, revision: &str) {
    let (_, keeper) = memory.begin(&of(hook));
    keeper.note(records(hook, revision));
    drop(memory);
}

#[test]
fn only_the_process_that_serves_writes() {
    let folder = Folder::new();
    note(folder.open(), Hook::Routing, "old");
    note(folder.open_for_later("admin.sock"), Hook::Routing, "given up");
    assert_eq!(known(&mut folder.open(), Hook::Routing), remembered("old"));
    let mut new = folder.open_for_later("admin.sock");
    let (_, keeper) = new.begin(&of(Hook::Routing));
    keeper.note(records(Hook::Routing, "new"));
    new.begin_writing();
    drop(new);
    assert_eq!(known(&mut folder.open(), Hook::Routing), remembered("new"));
}

#[test]
fn callers_learn_that_records_cannot_be_written() {
    let folder = Folder::new();
    let mut memory = folder.open();
    let written = |memory: &RecordFile| {
        let (reply, written) = oneshot::channel();
        memory.await_written(reply);
        written.blocking_recv().unwrap()
    };
    let (_, keeper) = memory.begin(&of(Hook::Routing));
    fs::create_dir_all(folder.file().join("in the way")).unwrap();
    keeper.note(records(Hook::Routing, "a"));
    written(&memory).unwrap_err();
    fs::remove_dir_all(folder.file()).unwrap();
    assert_eq!(written(&memory), Ok(()), "it is tried again");
    drop(memory);
    assert_eq!(known(&mut folder.open(), Hook::Routing), remembered("a"));
}

#[test]
fn records_are_read_by_gateway_and_policy() {
    let folder = Folder::new();
    note(folder.open(), Hook::Routing, "first");
    assert_eq!(known(&mut folder.open(), Hook::Routing), remembered("first"));
    assert_eq!(known(&mut folder.open(), Hook::Admission), Remembered::default());
    assert_eq!(known(&mut folder.open_as("another"), Hook::Routing), Remembered::default());
    note(folder.open(), Hook::Routing, "second");
    assert_eq!(known(&mut folder.open(), Hook::Routing), remembered("second"));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(folder.files(), [folder.file()], "nothing unfinished is left");
    assert_eq!((mode(&folder.file()), mode(&folder.policies())), (0o600, 0o700));
}

#[test]
fn removed_policy_is_forgotten_at_the_next_change() {
    let folder = Folder::new();
    let mut memory = folder.open();
    for hook in [Hook::Routing, Hook::Admission] {
        let (_, keeper) = memory.begin(&of(hook));
        keeper.note(records(hook, "first"));
    }
    drop(memory);
    // A start that failed after its first policy.
    known(&mut folder.open(), Hook::Routing);
    assert_eq!(known(&mut folder.open(), Hook::Admission), remembered("first"));
    note(folder.open(), Hook::Routing, "second");
    assert_eq!(known(&mut folder.open(), Hook::Admission), Remembered::default());
}

#[test]
fn unchanged_records_are_not_written() {
    let folder = Folder::new();
    note(folder.open(), Hook::Routing, "first");
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(9);
    File::options().write(true).open(folder.file()).unwrap().set_modified(long_ago).unwrap();
    let mut memory = folder.open();
    let (records, keeper) = memory.begin(&of(Hook::Routing));
    keeper.note(records);
    drop(memory);
    assert_eq!(fs::metadata(folder.file()).unwrap().modified().unwrap(), long_ago);
}

#[test]
fn unreadable_file_is_moved_aside() {
    let folder = Folder::new();
    note(folder.open(), Hook::Routing, "first");
    let whole = fs::read(folder.file()).unwrap();
    let text = String::from_utf8(whole.clone()).unwrap();
    let later = text.replace("\"version\": 2,", "\"version\": 3,");
    assert_ne!(later.as_bytes(), whole);
    let long = [&whole[..], &vec![b' '; BYTES_MAX as usize]].concat();
    let half = &whole[..whole.len() / 2];
    let files: [&[u8]; 5] = [half, b"", b"null", later.as_bytes(), &long];
    for damaged in files {
        fs::write(folder.file(), damaged).unwrap();
        assert_eq!(known(&mut folder.open(), Hook::Routing), Remembered::default());
        assert!(!folder.file().exists());
        let aside = folder.file().with_extension("json.damaged");
        assert!(fs::read(aside).unwrap() == damaged);
        note(folder.open(), Hook::Routing, "first");
        assert_eq!(
            known(&mut folder.open(), Hook::Routing),
            remembered("first"),
            "it is kept again"
        );
    }
}

#[test]
fn oldest_files_of_other_gateways_are_removed() {
    let folder = Folder::new();
    note(folder.open(), Hook::Routing, "first");
    for number in 0..FILES_MAX {
        let path = folder.policies().join(format!("{number}.json"));
        let written = SystemTime::UNIX_EPOCH + Duration::from_secs(1 + number as u64);
        File::create(path).unwrap().set_modified(written).unwrap();
    }
    note(folder.open(), Hook::Routing, "second");
    let gone = |number: usize| !folder.policies().join(format!("{number}.json")).exists();
    assert_eq!((folder.files().len(), gone(0), gone(1)), (FILES_MAX, true, false));
    assert_eq!(known(&mut folder.open(), Hook::Routing), remembered("second"));
}

#[test]
fn plugins_are_kept_beside_the_records_that_name_them() {
    let folder = Folder::new();
    note(folder.open(), Hook::Routing, "first");
    note(folder.open(), Hook::Admission, "second");
    let PolicyRecords { records, files } = folder.open().begin(&of(Hook::Admission)).0;
    let digest = record::digest(b"second");
    assert_eq!(files, [(Arc::clone(&digest), Bytes::from_static(b"second"))].into());
    assert_eq!(records[0].plugins[0].settings, serde_json::json!({"spares": 2}));
    let [plugin] = &folder.plugins()[..] else { panic!("{:?}", folder.plugins()) };
    assert_eq!(plugin.file_stem().unwrap().to_str(), Some(&*digest), "no record names the other");
    fs::write(plugin, "forged").unwrap();
    assert!(folder.open().begin(&of(Hook::Admission)).0.files.is_empty(), "its digest differs");
    assert!(!plugin.exists());
}

#[test]
fn documents_are_kept_beside_their_plugins() {
    let folder = Folder::new();
    let mut noted = records(Hook::Routing, "first");
    let (digest, bytes) = (record::digest(b"{}"), Bytes::from_static(b"{}"));
    noted.records[0].plugins[0].documents = [("tenants".into(), Arc::clone(&digest))].into();
    noted.files.insert(Arc::clone(&digest), bytes.clone());
    let mut memory = folder.open();
    let (_, keeper) = memory.begin(&of(Hook::Routing));
    keeper.note(noted.clone());
    drop(memory);
    let kept = || folder.open().begin(&of(Hook::Routing)).0;
    let PolicyRecords { records, files } = kept();
    assert_eq!((&records[0].plugins, files), (&noted.records[0].plugins, noted.files));
    let is_document = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "json");
    let document = folder.plugins().into_iter().find(is_document).unwrap();
    fs::write(document, "{\"forged\": 1}").unwrap();
    assert!(!kept().files.contains_key(&digest), "its digest differs");
}

#[test]
fn note_after_the_end_is_ignored() {
    let folder = Folder::new();
    let mut memory = folder.open();
    let (_, keeper) = memory.begin(&of(Hook::Routing));
    keeper.note(records(Hook::Routing, "first"));
    drop(memory);
    keeper.note(records(Hook::Routing, "second"));
    assert_eq!(known(&mut folder.open(), Hook::Routing), remembered("first"));
}
