//! Admission of connections near the limit.

use super::raw::{Answer, CLOSE, Raw};
use super::*;

const PING: &[u8] = &[1];

fn raw(connections_max: usize) -> Raw {
    Raw::start(Settings { connections_max, ..quiet() })
}

#[test]
fn connection_closed_by_its_first_packet_is_freed() {
    let mut raw = raw(100);
    for number in 0..10 {
        raw.knock(&[number; 8], &[], CLOSE);
    }
    assert!(raw.endpoint.is_idle());
    assert_eq!(raw.count(|counters| &counters.handshakes_failed), 10);
    assert_eq!(raw.count(|counters| &counters.connections), 0);
}

#[test]
fn closed_connection_counts_until_forgotten() {
    let mut raw = raw(1);
    let knock = |raw: &mut Raw, first: u8| {
        raw.knock(&[first; 8], &[], PING);
        let Answer::Retry { id, token } = raw.answer() else { panic!("let in without a proof") };
        raw.knock(&id, &token, PING);
        assert_eq!(raw.answer(), Answer::Initial);
    };
    knock(&mut raw, 1);
    assert_eq!(raw.count(|counters| &counters.connections), 1);
    raw.later(Duration::from_secs(5));
    assert_eq!(raw.count(|counters| &counters.connections), 0);
    assert!(!raw.endpoint.is_idle());
    raw.answer();

    raw.knock(&[2; 8], &[], PING);
    assert_eq!(raw.answer(), Answer::Initial);
    assert_eq!(raw.count(|counters| &counters.connections_refused), 1);
    raw.later(Duration::from_secs(60));
    assert!(raw.endpoint.is_idle());
    knock(&mut raw, 3);
    assert_eq!(raw.count(|counters| &counters.connections), 1);
}

#[test]
fn handshake_timeout_frees_the_connection() {
    let mut raw = Raw::start(Settings { handshake_within: Duration::from_secs(3), ..quiet() });
    raw.knock(&[1; 8], &[], PING);
    raw.later(Duration::from_millis(2_999));
    assert_eq!(raw.count(|counters| &counters.handshakes_failed), 0);
    assert_eq!(raw.count(|counters| &counters.connections), 1);
    raw.later(Duration::from_millis(1));
    assert_eq!(raw.count(|counters| &counters.handshakes_failed), 1);
    assert_eq!(raw.count(|counters| &counters.connections), 0);
    raw.later(Duration::from_secs(60));
    assert!(raw.endpoint.is_idle());
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
        raw.knock(&[9; 8], &[], PING);
        let Answer::Retry { id, token } = raw.answer() else { panic!("let in without a proof") };
        assert_eq!(raw.count(|counters| &counters.connections), held);
        raw.knock(&id, &token, PING);
        assert_eq!(raw.answer(), Answer::Initial);
        assert_eq!(raw.count(|counters| &counters.connections), held + 1);
    }
    assert_eq!(raw.count(|counters| &counters.connections_refused), 0);
    raw.knock(&[5; 8], &[], PING);
    assert_eq!(raw.count(|counters| &counters.connections_refused), 1);
}
