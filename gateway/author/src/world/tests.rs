use super::*;

fn history(seed: u64) -> Vec<PolicyQuestion> {
    let mut world = RandomWorld::drawn(seed);
    let mut asked = Vec::new();
    for _ in 0..3 {
        asked.extend([
            world.resolve(),
            world.admit(),
            world.place(),
            world.reroute(),
            world.tick(),
        ]);
        world.advance();
    }
    asked
}

#[test]
fn world_depends_on_its_seed_only() {
    for seed in 0..4 {
        assert_eq!(history(seed), history(seed), "{seed}");
    }
    assert_ne!(history(2), history(4));
}

#[test]
fn odd_worlds_reach_extreme_values() {
    let loads = |odd: u64| -> Vec<Option<u32>> {
        let worlds = (0..200).map(|n| RandomWorld::drawn(2 * n + odd));
        let rows = worlds.flat_map(|world| world.nodes);
        rows.map(|row| row.measures.measured(Metric::Load)).collect()
    };
    let (usual, odd) = (loads(0), loads(1));
    for edge in [None, Some(0), Some(u32::MAX - 1)] {
        assert!(odd.contains(&edge), "{edge:?}");
    }
    assert!(usual.contains(&None) && usual.iter().flatten().all(|&load| load <= 1_200));
}

#[test]
fn answers_are_applied() {
    let mut world =
        RandomWorld::sized(1, WorldSize { regions: 1, nodes: 3, rooms: 2, sessions: 2 });
    let state = PluginState { plugin: "p".into(), schema: 1, bytes: [7].into() };
    let step = evenkeel_model::RoutingMove { row: 1, hops: vec![NodeId(0)], ttl_ms: 0, reason: 0 };
    let moves = vec![step];
    let states = vec![(0, state.clone())];
    world.apply(&HookAnswer::Moves { moves, states: states.clone(), memo: Some(state.clone()) });
    world.apply(&HookAnswer::Actions { actions: vec![], states, memo: None });
    let PolicyQuestion::Reroute { rooms, memo, .. } = world.reroute() else { panic!() };
    assert_eq!((&rooms[0].state, &rooms[1].standing), (&Some(state.clone()), &vec![NodeId(0)]));
    assert_eq!(memo, Some(state.clone()), "an unchanged memo stays");
    let PolicyQuestion::Tick { sessions, .. } = world.tick() else { panic!() };
    assert_eq!((&sessions[0].state, &sessions[1].state), (&Some(state), &None));
}
