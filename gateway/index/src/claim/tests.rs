use evenkeel_group::GroupRole;

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
    run_member(&store, "east", "east-1", GroupRole::Standby);
    run_member(&store, "east", "east-2", GroupRole::Owner);
    let gateway = "east-2".into();
    store.put("east.owner", &encode(&OwnerEntry { v: VERSION, gateway, epoch: 3 }));
    let RoomClaim::Taken(owner) = claim(&store, "west").await else { panic!("it is east's") };
    assert_eq!((&*owner.group, &*owner.gateway), ("east", "east-2"));
    assert_eq!(owner.api, Some(([10, 0, 0, 7], 7_400).into()));
    assert_eq!(holder(&store).unwrap(), "east");
    assert_eq!(store.change(|contents| contents.lists), 0, "the owner runs");
    store.change(|contents| contents.remove("east.member.east-2"));
    let RoomClaim::Taken(owner) = claim(&store, "west").await else { panic!("it is east's") };
    assert_eq!(&*owner.gateway, "east-1", "while it takes over");
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
    for value in [&b"{}"[..], br#"{"v": 1, "group": ""}"#] {
        store.put("room.claim.room", value);
        assert!(matches!(claim(&store, "east").await, RoomClaim::Claimed(_)));
        assert_eq!(holder(&store).unwrap(), "east");
    }
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

fn room() -> Arc<str> {
    "room".into()
}

async fn after(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn claim_outlives_its_last_session() {
    let mut table = ClaimTable::default();
    table.enter(&room());
    assert_eq!(table.take_due(), [(room(), DueClaim::Claim)]);
    table.note_claimed(room(), 4);
    after(60).await;
    table.leave(&room());
    assert_eq!(table.take_due(), [], "an offer may have found the room");
    after(10).await;
    assert_eq!(table.take_due(), [(room(), DueClaim::Release(4))]);
}

#[tokio::test(start_paused = true)]
async fn earlier_answer_of_two_claims_is_outdated() {
    let mut table = ClaimTable::default();
    table.note_claimed(room(), 5);
    table.note_claimed(room(), 4);
    table.replace([(room(), 3)].into(), Instant::now(), false);
    after(10).await;
    assert_eq!(table.take_due(), [(room(), DueClaim::Release(5))]);
    table.note_released(&room(), 4);
    assert_eq!(table.take_all(), [(room(), DueClaim::Release(5))]);
}

#[tokio::test(start_paused = true)]
async fn claims_beside_a_listing_stay() {
    let mut table = ClaimTable::default();
    table.note_claimed("old".into(), 1);
    after(1).await;
    let began = Instant::now();
    table.note_claimed("new".into(), 2);
    table.replace(BTreeMap::new(), began, true);
    table.replace(BTreeMap::new(), began, false);
    assert_eq!(table.take_all(), [("new".into(), DueClaim::Release(2))]);
    table.note_claimed("old".into(), 1);
    after(1).await;
    table.replace(BTreeMap::new(), Instant::now(), true);
    assert_eq!(table.take_all().len(), 1, "the listing was cut off");
}

#[tokio::test(start_paused = true)]
async fn ended_rooms_without_a_claim_leave_nothing() {
    let mut table = ClaimTable::default();
    for number in 0..1_000 {
        let room = format!("room-{number}").into();
        table.enter(&room);
        table.leave(&room);
    }
    assert!(table.due.is_empty() && table.sessions.is_empty());
}

#[tokio::test(start_paused = true)]
async fn duplicate_is_new_again_after_its_end() {
    let mut table = ClaimTable::default();
    assert!(!table.note_duplicate(room(), "east"), "it has no session any more");
    table.enter(&room());
    assert!(table.note_duplicate(room(), "east"));
    assert!(!table.note_duplicate(room(), "east"));
    assert!(table.note_duplicate(room(), "west"));
    table.leave(&room());
    table.enter(&room());
    assert!(table.note_duplicate(room(), "west"));
    table.note_claimed(room(), 1);
    assert!(table.note_duplicate(room(), "west"));
}

#[tokio::test(start_paused = true)]
async fn duplicate_is_tried_again() {
    let mut table = ClaimTable::default();
    table.enter(&room());
    table.take_due();
    table.note_duplicate(room(), "east");
    assert_eq!(table.take_due(), []);
    after(5).await;
    assert_eq!(table.take_due(), [(room(), DueClaim::Claim)]);
}

#[tokio::test(start_paused = true)]
async fn claim_of_a_refused_offer_is_released_at_once() {
    let mut table = ClaimTable::default();
    table.note_claimed(room(), 3);
    table.note_unused(&room(), 3);
    assert_eq!(table.take_due(), [(room(), DueClaim::Release(3))]);
    table.note_claimed(room(), 4);
    table.note_unused(&room(), 3);
    assert_eq!(table.take_due(), [], "another offer has made it again");
    table.note_unused(&room(), 4);
    table.enter(&room());
    table.leave(&room());
    assert_eq!(table.take_due(), [], "a session had entered meanwhile");
}

#[tokio::test(start_paused = true)]
async fn claim_without_an_answer_is_found_and_released() {
    let mut table = ClaimTable::default();
    table.note_unanswered(room());
    assert_eq!(table.take_due(), [(room(), DueClaim::Claim)]);
    table.note_claimed(room(), 3);
    assert_eq!(table.take_due(), []);
    after(10).await;
    assert_eq!(table.take_due(), [(room(), DueClaim::Release(3))]);
}

#[tokio::test(start_paused = true)]
async fn write_that_is_on_its_way_is_awaited() {
    let store = MemoryStore::default();
    store.change(|contents| contents.refusals = 10);
    assert!(matches!(claim(&store, "east").await, RoomClaim::Claimed(_)));
    store.change(|contents| contents.refusals = 100);
    assert_eq!(claim(&store, "west").await, RoomClaim::Contended);
}

#[tokio::test(start_paused = true)]
async fn room_that_is_entered_during_its_release_is_claimed_again() {
    let mut table = ClaimTable::default();
    table.note_claimed(room(), 1);
    table.enter(&room());
    table.take_due();
    table.note_released(&room(), 1);
    assert_eq!(table.take_due(), [(room(), DueClaim::Claim)]);
}

#[test]
fn rooms_of_one_session_are_not_claimed() {
    let mut table = ClaimTable::default();
    for room in ["conf~s7", "open-0-192.0.2.7:5004", "open-1-[2001:db8::1]:5004"] {
        table.enter(&room.into());
    }
    assert!(table.due.is_empty());
    table.enter(&"open-day".into());
    assert_eq!(table.due.len(), 1);
}

#[test]
fn keys_of_rooms_are_read_as_written() {
    for room in ["room", "a.b *", "späße", "room.claim.x"] {
        assert_eq!(IndexKeys::room_of(&IndexKeys::room(room)).as_deref(), Some(room));
    }
    assert_eq!(IndexKeys::room_of("room.claim.a=6"), None);
    assert_eq!(IndexKeys::room_of("east.session.s1"), None);
}
