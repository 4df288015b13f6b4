mod ice;
mod record;

use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use evenkeel_config::Traceparent;
use evenkeel_dataplane::quic::ShortLivedCertificates;
use evenkeel_model::{Labels, Srtp};
use evenkeel_testkit::udp;

use super::*;

/// No host has it (RFC 5737).
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));
const SESSION: SessionId = SessionId(7);

/// Port numbers that are free at [`ELSEWHERE`].
fn free_ports() -> (u16, u16) {
    let sockets = [0, 0].map(|port| bind(ELSEWHERE, port).unwrap());
    let ports = sockets.each_ref().map(|socket| socket.local_addr().unwrap().port());
    drop(sockets);
    ports.into_iter().for_each(await_free);
    ports.into()
}

fn is_taken(port: u16) -> bool {
    udp::is_open((ELSEWHERE, port).into())
}

fn await_free(port: u16) {
    udp::await_closed((ELSEWHERE, port).into());
}

#[test]
fn ports_are_reserved_before_their_address_comes() {
    let (rtp, rtcp) = free_ports();
    let mut reserved = ReservedPorts::new(Some(ELSEWHERE));
    for _ in 0..2 {
        reserved.reserve(SESSION, Some(ELSEWHERE), (rtp, Some(rtcp)));
        assert!(is_taken(rtp) && is_taken(rtcp));
    }
    let taken = reserved.take(SESSION).into_iter().map(UdpSocket::from);
    let taken: Vec<SocketAddr> = taken.map(|socket| socket.local_addr().unwrap()).collect();
    assert_eq!(taken, [rtp, rtcp].map(|port| SocketAddr::new(ELSEWHERE, port)));
    assert!(reserved.take(SESSION).is_empty());
}

#[test]
fn reserved_ports_follow_the_records() {
    let (old, new) = free_ports();
    let mut reserved = ReservedPorts::new(Some(ELSEWHERE));
    reserved.reserve(SESSION, Some(ELSEWHERE), (old, None));
    reserved.reserve(SESSION, Some(ELSEWHERE), (new, None));
    await_free(old);
    assert!(is_taken(new));
    reserved.retain(|session| session == SESSION);
    assert!(is_taken(new));
    reserved.forget(SESSION);
    await_free(new);
}

#[test]
fn ports_at_another_address_are_not_reserved() {
    let (port, _) = free_ports();
    for (here, there) in [
        (None, Some(ELSEWHERE)),
        (Some(ELSEWHERE), None),
        (Some([127, 0, 0, 1].into()), Some(ELSEWHERE)),
    ] {
        let mut reserved = ReservedPorts::new(here);
        reserved.reserve(SESSION, there, (port, None));
        assert!(!is_taken(port) && reserved.take(SESSION).is_empty());
    }
}

#[test]
fn taken_port_is_reserved_once_it_is_free() {
    let (rtp, rtcp) = free_ports();
    let mut reserved = ReservedPorts::new(Some(ELSEWHERE));
    let other = bind(ELSEWHERE, rtcp).unwrap();
    reserved.reserve(SESSION, Some(ELSEWHERE), (rtp, Some(rtcp)));
    assert!(!is_taken(rtp), "a session has all of its ports or none");
    drop(other);
    await_free(rtcp);
    reserved.reserve(SESSION, Some(ELSEWHERE), (rtp, Some(rtcp)));
    assert_eq!(reserved.take(SESSION).len(), 2);
}

#[test]
fn port_that_is_not_free_is_told() {
    let (port, _) = free_ports();
    let taken = bind(ELSEWHERE, port).unwrap();
    let mut reserved = ReservedPorts::new(Some(ELSEWHERE));
    assert!(!reserved.reserve(SESSION, Some(ELSEWHERE), (port, None)));
    assert!(reserved.reserve(SESSION, None, (port, None)), "it is at another address");
    drop(taken);
    await_free(port);
    assert!(reserved.reserve(SESSION, Some(ELSEWHERE), (port, None)));
}

fn listener(ip: &str, carrier: Option<&str>) -> ListenerAddress {
    let ip: IpAddr = ip.parse().unwrap();
    let rtcp = Some(SocketAddr::new(ip, 5_005));
    ListenerAddress { rtp: SocketAddr::new(ip, 5_004), rtcp, carrier: carrier.map(Arc::from) }
}

