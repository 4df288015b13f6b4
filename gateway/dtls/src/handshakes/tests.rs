use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;

use dimpl::KeyingMaterial;
use evenkeel_fuzz::Corpus;

use super::*;
use ring::digest::{SHA256, SHA512, digest};

pub(crate) mod client;
mod forged;
mod loss;

use client::{Client, Link, handle_timeouts, now};

const SESSION: u64 = 7;

fn sha256(certificate: &[u8]) -> CertificateFingerprint {
    CertificateFingerprint::Sha256(digest(&SHA256, certificate).as_ref().try_into().unwrap())
}

/// The event of a datagram of which a record was dropped.
fn dropped() -> HandshakeEvent {
    HandshakeEvent::Refused(HandshakeRefusal::Record)
}

#[track_caller]
fn keys(event: Option<&HandshakeEvent>) -> (&SrtpKey, &SrtpKey) {
    match event {
        Some(HandshakeEvent::Connected(SrtpKeys { client, gateway, .. })) => (client, gateway),
        other => panic!("{other:?}"),
    }
}

/// The bytes of RFC 5764, section 4.2, from two keys.
fn material(client: &SrtpKey, gateway: &SrtpKey) -> Vec<u8> {
    [client.key(), gateway.key(), client.salt(), gateway.salt()].concat()
}

#[test]
fn both_ends_export_the_same_keys() {
    for version in [Version::Dtls12, Version::Dtls13] {
        let mut link = Link::new(Client::new(version));
        link.run();
        let (client, gateway) = keys(link.events.first());
        assert_eq!(Some(material(client, gateway)), link.client.material, "{version:?}");
        assert_eq!([client.profile(), gateway.profile()], [SrtpProfile::AeadAes256Gcm; 2]);
        assert_eq!(link.events.len(), 1);
        assert_eq!((link.table.in_progress(), link.table.connected()), (0, 1));
        assert_eq!(link.table.next_timeout(), None);
        assert!(link.largest <= MTU, "{} bytes", link.largest);
    }
}

#[test]
fn version_12_is_chosen_if_both_are_offered() {
    let mut link = Link::new(Client::of_both_versions());
    link.run();
    keys(link.events.first());
    assert_eq!(link.client.dtls.protocol_version(), Some(ProtocolVersion::DTLS1_2));
}

#[test]
fn keys_are_split_by_rfc_5764() {
    let bytes: Vec<u8> = (0..88).collect();
    for (library, profile) in [
        (dimpl::SrtpProfile::AEAD_AES_128_GCM, SrtpProfile::AeadAes128Gcm),
        (dimpl::SrtpProfile::AEAD_AES_256_GCM, SrtpProfile::AeadAes256Gcm),
        (dimpl::SrtpProfile::AES128_CM_SHA1_80, SrtpProfile::Aes128CmHmacSha1Tag80),
    ] {
        let exported = KeyingMaterial::new(&bytes[..library.keying_material_len()]);
        let event = srtp_keys(library, &exported).map(HandshakeEvent::Connected);
        let (client, gateway) = keys(event.as_ref());
        assert_eq!([client.profile(), gateway.profile()], [profile; 2]);
        assert_eq!(material(client, gateway), *exported);
        assert_eq!(srtp_keys(library, &exported[1..]), None);
    }
}

#[test]
fn one_matching_fingerprint_suffices() {
    let mut link = Link::new(Client::new(Version::Dtls12));
    let other = sha256(b"another certificate");
    let own = {
        let hash = digest(&SHA512, &link.client.certificate);
        CertificateFingerprint::Sha512(hash.as_ref().try_into().unwrap())
    };
    link.expected = vec![other, own];
    link.run();
    keys(link.events.first());
}

#[test]
fn other_fingerprint_ends_the_handshake() {
    for version in [Version::Dtls12, Version::Dtls13] {
        for expected in [vec![], vec![sha256(b"another")]] {
            let mut link = Link::new(Client::new(version));
            link.expected = expected;
            link.run();
            let failure = HandshakeFailure::Fingerprint;
            assert_eq!(link.events, [HandshakeEvent::Failed(failure)]);
            assert_eq!((link.table.in_progress(), link.table.connected()), (0, 0));
            // In DTLS 1.3 the client ends first.
            assert_eq!(link.client.material.is_some(), version == Version::Dtls13);
        }
    }
}

