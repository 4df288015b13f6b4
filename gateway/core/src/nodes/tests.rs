use evenkeel_model::{EvidenceSource, Health};

use super::*;
use crate::effects::Effects;
use crate::gateway::tests::{A, listed, ms, settings};

#[test]
fn added_node_is_down_and_a_left_slot_rests() {
    let now = Instant::now();
    let (mut nodes, mut effects) = (NodeTable::new(&mut settings(), now), Effects::default());
    let slots = nodes.slots();
    let (new, drains) = nodes.add(listed(0), now, &mut effects).unwrap();
    assert!(!drains && !nodes.is_up(nodes[new].hop()));
    nodes.forget(new, now, &mut effects);
    assert!(nodes.get(new).is_none());
    let (other, _) = nodes.add(listed(0), now + RESTS - ms(1), &mut effects).unwrap();
    assert_eq!((other == new, nodes.slots()), (false, slots + 2));
    let (again, _) = nodes.add(listed(0), now + RESTS, &mut effects).unwrap();
    assert_eq!((again, nodes.slots()), (new, slots + 2));
    assert!(nodes[again].incarnation > evenkeel_model::Incarnation(1));
}

#[test]
fn node_added_to_a_drained_region_drains() {
    let now = Instant::now();
    let (mut nodes, mut effects) = (NodeTable::new(&mut settings(), now), Effects::default());
    nodes.set_drained(RegionId(0), true);
    assert!(nodes.add(listed(0), now, &mut effects).unwrap().1);
    nodes.set_drained(RegionId(0), false);
    assert!(!nodes.add(listed(0), now, &mut effects).unwrap().1);
}

#[test]
fn ejected_node_is_down_and_takes_reserves() {
    let now = Instant::now();
    let mut nodes = NodeTable::new(&mut settings(), now);
    let (hop, standby) = (nodes[A].hop(), NodeId(1));
    let change = nodes.eject(A, now).unwrap();
    assert!(matches!(change.change, NodeTransition::Died { from: Health::Up }));
    assert_eq!(change.witnesses, [(EvidenceSource::Operator, now)]);
    assert!(nodes.is_up(hop), "rooms go on first");
    nodes.mark_down(hop, change.since);
    assert!(!nodes.is_up(hop));
    nodes.spend_if_free(standby, A);
    nodes.spend_if_free(standby, NodeId(2));
    assert_eq!((nodes.spent_for(A), nodes.spent_for(NodeId(2))), (vec![standby], vec![]));
    nodes.reincarnate(A);
    assert!(!nodes.is_up(hop) && nodes.is_up(nodes[A].hop()));
    assert!(nodes.eject(A, now).is_none(), "it is Down already");
}

#[test]
fn start_goes_to_the_nearest_node_and_one_at_a_time() {
    let now = Instant::now();
    let mut settings = settings();
    for node in &mut settings.nodes {
        node.starts = evenkeel_model::Starts::ByHook { within: ms(1_000) };
    }
    let (mut nodes, mut effects) = (NodeTable::new(&mut settings, now), Effects::default());
    for node in nodes.iter_mut() {
        node.detector.handle_agent(false, now);
    }
    nodes.start_nearest(RegionId(1), now, &mut effects);
    nodes.start_nearest(RegionId(0), now, &mut effects);
    let started: Vec<bool> = nodes.iter().map(Node::is_starting).collect();
    assert_eq!(started, [false, false, false, true]);
}
