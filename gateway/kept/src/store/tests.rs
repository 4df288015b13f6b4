use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use data_encoding::HEXLOWER;
use evenkeel_process::sha256;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use tempfile::{TempDir, tempdir};

use super::*;
use crate::files::UNNAMED_FOR;

const WITHIN: Duration = Duration::from_secs(60);

/// A kind with few rows, of which followers have copies.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
struct Note(u64);

impl Document for Note {
    const KIND: Kind = Kind { name: "note", version: 2, rows_max: 4, copy: FollowerCopy::Replaces };

    /// The sum, so that a test sees both.
    fn merge(kept: Note, own: Note) -> Note {
        Note(kept.0 + own.0)
    }

    fn earlier_files(_: &str) -> Vec<PathBuf> {
        vec!["note.json".into()]
    }
}

/// A kind with many rows, of which followers get none.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
struct Call(String);

impl Document for Call {
    const KIND: Kind =
        Kind { name: "call", version: 1, rows_max: 100_000, copy: FollowerCopy::None };

    fn earlier_files(_: &str) -> Vec<PathBuf> {
        vec!["call.json".into()]
    }

    fn read_earlier(bytes: &[u8]) -> io::Result<Vec<EarlierDocument>> {
        let keys: Vec<Box<str>> = serde_json::from_slice(bytes)?;
        let document = |key| EarlierDocument { key, value: "of the file".into() };
        Ok(keys.into_iter().map(document).collect())
    }
}

/// A kind of which followers add the owner's rows to their own.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
struct Entry(String);

impl Document for Entry {
    const KIND: Kind = Kind { name: "entry", version: 1, rows_max: 100, copy: FollowerCopy::Adds };
}

