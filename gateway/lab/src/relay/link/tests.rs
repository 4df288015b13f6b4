use std::cell::Cell;
use std::time::Duration;

use super::*;

const SOON: Duration = Duration::from_secs(10);

/// Longer than any test.
const NEVER: Duration = Duration::from_secs(86_400);

fn local() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind(local()).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

fn hear(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut bytes = [0; 100];
    let (length, source) = socket.recv_from(&mut bytes).unwrap();
    (bytes[..length].to_vec(), source)
}

#[test]
fn each_sender_gets_its_own_answers() {
    let node = socket();
    let link = Link::start(local(), node.local_addr().unwrap(), 1).unwrap();
    let senders = [socket(), socket()];
    for (sender, word) in senders.iter().zip([b"one", b"two"]) {
        sender.send_to(word, link.near()).unwrap();
        let (heard, far) = hear(&node);
        assert_eq!(heard, word);
        node.send_to(&heard, far).unwrap();
    }
    for (sender, word) in senders.iter().zip([b"one", b"two"]) {
        assert_eq!(hear(sender), (word.to_vec(), link.near()));
    }
}

#[test]
fn blackout_affects_one_direction() {
    let node = socket();
    let link = Link::start(local(), node.local_addr().unwrap(), 1).unwrap();
    let gateway = socket();
    link.set(Direction::Down, Conditions { blackout: true, ..Conditions::default() });
    gateway.send_to(b"one", link.near()).unwrap();
    let (_, far) = hear(&node);
    node.send_to(b"lost", far).unwrap();
    let until = Instant::now() + SOON;
    while link.tally().dropped == 0 {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(1));
    }
    link.set_both(Conditions::default());
    node.send_to(b"two", far).unwrap();
    assert_eq!(hear(&gateway).0, b"two");
}

#[test]
fn link_refuses_like_its_node_until_reopened() {
    let node = socket();
    let at = node.local_addr().unwrap();
    let link = Link::start(local(), at, 1).unwrap();
    let gateway = socket();
    gateway.connect(link.near()).unwrap();
    drop(node);
    let until = Instant::now() + SOON;
    gateway.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    loop {
        let refused = gateway.send(b"is anybody there").and_then(|_| gateway.recv(&mut [0]));
        if refused.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            break;
        }
        assert!(Instant::now() < until);
    }
    let node = UdpSocket::bind(at).unwrap();
    node.set_read_timeout(Some(SOON)).unwrap();
    link.reopen().unwrap();
    let _refused_before = gateway.take_error();
    gateway.send(b"again").unwrap();
    assert_eq!(hear(&node).0, b"again");
}

#[test]
fn late_refusal_does_not_close_the_link() {
    let node = socket();
    let at = node.local_addr().unwrap();
    let link = Link::start(local(), at, 1).unwrap();
    link.set(Direction::Down, Conditions { delay: NEVER, ..Conditions::default() });
    let gateway = socket();
    drop(node);
    let is_refusing = || {
        let found = Cell::new(false);
        link.pump.world().late.retain(|kept| {
            found.set(found.get() || matches!(kept, Delayed::Refusal));
            true
        });
        found.get()
    };
    let until = Instant::now() + SOON;
    while !is_refusing() {
        gateway.send_to(b"is anybody there", link.near()).unwrap();
        assert!(Instant::now() < until);
    }
    let _node = UdpSocket::bind(at).unwrap();
    link.reopen().unwrap();
    assert!(!is_refusing());
}

#[test]
fn datagram_that_is_too_long_does_not_cross() {
    let node = socket();
    let link = Link::start(local(), node.local_addr().unwrap(), 1).unwrap();
    let gateway = socket();
    link.set_mtu(4);
    gateway.send_to(b"12345", link.near()).unwrap();
    gateway.send_to(b"1234", link.near()).unwrap();
    assert_eq!(hear(&node).0, b"1234");
    assert_eq!(link.tally().dropped, 1);
}
