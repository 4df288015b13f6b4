use std::time::Duration;

use super::*;
use crate::clock;

fn pair() -> (UdpSocket, UdpSocket) {
    let (a, b) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    b.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    (a, b)
}

#[test]
fn batch_keeps_order_source_and_stamp() {
    let (a, b) = pair();
    stamp_arrivals(&b).unwrap();
    let (mut outbox, mut inbox) = (DatagramOutbox::default(), DatagramInbox::new(2_048, 64));
    for round in 0..3u8 {
        let before = clock::now_ns();
        for i in 0..100u8 {
            outbox.push(b.local_addr().unwrap(), &[round, i]);
        }
        outbox.flush(&a);
        let mut seen = Vec::new();
        while seen.len() < 100 {
            assert!(inbox.receive(&b).unwrap() > 0);
            for datagram in inbox.iter() {
                assert_eq!(datagram.source, a.local_addr().unwrap());
                assert!(datagram.stamp_ns.unwrap() >= before);
                seen.push(datagram.bytes[1]);
            }
        }
        assert_eq!(seen, (0..100).collect::<Vec<u8>>());
    }
}

#[test]
fn inbox_serves_both_address_families() {
    let mut inbox = DatagramInbox::new(64, 4);
    for place in ["127.0.0.1:0", "[::1]:0", "127.0.0.1:0"] {
        let (a, b) = (UdpSocket::bind(place).unwrap(), UdpSocket::bind(place).unwrap());
        b.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        a.send_to(b"x", b.local_addr().unwrap()).unwrap();
        assert_eq!(inbox.receive(&b).unwrap(), 1);
        assert_eq!(inbox.iter().next().unwrap().source, a.local_addr().unwrap());
    }
}

#[test]
fn truncated_datagram_is_empty() {
    let (a, b) = pair();
    let mut inbox = DatagramInbox::new(8, 2);
    a.send_to(&[1; 9], b.local_addr().unwrap()).unwrap();
    a.send_to(&[2; 8], b.local_addr().unwrap()).unwrap();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        inbox.receive(&b).unwrap();
        seen.extend(inbox.iter().map(|datagram| datagram.bytes.to_vec()));
    }
    assert_eq!(seen, [vec![], vec![2; 8]]);
}
