use super::*;

#[test]
fn refused_source_may_try_again_after_a_second() {
    let now = Instant::now();
    let source: SocketAddr = "10.0.0.1:4000".parse().unwrap();
    let mut first_packets = FirstPackets::default();
    assert!(first_packets.is_new(0, source, now));
    assert!(!first_packets.is_new(0, source, now));
    assert!(first_packets.is_new(1, source, now), "another listener");
    first_packets.finished(0, source, false, now);
    assert!(!first_packets.is_new(0, source, now + Duration::from_millis(999)));
    assert!(first_packets.is_new(0, source, now + Duration::from_millis(1_000)));
}

#[test]
fn remembered_sources_are_bounded() {
    let now = Instant::now();
    let mut first_packets = FirstPackets::default();
    let new = (0..5_000_u16)
        .filter(|port| first_packets.is_new(0, ([10, 0, 0, 1], *port).into(), now))
        .count();
    assert_eq!(new, KNOCKS_MAX);
    assert!(first_packets.is_new(0, ([10, 0, 0, 2], 1).into(), now + AGAIN_AFTER));
}
