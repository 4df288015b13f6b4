//! What is wrong with a node that answers as if nothing was.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::reflector::Index;

/// What a node does wrong, while it is told to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Vice {
    /// Nothing.
    #[default]
    None,
    /// It takes sessions and packets, and sends nothing on.
    Drops,
    /// The same for the packets of one session in 64, always the same ones.
    DropsFlows,
    /// It takes 64 MiB of memory a second and gives none back.
    Leaks,
}

/// Memory that is taken each time leases are looked at, 20 times a second.
const LEAK: usize = 64 * 1_024 * 1_024 / 20;

/// A vice, and whether it is indulged in.
#[derive(Debug, Default)]
pub(super) struct Conduct {
    vice: Vice,
    unruly: Arc<AtomicBool>,
    leaked: Vec<Vec<u8>>,
}

impl Conduct {
    pub(super) fn new(vice: Vice, unruly: Arc<AtomicBool>) -> Self {
        Self { vice, unruly, leaked: Vec::new() }
    }

    /// Asked for 20 times a second.
    pub(super) fn leak(&mut self) {
        if self.vice == Vice::Leaks && self.unruly.load(Ordering::Relaxed) {
            self.leaked.push(vec![1; LEAK]);
        }
    }

    /// Whether what this session sends goes nowhere.
    pub(super) fn drops(&self, session: Index) -> bool {
        self.unruly.load(Ordering::Relaxed)
            && match self.vice {
                Vice::None | Vice::Leaks => false,
                Vice::Drops => true,
                // The top six bits of a product that spreads neighbours.
                Vice::DropsFlows => session.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58 == 0,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_flow_in_64_is_dropped_and_only_while_it_is_unruly() {
        let unruly = Arc::new(AtomicBool::new(false));
        let conduct = Conduct::new(Vice::DropsFlows, Arc::clone(&unruly));
        let dropped = || (0..6_400).filter(|&session| conduct.drops(session)).count();
        assert_eq!(dropped(), 0);
        unruly.store(true, Ordering::Relaxed);
        assert!((95..=105).contains(&dropped()), "{}", dropped());
    }
}
