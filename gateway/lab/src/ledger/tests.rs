use std::time::Duration;

use super::*;

const MS: u64 = 1_000_000;
const NOBODY: [u64; 0] = [];

/// A call of sessions 1 and 2 in room 10, and session 3 alone in room 11; voice every 20 ms from time 0.
struct Call {
    ledger: Ledger,
}

/// What may differ from a perfect delivery.
#[derive(Clone, Copy)]
struct Twist {
    node: u32,
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
}

const STRAIGHT: Twist = Twist { node: 100, ssrc: 77, sequence: 0, timestamp: 0 };

impl Call {
    fn new() -> Self {
        let mut ledger = Ledger::default();
        for (session, room) in [(1, 10), (2, 10), (3, 11)] {
            ledger.join(Member { session, room, from_ns: 0, until_ns: u64::MAX });
        }
        Self { ledger }
    }

    fn sends(&mut self, session: u64, numbers: impl Iterator<Item = u64>) {
        for number in numbers {
            let timestamp = u32::try_from(number).unwrap() * 960;
            let at_ns = number * 20 * MS;
            self.ledger.sent(Sent {
                session,
                stream: 0,
                number,
                at_ns,
                timestamp,
                clock_rate: 48_000,
            });
        }
    }

    fn hears(
        &mut self,
        receiver: u64,
        sender: u64,
        numbers: impl Iterator<Item = u64>,
        twist: Twist,
    ) {
        for number in numbers {
            self.ledger.arrived(Arrival {
                receiver,
                sender,
                stream: 0,
                number,
                node: twist.node,
                sent_ns: number * 20 * MS,
                at_ns: (number * 20 + 1) * MS,
                ssrc: twist.ssrc,
                sequence: (number as u16).wrapping_add(twist.sequence),
                timestamp: (number as u32).wrapping_mul(960).wrapping_add(twist.timestamp),
            });
        }
    }

    /// Session 1 hears 2 for a hundred packets, with a twist from this number on.
    fn twisted(from: u64, twist: Twist) -> Ledger {
        let mut call = Self::new();
        call.sends(2, 0..100);
        call.hears(1, 2, 0..from.min(50), STRAIGHT);
        call.hears(1, 2, from..100, twist);
        call.ledger
    }
}

fn breaks(ledger: &Ledger) -> Vec<BreakKind> {
    ledger.continuity_breaks(Tolerance::default()).into_iter().map(|found| found.kind).collect()
}

#[test]
fn packet_that_never_came_is_missing_and_one_that_came_is_not() {
    let mut call = Call::new();
    call.sends(1, 0..10);
    call.hears(2, 1, (0..10).filter(|&number| number != 4), STRAIGHT);
    let missing = call.ledger.missing();
    let path = Path { receiver: 2, sender: 1, stream: 0 };
    assert_eq!(missing, [Packet { path, number: 4, sent_ns: 80 * MS }]);
}

#[test]
fn last_packets_are_missed_too() {
    let mut call = Call::new();
    call.sends(1, 0..10);
    call.hears(2, 1, 0..8, STRAIGHT);
    assert_eq!(call.ledger.missing().len(), 2);
}

#[test]
fn member_is_due_only_what_was_sent_while_it_was_there() {
    let mut call = Call::new();
    call.ledger.join(Member { session: 2, room: 10, from_ns: 40 * MS, until_ns: u64::MAX });
    call.ledger.leave(2, 100 * MS);
    call.sends(1, 0..10);
    let numbers: Vec<u64> = call.ledger.missing().iter().map(|packet| packet.number).collect();
    assert_eq!(numbers, [2, 3, 4]);
}

#[test]
fn alone_in_its_room_a_session_is_due_its_own_packets() {
    let mut call = Call::new();
    call.sends(3, 0..4);
    assert_eq!(call.ledger.missing().len(), 4);
    call.hears(3, 3, 0..4, STRAIGHT);
    assert_eq!(call.ledger.missing(), []);
    assert_eq!(call.ledger.misdelivered(), []);
}

#[test]
fn packet_of_another_room_or_of_a_stranger_is_misdelivered() {
    let mut call = Call::new();
    call.hears(1, 2, 0..1, STRAIGHT);
    assert_eq!(call.ledger.misdelivered(), []);
    call.hears(1, 3, 5..6, STRAIGHT);
    call.hears(2, 999, 6..7, STRAIGHT);
    let found: Vec<_> = call.ledger.misdelivered().iter().map(|a| (a.receiver, a.sender)).collect();
    assert_eq!(found, [(1, 3), (2, 999)]);
}

