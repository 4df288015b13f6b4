use std::net::Ipv6Addr;
use std::time::Duration;

use evenkeel_testkit::udp::await_closed;

use super::*;

const EVERY: Duration = Duration::from_millis(5);

/// The watch of a gateway; its peer is at the discard port.
struct Scene {
    watch: GatewayPort,
    peer: SocketAddr,
    now: Instant,
}

impl Scene {
    fn new(address: SocketAddr) -> Scene {
        let now = Instant::now();
        let peer = SocketAddr::new(address.ip(), 9);
        let watch =
            GatewayPort::new(GatewayConfigEntry { address, peer, every: EVERY }, now).unwrap();
        Scene { watch, peer, now }
    }

    fn look(&mut self) -> PortState {
        self.watch.handle_timeout(self.now);
        self.now += EVERY;
        self.watch.port
    }
}

fn connected(address: SocketAddr, peer: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap();
    socket.connect(peer).unwrap();
    socket
}

/// An address with a free port.
fn free(ip: IpAddr) -> Option<SocketAddr> {
    let address = UdpSocket::bind((ip, 0)).ok()?.local_addr().ok()?;
    await_closed(address);
    Some(address)
}

#[test]
fn end_shows_only_after_the_port_was_open() {
    for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let Some(address) = free(ip) else { continue };
        let mut scene = Scene::new(address);
        assert_eq!([scene.look(), scene.look()], [PortState::Silent; 2], "{address}");
        let socket = UdpSocket::bind(address).unwrap();
        assert_eq!(scene.look(), PortState::Up, "not connected yet");
        socket.connect(scene.peer).unwrap();
        assert_eq!(scene.look(), PortState::Up);
        drop(socket);
        await_closed(address);
        assert_eq!([scene.look(), scene.look()], [PortState::Closed; 2]);
        let _started_again = connected(address, scene.peer);
        assert_eq!(scene.look(), PortState::Up);
    }
}

#[test]
fn port_stays_open_while_one_process_has_it() {
    let mut scene = Scene::new(free(Ipv4Addr::LOCALHOST.into()).unwrap());
    let former = connected(scene.watch.gateway.address, scene.peer);
    assert_eq!(scene.look(), PortState::Up);
    let next = former.try_clone().unwrap();
    drop(former);
    assert_eq!(scene.look(), PortState::Up, "an upgrade");
    drop(next);
    await_closed(scene.watch.gateway.address);
    assert_eq!(scene.look(), PortState::Closed);
}

#[test]
fn socket_towards_another_peer_is_no_gateway() {
    let mut scene = Scene::new(free(Ipv4Addr::LOCALHOST.into()).unwrap());
    let _other = connected(scene.watch.gateway.address, (Ipv4Addr::LOCALHOST, 7).into());
    assert_eq!(scene.look(), PortState::Silent);
}

#[test]
fn kernel_is_asked_once_per_interval() {
    let mut scene = Scene::new(free(Ipv4Addr::LOCALHOST.into()).unwrap());
    assert!(!scene.watch.handle_timeout(scene.now));
    let _gateway = connected(scene.watch.gateway.address, scene.peer);
    let due = scene.watch.due;
    assert_eq!(due, scene.now + EVERY);
    assert!(!scene.watch.handle_timeout(due - Duration::from_micros(1)));
    assert!(scene.watch.handle_timeout(due), "the port is open");
    assert!(!scene.watch.handle_timeout(due + EVERY), "it was before");
}

#[test]
fn other_errors_say_nothing_about_the_port() {
    let error = |errno: Errno| {
        let mut answer = vec![0; HEAD_LEN];
        answer[4..6].copy_from_slice(&(libc::NLMSG_ERROR as u16).to_ne_bytes());
        answer.extend((-(errno as i32)).to_ne_bytes());
        answer
    };
    assert_eq!(read(&error(Errno::ENOENT)), Some(false));
    assert_eq!(read(&error(Errno::ENOMEM)), None);
    assert_eq!([read(&[]), read(&error(Errno::ENOENT)[..HEAD_LEN])], [None; 2]);
}
