//! Path MTU discovery for trunks, by packetization layer (RFC 8899).
//!
//! While long bundles are in use, a probe of their length is sent every 30 ms, followed by a short one. If the short
//! one is answered and the long one is not, four times in a row, the path no longer carries the length: bundles shrink
//! to the minimum, and longer sizes are probed every second, with or without traffic. The node is told of the new size
//! at once and with the next probes. An answer is as long as its probe, so both directions are tested and share one
//! size. A node that answers neither probe is not judged.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use evenkeel_dataplane::worker::BUNDLE_SIZES;
use evenkeel_media::trunk::message::{PATH_LEN_MIN, TrunkQuestion};
use evenkeel_model::NodeId;

/// Probe interval for a longer size.
const RAISE_EVERY: Duration = Duration::from_secs(1);

/// Time for which a path is probed after a long bundle. If long bundles no longer arrive, only probes show that.
const USED_FOR: Duration = Duration::from_secs(1);

/// Consecutive lost long probes, with answered short ones, that show the path's limit.
///
/// RFC 8899 (section 5.1.2) uses 3, at a lower probe rate. With a probe every 30 ms and a loss of 5 %, bundles would
/// shrink every 12 s with 2, every 4 minutes with 3, and every 1.5 hours with 4. Four probes take 120 ms, less than an
/// audible freeze.
const MISSES: u8 = 4;

/// Number of announcements of a new size, besides probes, because a message may be lost.
const TELLINGS: u8 = 3;

/// Probe pairs that may still be answered: those of one second.
const PAIRS_MAX: usize = 32;

/// The path of a trunk's datagrams.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct TrunkPath {
    /// The node at its end.
    pub(crate) node: NodeId,
    /// The number of the worker that sends.
    pub(crate) worker: u16,
}

/// A message to a node's agent, to be signed.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) node: NodeId,
    /// The home worker of the message's sessions, which sends the message.
    pub(super) worker: u16,
    pub(super) question: TrunkQuestion,
    pub(super) nonce: u64,
}

/// All paths that have carried long bundles.
#[derive(Default)]
pub(crate) struct Paths {
    paths: BTreeMap<TrunkPath, PathMtu>,
    asking: VecDeque<Asking>,
}

struct PathMtu {
    /// Index of the current size in [`BUNDLE_SIZES`].
    size: usize,
    misses: u8,
    tellings: u8,
    used_until: Instant,
    raise_at: Instant,
    /// Nonce of the next probe. The start is random, so that no answer to another sender matches.
    nonce: u64,
    pairs: VecDeque<MtuProbe>,
}

/// A long probe and the short one, with the next nonce.
struct MtuProbe {
    nonce: u64,
    size: usize,
    long_answered: bool,
    short_answered: bool,
}

impl Paths {
    /// A long bundle was sent or received on this path.
    pub(crate) fn used(&mut self, path: TrunkPath, draw: &mut dyn FnMut() -> u64, now: Instant) {
        let mtu = self.paths.entry(path).or_insert_with(|| PathMtu::new(draw(), now));
        mtu.used_until = now + USED_FOR;
    }

    pub(crate) fn look(&mut self, now: Instant) {
        for (&path, mtu) in &mut self.paths {
            if let Some((size, nonce)) = mtu.try_size(now) {
                let long = BUNDLE_SIZES[size] - PATH_LEN_MIN as u16;
                self.asking.push_back(mtu.ask(path, nonce, long));
                self.asking.push_back(mtu.ask(path, nonce.wrapping_add(1), 0));
            } else {
                self.asking.extend(mtu.tell(path));
            }
        }
    }

    pub(super) fn due(&mut self) -> Option<Asking> {
        self.asking.pop_front()
    }

    /// Handles the answer to a probe. Returns the path and its new size, if that changed.
    pub(super) fn answered(
        &mut self,
        node: NodeId,
        nonce: u64,
        now: Instant,
    ) -> Option<(TrunkPath, u16)> {
        let mut paths = self.paths.iter_mut().filter(|(path, _)| path.node == node);
        let (path, mtu) =
            paths.find_map(|(&path, mtu)| mtu.answered(nonce, now).then_some((path, mtu)))?;
        self.asking.extend(mtu.tell(path));
        Some((path, BUNDLE_SIZES[mtu.size]))
    }
}

impl PathMtu {
    fn new(nonce: u64, now: Instant) -> PathMtu {
        let (size, pairs) = (BUNDLE_SIZES.len() - 1, VecDeque::new());
        PathMtu { size, misses: 0, tellings: 0, used_until: now, raise_at: now, nonce, pairs }
    }

    /// The index of the size to probe now, with the nonce of the probe.
    fn try_size(&mut self, now: Instant) -> Option<(usize, u64)> {
        let size = if self.size + 1 < BUNDLE_SIZES.len() && now >= self.raise_at {
            self.raise_at = now + RAISE_EVERY;
            self.size + 1
        } else if self.size > 0 && now < self.used_until {
            self.size
        } else {
            return None;
        };
        if self.pairs.len() == PAIRS_MAX {
            self.pairs.pop_front();
        }
        let nonce = self.next_nonce();
        self.pairs.push_back(MtuProbe { nonce, size, long_answered: false, short_answered: false });
        Some((size, nonce))
    }

    /// The next nonce, with space for the two nonces of a pair.
    fn next_nonce(&mut self) -> u64 {
        let nonce = self.nonce;
        self.nonce = nonce.wrapping_add(2);
        nonce
    }

    fn ask(&self, path: TrunkPath, nonce: u64, padding: u16) -> Asking {
        let question = TrunkQuestion::Path { bundle_max: BUNDLE_SIZES[self.size], padding };
        Asking { node: path.node, worker: path.worker, question, nonce }
    }

    /// An announcement of the size, if one is left. The answer of the node is ignored.
    fn tell(&mut self, path: TrunkPath) -> Option<Asking> {
        self.tellings = self.tellings.checked_sub(1)?;
        let nonce = self.next_nonce();
        Some(self.ask(path, nonce, 0))
    }

    /// Returns true if the size changed.
    fn answered(&mut self, nonce: u64, now: Instant) -> bool {
        let is_asked = |pair: &&mut MtuProbe| nonce.wrapping_sub(pair.nonce) < 2;
        let Some(pair) = self.pairs.iter_mut().find(is_asked) else { return false };
        if nonce == pair.nonce {
            pair.long_answered = true;
            if pair.size >= self.size {
                self.misses = 0;
            }
            let longer = (pair.size > self.size).then_some(pair.size);
            return longer.is_some_and(|size| self.take(size, now));
        }
        let is_miss = !pair.long_answered && !pair.short_answered && pair.size == self.size;
        pair.short_answered = true;
        self.misses += u8::from(is_miss);
        self.misses >= MISSES && self.take(0, now)
    }

    fn take(&mut self, size: usize, now: Instant) -> bool {
        self.size = size;
        self.misses = 0;
        self.raise_at = now + RAISE_EVERY;
        // Answers to earlier probes say nothing about this size.
        self.pairs.clear();
        self.tellings = TELLINGS;
        true
    }
}

#[cfg(test)]
mod tests;
