use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::*;

const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn bind(address: SocketAddr, turn: BindPass) -> Result<UdpSocket, RunError> {
    shared_socket(&mut address.clone(), turn, false)
}

/// The kernel does not give that port to a gateway with port 0 either, because it chooses among ports that are free.
#[test]
fn port_is_shared_within_one_gateway_only() {
    let first = bind(ANY, BindPass::First).unwrap();
    let port = first.local_addr().unwrap();
    let second = bind(port, BindPass::Later).unwrap();
    assert!(matches!(bind(port, BindPass::First), Err(RunError::Listen { .. })));

    // The kernel assigns each client to one of the two sockets.
    let clients: Vec<UdpSocket> = (0..64).map(|_| UdpSocket::bind(ANY).unwrap()).collect();
    for client in &clients {
        client.send_to(b"x", port).unwrap();
    }
    let mut came = [0; 2];
    let deadline = Instant::now() + Duration::from_secs(20);
    while came[0] + came[1] < clients.len() {
        assert!(Instant::now() < deadline, "{came:?} of {}", clients.len());
        for (count, socket) in came.iter_mut().zip([&first, &second]) {
            *count += std::iter::from_fn(|| socket.recv_from(&mut [0; 8]).ok()).count();
        }
    }
    assert!(came.iter().all(|count| *count > 0), "{came:?}");
}

#[test]
fn group_address_is_bound_before_it_is_held() {
    for address in ["192.0.2.10:0", "[2001:db8::10]:0"] {
        let address: SocketAddr = address.parse().unwrap();
        let own = shared_socket(&mut address.clone(), BindPass::First, false);
        assert!(matches!(own, Err(RunError::Listen { .. })), "{address}");
        let socket = shared_socket(&mut address.clone(), BindPass::First, true).unwrap();
        let bound = socket.local_addr().unwrap();
        assert_eq!(bound.ip(), address.ip());
        shared_socket(&mut bound.clone(), BindPass::Later, true).unwrap();
        // The kernel checks the source of IPv4 only.
        if address.is_ipv4() {
            assert!(socket.send_to(b"x", "127.0.0.1:9").is_err());
        }
    }
}
