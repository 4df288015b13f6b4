//! A timer wheel for thousands of timers.

/// Length of a slot, and so the resolution: 1 ms.
const SLOT_NS: u64 = 1_000_000;
/// Slots of one turn: 1.024 s, longer than the longest sleep of a client.
const SLOTS: usize = 1_024;

/// Timers by key, in order of time with a resolution of 1 ms. A timer never expires early.
pub(crate) struct Wheel {
    slots: Vec<Vec<(u64, usize)>>,
    turned_to: u64,
    waiting: usize,
}

impl Wheel {
    /// An empty wheel that starts now.
    pub(crate) fn new(now_ns: u64) -> Self {
        Self { slots: vec![Vec::new(); SLOTS], turned_to: now_ns / SLOT_NS, waiting: 0 }
    }

    /// Sets the timer of `key`. A timer in the past expires with the next [`turn`](Self::turn).
    pub(crate) fn arm(&mut self, key: usize, at_ns: u64) {
        let tick = at_ns.div_ceil(SLOT_NS).max(self.turned_to + 1);
        self.slots[slot_of(tick)].push((tick, key));
        self.waiting += 1;
    }

    pub(crate) fn turn(&mut self, now_ns: u64, due: &mut Vec<usize>) {
        let now = now_ns / SLOT_NS;
        let turns = now.saturating_sub(self.turned_to).min(SLOTS as u64);
        for tick in (now + 1).saturating_sub(turns)..=now {
            let waiting = &mut self.waiting;
            self.slots[slot_of(tick)].retain(|&(at, key)| {
                let ripe = at <= now;
                if ripe {
                    due.push(key);
                    *waiting -= 1;
                }
                !ripe
            });
        }
        self.turned_to = self.turned_to.max(now);
    }

    /// The time until the next timer, in whole ms rounded up; `None` if no timer expires within a turn of the wheel.
    pub(crate) fn sleep_ms(&self, now_ns: u64) -> Option<u64> {
        if self.waiting == 0 {
            return None;
        }
        (self.turned_to + 1..=self.turned_to + SLOTS as u64)
            .find(|&tick| self.slots[slot_of(tick)].iter().any(|&(at, _)| at == tick))
            .map(|tick| (tick * SLOT_NS).saturating_sub(now_ns).div_ceil(SLOT_NS))
    }
}

fn slot_of(tick: u64) -> usize {
    usize::try_from(tick % SLOTS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests;
