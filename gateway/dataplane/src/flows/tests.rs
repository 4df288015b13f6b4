use super::*;

const FIRST: Home = Home { worker: 1, slot: 7, generation: 1 };
const NEXT: Home = Home { worker: 1, slot: 7, generation: 2 };

#[test]
fn lookup_finds_inserted_keys_only() {
    let flows = Flows::new(10);
    let address: SocketAddr = "192.0.2.1:4000".parse().unwrap();
    flows.insert(FlowKey::Udp { listener: 0, address }, FlowEntry::of(FIRST)).unwrap();
    assert_eq!(flows.home(&FlowKey::Udp { listener: 0, address }), Some(FIRST));
    let strangers = [
        FlowKey::Udp { listener: 1, address },
        FlowKey::Udp { listener: 0, address: "192.0.2.1:4001".parse().unwrap() },
        FlowKey::DeclaredIp { listener: 0, ip: address.ip() },
        FlowKey::Roq(0),
    ];
    for stranger in strangers {
        assert_eq!(flows.home(&stranger), None, "{stranger:?}");
    }
}

#[test]
fn keys_differ_by_every_part() {
    let udp =
        |listener, address: &str| FlowKey::Udp { listener, address: address.parse().unwrap() };
    let ip = |listener, ip: &str| FlowKey::DeclaredIp { listener, ip: ip.parse().unwrap() };
    let ufrag = |text: &[u8]| FlowKey::Ufrag(Ufrag::new(text).unwrap());
    let keys = [
        udp(0, "192.0.2.1:4000"),
        udp(1, "192.0.2.1:4000"),
        udp(0, "192.0.2.2:4000"),
        udp(0, "192.0.2.1:4001"),
        udp(0, "192.0.2.1:0"),
        udp(0, "[::ffff:192.0.2.1]:4000"),
        udp(0, "[fe80::1%1]:4000"),
        udp(0, "[fe80::1%2]:4000"),
        ip(0, "192.0.2.1"),
        ip(1, "192.0.2.1"),
        ip(0, "::ffff:192.0.2.1"),
        FlowKey::Roq(1),
        FlowKey::Roq(u64::MAX),
        ufrag(b""),
        ufrag(b"\0"),
        ufrag(b"EsAw"),
    ];
    let flows = Flows::new(keys.len());
    let home = |slot: usize| Home { slot: slot as u32, ..FIRST };
    for (slot, key) in keys.iter().enumerate() {
        assert_eq!(flows.insert(*key, FlowEntry::of(home(slot))), Ok(()), "{key:?}");
    }
    for (slot, key) in keys.iter().enumerate() {
        assert_eq!(flows.home(key), Some(home(slot)), "{key:?}");
    }
}

#[test]
fn old_generation_cannot_remove_a_newer_key() {
    let flows = Flows::new(10);
    let key = FlowKey::Roq(77);
    flows.insert(key, FlowEntry::of(FIRST)).unwrap();
    assert!(flows.remove(&key, FIRST));
    flows.insert(key, FlowEntry::of(NEXT)).unwrap();
    assert!(!flows.remove(&key, FIRST));
    assert_eq!(flows.home(&key), Some(NEXT));
}

#[test]
fn key_belongs_to_one_session_at_a_time() {
    let flows = Flows::new(10);
    let key = FlowKey::DeclaredIp { listener: 0, ip: "192.0.2.1".parse().unwrap() };
    flows.insert(key, FlowEntry::of(FIRST)).unwrap();
    assert_eq!(flows.insert(key, FlowEntry::of(NEXT)), Err(InsertRefusal::Taken(FIRST)));
    assert_eq!(flows.insert(key, FlowEntry::of(FIRST)), Ok(()));
    assert_eq!(flows.counts(), FlowKeyCounts { declared_ip: 1, ..FlowKeyCounts::default() });
}

#[test]
fn table_is_bounded_and_removal_frees_room() {
    let flows = Flows::new(2);
    flows.insert(FlowKey::Roq(1), FlowEntry::of(FIRST)).unwrap();
    flows.insert(FlowKey::Roq(2), FlowEntry::of(FIRST)).unwrap();
    assert_eq!(flows.insert(FlowKey::Roq(3), FlowEntry::of(FIRST)), Err(InsertRefusal::Full(2)));
    assert_eq!(flows.home(&FlowKey::Roq(3)), None);
    assert_eq!(
        flows.insert(FlowKey::Roq(2), FlowEntry::of(FIRST)),
        Ok(()),
        "renewing needs no room"
    );
    flows.remove(&FlowKey::Roq(1), FIRST);
    assert_eq!(flows.insert(FlowKey::Roq(3), FlowEntry::of(FIRST)), Ok(()));
}

