use std::net::UdpSocket;
use std::os::fd::AsFd;

use std::io;
use std::net::SocketAddr;

use super::*;

fn receive_all(
    inbox: &mut ReceiveBatch,
    socket: &UdpSocket,
    wanted: usize,
) -> Vec<(Vec<u8>, SocketAddr)> {
    let mut got = Vec::new();
    while got.len() < wanted {
        rustix::event::poll(
            &mut [rustix::event::PollFd::new(socket, rustix::event::PollFlags::IN)],
            None,
        )
        .unwrap();
        let count = inbox.receive(socket.as_fd()).unwrap();
        got.extend((0..count).filter_map(|at| inbox.datagram(at).map(|(b, a)| (b.to_vec(), a))));
    }
    got
}

#[test]
fn ipv6_socket_reaches_ipv4_and_sees_its_source() {
    let (here, there) =
        (UdpSocket::bind("[::]:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let mut outbox = SendBatch::new(Family::of(here.local_addr().unwrap()));
    outbox.push(Some(there.local_addr().unwrap()), 46, b"over");
    assert_eq!(outbox.flush(here.as_fd()).sent, 1);
    let (_, from) = receive_all(&mut ReceiveBatch::new(), &there, 1).remove(0);
    there.send_to(b"back", from).unwrap();
    let (bytes, from) = receive_all(&mut ReceiveBatch::new(), &here, 1).remove(0);
    assert_eq!((&*bytes, from), (b"back".as_slice(), there.local_addr().unwrap()));
}

#[test]
fn batch_arrives_in_order_with_its_sources() {
    for host in ["127.0.0.1:0", "[::1]:0"] {
        let (here, there) = (UdpSocket::bind(host).unwrap(), UdpSocket::bind(host).unwrap());
        let mut outbox = SendBatch::new(Family::V4);
        for number in 0..150_u8 {
            outbox.push(
                Some(there.local_addr().unwrap()),
                46,
                &vec![number; usize::from(number) + 1],
            );
        }
        assert!(outbox.is_full());
        assert_eq!(outbox.flush(here.as_fd()).sent, 150);
        assert!(outbox.is_empty());
        let got = receive_all(&mut ReceiveBatch::new(), &there, 150);
        for (number, (bytes, from)) in got.iter().enumerate() {
            assert_eq!(bytes, &vec![number as u8; number + 1]);
            assert_eq!(*from, here.local_addr().unwrap());
        }
    }
}

#[test]
fn too_long_datagram_is_rejected() {
    let (here, there) =
        (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    here.send_to(&[0; DATAGRAM_MAX + 1], there.local_addr().unwrap()).unwrap();
    here.send_to(&[0; DATAGRAM_MAX], there.local_addr().unwrap()).unwrap();
    let mut inbox = ReceiveBatch::new();
    assert_eq!(inbox.receive(there.as_fd()).unwrap(), 2);
    assert!(inbox.datagram(0).is_none());
    assert_eq!(inbox.datagram(1).map(|(bytes, _)| bytes.len()), Some(DATAGRAM_MAX));
}

#[test]
fn earlier_refusal_costs_no_datagram() {
    let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let here = UdpSocket::bind("127.0.0.1:0").unwrap();
    here.connect(gone).unwrap();
    here.send(b"first").unwrap();
    let mut outbox = SendBatch::new(Family::V4);
    outbox.push(None, 0, b"second");
    let outcome = outbox.flush(here.as_fd());
    assert_eq!(outcome.sent, 1);
    assert!(outcome.failed.is_empty());
}

#[test]
fn error_queue_names_port_and_datagram() {
    for (host, family) in [("127.0.0.1:0", Family::V4), ("[::1]:0", Family::V6)] {
        let gone = UdpSocket::bind(host).unwrap().local_addr().unwrap();
        let alive = UdpSocket::bind(host).unwrap();
        let here = UdpSocket::bind(host).unwrap();
        keep_errors(here.as_fd(), family).unwrap();
        let mut outbox = SendBatch::new(Family::V4);
        outbox.push(Some(gone), 0, b"a datagram to a closed port");
        outbox.flush(here.as_fd());
        rustix::event::poll(
            &mut [rustix::event::PollFd::new(&here, rustix::event::PollFlags::ERR)],
            None,
        )
        .unwrap();
        let mut accused = Vec::new();
        drain_errors(here.as_fd(), |address, error, quoted| {
            accused.push((address, error.kind(), quoted.to_vec()));
        });
        let quoted = b"a datagram to a closed port".to_vec();
        assert_eq!(accused, [(gone, io::ErrorKind::ConnectionRefused, quoted)]);
        outbox.push(Some(alive.local_addr().unwrap()), 0, b"y");
        assert_eq!(outbox.flush(here.as_fd()).sent, 1);
    }
}
