use std::fs::OpenOptions;
use std::time::Duration;

use tempfile::{TempDir, tempdir};

use super::*;

struct Folder(TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("gateway.open")
    }

    fn open(&self, left: LeftSessions) -> (OpenSessions, Vec<OpenSession>) {
        let (sessions, path) = (self.left(), self.path());
        let died = sessions.died(&path, left, usize::MAX).unwrap();
        let died = died.map(Result::unwrap).collect();
        (OpenSessions::open(&path, sessions, left).unwrap(), died)
    }

    fn left(&self) -> SessionsLeft {
        SessionsLeft::read(&self.path()).unwrap()
    }

    /// Sets the last moment at which the process is known to have lived.
    fn set_lived(&self, at: SystemTime) {
        File::options().append(true).open(self.path()).unwrap().set_modified(at).unwrap();
    }
}

pub(in crate::history) fn session(number: u64) -> OpenSession {
    OpenSession {
        id: format!("s{number}").into(),
        gateway: "host".into(),
        room: "room".into(),
        scenario: "call".into(),
        ingress: "udp".into(),
        mode: "hot".into(),
        offered_us: 1_000_000 * number,
        admitted_by: "native".into(),
    }
}

fn note(open: &mut OpenSessions, opened: &[u64], ended: &[&str]) {
    open.note(opened.iter().copied().map(session), ended.iter().copied()).unwrap();
}

fn ids(ended: &[OpenSession]) -> Vec<&str> {
    ended.iter().map(|session| &*session.id).collect()
}

#[test]
fn sessions_of_a_killed_process_are_ended_by_the_next() {
    let folder = Folder::new();
    let (mut open, none) = folder.open(LeftSessions::Ended);
    assert!(none.is_empty());
    note(&mut open, &[1, 2, 3], &[]);
    note(&mut open, &[4], &["s2", "s9"]);
    drop(open);
    folder.set_lived(SystemTime::UNIX_EPOCH + Duration::from_secs(61));
    assert_eq!(folder.left().lived_us(), 61_000_000);
    assert_eq!(ids(&folder.open(LeftSessions::Ended).1), ["s1", "s3", "s4"]);
    assert!(folder.open(LeftSessions::Ended).1.is_empty(), "once");
}

#[test]
fn sessions_that_continue_stay_open() {
    let folder = Folder::new();
    note(&mut folder.open(LeftSessions::Ended).0, &[1, 2], &[]);
    let (mut next, died) = folder.open(LeftSessions::Continue);
    assert!(died.is_empty());
    note(&mut next, &[], &["s1"]);
    assert_eq!(ids(&folder.open(LeftSessions::Ended).1), ["s2"]);
    note(&mut folder.open(LeftSessions::Ended).0, &[3], &[]);
    assert!(folder.open(LeftSessions::Elsewhere).1.is_empty());
    assert!(folder.open(LeftSessions::Ended).1.is_empty(), "the other gateway records their ends");
}

#[test]
fn cut_line_is_skipped() {
    let folder = Folder::new();
    note(&mut folder.open(LeftSessions::Ended).0, &[1], &[]);
    let mut file = OpenOptions::new().append(true).open(folder.path()).unwrap();
    file.write_all(b"{\"opened\":{\"id\":\"s7\"").unwrap();
    assert_eq!(ids(&folder.open(LeftSessions::Ended).1), ["s1"]);
}

#[test]
fn file_stays_small() {
    let folder = Folder::new();
    let (mut open, _) = folder.open(LeftSessions::Ended);
    note(&mut open, &[1], &[]);
    for number in 2..10_000 {
        note(&mut open, &[number], &[&format!("s{number}")]);
    }
    let lines = fs::read(folder.path()).unwrap().split(|byte| *byte == b'\n').count();
    assert!(lines <= REWRITTEN_FROM + 8, "{lines}");
    assert_eq!(ids(&folder.open(LeftSessions::Ended).1), ["s1"]);
}

#[test]
fn overlong_line_is_skipped() {
    let folder = Folder::new();
    note(&mut folder.open(LeftSessions::Ended).0, &[1], &[]);
    let mut file = OpenOptions::new().append(true).open(folder.path()).unwrap();
    file.write_all(&vec![b'x'; 3 * LINE_MAX as usize]).unwrap();
    file.write_all(b"\n").unwrap();
    file.write_all(&OpenLine::Opened(session(2)).encode()).unwrap();
    assert_eq!(ids(&folder.open(LeftSessions::Ended).1), ["s1", "s2"]);
}

#[test]
fn lines_wait_until_they_can_be_written() {
    let folder = Folder::new();
    let (mut open, _) = folder.open(LeftSessions::Ended);
    note(&mut open, &[1], &[]);
    // It takes no line.
    open.file = File::open(folder.path()).unwrap();
    assert!(open.note([session(2)].into_iter(), ["s1"].into_iter()).is_err());
    assert!(open.note([session(3)].into_iter(), [].into_iter()).is_err());
    assert!(open.note_life().is_err() && !open.is_incomplete());
    open.file = file::append(&folder.path()).unwrap();
    open.note_life().unwrap();
    assert_eq!(ids(&folder.open(LeftSessions::Ended).1), ["s2", "s3"]);
}

#[test]
fn too_many_lines_that_wait_end_the_list() {
    let folder = Folder::new();
    let (mut open, _) = folder.open(LeftSessions::Ended);
    open.file = File::open(folder.path()).unwrap();
    let needed = UNWRITTEN_MAX / OpenLine::Opened(session(999_999)).encode().len();
    let sessions = (100_000..100_000 + needed as u64).map(session);
    assert!(open.note(sessions, [].into_iter()).is_err() && !open.is_incomplete());
    assert!(open.note([session(900_000), session(900_001)].into_iter(), [].into_iter()).is_err());
    assert!(open.is_incomplete());
}
