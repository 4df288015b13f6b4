//! Reports of a worker to other threads: events and summaries to control, and statistics that others read.
//!
//! Each statistic has one writer; access is relaxed. Active sessions are summarised every 100 ms or, with many sessions, less
//! often, so that summaries take a small part of a core. A pass summarises a share of the sessions, so that packets never
//! wait for all. Idle sessions cost nothing.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use evenkeel_dtls::HandshakeFailure;
use evenkeel_media::srtp::SrtpKeys;
use evenkeel_model::{
    CloseReason, DropReason, FlowCounts, Hop, Measures, NodeId, RedundancyMode, RepairKind,
    SessionId, Stamp,
};
use serde::{Deserialize, Serialize};

/// A report of a worker to control.
#[derive(Debug)]
pub enum WorkerReport {
    /// ICMP reports no listener at the node's trunk port.
    Refused(NodeId),
    /// A datagram on the node's trunk was not decrypted.
    Unreadable(NodeId),
    /// ICMP reports no listener at the port that this session uses at the hop.
    PortClosed {
        /// The session whose packet was refused.
        session: SessionId,
        /// The hop at the refused port.
        hop: Hop,
    },
    /// The streams of the two hops are not copies of each other. The client hears the leading hop.
    CopiesDiffer {
        /// The session in hitless mode.
        session: SessionId,
        /// The leading hop and its twin.
        hops: [Hop; 2],
    },
    /// A stream of the client restarted with numbers that the leg's key has protected, or the key has as many streams as it
    /// takes. The leg needs another key.
    StreamRestarted {
        /// The session of the client.
        session: SessionId,
        /// The hop of the leg.
        hop: Hop,
    },
    /// A signed message arrived on the node's trunk.
    Signed {
        /// The sender.
        node: NodeId,
        /// The whole datagram, not verified.
        message: Box<[u8]>,
    },
    /// RTP from an unknown source arrived at an open listener.
    FirstPacket {
        /// Number of the listener.
        listener: u8,
        /// The client's address.
        source: SocketAddr,
        /// Payload type of the packet (RFC 3550, 5.1).
        payload_type: u8,
    },
    /// Measurements of sessions that were active since their last summary.
    Summaries(Vec<Summary>),
    /// The current rung withheld these packets from a client.
    Shed {
        /// The session of the client.
        session: SessionId,
        /// Consecutive packets of one stream.
        run: ShedRun,
    },
    /// A session was removed by [`WorkerCommand::Remove`](super::WorkerCommand::Remove).
    Removed {
        /// The removed session.
        session: SessionId,
        /// Redundancy mode of its room at the end.
        mode: RedundancyMode,
        /// Counts over its lifetime.
        totals: Totals,
        /// Counts since its last summary.
        counts: MediaCounts,
    },
    /// The session ends: one of its packets caused a panic, and the worker has removed it; its SRTP cannot go on; or the DTLS of its
    /// client ended.
    Ended(SessionId, CloseReason),
    /// The DTLS handshake of the session's client has ended.
    Handshake {
        /// The session of the client.
        session: SessionId,
        /// The keys of both directions, or the reason of the failure.
        result: Result<Arc<SrtpKeys>, HandshakeFailure>,
    },
}

/// Consecutive packets that a rung withheld from a client, counted from the last packet that was sent.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct ShedRun {
    /// The stream's SSRC towards the client.
    pub ssrc: u32,
    /// The sequence number of the last packet sent to the client.
    pub after: u16,
    /// The distance of the first shed packet from `after`; at least 1.
    pub first: u32,
    /// Length of the run.
    pub packets: u32,
}

/// Measurements of one session since its last summary.
#[derive(Debug)]
pub struct Summary {
    /// The measured session.
    pub session: SessionId,
    /// Smoothed measurements of quality and bit rate.
    pub measures: Measures,
    /// Time of the last input of the client. `None` before the first.
    pub last_heard: Option<Instant>,
    /// Packets between client and node since the last summary.
    pub flow: FlowCounts,
    /// Counts over the lifetime of the session.
    pub totals: Totals,
    /// Counts since the last summary.
    pub counts: MediaCounts,
}

