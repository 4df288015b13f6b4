use std::io::ErrorKind;
use std::net::Ipv4Addr;

use super::*;

/// No host has it (RFC 5737).
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));
const SESSION: SessionId = SessionId(7);

/// Port numbers that are free at [`ELSEWHERE`].
fn free_ports() -> (u16, u16) {
    let [rtp, rtcp] = [0, 0].map(|port| bind(ELSEWHERE, port).unwrap());
    (rtp.local_addr().unwrap().port(), rtcp.local_addr().unwrap().port())
}

fn is_taken(port: u16) -> bool {
    match bind(ELSEWHERE, port) {
        Ok(_) => false,
        Err(error) => error.kind() == ErrorKind::AddrInUse,
    }
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
    assert_eq!([is_taken(old), is_taken(new)], [false, true]);
    reserved.retain(|session| session == SESSION);
    assert!(is_taken(new));
    reserved.forget(SESSION);
    assert!(!is_taken(new));
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
    assert!(reserved.reserve(SESSION, Some(ELSEWHERE), (port, None)));
}
