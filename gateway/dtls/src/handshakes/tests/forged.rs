//! Datagrams of a host that forges the client's address.

use super::*;

/// A record of DTLS 1.2 of this epoch.
fn record(kind: u8, epoch: u8, contents: &[u8]) -> Vec<u8> {
    let length = u16::try_from(contents.len()).unwrap().to_be_bytes();
    [&[kind, 0xfe, 0xfd, 0, epoch, 0, 0, 0, 0, 0, 99][..], &length, contents].concat()
}

/// A whole message of the handshake.
fn message(kind: u8, message_seq: u8, body: &[u8]) -> Vec<u8> {
    let length = u8::try_from(body.len()).unwrap();
    let head = [kind, 0, 0, length, 0, message_seq, 0, 0, 0, 0, 0, length];
    record(22, 0, &[&head[..], body].concat())
}

/// Datagrams that belong to no handshake, each with its name.
fn forged() -> Vec<(&'static str, Vec<u8>)> {
    let mut fragment = message(11, 1, &[0; 20]);
    fragment.truncate(fragment.len() - 5);
    let mut cut = message(16, 2, &[0; 20]);
    // The message ends behind its record.
    cut[12] -= 5;
    cut.truncate(cut.len() - 5);
    let mut beyond = message(11, 1, &[0; 20]);
    beyond[21] = 1;
    let mut version = message(1, 0, &[0; 40]);
    version[1..3].copy_from_slice(&[3, 3]);
    vec![
        ("21 bytes of a handshake record", record(22, 0, &[0; 8])),
        ("21 bytes of an alert", record(21, 0, &[2, 40, 0, 0, 0, 0, 0, 0])),
        ("a fatal alert", record(21, 0, &[2, 40])),
        ("a close_notify", record(21, 0, &[1, 0])),
        ("an alert in place of an encrypted one", record(21, 1, &[2, 40])),
        ("a record that is not authentic", record(22, 1, &[7; 40])),
        ("an alert that is not authentic", record(21, 1, &[7; 26])),
        ("a record of another epoch", record(22, 7, &[7; 40])),
        ("application data in plain text", record(23, 0, &[7; 40])),
        ("ChangeCipherSpec and a record that is not authentic", {
            [record(20, 0, &[1]), record(22, 1, &[7; 40])].concat()
        }),
        ("an encrypted record of DTLS 1.3", vec![0x2e; 60]),
        ("an acknowledgement in plain text", record(26, 0, &[0; 18])),
        ("a cut record", fragment),
        ("a cut fragment", cut),
        ("a fragment beyond its message", beyond),
        ("a record without a message", record(22, 0, &[])),
        ("another version", version),
        ("a ServerHello", message(2, 0, &[7; 60])),
        ("a ServerHello with the client's next number", message(2, 1, &[7; 60])),
        ("a Certificate far ahead", message(11, 9, &[0; 3])),
        ("a Finished in plain text", message(20, 4, &[7; 12])),
        ("a second ClientHello", message(1, 1, &[7; 60])),
        ("a HelloRequest", message(0, 0, &[])),
        ("one byte", vec![22]),
    ]
}

/// Runs a handshake in which this datagram comes before each datagram of the client. Fails if it does not complete by itself.
fn connects_behind(version: Version, name: &str, datagram: &[u8]) {
    let mut link = Link::new(Client::new(version));
    loop {
        link.deliver();
        let datagrams = link.client.poll();
        if datagrams.is_empty() {
            break;
        }
        for own in datagrams {
            link.receive(datagram);
            link.receive(&own);
            link.receive(datagram);
        }
    }
    let connected = |event: &HandshakeEvent| matches!(event, HandshakeEvent::Connected(_));
    let event = link.events.iter().find(|event| connected(event));
    assert!(event.is_some(), "{version:?}, {name}: {:?}", link.events);
    let (client, gateway) = keys(event);
    assert_eq!(Some(material(client, gateway)), link.client.material);
    let others = link.events.iter().filter(|event| !connected(event));
    assert_eq!(others.filter(|event| **event != dropped()).count(), 0, "{version:?}, {name}");
    assert_eq!((link.table.in_progress(), link.table.connected()), (0, 1));
}

#[test]
fn handshake_connects_beside_forged_records() {
    for version in [Version::Dtls12, Version::Dtls13] {
        for (name, datagram) in forged() {
            // The number of a client's second ClientHello of DTLS 1.3.
            if version == Version::Dtls12 || name != "a second ClientHello" {
                connects_behind(version, name, &datagram);
            }
        }
    }
}

#[test]
fn forged_record_spoils_no_other_of_its_datagram() {
    for (name, datagram) in forged() {
        let mut link = Link::new(Client::new(Version::Dtls12));
        let hello = link.client.poll().remove(0);
        link.receive(&hello);
        link.deliver();
        for own in link.client.poll() {
            link.receive(&[own, datagram.clone()].concat());
        }
        keys(link.events.iter().find(|event| matches!(event, HandshakeEvent::Connected(_))));
        assert_eq!(link.table.connected(), 1, "{name}");
    }
}

#[test]
fn flood_of_forged_records_leaves_room_for_the_client() {
    let mut link = Link::new(Client::new(Version::Dtls12));
    let hello = link.client.poll().remove(0);
    link.receive(&hello);
    for number in 0..=2 * QUEUE_MAX as u8 {
        for (_, mut datagram) in forged() {
            if let Some(sequence) = datagram.get_mut(9) {
                *sequence = number;
            }
            link.receive(&datagram);
        }
    }
    link.run();
    keys(link.events.iter().find(|event| matches!(event, HandshakeEvent::Connected(_))));
}

#[test]
fn forged_record_before_the_hello_ends_nothing() {
    for (name, datagram) in forged() {
        let mut link = Link::new(Client::new(Version::Dtls12));
        link.receive(&datagram);
        assert!(matches!(link.events.pop(), None | Some(HandshakeEvent::Refused(_))), "{name}");
        link.now += DOUBT_FOR - Duration::from_millis(1);
        let failures = handle_timeouts(&mut link.table, link.now, &mut |_, _| {});
        assert_eq!(failures, [], "{name}");
        link.run();
        keys(link.events.first());
    }
}
