//! Records in memory and in files, across processes.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::time::{Instant, SystemTime};

use evenkeel_model::{ClosedMove, Decider, Hop, Incarnation, MoveCause, NodeId};
use evenkeel_process::unix_us;
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use super::*;
use crate::samples::{closed_session, ended_session as record};

const WITHIN: Duration = Duration::from_secs(20);

/// A folder for the files of one gateway.
struct Folder(TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempdir().unwrap())
    }

    fn place(&self) -> LogFiles {
        LogFiles::of(self.0.path(), Path::new("/admin.sock"))
    }

    fn start(&self) -> HistoryWriter {
        self.start_after(LeftSessions::Ended)
    }

    fn start_after(&self, left: LeftSessions) -> HistoryWriter {
        start(Some(self.0.path()), left)
    }
}

fn start(folder: Option<&Path>, left: LeftSessions) -> HistoryWriter {
    HistoryWriter::start(
        folder,
        Path::new("/admin.sock"),
        "host".into(),
        left,
        UnwrittenDocuments::default(),
    )
    .unwrap()
}

fn ended(number: u64, room: &str) -> HistoryRecord {
    HistoryRecord::Ended(Box::new(record(number, room)))
}

fn send(writer: &HistoryWriter, numbers: impl IntoIterator<Item = u64>) {
    numbers.into_iter().for_each(|number| writer.send(ended(number, "room")));
}

/// Ids of the listed sessions, newest first.
fn ids(history: &SessionHistory) -> Vec<String> {
    let all = history.list(u64::MAX, usize::MAX, |_| true);
    all.iter().map(|(_, record)| record.id.to_string()).collect()
}

fn expect_ids(writer: &HistoryWriter, ids: &[&str]) {
    let deadline = Instant::now() + WITHIN;
    while self::ids(&writer.history) != ids {
        assert!(Instant::now() < deadline, "{:?}", self::ids(&writer.history));
        std::thread::park_timeout(Duration::from_millis(2));
    }
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
    let line = String::from_utf8(line(&record)).unwrap();
    let mut shown: Value = serde_json::from_str(&line).unwrap();
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
    writer.send(HistoryRecord::Ended(Box::new(own.clone())));
    expect_ids(&writer, &["s1"]);
    writer.copy(vec![own, record(2, "room")]);
    expect_ids(&writer, &["s2", "s1"]);
    drop(writer);
    let writer = folder.start();
    expect_ids(&writer, &["s2", "s1"]);
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
    let own = history.add_earlier(vec![(record(0, "room"), 1)]);
    assert_eq!(own.len(), 3);
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
    expect_ids(&next, &["s3", "s2", "s1"]);
    send(&next, [1]);
    expect_ids(&next, &["s1", "s3", "s2", "s1"]);
}

#[test]
fn cut_and_damaged_lines_are_skipped() {
    let folder = Folder::new();
    send(&folder.start(), 1..3);
    let mut file = OpenOptions::new().append(true).open(folder.place().current).unwrap();
    file.write_all(b"damage\n{}\n{\"id\":\"s3\"").unwrap();
    let next = folder.start();
    expect_ids(&next, &["s2", "s1"]);
    send(&next, [4]);
    drop(next);
    expect_ids(&folder.start(), &["s4", "s2", "s1"]);
}

#[test]
fn full_file_replaces_the_previous_one() {
    let (folder, room) = (Folder::new(), "r".repeat(1_024));
    let LogFiles { current, previous, .. } = folder.place();
    let writer = folder.start();
    (0..10_000).for_each(|number| writer.send(ended(number, &room)));
    drop(writer);
    let lengths = [current, previous].map(|path| fs::metadata(path).unwrap().len());
    assert!(lengths.iter().all(|length| *length <= FILE_BYTES_MAX), "{lengths:?}");
    assert!(lengths[1] > FILE_BYTES_MAX / 2, "{lengths:?}");
    let written = (lengths.iter().sum::<u64>() as usize) / line(&record(9_999, &room)).len();
    let next = folder.start();
    let deadline = Instant::now() + WITHIN;
    while ids(&next.history).len() < written {
        assert!(Instant::now() < deadline, "{} of {written}", ids(&next.history).len());
        std::thread::park_timeout(Duration::from_millis(2));
    }
    assert_eq!(ids(&next.history)[0], "s9999");
}

