use std::net::UdpSocket;
use std::os::fd::AsFd;

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
    let (_, from) = receive_all(&mut ReceiveBatch::default(), &there, 1).remove(0);
    there.send_to(b"back", from).unwrap();
    let (bytes, from) = receive_all(&mut ReceiveBatch::default(), &here, 1).remove(0);
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
        let got = receive_all(&mut ReceiveBatch::default(), &there, 150);
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
    let mut inbox = ReceiveBatch::default();
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

/// Sends datagrams of these sizes and returns the sizes received.
fn travelled(here: &UdpSocket, sizes: &[usize]) -> (SendBatch, Vec<usize>) {
    let there = UdpSocket::bind("127.0.0.1:0").unwrap();
    there.set_nonblocking(true).unwrap();
    let mut outbox = SendBatch::new(Family::V4);
    for (number, &size) in sizes.iter().enumerate() {
        outbox.push(there.local_addr().ok(), 46, &vec![number as u8; size]);
    }
    assert_eq!(outbox.flush(here.as_fd()).sent, sizes.len());
    let mut bytes = [0; 4_096];
    let came = std::iter::from_fn(|| Some((there.recv(&mut bytes).ok()?, bytes[0])));
    let came = came.zip(0..).map(|((size, first), number)| {
        assert_eq!(first, number);
        size
    });
    let came = came.collect();
    (outbox, came)
}

#[test]
fn segmented_datagrams_arrive_unchanged() {
    let here = UdpSocket::bind("127.0.0.1:0").unwrap();
    let sizes = [1_200, 1_200, 1_200, 700, 1_200, 300, 300, 300, 301];
    assert_eq!(travelled(&here, &sizes).1, sizes);
    let many = [100; 150];
    assert_eq!(travelled(&here, &many).1, many);
}

#[test]
fn datagrams_of_one_size_and_destination_are_grouped() {
    let mut outbox = SendBatch::new(Family::V4);
    let [one, other] = ["10.0.0.1:1", "10.0.0.1:2"].map(|address| address.parse().ok());
    for (to, size, places) in
        [(one, 200, 1), (one, 200, 1), (one, 100, 1), (one, 100, 2), (other, 100, 3)]
    {
        outbox.push(to, 46, &vec![0; size]);
        assert_eq!(outbox.queue.len(), places);
    }
    outbox.push(other, 34, &[0; 100]);
    assert_eq!((outbox.queue.len(), outbox.len()), (4, 6), "another traffic class");
}

#[test]
fn group_keeps_to_the_kernels_limits() {
    let places = |size, datagrams| {
        let mut outbox = SendBatch::new(Family::V4);
        (0..datagrams).for_each(|_| _ = outbox.push(None, 0, &vec![0; size]));
        outbox.queue.iter().map(QueuedDatagrams::datagrams).collect::<Vec<_>>()
    };
    assert_eq!(places(1_400, 50), [46, 4], "64 KiB");
    assert_eq!(places(100, 70), [64, 6], "segments");
}

#[test]
fn failed_segmentation_is_not_tried_again() {
    let mut outbox = SendBatch::new(Family::V4);
    (0..3).for_each(|_| _ = outbox.push(None, 0, &[0; 100]));
    outbox.part(0, &io::Error::from_raw_os_error(libc::EIO));
    assert_eq!(outbox.queue.len(), 3);
    outbox.clear();
    (0..3).for_each(|_| _ = outbox.push(None, 0, &[0; 100]));
    assert_eq!(outbox.queue.len(), 3);
}

#[test]
fn oversized_group_is_sent_one_by_one() {
    let here = UdpSocket::bind("127.0.0.1:0").unwrap();
    // A socket without checksums refuses segmentation (EINVAL).
    let on: libc::c_int = 1;
    // SAFETY: the option takes an int, and gets one of its size.
    let set = unsafe {
        let option = std::ptr::from_ref(&on).cast();
        libc::setsockopt(here.as_raw_fd(), libc::SOL_SOCKET, libc::SO_NO_CHECK, option, 4)
    };
    assert_eq!(set, 0);
    let (outbox, came) = travelled(&here, &[500, 500, 400]);
    assert_eq!(came, [500, 500, 400]);
    assert!(outbox.segmented, "another path may be wide enough");
}

/// Returns the TOS byte of the next datagram (ip(7), IP_RECVTOS).
fn class_of_next(socket: &UdpSocket) -> u8 {
    let mut bytes = [0_u8; 64];
    let mut control = [0_u64; 8];
    let mut slice = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: all zeroes is valid for this plain C structure; what it points to lives until the call returns, and
    // the first control message is where the kernel wrote it.
    unsafe {
        let mut header: libc::msghdr = mem::zeroed();
        header.msg_iov = &mut slice;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control);
        assert!(libc::recvmsg(socket.as_raw_fd(), &mut header, 0) > 0);
        let message = libc::CMSG_FIRSTHDR(&header);
        assert_eq!((*message).cmsg_type, libc::IP_TOS);
        *libc::CMSG_DATA(message)
    }
}

fn receiver() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let on: libc::c_int = 1;
    // SAFETY: the option takes an int, and gets one of its size.
    let set = unsafe {
        let option = std::ptr::from_ref(&on).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_IP, libc::IP_RECVTOS, option, 4)
    };
    assert_eq!(set, 0);
    socket
}

