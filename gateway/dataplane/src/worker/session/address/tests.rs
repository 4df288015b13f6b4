use super::*;

#[test]
fn last_128_checks_are_remembered() {
    let mut checks = Checks::default();
    let mut note = |transaction: u64, source: u64| {
        checks.note(CheckHash(transaction << CheckHash::SOURCE_BITS | source))
    };
    for transaction in 0..128 {
        assert_eq!(note(transaction, 1), CheckReceipt::Never);
    }
    assert_eq!(note(0, 1), CheckReceipt::Here);
    assert_eq!(note(0, 2), CheckReceipt::Elsewhere);
    assert_eq!(note(128, 1), CheckReceipt::Never);
    assert_eq!(note(1, 2), CheckReceipt::Elsewhere);
    assert_eq!(note(0, 2), CheckReceipt::Never, "forgotten");
}

fn source(port: u16) -> SourceKey {
    SourceKey { listener: 0, address: ([10, 0, 0, 1], port).into() }
}

#[test]
fn check_hash_depends_on_transaction_and_source() {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; 16]);
    let hash = |id, source| CheckHash::new(&key, stun::Transaction([id; 12]), source);
    let one = hash(1, source(1));
    assert_eq!(one, hash(1, source(1)));
    let elsewhere = SourceKey { listener: 1, ..source(1) };
    for other in [hash(1, source(2)), hash(1, elsewhere)] {
        assert!(one != other && one.has_transaction_of(other));
    }
    assert!(!one.has_transaction_of(hash(2, source(1))));
}

#[test]
fn checks_keep_the_key_of_their_session() {
    let (mut checks, keys) = (Checks::default(), RandomState::new());
    let home = Home { worker: 0, slot: 1, generation: 1 };
    let transaction = stun::Transaction([5; 12]);
    assert_eq!(checks.remember(transaction, source(1), &keys, home), CheckReceipt::Never);
    let bytes = rmp_serde::to_vec_named(&checks).unwrap();
    let mut restored: Checks = rmp_serde::from_slice(&bytes).unwrap();
    let others = RandomState::new();
    for (port, seen) in [(1, CheckReceipt::Here), (2, CheckReceipt::Elsewhere)] {
        assert_eq!(restored.remember(transaction, source(port), &others, home), seen);
    }
    let mut elsewhere = Checks::default();
    elsewhere.remember(transaction, source(1), &keys, Home { generation: 2, ..home });
    assert_ne!(elsewhere.key, checks.key);
}

#[test]
fn destination_survives_packing() {
    let scoped = SocketAddrV6::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1), 5_004, 0, 3);
    for address in [([10, 0, 0, 1], 5_004).into(), ([0x2001; 8], 1).into(), scoped.into()] {
        let (rtp, rtcp) = (SourceKey { listener: 7, address }, source(5_005));
        assert_eq!(ClientAddress::declared(rtp, rtp).rtcp(), Some(rtp));
        let mut client = ClientAddress::awaited(rtp, rtcp);
        assert_eq!((client.rtp(), client.rtcp(), client.flow()), (None, None, None));
        client.heard();
        assert_eq!((client.rtp(), client.rtcp()), (Some(rtp), Some(rtcp)));
    }
    let quic = ClientAddress::quic(7);
    assert_eq!((quic.rtp(), quic.rtcp(), quic.flow()), (None, None, Some(7)));
}

fn path(port: u16, local: &str) -> ClientPath {
    ClientPath { source: source(port), local: Some(local.parse().unwrap()) }
}

#[test]
fn local_address_is_that_of_the_destination() {
    let mut client = ClientAddress::declared(source(5_004), source(5_005));
    assert_eq!(client.local(), None);
    for (port, local) in [(5_004, "10.0.0.2"), (5_004, "10.0.0.3"), (5_005, "10.0.0.4")] {
        client.follow(path(port, local));
        assert_eq!(client.local(), path(port, local).local);
    }
    client.follow(path(9, "10.0.0.5"));
    client.follow(ClientPath { local: None, ..path(5_004, "10.0.0.6") });
    client.follow(path(5_004, "2001:db8::6"));
    assert_eq!(client.local(), path(0, "10.0.0.4").local, "of no client, unknown, of IPv6");
}

#[test]
fn local_address_survives_its_process() {
    let v6 = |port| SourceKey { listener: 0, address: ([0x2001; 8], port).into() };
    for (rtp, rtcp, local) in [
        (source(5_004), source(5_005), "10.0.0.2"),
        (source(5_004), source(5_004), "10.0.0.2"),
        (v6(5_004), v6(5_005), "2001:db8::2"),
        (v6(5_004), v6(5_004), "2001:db8::2"),
    ] {
        let mut client = ClientAddress::declared(rtp, rtcp);
        let local = Some(local.parse().unwrap());
        client.follow(ClientPath { source: rtp, local });
        let bytes = rmp_serde::to_vec_named(&client).unwrap();
        let restored: ClientAddress = rmp_serde::from_slice(&bytes).unwrap();
        assert_eq!(restored.local(), local);
        assert_eq!((restored.rtp(), restored.rtcp()), (Some(rtp), Some(rtcp)));
    }
}
