use evenkeel_model::{NodeId, NodeSettings, Timings, ZoneId};

use super::super::*;
use crate::detector::Distance;

const MS: Duration = Duration::from_millis(1);

pub(super) fn cold(now: Instant) -> Node {
    let settings = NodeSettings {
        starts: Starts::ByHook { within: Duration::from_secs(30) },
        ..NodeSettings::new("a", ZoneId(0), 1_000)
    };
    Node::new(NodeId(0), settings, Distance::Near, Timings::default(), now)
}

#[test]
fn start_waits_for_unanswered_probe() {
    let start = Instant::now();
    let mut node = cold(start);
    node.detector.handle_probe_sent(1, start);
    node.conclude(DetectorFinding::Well, start + MS);
    assert!(!node.may_start(start + MS), "it may run since before we did");
    node.conclude(DetectorFinding::Well, start + 100 * MS);
    assert!(node.may_start(start + 100 * MS));
}

#[test]
fn agent_report_of_exit_calls_start() {
    let start = Instant::now();
    let mut node = cold(start);
    node.detector.handle_agent(false, start);
    assert!(node.may_start(start));
}

#[test]
fn start_retry_doubles_to_a_minute() {
    let now = Instant::now();
    let mut node = cold(now);
    let again = (1..=9).map(|attempt| {
        assert_eq!(node.start(now).0, attempt);
        node.start_failed(now).unwrap().as_secs()
    });
    assert_eq!(again.collect::<Vec<_>>(), [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    assert_eq!(node.start_failed(now), None, "nobody starts it");
}
