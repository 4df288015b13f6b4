//! Bounded rings that carry packets from one thread to another: one sender, one receiver, no lock, no allocation
//! per packet, and one wake-up per batch.
//!
//! A ring is two queues: heads of fixed size, and the bytes they speak of, packed one behind the other. So a ring of
//! voice packets touches a tenth of the memory that slots of full size would.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

use crate::flows::Home;

/// The longest packet that is put into a ring, in bytes: an Ethernet frame's payload and something to spare.
pub const PACKET_MAX: usize = 2_048;

/// The longest that is put in: such a packet behind what one worker tells another of it.
const ENTRY_MAX: usize = PACKET_MAX + 32;

/// Bytes set aside per slot. Voice needs a quarter of it; a ring full of the largest video packets holds about a
/// third of its slots.
const BYTES_PER_SLOT: usize = 512;

/// What a packet is, beside its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Meta {
    /// The session it belongs to, by its home.
    pub home: Home,
    /// What it is.
    pub kind: Kind,
    /// The flow identifier it came with, or shall go with. 0 where it has none.
    pub flow: u64,
}

/// What travels through a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// An RTP or RTCP packet; the bytes are the packet.
    Media,
    /// How the session's path did since the last report. No bytes.
    Feedback {
        /// Smoothed round trip, microseconds.
        rtt_us: u32,
        /// Packets declared lost since the last report.
        lost: u32,
        /// Packets sent since the last report.
        sent: u32,
    },
    /// The session has a path to its client now. No bytes.
    Attached,
    /// The session's path to its client is gone. No bytes.
    Detached,
}

/// There is no room in the ring, or it is longer than a packet and what travels with it; it was not taken. The caller counts it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the ring has no room for the packet")
    }
}

impl std::error::Error for Full {}

#[derive(Clone, Copy)]
struct Head {
    meta: Meta,
    length: u16,
}

/// What both ends know of the receiver's sleep.
struct Bell {
    eventfd: OwnedFd,
    /// The receiver found the ring empty and may be waiting for the eventfd.
    asleep: AtomicBool,
}

/// A ring of so many slots. It holds at most that many packets, and at most 512 bytes times that number; `slots` is
/// taken as 5 if it is less.
///
/// # Errors
///
/// The process has no descriptor left for the eventfd.
pub fn channel(slots: usize) -> std::io::Result<(Sender, Receiver)> {
    // Fewer slots could not hold one entry of the largest size.
    let slots = slots.max(ENTRY_MAX.div_ceil(BYTES_PER_SLOT));
    let (heads_in, heads_out) = rtrb::RingBuffer::new(slots);
    let (bytes_in, bytes_out) = rtrb::RingBuffer::new(slots * BYTES_PER_SLOT);
    let eventfd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
    let bell = Arc::new(Bell { eventfd, asleep: AtomicBool::new(true) });
    let sender = Sender { heads: heads_in, bytes: bytes_in, bell: Arc::clone(&bell) };
    let receiver = Receiver {
        heads: heads_out,
        bytes: bytes_out,
        seam: Box::new([0; ENTRY_MAX]),
        bell,
        slept: true,
        ring_owed: false,
    };
    Ok((sender, receiver))
}

/// The end that packets go in at. Owned by one thread.
pub struct Sender {
    heads: rtrb::Producer<Head>,
    bytes: rtrb::Producer<u8>,
    bell: Arc<Bell>,
}

impl Sender {
    /// Puts a packet in. The receiver sees it when it looks; [`wake`](Sender::wake) makes it look.
    ///
    /// # Errors
    ///
    /// [`Full`]: nothing was put in.
    pub fn push(&mut self, meta: Meta, bytes: &[u8]) -> Result<(), Full> {
        if bytes.len() > ENTRY_MAX || self.heads.is_full() {
            return Err(Full);
        }
        // The head goes in last: who sees it sees its bytes too.
        self.bytes.push_entire_slice(bytes).map_err(|_| Full)?;
        self.heads.push(Head { meta, length: bytes.len() as u16 }).map_err(|_| Full)
    }

