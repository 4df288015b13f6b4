use std::sync::Arc;

use super::*;
use crate::{ControlRequest, Handle};

#[test]
fn repetition_gets_the_first_answer() {
    let table = KeyTable::default();
    assert!(first(&table, "k"));
    let waiting = repeated(&table);
    assert_eq!(*waiting.borrow(), None);
    table.finish("k", answer(201), false);
    assert_eq!(*waiting.borrow(), Some(answer(201)));
    let later = repeated(&table);
    assert_eq!(*later.borrow(), Some(answer(201)));
}

#[test]
fn key_with_another_body_conflicts() {
    let table = KeyTable::default();
    assert!(first(&table, "k"));
    let Err(error) = table.begin("k", b"other") else { panic!("refused") };
    assert_eq!(error, KeyError::OtherBody("k".into()));
    assert!(first(&table, "l"));
}

#[test]
fn retryable_answer_is_not_remembered() {
    for (status, remembered) in [(201, true), (403, true), (409, true), (429, false), (503, false)]
    {
        let table = KeyTable::default();
        assert!(first(&table, "k"));
        let waiting = repeated(&table);
        table.finish("k", answer(status), false);
        assert_eq!(*waiting.borrow(), Some(answer(status)));
        assert_eq!(!first(&table, "k"), remembered, "{status}");
    }
    let table = KeyTable::default();
    assert!(first(&table, "k"));
    table.finish("k", answer(409), true);
    assert!(first(&table, "k"), "a passing conflict");
}

#[tokio::test]
async fn suspension_waits_for_answers_that_are_stored() {
    let (mut handle, mut received) = Handle::new(Arc::default(), Arc::default());
    let table = Arc::new(KeyTable::default());
    assert!(first(&table, "k"));
    handle.idempotency_keys = Arc::clone(&table);
    let suspending = tokio::spawn(async move { handle.suspend().await });
    for _ in 0..10 {
        tokio::task::yield_now().await;
        assert!(received.try_recv().is_err(), "control is asked after the last answer");
    }
    table.finish("k", answer(201), false);
    let Some(ControlRequest::Suspend(reply)) = received.recv().await else {
        panic!("a suspension")
    };
    drop(reply);
    assert!(suspending.await.unwrap().is_err());
}

#[test]
fn full_table_forgets_the_oldest_key() {
    let table = KeyTable { keys_max: 2, ..KeyTable::default() };
    assert!(first(&table, "a"));
    assert!(first(&table, "b"));
    table.finish("a", answer(503), false);
    assert!(first(&table, "a"));
    assert!(first(&table, "c"));
    assert!(!first(&table, "a"), "its repetition made it newer than b");
    assert!(first(&table, "b"), "the oldest was forgotten");
    assert_eq!(table.lock().by_key.len(), 2);
}

#[test]
fn empty_or_long_key_is_refused() {
    let table = KeyTable::default();
    assert!(table.begin("", b"").is_err());
    assert!(table.begin(&"k".repeat(KEY_MAX), b"").is_ok());
    assert!(table.begin(&"k".repeat(KEY_MAX + 1), b"").is_err());
}

fn first(table: &KeyTable, key: &str) -> bool {
    table.begin(key, b"body").is_ok_and(|turn| turn.is_first)
}

fn answer(status: u16) -> StoredAnswer {
    StoredAnswer { status, body: Bytes::from_static(b"{}"), retry_after: None }
}

fn repeated(table: &KeyTable) -> watch::Receiver<Option<StoredAnswer>> {
    let RequestTurn { is_first, answer } = table.begin("k", b"body").unwrap();
    assert!(!is_first, "repeated");
    answer
}

#[test]
fn answers_continue_in_another_process() {
    let before = KeyTable::default();
    for key in ["a", "b", "c", "d"] {
        assert!(first(&before, key));
    }
    before.finish("a", answer(201), false);
    before.finish("b", answer(503), false);
    before.finish("d", answer(409), false);
    let after = KeyTable { keys_max: 3, ..KeyTable::default() };
    assert!(first(&after, "e"));
    before.follow();
    after.restore(before.take_changed(usize::MAX));
    let RequestTurn { is_first, answer: a } = after.begin("a", b"body").unwrap();
    assert_eq!((is_first, &*a.borrow()), (false, &Some(answer(201))));
    assert!(after.begin("a", b"other").is_err(), "the body is remembered");
    assert!(first(&after, "b"), "a retry may change this answer");
    assert!(!first(&after, "d"));
    assert!(first(&after, "c"), "it has no answer yet");
    assert!(first(&after, "e"), "the oldest was forgotten");
}

#[test]
fn follower_gets_answered_keys_once_in_parts() {
    let table = KeyTable { keys_max: 4, ..KeyTable::default() };
    for key in ["a", "b", "c", "d"] {
        assert!(first(&table, key));
        table.finish(key, answer(if key == "b" { 503 } else { 201 }), false);
    }
    assert!(table.take_changed(4).is_empty(), "without a follower");
    table.follow();
    let take = |at_most| -> Vec<String> {
        table.take_changed(at_most).iter().map(|record| record.key.to_string()).collect()
    };
    assert_eq!(
        (take(2), take(2), take(2)),
        (vec!["a".into(), "c".into()], vec!["d".into()], vec![])
    );
    assert!(table.changed() == 0 && first(&table, "e") && table.changed() == 0);
    table.finish("e", answer(201), false);
    assert!(table.changed() > 0);
    assert_eq!(take(2), ["e"]);
    for key in ["f", "g", "h", "i", "j"] {
        assert!(first(&table, key));
        table.finish(key, answer(201), false);
    }
    assert_eq!(take(usize::MAX), ["g", "h", "i", "j"], "as many as are remembered");
    assert!(first(&table, "k"));
    table.finish("k", answer(201), false);
    table.unfollow();
    assert_eq!(table.changed(), 0);
}

#[test]
fn debug_of_an_answer_shows_no_body() {
    let body = "{\"password\": \"hush\"}".into();
    let answer = StoredAnswer { status: 201, body, retry_after: None };
    let shown = format!("{answer:?}");
    assert!(shown.contains("201") && !shown.contains("hush"), "{shown}");
}
