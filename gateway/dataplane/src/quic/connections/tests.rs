use std::time::Duration;

use super::*;

fn ms(number: u32) -> Duration {
    Duration::from_millis(number.into())
}

#[test]
fn timers_are_taken_once_in_order() {
    let (mut table, start) = (ConnectionTimers::default(), Instant::now());
    for (number, due) in [(3, 30), (0, 10), (7, 20)] {
        table.note(number, start + ms(due));
    }
    assert_eq!(table.next_due(), Some(start + ms(10)));
    assert_eq!(table.take(start + ms(9)), None);
    let mut taken = || table.take(start + ms(20));
    assert_eq!(
        [taken(), taken(), taken()],
        [Some(0), Some(7), None].map(|it| it.map(ConnectionHandle))
    );
    assert_eq!(table.next_due(), Some(start + ms(30)));
}

#[test]
fn earlier_time_replaces_later_one() {
    let (mut table, start) = (ConnectionTimers::default(), Instant::now());
    table.note(1, start + ms(50));
    table.note(1, start + ms(10));
    table.note(1, start + ms(80));
    assert_eq!(table.take(start + ms(10)), Some(ConnectionHandle(1)));
    assert_eq!(table.next_due(), None);
    assert_eq!(table.take(start + ms(100)), None);
}

#[test]
fn reused_number_has_no_old_timer() {
    let (mut table, start) = (ConnectionTimers::default(), Instant::now());
    table.note(1, start + ms(10));
    table.forget(1);
    assert_eq!(table.next_due(), None);
    table.note(1, start + ms(20));
    assert_eq!(table.take(start + ms(15)), None);
    assert_eq!(table.next_due(), Some(start + ms(20)));
    assert_eq!(table.take(start + ms(20)), Some(ConnectionHandle(1)));
}

#[test]
fn earlier_and_earlier_times_use_bounded_memory() {
    let (mut table, start) = (ConnectionTimers::default(), Instant::now());
    for round in 0..1_000 {
        for number in 0..10 {
            table.note(number, start + ms(10_000 - round));
        }
        assert!(table.entries.len() <= ENTRIES * 10);
    }
    for _ in 0..10 {
        assert!(table.take(start + ms(9_001)).is_some());
    }
    assert_eq!(table.next_due(), None);
}

fn source(address: &str) -> ClientNetwork {
    ClientNetwork::of(SocketAddr::new(address.parse().unwrap(), 1))
}

#[test]
fn source_is_an_ipv4_address_or_an_ipv6_56() {
    let same = |one, other| source(one) == source(other);
    assert!(!same("192.0.2.1", "192.0.2.2"));
    assert!(same("192.0.2.1", "::ffff:192.0.2.1"));
    assert!(same("2001:db8:1:2ff::1", "2001:db8:1:200::2"));
    assert!(!same("2001:db8:1:2ff::1", "2001:db8:1:300::1"));
}

#[test]
fn source_without_connections_is_forgotten() {
    let (mut sources, one) = (Sources::default(), source("192.0.2.1"));
    sources.begin(one);
    sources.begin(one);
    sources.end_handshake(one);
    assert_eq!(sources.of(one), SourceConnections { connections: 2, handshakes: 1 });
    assert_eq!(sources.of(source("192.0.2.2")), SourceConnections::default());
    sources.end(one);
    sources.end_handshake(one);
    sources.end(one);
    assert_eq!((sources.of(one), sources.0.len()), (SourceConnections::default(), 0));
}
