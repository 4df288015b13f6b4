use super::*;
use crate::address::announce;

const HARDWARE: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];

#[test]
fn claim_is_read_from_a_packet() {
    let address = Ipv4Addr::new(192, 0, 2, 10);
    let mut packet = announce::frame(address.into(), HARDWARE);
    let expected = ArpClaim { address, hardware: HARDWARE, interface: 7 };
    assert_eq!(claim(&packet, 7), Some(expected));
    assert_eq!(claim(&packet[..31], 7), None);
    // Another kind of network address.
    packet[17] = 1;
    assert_eq!(claim(&packet, 7), None);
}

#[test]
fn probes_wait_for_the_previous_owner() {
    let Ok(mut claims) = Claims::open() else {
        eprintln!("probes_wait_for_the_previous_owner skipped: needs CAP_NET_RAW");
        return;
    };
    let now = Instant::now();
    claims.begin(now);
    assert!(!claims.take_probe(now + FIRST_AFTER - Duration::from_nanos(1)));
    let first = now + FIRST_AFTER;
    assert!(claims.take_probe(first));
    assert!(!claims.take_probe(first + INTERVAL - Duration::from_nanos(1)));
    assert!(claims.take_probe(first + INTERVAL));
    claims.begin(first + INTERVAL);
    assert!(!claims.take_probe(first + INTERVAL));
}
