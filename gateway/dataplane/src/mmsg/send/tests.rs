use std::net::UdpSocket;
use std::os::fd::AsFd;

use super::super::{Family, SendBatch};
use super::*;

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
    // SAFETY: as in `set`.
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
