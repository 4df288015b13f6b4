//! Lost, late and incomplete datagrams.

use super::*;

/// Runs a handshake in which the datagram of this number does not arrive. Returns the number of datagrams that were sent.
fn without(version: Version, lost: Option<usize>) -> usize {
    let mut link = Link::new(Client::new(version));
    let mut sent = 0;
    while link.client.material.is_none() || link.events.is_empty() {
        assert!(link.now < now() + HANDSHAKE_LIFETIME, "{version:?} without datagram {lost:?}");
        let datagrams = link.client.poll();
        let is_silent = datagrams.is_empty() && link.to_client.is_empty();
        for datagram in datagrams {
            if Some(sent) != lost {
                link.receive(&datagram);
            }
            sent += 1;
        }
        link.to_client.retain(|_| {
            sent += 1;
            Some(sent - 1) != lost
        });
        link.deliver();
        if is_silent {
            link.wait();
        }
    }
    let (client, gateway) = keys(link.events.first());
    assert_eq!(Some(material(client, gateway)), link.client.material);
    assert_eq!(link.events.len(), 1, "{version:?} without datagram {lost:?}");
    sent
}

#[test]
fn each_lost_datagram_is_retransmitted() {
    for version in [Version::Dtls12, Version::Dtls13] {
        let sent = without(version, None);
        assert!((3..10).contains(&sent), "{version:?} takes {sent} datagrams");
        for lost in 0..sent {
            without(version, Some(lost));
        }
    }
}

#[test]
fn fragmented_hello_connects_in_any_order() {
    for version in [Version::Dtls12, Version::Dtls13] {
        for is_reversed in [false, true] {
            let mut link = Link::new(Client::new(version));
            let mut parts = client::split(&link.client.poll()[0]);
            if is_reversed {
                parts.reverse();
            }
            link.receive(&parts[0]);
            link.receive(&parts[0]);
            assert_eq!(link.to_client.len(), 0);
            link.receive(&parts[1]);
            assert!(!link.to_client.is_empty(), "{version:?}, reversed: {is_reversed}");
            link.run();
            keys(link.events.first());
        }
    }
}

#[test]
fn incomplete_hello_ends_after_its_lifetime() {
    let mut link = Link::new(Client::new(Version::Dtls12));
    let part = client::split(&link.client.poll()[0]).remove(0);
    link.receive(&part);
    let end = now() + HANDSHAKE_LIFETIME;
    assert_eq!(link.table.next_timeout(), Some(end));
    let output = &mut |_, _: &[u8]| panic!("an answer");
    assert_eq!(handle_timeouts(&mut link.table, end - Duration::from_millis(1), output), []);
    let failures = handle_timeouts(&mut link.table, end, output);
    assert_eq!(failures, [(SESSION, HandshakeFailure::Incomplete)]);
    assert_eq!((link.table.in_progress(), link.table.next_timeout()), (0, None));
}

#[test]
fn silent_client_ends_after_its_lifetime() {
    for version in [Version::Dtls12, Version::Dtls13] {
        let mut link = Link::new(Client::new(version));
        let hello = link.client.poll().remove(0);
        link.receive(&hello);
        let (mut flights, mut failures) = (1, Vec::new());
        while let Some(at) = link.table.next_timeout() {
            let mut sent = 0;
            link.now = at;
            failures.extend(handle_timeouts(&mut link.table, at, &mut |_, _| sent += 1));
            flights += usize::from(sent > 0);
        }
        assert_eq!(failures, [(SESSION, HandshakeFailure::Timeout)], "{version:?}");
        let took = link.now - now();
        assert!(took <= HANDSHAKE_LIFETIME && took > HANDSHAKE_LIFETIME / 2, "{took:?}");
        assert!((RETRANSMISSIONS_MAX..=RETRANSMISSIONS_MAX + 1).contains(&flights), "{flights}");
        assert_eq!(link.table.in_progress(), 0);
    }
}

#[test]
fn oldest_connection_gives_way() {
    let certificate = DtlsCertificate::generate().unwrap();
    let mut table: Handshakes<u64, SocketAddr> = Handshakes::new(&certificate);
    for number in 0..=CONNECTED_MAX as u64 {
        let Engine { config, certificate, .. } = &table.engine;
        let dtls = Box::new(Dtls::new_12(Arc::clone(config), certificate.clone(), now()));
        let mut state = State::new(client::address(), now());
        state.phase = Phase::Connected { dtls, number };
        table.keep(number, state, Ok(None), &mut |_, _| {});
    }
    assert_eq!((table.connected(), table.states.len()), (CONNECTED_MAX, CONNECTED_MAX));
    assert!(!table.states.contains_key(&0) && table.states.contains_key(&1));
}
