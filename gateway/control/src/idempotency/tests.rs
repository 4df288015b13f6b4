use std::sync::Arc;

use evenkeel_kept::StoreThread;

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
    StoredAnswer { status, body: Bytes::from_static(b"{}"), retry_after: None, session: None }
}

/// The answer to an offer of a hundred streams, as the API stores it.
fn large_answer(session: u64) -> StoredAnswer {
    let session = Some(SessionId(session));
    StoredAnswer { body: vec![b' '; LARGE].into(), session, ..answer(201) }
}

const LARGE: usize = 130 << 10;

fn open_large(table: &KeyTable, number: u64) {
    let key = number.to_string();
    assert!(first(table, &key));
    table.finish(&key, large_answer(number), false);
}

/// The session whose answer was dropped; `None` if it is stored.
fn dropped_of(table: &KeyTable, key: &str) -> Option<SessionId> {
    match table.begin(key, b"body") {
        Err(KeyError::AnswerDropped { session, .. }) => session,
        turn => {
            assert!(turn.is_ok_and(|turn| !turn.is_first), "{key} opens a second session");
            None
        }
    }
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
    let answer = StoredAnswer { status: 201, body, retry_after: None, session: None };
    let shown = format!("{answer:?}");
    assert!(shown.contains("201") && !shown.contains("hush"), "{shown}");
}

#[test]
fn oldest_of_many_large_answers_are_dropped() {
    let table = KeyTable::default();
    let kept = ANSWERS_MAX / LARGE;
    let all = KEYS_MAX as u64;
    for number in 0..all {
        open_large(&table, number);
        assert!(table.lock().sizes.bytes <= ANSWERS_MAX);
    }
    let stored = |entry: &&KeyEntry| matches!(entry.answer, EntryAnswer::Kept(_));
    assert_eq!(table.lock().by_key.values().filter(stored).count(), kept);
    let oldest = all - kept as u64;
    for number in [0, oldest - 1] {
        assert_eq!(dropped_of(&table, &number.to_string()), Some(SessionId(number)));
        assert!(matches!(table.begin(&number.to_string(), b"other"), Err(KeyError::OtherBody(_))));
    }
    for number in [oldest, all - 1] {
        assert_eq!(dropped_of(&table, &number.to_string()), None);
    }
    let text = table.begin("0", b"body").err().unwrap().to_string();
    assert_eq!(
        text,
        "`0` opened session `s0`, and the answer is not stored any more; expected a new key"
    );
}

#[test]
fn answer_is_dropped_with_its_session() {
    let table = KeyTable::default();
    table.share(1 << 20);
    (0..2).for_each(|number| open_large(&table, number));
    let waiting = table.begin("0", b"body").unwrap().answer;
    table.end_session(SessionId(0));
    table.end_session(SessionId(7));
    assert_eq!(dropped_of(&table, "0"), Some(SessionId(0)));
    assert_eq!(dropped_of(&table, "1"), None);
    assert_eq!(*waiting.borrow(), Some(large_answer(0)), "an answer on its way");
    assert!(table.reserve((1 << 20) - LARGE as u32).is_some(), "its bytes are free");
}

#[test]
fn answers_give_session_data_to_sessions() {
    let table = KeyTable::default();
    table.share(10 * LARGE);
    (0..20).for_each(|number| open_large(&table, number));
    assert_eq!((dropped_of(&table, "9"), dropped_of(&table, "10")), (Some(SessionId(9)), None));
    let session = table.reserve(LARGE as u32 + 1).unwrap();
    assert_eq!((dropped_of(&table, "11"), dropped_of(&table, "12")), (Some(SessionId(11)), None));
    assert!(table.reserve(9 * LARGE as u32).is_none(), "more than all answers have");
    assert_eq!(dropped_of(&table, "12"), None, "none was dropped in vain");
    let rest = table.reserve(9 * LARGE as u32 - 1).unwrap();
    assert_eq!(dropped_of(&table, "19"), Some(SessionId(19)));
    open_large(&table, 20);
    assert_eq!(dropped_of(&table, "20"), Some(SessionId(20)), "sessions have all");
    drop((session, rest));
    open_large(&table, 21);
    assert_eq!(dropped_of(&table, "21"), None);
}

#[test]
fn dropped_answer_stays_dropped_in_another_process() {
    let before = KeyTable::default();
    (0..2).for_each(|number| open_large(&before, number));
    before.end_session(SessionId(0));
    before.follow();
    let after = KeyTable::default();
    after.restore(before.take_changed(usize::MAX));
    assert_eq!(dropped_of(&after, "0"), Some(SessionId(0)));
    assert_eq!(dropped_of(&after, "1"), None);
    after.end_session(SessionId(1));
    assert_eq!(dropped_of(&after, "1"), Some(SessionId(1)));
    assert!(after.begin("1", b"other").is_err_and(|error| matches!(error, KeyError::OtherBody(_))));
}

/// A table in the store of a process, with the thread that writes it.
fn kept_in(folder: &Path) -> (KeyTable, StoreThread) {
    let store = Store::default();
    let table = KeyTable::keeping(&store);
    let thread = store.open(Some(folder), Path::new("/admin.sock"), &Default::default()).unwrap();
    store.begin(Duration::from_secs(20));
    table.read_kept();
    (table, thread)
}