/// Counts of a session for metrics.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct MediaCounts {
    /// Packets that repair others, in the order of [`RepairKind::ALL`].
    pub repairs: [RepairCounts; RepairKind::ALL.len()],
    /// Packets that are missing between gateway and client, by the reports of the client or of QUIC.
    pub lost_down: u32,
    /// Packets that were sent to the client again, because it asked for them.
    pub answered: u32,
    /// Packets for which the gateway asked the client; one that was asked for twice counts twice.
    pub requested: u32,
    /// Caches that could not grow, because all have the memory of the limit.
    pub caches_refused: u32,
    /// Bytes to the client that repeat earlier frames (RFC 2198). They are included in [`Totals`].
    pub redundant_bytes: u64,
    /// Lost packets of the client that the node got from the redundancy in later ones.
    pub recovered: u32,
    /// Pictures to the client that came so late that the video froze.
    pub freezes: u32,
    /// The longest time for which the client received nothing after its node died.
    pub gap: Option<Duration>,
    /// Packets of the client that another node got again after the death of one. They are not included in [`Totals`].
    pub replayed: u32,
    /// Key frames, from the client or to it, that were requested repeatedly and did not come.
    pub key_frames_given_up: u32,
    /// Packets of video to the client that were withheld with their frames. They are included in [`Totals::shed`].
    pub thinned: u32,
    /// Lost packets of the client that the node got from parity.
    pub repaired: u32,
    /// Bytes of the parity packets that the gateway made for the client. They are included in `repairs`.
    pub parity_bytes: u64,
    /// Packets of video to the client that waited for their turn, as its path could not carry them at once.
    pub paced: u32,
    /// Packets of the client that were dropped, since it sends more than it may.
    pub policed: u32,
}

/// Packets that repair others in one way. They are included in [`Totals`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RepairCounts {
    /// Packets from the client.
    pub packets_up: u64,
    /// Bytes of these packets.
    pub bytes_up: u64,
    /// Packets to the client.
    pub packets_down: u64,
    /// Bytes of these packets.
    pub bytes_down: u64,
}

/// Counts over a session's lifetime.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
pub struct Totals {
    /// RTP packets from the client, and their bytes.
    pub packets_up: u64,
    /// Bytes of these packets.
    pub bytes_up: u64,
    /// RTP packets to the client, and their bytes.
    pub packets_down: u64,
    /// Bytes of these packets.
    pub bytes_down: u64,
    /// RTP packets to the client that the current rung shed.
    pub shed: u64,
    /// Packets lost between the client and the gateway.
    pub lost_up: u64,
    /// Switches from one hop to another.
    pub switches: u32,
    /// Packets to the client that were lost when the hop changed.
    pub lost_at_switches: u32,
    /// Bytes of the copies to and from the second hop in hitless mode.
    pub bytes_copied: u64,
}

/// Statistics of one worker, which alone writes them.
#[derive(Debug)]
pub struct WorkerStats {
    base: Instant,
    nodes: Box<[NodeStats]>,
    drops: [AtomicU64; DropReason::ALL.len()],
    /// Forwarded packets, by way.
    passed: [AtomicU64; 2],
    /// Bytes of the forwarded packets, by way.
    bytes: [AtomicU64; 2],
    key_frames: [AtomicU64; 2],
    /// Datagrams to clients whose local address this host does not have.
    from_route: AtomicU64,
    recoveries: [Recoveries; RedundancyMode::ALL.len()],
    /// Nanoseconds from the base to the start of the current pass; 0 while the worker waits.
    pass_began: AtomicU64,
    /// Nanoseconds of the longest pass since the last read.
    longest_pass: AtomicU64,
    /// Maximum time in microseconds between two summaries of an active session.
    sums_up_within: AtomicU64,
}

