use std::net::UdpSocket;
use std::os::fd::AsFd;

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
