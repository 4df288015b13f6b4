//! The limits of the long runs, in a few small worlds.

use evenkeel_simulate::Library;
use evenkeel_simulate::rows::{ROWS, Scale};

fn holds(names: &[&str]) {
    let library = Library::new();
    for name in names {
        let (_, play) = ROWS.iter().find(|(id, _)| id == name).expect("there is such a row");
        let row = play(&library, Scale::Small);
        assert!(row.held, "{row:?}");
    }
}

#[test]
fn node_failures_hold_limits() {
    holds(&["node.kill.hot", "node.kill.hot.silent", "node.kill.cross-region", "node.kill.far"]);
    holds(&["node.stop", "node.drain", "node.kill.alone"]);
}

#[test]
fn hitless_node_failures_hold_limits() {
    holds(&["node.kill.hitless", "node.kill.hitless.silent"]);
}

#[test]
fn region_failures_hold_limits() {
    holds(&["region.kill", "region.kill.silent", "region.kill.tight"]);
}

#[test]
fn flapping_holds_limits() {
    holds(&["node.flap", "link.flap"]);
}

#[test]
fn healthy_group_holds_limits() {
    holds(&["group.jitter"]);
}
