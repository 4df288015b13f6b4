use evenkeel_group::GroupRole;

use super::super::entry::{VERSION, encode};
use super::*;
use crate::tests::memory::MemoryStore;

fn put_group(store: &MemoryStore, group: &str, gateway: &str, alive: bool) {
    let keys = IndexKeys::new(group);
    let gateway: Arc<str> = gateway.into();
    let session = IndexedSession {
        v: VERSION,
        room: format!("room of {group}").into(),
        scenario: "call".into(),
        opened_us: 7,
        idempotency_key: None,
    };
    let owner = OwnerEntry { v: VERSION, gateway: Arc::clone(&gateway), epoch: 3 };
    store.put(&keys.session(SessionId(17)), &encode(&session));
    store.put(&keys.owner(), &encode(&owner));
    if alive {
        let api = Some(([10, 0, 0, 1], 7000).into());
        let (role, epoch, started_us) = (GroupRole::Owner, 3, 1);
        let member =
            MemberEntry { v: VERSION, gateway: Arc::clone(&gateway), role, epoch, started_us, api };
        store.put(&keys.member(&gateway), &encode(&member));
    }
}

#[tokio::test]
async fn session_is_found_at_each_group() {
    let store = MemoryStore::default();
    put_group(&store, "a/b", "b", true);
    put_group(&store, "c", "c", false);
    let found = find(store.clone(), SessionId(17)).await.unwrap();
    let places: Vec<_> =
        found.iter().map(|it| (&*it.group, it.gateway.as_deref(), &*it.room)).collect();
    assert_eq!(places, [("a/b", Some("b"), "room of a/b"), ("c", None, "room of c")]);
    assert!(found[0].api.is_some() && found[1].api.is_none());
    assert_eq!(find(store.clone(), SessionId(18)).await, Ok(Vec::new()));
}

#[tokio::test]
async fn members_of_all_groups_are_listed() {
    let store = MemoryStore::default();
    put_group(&store, "b", "b", true);
    put_group(&store, "a", "a", true);
    let forged = store.value("b.member.b").unwrap();
    store.put("a.member.b2", &forged);
    let members = members(store.clone()).await.unwrap();
    let groups: Vec<_> = members.iter().map(|it| &*it.group).collect();
    assert_eq!(groups, ["a", "b"]);
}

#[tokio::test]
async fn unreachable_store_is_an_error() {
    let store = MemoryStore::default();
    store.change(|contents| contents.is_down = true);
    assert_eq!(members(store).await, Err(StoreError("it is down".to_owned())));
}
