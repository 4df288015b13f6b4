use std::net::UdpSocket;
use std::pin::pin;

use super::*;

fn socket() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").unwrap()
}

fn sockets() -> NamedSockets {
    let address = "127.0.0.1:7000".parse().unwrap();
    let names = [SocketName::Rtp { address, worker: 0 }, SocketName::Quic { address }];
    names.map(|name| (name, OwnedFd::from(socket()))).into()
}

#[test]
fn short_buffer_names_the_setting() {
    let full = UpgradeBuffer { bytes: WIDE };
    assert!(!full.is_short());
    assert_eq!(
        full.to_string(),
        "during an upgrade packets wait in 4096 KiB per socket: 200 ms of 50,000 a second"
    );
    let short = UpgradeBuffer { bytes: WIDE / 20 };
    assert!(short.is_short());
    let text = short.to_string();
    assert!(text.contains("204 KiB per socket: 10 ms of"), "{text}");
    assert!(text.ends_with("set `net.core.rmem_max` to 4194304 for 200 ms"), "{text}");
}

#[test]
fn granted_size_is_that_of_a_socket() {
    let socket = socket();
    buffers::set_receive_size(&socket, WIDE);
    assert_eq!(UpgradeBuffer::granted().bytes, buffers::receive_size(&socket));
}

#[tokio::test(start_paused = true)]
async fn sockets_of_packets_are_wide_for_a_while() {
    let sockets = sockets();
    let sizes = |sockets: &NamedSockets| -> Vec<usize> {
        sockets.iter().map(|(_, socket)| buffers::receive_size(socket)).collect()
    };
    let narrow = sizes(&sockets);
    // A machine with a lower limit grants the same before and after.
    let buffer = UpgradeBuffer { bytes: WIDE.min(UpgradeBuffer::granted().bytes) };
    buffer.widen(&sockets);
    let wide = sizes(&sockets);
    assert!(wide[0] >= buffer.bytes.min(SOCKET_BUFFER + 1) || wide == narrow, "{wide:?}");
    assert_eq!(wide[1], narrow[1], "not of the packet path");
    let began = tokio::time::Instant::now();
    buffer.narrow(&sockets).await;
    assert!(sizes(&sockets)[0] <= SOCKET_BUFFER.max(narrow[0]));
    assert!(began.elapsed() < WIDE_FOR + CHECK_EVERY);
}

#[tokio::test(start_paused = true)]
async fn socket_with_packets_stays_wide() {
    let (near, far) = (socket(), socket());
    near.send_to(b"waits", far.local_addr().unwrap()).unwrap();
    let name = SocketName::Rtp { address: far.local_addr().unwrap(), worker: 0 };
    let sockets = vec![(name, OwnedFd::from(far.try_clone().unwrap()))];
    let buffer = UpgradeBuffer { bytes: WIDE };
    buffer.widen(&sockets);
    let wide = buffers::receive_size(&far);
    let mut narrowing = pin!(buffer.narrow(&sockets));
    let waits = tokio::time::timeout(WIDE_FOR * 2, &mut narrowing).await;
    assert!(waits.is_err());
    assert_eq!(buffers::receive_size(&far), wide);
    far.recv(&mut [0; 8]).unwrap();
    let narrowed = tokio::time::timeout(CHECK_EVERY * 2, narrowing).await;
    assert!(narrowed.is_ok());
    assert!(buffers::receive_size(&far) <= SOCKET_BUFFER);
}

#[tokio::test(start_paused = true)]
async fn overloaded_socket_is_narrowed_in_the_end() {
    let (near, far) = (socket(), socket());
    near.send_to(b"waits", far.local_addr().unwrap()).unwrap();
    let name = SocketName::Rtp { address: far.local_addr().unwrap(), worker: 0 };
    let sockets = vec![(name, OwnedFd::from(far))];
    let buffer = UpgradeBuffer { bytes: WIDE };
    buffer.widen(&sockets);
    buffer.narrow(&sockets).await;
    assert!(buffers::receive_size(&sockets[0].1) <= SOCKET_BUFFER);
}
