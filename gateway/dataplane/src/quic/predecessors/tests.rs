use super::super::certificate::EndpointIdentity;
use super::*;

fn session(slot: u32, process: u8) -> CarriedSession {
    CarriedSession { home: Home { worker: 1, slot, generation: 3 }, flow: 1 << 61, process }
}

fn link() -> OwnedFd {
    ProcessLink::pair().unwrap().1
}

fn read(connections: &HandedConnections, bytes: &[u8]) -> Option<HandedConnections> {
    let links = connections.links().map(|link| link.try_clone_to_owned().unwrap());
    HandedConnections::decode(bytes, links.collect())
}

fn adopted(connections: HandedConnections, identity: &EndpointIdentity) -> Predecessors {
    connections.adopt(&identity.connection_id_keys(), identity.process()).0
}

fn id_of(identity: &EndpointIdentity) -> ConnectionId {
    identity.connection_id_keys().of_process(identity.process()).generate_cid()
}

fn numbers(connections: &HandedConnections) -> Vec<u8> {
    connections.processes.iter().map(|(process, _)| *process).collect()
}

#[test]
fn connections_are_read_as_written() {
    let sessions = vec![session(70_000, 4), session(5, 255)];
    let none = Predecessors::default();
    let connections = HandedConnections::new(4, link(), &none, sessions.clone()).unwrap();
    let bytes = connections.encode();
    let came = read(&connections, &bytes).unwrap();
    assert_eq!((numbers(&came), came.sessions), (vec![4], sessions));
    for unreadable in [&bytes[..bytes.len() - 1], &[LAYOUT + 1, 0], &[LAYOUT, 0], &[LAYOUT], &[]] {
        assert!(read(&connections, unreadable).is_none(), "{unreadable:?}");
    }
}

#[test]
fn oldest_predecessor_is_left_out() {
    let mut identity = EndpointIdentity::of_secret(b"secret");
    let mut predecessors = Predecessors::default();
    for process in 0..6 {
        let connections = HandedConnections::new(process, link(), &predecessors, vec![]).unwrap();
        identity = identity.successor();
        predecessors = adopted(connections, &identity);
    }
    let processes: Vec<u8> = predecessors.all.iter().map(|it| it.process).collect();
    assert_eq!(processes, [5, 4, 3, 2]);
}

/// A packet with a long header of this first byte, with a token of this length.
fn long(first: u8, id: &[u8], token: u8) -> Vec<u8> {
    [&[first, 0, 0, 0, 1, id.len() as u8][..], id, &[3, 1, 2, 3, token], &[0; 40]].concat()
}

#[test]
fn datagram_goes_to_the_issuer_of_its_id() {
    let first = EndpointIdentity::of_secret(b"secret");
    let second = first.successor();
    let none = Predecessors::default();
    let connections = HandedConnections::new(0, link(), &none, vec![]).unwrap();
    let predecessors = adopted(connections, &second);
    let issuer = |datagram: &[u8]| predecessors.issuer(datagram).map(|it| it.process);
    let ids = [&first, &second, &second.successor()].map(id_of);
    for (number, id) in ids.iter().enumerate() {
        let expected = (number == 0).then_some(0);
        let short = [&[0x40][..], &id[..], &[9; 30]].concat();
        for datagram in [short, long(0xe0, id, 0), long(0xc0, id, 0)] {
            assert_eq!(issuer(&datagram), expected, "{datagram:?}");
            for length in 0..9 {
                assert_eq!(issuer(&datagram[..length]), None);
            }
        }
    }
    // This ID is that of a Retry packet.
    assert_eq!(issuer(&long(0xc0, &ids[0], 1)), None);
    assert_eq!(issuer(&long(0xc0, &ids[0][..7], 0)), None);
}

#[test]
fn ids_of_the_first_process_are_as_before() {
    // A gateway of an earlier version knows only this key.
    let prk = ::ring::hkdf::Salt::new(::ring::hkdf::HKDF_SHA256, b"evenkeel quic");
    let secret = ::ring::digest::digest(&::ring::digest::SHA256, b"secret");
    let mut key = [0; 32];
    let info: [&[u8]; 1] = [b"connection ids"];
    let prk = prk.extract(secret.as_ref());
    prk.expand(&info, ::ring::hkdf::HKDF_SHA256).unwrap().fill(&mut key).unwrap();
    let earlier = u64::from_be_bytes(*key.first_chunk().unwrap());
    let earlier = HashedConnectionIdGenerator::from_key(earlier);
    let id = id_of(&EndpointIdentity::of_secret(b"secret"));
    assert!(earlier.validate(&id).is_ok());
}
