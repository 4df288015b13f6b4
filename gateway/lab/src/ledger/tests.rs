use super::*;

const MS: u64 = 1_000_000;
const NOBODY: [u64; 0] = [];

/// A call of sessions 1 and 2 in room 10, and session 3 alone in room 11; voice every 20 ms from time 0.
struct Call {
    ledger: PacketLedger,
}

/// A deviation from perfect delivery.
#[derive(Clone, Copy)]
struct Deviation {
    node: u32,
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
}

const STRAIGHT: Deviation = Deviation { node: 100, ssrc: 77, sequence: 0, timestamp: 0 };

impl Call {
    fn new() -> Self {
        let mut ledger = PacketLedger::default();
        for (session, room) in [(1, 10), (2, 10), (3, 11)] {
            ledger.join(RoomParticipant { session, room, from_ns: 0, until_ns: u64::MAX });
        }
        Self { ledger }
    }

    fn sends(&mut self, session: u64, numbers: impl Iterator<Item = u64>) {
        for number in numbers {
            let timestamp = u32::try_from(number).unwrap() * 960;
            let at_ns = number * 20 * MS;
            self.ledger.sent(SentPacket {
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
        twist: Deviation,
    ) {
        for number in numbers {
            self.ledger.arrived(ReceivedPacket {
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

    /// Session 1 receives 100 packets of session 2, with a deviation from this number on.
    fn twisted(from: u64, twist: Deviation) -> PacketLedger {
        let mut call = Self::new();
        call.sends(2, 0..100);
        call.hears(1, 2, 0..from.min(50), STRAIGHT);
        call.hears(1, 2, from..100, twist);
        call.ledger
    }
}

fn breaks(ledger: &PacketLedger) -> Vec<BreakKind> {
    ledger.continuity_breaks().into_iter().map(|found| found.kind).collect()
}

#[test]
fn only_undelivered_packets_are_missing() {
    let mut call = Call::new();
    call.sends(1, 0..10);
    call.hears(2, 1, (0..10).filter(|&number| number != 4), STRAIGHT);
    let missing = call.ledger.missing();
    let path = StreamPath { receiver: 2, sender: 1, stream: 0 };
    assert_eq!(missing, [DuePacket { path, number: 4, sent_ns: 80 * MS }]);
}

#[test]
fn last_packets_are_missed_too() {
    let mut call = Call::new();
    call.sends(1, 0..10);
    call.hears(2, 1, 0..8, STRAIGHT);
    assert_eq!(call.ledger.missing().len(), 2);
}

#[test]
fn packets_are_due_to_present_members() {
    let mut call = Call::new();
    call.ledger.join(RoomParticipant {
        session: 2,
        room: 10,
        from_ns: 40 * MS,
        until_ns: 100 * MS,
    });
    call.sends(1, 0..10);
    let numbers: Vec<u64> = call.ledger.missing().iter().map(|packet| packet.number).collect();
    assert_eq!(numbers, [2, 3, 4]);
}

#[test]
fn lone_session_is_due_its_own_packets() {
    let mut call = Call::new();
    call.sends(3, 0..4);
    assert_eq!(call.ledger.missing().len(), 4);
    call.hears(3, 3, 0..4, STRAIGHT);
    assert_eq!(call.ledger.missing(), []);
    assert_eq!(call.ledger.misdelivered(), []);
}

#[test]
fn echoed_packets_are_due_to_their_sender() {
    let mut call = Call::new();
    call.ledger.expect_echoes();
    call.sends(1, 0..4);
    call.hears(1, 1, 0..3, STRAIGHT);
    let path = StreamPath { receiver: 1, sender: 1, stream: 0 };
    assert_eq!(call.ledger.missing(), [DuePacket { path, number: 3, sent_ns: 60 * MS }]);
    assert_eq!(call.ledger.receivers().collect::<Vec<_>>(), [1]);
    call.ledger = call.ledger.next_page();
    call.sends(2, 4..5);
    assert_eq!(call.ledger.receivers().collect::<Vec<_>>(), [2]);
}

#[test]
fn foreign_packet_is_misdelivered() {
    let mut call = Call::new();
    call.hears(1, 2, 0..1, STRAIGHT);
    assert_eq!(call.ledger.misdelivered(), []);
    call.hears(1, 3, 5..6, STRAIGHT);
    call.hears(2, 999, 6..7, STRAIGHT);
    let found: Vec<_> = call.ledger.misdelivered().iter().map(|a| (a.receiver, a.sender)).collect();
    assert_eq!(found, [(1, 3), (2, 999)]);
}

#[test]
fn duplicates_are_found() {
    let mut call = Call::new();
    call.hears(1, 2, [5, 6, 5, 5].into_iter(), STRAIGHT);
    let again: Vec<u64> = call.ledger.twice().iter().map(|arrival| arrival.number).collect();
    assert_eq!(again, [5, 5]);
}

#[test]
fn session_without_due_packets_is_silent() {
    let mut call = Call::new();
    call.sends(1, 0..100);
    call.hears(2, 1, 0..50, STRAIGHT);
    assert_eq!(call.ledger.silent(0, 2_000 * MS), NOBODY);
    assert_eq!(call.ledger.silent(980 * MS, 2_000 * MS), NOBODY);
    assert_eq!(call.ledger.silent(1_000 * MS, 2_000 * MS), [2]);
}

#[test]
fn losses_on_one_node_are_no_break() {
    assert_eq!(breaks(&Call::twisted(50, STRAIGHT)), []);
    assert_eq!(breaks(&Call::twisted(60, STRAIGHT)), []);
}

#[test]
fn other_numbers_on_the_same_node_break() {
    let off = |twist| breaks(&Call::twisted(50, twist)).len();
    assert_eq!(off(Deviation { sequence: 1, ..STRAIGHT }), 1);
    assert_eq!(off(Deviation { sequence: u16::MAX, ..STRAIGHT }), 1);
    assert_eq!(off(Deviation { timestamp: 1, ..STRAIGHT }), 1);
    assert_eq!(off(Deviation { ssrc: 78, ..STRAIGHT }), 1);
}

#[test]
fn sequence_may_close_gaps_but_not_run_ahead() {
    let closed = Deviation { sequence: 10u16.wrapping_neg(), ..STRAIGHT };
    assert_eq!(breaks(&Call::twisted(60, closed)), []);
    let repeated = Deviation { sequence: 11u16.wrapping_neg(), ..STRAIGHT };
    assert_eq!(
        breaks(&Call::twisted(60, repeated)),
        [BreakKind::Sequence { sent: 11, received: 0 }]
    );
    let ahead = Deviation { sequence: 1, ..STRAIGHT };
    assert_eq!(breaks(&Call::twisted(60, ahead)), [BreakKind::Sequence { sent: 11, received: 12 }]);
}

#[test]
fn switch_gap_equals_loss_within_tolerance() {
    let moved = Deviation { node: 101, ..STRAIGHT };
    let count = |sequence: i16| {
        breaks(&Call::twisted(80, Deviation { sequence: sequence.cast_unsigned(), ..moved })).len()
    };
    assert_eq!([count(0), count(12), count(-12)], [0, 0, 0]);
    assert_eq!([count(13), count(-13)], [1, 1]);
}

#[test]
fn switch_repeats_no_sequence_number() {
    let moved = Deviation { node: 101, sequence: 3u16.wrapping_neg(), ..STRAIGHT };
    assert_eq!(breaks(&Call::twisted(53, moved)), []);
    let again = Deviation { sequence: 4u16.wrapping_neg(), ..moved };
    assert_eq!(breaks(&Call::twisted(53, again)), [BreakKind::Sequence { sent: 4, received: 0 }]);
}

#[test]
fn switch_timestamp_follows_elapsed_time() {
    let count = |timestamp: i32| {
        let twist = Deviation { node: 101, timestamp: timestamp.cast_unsigned(), ..STRAIGHT };
        breaks(&Call::twisted(53, twist)).len()
    };
    assert_eq!([count(3_840), count(-3_840)], [0, 0]);
    assert_eq!([count(3_841), count(-3_841)], [1, 1]);
}

#[test]
fn gap_spans_the_change_of_node() {
    let ledger = Call::twisted(53, Deviation { node: 101, ..STRAIGHT });
    let [switch] = ledger.switches()[..] else { panic!() };
    assert_eq!((switch.receiver, switch.from, switch.to, switch.stragglers), (1, 100, 101, 0));
    assert_eq!(switch.gap_ns(), 80 * MS);
}

#[test]
fn late_packets_are_stragglers_or_a_switch_back() {
    let mut call = Call::new();
    let moved = Deviation { node: 101, ..STRAIGHT };
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
fn arrivals_are_those_of_voice() {
    let mut call = Call::new();
    call.hears(1, 2, [0, 3].into_iter(), STRAIGHT);
    let voice = call.ledger.arrivals_at(1);
    assert_eq!(voice, [(MS, 100), (61 * MS, 100)]);
    let video = ReceivedPacket { stream: 1, at_ns: 30 * MS, ..*call.ledger.heard_in_order(1)[0] };
    call.ledger.arrived(video);
    assert_eq!((call.ledger.arrivals_at(1), call.ledger.arrived_at(1)), (voice, 3));
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
fn call_on_two_nodes_is_split_after_a_switch() {
    let split = |longest_ms| {
        let mut call = Call::new();
        let moved = Deviation { node: 101, ..STRAIGHT };
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
fn death_excuses_its_rooms_until_failover() {
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
        Deviation { node: 200, ..STRAIGHT },
    );
    // Packets 50..60 were sent from 1,000 to 1,180 ms.
    let death = Death { node: 100, died_ns: 1_060 * MS, flipped_ns: 1_160 * MS };
    let excuses = ExcusedLosses { deaths: vec![death], ..ExcusedLosses::default() };
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
fn relay_and_degradation_excuse_exact_numbers() {
    let mut call = Call::new();
    call.sends(1, 0..4);
    let path = StreamPath { receiver: 2, sender: 1, stream: 0 };
    let excuses = ExcusedLosses {
        dropped_up: BTreeSet::from([(1, 0, 0)]),
        dropped_down: BTreeSet::from([(path, 1), (StreamPath { receiver: 9, ..path }, 3)]),
        shed: BTreeSet::from([(path, 2), (StreamPath { stream: 1, ..path }, 3)]),
        ..ExcusedLosses::default()
    };
    let account = call.ledger.account(&excuses);
    let numbers =
        |packets: &[DuePacket]| packets.iter().map(|packet| packet.number).collect::<Vec<_>>();
    assert_eq!(numbers(&account.lost_to_faults), [0, 1]);
    assert_eq!(numbers(&account.shed), [2]);
    assert_eq!(numbers(&account.lost), [3]);
}

#[test]
fn spread_takes_the_nearest_rank() {
    let spread = GapSpread::of_ns((1..=200).map(|ms| ms * MS).collect());
    assert_eq!(spread, GapSpread { p50: 100.0, p99: 198.0, max: 200.0 });
    assert_eq!(GapSpread::of_ns(vec![]), GapSpread::default());
}

#[test]
fn relay_drops_excuse_by_direction() {
    use crate::TestHeader;
    use crate::links::ImpairmentCause;
    use crate::relay::{Direction, RelayDrop};
    let mark = |number| Some(TestHeader { session: 1, number, sent_ns: 0, node: 0, stream: 2 });
    let dropped =
        |lane, direction, mark| RelayDrop { lane, direction, cause: ImpairmentCause::Loss, mark };
    let mut excuses = ExcusedLosses::default();
    excuses.add_relay(&[
        dropped(1, Direction::Up, mark(5)),
        dropped(2, Direction::Down, mark(6)),
        dropped(2, Direction::Down, None),
    ]);
    assert_eq!(excuses.dropped_up, BTreeSet::from([(1, 2, 5)]));
    assert_eq!(
        excuses.dropped_down,
        BTreeSet::from([(StreamPath { receiver: 2, sender: 1, stream: 2 }, 6)])
    );
}

#[test]
fn lost_number_is_extrapolated() {
    let mut call = Call::new();
    call.sends(1, 0..20);
    call.hears(2, 1, (0..10).filter(|&number| number != 8), STRAIGHT);
    let path = StreamPath { receiver: 2, sender: 1, stream: 0 };
    let at = |ssrc, sequence| call.ledger.find_packet(2, ssrc, sequence, 500 * MS);
    assert_eq!(at(STRAIGHT.ssrc, 9), Some((path, 9)));
    assert_eq!(at(STRAIGHT.ssrc, 8), Some((path, 8)));
    assert_eq!(at(STRAIGHT.ssrc, 12), Some((path, 12)));
    assert_eq!(at(STRAIGHT.ssrc + 1, 9), None);
    assert_eq!(at(STRAIGHT.ssrc, 40_000), None, "no arrival before it");
    assert_eq!(call.ledger.find_packet(2, STRAIGHT.ssrc, 9, 0), None, "no arrival yet");
}

#[test]
fn next_window_keeps_members_only() {
    let books = Books::default();
    *books.open() = Call::new().ledger;
    let sent =
        SentPacket { session: 1, stream: 0, number: 0, at_ns: 0, timestamp: 0, clock_rate: 48_000 };
    books.note(&mut vec![sent], &mut Vec::new());
    assert_eq!(books.turn().sent_count(), 1, "the buffer belongs to the earlier window");
    let next = books.open();
    assert_eq!((next.sent_count(), next.member(1).map(|member| member.room)), (0, Some(10)));
}

#[test]
fn packets_outside_the_window_are_not_due() {
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
