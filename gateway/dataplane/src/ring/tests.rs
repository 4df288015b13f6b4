use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::*;

#[test]
fn packets_survive_the_wrap_around() {
    let (mut sender, mut receiver) = channel(7).unwrap();
    for round in 0..if cfg!(miri) { 20 } else { 500 } {
        let length = (round * 379 % 1_400) as usize;
        let sent: Vec<u8> = (0..length).map(|at| (at as u64 + round) as u8).collect();
        sender.push(media(round), &sent).unwrap();
        let mut got = Vec::new();
        let count = receiver.pop_batch(8, |meta, bytes| got.push((meta.flow, bytes.to_vec())));
        assert_eq!((count, got), (1, vec![(round, sent)]));
    }
}

#[test]
fn packet_whose_taker_panicked_is_repeated() {
    let (mut sender, mut receiver) = channel(8).unwrap();
    for number in 0..3u8 {
        sender.push(media(number.into()), &vec![number; 100 + usize::from(number)]).unwrap();
    }
    let panics = std::panic::AssertUnwindSafe(|| {
        receiver.pop_batch(8, |meta, _| assert_eq!(meta.flow, 0));
    });
    std::panic::catch_unwind(panics).unwrap_err();
    let mut got = Vec::new();
    receiver.pop_batch(8, |meta, bytes| got.push((meta.flow, bytes.to_vec())));
    assert_eq!(got, [(1, vec![1; 101]), (2, vec![2; 102])]);
}

#[test]
fn ring_full_of_packets_rejects_more() {
    let (mut sender, mut receiver) = channel(5).unwrap();
    for number in 0..5 {
        assert_eq!(sender.push(media(number), b"voice"), Ok(()));
    }
    assert_eq!(sender.push(media(5), b"voice"), Err(RingFull));
    assert_eq!(flows(&mut receiver, 9), [0, 1, 2, 3, 4]);
    assert_eq!(sender.push(media(6), b"voice"), Ok(()));
    assert_eq!(flows(&mut receiver, 9), [6]);
}

#[test]
fn ring_full_of_bytes_rejects_more() {
    let (mut sender, mut receiver) = channel(5).unwrap();
    let room = 5 * BYTES_PER_SLOT;
    assert_eq!(sender.push(media(0), &[7; 2_000]), Ok(()));
    assert_eq!(sender.push(media(1), &vec![8; room - 1_999]), Err(RingFull));
    assert_eq!(sender.push(media(2), &vec![9; room - 2_000]), Ok(()));
    let mut got = Vec::new();
    receiver.pop_batch(9, |_, bytes| got.push((bytes.len(), bytes[0])));
    assert_eq!(got, [(2_000, 7), (room - 2_000, 9)]);
}

#[test]
fn entry_longer_than_the_limit_is_rejected() {
    let (mut sender, _receiver) = channel(64).unwrap();
    assert_eq!(sender.push(media(0), &[0; ENTRY_MAX + 1]), Err(RingFull));
    assert_eq!(sender.push(media(0), &[0; ENTRY_MAX]), Ok(()));
}

#[test]
fn batch_is_no_larger_than_requested() {
    let (mut sender, mut receiver) = channel(8).unwrap();
    for number in 0..5 {
        sender.push(media(number), b"").unwrap();
    }
    assert_eq!(flows(&mut receiver, 3), [0, 1, 2]);
    assert_eq!(flows(&mut receiver, 3), [3, 4]);
}

#[test]
fn only_sleeping_receiver_is_woken_and_once() {
    let (mut sender, mut receiver) = channel(8).unwrap();
    assert!(!readable(&receiver));
    sender.push(media(0), b"a").unwrap();
    sender.wake();
    sender.wake();
    assert!(readable(&receiver));
    // The batch did not empty the ring, so the receiver counts as awake: a wake-up writes nothing.
    sender.push(media(1), b"b").unwrap();
    assert_eq!(flows(&mut receiver, 1), [0]);
    assert!(!readable(&receiver));
    sender.wake();
    assert!(!readable(&receiver));
    assert_eq!(flows(&mut receiver, 9), [1]);
    sender.wake();
    assert!(readable(&receiver), "asleep again after an empty look");
}

#[test]
fn no_packet_or_wakeup_is_lost_between_threads() {
    const PACKETS: u64 = if cfg!(miri) { 300 } else { 200_000 };
    let (mut sender, mut receiver) = channel(32).unwrap();
    let sending = std::thread::spawn(move || {
        for number in 0..PACKETS {
            let bytes = number.to_be_bytes();
            while sender.push(media(number), &bytes[..1 + (number % 8) as usize]).is_err() {
                sender.wake();
                std::thread::yield_now();
            }
            if number % 5 == 0 {
                sender.wake();
            }
        }
        sender.wake();
    });
    let mut next = 0;
    while next < PACKETS {
        let taken = receiver.pop_batch(16, |meta, bytes| {
            assert_eq!(meta.flow, next);
            assert_eq!(bytes, &next.to_be_bytes()[..1 + (next % 8) as usize]);
            next += 1;
        });
        if taken < 16 && next < PACKETS {
            assert!(readable_within(&receiver, Duration::from_secs(20)), "slept for ever");
        }
    }
    sending.join().unwrap();
}

#[test]
fn receiver_sees_a_sender_that_paused_or_was_dropped() {
    let (sender, receiver) = channel(4).unwrap();
    assert!(!receiver.is_paused());
    sender.pause(true);
    assert!(receiver.is_paused());
    sender.pause(false);
    assert!(!receiver.is_paused());
    drop(sender);
    assert!(receiver.is_paused());
}

fn media(flow: u64) -> RingMeta {
    RingMeta { home: Home { worker: 0, slot: 3, generation: 1 }, kind: RingItem::Rtp, flow }
}

fn flows(receiver: &mut Receiver, max: usize) -> Vec<u64> {
    let mut flows = Vec::new();
    receiver.pop_batch(max, |meta, _| flows.push(meta.flow));
    flows
}

fn readable(receiver: &Receiver) -> bool {
    readable_within(receiver, Duration::ZERO)
}

fn readable_within(receiver: &Receiver, timeout: Duration) -> bool {
    // Miri has neither `poll` nor level-triggered events.
    let epoll = Epoll::new(EpollCreateFlags::empty()).unwrap();
    epoll.add(receiver, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0)).unwrap();
    let timeout = EpollTimeout::try_from(timeout).unwrap();
    epoll.wait(&mut [EpollEvent::empty()], timeout).unwrap() == 1
}
