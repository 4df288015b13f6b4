use super::*;

const LOOK_EVERY: Duration = Duration::from_millis(50);
const PATH: TrunkPath = TrunkPath { node: NodeId(7), worker: 3 };

/// A path with constant long bundles, and its true limit.
struct World {
    paths: Paths,
    now: Instant,
    carries: usize,
    answers: bool,
    /// Bundle sizes of the worker and of the node.
    sizes: (u16, u16),
}

impl World {
    fn new(carries: usize) -> World {
        let paths = Paths::default();
        World { paths, now: Instant::now(), carries, answers: true, sizes: (1_400, 1_400) }
    }

    fn go_on(&mut self, looks: u32) {
        for _ in 0..looks {
            self.now += LOOK_EVERY;
            self.paths.used(PATH, &mut || u64::MAX - 4, self.now);
            self.paths.look(self.now);
            self.answer();
        }
    }

    fn answer(&mut self) {
        while let Some(Asking { node, worker, question, nonce }) = self.paths.due() {
            assert_eq!(TrunkPath { node, worker }, PATH);
            let TrunkQuestion::Path { bundle_max, padding } = question else { panic!() };
            if self.answers && PATH_LEN_MIN + usize::from(padding) <= self.carries {
                self.sizes.1 = bundle_max;
                let changed = self.paths.answered(node, nonce, self.now);
                self.sizes.0 = changed.map_or(self.sizes.0, |(_, size)| size);
            }
        }
    }
}

#[test]
fn four_lost_long_probes_shrink_bundles() {
    let mut world = World::new(1_400);
    world.go_on(100);
    assert_eq!(world.sizes, (1_400, 1_400));
    world.carries = 1_300;
    world.go_on(3);
    assert_eq!(world.sizes.0, 1_400, "three may be lost");
    world.go_on(1);
    assert_eq!(world.sizes, (1_200, 1_200));
}

#[test]
fn size_grows_to_what_the_path_carries() {
    let mut world = World::new(1_300);
    world.go_on(4);
    world.go_on(19);
    assert_eq!(world.sizes, (1_200, 1_200));
    world.go_on(1);
    assert_eq!(world.sizes, (1_252, 1_252));
    world.go_on(200);
    assert_eq!(world.sizes, (1_252, 1_252), "1,400 is tried, and does not cross");
    world.carries = 1_500;
    world.go_on(20);
    assert_eq!(world.sizes, (1_400, 1_400));
}

#[test]
fn single_lost_probes_change_nothing() {
    let mut world = World::new(1_400);
    for _ in 0..100 {
        world.carries = 1_300;
        world.go_on(1);
        world.carries = 1_400;
        world.go_on(1);
    }
    assert_eq!(world.sizes, (1_400, 1_400));
}

#[test]
fn plain_loss_does_not_shrink_bundles() {
    let mut world = World::new(1_400);
    let mut rng = fastrand::Rng::with_seed(7);
    let (mut changes, mut before) = (0, world.sizes.0);
    // One hour of probes with 5 % loss in each direction.
    for _ in 0..120_000 {
        world.carries = if rng.u32(0..20) == 0 { 1_300 } else { 1_400 };
        world.go_on(1);
        changes += u32::from(world.sizes.0 != before);
        before = world.sizes.0;
    }
    assert!(changes <= 9, "{changes} times");
}

#[test]
fn reordered_long_answer_is_no_loss() {
    let mut world = World::new(1_400);
    for _ in 0..100 {
        world.now += LOOK_EVERY;
        world.paths.used(PATH, &mut || 5, world.now);
        world.paths.look(world.now);
        let pair: Vec<u64> = std::iter::from_fn(|| Some(world.paths.due()?.nonce)).collect();
        for nonce in pair.into_iter().rev() {
            assert_eq!(world.paths.answered(PATH.node, nonce, world.now), None);
        }
    }
}

#[test]
fn silent_node_is_not_judged() {
    let mut world = World::new(1_400);
    world.answers = false;
    world.go_on(100);
    assert_eq!(world.sizes, (1_400, 1_400));
}

#[test]
fn duplicate_answer_counts_once() {
    let mut world = World::new(1_400);
    world.paths.used(PATH, &mut || 5, world.now);
    world.paths.look(world.now);
    for _ in 0..3 {
        assert_eq!(world.paths.answered(PATH.node, 6, world.now), None);
    }
}

#[test]
fn paths_without_long_bundles_are_not_probed() {
    let mut world = World::new(1_400);
    world.paths.look(world.now);
    assert!(world.paths.due().is_none());
    world.go_on(1);
    world.now += USED_FOR;
    world.paths.look(world.now);
    assert!(world.paths.due().is_none());
}
