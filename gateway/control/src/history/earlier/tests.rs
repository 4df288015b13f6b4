use std::fs::OpenOptions;
use std::io::Write;
use std::time::{Duration, SystemTime};

use serde_json::json;

use super::super::open::tests::session;
use super::super::tests::{Folder, send};
use super::*;
use crate::samples::ended_session as record;

fn files(folder: &Folder) -> EarlierFiles {
    let files = EarlierFiles::of(folder.path(), Path::new("/admin.sock"));
    fs::create_dir_all(files.current.parent().unwrap()).unwrap();
    files
}

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn ended(numbers: std::ops::Range<u64>) -> String {
    numbers.map(|number| json!(record(number, "room")).to_string() + "\n").collect()
}

fn opened(numbers: std::ops::Range<u64>) -> String {
    numbers.map(|number| json!({"opened": session(number)}).to_string() + "\n").collect()
}

#[test]
fn files_are_moved_into_the_table() {
    let folder = Folder::new();
    let EarlierFiles { current, previous, open, .. } = files(&folder);
    append(&previous, &ended(1..2));
    append(&current, &(ended(2..3) + "damage\n{}\n{\"id\":\"s3\""));
    append(&open, &(opened(7..9) + "{\"ended\":\"s7\"}\n{\"opened\":{\"id\":\"s6\""));
    let lived = SystemTime::UNIX_EPOCH + Duration::from_secs(61);
    File::options().append(true).open(&open).unwrap().set_modified(lived).unwrap();
    let lines = fs::read(&current).unwrap();
    let process = folder.start();
    send(&process, [9]);
    process.expect_ids(&["s9", "s8", "s2", "s1"]);
    let died = process.history().list(u64::MAX, 1, |record| *record.id == *"s8").remove(0).1;
    assert_eq!((&*died.reason, died.ended_us), ("gateway-died", 61_000_000));
    drop(process);
    assert!(![&current, &previous, &open].iter().any(|path| path.exists()));
    assert_eq!(fs::read(current.with_extension("jsonl.moved")).unwrap(), lines);
    folder.start().expect_ids(&["s9", "s8", "s2", "s1"]);
    // A loss of power brought the name back, or an earlier program ran meanwhile.
    fs::write(&current, lines).unwrap();
    append(&current, &("\n".to_owned() + &ended(4..5)));
    folder.start().expect_ids(&["s4", "s9", "s8", "s2", "s1"]);
}

#[test]
fn files_wait_for_the_process_that_writes_them() {
    let folder = Folder::new();
    let EarlierFiles { current, open, .. } = files(&folder);
    append(&current, &ended(1..2));
    append(&open, &opened(2..4));
    let lock = OpenOptions::new().append(true).open(&current).unwrap();
    lock.try_lock().unwrap();
    let process = folder.start_after(LeftSessions::Continue);
    send(&process, [2]);
    process.expect_ids(&["s2"]);
    append(&current, &ended(5..6));
    drop(lock);
    process.expect_ids(&["s2", "s5", "s1"]);
    drop(process);
    folder.start().expect_ids(&["s3", "s2", "s5", "s1"]);
}

/// Some versions wrote longer files.
#[test]
fn newest_records_of_a_long_file_are_read() {
    let folder = Folder::new();
    let EarlierFiles { current, .. } = files(&folder);
    let lines = ended(0..40_000);
    assert!(lines.len() as u64 > 2 * FILE_BYTES_MAX);
    fs::write(&current, lines).unwrap();
    let mut records = Vec::new();
    read_ended(&current, &mut records).unwrap();
    let read = records.len();
    assert!((5_000..20_000).contains(&read), "{read}");
    let ids = records.iter().map(|record| &*record.id);
    assert!(ids.eq((40_000 - read..40_000).map(|number| format!("s{number}"))));
}

#[test]
fn newest_of_many_open_sessions_are_read() {
    let folder = Folder::new();
    let mut files = files(&folder);
    append(&files.open, &opened(0..20_000));
    append(
        &files.open,
        &(0..100).map(|id| format!("{{\"ended\":\"s{id}\"}}\n")).collect::<String>(),
    );
    let mut read = |left| files.read(left).unwrap().open;
    let died = read(LeftSessions::Ended);
    assert_eq!((died.len(), &*died[RECORDS_MAX - 1].id), (RECORDS_MAX, "s19999"));
    let continued = read(LeftSessions::Continue);
    assert_eq!((continued.len(), &*continued[0].id), (19_900, "s100"));
    assert!(read(LeftSessions::Elsewhere).is_empty());
}

#[test]
fn overlong_line_is_skipped() {
    let folder = Folder::new();
    let mut files = files(&folder);
    append(
        &files.open,
        &(opened(1..2) + &"x".repeat(3 * LINE_MAX as usize) + "\n" + &opened(2..3)),
    );
    let open = files.read(LeftSessions::Continue).unwrap().open;
    assert_eq!(open.iter().map(|session| &*session.id).collect::<Vec<_>>(), ["s1", "s2"]);
}

#[test]
fn file_that_cannot_be_read_stops_nothing() {
    let folder = Folder::new();
    fs::write(folder.path().join("history"), "a file").unwrap();
    let process = folder.start();
    send(&process, [1]);
    process.expect_ids(&["s1"]);
    drop(process);
    folder.start().expect_ids(&["s1"]);
}
