//! Admission of connections near the limit.

use super::super::connections::ClientNetwork;
use super::raw::{Answer, CLOSE, Raw};
use super::*;

pub(super) const PING: &[u8] = &[1];

const OTHER_HOST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

fn raw(connections_max: usize) -> Raw {
    Raw::start(QuicSettings { connections_max, ..quiet() })
}

/// Connects with a validated address.
fn knock_validated(raw: &mut Raw, first: u8) {
    raw.knock(&[first; 8], &[], PING);
    let Answer::Retry { id, token } = raw.answer() else { panic!("let in without a proof") };
    raw.knock(&id, &token, PING);
}

#[test]
fn connection_closed_by_its_first_packet_is_freed() {
    let mut raw = raw(100);
    for number in 0..10 {
        raw.knock(&[number; 8], &[], CLOSE);
    }
    assert!(raw.endpoint.connections.count == 0);
    assert_eq!(raw.count(|counters| &counters.handshakes_failed), 10);
    assert_eq!(raw.count(|counters| &counters.connections), 0);
}

#[test]
fn closed_connection_counts_until_it_gives_way() {
    let mut raw = raw(1);
    let knock = |raw: &mut Raw, first: u8| {
        knock_validated(raw, first);
        assert_eq!(raw.answer(), Answer::Initial);
    };
    knock(&mut raw, 1);
    assert_eq!(raw.count(|counters| &counters.connections), 1);
    raw.later(Duration::from_secs(5));
    assert_eq!(raw.count(|counters| &counters.connections), 0);
    assert!(raw.endpoint.connections.count > 0);
    raw.answer();

    raw.knock(&[2; 8], &[], PING);
    assert!(matches!(raw.answer(), Answer::Retry { .. }), "nothing gives way to a forged source");
    assert_eq!(raw.count(|counters| &counters.displaced), 0);
    knock(&mut raw, 3);
    assert_eq!(raw.count(|counters| &counters.displaced), 1);
    assert_eq!(raw.count(|counters| &counters.connections), 1);
    assert!(raw.endpoint.connections.count == 1);
    raw.later(Duration::from_secs(5));
    raw.later(Duration::from_secs(60));
    assert!(raw.endpoint.connections.count == 0, "the handle was used twice");
}

#[test]
fn few_sources_cannot_hold_all_places() {
    let settings = QuicSettings { connections_max: 8, connections_per_source: 2, ..quiet() };
    let mut raw = Raw::start(settings);
    let mut number = 0;
    let of = |raw: &Raw, host: u8| {
        let source = ClientNetwork::of(([127, 0, 0, host], 0).into());
        raw.endpoint.connections.sources.of(source).connections
    };
    let mut connect = |raw: &mut Raw, host: u8| {
        raw.move_to(Ipv4Addr::new(127, 0, 0, host));
        number += 1;
        raw.knock(&[number; 8], &[], PING);
        if let Answer::Retry { id, token } = raw.answer() {
            raw.knock(&id, &token, PING);
            assert_eq!(raw.answer(), Answer::Initial);
        }
    };
    for host in [2, 3, 4, 5, 2, 3, 4, 5] {
        connect(&mut raw, host);
    }
    assert_eq!([2, 3, 4, 5].map(|host| of(&raw, host)), [2; 4]);
    connect(&mut raw, 9);
    assert_eq!([2, 3, 4, 5, 9].map(|host| of(&raw, host)), [1, 2, 2, 2, 1], "the oldest of all");
    for host in [2, 3, 4, 2, 5, 3] {
        connect(&mut raw, host);
        assert_eq!(of(&raw, 9), 1, "others have more");
    }
    assert_eq!(raw.count(|counters| &counters.connections), 8);
    assert_eq!(raw.count(|counters| &counters.connections_refused), 0);
}

