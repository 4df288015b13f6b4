//! Faults of a node that still answers probes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use evenkeel_media::demux::Kind;

use super::reflector::Index;

/// A simulated fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Vice {
    #[default]
    None,
    /// Accepts sessions and packets, and forwards none.
    Drops,
    /// The same for the packets of one in 64 of the sessions that send media meanwhile, always the same ones.
    DropsFlows,
    /// Allocates 64 MiB per second.
    Leaks,
    /// Reports to be empty and to be overloaded, in turns of one second.
    Lies,
    /// Its clock is an hour ahead.
    JumpsAhead,
}

/// How far ahead, microseconds.
const AHEAD_US: u64 = 3_600_000_000;

/// The length of a turn.
const SAYS_FOR: Duration = Duration::from_secs(1);

/// The reported load, thousandths.
const SAYS: [u16; 2] = [0, 60_000];

/// Memory that is taken each time leases are looked at, 20 times a second.
const LEAK: usize = 64 * 1_024 * 1_024 / 20;

/// One of this many flows is dropped.
const FLOWS: usize = 64;

/// and that is the one in the middle: of any number, one in 64 to the nearest whole, and of 160 three.
const DROPPED: usize = FLOWS / 2 - 1;

/// A fault and whether it is active.
#[derive(Debug, Default)]
pub(super) struct Conduct {
    vice: Vice,
    unruly: Arc<AtomicBool>,
    leaked: Vec<Vec<u8>>,
    began: Option<Instant>,
    /// Sessions that sent media while flows are dropped, and whether theirs is.
    flows: HashMap<Index, bool>,
}

impl Conduct {
    pub(super) fn new(vice: Vice, unruly: Arc<AtomicBool>) -> Self {
        Self { vice, unruly, ..Self::default() }
    }

    /// Asked for 20 times a second.
    pub(super) fn leak(&mut self) {
        if self.vice == Vice::Leaks && self.unruly.load(Ordering::Relaxed) {
            self.leaked.push(vec![1; LEAK]);
        }
    }

    /// The node's clock, microseconds.
    pub(super) fn unix_us(&self, unix_us: u64) -> u64 {
        let ahead = self.vice == Vice::JumpsAhead && self.unruly.load(Ordering::Relaxed);
        unix_us + if ahead { AHEAD_US } else { 0 }
    }

    /// The reported load.
    pub(super) fn says(&mut self, permille: u16, now: Instant) -> u16 {
        if self.vice != Vice::Lies || !self.unruly.load(Ordering::Relaxed) {
            return permille;
        }
        let since = now.saturating_duration_since(*self.began.get_or_insert(now));
        SAYS[(since.as_millis() / SAYS_FOR.as_millis()) as usize % SAYS.len()]
    }

    /// Returns true if a packet of this kind from this session is dropped.
    pub(super) fn drops(&mut self, session: Index, kind: Kind) -> bool {
        self.unruly.load(Ordering::Relaxed)
            && match self.vice {
                Vice::None | Vice::Leaks | Vice::Lies | Vice::JumpsAhead => false,
                Vice::Drops => true,
                Vice::DropsFlows => self.drops_flow(session, kind),
            }
    }

    /// Flows are numbered in the order of their first packet, so that their count tells how many are dropped.
    fn drops_flow(&mut self, session: Index, kind: Kind) -> bool {
        if kind == Kind::Rtp {
            let before = self.flows.len();
            *self.flows.entry(session).or_insert(before % FLOWS == DROPPED)
        } else {
            self.flows.get(&session).is_some_and(|drops| *drops)
        }
    }
}

#[cfg(test)]
mod tests;