#[test]
fn other_fingerprint_alerts_bad_certificate() {
    let mut link = Link::new(Client::new(Version::Dtls12));
    link.expected.clear();
    link.run();
    let description = alert::BAD_CERTIFICATE;
    let expected = dimpl::Error::SecurityError(SecurityError::FatalAlert { description });
    assert_eq!(link.client.error, Some(expected));
}

/// Overwrites the type of an extension in a ClientHello, or its contents.
fn patched(mut datagram: Vec<u8>, find: &[u8], replace: &[u8]) -> Vec<u8> {
    let at = datagram.windows(find.len()).position(|bytes| bytes == find).unwrap();
    datagram[at..at + replace.len()].copy_from_slice(replace);
    datagram
}

#[test]
fn hello_without_usable_offer_fails() {
    // use_srtp with three profiles, of 9 bytes.
    let extension = [0, 14, 0, 9, 0, 6, 0, 8, 0, 7, 0, 1];
    let none = [0xaa, 0xaa];
    let unknown = [0, 14, 0, 9, 0, 6, 0, 2, 0, 5, 0, 6];
    let cases: [(&[u8], &[u8], HandshakeFailure, u8); 3] = [
        (&extension, &none, HandshakeFailure::NoSrtp, alert::HANDSHAKE_FAILURE),
        (&extension, &unknown, HandshakeFailure::NoCommonProfile, alert::HANDSHAKE_FAILURE),
        (&[0, 0, 0xfe, 0xfd], &[0, 0, 0xfe, 0xff], HandshakeFailure::Version, 70),
    ];
    for (find, replace, failure, description) in cases {
        let mut link = Link::new(Client::new(Version::Dtls12));
        let mut hello = link.client.poll().remove(0);
        if failure == HandshakeFailure::Version {
            // The version behind the header of the message.
            hello[25..27].copy_from_slice(&replace[2..]);
        } else {
            hello = patched(hello, find, replace);
        }
        link.receive(&hello);
        assert_eq!(link.events, [HandshakeEvent::Failed(failure)]);
        assert_eq!(link.to_client, [alert_record(description)]);
        assert_eq!(link.table.in_progress(), 0);
    }
}

#[test]
fn plain_alert_ends_a_handshake_that_does_not_go_on() {
    let mut link = Link::new(Client::new(Version::Dtls12));
    let hello = link.client.poll().remove(0);
    link.receive(&hello);
    link.to_client.clear();
    link.receive(&alert_record(46));
    assert_eq!(link.events, [dropped()]);
    let until = now() + DOUBT_FOR;
    let mut failures = Vec::new();
    while failures.is_empty() {
        link.now = link.table.next_timeout().unwrap();
        failures = handle_timeouts(&mut link.table, link.now, &mut |_, _| {});
    }
    assert_eq!((link.now, failures), (until, vec![(SESSION, HandshakeFailure::Alert(46))]));
    assert_eq!((link.to_client.len(), link.table.in_progress()), (0, 0));
}

#[test]
fn close_notify_closes_the_session() {
    for version in [Version::Dtls12, Version::Dtls13] {
        let mut link = Link::new(Client::new(version));
        link.run();
        link.client.dtls.close().unwrap();
        link.run();
        assert_eq!(link.events[1..], [HandshakeEvent::Closed], "{version:?}");
        assert_eq!(link.table.connected(), 0);
    }
}

#[test]
fn forged_alerts_do_not_close_a_session() {
    let mut link = Link::new(Client::new(Version::Dtls12));
    link.run();
    link.receive(&alert_record(0));
    link.receive(&alert_record(alert::BAD_CERTIFICATE));
    assert_eq!(link.events[1..], [dropped(), dropped()]);
    assert_eq!(link.table.connected(), 1);
}