#[derive(Default, Debug)]
struct NodeStats {
    /// Nanoseconds since the base; 0 means never.
    last_received: AtomicU64,
    received: AtomicU64,
    last_sent: AtomicU64,
    /// True if a bundle was sent or received that is longer than the size that fits any path.
    long: AtomicBool,
}

/// The direction of a media packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MediaDirection {
    /// From the client to a node.
    ToNode = 0,
    /// From a node to the client.
    ToClient = 1,
}

impl WorkerStats {
    /// Creates statistics for this number of nodes. Times count from `base`.
    pub fn new(base: Instant, nodes: usize) -> WorkerStats {
        WorkerStats {
            base,
            nodes: (0..nodes).map(|_| NodeStats::default()).collect(),
            drops: std::array::from_fn(|_| AtomicU64::default()),
            passed: Default::default(),
            bytes: Default::default(),
            key_frames: Default::default(),
            from_route: AtomicU64::new(0),
            recoveries: Default::default(),
            pass_began: AtomicU64::new(0),
            longest_pass: AtomicU64::new(0),
            sums_up_within: AtomicU64::new(0),
        }
    }

    /// Records a batch with this number of packets from the node.
    pub fn received(&self, node: NodeId, packets: u64, now: Instant) {
        if let Some(stamp) = self.nodes.get(node.0 as usize) {
            stamp.last_received.store(self.nanos(now), Relaxed);
            add(&stamp.received, packets);
        }
    }

    /// Records media sent to the node. Signed messages are excluded: a node may answer them while its media fails.
    pub fn sent(&self, node: NodeId, now: Instant) {
        if let Some(stamp) = self.nodes.get(node.0 as usize) {
            stamp.last_sent.store(self.nanos(now), Relaxed);
        }
    }

    /// Records a bundle to or from the node that is longer than the size that fits any path.
    pub fn long(&self, node: NodeId) {
        if let Some(stamp) = self.nodes.get(node.0 as usize) {
            stamp.long.store(true, Relaxed);
        }
    }

    /// Takes the nodes with a long bundle since the last call.
    pub fn take_long(&self) -> impl Iterator<Item = NodeId> {
        let long = |stamp: &NodeStats| stamp.long.load(Relaxed) && stamp.long.swap(false, Relaxed);
        (0..)
            .map(NodeId)
            .zip(&self.nodes)
            .filter(move |(_, stamp)| long(stamp))
            .map(|(node, _)| node)
    }

    /// Clears a removed node, because its number may be reused.
    pub fn forget(&self, node: NodeId) {
        if let Some(stamp) = self.nodes.get(node.0 as usize) {
            stamp.last_received.store(0, Relaxed);
            stamp.received.store(0, Relaxed);
            stamp.last_sent.store(0, Relaxed);
            stamp.long.store(false, Relaxed);
        }
    }

    /// Counts a dropped packet.
    pub fn dropped(&self, reason: DropReason) {
        add(&self.drops[reason as usize], 1);
    }

    /// Counts a forwarded packet and its bytes.
    pub fn passed(&self, way: MediaDirection, bytes: usize) {
        add(&self.passed[way as usize], 1);
        add(&self.bytes[way as usize], bytes as u64);
    }

    /// Counts a key-frame request.
    pub fn asked_key_frame(&self, way: MediaDirection) {
        add(&self.key_frames[way as usize], 1);
    }

    /// Counts datagrams that left from the address of the route, because this host does not have the address that the client sent to.
    pub fn sent_from_route(&self, datagrams: usize) {
        add(&self.from_route, datagrams as u64);
    }

    /// Records how long a client in this mode received nothing after its node died.
    pub fn recovered(&self, mode: RedundancyMode, after: Duration) {
        self.recoveries[mode as usize].add(after);
    }

    /// Returns the recovery times of sessions in this mode.
    pub fn recoveries(&self, mode: RedundancyMode) -> &Recoveries {
        &self.recoveries[mode as usize]
    }