#[test]
fn file_is_taken_over_from_its_writer() {
    let folder = Folder::new();
    let old = folder.start();
    send(&old, [1]);
    expect_ids(&old, &["s1"]);
    let new = folder.start();
    send(&new, [7]);
    expect_ids(&new, &["s7"]);
    send(&old, [2]);
    drop(old);
    expect_ids(&new, &["s7", "s2", "s1"]);
    drop(new);
    expect_ids(&folder.start(), &["s7", "s2", "s1"]);
}

#[test]
fn unusable_folder_keeps_records_in_memory() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let writer = start(Some(file.path()), LeftSessions::Ended);
    send(&writer, 1..3);
    expect_ids(&writer, &["s2", "s1"]);
}

#[test]
fn records_beyond_the_queue_are_counted() {
    let (records, told) = crossbeam_channel::bounded(1);
    let history = Arc::default();
    let writer =
        HistoryWriter { gateway: "host".into(), records: Some(records), history, thread: None };
    send(&writer, 1..4);
    assert_eq!((told.len(), writer.history.dropped()), (1, 2));
}

#[test]
fn next_process_records_sessions_without_an_end() {
    let folder = Folder::new();
    let killed = folder.start();
    killed.open(open::tests::session(7));
    killed.open(open::tests::session(8));
    send(&killed, [8]);
    drop(killed);
    let next = folder.start();
    expect_ids(&next, &["s7", "s8"]);
    let (_, record) = &next.history.list(u64::MAX, 1, |_| true)[0];
    assert_eq!((&*record.reason, &record.totals), ("gateway-died", &None));
    assert!(record.ended_us > record.offered_us && record.duration_ms > 0, "{record:?}");
}

/// Opens these sessions, which have no end if the writer is dropped then.
fn open_all(writer: &HistoryWriter, numbers: std::ops::Range<u64>) {
    let waiting = writer.records.clone().unwrap();
    for number in numbers {
        while waiting.is_full() {
            std::thread::yield_now();
        }
        writer.open(open::tests::session(number));
    }
}

#[test]
fn kills_with_100_000_sessions_leave_a_history() {
    const SESSIONS: u64 = 100_000;
    let folder = Folder::new();
    let LogFiles { current, previous, open, .. } = folder.place();
    let mut next = folder.start();
    for start in 1..=2 {
        open_all(&next, (start - 1) * SESSIONS..start * SESSIONS);
        drop(next);
        assert!(fs::metadata(&open).unwrap().len() > FILE_BYTES_MAX);
        next = folder.start();
        let newest = start * SESSIONS - 1;
        expect_newest(&next, newest);
        assert_eq!(ids(&next.history).len(), RECORDS_MAX);
        let oldest = newest + 1 - RECORDS_MAX as u64;
        assert_eq!(ids(&next.history)[RECORDS_MAX - 1], format!("s{oldest}"));
        for path in [&current, &previous] {
            assert!(fs::metadata(path).unwrap().len() <= FILE_BYTES_MAX);
        }
        // The file is used.
        let later = 10 * SESSIONS + start;
        send(&next, [later]);
        drop(next);
        next = folder.start();
        expect_newest(&next, later);
    }
}