#[test]
fn keys_that_opened_sessions_outlive_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let (before, thread) = kept_in(folder.path());
    assert!(["k", "token:t1", "refused"].iter().all(|key| first(&before, key)));
    assert!(before.keep("k", SessionId(7)).is_none(), "nothing waits for it");
    before.keep("token:t1", SessionId(8)).unwrap().blocking_recv().unwrap();
    before.finish("refused", answer(422), false);
    // The thread writes them before it ends.
    drop(thread);
    let (after, thread) = kept_in(folder.path());
    assert_eq!(dropped_of(&after, "k"), Some(SessionId(7)));
    assert_eq!(dropped_of(&after, "token:t1"), Some(SessionId(8)));
    let other = after.begin("token:t1", b"other").map(drop);
    assert_eq!(other, Err(KeyError::OtherBody("token:t1".into())));
    assert!(first(&after, "refused"), "it opened none");
    drop(thread);
    let text = std::fs::read_dir(folder.path().join("kept")).unwrap().map(|file| {
        String::from_utf8_lossy(&std::fs::read(file.unwrap().path()).unwrap()).into_owned()
    });
    assert!(!text.collect::<String>().contains("answer"), "it may have keys");
}

#[test]
fn kept_keys_give_way_before_newer_ones() {
    let folder = tempfile::tempdir().unwrap();
    let (before, thread) = kept_in(folder.path());
    for key in ["first", "second"] {
        assert!(first(&before, key));
        before.keep(key, SessionId(7));
    }
    drop(thread);
    let store = Store::default();
    let mut table = KeyTable::keeping(&store);
    table.keys_max = 2;
    let _thread = store.open(Some(folder.path()), Path::new("/admin.sock"), &Default::default());
    store.begin(Duration::from_secs(20));
    assert!(first(&table, "new"));
    table.read_kept();
    assert_eq!(dropped_of(&table, "second"), Some(SessionId(7)));
    assert!(first(&table, "newer"));
    assert!(!first(&table, "new"));
    assert!(first(&table, "second"), "it gave way");
}

#[test]
fn used_tokens_of_an_earlier_version_stay_used() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("used-tokens");
    std::fs::create_dir(&file).unwrap();
    let file = file.join(evenkeel_process::file::name_of(Path::new("/admin.sock")));
    std::fs::write(&file, "t1\nt2\ncut").unwrap();
    for _ in 0..2 {
        let (table, _thread) = kept_in(folder.path());
        for used in ["token:t1", "token:t2"] {
            let begun = table.begin(used, b"offer").map(drop);
            assert_eq!(begun, Err(KeyError::OtherBody(used.into())));
        }
        assert!(first(&table, "token:cut"));
    }
    assert!(!file.exists());
}

#[test]
fn restored_key_replaces_the_earlier_entry() {
    let table = KeyTable::default();
    open_large(&table, 0);
    table.follow();
    let records = table.take_changed(1);
    (0..3).for_each(|_| table.restore(records.clone()));
    assert_eq!(table.lock().sizes.bytes, LARGE);
}

#[test]
fn standby_drops_answers_as_the_owner_does() {
    let (table, mut replica) = (KeyTable::default(), KeyReplica::default());
    table.follow();
    for number in 0..KEYS_MAX as u64 + 2 {
        open_large(&table, number);
        replica.extend(table.take_changed(usize::MAX));
        let bytes = |record: &KeyRecord| record.answer.len();
        assert!(replica.sizes.bytes <= ANSWERS_MAX);
        if number % 1_024 == 0 {
            assert_eq!(replica.records.iter().map(bytes).sum::<usize>(), replica.sizes.bytes);
        }
    }
    let newest = KEYS_MAX as u64 + 1;
    table.end_session(SessionId(newest));
    replica.end_session(SessionId(newest));
    replica.end_session(SessionId(0));
    table.follow();
    assert_eq!(replica.records(), table.take_changed(usize::MAX));
}

#[test]
fn offers_of_a_token_are_found_with_their_sessions() {
    let table = KeyTable::default();
    let opened = |session| StoredAnswer { session: Some(SessionId(session)), ..answer(201) };
    let keys = ["b", "own", "a", "refused"].map(|name| format!("token:t reuse {name}"));
    for key in keys.iter().map(String::as_str).chain(["token:t", "token:tt reuse a", "t reuse a"]) {
        assert!(first(&table, key));
    }
    let [older, own, newer, refused] = keys.each_ref().map(String::as_str);
    table.finish(older, opened(1), false);
    table.finish(refused, answer(403), false);
    let offer = |key: &str, session, is_newer, may_have_ended| TokenOffer {
        key: key.into(),
        session,
        is_newer,
        may_have_ended,
    };
    let unanswered = offer(newer, None, true, false);
    let first_session = Some(SessionId(1));
    let found = [unanswered.clone(), offer(older, first_session, false, false)];
    assert_eq!(table.others_of_token(own), found);
    table.end_session(SessionId(1));
    let found = [unanswered.clone(), offer(older, first_session, false, true)];
    assert_eq!(table.others_of_token(own), found);
    table.forget(older, SessionId(2));
    assert_eq!(table.others_of_token(own), found, "another session ended");
    table.forget(older, SessionId(1));
    assert_eq!(table.others_of_token(own), [unanswered]);
    assert_eq!(table.others_of_token("token:t"), []);
}

#[test]
fn forgotten_keys_take_no_places() {
    let table = KeyTable { keys_max: 2, ..KeyTable::default() };
    assert!(first(&table, "token:once"));
    table.finish("token:once", answer(201), false);
    for number in 1..10 {
        let key = format!("token:t reuse {number}");
        assert!(first(&table, &key));
        let session = Some(SessionId(number));
        table.finish(&key, StoredAnswer { session, ..answer(201) }, false);
        table.forget(&key, SessionId(number));
    }
    assert!(!first(&table, "token:once"), "the key of another token is remembered");
}
