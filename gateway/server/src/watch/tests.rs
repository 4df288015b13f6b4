use notify::event::{CreateKind, DataChange, MetadataKind, RemoveKind};
use tokio::time::Instant;

use super::*;
use crate::reload::tests::Folder;

/// Far longer than the kernel needs.
const PATIENCE: Duration = Duration::from_secs(20);

const DATA: EventKind = EventKind::Modify(ModifyKind::Data(DataChange::Any));
const CREATE: EventKind = EventKind::Create(CreateKind::File);
const REMOVE: EventKind = EventKind::Remove(RemoveKind::File);
const CLOSE: EventKind = EventKind::Access(AccessKind::Close(AccessMode::Write));
const FROM: EventKind = EventKind::Modify(ModifyKind::Name(RenameMode::From));
const TO: EventKind = EventKind::Modify(ModifyKind::Name(RenameMode::To));
const BOTH: EventKind = EventKind::Modify(ModifyKind::Name(RenameMode::Both));
const MODE: EventKind = EventKind::Modify(ModifyKind::Metadata(MetadataKind::Any));

fn watched(folder: &Path) -> WatchedFolders {
    let files = BTreeSet::from([folder.join("mine.wasm")]);
    WatchedFolders { folders: BTreeSet::from([folder.to_owned()]), files }
}

/// A folder with events made by the test.
struct Stage {
    word: mpsc::Sender<()>,
    changed: mpsc::Receiver<()>,
    underway: UnfinishedChanges,
    watched: WatchedFolders,
}

impl Stage {
    fn new() -> Stage {
        let (word, changed) = mpsc::channel(1);
        let watched = watched(Path::new("/etc/policies"));
        Stage { word, changed, underway: UnfinishedChanges::default(), watched }
    }

    fn happens(&self, kind: EventKind, file: &str) {
        let event = Event::new(kind).add_path(Path::new("/etc/policies").join(file));
        if self.underway.note(&event, &self.watched) {
            let _ = self.word.try_send(());
        }
    }

    /// Sends events, each after a delay in milliseconds.
    fn happen(&self, steps: &'static [(u64, EventKind, &'static str)]) {
        let (word, underway, watched) =
            (self.word.clone(), self.underway.clone(), self.watched.clone());
        tokio::spawn(async move {
            let changed = mpsc::channel(1).1;
            let stage = Stage { word, changed, underway, watched };
            for (after, kind, file) in steps {
                tokio::time::sleep(Duration::from_millis(*after)).await;
                stage.happens(*kind, file);
            }
        });
    }

    /// The time until the files are read.
    async fn read_after(&mut self) -> Duration {
        let before = Instant::now();
        self.changed.recv().await.unwrap();
        settle(&mut self.changed, &self.underway).await;
        before.elapsed()
    }
}

async fn hears(changed: &mut mpsc::Receiver<()>, underway: &UnfinishedChanges) {
    tokio::time::timeout(PATIENCE, changed.recv()).await.expect("change is noticed");
    settle(changed, underway).await;
}

#[tokio::test]
async fn replaced_folder_is_watched_further() {
    let folder = Folder::with("call.toml", "");
    let policies = folder.policies();
    let (word, mut changed) = mpsc::channel(1);
    let (watched, underway) = (watched(&policies), UnfinishedChanges::default());
    let first = watch(&watched, &word, &underway);
    folder.write("call.toml", "# changed\n");
    hears(&mut changed, &underway).await;

    std::fs::create_dir(policies.with_file_name("next")).unwrap();
    std::fs::rename(&policies, policies.with_file_name("last")).unwrap();
    std::fs::rename(policies.with_file_name("next"), &policies).unwrap();
    hears(&mut changed, &underway).await;

    let (word, mut changed) = mpsc::channel(1);
    let again = watch(&watched, &word, &underway);
    drop(first);
    folder.write("call.toml", "# changed again\n");
    hears(&mut changed, &underway).await;
    drop(again);
}