#[test]
fn packet_heard_again_is_found_each_time_but_the_first() {
    let mut call = Call::new();
    call.hears(1, 2, [5, 6, 5, 5].into_iter(), STRAIGHT);
    let again: Vec<u64> = call.ledger.twice().iter().map(|arrival| arrival.number).collect();
    assert_eq!(again, [5, 5]);
}

#[test]
fn session_that_hears_nothing_while_it_should_is_silent() {
    let mut call = Call::new();
    call.sends(1, 0..100);
    call.hears(2, 1, 0..50, STRAIGHT);
    assert_eq!(call.ledger.silent(0, 2_000 * MS), NOBODY);
    assert_eq!(call.ledger.silent(980 * MS, 2_000 * MS), NOBODY);
    assert_eq!(call.ledger.silent(1_000 * MS, 2_000 * MS), [2]);
}

#[test]
fn straight_stream_and_one_with_losses_on_one_node_do_not_break() {
    assert_eq!(breaks(&Call::twisted(50, STRAIGHT)), []);
    assert_eq!(breaks(&Call::twisted(60, STRAIGHT)), []);
}

#[test]
fn other_numbers_on_the_same_node_break() {
    let off = |twist| breaks(&Call::twisted(50, twist)).len();
    assert_eq!(off(Twist { sequence: 1, ..STRAIGHT }), 1);
    assert_eq!(off(Twist { sequence: u16::MAX, ..STRAIGHT }), 1);
    assert_eq!(off(Twist { timestamp: 1, ..STRAIGHT }), 1);
    assert_eq!(off(Twist { ssrc: 78, ..STRAIGHT }), 1);
}

#[test]
fn sequence_may_close_over_missing_packets_on_one_node_but_not_run_ahead() {
    let closed = Twist { sequence: 10u16.wrapping_neg(), ..STRAIGHT };
    assert_eq!(breaks(&Call::twisted(60, closed)), []);
    let repeated = Twist { sequence: 11u16.wrapping_neg(), ..STRAIGHT };
    assert_eq!(
        breaks(&Call::twisted(60, repeated)),
        [BreakKind::Sequence { sent: 11, received: 0 }]
    );
    let ahead = Twist { sequence: 1, ..STRAIGHT };
    assert_eq!(breaks(&Call::twisted(60, ahead)), [BreakKind::Sequence { sent: 11, received: 12 }]);
}

#[test]
fn at_a_switch_the_sequence_gap_is_the_loss_within_the_tolerance() {
    let moved = Twist { node: 101, ..STRAIGHT };
    let count = |sequence: i16| {
        breaks(&Call::twisted(80, Twist { sequence: sequence.cast_unsigned(), ..moved })).len()
    };
    assert_eq!([count(0), count(12), count(-12)], [0, 0, 0]);
    assert_eq!([count(13), count(-13)], [1, 1]);
}

#[test]
fn at_a_switch_no_sequence_number_comes_again() {
    let moved = Twist { node: 101, sequence: 3u16.wrapping_neg(), ..STRAIGHT };
    assert_eq!(breaks(&Call::twisted(53, moved)), []);
    let again = Twist { sequence: 4u16.wrapping_neg(), ..moved };
    assert_eq!(breaks(&Call::twisted(53, again)), [BreakKind::Sequence { sent: 4, received: 0 }]);
}

#[test]
fn at_a_switch_the_timestamp_follows_the_time_that_passed() {
    let count = |timestamp: i32| {
        let twist = Twist { node: 101, timestamp: timestamp.cast_unsigned(), ..STRAIGHT };
        breaks(&Call::twisted(53, twist)).len()
    };
    assert_eq!([count(3_840), count(-3_840)], [0, 0]);
    assert_eq!([count(3_841), count(-3_841)], [1, 1]);
}

#[test]
fn gap_runs_from_the_last_packet_of_the_old_node_to_the_first_of_the_new() {
    let ledger = Call::twisted(53, Twist { node: 101, ..STRAIGHT });
    let [switch] = ledger.switches()[..] else { panic!() };
    assert_eq!((switch.receiver, switch.from, switch.to, switch.stragglers), (1, 100, 101, 0));
    assert_eq!(switch.gap_ns(), 80 * MS);
}

