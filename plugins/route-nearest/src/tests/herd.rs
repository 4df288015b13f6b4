//! Rooms spread over nodes and do not all follow each other.

use super::*;

#[test]
fn rooms_spread_by_free_capacity() {
    let mut trial = trial("{}");
    let at = |load, capacity| [(Delay, 1_000), (Load, load), (Capacity, capacity)];
    trial.world = World::around("east")
        .node("half", "east", "a", &at(500, 100_000))
        .node("empty", "east", "b", &at(0, 100_000))
        .node("large", "east", "c", &at(500, 400_000));
    let mut counts = std::collections::BTreeMap::<String, i32>::new();
    for room in 0..3_500 {
        *counts.entry(first_of(&mut trial, room)).or_default() += 1;
    }
    // The free capacities are 50, 100 and 200 Mbit/s.
    for (node, expected) in [("half", 500), ("empty", 1_000), ("large", 2_000)] {
        assert!((counts[node] - expected).abs() < 120, "{counts:?}");
    }
}

#[test]
fn rooms_of_one_batch_spread() {
    let mut trial = trial(r#"{"load_weight": 20, "min_stay": "0s"}"#);
    let at = |load, rooms| [(Delay, 1_000), (Load, load), (Capacity, 100_000), (Rooms, rooms)];
    trial.world = World::around("east").node("crowded", "east", "a", &at(900, 90)).node(
        "empty",
        "east",
        "b",
        &at(0, 0),
    );
    let state = trial.open_room(1, &[]);
    let standing = vec!["crowded".to_owned(), "empty".to_owned()];
    let room =
        |room| Room { room, measured: vec![], standing: standing.clone(), state: state.clone() };
    let mut rooms: Vec<_> = (0..90).map(room).collect();
    let moved = trial.reroute(&mut rooms).len();
    assert!((20..=45).contains(&moved), "{moved} of 90");
    trial.world = World::around("east")
        .node("crowded", "east", "a", &at(900 - moved as u32 * 10, 90 - moved as u32))
        .node("empty", "east", "b", &at(moved as u32 * 10, moved as u32));
    let swings: Vec<_> = (0..5).map(|_| trial.reroute(&mut rooms).len()).collect();
    assert_eq!(swings, [0; 5], "no room returns");
}
