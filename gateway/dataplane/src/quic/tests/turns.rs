//! Limits of a turn.

use super::accept::PING;
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

#[test]
fn turn_has_few_handshakes() {
    let mut raw = Raw::start(quiet());
    (0..12).for_each(|number| raw.send(&[number; 8], &[], PING));
    let mut turn = || {
        let look = raw.endpoint.turn(raw.now);
        (look.packets, look.more)
    };
    assert_eq!((turn(), turn()), ((8, true), (4, false)));
    assert_eq!(raw.count(|counters| &counters.connections), 12);
}
