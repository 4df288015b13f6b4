//! Records in memory and on the disk, across processes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::ops::Deref;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use evenkeel_kept::StoreThread;
use evenkeel_model::{ClosedMove, Decider, Hop, Incarnation, MoveCause, NodeId};
use evenkeel_process::documents::UnwrittenDocuments;
use evenkeel_process::{file, unix_us};
use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use super::ended::BYTES_MAX;
use super::open::tests::session;
use super::*;
use crate::samples::{closed_session, ended_session as record};

pub(super) const WITHIN: Duration = Duration::from_secs(60);

const SOCKET: &str = "/admin.sock";

/// A folder for the files of one gateway.
pub(super) struct Folder(TempDir);

impl Folder {
    pub(super) fn new() -> Folder {
        Folder(tempdir().unwrap())
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn start(&self) -> Process {
        self.start_after(LeftSessions::Ended)
    }

    pub(super) fn start_after(&self, left: LeftSessions) -> Process {
        start(Some(self.path()), left)
    }

    fn database(&self) -> PathBuf {
        self.path().join("kept").join(format!("{}.sqlite", file::name_of(Path::new(SOCKET))))
    }

    fn connect(&self) -> Connection {
        Connection::open(self.database()).unwrap()
    }

    fn count(&self, table: &str) -> u64 {
        let count = format!("SELECT count(*) FROM {table}");
        let count = |rows: Connection| rows.query_row(&count, [], |row| row.get::<_, i64>(0));
        Connection::open(self.database()).and_then(count).map_or(0, |count| count as u64)
    }

    fn await_count(&self, table: &str, count: u64) {
        let deadline = Instant::now() + WITHIN;
        while self.count(table) != count {
            assert!(Instant::now() < deadline, "{} in {table}", self.count(table));
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }
}

/// The history of one process. Dropping it writes all records, but leaves sessions open, as a kill does.
pub(super) struct Process {
    writer: HistoryWriter,
    unwritten: UnwrittenDocuments,
    _thread: StoreThread,
}

impl Deref for Process {
    type Target = HistoryWriter;

    fn deref(&self) -> &HistoryWriter {
        &self.writer
    }
}

impl Process {
    pub(super) fn expect_ids(&self, ids: &[&str]) {
        let listed = || self::ids(&self.history);
        let deadline = Instant::now() + WITHIN;
        while listed() != ids {
            assert!(Instant::now() < deadline, "{:?}", listed());
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    fn expect_newest(&self, number: u64) {
        let newest = || self.history.list(u64::MAX, 1, |_| true).pop();
        let (id, deadline) = (format!("s{number}"), Instant::now() + WITHIN);
        while newest().is_none_or(|(_, record)| *record.id != *id) {
            assert!(Instant::now() < deadline, "{:?}", newest());
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    fn expect_unwritten(&self, documents: &[&str]) {
        let failing = || self.unwritten.list().iter().map(|it| it.document).collect::<Vec<_>>();
        let deadline = Instant::now() + WITHIN;
        while failing() != documents {
            assert!(Instant::now() < deadline, "{:?}", failing());
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    /// Opens these sessions.
    fn open_all(&self, numbers: std::ops::Range<u64>) {
        for number in numbers {
            while self.records.is_full() {
                std::thread::yield_now();
            }
            self.open(session(number));
        }
    }
}

fn start(folder: Option<&Path>, left: LeftSessions) -> Process {
    let (store, unwritten) = (Store::default(), UnwrittenDocuments::default());
    let thread = store.open(folder, Path::new(SOCKET), &unwritten).unwrap();
    let writer = HistoryWriter::start(&store, folder, Path::new(SOCKET), "host".into(), left);
    Process { writer, unwritten, _thread: thread }
}

fn ended(number: u64, room: &str) -> HistoryRecord {
    HistoryRecord::Ended(Box::new(record(number, room)), None)
}

pub(super) fn send(writer: &HistoryWriter, numbers: impl IntoIterator<Item = u64>) {
    numbers.into_iter().for_each(|number| writer.send_or_count(ended(number, "room")));
}

/// Ids of the listed sessions, newest first.
fn ids(history: &SessionHistory) -> Vec<String> {
    let all = history.list(u64::MAX, usize::MAX, |_| true);
    all.iter().map(|(_, record)| record.id.to_string()).collect()
}

#[test]
fn record_has_documented_fields() {
    let now = Instant::now();
    let step = |cause| ClosedMove {
        cause,
        by: Arc::new(Decider::Operator),
        from: Hop { node: NodeId(0), incarnation: Incarnation(1) },
        to: None,
        ended: now - Duration::from_secs(1),
    };
    let closed = ClosedSession {
        offered: now - Duration::from_millis(61_250),
        moves: [MoveCause::Drain, MoveCause::Link, MoveCause::Drain].map(step).to_vec(),
        ..closed_session(now)
    };
    let totals = Totals {
        packets_up: 1,
        bytes_up: 2,
        packets_down: 3,
        bytes_down: 4,
        shed: 5,
        lost_up: 6,
        switches: 7,
        lost_at_switches: 8,
        bytes_copied: 9,
    };
    let (session, reason) = (SessionId(17), CloseReason::MediaTimeout);
    let record =
        record_of_end("host", session, "room-1", reason, &closed, &totals, &NodeNames::default());
    let ago = unix_us(SystemTime::now()) - record.ended_us;
    assert!(ago < WITHIN.as_micros() as u64, "{ago}");
    assert_eq!(record.ended_us - record.offered_us, 61_250_000);
    let mut shown: Value = serde_json::to_value(&record).unwrap();
    let moved_us = shown["last_moves"][0]["at_us"].as_u64().unwrap();
    assert_eq!(record.ended_us - moved_us, 1_000_000);
    shown["last_moves"].as_array_mut().unwrap().truncate(1);
    for time in ["/offered_us", "/ended_us", "/last_moves/0/at_us"] {
        assert!(shown.pointer_mut(time).unwrap().take().is_u64());
    }
    let documented = json!({
        "id": "s17", "gateway": "host", "room": "room-1", "scenario": "call", "ingress": "udp",
        "mode": "hot", "offered_us": null, "ended_us": null, "duration_ms": 61_250,
        "admitted_by": "native", "reason": "media-timeout", "moves": {"drain": 2, "link": 1},
        "last_moves": [{"at_us": null, "from": "n0", "to": null, "cause": "drain", "by": "operator"}],
        "totals": {
            "packets_up": 1, "bytes_up": 2, "packets_down": 3, "bytes_down": 4, "shed": 5,
            "lost_up": 6, "switches": 7, "lost_at_switches": 8,
        },
    });
    assert_eq!(shown, documented);
}

/// A line of this version stays readable, and so does one with fields of a later version.
#[test]
fn lines_of_other_versions_are_read() {
    let line = r#"{"id":"s17","gateway":"host","room":"r","scenario":"call","ingress":"udp","mode":"hot",
        "offered_us":5,"ended_us":9,"duration_ms":0,"admitted_by":"native",
        "totals":{"packets_up":1,"bytes_up":2,"packets_down":3,"bytes_down":4,"shed":5,"lost_up":6,
        "switches":7,"lost_at_switches":8,"gaps":2},"moves":{"drain":2},"reason":"requested","later":1}"#;
    let record: EndedSession = serde_json::from_str(line).unwrap();
    assert_eq!(
        (&*record.id, record.ended_us, record.totals.unwrap().lost_at_switches),
        ("s17", 9, 8)
    );
    assert_eq!(record.moves, BTreeMap::from([("drain".into(), 2)]));
}

/// A standby gets the records of the owner, also those that it had as the owner.
#[test]
fn copies_are_kept_once() {
    let folder = Folder::new();
    let writer = folder.start();
    let own = record(1, "room");
    writer.send_or_count(HistoryRecord::Ended(Box::new(own.clone()), None));
    writer.expect_ids(&["s1"]);
    writer.copy(vec![own, record(2, "room")], Vec::new());
    writer.expect_ids(&["s2", "s1"]);
    drop(writer);
    let writer = folder.start();
    writer.expect_ids(&["s2", "s1"]);
}

#[test]
fn each_record_is_read_once_by_its_number() {
    let history = SessionHistory::default();
    (1..=3).for_each(|number| history.add(record(number, "room"), 1));
    let (next, first) = history.records_from(0, 2);
    let (end, rest) = history.records_from(next, 2);
    let ids = |records: Vec<EndedSession>| records.into_iter().map(|it| it.id).collect::<Vec<_>>();
    assert_eq!((ids(first), ids(rest)), (vec!["s1".into(), "s2".into()], vec!["s3".into()]));
    assert!(history.has_number(next) && !history.has_number(end));
    // Records of an earlier process come before them, and are read too.
    assert_eq!(history.add_earlier(vec![record(0, "room")]), end + 1);
    assert_eq!(ids(history.records_from(end, 9).1)[0], "s0".into());
}

#[test]
fn records_are_listed_newest_first() {
    let history = SessionHistory::default();
    for (number, room) in [(1, "a"), (2, "b"), (3, "a"), (4, "a")] {
        history.add(record(number, room), 1);
    }
    let page = |before, limit| {
        let page = history.list(before, limit, |record| &*record.room == "a");
        page.iter().map(|(number, record)| (*number, record.id.to_string())).collect::<Vec<_>>()
    };
    assert_eq!(page(u64::MAX, 2), [(3, "s4".to_owned()), (2, "s3".to_owned())]);
    assert_eq!(page(2, 2), [(0, "s1".to_owned())]);
}

#[test]
fn records_in_memory_are_bounded() {
    let history = SessionHistory::default();
    (0..RECORDS_MAX as u64 + 3).for_each(|number| history.add(record(number, "room"), 1));
    let all = history.list(u64::MAX, usize::MAX, |_| true);
    let numbers = [all[0].0, all[all.len() - 1].0];
    assert_eq!((all.len(), numbers), (RECORDS_MAX, [RECORDS_MAX as u64 + 2, 3]));
    history.add(record(1, "room"), BYTES_MAX - 10);
    assert_eq!(ids(&history).len(), 11);
    history.add(record(2, "room"), 11);
    assert_eq!(ids(&history), ["s2"]);
}

#[test]
fn next_process_lists_earlier_records() {
    let folder = Folder::new();
    send(&folder.start(), 1..4);
    let next = folder.start();
    next.expect_ids(&["s3", "s2", "s1"]);
    send(&next, [1]);
    next.expect_ids(&["s1", "s3", "s2", "s1"]);
}

#[test]
fn table_is_taken_over_from_its_writer() {
    let folder = Folder::new();
    let old = folder.start();
    send(&old, [1]);
    old.expect_ids(&["s1"]);
    let new = folder.start();
    send(&new, [7]);
    new.expect_ids(&["s7"]);
    send(&old, [2]);
    drop(old);
    new.expect_ids(&["s7", "s2", "s1"]);
    drop(new);
    folder.start().expect_ids(&["s7", "s2", "s1"]);
}

#[test]
fn unusable_folder_keeps_records_in_memory() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let writer = start(Some(file.path()), LeftSessions::Ended);
    send(&writer, 1..3);
    writer.expect_ids(&["s2", "s1"]);
}

#[test]
fn records_without_a_folder_are_in_memory() {
    let process = start(None, LeftSessions::Ended);
    send(&process, 1..3);
    process.expect_ids(&["s2", "s1"]);
    assert!(process.unwritten.list().is_empty());
}

#[test]
fn records_beyond_the_queue_are_counted() {
    let (records, told) = crossbeam_channel::bounded(1);
    let (history, store) = (Arc::default(), Store::default());
    let writer = HistoryWriter { gateway: "host".into(), records, history, store };
    send(&writer, 1..4);
    assert_eq!((told.len(), writer.history.dropped()), (1, 2));
}

#[test]
fn next_process_records_sessions_without_an_end() {
    let folder = Folder::new();
    let killed = folder.start();
    killed.open(session(7));
    killed.open(session(8));
    send(&killed, [8]);
    drop(killed);
    let next = folder.start();
    next.expect_ids(&["s7", "s8"]);
    let (_, record) = &next.history.list(u64::MAX, 1, |_| true)[0];
    assert_eq!((&*record.reason, &record.totals), ("gateway-died", &None));
    assert!(record.ended_us > record.offered_us && record.duration_ms > 0, "{record:?}");
    drop(next);
    folder.start().expect_ids(&["s7", "s8"]);
}

#[test]
fn session_died_when_its_process_last_lived() {
    let folder = Folder::new();
    let killed = folder.start();
    killed.open(session(7));
    drop(killed);
    let lock = folder.database().with_extension("sqlite.lock");
    let lived = SystemTime::UNIX_EPOCH + Duration::from_secs(61);
    File::options().append(true).open(lock).unwrap().set_modified(lived).unwrap();
    let next = folder.start();
    next.expect_ids(&["s7"]);
    assert_eq!(next.history.list(u64::MAX, 1, |_| true)[0].1.ended_us, 61_000_000);
}

#[test]
fn living_process_notes_the_time_while_sessions_are_open() {
    let folder = Folder::new();
    let process = folder.start();
    let lock = folder.database().with_extension("sqlite.lock");
    process.open(session(7));
    folder.await_count("open_sessions", 1);
    let deadline = Instant::now() + WITHIN;
    let old = SystemTime::UNIX_EPOCH;
    File::options().append(true).open(&lock).unwrap().set_modified(old).unwrap();
    while fs::metadata(&lock).unwrap().modified().unwrap() == old {
        assert!(Instant::now() < deadline);
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

#[test]
fn sessions_that_continue_stay_open() {
    let folder = Folder::new();
    let before = folder.start();
    [1, 2].map(session).into_iter().for_each(|session| before.open(session));
    drop(before);
    let next = folder.start_after(LeftSessions::Continue);
    send(&next, [1]);
    drop(next);
    folder.start().expect_ids(&["s2", "s1"]);
}

#[test]
fn sessions_of_the_other_gateway_are_not_ended() {
    let folder = Folder::new();
    let before = folder.start();
    before.open(session(1));
    drop(before);
    let next = folder.start_after(LeftSessions::Elsewhere);
    send(&next, [2]);
    next.expect_ids(&["s2"]);
    drop(next);
    folder.start().expect_ids(&["s2"]);
}

#[test]
fn kills_with_100_000_sessions_leave_a_history() {
    const SESSIONS: u64 = 100_000;
    const PART: usize = 20_000;
    let folder = Folder::new();
    let mut next = folder.start();
    for start in 1..=2 {
        let first = (start - 1) * SESSIONS;
        // More that wait for a slow disk would be given up.
        for opened in (0..SESSIONS).step_by(PART) {
            next.open_all(first + opened..first + opened + PART as u64);
            folder.await_count("open_sessions", opened + PART as u64);
        }
        drop(next);
        next = folder.start();
        let newest = start * SESSIONS - 1;
        next.expect_newest(newest);
        assert_eq!(ids(&next.history).len(), RECORDS_MAX);
        let oldest = newest + 1 - RECORDS_MAX as u64;
        assert_eq!(ids(&next.history)[RECORDS_MAX - 1], format!("s{oldest}"));
        // The table is used.
        let later = 10 * SESSIONS + start;
        send(&next, [later]);
        folder.await_count("open_sessions", 0);
        drop(next);
        assert_eq!(folder.count("history"), RECORDS_MAX as u64);
        next = folder.start();
        next.expect_newest(later);
    }
}

#[test]
fn ends_are_recorded_once_after_two_kills() {
    let folder = Folder::new();
    let killed = folder.start();
    killed.open(session(7));
    drop(killed);
    let rows = folder.connect();
    rows.execute_batch("CREATE TABLE before AS SELECT * FROM open_sessions").unwrap();
    let next = folder.start();
    next.expect_ids(&["s7"]);
    drop(next);
    // The second process is killed before it removes the session.
    rows.execute_batch("INSERT INTO open_sessions SELECT * FROM before").unwrap();
    let next = folder.start();
    send(&next, [8]);
    next.expect_ids(&["s8", "s7"]);
}

#[test]
fn session_is_open_until_its_record_is_on_the_disk() {
    let (records, told) = crossbeam_channel::unbounded();
    let files = EarlierFiles::of(Path::new("/nowhere"), Path::new(SOCKET));
    let mut keeper = HistoryKeeper::new(told, Some(files), LeftSessions::Ended);
    (0..=BATCH_MAX as u64).for_each(|number| records.send(ended(number, "room")).unwrap());
    assert_eq!(keeper.receive(usize::MAX), BATCH_MAX + 1);
    let removes = |keeper: &mut HistoryKeeper| format!("{:?}", keeper.batch()).contains("open-");
    assert!(!removes(&mut keeper));
    keeper.note_written(Path::new("/nowhere"));
    assert!(removes(&mut keeper));
}

#[test]
fn records_wait_until_the_disk_takes_them() {
    let folder = Folder::new();
    let process = folder.start();
    send(&process, [1]);
    folder.await_count("history", 1);
    let (kept, away) = (folder.path().join("kept"), folder.path().join("away"));
    fs::rename(&kept, &away).unwrap();
    fs::write(&kept, "a file").unwrap();
    send(&process, 2..4);
    process.expect_ids(&["s3", "s2", "s1"]);
    process.expect_unwritten(&["history", "open-sessions", "ratings"]);
    fs::remove_file(&kept).unwrap();
    fs::rename(&away, &kept).unwrap();
    process.expect_unwritten(&[]);
    drop(process);
    folder.start().expect_ids(&["s3", "s2", "s1"]);
}

#[test]
fn removed_database_is_written_again() {
    let folder = Folder::new();
    let process = folder.start();
    send(&process, [1]);
    folder.await_count("history", 1);
    fs::remove_dir_all(folder.path().join("kept")).unwrap();
    send(&process, [2]);
    process.expect_ids(&["s2", "s1"]);
    drop(process);
    folder.start().expect_ids(&["s2", "s1"]);
}

#[test]
fn unusable_folder_is_tried_again() {
    let folder = Folder::new();
    let kept = folder.path().join("kept");
    fs::write(&kept, "a file").unwrap();
    let process = folder.start();
    send(&process, [1]);
    process.expect_ids(&["s1"]);
    process.expect_unwritten(&["history", "open-sessions", "ratings"]);
    fs::remove_file(&kept).unwrap();
    process.expect_unwritten(&[]);
    drop(process);
    folder.start().expect_ids(&["s1"]);
}

#[test]
fn table_of_a_later_version_is_refused() {
    let folder = Folder::new();
    send(&folder.start(), [1]);
    let table = folder.connect();
    table.execute("UPDATE record_table SET version = 2 WHERE name = 'history'", []).unwrap();
    let process = folder.start();
    send(&process, [2]);
    process.expect_unwritten(&["history", "open-sessions", "ratings"]);
    let reason = "its table history has version 2, this gateway reads version 1";
    assert_eq!(&*process.unwritten.list()[0].reason, reason);
    process.expect_ids(&["s2"]);
    drop(process);
    assert_eq!(folder.count("history"), 1, "the version that wrote it may come back");
}

/// The example of `docs/operations/disk.md`.
const LONG_CALLS: &str = "SELECT room, duration_ms / 60000 AS minutes, reason, totals ->> 'lost_up' AS lost FROM history \
    WHERE ended_us > (unixepoch() - 3600) * 1000000 ORDER BY duration_ms DESC LIMIT 20";

#[test]
fn operators_query_columns() {
    let page = fs::read_to_string("../../docs/operations/disk.md").unwrap();
    assert!(page.replace("\\\n    ", "").contains(LONG_CALLS), "{LONG_CALLS}");
    let folder = Folder::new();
    let process = folder.start();
    let mut long = record(1, "long");
    long.duration_ms = 120_000;
    long.totals.as_mut().unwrap().lost_up = 7;
    let mut old = record(2, "old");
    old.ended_us -= 7_200_000_000;
    for record in [record(3, "short"), long, old] {
        process.send_or_count(HistoryRecord::Ended(Box::new(record), None));
    }
    process.open(session(9));
    drop(process);
    let database = folder.connect();
    let mut rows = database.prepare(LONG_CALLS).unwrap();
    let read = |row: &rusqlite::Row<'_>| {
        let (room, reason): (String, String) = (row.get(0)?, row.get(2)?);
        Ok((room, row.get::<_, i64>(1)?, reason, row.get::<_, i64>(3)?))
    };
    let rows: Vec<_> = rows.query_map([], read).unwrap().map(Result::unwrap).collect();
    let requested = || "requested".to_owned();
    assert_eq!(rows, [("long".into(), 2, requested(), 7), ("short".into(), 0, requested(), 0)]);
    let open = "SELECT id || ' ' || room FROM open_sessions";
    let open: String = database.query_row(open, [], |row| row.get(0)).unwrap();
    assert_eq!(open, "s9 room");
}

/// The child of `cost_of_100_000_sessions`: has them open until it is killed.
#[test]
#[ignore = "runs as a child of another test"]
fn has_sessions_until_it_is_killed() {
    let folder = std::env::var_os("HISTORY_CHILD").expect("the test that starts this one sets it");
    let process = start(Some(Path::new(&folder)), LeftSessions::Ended);
    let began = Instant::now();
    process.open_all(0..100_000);
    println!("taken after {:?}", began.elapsed());
    loop {
        std::thread::park();
    }
}

/// `cargo test --release -p evenkeel-control --lib -- --ignored --nocapture cost_of_100_000_sessions`
#[test]
#[ignore = "measures"]
fn cost_of_100_000_sessions() {
    let folder = Folder::new();
    let child = "history::tests::has_sessions_until_it_is_killed";
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", child, "--ignored", "--nocapture"])
        .env("HISTORY_CHILD", folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let taken = lines.into_iter().find(|line| line.contains("taken after")).unwrap();
    let began = Instant::now();
    folder.await_count("open_sessions", 100_000);
    let written = began.elapsed();
    child.kill().unwrap();
    child.wait().unwrap();
    let bytes = fs::metadata(folder.database()).unwrap().len();
    let began = Instant::now();
    let next = folder.start();
    next.expect_newest(99_999);
    let read = began.elapsed();
    assert_eq!(ids(&next.history).len(), RECORDS_MAX);
    drop(next);
    let written_again = began.elapsed();
    let began = Instant::now();
    folder.start().expect_newest(99_999);
    println!(
        "open: {taken}, written {written:?} later, {bytes} bytes; killed, ended and listed after {read:?}, written after {written_again:?}; read by the next process in {:?}",
        began.elapsed()
    );
    let process = folder.start();
    process.expect_newest(99_999);
    let began = Instant::now();
    for number in 100_000..200_000 {
        while process.records.is_full() {
            std::thread::yield_now();
        }
        process.send_or_count(ended(number, "room"));
    }
    let taken = began.elapsed();
    drop(process);
    let bytes = fs::metadata(folder.database()).unwrap().len();
    println!(
        "100,000 ended: taken after {taken:?}, written after {:?}, {bytes} bytes",
        began.elapsed()
    );
}

fn keeper(folder: Option<&Folder>) -> (HistoryKeeper, Sender<HistoryRecord>) {
    let (send, records) = crossbeam_channel::bounded(WAITING_MAX);
    let earlier = folder.map(|folder| EarlierFiles::of(folder.path(), Path::new(SOCKET)));
    (HistoryKeeper::new(records, earlier, LeftSessions::Ended), send)
}

#[test]
fn ends_are_not_collected_without_a_folder() {
    for folder in [None, Some(Folder::new())] {
        let (mut keeper, send) = keeper(folder.as_ref());
        send.send(ended(1, "room")).unwrap();
        assert_eq!(keeper.receive(10), 1);
        assert_eq!(keeper.open.has_some(), folder.is_some());
    }
}

#[test]
fn table_forgets_open_sessions_once_an_end_was_dropped() {
    let folder = Folder::new();
    let (mut keeper, send) = keeper(Some(&folder));
    send.send(HistoryRecord::Opened(Box::new(session(1)))).unwrap();
    keeper.history.dropped.fetch_add(1, Ordering::Relaxed);
    keeper.receive(10);
    let mut batch = RecordBatch::default();
    keeper.open.add_to(&mut batch, 10);
    let mut cleared = RecordBatch::default();
    cleared.clear::<OpenSession>();
    assert_eq!(format!("{batch:?}"), format!("{cleared:?}"));
    keeper.open.note_written(10);
    keeper.receive(10);
    assert!(!keeper.open.has_some(), "reported once");
}

#[test]
fn session_in_the_file_and_in_the_table_died_once() {
    let folder = Folder::new();
    let process = folder.start();
    process.open_all(1..3);
    folder.await_count("open_sessions", 2);
    drop(process);
    let line = |number| {
        let opened = serde_json::to_value(session(number)).unwrap();
        format!("{}\n", json!({"opened": opened}))
    };
    let open = folder.path().join("history");
    fs::create_dir_all(&open).unwrap();
    let name = file::name_of(Path::new(SOCKET));
    fs::write(open.join(format!("{name}.open")), line(1) + &line(2) + &line(3)).unwrap();
    let next = folder.start();
    next.expect_newest(3);
    let mut ids = ids(&next.history);
    ids.sort();
    assert_eq!(ids, ["s1", "s2", "s3"]);
}