#[test]
fn packets_of_the_old_node_after_the_switch_are_stragglers_and_much_later_a_switch_back() {
    let mut call = Call::new();
    let moved = Twist { node: 101, ..STRAIGHT };
    call.hears(1, 2, (0..10).chain(11..12), STRAIGHT);
    call.hears(1, 2, (10..11).chain(12..59), moved);
    let [switch] = call.ledger.switches()[..] else { panic!() };
    assert_eq!(switch.stragglers, 1);
    assert_eq!(switch.straggled_ns, Some(switch.first_ns + 20 * MS));
    call.hears(1, 2, 60..61, STRAIGHT);
    let back: Vec<_> =
        call.ledger.switches().iter().map(|switch| (switch.from, switch.to)).collect();
    assert_eq!(back, [(100, 101), (101, 100)]);
}

#[test]
fn control_gap_is_the_pause_across_a_moment() {
    let mut call = Call::new();
    call.hears(1, 2, (0..10).chain(13..20), STRAIGHT);
    let gaps = |at_ms: u64| {
        call.ledger.gaps_at(at_ms * MS).iter().map(|gap| gap.gap_ns / MS).collect::<Vec<_>>()
    };
    assert_eq!((gaps(50), gaps(200)), (vec![20], vec![80]));
    assert_eq!(gaps(1_000), NOBODY);
}

#[test]
fn call_on_two_nodes_is_split_once_it_lasts_longer_than_a_switch() {
    let split = |longest_ms| {
        let mut call = Call::new();
        let moved = Twist { node: 101, ..STRAIGHT };
        call.hears(1, 2, 0..50, STRAIGHT);
        call.hears(1, 2, 50..100, moved);
        call.hears(2, 1, 0..55, STRAIGHT);
        call.hears(2, 1, 55..100, moved);
        call.ledger.splits(Duration::from_millis(longest_ms))
    };
    // Receiver 1 hears the new node from 1,001 ms, receiver 2 the old one until 1,081 ms.
    assert_eq!(split(80), []);
    let [found] = split(79)[..] else { panic!() };
    assert_eq!((found.room, found.receivers, found.nodes), (10, (1, 2), (101, 100)));
    assert_eq!(found.lasted_ns, 80 * MS);
}

#[test]
fn death_excuses_from_forty_ms_before_it_until_the_flip_and_only_rooms_it_carried() {
    let mut call = Call::new();
    for sender in [1, 3] {
        call.sends(sender, 0..100);
    }
    let lost = 50..60;
    call.hears(2, 1, (0..100).filter(|number| !lost.contains(number)), STRAIGHT);
    call.hears(
        3,
        3,
        (0..100).filter(|number| !lost.contains(number)),
        Twist { node: 200, ..STRAIGHT },
    );
    // Packets 50..60 were sent from 1,000 to 1,180 ms.
    let death = Death { node: 100, died_ns: 1_060 * MS, flipped_ns: 1_160 * MS };
    let excuses = Excuses { deaths: vec![death], ..Excuses::default() };
    let account = call.ledger.account(&excuses);
    let faults: Vec<_> =
        account.lost_to_faults.iter().map(|packet| (packet.path.sender, packet.number)).collect();
    assert_eq!(faults, (51..58).map(|number| (1, number)).collect::<Vec<_>>());
    let lost: Vec<_> =
        account.lost.iter().map(|packet| (packet.path.sender, packet.number)).collect();
    let expected = [50, 58, 59]
        .map(|number| (1, number))
        .into_iter()
        .chain((50..60).map(|number| (3, number)));
    assert_eq!(lost, expected.collect::<Vec<_>>());
}

#[test]
fn relay_and_rung_excuse_exactly_the_numbers_they_name() {
    let mut call = Call::new();
    call.sends(1, 0..4);
    let path = Path { receiver: 2, sender: 1, stream: 0 };
    let excuses = Excuses {
        dropped_up: BTreeSet::from([(1, 0, 0)]),
        dropped_down: BTreeSet::from([(path, 1), (Path { receiver: 9, ..path }, 3)]),
        shed: BTreeSet::from([(path, 2), (Path { stream: 1, ..path }, 3)]),
        ..Excuses::default()
    };
    let account = call.ledger.account(&excuses);
    let numbers =
        |packets: &[Packet]| packets.iter().map(|packet| packet.number).collect::<Vec<_>>();
    assert_eq!(numbers(&account.lost_to_faults), [0, 1]);
    assert_eq!(numbers(&account.shed), [2]);
    assert_eq!(numbers(&account.lost), [3]);
}