/// The addresses of RTP and RTCP that an offer of this carrier's client is answered with, over UDP and over QUIC. `others`: those of
/// the listeners beside 203.0.113.1.
fn told(others: &[ListenerAddress], carrier: &str, rtcp: RtcpPort) -> [Vec<String>; 3] {
    let addresses =
        ListenerAddresses { default: listener("203.0.113.1", None), others: others.to_vec() };
    let udp = UdpListener {
        addresses: addresses.clone(),
        bound: ([0, 0, 0, 0], 5_004).into(),
        declared: false,
        declared_ip: false,
        stun: true,
        open: None,
    };
    let quic = QuicListener { addresses, certificate_sha256: [7; 32], short_lived: None };
    let (flows, traces) = (Arc::new(Flows::new(16)), TraceRegistry::new(Traceparent::Link));
    let mut registry =
        SessionRegistry::new(vec![udp], Some(quic), flows, None, false, 1, Arc::new(traces));
    let mut answer = |session, ingress, rtcp| {
        let offer = Offer {
            id: OfferId(session),
            scenario: "call".into(),
            room: "room".into(),
            labels: [("carrier".into(), carrier.into())].into(),
            ingress,
            media: Arc::new(MediaDescription::new(Vec::new(), rtcp, Srtp::Plain)),
        };
        let mut random = |bytes: &mut [u8]| bytes.fill(session as u8);
        let registered = registry.register(SessionId(session), &offer, Vec::new(), &mut random);
        registered.unwrap().reached
    };
    let texts = |all: &Vec<SocketAddr>| all.iter().map(ToString::to_string).collect();
    let by_udp = answer(1, IngressProtocol::Udp(ClientIdentity::Stun), rtcp);
    let IngressAnswer::Udp { addresses: udp, rtcp, .. } = &by_udp else { panic!("{by_udp:?}") };
    let by_quic = answer(2, IngressProtocol::Quic, RtcpPort::Mux);
    let IngressAnswer::Quic { addresses: quic, .. } = &by_quic else { panic!("{by_quic:?}") };
    [udp, rtcp, quic].map(texts)
}

#[test]
fn carriers_address_comes_before_an_alternate() {
    let of = |ips: [u8; 2], port| ips.map(|ip| format!("203.0.113.{ip}:{port}")).to_vec();
    let others = [listener("203.0.113.2", Some("ct")), listener("203.0.113.3", Some("cu"))];
    for (carrier, ips) in [("ct", [2, 1]), ("cu", [3, 1]), ("cm", [1, 2]), ("", [1, 2])] {
        let rtp = of(ips, 5_004);
        let [udp, rtcp, quic] = told(&others, carrier, RtcpPort::Mux);
        assert_eq!((&udp, &quic), (&rtp, &rtp), "{carrier}");
        assert_eq!(rtcp, [""; 0], "on the port of RTP");
        let [_, own, _] = told(&others, carrier, RtcpPort::Own);
        assert_eq!(own, of(ips, 5_005), "{carrier}");
    }
}

#[test]
fn both_ip_versions_of_a_carrier_are_told() {
    let others = [
        listener("2001:db8::1", None),
        listener("203.0.113.2", Some("ct")),
        listener("2001:db8::2", Some("ct")),
        listener("2001:db8::3", Some("cu")),
    ];
    for (carrier, ips) in [
        ("", ["203.0.113.1", "2001:db8::1", "203.0.113.2"].to_vec()),
        ("ct", ["203.0.113.2", "2001:db8::2", "203.0.113.1"].to_vec()),
        ("cu", ["2001:db8::3", "203.0.113.1"].to_vec()),
    ] {
        let of = |port| -> Vec<String> {
            let all = ips.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), port).to_string());
            all.collect()
        };
        let [udp, rtcp, quic] = told(&others, carrier, RtcpPort::Own);
        assert_eq!((udp, rtcp, quic), (of(5_004), of(5_005), of(5_004)), "{carrier}");
    }
}

#[test]
fn webtransport_client_is_told_the_certificates_in_use() {
    let now = SystemTime::now();
    let short_lived =
        Arc::new(ShortLivedCertificates::generate(vec!["localhost".into()], now).unwrap());
    let address =
        ListenerAddress { rtp: ([203, 0, 113, 1], 4_433).into(), rtcp: None, carrier: None };
    let quic = QuicListener {
        addresses: ListenerAddresses { default: address, others: Vec::new() },
        certificate_sha256: [7; 32],
        short_lived: Some(Arc::clone(&short_lived)),
    };
    let (flows, traces) = (Arc::new(Flows::new(16)), TraceRegistry::new(Traceparent::Link));
    let mut registry =
        SessionRegistry::new(Vec::new(), Some(quic), flows, None, false, 1, Arc::new(traces));
    let media = MediaDescription::new(Vec::new(), RtcpPort::Mux, Srtp::Plain);
    let mut told = |session| {
        let offer = Offer {
            id: OfferId(session),
            scenario: "call".into(),
            room: "room".into(),
            labels: Labels::default(),
            ingress: IngressProtocol::WebTransport,
            media: Arc::new(media.clone()),
        };
        registry.admits(&offer.ingress).unwrap();
        let mut random = |bytes: &mut [u8]| bytes.fill(session as u8);
        let registered = registry.register(SessionId(session), &offer, Vec::new(), &mut random);
        match registered.unwrap().reached {
            IngressAnswer::Quic { short_lived_sha256, .. } => short_lived_sha256,
            other => panic!("{other:?}"),
        }
    };
    let [_, next] = short_lived.sha256();
    assert_eq!(told(1), short_lived.sha256());
    assert!(short_lived.renew(now + Duration::from_secs(8 * 24 * 60 * 60)).unwrap());
    let later = told(2);
    assert_eq!(later, short_lived.sha256());
    assert_eq!(later[0], next);
}

#[test]
fn entry_takes_80_bytes() {
    assert_eq!(size_of::<SessionEntry>(), 80, "there is one per session");
}
