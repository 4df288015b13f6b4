//! Facts after a restart, and unreadable files.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use evenkeel_model::Hook;
use evenkeel_revisions::{AcceptedRevision, QuarantinedRevision, Version};
use tempfile::{TempDir, tempdir};

use super::*;

/// A temporary folder.
struct Folder(TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempdir().unwrap())
    }

    /// Opens the memory of the test's gateway.
    fn open(&self) -> FactFile {
        self.open_as("admin.sock")
    }

    fn open_as(&self, socket: &str) -> FactFile {
        let memory = self.open_for_later(socket);
        memory.begin_writing();
        memory
    }

    /// Opens the memory of a gateway that another process still serves.
    fn open_for_later(&self, socket: &str) -> FactFile {
        FactFile::open(self.0.path(), &self.0.path().join(socket)).unwrap()
    }

    fn policies(&self) -> PathBuf {
        self.0.path().join("policies")
    }

    fn files(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(self.policies()).unwrap();
        files.map(|entry| entry.unwrap().path()).collect()
    }

    /// The file of the test's gateway.
    fn file(&self) -> PathBuf {
        FactPath::of(self.policies(), &self.0.path().join("admin.sock")).path
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

fn known(memory: &mut FactFile, hook: Hook) -> Remembered {
    memory.begin(&of(hook)).0
}

/// Notes the facts, and ends the gateway.
fn note(mut memory: FactFile, hook: Hook, revision: &str) {
    let (_, keeper) = memory.begin(&of(hook));
    keeper.note(remembered(revision));
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
    keeper.note(remembered("new"));
    new.begin_writing();
    drop(new);
    assert_eq!(known(&mut folder.open(), Hook::Routing), remembered("new"));
}

#[test]
fn facts_are_restored_by_gateway_and_policy() {
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
        keeper.note(remembered("first"));
    }
    drop(memory);
    // A start that failed after its first policy.
    known(&mut folder.open(), Hook::Routing);
    assert_eq!(known(&mut folder.open(), Hook::Admission), remembered("first"));
    note(folder.open(), Hook::Routing, "second");
    assert_eq!(known(&mut folder.open(), Hook::Admission), Remembered::default());
}

#[test]
fn unchanged_facts_are_not_written() {
    let folder = Folder::new();
    note(folder.open(), Hook::Routing, "first");
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(9);
    File::options().write(true).open(folder.file()).unwrap().set_modified(long_ago).unwrap();
    note(folder.open(), Hook::Routing, "first");
    assert_eq!(fs::metadata(folder.file()).unwrap().modified().unwrap(), long_ago);
}

#[test]
fn unreadable_file_is_moved_aside() {
    let folder = Folder::new();
    note(folder.open(), Hook::Routing, "first");
    let whole = fs::read(folder.file()).unwrap();
    let text = String::from_utf8(whole.clone()).unwrap();
    let later = text.replace("\"version\": 1,", "\"version\": 2,");
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
        assert_eq!(fs::read(folder.file()).unwrap(), whole, "it is kept again");
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
fn note_after_the_end_is_ignored() {
    let folder = Folder::new();
    let mut memory = folder.open();
    let (_, keeper) = memory.begin(&of(Hook::Routing));
    keeper.note(remembered("first"));
    drop(memory);
    keeper.note(remembered("second"));
    assert_eq!(known(&mut folder.open(), Hook::Routing), remembered("first"));
}
