use super::*;
use crate::store::VALUE_MAX;
use crate::tests::memory::{Contents, MemoryStore};

const SESSIONS: u64 = 40;

fn session(number: u64) -> IndexedSession {
    IndexedSession {
        v: VERSION,
        room: format!("room-{number}").into(),
        scenario: "call".into(),
        opened_us: number * 1_000_000,
        idempotency_key: None,
    }
}

fn member(gateway: &str) -> MemberEntry {
    let (role, epoch) = (GroupRole::Joining, 0);
    MemberEntry { v: VERSION, gateway: gateway.into(), role, epoch, started_us: 1, api: None }
}

struct Gateway {
    writer: IndexWriter<MemoryStore>,
    desired: DesiredEntries,
    part: GroupPart,
}

impl Gateway {
    fn new(store: &MemoryStore, name: &str, part: GroupPart) -> Gateway {
        let desired = DesiredEntries::default();
        let writer =
            IndexWriter::new(store.clone(), IndexKeys::new("group"), member(name), desired.clone());
        Gateway { writer, desired, part }
    }

    /// With sessions from 1 on.
    fn serving(store: &MemoryStore, name: &str, part: GroupPart) -> Gateway {
        let gateway = Gateway::new(store, name, part);
        let sessions = (1..=SESSIONS).map(|number| (SessionId(number), session(number)));
        gateway.desired.list(sessions.collect(), part);
        gateway
    }

    async fn write(&mut self) -> Result<RoundOutcome, StoreError> {
        self.writer.write(self.part).await
    }

    /// Writes once per second.
    async fn write_for(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.write().await.unwrap();
            tokio::time::advance(Duration::from_secs(1)).await;
        }
    }

    /// The store's sessions, if they are those that this gateway serves.
    fn assert_listed(&self, store: &MemoryStore) {
        let listed: Vec<_> =
            store.keys().into_iter().filter(|key| key.contains(".session.")).collect();
        let mut served: Vec<_> =
            self.desired.lock().sessions.keys().map(|id| format!("group.session.{id}")).collect();
        served.sort();
        assert_eq!(listed, served);
        for (id, session) in &self.desired.lock().sessions {
            let value = store.value(&format!("group.session.{id}")).unwrap();
            assert_eq!(decode(&value).as_ref(), Some(session));
        }
    }
}

fn owner(epoch: u64) -> GroupPart {
    GroupPart::Member { role: GroupRole::Owner, epoch }
}

fn owner_entry(store: &MemoryStore) -> Option<(Arc<str>, u64)> {
    let owner: OwnerEntry = decode(&store.value("group.owner")?)?;
    Some((owner.gateway, owner.epoch))
}

async fn listed() -> (MemoryStore, Gateway) {
    let store = MemoryStore::default();
    let mut gateway = Gateway::serving(&store, "a", GroupPart::Alone);
    assert_eq!(gateway.write().await, Ok(RoundOutcome::Current));
    gateway.assert_listed(&store);
    gateway.write_for(2).await;
    (store, gateway)
}

#[tokio::test(start_paused = true)]
async fn sessions_come_and_go() {
    let (store, mut gateway) = listed().await;
    gateway.desired.close(SessionId(3));
    gateway.desired.open(SessionId(99), session(99));
    gateway.desired.set_key(SessionId(99), "key");
    gateway.write().await.unwrap();
    gateway.assert_listed(&store);
    assert_eq!(store.value("group.session.s3"), None);
    let written: IndexedSession = decode(&store.value("group.session.s99").unwrap()).unwrap();
    assert_eq!(written.idempotency_key.as_deref(), Some("key"));
}

#[tokio::test(start_paused = true)]
async fn key_before_its_session_is_kept() {
    let (store, mut gateway) = listed().await;
    gateway.desired.set_key(SessionId(99), "key");
    gateway.desired.open(SessionId(99), session(99));
    gateway.write().await.unwrap();
    let written: IndexedSession = decode(&store.value("group.session.s99").unwrap()).unwrap();
    assert_eq!(written.idempotency_key.as_deref(), Some("key"));
}

