//! The rows of the long runs, small: their limits hold in a few worlds of some dozens of sessions.

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
fn kills() {
    holds(&["node.kill.hot", "node.kill.hot.silent", "node.kill.cross-region", "node.kill.far"]);
    holds(&["node.stop", "node.drain", "node.kill.alone"]);
}

#[test]
fn kills_where_two_carry_all() {
    holds(&["node.kill.hitless", "node.kill.hitless.silent"]);
}

#[test]
fn regions() {
    holds(&["region.kill", "region.kill.silent", "region.kill.tight"]);
}

#[test]
fn flaps() {
    holds(&["node.flap", "link.flap"]);
}
