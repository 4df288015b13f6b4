//! The panic threshold: a failed uplink is not the nodes' death, and a death is not postponed forever.

use evenkeel_model::{CoreEvent, CoreSettings, NodeId, RedundancyMode, Starts};
use evenkeel_nodes::NodeEvidence;

use super::modes::in_mode;
use super::*;

impl World {
    fn up(&self, node: NodeId) -> bool {
        self.gateway.board().cell(node).unwrap().up
    }

    /// Cuts the traffic from these nodes for this long.
    fn cut(&mut self, nodes: &[NodeId], for_ms: u64) {
        nodes.iter().for_each(|node| self.mute(*node));
        self.pass(ms(for_ms));
        nodes.iter().for_each(|node| self.unmute(*node));
    }

    /// Milliseconds until the node is marked down, if within 10 s.
    fn down_after(&mut self, node: NodeId) -> Option<u64> {
        (0..5_000).map(|step| step * 2).find(|_| {
            let up = self.up(node);
            if up {
                self.pass(ms(2));
            }
            !up
        })
    }

    /// The events of the suspicion of the uplink.
    fn doubts(&self) -> Vec<(bool, u32, u32)> {
        let doubt = |event: &CoreEvent| match event {
            CoreEvent::Uplink { doubted, silent, of } => Some((*doubted, *silent, *of)),
            _ => None,
        };
        self.events().filter_map(doubt).collect()
    }
}

fn near(nodes: usize) -> CoreSettings {
    settings_of(&vec![(0, 100_000); nodes])
}

#[test]
fn short_uplink_loss_marks_no_node_down() {
    for nodes in [
        vec![(0, 1_000)],
        vec![(0, 1_000); 2],
        vec![(0, 1_000), (0, 1_000), (1, 1_000), (2, 1_000)],
    ] {
        for cut_ms in [30, 60, 150] {
            let mut world = World::new(settings_of(&nodes));
            world.open("r");
            let all: Vec<NodeId> = (0..nodes.len() as u32).map(NodeId).collect();
            world.cut(&all, cut_ms);
            world.pass(ms(1_000));
            assert!(all.iter().all(|node| world.up(*node)), "{nodes:?} {cut_ms}");
            assert_eq!(world.moves(), []);
            let doubts: Vec<bool> = world.doubts().iter().map(|(doubted, ..)| *doubted).collect();
            assert!([vec![], vec![true, false]].contains(&doubts), "{doubts:?}");
            assert!(cut_ms < 60 || doubts.len() == 2);
            assert!(!world.gateway.node_table().doubts_uplink());
        }
    }
}

#[test]
fn idle_nodes_do_not_isolate_a_busy_one() {
    let mut world = World::new(near(3));
    world.hush(B);
    world.hush(C);
    world.pass(ms(7_000));
    world.cut(&[A, B, C], 60);
    world.pass(ms(500));
    assert!([A, B, C].iter().all(|node| world.up(*node)));
}

#[test]
fn uplink_loss_is_believed_after_3_s() {
    let mut world = World::new(settings());
    world.open("r");
    [A, B, C, D].iter().for_each(|node| world.mute(*node));
    let after = world.down_after(A).unwrap();
    assert!((2_900..=3_100).contains(&after), "{after}");
    world.pass(ms(600));
    assert!([B, C, D].iter().all(|node| !world.up(*node)), "none of them is doubted for ever");
    assert!(!world.gateway.node_table().doubts_uplink());
}

/// The only node that runs is replaced by one that a hook starts, and not within a short loss of the uplink.
#[test]
fn only_running_node_is_doubted_for_less_where_another_starts() {
    let mut settings = in_mode(RedundancyMode::Cold, near(2));
    settings.nodes[1].starts = Starts::ByHook { within: ms(30_000) };
    let mut world = World::new(settings);
    world.open("r");
    world.cut(&[A], 80);
    world.pass(ms(1_000));
    assert!(world.up(A) && world.starts.is_empty());
    world.mute(A);
    let after = world.down_after(A).unwrap();
    assert!((90..=130).contains(&after), "{after}");
    assert_eq!(world.starts, [B]);
}

#[test]
fn node_with_media_is_not_down() {
    let mut world = World::new(near(3));
    world.open("r");
    let all = [A, B, C];
    all.iter().for_each(|node| world.lose_probes(*node, 100));
    world.pass(ms(20_000));
    assert!(all.iter().all(|node| world.up(*node)), "it is their answers that are lost");
    assert_eq!(world.moves(), []);
    assert_eq!(world.doubts(), [(true, 3, 3)], "and it is said");
    world.mute(A);
    let after = world.down_after(A).unwrap();
    assert!(after <= 450, "one of them dies meanwhile: {after}");
    assert!(world.up(B) && world.up(C));
    [B, C].iter().for_each(|node| world.lose_probes(*node, 0));
    world.pass(ms(1_000));
    assert!(!world.gateway.node_table().doubts_uplink() && world.up(B) && world.up(C));
}