#[tokio::test(start_paused = true)]
async fn short_sessions_are_not_written() {
    let (store, mut gateway) = listed().await;
    let before = store.change(|contents| contents.writes);
    gateway.desired.open(SessionId(99), session(99));
    gateway.desired.close(SessionId(99));
    gateway.write().await.unwrap();
    assert_eq!(store.change(|contents| contents.writes), before);
}

#[tokio::test(start_paused = true)]
async fn unchanged_store_is_not_listed() {
    let (store, mut gateway) = listed().await;
    let before = store.change(|contents| contents.lists);
    gateway.write_for(50).await;
    assert_eq!(store.change(|contents| contents.lists), before);
    gateway.write_for(60).await;
    assert_eq!(store.change(|contents| contents.lists), before + 2, "sessions and claims");
}

#[tokio::test(start_paused = true)]
async fn emptied_store_is_filled() {
    let (store, mut gateway) = listed().await;
    store.change(Contents::empty);
    gateway.write_for(4).await;
    gateway.assert_listed(&store);
    assert_eq!(owner_entry(&store), Some(("a".into(), 1)));
    assert!(store.value("group.member.a").is_some());
}

#[tokio::test(start_paused = true)]
async fn store_emptied_between_writes_is_filled() {
    let (store, mut gateway) = listed().await;
    store.change(Contents::empty);
    gateway.desired.open(SessionId(99), session(99));
    gateway.write().await.unwrap();
    gateway.assert_listed(&store);
}

#[tokio::test(start_paused = true)]
async fn new_stream_is_filled() {
    let (store, mut gateway) = listed().await;
    store.change(Contents::renew);
    gateway.write().await.unwrap();
    gateway.assert_listed(&store);
}

#[tokio::test(start_paused = true)]
async fn rolled_back_store_is_repaired() {
    let (store, mut gateway) = listed().await;
    let older = store.change(|contents| contents.clone());
    gateway.desired.close(SessionId(3));
    gateway.desired.open(SessionId(99), session(99));
    gateway.write_for(2).await;
    store.change(|contents| *contents = older);
    gateway.write().await.unwrap();
    gateway.assert_listed(&store);
}

#[tokio::test(start_paused = true)]
async fn lost_writes_are_written_again() {
    let (store, mut gateway) = listed().await;
    store.change(|contents| contents.loses_writes = true);
    gateway.desired.open(SessionId(99), session(99));
    gateway.write().await.unwrap();
    assert_eq!(store.value("group.session.s99"), None);
    store.change(|contents| contents.loses_writes = false);
    gateway.write().await.unwrap();
    gateway.assert_listed(&store);
}

#[tokio::test(start_paused = true)]
async fn foreign_writes_are_undone() {
    let (store, mut gateway) = listed().await;
    store.put("group.session.s3", b"{}");
    store.put("group.session.s1000", &encode(&session(1_000)));
    store.put("other.session.s1", &encode(&session(1)));
    gateway.write().await.unwrap();
    assert!(store.value("other.session.s1").is_some(), "of another group");
    store.change(|contents| contents.remove("other.session.s1"));
    gateway.assert_listed(&store);
}

#[tokio::test(start_paused = true)]
async fn keys_of_other_spellings_are_deleted() {
    let (store, mut gateway) = listed().await;
    for key in ["s077", "s+78", "S3", "s3x", "x"] {
        store.put(&format!("group.session.{key}"), &encode(&session(3)));
    }
    gateway.write().await.unwrap();
    gateway.assert_listed(&store);
    gateway.write_for(2).await;
    assert_eq!(gateway.writer.repaired(), 5, "once each");
}

#[tokio::test(start_paused = true)]
async fn flooded_store_is_emptied_in_turns() {
    let (store, mut gateway) = listed().await;
    for number in 0..2 * UNEXPECTED_MAX {
        store.put(&format!("group.session.0{number}"), b"{}");
    }
    gateway.desired.close(SessionId(3));
    gateway.write_for(4).await;
    gateway.assert_listed(&store);
}

