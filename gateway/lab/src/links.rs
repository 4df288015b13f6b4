//! A model of bad links: the fate of each packet from a seed, without sockets or a clock.
//!
//! The relay applies it to real datagrams, the simulator in virtual time.

use std::time::{Duration, Instant};

use fastrand::Rng;

/// Parts of a probability: parts per million are exact.
const MILLION: u32 = 1_000_000;
/// Longest queue of a slow link: the worst case of a home router.
const QUEUE_MAX: Duration = Duration::from_millis(200);
/// Extra delay of a packet picked for reordering.
const REORDER_BY: Duration = Duration::from_millis(25);

/// Impairments of a link; none by default.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Conditions {
    /// Fixed delay of every packet.
    pub delay: Duration,
    /// Additional random delay, uniform from zero to this maximum.
    pub jitter: Duration,
    /// True if packets with less delay overtake others, as on several paths. Otherwise order is kept, as in a queue.
    pub overtaking: bool,
    /// Independent losses, parts per million.
    pub loss_ppm: u32,
    /// Burst losses in addition to independent ones.
    pub bursts: Option<Bursts>,
    /// Packets delayed by 25 ms, parts per million.
    pub reorder_ppm: u32,
    /// Duplicated packets, parts per million.
    pub duplicate_ppm: u32,
    /// Packets with one bit flipped, parts per million.
    pub corrupt_ppm: u32,
    /// Bit rate limit; a packet that would queue longer than 200 ms is dropped. `None` means no limit.
    pub rate_bps: Option<u64>,
    /// True if all packets are lost.
    pub blackout: bool,
}

impl Conditions {
    /// Independent loss of this many per cent, at most 100.
    pub fn loss_percent(percent: u32) -> Self {
        Self { loss_ppm: percent.min(100) * (MILLION / 100), ..Self::default() }
    }
}

/// Gilbert–Elliott model: a good and a bad state with separate losses, all in parts per million.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bursts {
    /// Probability per packet to enter the bad state.
    pub enter_ppm: u32,
    /// Probability per packet to leave the bad state. The mean burst length is a million divided by this value, in
    /// packets.
    pub leave_ppm: u32,
    /// Loss in the good state, parts per million.
    pub good_loss_ppm: u32,
    /// Loss in the bad state, parts per million.
    pub bad_loss_ppm: u32,
}

/// The cause of a packet's loss or damage.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ImpairmentCause {
    /// The link is down.
    Blackout,
    /// Independent loss.
    Loss,
    /// Loss by [`Bursts`].
    Burst,
    /// The queue of a slow link was full.
    Rate,
    /// One bit was flipped; the packet was delivered.
    Corrupted,
}

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PacketOutcome {
    /// It does not arrive.
    Drop(ImpairmentCause),
    /// It arrives, perhaps twice or damaged.
    Deliver {
        /// Delivery time.
        at: Instant,
        /// Delivery time of the duplicate, if there is one.
        copy_at: Option<Instant>,
        /// Index of the flipped bit, if any.
        turned: Option<usize>,
    },
}

/// One direction of a link.
pub struct Impairment {
    /// Conditions from the next packet on.
    pub conditions: Conditions,
    rng: Rng,
    bad: bool,
    wire_free_at: Option<Instant>,
    last_at: Option<Instant>,
}

impl Impairment {
    /// Creates a perfect link with this seed.
    pub fn new(seed: u64) -> Self {
        Self {
            conditions: Conditions::default(),
            rng: Rng::with_seed(seed),
            bad: false,
            wire_free_at: None,
            last_at: None,
        }
    }

    /// Decides the fate of the next packet. Each packet draws the same random numbers under any conditions, so that a
    /// temporary change does not affect the packets after it.
    pub fn decide(&mut self, now: Instant, bytes: usize) -> PacketOutcome {
        let [single, burst, change, reorder, copy, corrupt] =
            std::array::from_fn(|_| self.rng.u32(0..MILLION));
        let jitter_share = f64::from(self.rng.u32(0..MILLION)) / f64::from(MILLION);
        let bit_share = self.rng.u64(..);
        let conditions = self.conditions;
        if conditions.blackout {
            return PacketOutcome::Drop(ImpairmentCause::Blackout);
        }
        if single < conditions.loss_ppm {
            return PacketOutcome::Drop(ImpairmentCause::Loss);
        }
        if self.lost_in_burst(conditions.bursts, burst, change) {
            return PacketOutcome::Drop(ImpairmentCause::Burst);
        }
        let Some(through) = self.serialised(now, bytes) else {
            return PacketOutcome::Drop(ImpairmentCause::Rate);
        };
        let mut at = through + conditions.delay + conditions.jitter.mul_f64(jitter_share);
        if reorder < conditions.reorder_ppm {
            at += REORDER_BY;
        } else if !conditions.overtaking {
            at = self.last_at.map_or(at, |last| last.max(at));
            self.last_at = Some(at);
        }
        let copy_at = (copy < conditions.duplicate_ppm).then_some(at);
        let bits = bytes as u64 * 8;
        let turned = (corrupt < conditions.corrupt_ppm && bits > 0)
            .then(|| usize::try_from(bit_share % bits).unwrap_or(0));
        PacketOutcome::Deliver { at, copy_at, turned }
    }

    fn lost_in_burst(&mut self, bursts: Option<Bursts>, loss: u32, change: u32) -> bool {
        let Some(bursts) = bursts else {
            self.bad = false;
            return false;
        };
        let leave_or_enter = if self.bad { bursts.leave_ppm } else { bursts.enter_ppm };
        self.bad ^= change < leave_or_enter;
        loss < if self.bad { bursts.bad_loss_ppm } else { bursts.good_loss_ppm }
    }

    /// Returns the time when the last bit of the packet has left a link of limited rate; `None` if its queue is full.
    fn serialised(&mut self, now: Instant, bytes: usize) -> Option<Instant> {
        let Some(rate_bps) = self.conditions.rate_bps else { return Some(now) };
        let starts = self.wire_free_at.map_or(now, |free| free.max(now));
        if starts.duration_since(now) > QUEUE_MAX {
            return None;
        }
        let takes = (bytes as u64 * 8).saturating_mul(1_000_000_000) / rate_bps.max(1);
        let through = starts + Duration::from_nanos(takes);
        self.wire_free_at = Some(through);
        Some(through)
    }
}

#[cfg(test)]
mod tests;
