//! Records after a restart, and files that cannot be read or written.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use evenkeel_config::RolloutSettings;
use evenkeel_kept::StoreThread;
use evenkeel_model::Hook;
use evenkeel_process::documents::UnwrittenDocuments;
use evenkeel_revisions::{
    AcceptedRevision, Lifecycle, QuarantinedRevision, Remembered, Version, WallClock,
};
use serde_json::json;
use tempfile::{TempDir, tempdir};
use tokio::sync::oneshot;

use super::*;
use crate::record::PluginFiles;

const WITHIN: Duration = Duration::from_secs(60);

/// The folder of a cache.
struct Folder(TempDir);

/// A process of a gateway. Its thread writes the last rows when it is dropped.
struct Process {
    memory: PolicyMemory,
    store: Store,
    unwritten: UnwrittenDocuments,
    _thread: StoreThread,
}

impl Folder {
    fn new() -> Folder {
        Folder(tempdir().unwrap())
    }

    /// Starts a process of the test's gateway.
    fn open(&self) -> Process {
        self.open_as("admin.sock")
    }

    fn open_as(&self, socket: &str) -> Process {
        let process = self.follow(socket);
        process.store.begin(WITHIN);
        process
    }

    /// Starts a process of a gateway that another one still serves.
    fn follow(&self, socket: &str) -> Process {
        let (store, unwritten) = (Store::default(), UnwrittenDocuments::default());
        let (cache, socket) = (self.0.path(), self.0.path().join(socket));
        let thread = store.open(Some(cache), &socket, &unwritten).unwrap();
        let memory = PolicyMemory::read(&store, Some(cache), &socket).unwrap();
        Process { memory, store, unwritten, _thread: thread }
    }

    /// The name of the gateway's files.
    fn name(&self) -> String {
        file::name_of(&self.0.path().join("admin.sock"))
    }

    /// The folder of its plugins and data documents.
    fn files(&self) -> PathBuf {
        self.0.path().join("kept").join(format!("{}.sqlite-files", self.name()))
    }

    fn file_names(&self) -> Vec<String> {
        let files = fs::read_dir(self.files()).unwrap();
        let mut names: Vec<_> =
            files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Has its plugins and data documents not been named for long.
    fn age_files(&self) {
        for file in fs::read_dir(self.files()).unwrap() {
            let file = fs::File::open(file.unwrap().path()).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        }
    }

    /// Writes the files of a version without a database.
    fn write_earlier(&self, records: &PolicyRecords) -> PathBuf {
        let folder = self.0.path().join(earlier_folder(&self.name()));
        fs::create_dir_all(&folder).unwrap();
        for (digest, bytes) in &records.files {
            let ending = if bytes.starts_with(b"{") { "json" } else { "wasm" };
            fs::write(folder.join(&**digest).with_extension(ending), bytes).unwrap();
        }
        let content =
            || json!({"version": 2, "gateway": "admin.sock", "policies": records.records});
        let text = instant::relative_to(Instant::now(), content).to_string();
        let path = folder.with_extension("json");
        fs::write(&path, text).unwrap();
        path
    }
}

impl Process {
    fn keep(&self, PolicyRecords { records, files }: PolicyRecords) {
        let [record] = &records[..] else { panic!("one record") };
        self.memory.keep(record, files);
    }

