use super::*;

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

/// The numbers of sessions that are to be added, and the ids of those that are to be removed.
fn changes(changes: &OpenChanges) -> (Vec<u64>, Vec<&str>) {
    let ended = changes.ended.iter().map(|id| &**id);
    (changes.opened.keys().copied().collect(), ended.collect())
}

#[test]
fn session_that_ends_before_it_is_written_is_not_written() {
    let mut open = OpenChanges::default();
    [1, 2].map(session).into_iter().for_each(|session| open.open(session));
    open.end("s1");
    open.end("s9");
    assert_eq!(changes(&open), (vec![2], vec!["s9"]));
}

#[test]
fn changes_are_written_in_parts() {
    let mut open = OpenChanges::default();
    (1..=3).map(session).for_each(|session| open.open(session));
    ["s8", "s9"].iter().for_each(|id| open.end(id));
    open.clear_table();
    open.end("s9");
    open.note_written(2);
    assert!(open.has_some());
    assert_eq!((open.must_clear_table, changes(&open)), (false, (vec![3], vec![])));
    open.note_written(2);
    assert!(!open.has_some());
}

#[test]
fn session_that_continued_and_ended_is_not_added() {
    let mut open = OpenChanges::default();
    open.end("s1");
    open.add_continued([1, 2].map(session).into());
    assert_eq!(changes(&open), (vec![2], vec![]));
}

#[test]
fn too_many_changes_clear_the_table() {
    let mut open = OpenChanges::default();
    (0..CHANGES_MAX as u64 - 1).map(session).for_each(|session| open.open(session));
    open.end("s999999");
    assert!(!open.must_clear_table);
    open.open(session(900_000));
    assert_eq!((open.must_clear_table, changes(&open)), (true, (vec![], vec![])));
    open.open(session(900_001));
    assert_eq!(changes(&open), (vec![900_001], vec![]));
}

#[test]
fn sessions_that_continue_do_not_count_as_too_many() {
    let mut open = OpenChanges::default();
    open.add_continued((0..2 * CHANGES_MAX as u64).map(session).collect());
    open.open(session(900_000));
    assert!(!open.must_clear_table);
    assert_eq!(open.opened.len(), 2 * CHANGES_MAX + 1);
}