#[test]
fn handshake_timeout_frees_the_connection() {
    let mut raw = Raw::start(QuicSettings { handshake_within: Duration::from_secs(3), ..quiet() });
    raw.knock(&[1; 8], &[], PING);
    raw.later(Duration::from_millis(2_999));
    assert_eq!(raw.count(|counters| &counters.handshakes_failed), 0);
    assert_eq!(raw.count(|counters| &counters.connections), 1);
    raw.later(Duration::from_millis(1));
    assert_eq!(raw.count(|counters| &counters.handshakes_failed), 1);
    assert_eq!(raw.count(|counters| &counters.connections), 0);
    raw.later(Duration::from_secs(60));
    assert!(raw.endpoint.connections.count == 0);
    assert_eq!(raw.count(|counters| &counters.handshakes_failed), 1);
}

#[test]
fn address_validation_starts_at_half_of_the_limit() {
    let mut raw = raw(4);
    for number in 1..=2 {
        raw.knock(&[number; 8], &[], PING);
        assert_eq!(raw.answer(), Answer::Initial);
    }
    for held in 2..4 {
        assert_eq!(raw.count(|counters| &counters.connections), held);
        knock_validated(&mut raw, 9);
        assert_eq!(raw.answer(), Answer::Initial);
        assert_eq!(raw.count(|counters| &counters.connections), held + 1);
    }
    assert_eq!(raw.count(|counters| &counters.connections_refused), 0);
}

#[test]
fn source_limit_leaves_room_for_another_host() {
    let mut raw = Raw::start(QuicSettings { connections_per_source: 2, ..quiet() });
    raw.knock(&[1; 8], &[], PING);
    assert_eq!(raw.answer(), Answer::Initial);
    knock_validated(&mut raw, 2);
    assert_eq!(raw.answer(), Answer::Initial);
    raw.knock(&[3; 8], &[], PING);
    assert_eq!(raw.answer(), Answer::Initial);
    assert_eq!(raw.count(|counters| &counters.source_refused), 1);
    assert_eq!(raw.count(|counters| &counters.connections), 2);

    raw.move_to(OTHER_HOST);
    raw.knock(&[4; 8], &[], PING);
    assert_eq!(raw.answer(), Answer::Initial);
    assert_eq!(raw.count(|counters| &counters.connections), 3);
    // The handshakes time out, and quinn forgets their connections.
    raw.later(Duration::from_secs(5));
    raw.later(Duration::from_secs(60));
    raw.move_to(Ipv4Addr::LOCALHOST);
    raw.knock(&[5; 8], &[], PING);
    assert_eq!(raw.count(|counters| &counters.connections), 1, "the source may connect again");
}

#[test]
fn forged_handshakes_leave_room_for_their_source() {
    let mut raw = Raw::start(quiet());
    for number in 0..16 {
        raw.knock(&[number; 8], &[], PING);
        assert_eq!(raw.answer(), Answer::Initial);
    }
    for number in 16..32 {
        raw.knock(&[number; 8], &[], PING);
        assert!(matches!(raw.answer(), Answer::Retry { .. }));
    }
    assert_eq!(raw.count(|counters| &counters.connections), 16);
    assert_eq!(raw.count(|counters| &counters.retries), 16);
    knock_validated(&mut raw, 32);
    assert_eq!(raw.answer(), Answer::Initial);
    assert_eq!(raw.count(|counters| &counters.connections), 17);
}

#[test]
fn handshakes_beyond_the_source_limit_wait() {
    let mut raw = Raw::start(QuicSettings { handshakes_per_source: 16, ..quiet() });
    for number in 0..16 {
        raw.knock(&[number; 8], &[], PING);
        assert_eq!(raw.answer(), Answer::Initial);
    }
    raw.knock(&[16; 8], &[], PING);
    let Answer::Retry { id, token } = raw.answer() else { panic!("let in without a proof") };
    raw.knock(&id, &token, PING);
    assert_eq!(raw.count(|counters| &counters.handshakes_deferred), 1);
    assert_eq!(raw.count(|counters| &counters.connections), 16);
    raw.later(Duration::from_secs(5));
    raw.later(Duration::from_secs(60));
    assert!(raw.endpoint.connections.count == 0);
    // The client repeats its packet.
    raw.knock(&id, &token, PING);
    assert_eq!(raw.count(|counters| &counters.connections), 1);
}