    /// Records the start of a pass of the event loop.
    pub fn pass_begins(&self, now: Instant) {
        self.pass_began.store(self.nanos(now).max(1), Relaxed);
    }

    /// Returns the start of the present pass in microseconds since the worker was made.
    #[inline]
    pub fn pass_began_us(&self) -> i64 {
        (self.pass_began.load(Relaxed) / 1_000) as i64
    }

    /// Records the end of a pass, and its length if it is the longest.
    pub fn pass_ends(&self, now: Instant) {
        let began = self.pass_began.swap(0, Relaxed);
        // A worker that only waited for commands has begun none.
        let took = if began == 0 { 0 } else { self.nanos(now).saturating_sub(began) };
        if took > self.longest_pass.load(Relaxed) {
            self.longest_pass.store(took, Relaxed);
        }
    }

    /// Merges this worker's view of each node into the view of all workers.
    pub fn merge_into(&self, all: &mut [Stamp]) {
        for (stamp, sum) in self.nodes.iter().zip(all) {
            let at = |nanos: u64| (nanos > 0).then(|| self.base + Duration::from_nanos(nanos));
            sum.last_received = sum.last_received.max(at(stamp.last_received.load(Relaxed)));
            sum.last_sent = sum.last_sent.max(at(stamp.last_sent.load(Relaxed)));
            sum.received += stamp.received.load(Relaxed);
        }
    }

    /// Takes the maximum time for which a packet may have waited to be read since the last call: the longest completed
    /// pass, or the current one.
    pub fn take_lateness(&self, now: Instant) -> Duration {
        let under_way = match self.pass_began.load(Relaxed) {
            0 => 0,
            began => self.nanos(now).saturating_sub(began),
        };
        Duration::from_nanos(self.longest_pass.swap(0, Relaxed).max(under_way))
    }

    /// Sets the interval of summaries of each active session.
    pub fn sums_up_every(&self, every: Duration) {
        // A session that missed its turn because others were removed is summarised in the next round.
        self.sums_up_within.store(2 * every.as_micros() as u64, Relaxed);
    }

    /// The maximum age of a session's last summary.
    pub fn sums_up_within(&self) -> Duration {
        Duration::from_micros(self.sums_up_within.load(Relaxed))
    }

    /// Returns the number of packets dropped for this reason.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize].load(Relaxed)
    }

    /// Returns the number of forwarded packets.
    pub fn packets(&self, way: MediaDirection) -> u64 {
        self.passed[way as usize].load(Relaxed)
    }

    /// Returns the bytes of forwarded packets.
    pub fn bytes(&self, way: MediaDirection) -> u64 {
        self.bytes[way as usize].load(Relaxed)
    }

    /// Returns the number of key-frame requests.
    pub fn key_frames(&self, way: MediaDirection) -> u64 {
        self.key_frames[way as usize].load(Relaxed)
    }

    /// Returns the number of datagrams to clients whose local address this host does not have.
    pub fn from_route(&self) -> u64 {
        self.from_route.load(Relaxed)
    }

    fn nanos(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.base).as_nanos() as u64
    }
}

/// Adds without a read-modify-write, which is not needed with one writer and costs more.
fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Relaxed) + more, Relaxed);
}

/// Buckets per power of two: a relative error of one in 16.
const STEPS: u64 = 16;

/// Powers of two from 16 µs on. Times above ten minutes count in the last bucket.
const DOUBLINGS: u64 = 26;

/// Counts by time in microseconds. One thread writes; access is relaxed.
#[derive(Debug)]
pub struct Recoveries {
    counts: Box<[AtomicU64]>,
    longest_us: AtomicU64,
}

impl Default for Recoveries {
    fn default() -> Self {
        let counts = (0..STEPS * DOUBLINGS).map(|_| AtomicU64::new(0)).collect();
        Recoveries { counts, longest_us: AtomicU64::new(0) }
    }
}

