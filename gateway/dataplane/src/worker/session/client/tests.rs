use std::net::SocketAddr;

use super::*;
use crate::worker::session::tests::install;

const LISTENER: u8 = 0;

fn source(port: u16) -> SourceKey {
    SourceKey { listener: LISTENER, address: SocketAddr::from(([10, 0, 0, 1], port)) }
}

fn client(client: &ClientAddressing, await_first_packet: bool) -> ClientSide {
    let media = install(client.clone(), Srtp::Plain, 0).media;
    ClientSide::new(client, &media, DscpMarks::default(), await_first_packet, true)
}

fn admit(client: &mut ClientSide, port: u16) -> Admission {
    client.admit(source(port).path(), b"RTP")
}

#[test]
fn source_needs_a_check_before_its_media() {
    let (mut client, now) = (client(&ClientAddressing::Stun, false), Instant::now());
    assert_eq!(admit(&mut client, 1), Admission::Refused);
    assert!(client.check(source(1).path(), false, now).is_new_destination);
    assert_eq!(admit(&mut client, 1), Admission::Accepted);
    assert_eq!(admit(&mut client, 2), Admission::Refused);
    assert!(!client.check(source(2).path(), false, now).is_new_destination);
    assert_eq!(admit(&mut client, 2), Admission::Accepted);
    assert_eq!(client.address().rtp(), Some(source(2)), "media follows the client");
    assert!(client.check(source(1).path(), true, now).is_new_destination);
    assert_eq!(admit(&mut client, 2), Admission::Accepted);
    assert_eq!(client.address().rtp(), Some(source(1)), "media follows nominations only");
    client.lose_address(source(2));
    assert_eq!(admit(&mut client, 2), Admission::Refused);
}

#[test]
fn port_is_learned_once() {
    let mut client = client(&ClientAddressing::DeclaredIp { listener: LISTENER }, false);
    assert_eq!(admit(&mut client, 4), Admission::Learns);
    client.learn(source(4).path(), RtcpPort::Own);
    let admitted = [4, 5, 6].map(|port| admit(&mut client, port));
    assert_eq!(admitted, [Admission::Accepted, Admission::Accepted, Admission::Refused]);
    assert_eq!(client.learned(), [source(4), source(5)]);
}

#[test]
fn first_packet_opens_the_way_to_awaited_addresses() {
    let address = source(4).address;
    let declared = ClientAddressing::Declared { listener: LISTENER, address, rtcp: address };
    let mut client = client(&declared, true);
    assert_eq!(client.address().rtp(), None);
    assert_eq!(admit(&mut client, 4), Admission::Accepted);
    assert_eq!(client.address().rtp(), Some(source(4)));
}

#[test]
fn only_clients_that_can_report_need_to() {
    let address = source(4).address;
    let declared = ClientAddressing::Declared { listener: LISTENER, address, rtcp: address };
    let needs = |client: &ClientAddressing, srtp| {
        let media = install(client.clone(), srtp, 0).media;
        [false, true].map(|await_report| {
            let marks = DscpMarks::default();
            ClientSide::new(client, &media, marks, false, await_report).needs_report()
        })
    };
    assert_eq!(needs(&declared, Srtp::Plain), [false, true]);
    assert_eq!(needs(&declared, Srtp::Opaque), [false, false]);
    assert_eq!(needs(&ClientAddressing::Stun, Srtp::Plain), [false, false]);
}

#[test]
fn sound_waits_as_long_as_its_client_and_goes_first() {
    let terms = |side, kind, latency| terms_of(side, kind, Latency(latency));
    let voice = SendTerms { priority: PacketPriority::Voice, latency_ms: 120 };
    assert_eq!(terms(RtpSide::Rtp, StreamKind::Audio, 120), voice);
    let report = SendTerms { latency_ms: 500, ..voice };
    for kind in [StreamKind::Audio, StreamKind::Video] {
        assert_eq!(terms(RtpSide::Rtcp, kind, 120), report);
    }
    let video = SendTerms { priority: PacketPriority::Video, latency_ms: 500 };
    assert_eq!(terms(RtpSide::Rtp, StreamKind::Video, 120), video);
    // 0 has another meaning in the link to a replaced process.
    assert_eq!(terms(RtpSide::Rtp, StreamKind::Audio, 0).latency_ms, 1);
}
