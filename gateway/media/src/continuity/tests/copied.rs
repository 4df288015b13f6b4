//! A process continues from a copy that is older than the last packets of the process before it.

use std::collections::BTreeSet;

use super::*;

fn first() -> Node {
    node(1, 0xa, 65_500, 5_000)
}

fn second() -> Node {
    node(2, 0xb, 30_000, 123_456)
}

/// The session as another process continues it.
fn copy_of(session: &Session) -> Session {
    let mut copy = Session(handed_over(&session.0));
    copy.0.went_on_elsewhere();
    copy
}

/// The numbers that passed, which are different.
#[derive(Default)]
struct Used(BTreeSet<u16>);

impl Used {
    fn pass(&mut self, session: &mut Session, node: Node, number: u64) -> Option<u16> {
        let header = node.header(voice(number));
        let sequence = match session.pass(node, voice(number), 20.0 * number as f64) {
            Pass::Untouched => header.sequence,
            Pass::Rewrite { sequence, .. } => sequence,
            Pass::Stale | Pass::Duplicate | Pass::Surplus => return None,
        };
        assert!(self.0.insert(sequence), "{sequence} is used twice, by {number} of {node:?}");
        Some(sequence)
    }
}

#[test]
fn unchanged_mapping_goes_on_above_its_first_packet() {
    let (mut session, mut used) = (Session::new(), Used::default());
    (0..30).for_each(|number| _ = used.pass(&mut session, first(), number));
    let mut copy = copy_of(&session);
    (30..50).for_each(|number| _ = used.pass(&mut session, first(), number));
    let like = |number| Some(numbers(first(), voice(number)).1);
    assert_eq!(used.pass(&mut copy, first(), 50), like(50));
    for late in [29, 40, 49] {
        assert_eq!(used.pass(&mut copy, first(), late), None, "it may have passed before");
    }
    assert_eq!(used.pass(&mut copy, first(), 52), like(52));
    assert_eq!(used.pass(&mut copy, first(), 51), like(51), "reordered here");
    assert_eq!(copy.0.missed_at_switches(at(9_999.0)), 0);
}

#[test]
fn late_packet_after_a_copy_does_not_pass_first() {
    let (mut session, mut used) = (Session::new(), Used::default());
    (0..30).filter(|n| *n != 25).for_each(|number| _ = used.pass(&mut session, first(), number));
    let mut copy = copy_of(&session);
    assert!(used.pass(&mut session, first(), 25).is_some());
    assert_eq!(used.pass(&mut copy, first(), 25), None);
    assert!(used.pass(&mut copy, first(), 30).is_some());
}

#[test]
fn mapping_changed_after_the_copy_jumps_past_all() {
    let (mut session, mut used) = (Session::new(), Used::default());
    (0..30).for_each(|number| _ = used.pass(&mut session, first(), number));
    let mut copy = copy_of(&session);
    (30..40).for_each(|number| _ = used.pass(&mut session, first(), number));
    (45..80).for_each(|number| _ = used.pass(&mut session, second(), number));
    let highest = *used.0.iter().filter(|number| **number < 30_000).max().unwrap();
    let next = used.pass(&mut copy, second(), 81).unwrap();
    assert!((highest + 1..highest + 300).contains(&next), "{next} follows {highest}");
    assert_eq!(used.pass(&mut copy, second(), 82), Some(next + 1));
    for late in [79, 80] {
        assert_eq!(used.pass(&mut copy, second(), late), None, "it may have passed before");
    }
}

/// SplitMix64.
fn mixed(seed: u64) -> u64 {
    let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb)
}

#[test]
fn no_number_is_used_twice_with_any_history() {
    for seed in 1..2_000 {
        let draw = |of: u64, limit: u64| mixed(seed * 16 + of) % limit;
        let (mut session, mut used) = (Session::new(), Used::default());
        let (copied, ends) = (20 + draw(0, 40), 70 + draw(1, 40));
        // The switch comes before or after the copy, or not at all.
        let switched = 10 + draw(2, 120);
        let at = |number: u64| if number < switched { first() } else { second() };
        let lost = |number: u64| mixed(seed * 1_024 + number).is_multiple_of(7);
        let mut copy = None;
        for number in (0..ends).filter(|number| !lost(*number)) {
            if number >= copied && copy.is_none() {
                copy = Some(copy_of(&session));
            }
            used.pass(&mut session, at(number), number);
        }
        let mut copy = copy.unwrap_or_else(|| copy_of(&session));
        for number in ends..ends + 40 {
            used.pass(&mut copy, at(number), number);
            // Some come late, and some a second time.
            let late = number.saturating_sub(draw(number, 3) * draw(3, 30));
            used.pass(&mut copy, at(late), late);
        }
        assert!(used.0.len() > 60, "the session goes on");
    }
}
