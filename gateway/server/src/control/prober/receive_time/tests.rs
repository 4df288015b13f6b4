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

#[tokio::test]
async fn receive_time_is_arrival_not_read() {
    let ours = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    stamp(&ours).unwrap();
    ours.set_nonblocking(true).unwrap();
    let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let own = ours.local_addr().unwrap();
    let ours = UdpSocket::from_std(ours).unwrap();
    let mut buffer = [0; 16];
    // If the machine stalls for a second the timestamp is not plausible.
    for _ in 0..10 {
        peer.send_to(b"words", own).unwrap();
        let sent = Instant::now();
        std::thread::sleep(MS * 50);
        let late = Instant::now();
        let (length, at) = receive(&ours, &mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"words");
        assert!(at + MS * 50 > sent, "not before it was sent");
        if at <= late {
            return;
        }
    }
    panic!("it was there before it was read");
}

#[tokio::test]
async fn refused_datagram_is_an_error() {
    let ours = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let nobody = {
        let gone = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        gone.local_addr().unwrap()
    };
    ours.connect(nobody).unwrap();
    ours.set_nonblocking(true).unwrap();
    let ours = UdpSocket::from_std(ours).unwrap();
    ours.send(b"words").await.unwrap();
    let error = receive(&ours, &mut [0; 16]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}