fn expect_newest(writer: &HistoryWriter, number: u64) {
    let deadline = Instant::now() + WITHIN;
    let newest = || writer.history.list(u64::MAX, 1, |_| true).pop();
    let id = format!("s{number}");
    while newest().is_none_or(|(_, record)| *record.id != *id) {
        assert!(Instant::now() < deadline, "{:?}", newest());
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// As earlier versions wrote them.
#[test]
fn newest_records_of_a_long_file_are_read() {
    let folder = Folder::new();
    let LogFiles { current, .. } = folder.place();
    fs::create_dir(current.parent().unwrap()).unwrap();
    let lines: Vec<u8> = (0..40_000).flat_map(|number| line(&record(number, "room"))).collect();
    assert!(lines.len() as u64 > 2 * FILE_BYTES_MAX);
    fs::write(&current, lines).unwrap();
    let next = folder.start();
    expect_newest(&next, 39_999);
    let read = ids(&next.history).len();
    send(&next, [40_000]);
    drop(next);
    let next = folder.start();
    expect_newest(&next, 40_000);
    assert_eq!(ids(&next.history).len(), read + 1);
}

#[test]
fn ends_are_recorded_once_after_two_kills() {
    let folder = Folder::new();
    let LogFiles { open, .. } = folder.place();
    let killed = folder.start();
    killed.open(open::tests::session(7));
    drop(killed);
    let kept = fs::read(&open).unwrap();
    let modified = fs::metadata(&open).unwrap().modified().unwrap();
    let next = folder.start();
    expect_ids(&next, &["s7"]);
    drop(next);
    // The second process is killed before it replaces the file.
    fs::write(&open, kept).unwrap();
    File::options().append(true).open(&open).unwrap().set_modified(modified).unwrap();
    let next = folder.start();
    send(&next, [8]);
    expect_ids(&next, &["s8", "s7"]);
}

#[test]
fn records_wait_until_the_disk_takes_them() {
    let folder = Folder::new();
    let (place, unwritten) = (folder.place(), UnwrittenDocuments::default());
    let failing = || unwritten.list().iter().map(|it| it.document).collect::<Vec<_>>();
    let history = Arc::default();
    let mut clerk =
        Clerk::new(history, Some(place.clone()), LeftSessions::Ended, unwritten.clone());
    let set_file = |clerk: &mut Clerk, with: File| {
        let Disk::Open(log) = &mut clerk.disk else { panic!("closed") };
        log.file = with;
    };
    clerk.open();
    // It takes no line.
    set_file(&mut clerk, File::open(&place.current).unwrap());
    (1..3).for_each(|number| clerk.keep([ended(number, "room")].into_iter()));
    assert_eq!(failing(), ["history"]);
    assert_eq!(ids(&clerk.history), ["s2", "s1"], "in memory");
    set_file(&mut clerk, file::append(&place.current).unwrap());
    clerk.note_life();
    assert!(failing().is_empty());
    drop(clerk);
    expect_ids(&folder.start(), &["s2", "s1"]);
}

#[test]
fn unusable_folder_is_tried_again() {
    let folder = Folder::new();
    let history = folder.0.path().join("history");
    fs::write(&history, "a file").unwrap();
    let unwritten = UnwrittenDocuments::default();
    let socket = Path::new("/admin.sock");
    let writer = HistoryWriter::start(
        Some(folder.0.path()),
        socket,
        "host".into(),
        LeftSessions::Ended,
        unwritten.clone(),
    );
    let writer = writer.unwrap();
    send(&writer, [1]);
    expect_ids(&writer, &["s1"]);
    let await_failing = |documents: &[&str]| {
        let deadline = Instant::now() + WITHIN;
        while unwritten.list().iter().map(|it| it.document).ne(documents.iter().copied()) {
            assert!(Instant::now() < deadline, "{:?}", unwritten.list());
            std::thread::park_timeout(Duration::from_millis(2));
        }
    };
    await_failing(&["history"]);
    fs::remove_file(&history).unwrap();
    await_failing(&[]);
    drop(writer);
    expect_ids(&folder.start(), &["s1"]);
}
