use super::*;
use crate::tests::memory::MemoryStore;

fn run_member(store: &MemoryStore, group: &str, gateway: &str, role: GroupRole) {
    let (epoch, api) = (1, Some(([10, 0, 0, 7], 7_400).into()));
    let member =
        MemberEntry { v: VERSION, gateway: gateway.into(), role, epoch, started_us: 1, api };
    store.put(&IndexKeys::new(group).member(gateway), &encode(&member));
}

async fn claim(store: &MemoryStore, group: &str) -> RoomClaim {
    claim_room(store, &IndexKeys::new(group), "room").await.unwrap()
}

fn holder(store: &MemoryStore) -> Option<String> {
    Some(decode::<RoomEntry>(&store.value("room.claim.room")?)?.group)
}

#[tokio::test]
async fn room_of_a_running_group_is_taken() {
    let store = MemoryStore::default();
    assert!(matches!(claim(&store, "east").await, RoomClaim::Claimed(_)));
    run_member(&store, "east", "east-2", GroupRole::Standby);
    run_member(&store, "east", "east-1", GroupRole::Owner);
    let RoomClaim::Taken(owner) = claim(&store, "west").await else { panic!("it is east's") };
    assert_eq!((&*owner.group, &*owner.gateway), ("east", "east-1"));
    assert_eq!(owner.api, Some(([10, 0, 0, 7], 7_400).into()));
    assert_eq!(holder(&store).unwrap(), "east");
}

#[tokio::test]
async fn room_of_a_group_without_a_gateway_is_free() {
    let store = MemoryStore::default();
    claim(&store, "east").await;
    assert!(matches!(claim(&store, "west").await, RoomClaim::Claimed(_)));
    assert_eq!(holder(&store).unwrap(), "west");
}

#[tokio::test]
async fn entry_of_another_program_is_replaced() {
    let store = MemoryStore::default();
    store.put("room.claim.room", b"{}");
    assert!(matches!(claim(&store, "east").await, RoomClaim::Claimed(_)));
    assert_eq!(holder(&store).unwrap(), "east");
}

#[tokio::test]
async fn claim_of_the_same_group_outlives_a_release_on_its_way() {
    let store = MemoryStore::default();
    let RoomClaim::Claimed(first) = claim(&store, "east").await else { panic!("it was free") };
    let RoomClaim::Claimed(again) = claim(&store, "east").await else { panic!("it is east's") };
    assert_ne!(first, again);
    assert_eq!(store.replace("room.claim.room", None, first).await, Ok(None));
    assert_eq!(holder(&store).unwrap(), "east");
}

#[tokio::test]
async fn deleted_claim_is_free() {
    let store = MemoryStore::default();
    let RoomClaim::Claimed(revision) = claim(&store, "east").await else { panic!("it was free") };
    run_member(&store, "east", "east-1", GroupRole::Owner);
    store.replace("room.claim.room", None, revision).await.unwrap();
    assert!(matches!(claim(&store, "west").await, RoomClaim::Claimed(_)));
}

#[test]
fn keys_of_rooms_are_read_as_written() {
    for room in ["room", "a.b *", "späße", "room.claim.x"] {
        assert_eq!(IndexKeys::room_of(&IndexKeys::room(room)).as_deref(), Some(room));
    }
    assert_eq!(IndexKeys::room_of("room.claim.a=6"), None);
    assert_eq!(IndexKeys::room_of("east.session.s1"), None);
}