#[test]
fn silent_region_death_is_believed() {
    let mut world = World::new(settings());
    world.open("r");
    [A, B, C].iter().for_each(|node| world.mute(*node));
    let after = world.down_after(A).unwrap();
    assert!((190..=260).contains(&after), "{after}");
    world.pass(ms(20));
    assert!([B, C].iter().all(|node| !world.up(*node)));
    assert_eq!(world.stands("r"), Some(D));
}

#[test]
fn half_of_nodes_is_believed_at_once() {
    for (nodes, dead) in [(2, vec![A]), (3, vec![A]), (4, vec![A, B])] {
        let mut world = World::new(near(nodes));
        dead.iter().for_each(|node| world.mute(*node));
        let after = world.down_after(A).unwrap();
        assert!(after <= 40, "{nodes} {after}");
        world.pass(ms(4));
        assert!(dead.iter().all(|node| !world.up(*node)));
        assert_eq!(world.doubts(), []);
    }
}

#[test]
fn neighbour_death_needs_one_witness() {
    let regions: [(u32, u64); 6] =
        [(0, 100_000), (1, 100_000), (0, 100_000), (2, 100_000), (2, 100_000), (2, 100_000)];
    let mut world = World::new(settings_of(&regions));
    world.open("r");
    world.hush(B);
    world.hush(C);
    world.pass(ms(7_000));
    world.mute(A);
    world.mute(B);
    let after = world.down_after(A).unwrap();
    let neighbour = world.down_after(B).unwrap();
    assert!(after + neighbour <= 60, "{after} and {neighbour}");
    world.pass(ms(200));
    assert!(world.up(C), "it answers");
    world.mute(C);
    let alone = world.down_after(C).unwrap();
    assert!(alone >= 190, "nobody fell just before: {alone}");
}

#[test]
fn last_distant_node_waits_for_answer() {
    let mut world = World::new(settings_of(&[(0, 1_000), (2, 1_000)]));
    world.mute(A);
    let after = world.down_after(A).unwrap();
    assert!(after <= 80, "{after}");
}

#[test]
fn near_death_waits_for_no_turn_of_far_probes() {
    let nodes = [(0, 1_000), (1, 1_000), (2, 1_000), (2, 1_000), (2, 1_000), (2, 1_000)];
    for phase in (0..50).step_by(2) {
        let mut world = World::new(settings_of(&nodes));
        world.open("r");
        world.pass(ms(200 + phase));
        world.mute(A);
        let after = world.down_after(A).unwrap();
        assert!(after <= 30, "{phase}: {after}");
        assert!(!world.gateway.node_table().doubts_uplink());
    }
}

#[test]
fn doubt_probes_each_node_once() {
    let nodes = [(0, 1_000), (0, 1_000), (1, 1_000), (2, 1_000), (2, 1_000), (2, 1_000)];
    let all: Vec<NodeId> = (0..nodes.len() as u32).map(NodeId).collect();
    let failures: [fn(&mut World, NodeId); 2] =
        [World::mute, |world, node| world.lose_probes(node, 100)];
    for fail in failures {
        let mut world = World::new(settings_of(&nodes));
        world.probes.clear();
        all.iter().for_each(|node| fail(&mut world, *node));
        world.pass(ms(2_900));
        assert!(world.gateway.node_table().doubts_uplink());
        // Every 50 ms, once early as the node falls silent, and once for the doubt.
        let most = 2_900 / 50 + 1 + 1 + 1;
        for far in &all[3..] {
            assert!(world.probes[far] <= most, "{far:?}: {}", world.probes[far]);
        }
    }
}

#[test]
fn kernel_errors_are_no_uplink_loss() {
    let mut world = World::new(settings());
    for node in [A, B, C, D] {
        world.mute(node);
        world.gateway.handle_evidence(node, NodeEvidence::KernelError, world.now);
    }
    world.pass(ms(120));
    assert!([A, B, C, D].iter().all(|node| !world.up(*node)));
    assert_eq!(world.doubts(), []);
}

#[test]
fn earlier_death_makes_no_majority() {
    let mut world = World::new(near(3));
    world.kill(A);
    world.mute(B);
    assert!(world.down_after(B).unwrap() <= 40, "the third one answers");
}

#[test]
fn the_threshold_may_be_turned_off() {
    let mut settings = near(3);
    settings.timings.panic_percent = 100;
    let mut world = World::new(settings);
    world.cut(&[A, B, C], 60);
    assert!([A, B, C].iter().all(|node| !world.up(*node)));
}

#[test]
fn unheard_node_is_a_target() {
    let mut settings = near(2);
    settings.nodes[1].probed = evenkeel_model::NodeProbing::No;
    let mut world = World::new(settings);
    world.hush(B);
    world.pass(ms(10_000));
    world.mute(A);
    assert!(world.down_after(A).unwrap() <= 40);
}
