//! What a turn takes before others have theirs.

use super::raw::Raw;
use super::*;

#[test]
fn a_turn_takes_its_share_of_datagrams_though_the_kernel_hands_out_more() {
    let mut raw = Raw::start(quiet());
    raw.flood(9);
    let mut turn = || {
        let look = raw.endpoint.turn(raw.now);
        (look.packets, look.more)
    };
    assert_eq!((turn(), turn()), ((256, true), (256, true)));
    assert_eq!((turn(), turn()), ((64, false), (0, false)));
}