#[tokio::test(start_paused = true)]
async fn long_values_are_not_believed() {
    let (store, mut gateway) = listed().await;
    let key: Arc<str> = "k".repeat(VALUE_MAX).into();
    store.put(
        "group.session.s3",
        &encode(&IndexedSession { idempotency_key: Some(key), ..session(3) }),
    );
    gateway.write().await.unwrap();
    assert_eq!(store.value("group.session.s3"), Some(encode(&session(3))));
}

#[tokio::test(start_paused = true)]
async fn store_that_was_down_is_repaired() {
    let (store, mut gateway) = listed().await;
    store.change(|contents| contents.is_down = true);
    gateway.desired.close(SessionId(3));
    gateway.write().await.unwrap_err();
    gateway.desired.open(SessionId(99), session(99));
    gateway.write().await.unwrap_err();
    store.change(|contents| contents.is_down = false);
    gateway.write().await.unwrap();
    gateway.assert_listed(&store);
}

#[tokio::test(start_paused = true)]
async fn vanished_entry_is_found_by_the_comparison() {
    let (store, mut gateway) = listed().await;
    store.change(|contents| contents.remove("group.session.s3"));
    gateway.write_for(62).await;
    gateway.assert_listed(&store);
    assert_eq!(gateway.writer.repaired(), 1);
}

#[tokio::test(start_paused = true)]
async fn restart_replaces_the_entries() {
    let (store, _) = listed().await;
    let mut again = Gateway::new(&store, "a", GroupPart::Alone);
    assert_eq!(again.write().await, Ok(RoundOutcome::Unlisted));
    let other = IndexedSession { room: "other".into(), ..session(1) };
    again.desired.list([(SessionId(1), other)].into(), GroupPart::Alone);
    assert_eq!(again.write().await, Ok(RoundOutcome::Current));
    again.assert_listed(&store);
    assert_eq!(owner_entry(&store), Some(("a".into(), 2)));
}

#[tokio::test(start_paused = true)]
async fn second_gateway_of_a_name_fences_the_first() {
    let (store, mut first) = listed().await;
    let mut second = Gateway::serving(&store, "a", GroupPart::Alone);
    assert_eq!(second.write().await, Ok(RoundOutcome::Current));
    for _ in 0..3 {
        let fenced = RoundOutcome::Fenced { owner: "a".into(), epoch: 2 };
        assert_eq!(first.write().await, Ok(fenced));
        assert_eq!(second.write().await, Ok(RoundOutcome::Current));
        second.assert_listed(&store);
    }
}

#[tokio::test(start_paused = true)]
async fn standby_writes_its_member_entry_only() {
    let store = MemoryStore::default();
    let standby = GroupPart::Member { role: GroupRole::Standby, epoch: 4 };
    let mut gateway = Gateway::serving(&store, "b", standby);
    assert_eq!(gateway.write().await, Ok(RoundOutcome::Standby));
    assert_eq!(store.keys(), ["group.member.b"]);
}

#[tokio::test(start_paused = true)]
async fn takeover_keeps_the_entries() {
    let store = MemoryStore::default();
    let mut a = Gateway::serving(&store, "a", owner(4));
    a.desired.set_key(SessionId(5), "key");
    a.write().await.unwrap();
    let standby = GroupPart::Member { role: GroupRole::Standby, epoch: 4 };
    let mut b = Gateway::serving(&store, "b", standby);
    b.write().await.unwrap();
    let before = store.change(|contents| contents.writes);
    b.part = owner(5);
    assert_eq!(b.write().await, Ok(RoundOutcome::Unlisted));
    a.assert_listed(&store);
    let sessions = b.desired.lock().sessions.clone();
    b.desired.list(sessions, b.part);
    assert_eq!(b.write().await, Ok(RoundOutcome::Current));
    b.assert_listed(&store);
    a.assert_listed(&store);
    assert_eq!(owner_entry(&store), Some(("b".into(), 5)));
    // The owner's and the member's entry.
    assert_eq!(store.change(|contents| contents.writes), before + 2);
}