#[test]
fn application_data_is_dropped() {
    let mut link = Link::new(Client::new(Version::Dtls12));
    link.run();
    for _ in 0..100 {
        link.client.dtls.send_application_data(&[1; 1000]).unwrap();
        link.run();
    }
    assert_eq!((link.events.len(), link.table.connected()), (1, 1));
}

#[test]
fn records_without_state_are_dropped() {
    let mut link = Link::new(Client::new(Version::Dtls12));
    link.run();
    link.table.remove(SESSION);
    assert_eq!(link.table.connected(), 0);
    link.client.dtls.send_application_data(b"data").unwrap();
    link.run();
    assert_eq!(link.events.len(), 1);
    assert_eq!(link.table.in_progress(), 0);
}

#[test]
fn handshake_of_another_process_is_lost() {
    for version in [Version::Dtls12, Version::Dtls13] {
        let mut link = Link::new(Client::new(version));
        let hello = link.client.poll().remove(0);
        link.receive(&hello);
        link.deliver();
        link.table.remove(SESSION);
        let flight = link.client.poll();
        flight.iter().for_each(|datagram| link.receive(datagram));
        assert!(link.events.iter().all(|event| *event == dropped()), "{version:?}");
        let until = now() + DOUBT_FOR;
        assert_eq!(link.table.next_timeout(), Some(until));
        let output = &mut |_, _: &[u8]| panic!("an answer");
        let failures = handle_timeouts(&mut link.table, until, output);
        assert_eq!(failures, [(SESSION, HandshakeFailure::Lost)], "{version:?}");
        assert_eq!((link.to_client.len(), link.table.in_progress()), (0, 0));
    }
}

#[test]
fn connected_client_of_another_process_is_ignored() {
    let mut link = Link::new(Client::new(Version::Dtls12));
    link.run();
    let mut table = Handshakes::new(&DtlsCertificate::generate().unwrap());
    for datagram in &link.from_client {
        let output = &mut |_: SocketAddr, _: &[u8]| panic!("nothing is sent");
        let event =
            table.receive(SESSION, client::address(), Peer::Connected, datagram, now(), output);
        assert_eq!(event, None);
    }
    assert_eq!((table.in_progress(), table.connected()), (0, 0));
}

#[test]
fn other_hello_from_a_second_address_is_refused() {
    let second: SocketAddr = "192.0.2.9:9".parse().unwrap();
    let mut link = Link::new(Client::new(Version::Dtls12));
    let hello = link.client.poll().remove(0);
    link.receive(&hello);
    let flight = std::mem::take(&mut link.to_client);
    link.source = second;
    let other = Client::new(Version::Dtls12).poll().remove(0);
    link.receive(&other);
    let refused = HandshakeEvent::Refused(HandshakeRefusal::SecondAddress);
    assert_eq!((link.to_client.len(), link.events.pop()), (0, Some(refused)));
    link.source = client::address();
    link.to_client = flight;
    link.run();
    keys(link.events.first());
}

#[test]
fn client_changes_address_during_the_handshake() {
    let second: SocketAddr = "192.0.2.9:9".parse().unwrap();
    let mut link = Link::new(Client::new(Version::Dtls12));
    let hello = link.client.poll().remove(0);
    link.receive(&hello);
    link.to_client.clear();
    link.now += RETRANSMISSION_INTERVAL;
    link.source = second;
    link.receive(&hello);
    assert_eq!(link.to_client.len(), 1, "the flight, to the new address");
    link.run();
    while link.events.is_empty() {
        link.wait();
        link.run();
    }
    keys(link.events.first());
}

#[test]
fn full_table_refuses_new_handshakes() {
    let certificate = DtlsCertificate::generate().unwrap();
    let mut table: Handshakes<usize, SocketAddr> = Handshakes::new(&certificate);
    // A ClientHello that is not complete.
    let mut client = Client::new(Version::Dtls12);
    let part = client::split(&client.poll()[0]).remove(0);
    let receive = |table: &mut Handshakes<usize, SocketAddr>, key| {
        let peer = Peer::Expected(&[]);
        table.receive(key, client::address(), peer, &part, now(), &mut |_, _| {})
    };
    for key in 0..HANDSHAKES_MAX {
        assert_eq!(receive(&mut table, key), None);
    }
    let full = Some(HandshakeEvent::Refused(HandshakeRefusal::Full));
    assert_eq!(receive(&mut table, HANDSHAKES_MAX), full);
    assert_eq!(table.in_progress(), HANDSHAKES_MAX);
    table.remove(0);
    assert_eq!(receive(&mut table, HANDSHAKES_MAX), None);
    assert_eq!(table.in_progress(), HANDSHAKES_MAX);
}

