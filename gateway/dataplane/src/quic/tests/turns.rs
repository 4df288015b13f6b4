//! Limits of a turn.

use super::raw::Raw;
use super::*;

#[test]
fn turn_is_limited_below_the_kernels_batch() {
    let mut raw = Raw::start(quiet());
    raw.flood(9);
    let mut turn = || {
        let look = raw.endpoint.turn(raw.now);
        (look.packets, look.more)
    };
    assert_eq!((turn(), turn()), ((256, true), (256, true)));
    assert_eq!((turn(), turn()), ((64, false), (0, false)));
}