    fn written(&self) -> Result<(), Arc<str>> {
        let (reply, written) = oneshot::channel();
        self.memory.await_written(move |result| reply.send(result).unwrap());
        written.blocking_recv().unwrap()
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

/// The record of a policy with these facts, and a plugin with these bytes and a data document.
fn records(hook: Hook, revision: &str) -> PolicyRecords {
    let (policy, now) = (of(hook), Instant::now());
    let clock = WallClock { instant: now, time: SystemTime::UNIX_EPOCH };
    let life = Lifecycle::new(policy.clone(), RolloutSettings::default().rules(), clock);
    let mut life = life.record();
    life.remembered = remembered(revision);
    let [plugin, document] = [revision.to_owned(), json!({ "of": revision }).to_string()];
    let [plugin, document] = [plugin, document].map(|text| {
        let bytes = Bytes::from(text);
        (record::digest(&bytes), bytes)
    });
    let named = PluginRecord {
        revision: revision.into(),
        digest: Arc::clone(&plugin.0),
        settings: json!({"spares": 2}),
        origin: "pushed".into(),
        documents: [("tenants".into(), Arc::clone(&document.0))].into(),
    };
    let record = PolicyRecord { policy, configured: None, life, plugins: vec![named] };
    PolicyRecords { records: vec![record], files: [plugin, document].into() }
}

fn known(mut process: Process, hook: Hook) -> Remembered {
    let PolicyRecords { mut records, .. } = process.memory.begin(&of(hook));
    records.pop().map(|record| record.life.remembered).unwrap_or_default()
}

/// Keeps the facts, and ends the process.
fn keep(mut process: Process, hook: Hook, revision: &str) {
    process.memory.begin(&of(hook));
    process.keep(records(hook, revision));
}

#[test]
fn only_the_process_that_serves_writes() {
    let folder = Folder::new();
    keep(folder.open(), Hook::Routing, "old");
    keep(folder.follow("admin.sock"), Hook::Routing, "given up");
    assert_eq!(known(folder.open(), Hook::Routing), remembered("old"));
    let mut new = folder.follow("admin.sock");
    assert_eq!(new.memory.begin(&of(Hook::Routing)).records.len(), 1, "it continues them");
    new.keep(records(Hook::Routing, "new"));
    new.store.begin(WITHIN);
    drop(new);
    assert_eq!(known(folder.open(), Hook::Routing), remembered("new"));
}

#[test]
fn callers_learn_that_records_cannot_be_written() {
    let folder = Folder::new();
    let mut process = folder.open();
    assert_eq!(process.written(), Ok(()), "there are none");
    process.memory.begin(&of(Hook::Routing));
    fs::write(folder.files(), "in the way").unwrap();
    process.keep(records(Hook::Routing, "a"));
    process.written().unwrap_err();
    let unwritten = process.unwritten.list();
    assert_eq!(unwritten.iter().map(|it| it.document).collect::<Vec<_>>(), ["policies"]);
    fs::remove_file(folder.files()).unwrap();
    assert_eq!(process.written(), Ok(()), "it is tried again");
    assert!(process.unwritten.list().is_empty());
    drop(process);
    assert_eq!(known(folder.open(), Hook::Routing), remembered("a"));
}

#[test]
fn nothing_is_kept_without_a_folder() {
    let store = Store::default();
    let _thread = store.open(None, Path::new("/admin.sock"), &Default::default()).unwrap();
    let mut memory = PolicyMemory::read(&store, None, Path::new("/admin.sock")).unwrap();
    assert!(memory.begin(&of(Hook::Routing)).is_empty());
    let PolicyRecords { records, files } = records(Hook::Routing, "a");
    memory.keep(&records[0], files);
    let (reply, written) = oneshot::channel();
    memory.await_written(move |result| reply.send(result).unwrap());
    assert_eq!(written.blocking_recv().unwrap(), Ok(()));
}

#[test]
fn records_are_read_by_gateway_and_policy() {
    let folder = Folder::new();
    keep(folder.open(), Hook::Routing, "first");
    assert_eq!(known(folder.open(), Hook::Routing), remembered("first"));
    assert_eq!(known(folder.open(), Hook::Admission), Remembered::default());
    assert_eq!(known(folder.open_as("another"), Hook::Routing), Remembered::default());
    keep(folder.open(), Hook::Routing, "second");
    assert_eq!(known(folder.open(), Hook::Routing), remembered("second"));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let file = folder.files().join(&folder.file_names()[0]);
    assert_eq!((mode(&file), mode(&folder.files())), (0o600, 0o700));
}

#[test]
fn removed_policy_is_forgotten_once_a_process_serves() {
    let folder = Folder::new();
    let mut process = folder.open();
    for hook in [Hook::Routing, Hook::Admission] {
        process.memory.begin(&of(hook));
        process.keep(records(hook, "first"));
    }
    drop(process);
    // A start that failed after its first policy.
    known(folder.open(), Hook::Routing);
    assert_eq!(known(folder.open(), Hook::Admission), remembered("first"));
    folder.age_files();
    let mut process = folder.open();
    process.memory.begin(&of(Hook::Routing));
    process.memory.forget_others();
    process.keep(records(Hook::Routing, "second"));
    process.written().unwrap();
    // A later change of the configuration begins it anew.
    assert_eq!(known(process, Hook::Admission), Remembered::default());
    assert_eq!(known(folder.open(), Hook::Admission), Remembered::default());
    assert_eq!(folder.file_names().len(), 2, "its plugin and document are gone");
    keep(folder.open(), Hook::Admission, "third");
    assert_eq!(known(folder.open(), Hook::Admission), remembered("third"));
}

#[test]
fn removed_policy_begins_anew() {
    let folder = Folder::new();
    let mut process = folder.open();
    process.memory.begin(&of(Hook::Routing));
    process.keep(records(Hook::Routing, "first"));
    process.memory.forget(&of(Hook::Routing));
    process.written().unwrap();
    drop(process);
    let mut process = folder.open();
    assert_eq!(process.memory.begin(&of(Hook::Routing)).records.len(), 0);
    process.keep(records(Hook::Routing, "second"));
    drop(process);
    assert_eq!(known(folder.open(), Hook::Routing), remembered("second"));
}

#[test]
fn files_are_kept_while_a_record_names_them() {
    let folder = Folder::new();
    keep(folder.open(), Hook::Routing, "first");
    let (first, second) = (records(Hook::Routing, "first"), records(Hook::Routing, "second"));
    let names = |files: &PluginFiles| files.keys().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(folder.file_names(), names(&first.files));
    folder.age_files();
    let mut process = folder.open();
    process.memory.begin(&of(Hook::Routing));
    process.keep(second.clone());
    process.written().unwrap();
    drop(process);
    assert_eq!(folder.file_names(), names(&second.files), "no record names the others");
    let read = || folder.open().memory.begin(&of(Hook::Routing));
    assert_eq!(
        (&read().records[0].plugins, read().files),
        (&second.records[0].plugins, second.files.clone(),)
    );
    for name in names(&second.files) {
        fs::write(folder.files().join(&name), "{\"forged\": 1}").unwrap();
        assert!(!read().files.contains_key(&*name), "its digest differs");
        assert!(!folder.files().join(name).exists());
    }
}

#[test]
fn files_of_an_earlier_version_are_continued() {
    let folder = Folder::new();
    let earlier = records(Hook::Routing, "earlier");
    let path = folder.write_earlier(&earlier);
    // A standby does not own them.
    let read = folder.follow("admin.sock").memory.begin(&of(Hook::Routing));
    assert_eq!(
        (read.records[0].life.remembered.clone(), read.files),
        (remembered("earlier"), earlier.files.clone(),)
    );
    assert!(path.exists());
    let process = folder.open();
    process.written().unwrap();
    drop(process);
    assert!(!path.exists() && path.with_extension("json.moved").exists());
    let read = folder.open().memory.begin(&of(Hook::Routing));
    assert_eq!(read.records[0].plugins, earlier.records[0].plugins);
    assert_eq!(read.files, earlier.files);
    keep(folder.open(), Hook::Routing, "later");
    assert_eq!(known(folder.open(), Hook::Routing), remembered("later"));
}

#[test]
fn file_of_an_earlier_version_counts_if_it_is_newer() {
    let folder = Folder::new();
    keep(folder.open(), Hook::Routing, "of the database");
    let path = folder.write_earlier(&records(Hook::Routing, "later"));
    let set_time = |at: SystemTime| {
        fs::File::options().write(true).open(&path).unwrap().set_modified(at).unwrap();
    };
    set_time(SystemTime::UNIX_EPOCH + WITHIN);
    assert_eq!(known(folder.follow("admin.sock"), Hook::Routing), remembered("of the database"));
    set_time(SystemTime::now() + WITHIN);
    assert_eq!(known(folder.open(), Hook::Routing), remembered("later"));
}

#[test]
fn damaged_file_of_an_earlier_version_is_refused() {
    let folder = Folder::new();
    let whole = fs::read_to_string(folder.write_earlier(&records(Hook::Routing, "a"))).unwrap();
    assert_eq!(KeptPolicy::read_earlier(whole.as_bytes()).unwrap().len(), 1);
    let later = whole.replace("\"version\":2", "\"version\":3");
    assert_ne!(later, whole);
    for damaged in [&whole[..whole.len() / 2], "", "null", later.as_str()] {
        KeptPolicy::read_earlier(damaged.as_bytes()).unwrap_err();
    }
}

#[test]
fn damaged_row_is_left_out() {
    let folder = Folder::new();
    keep(folder.open(), Hook::Routing, "first");
    let process = folder.open();
    process.store.documents::<KeptPolicy>().put("call/routing", &KeptPolicy(json!({"life": 1})));
    process.written().unwrap();
    drop(process);
    assert_eq!(known(folder.open(), Hook::Routing), Remembered::default());
    folder.age_files();
    let mut process = folder.open();
    process.memory.begin(&of(Hook::Admission));
    process.keep(records(Hook::Admission, "other"));
    process.written().unwrap();
    drop(process);
    assert_eq!(folder.file_names().len(), 4, "the row may name the files of the first");
    keep(folder.open(), Hook::Routing, "second");
    assert_eq!(known(folder.open(), Hook::Routing), remembered("second"));
}