#[track_caller]
fn wait_until(mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + WITHIN;
    while !condition() {
        assert!(Instant::now() < until, "the condition holds within {WITHIN:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A kind of which rows name files.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
struct Plugin(Vec<Arc<str>>);

impl Document for Plugin {
    const KIND: Kind = Kind { name: "plugin", version: 1, rows_max: 4, copy: FollowerCopy::None };

    const HAS_FILES: bool = true;

    fn file_names(&self) -> Option<Vec<Arc<str>>> {
        Some(self.0.clone())
    }
}

/// The name of a file with this text.
fn name_of(text: &str) -> Arc<str> {
    HEXLOWER.encode(&sha256(text.as_bytes())).into()
}

struct Process {
    notes: Documents<Note>,
    calls: Documents<Call>,
    entries: Documents<Entry>,
    plugins: Documents<Plugin>,
    store: Store,
    unwritten: UnwrittenDocuments,
    thread: StoreThread,
}

impl Process {
    fn following(folder: &Path) -> Process {
        let (store, unwritten) = (Store::default(), UnwrittenDocuments::default());
        let (notes, calls, entries) = (store.documents(), store.documents(), store.documents());
        let plugins = store.documents();
        let thread = store.open(Some(folder), Path::new("/admin.sock"), &unwritten).unwrap();
        Process { notes, calls, entries, plugins, store, unwritten, thread }
    }

    fn start(folder: &Path) -> Process {
        let process = Process::following(folder);
        process.store.begin(WITHIN);
        process
    }

    /// Puts a note, and waits until it is written or refused.
    fn put(&self, key: &str, note: u64) -> Result<(), Arc<str>> {
        let (done, written) = mpsc::channel();
        self.notes
            .put_and(Encoded::new(key, &Note(note)), move |result| done.send(result).unwrap());
        written.recv_timeout(WITHIN).unwrap()
    }

    /// Puts a row that names the files with these texts.
    fn put_with_files(&self, key: &str, texts: &[&'static str]) {
        let row = Plugin(texts.iter().map(|text| name_of(text)).collect());
        let file = |text: &&'static str| (name_of(text), Bytes::from_static(text.as_bytes()));
        self.plugins.put_with_files(Encoded::new(key, &row), texts.iter().map(file).collect());
    }

    /// As [`Process::put_with_files`], and waits until it is written or refused.
    fn put_plugin(&self, key: &str, texts: &[&'static str]) -> Result<(), Arc<str>> {
        self.put_with_files(key, texts);
        let (done, written) = mpsc::channel();
        self.plugins.when_written(move |result| done.send(result).unwrap());
        written.recv_timeout(WITHIN).unwrap()
    }

    fn has_file(&self, text: &'static str) -> bool {
        self.plugins.file(&name_of(text), 100).is_some_and(|bytes| bytes == text)
    }

    fn notes(&self) -> Vec<(String, u64)> {
        let rows = self.notes.rows();
        rows.iter().map(|row| (row.key.to_string(), row.decode().unwrap().0)).collect()
    }

    fn notes_of_disk(&self) -> Vec<Note> {
        let rows = self.notes.rows_of_disk().unwrap();
        rows.iter().map(|row| row.decode().unwrap()).collect()
    }

    fn calls(&self) -> Vec<String> {
        self.calls.rows().iter().map(|row| row.decode().unwrap().0).collect()
    }

    fn copy(&self, follower: &mut Follower, to: &Process, bytes_max: usize) {
        while let Some(part) = self.store.next_part(follower, bytes_max) {
            to.store.add_part(part);
        }
    }

    fn unwritten(&self) -> Vec<&'static str> {
        self.unwritten.list().iter().map(|it| it.document).collect()
    }
}

/// Writes a file of an earlier version, so many seconds from now.
fn write_earlier(folder: &TempDir, name: &str, text: &str, seconds: i64) {
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let now = SystemTime::now();
    let at = if seconds < 0 { now - distance } else { now + distance };
    File::options().write(true).open(path).unwrap().set_modified(at).unwrap();
}

fn database(folder: &TempDir) -> PathBuf {
    folder.path().join("kept").join(format!("{}.sqlite", file::name_of(Path::new("/admin.sock"))))
}

/// The folder of the database's files.
fn file_folder(folder: &TempDir) -> PathBuf {
    FileFolder::of(&database(folder)).path().to_owned()
}

/// The path of the file with this text.
fn file_path(folder: &TempDir, text: &str) -> PathBuf {
    file_folder(folder).join(&*name_of(text))
}

/// Has the file with this text not been named for so long that it is removed.
fn age_file(folder: &TempDir, text: &str) {
    let at = SystemTime::now() - UNNAMED_FOR - Duration::from_secs(1);
    File::open(file_path(folder, text)).unwrap().set_modified(at).unwrap();
}

fn named(notes: &[(&str, u64)]) -> Vec<(String, u64)> {
    notes.iter().map(|(key, note)| ((*key).to_owned(), *note)).collect()
}

#[test]
fn documents_outlive_the_process() {
    let folder = tempdir().unwrap();
    let process = Process::start(folder.path());
    for (key, note) in [("a", 1), ("b", 2), ("c", 3), ("a", 4)] {
        process.notes.put(key, &Note(note));
    }
    process.calls.put("1", &Call("ended".into()));
    // The thread writes them before it ends.
    drop(process);
    let next = Process::start(folder.path());
    assert_eq!(next.notes(), named(&[("b", 2), ("c", 3), ("a", 4)]));
    assert_eq!(next.notes.get("a"), Some(Note(4)));
    assert_eq!(next.calls(), ["ended"]);
    assert!(!next.store.begin(WITHIN), "once");
}

#[test]
fn files_outlive_the_process_while_a_row_names_them() {
    let folder = tempdir().unwrap();
    let process = Process::start(folder.path());
    process.put_plugin("a", &["one", "shared"]).unwrap();
    process.put_plugin("b", &["two", "shared"]).unwrap();
    drop(process);
    let next = Process::start(folder.path());
    assert_eq!(["one", "two", "shared"].map(|text| next.has_file(text)), [true; 3]);
    next.put_plugin("a", &["three"]).unwrap();
    assert!(next.has_file("one"), "it was named just now");
    ["one", "two", "shared"].iter().for_each(|text| age_file(&folder, text));
    next.put_plugin("a", &["four"]).unwrap();
    next.put_plugin("c", &["two"]).unwrap();
    drop(next);
    let next = Process::start(folder.path());
    let texts = ["one", "two", "three", "four", "shared"];
    assert_eq!(texts.map(|text| next.has_file(text)), [false, true, true, true, true]);
    assert_eq!(next.plugins.file(&name_of("two"), 2), None, "it is larger");
    assert_eq!(next.plugins.file("../note.json", 100), None);
    fs::write(file_path(&folder, "two"), "forged").unwrap();
    assert!(!next.has_file("two") && !file_path(&folder, "two").exists());
    next.put_plugin("c", &["two", "three"]).unwrap();
    assert!(next.has_file("two"), "it is written again");
}

#[test]
fn lost_file_of_an_equal_row_is_written_again() {
    let folder = tempdir().unwrap();
    let process = Process::start(folder.path());
    process.put_plugin("a", &["one"]).unwrap();
    drop(process);
    fs::write(file_path(&folder, "one"), "forged").unwrap();
    let next = Process::start(folder.path());
    assert!(!next.has_file("one") && !file_path(&folder, "one").exists());
    next.put_plugin("a", &["one"]).unwrap();
    assert!(next.has_file("one"), "the acknowledged row names it");
    assert_eq!(next.plugins.rows().len(), 1);
}

#[test]
fn file_of_another_length_is_written_again() {
    let folder = tempdir().unwrap();
    let process = Process::start(folder.path());
    process.put_plugin("a", &["one"]).unwrap();
    fs::write(file_path(&folder, "one"), "on").unwrap();
    process.put_plugin("a", &["one", "two"]).unwrap();
    assert_eq!(["one", "two"].map(|text| process.has_file(text)), [true; 2]);
}

#[test]
fn unreadable_row_keeps_all_files() {
    let folder = tempdir().unwrap();
    let process = Process::start(folder.path());
    process.put_plugin("a", &["one"]).unwrap();
    process.put_plugin("b", &["two"]).unwrap();
    drop(process);
    let writer = Connection::open(database(&folder)).unwrap();
    writer.execute("UPDATE document SET version = 2 WHERE key = 'a'", []).unwrap();
    ["one", "two"].iter().for_each(|text| age_file(&folder, text));
    let next = Process::start(folder.path());
    next.put_plugin("b", &["three"]).unwrap();
    drop(next);
    let next = Process::start(folder.path());
    assert_eq!(["one", "two", "three"].map(|text| next.has_file(text)), [true; 3]);
}

#[test]
fn files_are_written_again_with_the_database() {
    let folder = tempdir().unwrap();
    let process = Process::start(folder.path());
    process.put_plugin("a", &["one"]).unwrap();
    fs::remove_dir_all(folder.path().join("kept")).unwrap();
    process.put_plugin("b", &["two"]).unwrap();
    drop(process);
    let next = Process::start(folder.path());
    assert_eq!(["one", "two"].map(|text| next.has_file(text)), [true; 2]);
    assert_eq!(next.plugins.get("a"), Some(Plugin(vec![name_of("one")])));
}

#[test]
fn plugin_write_delays_no_other_acknowledgement() {
    let folder = tempdir().unwrap();
    let process = Process::start(folder.path());
    let (release, held) = mpsc::channel::<()>();
    process.notes.put_and(Encoded::new("a", &Note(1)), move |_| _ = held.recv());
    process.put_with_files("a", &["one", "two", "three"]);
    let (told, written) = mpsc::channel();
    process.plugins.when_written(move |result| told.send(result).unwrap());
    // Each acknowledgement puts the next note, while the thread that calls it writes nothing.
    let (notes, files) = (process.notes.clone(), file_folder(&folder));
    let (counts, counted) = mpsc::channel();
    let count = move || counts.send(fs::read_dir(&files).map_or(0, Iterator::count)).unwrap();
    put_in_turn(&notes, 2, count);
    release.send(()).unwrap();
    written.recv_timeout(WITHIN).unwrap().unwrap();
    let counts: Vec<usize> = counted.iter().collect();
    assert_eq!(counts, [1, 2, 3, 3, 3], "one file at most is written between two");
    drop(process);
    let next = Process::start(folder.path());
    assert_eq!(["one", "two", "three"].map(|text| next.has_file(text)), [true; 3]);
}

/// Puts notes until they are `6`, each once the one before is acknowledged, and calls `then` at each acknowledgement.
fn put_in_turn(notes: &Documents<Note>, note: u64, then: impl Fn() + Send + 'static) {
    let next = notes.clone();
    notes.put_and(Encoded::new("in turn", &Note(note)), move |result| {
        result.unwrap();
        then();
        if note < 6 {
            put_in_turn(&next, note + 1, then);
        }
    });
}

#[test]
fn replaced_process_removes_no_file() {
    let folder = tempdir().unwrap();
    let old = Process::start(folder.path());
    old.put_plugin("a", &["one"]).unwrap();
    old.put_plugin("a", &["two"]).unwrap();
    age_file(&folder, "one");
    // The next process names a file again that this one does not name.
    let new = Process::start(folder.path());
    new.put_plugin("b", &["one"]).unwrap();
    old.put_plugin("a", &["three"]).unwrap();
    // Files are removed before the next transaction.
    old.put("note", 1).unwrap();
    assert!(new.has_file("one"), "it was named just now");
    // One that ends removes none.
    age_file(&folder, "one");
    old.put_with_files("a", &["four"]);
    drop(old);
    assert!(new.has_file("one") && new.has_file("four"));
}

#[test]
fn unwritten_file_holds_up_rows_that_name_files() {
    let folder = tempdir().unwrap();
    let process = Process::start(folder.path());
    process.put_plugin("a", &["one"]).unwrap();
    process.put_plugin("b", &["one"]).unwrap();
    let files = file_folder(&folder);
    fs::remove_dir_all(&files).unwrap();
    fs::write(&files, "in the way").unwrap();
    process.put_plugin("a", &["two"]).unwrap_err();
    process.put("note", 1).unwrap();
    assert_eq!(process.unwritten(), ["plugin"]);
    // As a process that is killed.
    let reader = Connection::open(database(&folder)).unwrap();
    let rows = "SELECT value FROM kept WHERE kind = 'plugin' AND key = 'a'";
    let value: String = reader.query_row(rows, [], |row| row.get(0)).unwrap();
    assert!(value.contains(&*name_of("one")), "{value}");
    fs::remove_file(&files).unwrap();
    process.put_plugin("b", &["three"]).unwrap();
    assert!(process.unwritten().is_empty());
    drop(process);
    let next = Process::start(folder.path());
    assert_eq!(["two", "three"].map(|text| next.has_file(text)), [true; 2]);
    assert_eq!(next.plugins.get("a"), Some(Plugin(vec![name_of("two")])));
}

#[test]
fn unwritten_file_is_written_at_the_end() {
    let folder = tempdir().unwrap();
    let process = Process::start(folder.path());
    fs::write(file_folder(&folder), "in the way").unwrap();
    process.put_plugin("a", &["one", "two"]).unwrap_err();
    fs::remove_file(file_folder(&folder)).unwrap();
    drop(process);
    let next = Process::start(folder.path());
    assert_eq!(["one", "two"].map(|text| next.has_file(text)), [true; 2]);
    assert_eq!(next.plugins.rows().len(), 1);
}

#[test]
fn rows_of_the_disk_are_read_before_they_are_owned() {
    let folder = tempdir().unwrap();
    assert_eq!(Process::following(folder.path()).notes.rows_of_disk().unwrap(), []);
    Process::start(folder.path()).put("a", 1).unwrap();
    let standby = Process::following(folder.path());
    assert_eq!(standby.notes_of_disk(), [Note(1)]);
    assert_eq!(standby.notes(), [], "they are not its own yet");
    standby.notes.put("a", &Note(2));
    assert!(standby.store.begin(WITHIN));
    drop(standby);
    let next = Process::start(folder.path());
    assert_eq!(next.notes(), named(&[("a", 2)]), "it continued them");
    drop(next);
    write_earlier(&folder, "note.json", "3", 60);
    assert_eq!(Process::following(folder.path()).notes_of_disk(), [Note(3)]);
    assert!(folder.path().join("note.json").exists());
}

#[test]
fn busy_database_fails_the_start() {
    let folder = tempdir().unwrap();
    Process::start(folder.path()).put("a", 1).unwrap();
    let path = database(&folder);
    let other = Connection::open(&path).unwrap();
    other.pragma_update_and_check(None, "locking_mode", "EXCLUSIVE", |_| Ok(())).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let standby = Process::following(folder.path());
    let failed = |standby: &Process| standby.notes.rows_of_disk().unwrap_err().to_string();
    assert_eq!(failed(&standby), format!("{}: database is locked", path.display()));
    drop(other);
    assert_eq!(standby.notes_of_disk(), [Note(1)]);
    // A database that cannot be read.
    let away = folder.path().join("away");
    fs::rename(&path, &away).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(failed(&standby), format!("{}: it is not a regular file", path.display()));
    fs::remove_dir(&path).unwrap();
    fs::rename(&away, &path).unwrap();
    // One of a later version is left, and a damaged one is moved aside later.
    let writer = Connection::open(&path).unwrap();
    writer.pragma_update(None, "user_version", 2).unwrap();
    assert_eq!(standby.notes_of_disk(), []);
    drop(writer);
    fs::write(&path, "no database".repeat(1_000)).unwrap();
    assert_eq!(standby.notes_of_disk(), []);
    assert!(path.exists());
}

#[test]
fn owner_that_begins_after_the_disk_is_read_has_its_rows() {
    let folder = tempdir().unwrap();
    let process = Process::start(folder.path());
    process.put("a", 1).unwrap();
    process.calls.put("1", &Call("ended".into()));
    process.put("b", 2).unwrap();
    drop(process);
    let store = Store::default();
    let notes = store.documents::<Note>();
    let thread = store.open(Some(folder.path()), Path::new("/admin.sock"), &Default::default());
    let thread = thread.unwrap();
    store.begin(WITHIN);
    notes.put("c", &Note(3));
    let calls = store.documents::<Call>();
    assert_eq!(calls.get("1"), Some(Call("ended".into())));
    calls.put("2", &Call("later".into()));
    drop(thread);
    let next = Process::start(folder.path());
    assert_eq!(next.notes(), named(&[("a", 1), ("b", 2), ("c", 3)]));
    assert_eq!(next.calls(), ["ended", "later"]);
}

#[test]
fn acknowledged_row_is_on_the_disk() {
    let folder = tempdir().unwrap();
    let process = Process::start(folder.path());
    process.put("a", 1).unwrap();
    let reader = Connection::open(database(&folder)).unwrap();
    let value: String = reader.query_row("SELECT value FROM kept", [], |row| row.get(0)).unwrap();
    assert_eq!(value, "1");
    // The row is the same.
    process.put("a", 1).unwrap();
    let change: i64 =
        reader.query_row("SELECT change FROM document", [], |row| row.get(0)).unwrap();
    assert_eq!(change, 1);
}

#[test]
fn rows_beyond_the_bound_are_dropped_oldest_first() {
    let folder = tempdir().unwrap();
    let process = Process::start(folder.path());
    (0..6).for_each(|note| process.notes.put(&note.to_string(), &Note(note)));
    process.put("3", 33).unwrap();
    process.put("6", 6).unwrap();
    let newest = named(&[("4", 4), ("5", 5), ("3", 33), ("6", 6)]);
    assert_eq!(process.notes(), newest);
    let reader = Connection::open(database(&folder)).unwrap();
    let count = "SELECT count(*) FROM document";
    assert_eq!(reader.query_row(count, [], |row| row.get::<_, i64>(0)).unwrap(), 4);
}

#[test]
fn follower_gets_changes_since_its_last_part() {
    let folders = [tempdir().unwrap(), tempdir().unwrap()];
    let [owner, standby] = [0, 1].map(|at| Process::following(folders[at].path()));
    owner.store.begin(WITHIN);
    let mut follower = Follower::default();
    ["a", "b", "c"].iter().zip(1..).for_each(|(key, note)| owner.notes.put(key, &Note(note)));
    assert_eq!(owner.store.parts_left(&follower, 1), 4);
    // Each part has a row at least.
    owner.copy(&mut follower, &standby, 1);
    assert!(follower.is_whole() && !owner.store.has_part(&follower));
    assert_eq!(standby.notes(), owner.notes());
    owner.notes.put("a", &Note(5));
    assert_eq!(owner.store.parts_left(&follower, 1_000), 1);
    let part = owner.store.next_part(&mut follower, usize::MAX).unwrap();
    assert_eq!((part.first, part.whole, part.rows.len()), (false, false, 1));
    standby.store.add_part(part);
    assert_eq!(standby.notes(), named(&[("b", 2), ("c", 3), ("a", 5)]));
    assert_eq!(owner.store.next_part(&mut follower, usize::MAX), None);
    // It replaces the owner.
    assert!(!standby.store.begin(WITHIN));
    standby.put("d", 6).unwrap();
    drop(standby);
    let next = Process::start(folders[1].path());
    assert_eq!(next.notes(), named(&[("b", 2), ("c", 3), ("a", 5), ("d", 6)]));
}

#[test]
fn part_of_a_copy_does_not_replace_the_disk() {
    let folders = [tempdir().unwrap(), tempdir().unwrap()];
    Process::start(folders[1].path()).put("mine", 1).unwrap();
    let owner = Process::start(folders[0].path());
    owner.notes.put("a", &Note(1));
    owner.notes.put("b", &Note(2));
    let (mut follower, standby) = (Follower::default(), Process::following(folders[1].path()));
    let reason = standby.put("b", 3).unwrap_err();
    assert_eq!(&*reason, "another process owns the documents");
    standby.store.add_part(owner.store.next_part(&mut follower, 1).unwrap());
    drop(standby);
    let standby = Process::following(folders[1].path());
    let mut follower = Follower::default();
    standby.store.add_part(owner.store.next_part(&mut follower, 1).unwrap());
    // The owner dies now.
    assert!(standby.store.begin(WITHIN));
    assert_eq!(standby.notes(), named(&[("mine", 1), ("a", 1)]));
    drop(standby);
    let standby = Process::following(folders[1].path());
    owner.copy(&mut Follower::default(), &standby, usize::MAX);
    drop(standby);
    let again = Process::start(folders[1].path());
    assert_eq!(again.notes(), named(&[("a", 1), ("b", 2)]), "a whole copy does");
}

#[test]
fn calls_are_not_sent_and_those_of_the_follower_stay() {
    let folders = [tempdir().unwrap(), tempdir().unwrap()];
    Process::start(folders[1].path()).calls.put("before", &Call("before".into()));
    let owner = Process::start(folders[0].path());
    let (mut follower, standby) = (Follower::default(), Process::following(folders[1].path()));
    owner.calls.put("1", &Call("of the owner".into()));
    assert_eq!(owner.store.parts_left(&follower, 1), 1, "an empty part tells that it is whole");
    owner.copy(&mut follower, &standby, 1);
    owner.calls.put("2", &Call("of the owner".into()));
    assert!(follower.is_whole() && !owner.store.has_part(&follower));
    owner.put("a", 1).unwrap();
    let part = owner.store.next_part(&mut follower, usize::MAX).unwrap();
    assert_eq!(part.rows.len(), 1);
    standby.store.add_part(part);
    // The owner's come by another way.
    standby.store.add_part(KeptPart::of_rows([Encoded::new("1", &Call("copied".into()))]));
    standby.store.begin(WITHIN);
    standby.calls.put("2", &Call("later".into()));
    drop(standby);
    let next = Process::start(folders[1].path());
    assert_eq!(next.calls(), ["before", "copied", "later"]);
}

#[test]
fn entries_of_the_owner_are_added_to_own_ones() {
    let folders = [tempdir().unwrap(), tempdir().unwrap()];
    let put = |process: &Process, key: &str| process.entries.put(key, &Entry(key.into()));
    put(&Process::start(folders[1].path()), "of the disk");
    let owner = Process::start(folders[0].path());
    put(&owner, "of the owner");
    let standby = Process::following(folders[1].path());
    put(&standby, "of the standby");
    for _ in 0..2 {
        owner.copy(&mut Follower::default(), &standby, usize::MAX);
    }
    standby.store.begin(WITHIN);
    drop(standby);
    let next = Process::start(folders[1].path());
    let entries: Vec<_> = next.entries.rows().iter().map(|row| row.key.to_string()).collect();
    assert_eq!(entries, ["of the disk", "of the standby", "of the owner"]);
}

#[test]
fn busy_table_gives_no_part_at_once() {
    let process = Process::following(Path::new("/dev/null"));
    process.notes.put("a", &Note(1));
    let reader = process.store.lock();
    let mut follower = Follower::default();
    assert!(!process.store.has_part(&follower));
    assert_eq!(process.store.next_part_now(&mut follower, usize::MAX), None);
    assert!(!process.notes.put_now(Encoded::new("b", &Note(2))));
    drop(reader);
    // The store's thread takes the table for moments.
    wait_until(|| process.notes.put_now(Encoded::new("c", &Note(3))));
    assert_eq!(process.notes(), named(&[("a", 1), ("c", 3)]));
    wait_until(|| process.store.has_part(&follower));
    wait_until(|| process.store.next_part_now(&mut follower, usize::MAX).is_some());
}

#[test]
fn replaced_process_overwrites_nothing() {
    let folder = tempdir().unwrap();
    let [old, new] = [Process::start(folder.path()), Process::following(folder.path())];
    old.put("a", 1).unwrap();
    old.copy(&mut Follower::default(), &new, usize::MAX);
    new.store.begin(WITHIN);
    new.put("a", 2).unwrap();
    // A write that was under way.
    old.notes.put("b", &Note(9));
    new.put("b", 3).unwrap();
    old.put("c", 4).unwrap();
    drop(old);
    drop(new);
    assert_eq!(Process::start(folder.path()).notes.get("b"), Some(Note(3)));
}

#[test]
fn process_without_rows_of_a_kind_removes_none() {
    let folder = tempdir().unwrap();
    let [old, new] = [Process::start(folder.path()), Process::start(folder.path())];
    new.put("a", 1).unwrap();
    old.calls.put("call", &Call("of the old process".into()));
    drop(old);
    drop(new);
    assert_eq!(Process::start(folder.path()).notes(), named(&[("a", 1)]));
}

#[test]
fn file_of_an_earlier_version_counts_if_it_is_newer() {
    let folder = tempdir().unwrap();
    write_earlier(&folder, "note.json", "1", -60);
    let process = Process::start(folder.path());
    assert_eq!(process.notes(), named(&[("", 1)]));
    process.put("", 2).unwrap();
    drop(process);
    assert!(folder.path().join("note.json.moved").exists());
    // A loss of power brought the name back.
    write_earlier(&folder, "note.json", "1", -60);
    assert_eq!(Process::start(folder.path()).notes(), named(&[("", 2)]));
    // An older build ran meanwhile.
    write_earlier(&folder, "note.json", "3", 60);
    assert_eq!(Process::start(folder.path()).notes(), named(&[("", 3)]));
}

#[test]
fn file_with_calls_leaves_those_of_the_disk() {
    let folder = tempdir().unwrap();
    let process = Process::start(folder.path());
    process.calls.put("before", &Call("of the disk".into()));
    process.calls.put("both", &Call("of the disk".into()));
    drop(process);
    for seconds in [60, -60] {
        write_earlier(&folder, "call.json", r#"["both", "after"]"#, seconds);
        let process = Process::start(folder.path());
        assert_eq!(process.calls(), ["of the disk", "of the disk", "of the file"]);
        assert_eq!(process.calls.get("both"), Some(Call("of the disk".into())));
    }
}

#[test]
fn replaced_file_is_written_without_files_of_versions() {
    let folder = tempdir().unwrap();
    let process = Process::start(folder.path());
    process.put("a", 1).unwrap();
    fs::remove_dir_all(folder.path().join("kept")).unwrap();
    write_earlier(&folder, "note.json", "7", 60);
    process.put("a", 2).unwrap();
    assert!(folder.path().join("note.json").exists(), "its rows are not in the database");
}

#[test]
fn rows_with_one_number_reach_followers() {
    let folder = tempdir().unwrap();
    let process = Process::start(folder.path());
    process.put("a", 1).unwrap();
    process.put("b", 2).unwrap();
    drop(process);
    let writer = Connection::open(database(&folder)).unwrap();
    writer.execute("UPDATE document SET change = 5", []).unwrap();
    let kind = "INSERT INTO document VALUES ('of a later version', '', 9, 0, 1, 'null')";
    writer.execute(kind, []).unwrap();
    let (owner, standby) =
        (Process::start(folder.path()), Process::following(Path::new("/dev/null")));
    owner.copy(&mut Follower::default(), &standby, usize::MAX);
    let both = named(&[("a", 1), ("b", 2)]);
    assert_eq!((standby.notes(), owner.notes()), (both.clone(), both));
    owner.put("c", 3).unwrap();
    drop(owner);
    let numbers = "SELECT count(DISTINCT change), count(*) FROM document";
    let both = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
    assert_eq!(writer.query_row(numbers, [], both).unwrap(), (4, 4));
}

#[test]
fn late_write_of_the_replaced_process_has_no_effect() {
    let folder = tempdir().unwrap();
    let [old, new] = [Process::start(folder.path()), Process::following(folder.path())];
    old.put("a", 1).unwrap();
    old.copy(&mut Follower::default(), &new, usize::MAX);
    new.store.begin(WITHIN);
    (2..5).for_each(|note| old.put("late", note).unwrap());
    new.put("late", 9).unwrap();
    drop(new);
    assert_eq!(Process::start(folder.path()).notes.get("late"), Some(Note(9)));
}

#[test]
fn part_changes_the_kinds_of_its_rows() {
    let process = Process::start(tempdir().unwrap().path());
    let mut follower = Follower::default();
    let whole = process.store.next_part(&mut follower, usize::MAX).unwrap();
    assert!(whole.changes::<Note>());
    let part = KeptPart::of_rows([Encoded::new("1", &Call("ended".into()))]);
    assert_eq!((part.changes::<Note>(), part.changes::<Call>()), (false, true));
}

#[test]
fn row_of_another_version_is_refused() {
    let folder = tempdir().unwrap();
    Process::start(folder.path()).put("a", 1).unwrap();
    let writer = Connection::open(database(&folder)).unwrap();
    for version in [1, 3] {
        let set = "UPDATE document SET version = ?1, value = '{}'";
        writer.execute(set, [version]).unwrap();
        let process = Process::start(folder.path());
        assert_eq!(process.notes.get("a"), None);
        let refused = process.notes.row("a").unwrap().decode().unwrap_err();
        let reason = format!("it has version {version}, this gateway reads version 2");
        assert_eq!(refused.to_string(), reason);
        drop(process);
        let value: String =
            writer.query_row("SELECT value FROM document", [], |row| row.get(0)).unwrap();
        assert_eq!(value, "{}", "the version that wrote it may come back");
    }
}

#[test]
fn disk_that_fails_is_reported_and_stops_nothing() {
    let folder = tempdir().unwrap();
    let in_the_way = folder.path().join("kept");
    fs::write(&in_the_way, "a file").unwrap();
    let process = Process::start(folder.path());
    assert!(process.unwritten().is_empty(), "nothing is lost yet");
    process.put("a", 1).unwrap_err();
    assert_eq!((process.unwritten(), process.notes()), (vec!["note"], named(&[("a", 1)])));
    fs::remove_file(&in_the_way).unwrap();
    process.put("b", 2).unwrap();
    assert!(process.unwritten().is_empty());
    assert_eq!(Process::start(folder.path()).notes(), named(&[("a", 1), ("b", 2)]));
}

#[test]
fn disk_that_takes_nothing_is_read_at_the_start() {
    let folder = tempdir().unwrap();
    Process::start(folder.path()).put("before", 1).unwrap();
    write_earlier(&folder, "call.json", r#"["1"]"#, 0);
    // The index of the log cannot be created, as on a full disk: SQLite follows no link.
    let index = disk::with(&database(&folder), "-shm");
    symlink("nowhere", &index).unwrap();
    let process = Process::following(folder.path());
    assert!(process.store.begin(WITHIN), "read now");
    assert!(!process.store.expects_late());
    assert_eq!(
        (process.notes(), process.calls()),
        (named(&[("before", 1)]), vec!["of the file".into()])
    );
    process.put("now", 2).unwrap_err();
    assert_eq!(process.unwritten(), ["call", "note"]);
    fs::remove_file(&index).unwrap();
    process.put("later", 3).unwrap();
    assert!(process.unwritten().is_empty());
    drop(process);
    assert!(folder.path().join("call.json.moved").exists());
    let next = Process::start(folder.path());
    assert_eq!(next.notes(), named(&[("before", 1), ("now", 2), ("later", 3)]));
    assert_eq!(next.calls(), ["of the file"]);
}

#[test]
fn late_disk_keeps_its_rows() {
    let folder = tempdir().unwrap();
    Process::start(folder.path()).put("before", 1).unwrap();
    let (kept, away) = (folder.path().join("kept"), folder.path().join("away"));
    fs::rename(&kept, &away).unwrap();
    fs::write(&kept, "a file").unwrap();
    let process = Process::start(folder.path());
    process.put("now", 2).unwrap_err();
    fs::remove_file(&kept).unwrap();
    fs::rename(&away, &kept).unwrap();
    process.put("now", 3).unwrap();
    assert_eq!(process.notes(), named(&[("before", 1), ("now", 3)]));
    drop(process);
    assert_eq!(Process::start(folder.path()).notes(), named(&[("before", 1), ("now", 3)]));
}

#[test]
fn late_row_is_merged_with_the_own_one_and_told() {
    let folder = tempdir().unwrap();
    Process::start(folder.path()).put("a", 1).unwrap();
    let (kept, away) = (folder.path().join("kept"), folder.path().join("away"));
    fs::rename(&kept, &away).unwrap();
    fs::write(&kept, "a file").unwrap();
    let process = Process::following(folder.path());
    let (told, late) = mpsc::channel();
    process.store.when_late(move || told.send(()).unwrap());
    assert!(!process.store.begin(WITHIN));
    process.put("a", 10).unwrap_err();
    assert!(!process.store.take_late());
    fs::remove_file(&kept).unwrap();
    fs::rename(&away, &kept).unwrap();
    process.put("b", 3).unwrap();
    late.recv_timeout(WITHIN).unwrap();
    assert_eq!([process.store.take_late(), process.store.take_late()], [true, false]);
    let merged = named(&[("b", 3), ("a", 11)]);
    assert_eq!(process.notes(), merged);
    drop(process);
    assert_eq!(Process::start(folder.path()).notes(), merged);
}

#[test]
fn failing_disk_is_tried_ten_times_a_second() {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("kept"), "a file").unwrap();
    let process = Process::start(folder.path());
    let began = Instant::now();
    (0..6).for_each(|note| _ = process.put("a", note).unwrap_err());
    assert!(began.elapsed() >= 5 * REFUSED_FOR);
}

#[test]
fn hanging_disk_delays_neither_callers_nor_the_end() {
    let folder = tempdir().unwrap();
    let process = Process::start(folder.path());
    let (release, hangs) = mpsc::channel::<()>();
    let (began, hanging) = mpsc::channel();
    process.notes.put_and(Encoded::new("a", &Note(1)), move |_| {
        began.send(()).unwrap();
        // The thread waits as for a disk.
        let _ = hangs.recv();
    });
    hanging.recv_timeout(WITHIN).unwrap();
    (0..WAITING_MAX).for_each(|_| process.notes.put_and(Encoded::new("a", &Note(2)), drop));
    assert_eq!(&*process.put("a", 2).unwrap_err(), "the disk does not answer");
    let (ended, end) = mpsc::channel();
    std::thread::spawn(move || {
        drop(process);
        ended.send(()).unwrap();
    });
    end.recv_timeout(WITHIN).unwrap();
    drop(release);
}

#[test]
fn removed_file_is_written_again() {
    let folder = tempdir().unwrap();
    let process = Process::start(folder.path());
    process.put("a", 1).unwrap();
    fs::remove_dir_all(folder.path().join("kept")).unwrap();
    process.put("b", 2).unwrap();
    assert_eq!(Process::start(folder.path()).notes(), named(&[("a", 1), ("b", 2)]));
}

#[test]
fn disk_that_does_not_answer_is_reported() {
    let folder = tempdir().unwrap();
    let process = Process::start(folder.path());
    process.put("a", 1).unwrap();
    let other = Connection::open(database(&folder)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    process.notes.put("b", &Note(2));
    wait_until(|| {
        process.store.report_slow_disk();
        !process.unwritten().is_empty()
    });
    assert!(process.unwritten.list()[0].reason.starts_with("the disk has not answered for "));
    assert_eq!(process.notes(), named(&[("a", 1), ("b", 2)]), "readers do not wait");
    other.execute_batch("COMMIT").unwrap();
    process.put("c", 3).unwrap();
    assert!(process.unwritten().is_empty());
}

/// The child of `killed_process_has_what_it_acknowledged`: puts notes and calls until it is killed.
#[test]
#[ignore = "runs as a child of another test"]
fn puts_until_it_is_killed() {
    let folder = std::env::var_os("KEPT_CHILD").expect("the test that starts this one sets it");
    let process = Process::start(Path::new(&folder));
    for note in 0.. {
        (0..20)
            .for_each(|call| process.calls.put(&format!("{note}-{call}"), &Call("x".repeat(300))));
        process.put("newest", note).unwrap();
        println!("acknowledged {note}");
    }
}

#[test]
fn killed_process_has_what_it_acknowledged() {
    let folder = tempdir().unwrap();
    for round in 1..=5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::puts_until_it_is_killed", "--ignored", "--nocapture"])
            .env("KEPT_CHILD", folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let acknowledged = |line: String| line.rsplit_once("acknowledged ")?.1.parse::<u64>().ok();
        lines.by_ref().filter_map(acknowledged).nth(10 * round).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let last = lines.filter_map(acknowledged).last().unwrap_or(10 * round as u64);
        let process = Process::start(folder.path());
        let newest = process.notes.get("newest").unwrap().0;
        assert!(newest >= last, "{newest} is kept, {last} was acknowledged");
        let calls = process.calls.rows();
        let whole = (0..=newest)
            .all(|note| (0..20).all(|call| process.calls.row(&format!("{note}-{call}")).is_some()));
        assert!(whole && calls.iter().all(|row| row.decode().unwrap().0.len() == 300));
        drop(process);
        let check = Connection::open(database(&folder)).unwrap();
        let intact: String =
            check.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(intact, "ok");
    }
}

/// `cargo test --release -p evenkeel-kept -- --ignored --nocapture cost`
#[test]
#[ignore = "measures"]
fn cost_of_100_000_records() {
    let folder = tempdir().unwrap();
    let process = Process::start(folder.path());
    let call = Call("x".repeat(400));
    let began = Instant::now();
    (0..100_000).for_each(|number| process.calls.put(&number.to_string(), &call));
    let put = began.elapsed();
    process.put("a", 1).unwrap();
    let written = began.elapsed();
    let began = Instant::now();
    (0..100).for_each(|note| process.put("a", note).unwrap());
    let acknowledged = began.elapsed() / 100;
    drop(process);
    let bytes = fs::metadata(database(&folder)).unwrap().len();
    let began = Instant::now();
    let process = Process::start(folder.path());
    let read = began.elapsed();
    assert_eq!(process.calls.rows().len(), 100_000);
    println!(
        "put {put:?}, written after {written:?}, {bytes} bytes, read in {read:?}; one acknowledged in {acknowledged:?}"
    );
    drop(process.thread);
}
