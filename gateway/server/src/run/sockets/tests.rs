use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::*;

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn bind(address: SocketAddr, turn: Turn) -> Result<UdpSocket, Failure> {
    shared_socket(&mut address.clone(), turn)
}

/// The kernel does not give that port to a gateway with port 0 either, because it chooses among ports that are free.
#[test]
fn port_is_shared_within_one_gateway_only() {
    let first = bind(ANY, Turn::First).unwrap();
    let port = first.local_addr().unwrap();
    let second = bind(port, Turn::Later).unwrap();
    assert!(matches!(bind(port, Turn::First), Err(Failure::Listen { .. })));

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
