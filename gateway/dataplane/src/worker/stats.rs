//! Statistics that a worker writes and other threads read: activity per node, counters, lateness. Each value has one
//! writer; access is relaxed.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use evenkeel_model::forward::DropReason;
use evenkeel_model::{NodeId, RedundancyMode, Stamp};

use super::recoveries::Recoveries;

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

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MediaDirection {
    ToNode = 0,
    ToClient = 1,
}

impl WorkerStats {
    pub fn new(base: Instant, nodes: usize) -> WorkerStats {
        WorkerStats {
            base,
            nodes: (0..nodes).map(|_| NodeStats::default()).collect(),
            drops: Default::default(),
            passed: Default::default(),
            bytes: Default::default(),
            key_frames: Default::default(),
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

    pub fn dropped(&self, reason: DropReason) {
        add(&self.drops[reason as usize], 1);
    }

    pub fn passed(&self, way: MediaDirection, bytes: usize) {
        add(&self.passed[way as usize], 1);
        add(&self.bytes[way as usize], bytes as u64);
    }

    pub fn asked_key_frame(&self, way: MediaDirection) {
        add(&self.key_frames[way as usize], 1);
    }

    /// Records how long a client in this mode received nothing after its node died.
    pub fn recovered(&self, mode: RedundancyMode, after: Duration) {
        self.recoveries[mode as usize].add(after);
    }

    pub fn recoveries(&self, mode: RedundancyMode) -> &Recoveries {
        &self.recoveries[mode as usize]
    }

    pub fn pass_begins(&self, now: Instant) {
        self.pass_began.store(self.nanos(now).max(1), Relaxed);
    }

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

    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize].load(Relaxed)
    }

    pub fn packets(&self, way: MediaDirection) -> u64 {
        self.passed[way as usize].load(Relaxed)
    }

    pub fn bytes(&self, way: MediaDirection) -> u64 {
        self.bytes[way as usize].load(Relaxed)
    }

    pub fn key_frames(&self, way: MediaDirection) -> u64 {
        self.key_frames[way as usize].load(Relaxed)
    }

    fn nanos(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.base).as_nanos() as u64
    }
}

/// Adds without a read-modify-write, which is not needed with one writer and costs more.
fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Relaxed) + more, Relaxed);
}

#[cfg(test)]
mod tests;
