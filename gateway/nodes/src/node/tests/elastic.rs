use evenkeel_model::StopPhase;

use super::start::cold;
use super::*;
use crate::node::elastic::{NodeUse, StopStep};

const SECOND: Duration = Duration::from_secs(1);

const QUIET: NodeUse = NodeUse { need: None, is_empty: true };

fn answers(node: &mut Node, sequence: u64, now: Instant) -> Option<NodeTransition> {
    node.detector.handle_probe_sent(sequence, now - MS);
    node.detector.handle_probe_answered(sequence, now);
    node.weigh(now)
}

/// A node that its hook has just started.
fn started(now: Instant) -> Node {
    let mut node = cold(now);
    node.settings.hook.stop_after = Some(60 * SECOND);
    node.settings.hook.replace_after = Some(10 * SECOND);
    node.start(now);
    answers(&mut node, 1, now + 2 * MS);
    assert!(node.runs() && node.is_in_budget());
    node
}

#[test]
fn node_that_stays_occupied_is_kept() {
    let start = Instant::now();
    let mut node = started(start);
    let weigh = |node: &mut Node, used, seconds: u32| {
        let step = node.weigh_stop(used, SECOND, start + seconds * SECOND);
        match step {
            StopStep::Drain => node.trust.elastic.stopping = true,
            StopStep::Keep => node.trust.elastic.stopping = false,
            StopStep::Wait | StopStep::Stop => {}
        }
        step
    };
    assert_eq!(weigh(&mut node, QUIET, 0), StopStep::Wait);
    assert_eq!(weigh(&mut node, QUIET, 59), StopStep::Wait);
    assert_eq!(weigh(&mut node, QUIET, 60), StopStep::Drain);
    let occupied = NodeUse { is_empty: false, ..QUIET };
    assert_eq!(weigh(&mut node, occupied, 119), StopStep::Wait);
    assert_eq!(weigh(&mut node, occupied, 120), StopStep::Keep);
    assert_eq!(weigh(&mut node, QUIET, 121), StopStep::Wait);
    assert_eq!(weigh(&mut node, QUIET, 180), StopStep::Wait);
    assert_eq!(weigh(&mut node, QUIET, 181), StopStep::Drain);
    // Legs have time to close.
    assert_eq!(weigh(&mut node, QUIET, 182), StopStep::Wait);
    assert_eq!(weigh(&mut node, QUIET, 183), StopStep::Stop);
}

#[test]
fn stopped_node_is_cold_whatever_it_answered() {
    let start = Instant::now();
    let mut node = started(start);
    node.stop(start + SECOND);
    assert_eq!(answers(&mut node, 2, start + 6 * SECOND), None);
    assert_eq!(node.stop_ended(start + 8 * SECOND), None);
    assert!(node.is_in_budget(), "it may still run");
    let took = 8 * SECOND;
    assert_eq!(node.stop_ended(start + SECOND + took), Some(StopPhase::Done { took }));
    assert_eq!(node.weigh(start + 10 * SECOND), None);
    assert_eq!((node.health(), node.is_in_budget()), (Health::Cold, false));
}

#[test]
fn failed_starts_are_parts_of_one_replacement() {
    let start = Instant::now();
    let mut node = started(start);
    node.handle_gone(start + SECOND);
    let mut now = start + 100 * SECOND;
    node.weigh(now);
    node.detector.handle_agent(false, now);
    node.settings.hook.replace_after = None;
    assert!(!node.wants_replacement(now), "a reload ended it");
    node.settings.hook.replace_after = Some(10 * SECOND);
    for _ in 0..3 {
        assert!(node.wants_replacement(now));
        node.start(now);
        node.start_failed(now);
        now += 10 * SECOND;
        node.detector.handle_agent(false, now);
    }
    node.start(now);
    node.detector.handle_agent(true, now);
    answers(&mut node, 3, now + SECOND);
    assert!(node.runs());
    assert_eq!(node.trust.elastic.replacements, 1);
}
