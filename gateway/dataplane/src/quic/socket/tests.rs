use std::net::Ipv4Addr;

use super::*;

#[test]
fn kept_datagram_shares_no_memory() {
    let mut socket = QuicSocket::listen((Ipv4Addr::LOCALHOST, 0).into(), false).unwrap();
    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    for number in 0..3 {
        client.send_to(&[number; 40], socket.socket.local_addr().unwrap()).unwrap();
    }
    let mut received = VecDeque::new();
    while received.len() < 3 {
        socket.receive(&mut received);
    }
    for (number, (from, datagram)) in (0..).zip(received) {
        assert_eq!(from.source, client.local_addr().unwrap());
        assert_eq!((&datagram[..], datagram.capacity()), (&[number; 40][..], 40));
        assert!(datagram.freeze().is_unique());
    }
}
