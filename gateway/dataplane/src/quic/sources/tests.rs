use super::*;

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
    assert_eq!(sources.held(one), SourceConnections { connections: 2, handshakes: 1 });
    assert_eq!(sources.held(source("192.0.2.2")), SourceConnections::default());
    sources.end(one);
    sources.end_handshake(one);
    sources.end(one);
    assert_eq!((sources.held(one), sources.0.len()), (SourceConnections::default(), 0));
}