/// Uses real events of the kernel.
#[tokio::test]
async fn open_file_is_awaited_until_closed() {
    use std::io::Write;

    let folder = Folder::with("call.toml", "");
    let (word, mut changed) = mpsc::channel(1);
    let (watched, underway) = (watched(&folder.policies()), UnfinishedChanges::default());
    let _watching = watch(&watched, &word, &underway);
    let mut file = std::fs::File::create(folder.policies().join("mine.wasm")).unwrap();
    file.write_all(b"half of it").unwrap();
    let wait_for = |until: WaitReason| {
        let underway = underway.clone();
        let waits = async move {
            while underway.until() != until {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waits)
    };
    wait_for(WaitReason::Whole).await.expect("write is noticed");
    drop(file);
    wait_for(WaitReason::Together).await.expect("close is noticed");
    hears(&mut changed, &underway).await;
}

#[test]
fn foreign_files_and_reads_are_ignored() {
    let watched = watched(Path::new("/etc/evenkeel/policies"));
    let read = EventKind::Access(AccessKind::Any);
    for (kind, path, expected) in [
        (DATA, "/etc/evenkeel/policies/call.toml", true),
        (CLOSE, "/etc/evenkeel/policies/call.toml", true),
        (DATA, "/etc/evenkeel/policies", true),
        (read, "/etc/evenkeel/policies/call.toml", false),
        (DATA, "/etc/evenkeel/token", false),
    ] {
        let event = Event::new(kind).add_path(path.into());
        assert_eq!(UnfinishedChanges::default().note(&event, &watched), expected, "{event:?}");
    }
    assert!(UnfinishedChanges::default().note(&Event::new(EventKind::Other), &watched));
}

#[tokio::test(start_paused = true)]
async fn complete_files_are_read_together() {
    let mut stage = Stage::new();
    stage.happen(&[(0, CREATE, "mine.wasm"), (0, DATA, "mine.wasm"), (0, CLOSE, "mine.wasm")]);
    assert_eq!(stage.read_after().await, TOGETHER);

    stage.happen(&[(0, DATA, "mine.wasm"), (0, CLOSE, "mine.wasm"), (4, DATA, "call.toml")]);
    stage.happen(&[(5, CLOSE, "call.toml")]);
    assert_eq!(stage.read_after().await, Duration::from_millis(10));
    assert!(stage.changed.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn renamed_file_is_read_at_once() {
    for name in [".next", "mine.new"] {
        let mut stage = Stage::new();
        stage.happens(CREATE, name);
        stage.happens(DATA, name);
        stage.happens(CLOSE, name);
        stage.happens(MODE, name);
        stage.happens(FROM, name);
        stage.happens(TO, "mine.wasm");
        stage.happens(BOTH, "mine.wasm");
        assert_eq!(stage.read_after().await, TOGETHER, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn slowly_written_file_is_read_when_complete() {
    let mut stage = Stage::new();
    stage.happen(&[(0, DATA, "mine.wasm"), (300, DATA, "mine.wasm"), (300, CLOSE, "mine.wasm")]);
    assert_eq!(stage.read_after().await, Duration::from_millis(600) + TOGETHER);

    // A complete file also waits, since it may depend on the incomplete one.
    stage.happen(&[(0, DATA, "mine.wasm"), (1, CLOSE, "call.toml"), (200, CLOSE, "mine.wasm")]);
    assert_eq!(stage.read_after().await, Duration::from_millis(201) + TOGETHER);
}

#[tokio::test(start_paused = true)]
async fn unfinished_file_is_read_at_limit_and_at_end() {
    let mut stage = Stage::new();
    stage.happen(&[(0, DATA, "mine.wasm"), (1_500, DATA, "mine.wasm"), (0, CLOSE, "mine.wasm")]);
    assert_eq!(stage.read_after().await, SETTLED_AT_LATEST);
    assert_eq!(stage.read_after().await, Duration::from_millis(500) + TOGETHER);
}

/// Vim renames the old file, then creates the new one; its swap file is hidden and stays open.
#[tokio::test(start_paused = true)]
async fn editor_steps_are_read_as_one_change() {
    let mut stage = Stage::new();
    stage.happen(&[
        (0, DATA, ".call.toml.swp"),
        (1, FROM, "call.toml"),
        (0, TO, "call.toml~"),
        (20, CREATE, "call.toml"),
        (20, DATA, "call.toml"),
        (20, CLOSE, "call.toml"),
    ]);
    assert_eq!(stage.read_after().await, Duration::from_millis(61) + TOGETHER);
    stage.happen(&[(0, MODE, "call.toml"), (0, REMOVE, "call.toml~")]);
    assert_eq!(stage.read_after().await, QUIET, "further steps may follow");
}

#[tokio::test(start_paused = true)]
async fn removed_file_is_noticed_after_quiet_time() {
    let mut stage = Stage::new();
    stage.happens(REMOVE, "mine.wasm");
    assert_eq!(stage.read_after().await, QUIET);
}

#[tokio::test(start_paused = true)]
async fn steadily_changing_file_is_read_at_limit() {
    let mut stage = Stage::new();
    let word = stage.word.clone();
    let busy = tokio::spawn(async move {
        loop {
            let _ = word.try_send(());
            tokio::time::sleep(Duration::from_millis(4)).await;
        }
    });
    assert_eq!(stage.read_after().await, SETTLED_AT_LATEST);
    busy.abort();
}
