use evenkeel_testkit::required;

use super::*;

const HARDWARE: [u8; 6] = [0x02, 0x00, 0x5e, 0x10, 0x20, 0x30];

#[test]
fn arp_announcement_is_a_request_for_itself() {
    let frame = frame("192.0.2.10".parse().unwrap(), HARDWARE);
    let expected = [
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0x00, 0x5e, 0x10, 0x20, 0x30, 0x08, 0x06, //
        0x00, 0x01, 0x08, 0x00, 0x06, 0x04, 0x00, 0x01, //
        0x02, 0x00, 0x5e, 0x10, 0x20, 0x30, 192, 0, 2, 10, //
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 192, 0, 2, 10,
    ];
    assert_eq!(frame, expected);
}

#[test]
fn probe_claims_no_address() {
    let probe = probe("192.0.2.10".parse().unwrap(), HARDWARE);
    assert_eq!(probe[20..22], [0, 1], "a request");
    assert_eq!(probe[28..32], [0; 4]);
    assert_eq!(probe[38..], [192, 0, 2, 10]);
}

/// A host verifies the sum over the message with its checksum: it is then all ones.
#[test]
fn advertisement_has_a_valid_checksum() {
    for address in ["2001:db8::10", "fe80::ffff:ffff:ffff:ffff"] {
        let address: Ipv6Addr = address.parse().unwrap();
        let frame = frame(address.into(), HARDWARE);
        assert_eq!(frame.len(), 14 + 40 + 32);
        assert_eq!(checksum(address, ALL_NODES, &frame[54..]), 0);
        assert_eq!(frame[58], 0x20, "override, not solicited");
    }
}

#[test]
fn announcements_repeat_for_five_seconds() {
    let since = Instant::now();
    let mut repetitions = Repetitions::from(since);
    let mut times = Vec::new();
    while let Some(next) = repetitions.next() {
        assert!(!repetitions.take(next - Duration::from_nanos(1)));
        assert!(repetitions.take(next));
        times.push(next - since);
    }
    assert_eq!(times, REPEATED_AFTER.map(Duration::from_millis));
    assert_eq!(times.last(), Some(&Duration::from_secs(5)));
    assert!(!repetitions.take(since + Duration::from_secs(60)));
}

#[test]
fn late_repetitions_wait_for_a_renewal() {
    let since = Instant::now();
    let mut repetitions = Repetitions::from(since);
    let last = since + WITHOUT_ORDER;
    while repetitions.next().is_some_and(|next| next < last) {
        assert!(repetitions.take(repetitions.next_without_order().unwrap()));
    }
    assert_eq!(repetitions.next_without_order(), Some(last));
    assert!(repetitions.take(last));
    assert_eq!(repetitions.next_without_order(), None);
    assert!(repetitions.take(since + Duration::from_secs(1)), "with the next renewal");
}

#[test]
fn missed_repetitions_are_not_made_up_for() {
    let since = Instant::now();
    let mut repetitions = Repetitions::from(since);
    assert!(repetitions.take(since + Duration::from_secs(1)));
    assert!(!repetitions.take(since + Duration::from_secs(1)));
    assert_eq!(repetitions.next(), Some(since + Duration::from_millis(1_500)));
}

#[test]
fn claim_is_read_from_a_packet() {
    let address = Ipv4Addr::new(192, 0, 2, 10);
    let mut packet = frame(address.into(), HARDWARE);
    let expected = ArpClaim { address, hardware: HARDWARE, interface: 7 };
    assert_eq!(claim(&packet, 7), Some(expected));
    assert_eq!(claim(&packet[..31], 7), None);
    // Another kind of network address.
    packet[17] = 1;
    assert_eq!(claim(&packet, 7), None);
}

#[required(RawSockets)]
#[test]
fn probes_wait_for_the_previous_owner() {
    let mut claims = Claims::open().unwrap();
    let now = Instant::now();
    claims.begin(now);
    assert!(!claims.take_probe(now + PROBED_AFTER - Duration::from_nanos(1)));
    let first = now + PROBED_AFTER;
    assert!(claims.take_probe(first));
    assert!(!claims.take_probe(first + PROBED_EVERY - Duration::from_nanos(1)));
    assert!(claims.take_probe(first + PROBED_EVERY));
    claims.begin(first + PROBED_EVERY);
    assert!(!claims.take_probe(first + PROBED_EVERY));
}
