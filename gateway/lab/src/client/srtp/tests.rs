use evenkeel_media::rtcp;
use evenkeel_media::rtp;
use evenkeel_media::srtp::{CryptoAttribute, SrtpKey};

use super::*;

/// Keys of both directions.
fn keys(profile: SrtpProfile) -> SrtpKeys {
    let key = SrtpKey::generate(profile, |bytes| bytes.fill(1));
    SrtpKeys::accept([Ok(CryptoAttribute { tag: 1, key })], |bytes| bytes.fill(2)).unwrap()
}

/// A gateway with the keys of the client.
fn gateway(keys: &SrtpKeys) -> SrtpSender {
    let mut gateway = SrtpSender::new(&keys.gateway);
    gateway.lease(7, u64::MAX, u64::MAX).unwrap();
    gateway
}

fn voice(sequence: u16, payload: &[u8]) -> Vec<u8> {
    let fields =
        rtp::Fields { payload_type: 111, marker: false, sequence, timestamp: 960, ssrc: 7 };
    let mut packet = Vec::new();
    rtp::write(&fields, payload, &mut packet);
    packet
}

fn report() -> Vec<u8> {
    let mut packet = Vec::new();
    rtcp::write_receiver_report(7, &[], &mut packet);
    packet
}

fn by(gateway: &mut SrtpSender, packet: &[u8]) -> Vec<u8> {
    let mut buffer = packet.to_vec();
    buffer.resize(packet.len() + OVERHEAD_MAX, 0);
    let is_rtp = demux::classify(packet) == DatagramKind::Rtp;
    let protected = match is_rtp {
        true => gateway.protect_rtp(&mut buffer, packet.len()),
        false => gateway.protect_rtcp(&mut buffer, packet.len()),
    };
    protected.unwrap().to_vec()
}

/// Authentication failures, replayed packets, reused indices.
fn counts(client: &SrtpEndpoint) -> [u64; 3] {
    [client.authentication_failures, client.replayed, client.reused_indices]
}

#[test]
fn client_and_gateway_understand_each_other() {
    for profile in SrtpProfile::ALL {
        let keys = keys(profile);
        let mut client = SrtpEndpoint::new(&keys);
        let mut gateway = SrtpReceiver::new(&keys.client);
        let mut protected = client.protect(&voice(65_535, b"voice")).unwrap();
        assert_eq!(gateway.unprotect_rtp(&mut protected).unwrap(), voice(65_535, b"voice"));
        let mut protected = client.protect(&report()).unwrap();
        assert_eq!(gateway.unprotect_rtcp(&mut protected).unwrap(), report());
    }
}

#[test]
fn index_with_other_bytes_is_reused() {
    for profile in SrtpProfile::ALL {
        let keys = keys(profile);
        let (mut client, mut owner) = (SrtpEndpoint::new(&keys), gateway(&keys));
        let mut standby = gateway(&keys);
        for sequence in [65_534, 65_535, 0, 1] {
            let packet = by(&mut owner, &voice(sequence, b"owner"));
            assert_eq!(client.unprotect(&packet).unwrap(), voice(sequence, b"owner"));
            assert_eq!(client.unprotect(&packet), Err(SrtpError::Replayed));
        }
        assert_eq!(counts(&client), [0, 4, 0], "identical bytes");
        let other = by(&mut standby, &voice(65_535, b"other"));
        assert_eq!(client.unprotect(&other), Err(SrtpError::Replayed));
        assert_eq!(counts(&client), [0, 4, 1], "{profile:?}");
        let packet = by(&mut owner, &report());
        assert_eq!(client.unprotect(&packet).unwrap(), report());
        assert_eq!(client.unprotect(&packet), Err(SrtpError::Replayed));
        let mut other = Vec::new();
        rtcp::write_cname(7, b"another report", &mut other);
        assert_eq!(client.unprotect(&by(&mut standby, &other)), Err(SrtpError::Replayed));
        assert_eq!(counts(&client), [0, 5, 2], "{profile:?}");
    }
}

#[test]
fn late_packet_is_replayed_and_no_reuse() {
    let keys = keys(SrtpProfile::AeadAes256Gcm);
    let (mut client, mut gateway) = (SrtpEndpoint::new(&keys), gateway(&keys));
    let late = by(&mut gateway, &voice(1, b"late"));
    for sequence in 2..=200 {
        client.unprotect(&by(&mut gateway, &voice(sequence, b"voice"))).unwrap();
    }
    assert_eq!(client.unprotect(&late), Err(SrtpError::Replayed));
    assert_eq!(counts(&client), [0, 1, 0]);
}

#[test]
fn forged_packet_is_an_authentication_failure() {
    let keys = keys(SrtpProfile::AeadAes256Gcm);
    let (mut client, mut gateway) = (SrtpEndpoint::new(&keys), gateway(&keys));
    let mut packet = by(&mut gateway, &voice(1, b"voice"));
    *packet.last_mut().unwrap() ^= 1;
    assert_eq!(client.unprotect(&packet), Err(SrtpError::Forged));
    assert_eq!(client.unprotect(&[0x80, 111]), Err(SrtpError::Short));
    assert_eq!(counts(&client), [2, 0, 0]);
}