    /// Wakes the receiver if it may be asleep. Once per batch, after the last [`push`](Sender::push).
    pub fn wake(&self) {
        // Orders our pushes before the look at `asleep`, as the receiver orders `asleep` before its last look.
        fence(Ordering::SeqCst);
        if self.bell.asleep.load(Ordering::Relaxed)
            && self.bell.asleep.swap(false, Ordering::Relaxed)
        {
            // It can only fail with a full counter, and then the receiver is awake already.
            let _ = rustix::io::write(&self.bell.eventfd, &1u64.to_ne_bytes());
        }
    }

    /// Whether the receiver is gone for ever.
    pub fn is_abandoned(&self) -> bool {
        self.heads.is_abandoned()
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

/// The end that packets come out of. Owned by one thread.
///
/// Its descriptor becomes readable when the sender wakes it. Whoever waits for that calls
/// [`pop_batch`](Receiver::pop_batch) until it returns less than it was asked for, and only then sleeps.
pub struct Receiver {
    heads: rtrb::Consumer<Head>,
    bytes: rtrb::Consumer<u8>,
    /// Where a packet that lies across the end of the byte queue is put together.
    seam: Box<[u8; ENTRY_MAX]>,
    bell: Arc<Bell>,
    /// The last batch ended on an empty ring, so the sender may have rung.
    slept: bool,
    /// The sender rang, or is about to, and we have not yet taken it off the eventfd.
    ring_owed: bool,
}

impl Receiver {
    /// Hands out up to `max` packets in the order they were put in and says how many. Less than `max` means that the
    /// ring is empty and that the next [`wake`](Sender::wake) makes the descriptor readable.
    pub fn pop_batch(&mut self, max: usize, mut take: impl FnMut(&Meta, &[u8])) -> usize {
        self.get_up();
        let mut taken = 0;
        while taken < max {
            if self.pop(&mut take) {
                taken += 1;
                continue;
            }
            self.bell.asleep.store(true, Ordering::Relaxed);
            self.slept = true;
            fence(Ordering::SeqCst);
            if self.heads.is_empty() {
                break;
            }
            // Something came between the look and the lying down.
            self.get_up();
        }
        taken
    }

    /// Whether the sender is gone for ever. What it left can still be popped.
    pub fn is_abandoned(&self) -> bool {
        self.heads.is_abandoned()
    }

    /// Both queues let go of a packet once it was taken: one whose taker panics stays the first in both.
    fn pop(&mut self, take: &mut impl FnMut(&Meta, &[u8])) -> bool {
        let Ok(&head) = self.heads.peek() else { return false };
        let length = usize::from(head.length);
        let chunk = self.bytes.read_chunk(length).expect("bytes are put in before their head");
        let (start, rest) = chunk.as_slices();
        if rest.is_empty() {
            take(&head.meta, start);
        } else {
            let packet = &mut self.seam[..length];
            packet[..start.len()].copy_from_slice(start);
            packet[start.len()..].copy_from_slice(rest);
            take(&head.meta, packet);
        }
        chunk.commit_all();
        self.heads.pop().expect("it was there a moment ago");
        true
    }

    /// Takes back `asleep`, or, if the sender was first, its ring off the eventfd.
    fn get_up(&mut self) {
        if self.slept {
            self.slept = false;
            self.ring_owed |= !self.bell.asleep.swap(false, Ordering::Relaxed);
        }
        if self.ring_owed {
            let mut count = [0; 8];
            // The sender may be between its swap and its write; then we try again with the next batch.
            self.ring_owed = rustix::io::read(&self.bell.eventfd, &mut count) == Err(Errno::AGAIN);
        }
    }
}

impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.eventfd.as_fd()
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    #[test]
    fn packets_come_out_as_they_went_in_across_the_seam_too() {
        let (mut sender, mut receiver) = channel(7).unwrap();
        for round in 0..500u64 {
            let length = (round * 37 % 1_400) as usize;
            let sent: Vec<u8> = (0..length).map(|at| (at as u64 + round) as u8).collect();
            sender.push(media(round), &sent).unwrap();
            let mut got = Vec::new();
            let count = receiver.pop_batch(8, |meta, bytes| got.push((meta.flow, bytes.to_vec())));
            assert_eq!((count, got), (1, vec![(round, sent)]));
        }
    }

    #[test]
    fn a_packet_whose_taker_panics_is_handed_out_again_and_those_behind_it_whole() {
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
    fn a_full_ring_takes_nothing_and_keeps_what_it_has() {
        let (mut sender, mut receiver) = channel(5).unwrap();
        for number in 0..5 {
            assert_eq!(sender.push(media(number), b"voice"), Ok(()));
        }
        assert_eq!(sender.push(media(5), b"voice"), Err(Full));
        assert_eq!(flows(&mut receiver, 9), [0, 1, 2, 3, 4]);
        assert_eq!(sender.push(media(6), b"voice"), Ok(()));
        assert_eq!(flows(&mut receiver, 9), [6]);
    }

    #[test]
    fn a_ring_full_of_bytes_takes_nothing_and_keeps_what_it_has() {
        let (mut sender, mut receiver) = channel(5).unwrap();
        let room = 5 * BYTES_PER_SLOT;
        assert_eq!(sender.push(media(0), &[7; 2_000]), Ok(()));
        assert_eq!(sender.push(media(1), &vec![8; room - 1_999]), Err(Full));
        assert_eq!(sender.push(media(2), &vec![9; room - 2_000]), Ok(()));
        let mut got = Vec::new();
        receiver.pop_batch(9, |_, bytes| got.push((bytes.len(), bytes[0])));
        assert_eq!(got, [(2_000, 7), (room - 2_000, 9)]);
    }

    #[test]
    fn the_longest_packet_fits_and_one_byte_more_does_not() {
        let (mut sender, _receiver) = channel(64).unwrap();
        assert_eq!(sender.push(media(0), &[0; ENTRY_MAX + 1]), Err(Full));
        assert_eq!(sender.push(media(0), &[0; ENTRY_MAX]), Ok(()));
    }

    #[test]
    fn a_batch_is_no_larger_than_asked_for() {
        let (mut sender, mut receiver) = channel(8).unwrap();
        for number in 0..5 {
            sender.push(media(number), b"").unwrap();
        }
        assert_eq!(flows(&mut receiver, 3), [0, 1, 2]);
        assert_eq!(flows(&mut receiver, 3), [3, 4]);
    }

    #[test]
    fn a_sleeper_is_woken_once_and_one_awake_is_left_alone() {
        let (mut sender, mut receiver) = channel(8).unwrap();
        assert!(!readable(&receiver));
        sender.push(media(0), b"a").unwrap();
        sender.wake();
        sender.wake();
        assert!(readable(&receiver));
        // Not empty after this batch, so still awake: a wake now writes nothing.
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
    fn no_packet_is_lost_or_slept_over_between_threads() {
        const PACKETS: u64 = 200_000;
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
    fn each_end_knows_when_the_other_is_gone() {
        let (sender, receiver) = channel(4).unwrap();
        assert!(!sender.is_abandoned() && !receiver.is_abandoned());
        drop(receiver);
        assert!(sender.is_abandoned());
        let (sender, receiver) = channel(4).unwrap();
        drop(sender);
        assert!(receiver.is_abandoned());
    }

    fn media(flow: u64) -> Meta {
        Meta { home: Home { worker: 0, slot: 3, generation: 1 }, kind: Kind::Media, flow }
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
        let mut polled = [PollFd::new(receiver, PollFlags::IN)];
        poll(&mut polled, Some(&Timespec::try_from(timeout).unwrap())).unwrap() == 1
    }
}