#[tokio::test(start_paused = true)]
async fn former_owner_writes_nothing() {
    let store = MemoryStore::default();
    let mut a = Gateway::serving(&store, "a", owner(4));
    a.write().await.unwrap();
    let mut b = Gateway::serving(&store, "b", owner(5));
    b.write().await.unwrap();
    a.desired.open(SessionId(99), session(99));
    assert_eq!(a.write().await, Ok(RoundOutcome::Fenced { owner: "b".into(), epoch: 5 }));
    b.assert_listed(&store);
    assert_eq!(owner_entry(&store), Some(("b".into(), 5)));
}

#[tokio::test(start_paused = true)]
async fn takeover_survives_a_store_rolled_back() {
    let store = MemoryStore::default();
    let mut a = Gateway::serving(&store, "a", owner(4));
    a.write().await.unwrap();
    let older = store.change(|contents| contents.clone());
    let mut b = Gateway::serving(&store, "b", owner(5));
    b.desired.close(SessionId(7));
    b.write().await.unwrap();
    store.change(|contents| *contents = older);
    b.write_for(2).await;
    b.assert_listed(&store);
    assert_eq!(owner_entry(&store), Some(("b".into(), 5)));
}

#[tokio::test(start_paused = true)]
async fn listing_changes_what_differs_only() {
    let (store, mut gateway) = listed().await;
    let before = store.change(|contents| contents.writes);
    let late = |number| IndexedSession { opened_us: number * 1_000_000 + 3_000, ..session(number) };
    let sessions = (2..=SESSIONS).map(|number| (SessionId(number), late(number)));
    gateway.desired.list(sessions.collect(), GroupPart::Alone);
    gateway.write().await.unwrap();
    gateway.assert_listed(&store);
    assert_eq!(store.change(|contents| contents.writes), before + 1);
}

#[tokio::test(start_paused = true)]
async fn key_survives_a_step_of_the_clock() {
    let (store, mut gateway) = listed().await;
    gateway.desired.set_key(SessionId(5), "key");
    gateway.write().await.unwrap();
    let later = |number| IndexedSession { opened_us: (number + 60) * 1_000_000, ..session(number) };
    let sessions = (1..=SESSIONS).map(|number| (SessionId(number), later(number)));
    gateway.desired.list(sessions.collect(), GroupPart::Alone);
    gateway.write().await.unwrap();
    gateway.assert_listed(&store);
    let written: IndexedSession = decode(&store.value("group.session.s5").unwrap()).unwrap();
    assert_eq!(written.idempotency_key.as_deref(), Some("key"));
}

#[tokio::test(start_paused = true)]
async fn member_entry_is_renewed() {
    let (store, mut gateway) = listed().await;
    store.change(|contents| contents.remove("group.member.a"));
    gateway.write_for(4).await;
    assert!(store.value("group.member.a").is_some());
    gateway.writer.leave().await.unwrap();
    assert_eq!(store.value("group.member.a"), None);
}

fn claims(store: &MemoryStore) -> usize {
    store.keys().into_iter().filter(|key| key.starts_with("room.claim.")).count()
}

#[tokio::test(start_paused = true)]
async fn claims_follow_the_rooms() {
    let (store, mut gateway) = listed().await;
    assert_eq!(claims(&store), SESSIONS as usize);
    let same = IndexedSession { room: "room-3".into(), ..session(99) };
    gateway.desired.open(SessionId(99), same);
    gateway.desired.close(SessionId(3));
    gateway.write_for(12).await;
    assert!(store.value("room.claim.room-3").is_some(), "a session is left");
    gateway.desired.close(SessionId(99));
    gateway.write_for(11).await;
    assert_eq!(store.value("room.claim.room-3"), None);
    assert_eq!(claims(&store), SESSIONS as usize - 1);
}

