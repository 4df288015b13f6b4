//! Bounded rings that carry packets between two threads: one sender, one receiver, no lock, no allocation per packet,
//! and one wake-up per batch.
//!
//! A ring is two queues: headers of fixed size, and the packets' bytes back to back. A ring of voice packets therefore
//! touches a tenth of the memory that full-size slots would.

#[cfg(not(loom))]
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use crate::Waker;
use crate::flows::Home;
use crate::sync::{AtomicBool, Ordering, fence, rtrb};

/// The longest packet in a ring: an Ethernet frame's payload with a margin.
pub const PACKET_MAX: usize = 2_048;

/// The longest entry: a packet of [`PACKET_MAX`] behind the header that workers put in front.
const ENTRY_MAX: usize = PACKET_MAX + 40;

/// Bytes reserved per slot. Voice needs a quarter of this. With the largest video packets a ring holds about a third of
/// its slots.
const BYTES_PER_SLOT: usize = 512;

/// Head of an item in a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RingMeta {
    /// The session that the item belongs to.
    pub home: Home,
    /// Determines the content.
    pub kind: RingItem,
    /// The flow identifier that the packet came with or will be sent with; 0 without QUIC.
    pub flow: u64,
}

/// The kinds of items.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RingItem {
    /// An RTP packet.
    Rtp,
    /// A compound RTCP packet.
    Rtcp,
    /// A packet of either kind to a client of QUIC.
    ToClient(SendTerms),
    /// A client's datagram behind the header that one worker writes for another.
    Relayed,
    /// The state of the session's path, without bytes.
    Path(PathReport),
    /// The session now has a connection to its client. Without bytes.
    Attached,
    /// The session has lost the connection to its client. Without bytes.
    Detached,
}

/// How a packet to a client waits while the path takes no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SendTerms {
    /// Its place among the packets of the connection.
    pub priority: PacketPriority,
    /// The time after which it is dropped, in milliseconds; not 0.
    pub latency_ms: u16,
}

impl SendTerms {
    /// The longest time that video and RTCP wait: a key frame takes longer to leave than jitter buffers hold packets, and video after it
    /// needs all of it.
    pub const LATENCY_MS_MAX: u16 = 500;
}

/// The order in which packets to a client leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum PacketPriority {
    /// Voice and other sound, its repair, and RTCP.
    Voice,
    /// Video as it comes.
    Video,
    /// Video that is sent again.
    VideoRepair,
}

impl PacketPriority {
    /// Number of priorities.
    pub const COUNT: usize = 3;
}

/// State of a QUIC path since the last report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PathReport {
    /// Smoothed round-trip time, microseconds.
    pub rtt_us: u32,
    /// Packets declared lost since the last report.
    pub lost: u32,
    /// Packets sent since the last report.
    pub sent: u32,
}

/// The ring refused the packet: it is full, or the packet is too long. The caller counts the drop.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the ring has no room for the packet")]
pub struct RingFull;

#[derive(Clone, Copy)]
struct RingHead {
    meta: RingMeta,
    length: u16,
}

struct Wakeup {
    waker: Waker,
    /// True if the receiver found the ring empty and may be waiting for the waker.
    asleep: AtomicBool,
    /// True if the sender pushes nothing until further notice.
    paused: AtomicBool,
}

/// Creates a ring. It holds at most `slots` packets, at least 5, and at most 512 bytes times that number.
///
/// # Errors
///
/// Fails if the process has no descriptor left for the waker.
pub fn channel(slots: usize) -> std::io::Result<(RingSender, Receiver)> {
    // The minimum number of slots holds one entry of the largest size.
    let slots = slots.max(ENTRY_MAX.div_ceil(BYTES_PER_SLOT));
    let (heads_in, heads_out) = rtrb::RingBuffer::new(slots);
    let (bytes_in, bytes_out) = rtrb::RingBuffer::new(slots * BYTES_PER_SLOT);
    let (asleep, paused) = (AtomicBool::new(true), AtomicBool::new(false));
    let wakeup = Arc::new(Wakeup { waker: Waker::new()?, asleep, paused });
    let sender = RingSender { heads: heads_in, bytes: bytes_in, wakeup: Arc::clone(&wakeup) };
    let receiver = Receiver {
        heads: heads_out,
        bytes: bytes_out,
        joined: Box::new([0; ENTRY_MAX]),
        wakeup,
        slept: true,
        wakes_owed: 0,
    };
    Ok((sender, receiver))
}

/// The sending end, owned by one thread.
pub struct RingSender {
    heads: rtrb::Producer<RingHead>,
    bytes: rtrb::Producer<u8>,
    wakeup: Arc<Wakeup>,
}

