use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use evenkeel_testkit::required;

use super::*;

const NEAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

#[required(Namespaces)]
#[test]
fn datagrams_cross_unless_the_link_is_cut() {
    let network = NamespaceNetwork::lay().unwrap();
    let near = network.host("near", NEAR).unwrap();
    let far = network.host("far", FAR).unwrap();
    let bind = |host: &Host| {
        let _inside = host.enter().unwrap();
        UdpSocket::bind((host.address(), 7_000)).unwrap()
    };
    let (sender, receiver) = (bind(&near), bind(&far));
    let crosses = |within| {
        receiver.set_read_timeout(Some(Duration::from_millis(within))).unwrap();
        // Fails if the cut is known at the near end.
        let _unsent = sender.send_to(b"over", (FAR, 7_000));
        receiver.recv(&mut [0; 8]).is_ok()
    };
    assert!(crosses(5_000));
    network.set_link(&near, false).unwrap();
    assert!(!crosses(300));
    network.set_link(&near, true).unwrap();
    assert!((0..50).any(|_| crosses(100)));
}

#[required(Namespaces)]
#[test]
fn thread_is_back_after_its_visit() {
    let network = NamespaceNetwork::lay().unwrap();
    let host = network.host("host", NEAR).unwrap();
    let outside = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = outside.local_addr().unwrap();
    {
        let _inside = host.enter().unwrap();
        assert!(TcpStream::connect(at).is_err(), "the loopback of the host is another");
    }
    assert!(TcpStream::connect(at).is_ok());
}