#[test]
fn spread_takes_the_nearest_rank() {
    let spread = Spread::of_ns((1..=200).map(|ms| ms * MS).collect());
    assert_eq!(spread, Spread { p50: 100.0, p99: 198.0, max: 200.0 });
    assert_eq!(Spread::of_ns(vec![]), Spread::default());
}

#[test]
fn what_a_relay_keeps_going_up_excuses_all_receivers_and_going_down_its_own_lane() {
    use crate::Mark;
    use crate::relay::{Cause, Direction, Dropped};
    let mark = |number| Some(Mark { session: 1, number, sent_ns: 0, node: 0, stream: 2 });
    let dropped = |lane, direction, mark| Dropped { lane, direction, cause: Cause::Loss, mark };
    let mut excuses = Excuses::default();
    excuses.add_relay(&[
        dropped(1, Direction::Up, mark(5)),
        dropped(2, Direction::Down, mark(6)),
        dropped(2, Direction::Down, None),
    ]);
    assert_eq!(excuses.dropped_up, BTreeSet::from([(1, 2, 5)]));
    assert_eq!(
        excuses.dropped_down,
        BTreeSet::from([(Path { receiver: 2, sender: 1, stream: 2 }, 6)])
    );
}

#[test]
fn number_that_never_came_is_reckoned_from_the_last_that_did() {
    let mut call = Call::new();
    call.sends(1, 0..20);
    call.hears(2, 1, (0..10).filter(|&number| number != 8), STRAIGHT);
    let path = Path { receiver: 2, sender: 1, stream: 0 };
    let at = |ssrc, sequence| call.ledger.number_at(2, ssrc, sequence, 500 * MS);
    assert_eq!(at(STRAIGHT.ssrc, 9), Some((path, 9)));
    assert_eq!(at(STRAIGHT.ssrc, 8), Some((path, 8)));
    assert_eq!(at(STRAIGHT.ssrc, 12), Some((path, 12)));
    assert_eq!(at(STRAIGHT.ssrc + 1, 9), None);
    assert_eq!(at(STRAIGHT.ssrc, 40_000), None, "nothing came up to it");
    assert_eq!(call.ledger.number_at(2, STRAIGHT.ssrc, 9, 0), None, "nothing came yet");
}

#[test]
fn next_page_has_the_same_members_and_nothing_of_the_last() {
    let books = Books::default();
    *books.open() = Call::new().ledger;
    let sent =
        Sent { session: 1, stream: 0, number: 0, at_ns: 0, timestamp: 0, clock_rate: 48_000 };
    books.note(&mut vec![sent], &mut Vec::new());
    assert_eq!(books.turn().sent_count(), 1, "what is in the tray belongs to the page before");
    let next = books.open();
    assert_eq!((next.sent_count(), next.member(1).map(|member| member.room)), (0, Some(10)));
}

#[test]
fn what_is_sent_outside_the_page_is_due_to_nobody() {
    let mut call = Call::new();
    call.sends(1, 0..10);
    assert_eq!(call.ledger.missing().len(), 10);
    call.ledger.due_between(40 * MS, 120 * MS);
    let numbers: Vec<u64> = call.ledger.missing().iter().map(|packet| packet.number).collect();
    assert_eq!(numbers, [2, 3, 4, 5]);
}

#[test]
fn who_is_forgotten_is_missed_by_nobody() {
    let mut call = Call::new();
    call.sends(1, 0..3);
    call.hears(1, 2, 0..2, STRAIGHT);
    assert_eq!(call.ledger.receivers().collect::<Vec<_>>(), [2]);
    call.ledger.forget(1);
    assert_eq!(call.ledger.missing(), []);
    assert_eq!(call.ledger.receivers().collect::<Vec<_>>(), NOBODY);
    assert_eq!((call.ledger.arrived_count(), call.ledger.misdelivered()), (0, vec![]));
}
