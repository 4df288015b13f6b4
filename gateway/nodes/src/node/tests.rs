mod elastic;
mod start;

use evenkeel_model::{Stamp, ZoneId};

use super::*;

impl Node {
    fn weigh(&mut self, now: Instant) -> Option<NodeTransition> {
        let found = self.look(now);
        self.conclude(found, now)
    }
}

const MS: Duration = Duration::from_millis(1);

/// A node that was never heard.
fn unknown(now: Instant) -> Node {
    let settings = NodeSettings::new("a", ZoneId(0), 1_000);
    Node::new(NodeId(0), settings, Distance::Near, Timings::default(), now)
}

fn node(now: Instant) -> Node {
    let mut node = unknown(now);
    let stamp = Stamp { last_received: Some(now), received: 1, last_sent: None };
    node.detector.handle_stamp(stamp, now);
    node
}

/// Marks the node down by two witnesses.
fn kill(node: &mut Node, now: Instant) {
    node.detector.handle_kernel_error(now);
    node.detector.handle_probe_sent(1, now);
    node.detector.handle_probe_sent(2, now);
    assert!(matches!(node.weigh(now + 50 * MS), Some(NodeTransition::Died { .. })));
    assert_eq!(node.health(), Health::Down);
}

/// Milliseconds of answered probes until the node returns.
fn returns_after(node: &mut Node, start: Instant) -> u32 {
    for ms in (10..200_000).step_by(10) {
        let now = start + MS * ms;
        node.detector.handle_probe_sent(u64::from(ms), now - MS);
        node.detector.handle_probe_answered(u64::from(ms), now);
        if node.weigh(now) == Some(NodeTransition::Returned) {
            return ms;
        }
    }
    panic!("it never returned");
}

#[test]
fn dead_node_returns_wary_then_up() {
    let start = Instant::now();
    let mut node = node(start);
    kill(&mut node, start);
    let back = start + MS * returns_after(&mut node, start + 100 * MS) + 100 * MS;
    assert_eq!(node.health(), Health::Wary);
    assert_eq!(node.weigh(back + 1_990 * MS), None);
    let trusted = Some(NodeTransition::Health { from: Health::Wary, to: Health::Up });
    assert_eq!(node.weigh(back + 2_010 * MS), trusted);
}

#[test]
fn unheard_node_is_up_with_first_answer() {
    let start = Instant::now();
    let mut node = unknown(start);
    kill(&mut node, start);
    assert!(!node.takes_rooms());
    assert_eq!(returns_after(&mut node, start + 100 * MS), 10);
    assert_eq!(node.health(), Health::Up);
    // The node is known from now on, and the next death is its first relapse.
    kill(&mut node, start + 200 * MS);
    assert_eq!(returns_after(&mut node, start + 300 * MS), 1_010);
    assert_eq!(node.health(), Health::Wary);
}

#[test]
fn ejection_doubles_with_each_relapse() {
    let mut start = Instant::now();
    let mut node = node(start);
    let mut times = Vec::new();
    for _ in 0..3 {
        kill(&mut node, start);
        times.push(returns_after(&mut node, start + 100 * MS));
        start += 300_000 * MS;
    }
    assert_eq!(times, [1_010, 2_010, 4_010]);
}

#[test]
fn missed_answer_restarts_return() {
    let start = Instant::now();
    let mut node = node(start);
    kill(&mut node, start);
    for ms in 100..600 {
        let now = start + MS * ms;
        node.detector.handle_probe_sent(u64::from(ms), now);
        node.detector.handle_probe_answered(u64::from(ms), now);
        assert_eq!(node.weigh(now), None);
    }
    node.detector.handle_probe_sent(9_001, start + 600 * MS);
    node.detector.handle_probe_sent(9_002, start + 600 * MS);
    assert_eq!(node.weigh(start + 700 * MS), None);
    assert_eq!(returns_after(&mut node, start + 800 * MS), 1_010);
}

#[test]
fn suspected_wary_node_waits_as_long() {
    let start = Instant::now();
    let mut node = node(start);
    kill(&mut node, start);
    let back = start + MS * returns_after(&mut node, start + 100 * MS) + 100 * MS;
    node.detector.handle_kernel_error(back + 100 * MS);
    let accused = Some(NodeTransition::Health { from: Health::Wary, to: Health::Suspect });
    assert_eq!(node.weigh(back + 100 * MS), accused);
    node.detector.handle_probe_sent(99_999, back + 110 * MS);
    node.detector.handle_probe_answered(99_999, back + 111 * MS);
    let heard = Some(NodeTransition::Health { from: Health::Suspect, to: Health::Wary });
    assert_eq!(node.weigh(back + 111 * MS), heard);
    assert_eq!(node.weigh(back + 2_110 * MS), None);
    let trusted = Some(NodeTransition::Health { from: Health::Wary, to: Health::Up });
    assert_eq!(node.weigh(back + 2_111 * MS), trusted);
}

#[test]
fn three_closed_ports_suspect_node() {
    let now = Instant::now();
    let mut node = node(now);
    for (room, ms) in [(1, 0), (1, 1), (1, 2), (2, 3), (3, 22)] {
        node.handle_port_closed(RoomId(room), now + MS * ms);
    }
    assert_eq!(node.weigh(now + 22 * MS), None, "room 1's was 20 ms ago");
    node.handle_port_closed(RoomId(4), now + 22 * MS);
    assert!(matches!(node.weigh(now + 22 * MS), Some(NodeTransition::Health { .. })));
}