#[test]
fn each_datagram_has_its_own_class() {
    for (host, family) in [("127.0.0.1:0", Family::V4), ("[::]:0", Family::V6)] {
        let (here, there) = (UdpSocket::bind(host).unwrap(), receiver());
        let mut outbox = SendBatch::new(family);
        for batch in [&[46][..], &[46], &[34], &[0, 34, 46], &[34, 34, 0], &[0]] {
            for (&dscp, length) in batch.iter().zip([9, 9, 8]) {
                outbox.push(there.local_addr().ok(), dscp, &vec![7; length]);
            }
            assert_eq!(outbox.flush(here.as_fd()).sent, batch.len());
            let came: Vec<u8> = batch.iter().map(|_| class_of_next(&there) >> 2).collect();
            assert_eq!(came, batch, "{family:?}");
        }
    }
}

/// A socket at all addresses of the host, and a client of it.
fn wildcard_and_client(bind: &str, client: &str) -> (UdpSocket, UdpSocket, u16) {
    let (here, there) = (UdpSocket::bind(bind).unwrap(), UdpSocket::bind(client).unwrap());
    let bound = here.local_addr().unwrap();
    report_local_addresses(here.as_fd(), Family::of(bound)).unwrap();
    (here, there, bound.port())
}

/// The local addresses that the socket reports of the next datagrams.
fn locals(here: &UdpSocket, inbox: &mut ReceiveBatch, wanted: usize) -> Vec<Option<IpAddr>> {
    let mut locals = Vec::new();
    while locals.len() < wanted {
        if let Ok(count) = inbox.fill_with_local(here.as_fd()) {
            locals.extend((0..count).map(|place| inbox.local(place)));
            (0..count).for_each(|_| inbox.finish_first());
        }
    }
    locals
}

fn received_from(there: &UdpSocket) -> (Vec<u8>, IpAddr) {
    let mut bytes = [0; 2_048];
    let (length, from) = there.recv_from(&mut bytes).unwrap();
    (bytes[..length].to_vec(), from.ip())
}

#[test]
fn answers_leave_from_the_address_sent_to() {
    for bind in ["0.0.0.0:0", "[::]:0"] {
        let (here, there, port) = wildcard_and_client(bind, "127.0.0.1:0");
        here.set_nonblocking(true).unwrap();
        let to = there.local_addr().unwrap();
        let addresses = [[127, 0, 0, 1], [127, 0, 0, 9], [127, 0, 0, 2]].map(IpAddr::from);
        for address in addresses {
            there.send_to(b"question", (address, port)).unwrap();
        }
        let mut inbox = ReceiveBatch::default();
        assert_eq!(locals(&here, &mut inbox, 3), addresses.map(Some));
        let mut outbox = SendBatch::new(Family::of(here.local_addr().unwrap()));
        // Alone, several of one size to be segmented, and with another mark.
        for (local, dscp, size) in
            [(1, 0, 9), (1, 0, 9), (1, 0, 5), (2, 46, 9), (0, 0, 9), (2, 46, 7)]
        {
            outbox.push_from(addresses[local], Some(to), dscp, &vec![local as u8; size]);
        }
        let outcome = outbox.flush(here.as_fd());
        assert_eq!((outcome.sent, outcome.from_route, outcome.failed.len()), (6, 0, 0));
        for (local, size) in [(1, 9), (1, 9), (1, 5), (2, 9), (0, 9), (2, 7)] {
            assert_eq!(received_from(&there), (vec![local as u8; size], addresses[local]));
        }
        outbox.push_from(addresses[1], Some(to), 0, b"alone");
        assert_eq!(outbox.flush(here.as_fd()).sent, 1);
        assert_eq!(received_from(&there), (b"alone".to_vec(), addresses[1]));
    }
}

#[test]
fn absent_local_address_costs_no_datagram() {
    for (bind, client, absent) in [
        ("0.0.0.0:0", "127.0.0.1:0", "203.0.113.7"),
        ("[::]:0", "127.0.0.1:0", "203.0.113.7"),
        ("[::]:0", "[::1]:0", "2001:db8::7"),
    ] {
        let (here, there, _) = wildcard_and_client(bind, client);
        let (to, absent) = (there.local_addr().unwrap(), absent.parse().unwrap());
        let mut outbox = SendBatch::new(Family::of(here.local_addr().unwrap()));
        for (local, size) in [(absent, 9), (absent, 9), (to.ip(), 3), (absent, 4)] {
            outbox.push_from(local, Some(to), 0, &vec![7; size]);
        }
        let outcome = outbox.flush(here.as_fd());
        let counts = (outcome.sent, outcome.from_route, outcome.failed.len());
        assert_eq!(counts, (4, 3, 0), "{bind} {client}");
        for size in [9, 9, 3, 4] {
            assert_eq!(received_from(&there), (vec![7; size], to.ip()));
        }
    }
}

#[test]
fn other_sockets_of_a_batch_report_no_local_address() {
    let (here, there, port) = wildcard_and_client("0.0.0.0:0", "127.0.0.1:0");
    let one = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut inbox = ReceiveBatch::default();
    for _ in 0..2 {
        for _ in 0..3 {
            there.send_to(b"question", ("127.0.0.9", port)).unwrap();
        }
        assert_eq!(locals(&here, &mut inbox, 3), [Some([127, 0, 0, 9].into()); 3]);
        there.send_to(b"question", one.local_addr().unwrap()).unwrap();
        assert_eq!(inbox.receive(one.as_fd()).unwrap(), 1);
        assert_eq!(inbox.local(0), None);
    }
}