impl Recoveries {
    /// Counts a time.
    pub fn add(&self, took: Duration) {
        let us = took.as_micros() as u64;
        add(&self.counts[place(us)], 1);
        if us > self.longest_us.load(Relaxed) {
            self.longest_us.store(us, Relaxed);
        }
    }
}

/// The sum over several workers.
#[derive(Clone, Debug)]
pub struct Distribution {
    counts: Vec<u64>,
    longest: Duration,
}

impl Distribution {
    /// Sums the histograms of several workers.
    pub fn of<'a>(all: impl Iterator<Item = &'a Recoveries>) -> Distribution {
        let mut sum =
            Distribution { counts: vec![0; (STEPS * DOUBLINGS) as usize], longest: Duration::ZERO };
        for recoveries in all {
            for (sum, count) in sum.counts.iter_mut().zip(&recoveries.counts) {
                *sum += count.load(Relaxed);
            }
            let longest = Duration::from_micros(recoveries.longest_us.load(Relaxed));
            sum.longest = sum.longest.max(longest);
        }
        sum
    }

    /// Returns the number of samples.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns `None` without samples.
    pub fn longest(&self) -> Option<Duration> {
        (self.count() > 0).then_some(self.longest)
    }

    /// Returns the quantile in thousandths, at most one in 16 too long. `None` without samples.
    pub fn within(&self, permille: u64) -> Option<Duration> {
        let rank = (self.count() * permille).div_ceil(1_000).max(1);
        let mut seen = 0;
        let place = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        Some(Duration::from_micros(above(place as u64)).min(self.longest))
    }
}

/// Returns the bucket: linear up to [`STEPS`] microseconds, then [`STEPS`] buckets per power of two.
fn place(us: u64) -> usize {
    let doublings = (us / STEPS).checked_ilog2().map_or(0, |doublings| u64::from(doublings) + 1);
    let step = if doublings == 0 { us } else { (us >> (doublings - 1)) - STEPS };
    (doublings * STEPS + step).min(STEPS * DOUBLINGS - 1) as usize
}

/// Returns the exclusive upper bound of a bucket.
fn above(place: u64) -> u64 {
    let (doublings, step) = (place / STEPS, place % STEPS);
    if doublings == 0 { step + 1 } else { (STEPS + step + 1) << (doublings - 1) }
}

/// Minimum interval between two summaries of a session.
const EVERY: Duration = Duration::from_millis(100);

/// Average interval between two summaries of a worker with many sessions: summaries take a bounded part of a core.
const APART: Duration = Duration::from_micros(50);

/// Sessions per share: about half a millisecond.
const SHARE: usize = 256;

#[derive(Debug)]
pub(super) struct Sweep {
    began: Instant,
    next: usize,
}

impl Sweep {
    pub(super) fn new(now: Instant) -> Sweep {
        Sweep { began: now, next: 0 }
    }

    /// Time of the next share, given the number of active sessions.
    pub(super) fn due(&self, places: usize) -> Instant {
        let shares = places.div_ceil(SHARE).max(1);
        let share = (self.next / SHARE + 1).min(shares);
        self.began + every(places) * share as u32 / shares as u32
    }

    /// Takes the share that is due, if any. A share that starts at 0 starts a round.
    pub(super) fn take(&mut self, places: usize, now: Instant) -> Option<Range<usize>> {
        if now < self.due(places) {
            return None;
        }
        let share = self.next.min(places)..places.min(self.next + SHARE);
        self.next = share.end;
        if share.end == places {
            self.next = 0;
            // Missed rounds are skipped.
            let every = every(places);
            let next = self.began + every;
            self.began = if now < next + every { next } else { now };
        }
        Some(share)
    }
}

/// Interval between two summaries of a session.
pub(super) fn every(places: usize) -> Duration {
    EVERY.max(APART * places as u32)
}

#[cfg(test)]
mod tests;