#[tokio::test(start_paused = true)]
async fn claim_waits_for_its_session() {
    let (store, mut gateway) = listed().await;
    let claimed = claim_room(&store, &IndexKeys::new("group"), "new").await.unwrap();
    let RoomClaim::Claimed(revision) = claimed else { panic!("the room is new") };
    gateway.desired.lock().claims.note_claimed("new".into(), revision);
    gateway.write_for(9).await;
    assert!(store.value("room.claim.new").is_some());
    gateway.write_for(3).await;
    assert_eq!(store.value("room.claim.new"), None);
}

#[tokio::test(start_paused = true)]
async fn claim_with_an_unknown_revision_is_released() {
    let (store, mut gateway) = listed().await;
    claim_room(&store, &IndexKeys::new("group"), "room-3").await.unwrap();
    gateway.desired.close(SessionId(3));
    gateway.write_for(22).await;
    assert_eq!(store.value("room.claim.room-3"), None);
}

#[tokio::test(start_paused = true)]
async fn fenced_gateway_leaves_the_claims_of_its_successor() {
    let (store, mut first) = listed().await;
    let mut second = Gateway::serving(&store, "a", GroupPart::Alone);
    second.write().await.unwrap();
    first.write().await.unwrap();
    first.writer.leave().await.unwrap();
    assert_eq!(claims(&store), SESSIONS as usize);
}

#[tokio::test(start_paused = true)]
async fn former_owner_leaves_the_claims_of_its_successor() {
    let store = MemoryStore::default();
    let mut a = Gateway::serving(&store, "a", owner(4));
    a.write().await.unwrap();
    a.part = GroupPart::Member { role: GroupRole::Standby, epoch: 5 };
    a.write().await.unwrap();
    a.writer.leave().await.unwrap();
    assert_eq!(claims(&store), SESSIONS as usize);
}

#[tokio::test(start_paused = true)]
async fn duplicate_is_reported_once() {
    let store = MemoryStore::default();
    let mut other = Gateway::serving(&store, "b", GroupPart::Alone);
    other.writer.keys = IndexKeys::new("other");
    other.write().await.unwrap();
    let mut gateway = Gateway::serving(&store, "a", GroupPart::Alone);
    gateway.write().await.unwrap();
    let duplicates = gateway.writer.take_duplicates();
    assert_eq!(duplicates.len(), SESSIONS as usize);
    assert_eq!((&*duplicates[0].1.group, &*duplicates[0].1.gateway), ("other", "b"));
    other.desired.close(SessionId(3));
    other.write_for(12).await;
    gateway.write_for(62).await;
    assert_eq!(gateway.writer.take_duplicates(), []);
    let claim: RoomEntry = decode(&store.value("room.claim.room-3").unwrap()).unwrap();
    assert_eq!(claim.group, "group", "it became free");
}

#[tokio::test(start_paused = true)]
async fn rooms_admitted_without_the_store_are_claimed_later() {
    let (store, mut gateway) = listed().await;
    store.change(|contents| contents.is_down = true);
    gateway.desired.open(SessionId(99), session(99));
    gateway.write().await.unwrap_err();
    store.change(|contents| contents.is_down = false);
    gateway.write().await.unwrap();
    assert!(store.value("room.claim.room-99").is_some());
}

#[tokio::test(start_paused = true)]
async fn restart_releases_the_claims_of_its_predecessor() {
    let (store, _) = listed().await;
    let mut again = Gateway::new(&store, "a", GroupPart::Alone);
    again.desired.list([(SessionId(1), session(1))].into(), GroupPart::Alone);
    again.write_for(12).await;
    assert_eq!(claims(&store), 1);
}

#[tokio::test(start_paused = true)]
async fn end_releases_the_claims() {
    let (store, mut gateway) = listed().await;
    gateway.writer.leave().await.unwrap();
    assert_eq!(claims(&store), 0);
}
