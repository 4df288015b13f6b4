//! What workers leave for others to read: stamps per node, counters, how late they were. One writer each, relaxed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use evenkeel_core::{Mode, NodeId, Stamp, forward::Reason};

use super::recoveries::Recoveries;

/// One worker's stamps and counters.
#[derive(Debug)]
pub struct Stamps {
    base: Instant,
    nodes: Box<[NodeStamp]>,
    drops: [AtomicU64; Reason::ALL.len()],
    /// Packets handed on, and their bytes, by way.
    passed: [AtomicU64; 2],
    bytes: [AtomicU64; 2],
    /// Key frames asked for, by the way of the request.
    key_frames: [AtomicU64; 2],
    /// How long clients heard nothing when a node died, by mode.
    recoveries: [Recoveries; Mode::ALL.len()],
    /// Since when the pass under way has been going on; 0: the worker waits for something to do.
    pass_began: AtomicU64,
    /// Nanoseconds of the longest pass that ended since this was last read.
    longest_pass: AtomicU64,
    /// Microseconds within which each session that is awake is summed up.
    sums_up_within: AtomicU64,
}

#[derive(Default, Debug)]
struct NodeStamp {
    /// Nanoseconds since the base; 0: never.
    last_received: AtomicU64,
    received: AtomicU64,
    last_sent: AtomicU64,
    /// Whether a bundle went there or came that not every path carries.
    long: AtomicBool,
}

/// Which way a packet went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// From a client to a node.
    ToNode = 0,
    /// From a node to a client.
    ToClient = 1,
}

impl Stamps {
    /// With room for so many nodes.
    pub fn new(base: Instant, nodes: usize) -> Stamps {
        Stamps {
            base,
            nodes: (0..nodes).map(|_| NodeStamp::default()).collect(),
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

    /// A batch with this many packets came from the node.
    pub fn received(&self, node: NodeId, packets: u64, now: Instant) {
        if let Some(stamp) = self.nodes.get(node.0 as usize) {
            stamp.last_received.store(self.nanos(now), Relaxed);
            add(&stamp.received, packets);
        }
    }

    /// Media was sent to the node. Signed messages are none: what answers them is not what sessions wait for.
    pub fn sent(&self, node: NodeId, now: Instant) {
        if let Some(stamp) = self.nodes.get(node.0 as usize) {
            stamp.last_sent.store(self.nanos(now), Relaxed);
        }
    }

    /// A bundle went to the node or came from it that not every path carries.
    pub fn long(&self, node: NodeId) {
        if let Some(stamp) = self.nodes.get(node.0 as usize) {
            stamp.long.store(true, Relaxed);
        }
    }

    /// The nodes that such a bundle went to or came from since this was last asked.
    pub fn take_long(&self) -> impl Iterator<Item = NodeId> {
        let long = |stamp: &NodeStamp| stamp.long.load(Relaxed) && stamp.long.swap(false, Relaxed);
        (0..)
            .map(NodeId)
            .zip(&self.nodes)
            .filter(move |(_, stamp)| long(stamp))
            .map(|(node, _)| node)
    }

    /// The node is gone, and its number may be another's.
    pub fn forget(&self, node: NodeId) {
        if let Some(stamp) = self.nodes.get(node.0 as usize) {
            stamp.last_received.store(0, Relaxed);
            stamp.received.store(0, Relaxed);
            stamp.last_sent.store(0, Relaxed);
            stamp.long.store(false, Relaxed);
        }
    }

    pub fn dropped(&self, reason: Reason) {
        add(&self.drops[reason as usize], 1);
    }

    pub fn passed(&self, way: Way, bytes: usize) {
        add(&self.passed[way as usize], 1);
        add(&self.bytes[way as usize], bytes as u64);
    }

    pub fn asked_key_frame(&self, way: Way) {
        add(&self.key_frames[way as usize], 1);
    }

    /// A client of a session in this mode hears another hop, since its node died, and heard nothing for so long.
    pub fn recovered(&self, mode: Mode, after: Duration) {
        self.recoveries[mode as usize].add(after);
    }

    /// What recoveries in this mode took.
    pub fn recoveries(&self, mode: Mode) -> &Recoveries {
        &self.recoveries[mode as usize]
    }

    pub fn pass_begins(&self, now: Instant) {
        self.pass_began.store(self.nanos(now).max(1), Relaxed);
    }

    pub fn pass_ends(&self, now: Instant) {
        let took = self.nanos(now).saturating_sub(self.pass_began.swap(0, Relaxed));
        if took > self.longest_pass.load(Relaxed) {
            self.longest_pass.store(took, Relaxed);
        }
    }

    /// What it saw of each node, added to what others saw.
    pub fn merge_into(&self, all: &mut [Stamp]) {
        for (stamp, sum) in self.nodes.iter().zip(all) {
            let at = |nanos: u64| (nanos > 0).then(|| self.base + Duration::from_nanos(nanos));
            sum.last_received = sum.last_received.max(at(stamp.last_received.load(Relaxed)));
            sum.last_sent = sum.last_sent.max(at(stamp.last_sent.load(Relaxed)));
            sum.received += stamp.received.load(Relaxed);
        }
    }

    /// How long something may have waited to be read since this was last asked: the longest pass that ended, or the
    /// one under way.
    pub fn take_lateness(&self, now: Instant) -> Duration {
        let under_way = match self.pass_began.load(Relaxed) {
            0 => 0,
            began => self.nanos(now).saturating_sub(began),
        };
        Duration::from_nanos(self.longest_pass.swap(0, Relaxed).max(under_way))
    }

    /// Each session that is awake is summed up about this often.
    pub fn sums_up_every(&self, every: Duration) {
        // One that was passed over when others went to rest has its turn in the next round.
        self.sums_up_within.store(2 * every.as_micros() as u64, Relaxed);
    }

    /// How old the last word on a session may be.
    pub fn sums_up_within(&self) -> Duration {
        Duration::from_micros(self.sums_up_within.load(Relaxed))
    }

    /// Packets dropped so far for this reason.
    pub fn drops(&self, reason: Reason) -> u64 {
        self.drops[reason as usize].load(Relaxed)
    }

    /// Packets handed on so far.
    pub fn packets(&self, way: Way) -> u64 {
        self.passed[way as usize].load(Relaxed)
    }

    /// Bytes of them.
    pub fn bytes(&self, way: Way) -> u64 {
        self.bytes[way as usize].load(Relaxed)
    }

    /// Key frames asked for so far, by the way of the request.
    pub fn key_frames(&self, way: Way) -> u64 {
        self.key_frames[way as usize].load(Relaxed)
    }

    fn nanos(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.base).as_nanos() as u64
    }
}

/// One writer: a load and a store are enough, and cheaper than a read-modify-write.
fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Relaxed) + more, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_pass_is_told_of_while_it_lasts_and_once_it_ended() {
        let base = Instant::now();
        let stamps = Stamps::new(base, 0);
        let late = |ms| stamps.take_lateness(base + MS * ms);
        assert_eq!(late(1), Duration::ZERO);
        stamps.pass_begins(base + MS * 2);
        assert_eq!([late(4), late(40)], [MS * 2, MS * 38]);
        stamps.pass_ends(base + MS * 41);
        assert_eq!([late(42), late(44)], [MS * 39, Duration::ZERO], "not told twice");
    }
}
