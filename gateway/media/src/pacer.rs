//! Paces video to a receiver: a burst leaves at a multiple of the rate that the path carries, so that it fills no queue on it. Packets that
//! wait leave by class, and none leaves after it is late.

mod queue;

use std::time::{Duration, Instant};

pub use queue::AgedQueue;

/// Time between two looks at the packets that wait.
pub const QUANTUM: Duration = Duration::from_millis(1);

/// The paced rate by the estimated one: a frame that is larger than others is gone before the next one comes.
const RATE_FACTOR: f64 = 1.5;

/// Bytes that leave at once, in time at the paced rate, and at least four packets.
const BURST: Duration = Duration::from_millis(5);
const BURST_MIN: f64 = 4_800.0;

/// The queue is empty this long before its oldest packet is late: threads wake up late.
const EMPTY_BEFORE: Duration = Duration::from_millis(5);

/// Streams whose class is remembered while packets wait; those beyond wait as video.
const STREAMS_MAX: usize = 64;

/// The order in which packets that wait leave.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum PacedClass {
    /// Receivers can show nothing before.
    KeyFrame,
    /// Video as it comes.
    Video,
    /// Video that is sent again, and parity.
    VideoRepair,
}

/// The packets to a receiver that wait, and the budget of those that need not.
#[derive(Debug)]
pub struct Pacer<P> {
    queue: AgedQueue<P, 3>,
    /// The class of the last packet that waits, by SSRC: no packet overtakes an earlier one of its stream.
    streams: Vec<WaitingStream>,
    /// Bytes that may leave now; negative after a packet that was longer.
    credit: f64,
    bytes_per_s: f64,
    filled_at: Instant,
}

#[derive(Debug)]
struct WaitingStream {
    ssrc: u32,
    class: PacedClass,
}

impl<P> Pacer<P> {
    /// Begins with the whole burst budget.
    pub fn new(kbps: u32, now: Instant) -> Pacer<P> {
        let mut pacer = Pacer {
            queue: AgedQueue::default(),
            streams: Vec::new(),
            credit: 0.0,
            bytes_per_s: 0.0,
            filled_at: now,
        };
        pacer.set_rate(kbps, now);
        pacer.credit = pacer.burst();
        pacer
    }

    /// Follows the estimated rate.
    pub fn set_rate(&mut self, kbps: u32, now: Instant) {
        self.fill(now);
        self.bytes_per_s = f64::from(kbps.max(1)) * 125.0 * RATE_FACTOR;
    }

    /// Returns whether a packet of this length may leave at once, and takes it from the burst budget then.
    pub fn admits(&mut self, bytes: usize, now: Instant) -> bool {
        self.fill(now);
        let admits = self.queue.is_empty() && self.credit > 0.0;
        if admits {
            self.credit -= bytes as f64;
        }
        admits
    }

    /// Adds a packet of a stream that is to leave before `until`.
    pub fn push(&mut self, packet: P, bytes: usize, class: PacedClass, ssrc: u32, until: Instant) {
        let class = self.place(class, ssrc);
        self.queue.push(packet, bytes, class as usize, until, usize::MAX);
    }

    /// Returns the class in which the packet waits. One that is sent again is behind later ones anyway.
    fn place(&mut self, class: PacedClass, ssrc: u32) -> PacedClass {
        if class == PacedClass::VideoRepair {
            return class;
        }
        let is_full = self.streams.len() == STREAMS_MAX;
        match self.streams.iter_mut().find(|stream| stream.ssrc == ssrc) {
            Some(stream) => {
                stream.class = stream.class.max(class);
                stream.class
            }
            None if is_full => PacedClass::Video,
            None => {
                self.streams.push(WaitingStream { ssrc, class });
                class
            }
        }
    }

    /// Takes the next packet if it may leave now. [`Pacer::expire`] comes first.
    pub fn next(&mut self, now: Instant) -> Option<P> {
        self.fill(now);
        if self.credit > 0.0 { self.take() } else { None }
    }

    /// Takes the next packet, whatever the budget is.
    pub fn take(&mut self) -> Option<P> {
        let (packet, bytes) = self.queue.pop()?;
        self.credit -= bytes as f64;
        self.forget_streams();
        Some(packet)
    }

    /// Drops the packets that are late and returns their number.
    pub fn expire(&mut self, now: Instant) -> usize {
        let late = self.queue.expire(now);
        self.forget_streams();
        late
    }

    /// Number of packets that wait.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    fn forget_streams(&mut self) {
        if self.queue.is_empty() {
            self.streams.clear();
        }
    }

    fn burst(&self) -> f64 {
        (self.bytes_per_s * BURST.as_secs_f64()).max(BURST_MIN)
    }

    /// Adds the budget of the time since the last call: at the paced rate, or at the one at which all packets leave in time.
    fn fill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled_at);
        let waiting = self.queue.bytes() as f64;
        let needed = self.queue.due().map_or(0.0, |due| {
            let left = due.saturating_duration_since(self.filled_at).saturating_sub(EMPTY_BEFORE);
            let share =
                if elapsed < left { elapsed.as_secs_f64() / left.as_secs_f64() } else { 1.0 };
            // The debt of packets that have left delays none that would be late.
            share * (waiting - self.credit.min(0.0))
        });
        self.credit += needed.max(self.bytes_per_s * elapsed.as_secs_f64());
        if self.queue.is_empty() {
            self.credit = self.credit.min(self.burst());
        }
        self.filled_at = self.filled_at.max(now);
    }
}

#[cfg(test)]
mod tests;
