use std::net::UdpSocket;
use std::os::fd::AsFd;

use super::super::{Family, SendBatch};
use super::*;

/// Returns the TOS byte of the next datagram (ip(7), IP_RECVTOS).
fn class_of_next(socket: &UdpSocket) -> u8 {
    let mut bytes = [0_u8; 64];
    let mut control = [0_u64; 8];
    let mut slice = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: all zeroes is valid for this plain C structure; what it points to lives until the call returns, and
    // the first control message is where the kernel wrote it.
    unsafe {
        let mut header: libc::msghdr = std::mem::zeroed();
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
