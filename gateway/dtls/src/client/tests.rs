use std::collections::VecDeque;

use evenkeel_media::fingerprint::CertificateFingerprint;

use super::*;
use crate::handshakes::tests::client::now;
use crate::handshakes::{HandshakeEvent, Handshakes, Peer};

#[test]
fn client_has_the_keys_of_the_gateway_and_closes() {
    let now = now();
    let own = DtlsCertificate::generate().unwrap();
    let fingerprint = CertificateFingerprint::Sha256(own.fingerprint());
    let of_gateway = DtlsCertificate::generate().unwrap();
    let mut table = Handshakes::new(&of_gateway);
    let mut client = DtlsClient::new(&own, now);
    let (mut from_client, mut events) = (VecDeque::new(), Vec::new());
    client.handle_timeout(now, &mut |datagram| from_client.push_back(datagram.to_vec())).unwrap();
    let mut exchange = |client: &mut DtlsClient, from_client: &mut VecDeque<Vec<u8>>| {
        while let Some(datagram) = from_client.pop_front() {
            let mut to_client = Vec::new();
            let output = &mut |(), datagram: &[u8]| to_client.push(datagram.to_vec());
            let peer = Peer::Expected(std::slice::from_ref(&fingerprint));
            events.extend(table.receive(7, (), peer, &datagram, now, output));
            for datagram in to_client {
                let output = &mut |datagram: &[u8]| from_client.push_back(datagram.to_vec());
                client.receive(&datagram, now, output).unwrap();
            }
        }
        std::mem::take(&mut events)
    };
    let connected = exchange(&mut client, &mut from_client);
    let keys = client.keys().unwrap().clone();
    assert_eq!(connected, [HandshakeEvent::Connected(keys)]);
    assert_eq!(client.gateway_certificate(), Some(&of_gateway.der[..]));
    client.close(&mut |datagram| from_client.push_back(datagram.to_vec()));
    assert_eq!(exchange(&mut client, &mut from_client), [HandshakeEvent::Closed]);
}
