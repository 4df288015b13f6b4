//! What nodes and regions can carry, and what is counted against it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use crate::SessionId;
use crate::breaker::Breaker;
use crate::ledger::Ledger;

#[derive(Debug)]
pub(crate) struct Capacity {
    pub(crate) ledger: Ledger,
    /// By the region's number.
    pub(crate) breakers: Vec<Breaker>,
    /// The number of the window in which regions are heard now.
    pub(crate) window: u32,
    /// Sessions that get less than they need, and since when.
    pub(crate) sparing: BTreeMap<SessionId, Instant>,
    /// The last of them that was looked at for more.
    pub(crate) climbed_last: SessionId,
    /// When policies moved rooms, and of how many sessions, within the last second.
    pub(crate) churn: VecDeque<(Instant, usize)>,
}

impl Capacity {
    pub(crate) fn new(kbps: Vec<u64>, regions: usize, now: Instant) -> Capacity {
        Capacity {
            ledger: Ledger::new(kbps),
            breakers: (0..regions).map(|_| Breaker::new(now)).collect(),
            window: 1,
            sparing: BTreeMap::new(),
            climbed_last: SessionId(0),
            churn: VecDeque::new(),
        }
    }
}
