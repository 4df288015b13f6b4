use super::*;

const MS: Duration = Duration::from_millis(1);

#[test]
fn implausible_timestamp_defaults_to_now() {
    let (now, epoch) = (Instant::now() + MS * 5_000, MS * 90_000);
    let waited = |stamped| now - arrived(stamped, epoch, now);
    assert_eq!(waited(Some(epoch - MS * 7)), MS * 7);
    assert_eq!(waited(Some(epoch)), Duration::ZERO);
    assert_eq!(waited(None), Duration::ZERO, "no stamp");
    assert_eq!(waited(Some(epoch + MS)), Duration::ZERO, "of a later time: the clock went back");
    assert_eq!(waited(Some(epoch - MS * 1_001)), Duration::ZERO, "the clock was set");
}

/// A socket connected to another one.
fn pair() -> (UdpSocket, std::net::UdpSocket) {
    let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let ours = connected(peer.local_addr().unwrap()).unwrap();
    (UdpSocket::from_std(ours).unwrap(), peer)
}

#[tokio::test]
async fn receive_time_is_arrival_not_read() {
    let (ours, peer) = pair();
    let own = ours.local_addr().unwrap();
    let mut buffer = [0; 16];
    let mut is_arrival = false;
    // If the machine stalls for a second the timestamp is not plausible.
    for _ in 0..10 {
        peer.send_to(b"words", own).unwrap();
        let sent = Instant::now();
        std::thread::sleep(MS * 50);
        let late = Instant::now();
        let Received::Datagram(length, at) = receive(&ours, &mut buffer).await.unwrap() else {
            panic!()
        };
        assert_eq!(&buffer[..length], b"words");
        assert!(at + MS * 50 > sent, "not before it was sent");
        is_arrival = at <= late;
        if is_arrival {
            break;
        }
    }
    assert!(is_arrival, "it was there before it was read");
}

#[tokio::test]
async fn refused_datagrams_are_returned_in_order() {
    let (ours, peer) = pair();
    let own = ours.local_addr().unwrap();
    peer.send_to(b"words", own).unwrap();
    drop(peer);
    ours.writable().await.unwrap();
    // The kernel returns the error of the first at the second one.
    assert_eq!(send(&ours, b"first").unwrap(), 5);
    assert_eq!(send(&ours, b"second").unwrap(), 6);
    let mut buffer = [0; 16];
    let Received::Refused(refused) = receive(&ours, &mut buffer).await.unwrap() else { panic!() };
    let refused: Vec<&[u8]> = refused.iter().map(|quoted| &**quoted).collect();
    assert_eq!(refused, [&b"first"[..], b"second"]);
    let received = receive(&ours, &mut buffer).await.unwrap();
    assert!(matches!(received, Received::Datagram(5, _)), "{received:?}");
}