#[test]
fn ufrag_finds_its_password_and_is_bounded() {
    let flows = Flows::new(2);
    let key = FlowKey::Ufrag(Ufrag::new(b"EsAw").unwrap());
    let entry = FlowEntry { password: Some(Arc::from(&b"secret"[..])), ..FlowEntry::of(FIRST) };
    flows.insert(key, entry.clone()).unwrap();
    assert_eq!(flows.entry(&key), Some(entry.clone()));
    assert_eq!(flows.entry(&FlowKey::Ufrag(Ufrag::new(b"EsAw\0").unwrap())), None);
    assert!(Ufrag::new(&[b'a'; 16]).is_some());
    assert!(Ufrag::new(&[b'a'; 17]).is_none());
    assert!(!format!("{entry:?}").contains("secret"));
}

#[test]
fn check_takes_silent_addresses_but_not_declared() {
    let (flows, now) = (Flows::new(10), Instant::now());
    let key = |port| {
        let address = SocketAddr::from(([192, 0, 2, 1], port));
        FlowKey::Udp { listener: 0, address }
    };
    let after = |ms| now + Duration::from_millis(ms);
    let check = |port, home, ms| flows.check(key(port), home, after(ms) + CHECKED_FOR, after(ms));
    assert_eq!(check(1, FIRST, 0), Ok(None));
    assert_eq!(check(1, FIRST, 5_000), Ok(None), "it goes on checking");
    assert_eq!(check(1, NEXT, 10_999), Err(InsertRefusal::Taken(FIRST)));
    flows.hold(&key(1), NEXT, after(90_000));
    flows.hold(&key(1), FIRST, after(20_000));
    assert_eq!(check(1, NEXT, 19_999), Err(InsertRefusal::Taken(FIRST)));
    assert_eq!(check(1, NEXT, 20_000), Ok(Some(FIRST)), "only its own session holds it");
    assert_eq!(flows.home(&key(1)), Some(NEXT));
    assert!(!flows.remove(&key(1), FIRST), "it is no longer its own");
    flows.insert(key(2), FlowEntry::of(FIRST)).unwrap();
    flows.hold(&key(2), FIRST, now);
    assert_eq!(check(2, NEXT, 60_000), Err(InsertRefusal::Taken(FIRST)));
    assert_eq!(flows.counts().udp, 2);
}

#[test]
fn counts_follow_inserts_and_removals() {
    let flows = Flows::new(10);
    let udp = FlowKey::Udp { listener: 0, address: "[2001:db8::1]:9".parse().unwrap() };
    flows.insert(udp, FlowEntry::of(FIRST)).unwrap();
    flows.insert(FlowKey::Roq(5), FlowEntry::of(FIRST)).unwrap();
    flows.insert(FlowKey::Ufrag(Ufrag::new(b"u").unwrap()), FlowEntry::of(FIRST)).unwrap();
    assert_eq!(flows.counts(), FlowKeyCounts { udp: 1, roq: 1, declared_ip: 0, ufrag: 1 });
    flows.remove(&udp, FIRST);
    flows.remove(&udp, FIRST);
    assert_eq!(flows.counts(), FlowKeyCounts { udp: 0, roq: 1, declared_ip: 0, ufrag: 1 });
}

#[test]
fn key_survives_packing() {
    let scoped = SocketAddrV6::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1), 5_004, 0, 3);
    let addresses = [([10, 0, 0, 1], 5_004).into(), ([0x2001; 8], 65_535).into(), scoped.into()];
    let udp = addresses.map(|address| FlowKey::Udp { listener: 2, address });
    let ips = [Ipv4Addr::new(10, 0, 0, 1).into(), IpAddr::V6(*scoped.ip())];
    let ips = ips.map(|ip| FlowKey::DeclaredIp { listener: 2, ip });
    let others = [FlowKey::Roq(u64::MAX), FlowKey::Ufrag(Ufrag::new(b"abcdefgh").unwrap())];
    for key in udp.into_iter().chain(ips).chain(others) {
        assert_eq!(PackedKey::of(&key).key(), key);
    }
}