#[test]
fn unreadable_hello_ends_a_handshake_without_another() {
    let malformed = |hello: &[u8]| patched(hello.to_vec(), &[0, 14, 0, 9], &[0, 14, 0xff]);
    // The length of the message.
    let large = |hello: &[u8]| patched(hello.to_vec(), &hello[13..17], &[1, 0, 0x20, 1]);
    type Spoil<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;
    let cases: [(Spoil<'_>, HandshakeFailure, u8); 2] = [
        (&malformed, HandshakeFailure::Malformed, alert::DECODE_ERROR),
        (&large, HandshakeFailure::Large, alert::HANDSHAKE_FAILURE),
    ];
    for (spoil, failure, description) in cases {
        for goes_on in [false, true] {
            let mut link = Link::new(Client::new(Version::Dtls12));
            let hello = link.client.poll().remove(0);
            link.receive(&spoil(&hello));
            assert_eq!((link.events.pop(), link.to_client.len()), (Some(dropped()), 0));
            if goes_on {
                link.receive(&hello);
                link.run();
                keys(link.events.first());
                continue;
            }
            let mut sent = Vec::new();
            let output = &mut |_, datagram: &[u8]| sent.push(datagram.to_vec());
            let failures = handle_timeouts(&mut link.table, now() + DOUBT_FOR, output);
            assert_eq!(failures, [(SESSION, failure.clone())]);
            assert_eq!(
                (sent, link.table.in_progress()),
                (vec![alert_record(description).into()], 0)
            );
        }
    }
}

#[test]
fn hello_connects_behind_parts_of_another() {
    for is_split in [false, true] {
        let mut link = Link::new(Client::new(Version::Dtls12));
        let hello = link.client.poll().remove(0);
        for length in 1..=HELLO_DATAGRAMS_MAX as u8 {
            // Fragments behind the start, of a message of 200 bytes.
            let mut datagram = vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12 + length];
            datagram.extend([1, 0, 0, 200, 0, 0, 0, 0, 100, 0, 0, length]);
            datagram.extend(vec![0; usize::from(length)]);
            link.receive(&datagram);
            link.receive(&datagram);
        }
        let parts = if is_split { client::split(&hello) } else { vec![hello] };
        parts.iter().for_each(|part| link.receive(part));
        link.run();
        keys(link.events.first());
    }
}

#[test]
fn fuzz_handshake() {
    let mut corpus = Corpus::of("dtls_handshake");
    let (mut expected, mut hellos) = (Vec::new(), Vec::new());
    for version in [Version::Dtls12, Version::Dtls13] {
        let mut link = Link::new(Client::new(version));
        link.run();
        expected.append(&mut link.expected);
        hellos.push(link.from_client[0].clone());
        for datagram in link.from_client {
            corpus = corpus.with(datagram);
        }
    }
    let table = RefCell::new(Handshakes::new(&DtlsCertificate::generate().unwrap()));
    corpus.check(|datagram| {
        for hello in &hellos {
            let mut sent = 0;
            let mut receive = |datagram: &[u8]| {
                let output = &mut |_, datagram: &[u8]| sent += datagram.len();
                let mut table = table.borrow_mut();
                let peer = Peer::Expected(&expected);
                table.receive(SESSION, client::address(), peer, datagram, now(), output)
            };
            for datagram in [datagram, hello, datagram, datagram] {
                let event = receive(datagram);
                assert!(!matches!(event, Some(HandshakeEvent::Connected(_))));
            }
            assert!(sent < 16 * MTU, "{sent} bytes for four datagrams");
            table.borrow_mut().remove(SESSION);
        }
    });
}