impl RingSender {
    /// Pushes a packet; [`wake`](RingSender::wake) wakes the receiver.
    ///
    /// # Errors
    ///
    /// [`RingFull`]: nothing was pushed.
    pub fn push(&mut self, meta: RingMeta, bytes: &[u8]) -> Result<(), RingFull> {
        if bytes.len() > ENTRY_MAX || self.heads.is_full() {
            return Err(RingFull);
        }
        // The header is pushed last: a receiver that sees the header also sees the bytes.
        self.bytes.push_entire_slice(bytes).map_err(|_| RingFull)?;
        self.heads.push(RingHead { meta, length: bytes.len() as u16 }).map_err(|_| RingFull)
    }

    /// Wakes the receiver if it may be asleep. Called once per batch, after the last [`push`](RingSender::push).
    pub fn wake(&self) {
        // Orders the pushes before the load of `asleep`, as the receiver orders its store to `asleep` before its last
        // check.
        fence(Ordering::SeqCst);
        if self.wakeup.asleep.load(Ordering::Relaxed)
            && self.wakeup.asleep.swap(false, Ordering::Relaxed)
        {
            self.wakeup.waker.wake();
        }
    }

    /// Notes that nothing is pushed from now on, or that pushes may follow again.
    pub fn pause(&self, paused: bool) {
        self.wakeup.paused.store(paused, Ordering::Release);
    }
}

/// The receiving end, owned by one thread.
///
/// The receiver's descriptor becomes readable when the sender wakes the receiver. Before waiting for it, call
/// [`pop_batch`](Receiver::pop_batch) until it returns less than `max`.
pub struct Receiver {
    heads: rtrb::Consumer<RingHead>,
    bytes: rtrb::Consumer<u8>,
    /// Joins the two parts of a packet that wraps around the end of the byte queue.
    joined: Box<[u8; ENTRY_MAX]>,
    wakeup: Arc<Wakeup>,
    /// True if the last batch emptied the ring, so that the sender may have woken this thread.
    slept: bool,
    /// Wake-ups that the sender has written or is about to write, and that were not cleared yet.
    wakes_owed: u64,
}

impl Receiver {
    /// Passes up to `max` packets in order to `take` and returns their number. Less than `max` means that the ring is
    /// empty and that the next [`wake`](RingSender::wake) makes the descriptor readable.
    pub fn pop_batch(&mut self, max: usize, mut take: impl FnMut(&RingMeta, &[u8])) -> usize {
        self.stay_awake();
        let mut taken = 0;
        while taken < max {
            if self.pop(&mut take) {
                taken += 1;
                continue;
            }
            self.wakeup.asleep.store(true, Ordering::Relaxed);
            self.slept = true;
            fence(Ordering::SeqCst);
            if self.heads.is_empty() {
                break;
            }
            // A packet arrived between the check and the store.
            self.stay_awake();
        }
        taken
    }

    /// Returns whether the sender pushes nothing more: it paused or was dropped. Packets that it pushed before may
    /// remain.
    pub fn is_paused(&self) -> bool {
        self.wakeup.paused.load(Ordering::Acquire) || self.heads.is_abandoned()
    }

    /// Removes a packet from both queues after `take` has returned: if `take` panics, the packet stays first in both.
    fn pop(&mut self, take: &mut impl FnMut(&RingMeta, &[u8])) -> bool {
        let Ok(&head) = self.heads.peek() else { return false };
        let length = usize::from(head.length);
        let chunk = self.bytes.read_chunk(length).expect("bytes are put in before their head");
        let (start, rest) = chunk.as_slices();
        if rest.is_empty() {
            take(&head.meta, start);
        } else {
            let packet = &mut self.joined[..length];
            packet[..start.len()].copy_from_slice(start);
            packet[start.len()..].copy_from_slice(rest);
            take(&head.meta, packet);
        }
        chunk.commit_all();
        self.heads.pop().expect("it was there a moment ago");
        true
    }

    /// Clears `asleep`. If the sender cleared it first, clears the waker.
    fn stay_awake(&mut self) {
        if self.slept {
            self.slept = false;
            self.wakes_owed += u64::from(!self.wakeup.asleep.swap(false, Ordering::Relaxed));
        }
        if self.wakes_owed > 0 {
            // The sender may be between its swap and its wake-up; then the next batch clears that one.
            self.wakes_owed -= self.wakeup.waker.clear();
        }
    }
}

#[cfg(not(loom))]
impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wakeup.waker.as_fd()
    }
}

#[cfg(loom)]
impl Receiver {
    /// Waits until the sender wakes this receiver. Stands for epoll in models.
    pub fn wait(&self) {
        self.wakeup.waker.wait();
    }
}

#[cfg(test)]
mod tests;
