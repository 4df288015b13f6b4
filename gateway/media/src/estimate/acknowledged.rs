//! The rate that arrives at the client.

use super::lowest::Lowest;

/// The estimate exceeds what arrived by no more than this factor (gcc-02, section 5.5).
pub(super) const HEADROOM: f64 = 1.5;

/// A sample takes at least this time, and ends with the next packet: three frames of video, or five of voice.
const SAMPLE_US: i64 = 100_000;

/// A longer sample spans a pause.
const SAMPLE_MAX_US: i64 = 1_000_000;

/// Weight of a new sample in the mean.
const WEIGHT: f64 = 0.3;

/// The highest mean of this time, at most twice as long, bounds the estimate: pauses of the application do not lower it at once.
const BOUND_US: i64 = 5_000_000;

/// The rate of the packets that arrived.
///
/// A sample counts packets by the longer one of two times: that from their sending and that from their arrival. A client that claims to have
/// received faster than packets were sent has no higher rate than that at which they were sent.
#[derive(Debug)]
pub(super) struct AcknowledgedRate {
    /// The sample begins with a packet that was sent and arrived then.
    start: Option<Start>,
    bytes: u64,
    latest_kbps: Option<f64>,
    mean_kbps: f64,
    /// Of negated rates.
    highest: Lowest,
    bound_kbps: f64,
}

#[derive(Clone, Copy, Debug)]
struct Start {
    sent_us: i64,
    arrived_us: i64,
}

impl Default for AcknowledgedRate {
    fn default() -> Self {
        AcknowledgedRate {
            start: None,
            bytes: 0,
            latest_kbps: None,
            mean_kbps: 0.0,
            highest: Lowest::within(BOUND_US),
            bound_kbps: 0.0,
        }
    }
}

impl AcknowledgedRate {
    pub(super) fn note(&mut self, sent_us: i64, arrived_us: i64, bytes: u16) {
        let start = *self.start.get_or_insert(Start { sent_us, arrived_us });
        // Packets of an earlier sample would make this one too high.
        if sent_us < start.sent_us {
            return;
        }
        let passed_us = (sent_us - start.sent_us).max(arrived_us - start.arrived_us);
        if passed_us >= SAMPLE_US {
            if passed_us < SAMPLE_MAX_US {
                self.add(self.bytes as f64 * 8_000.0 / passed_us as f64, sent_us);
            }
            (self.start, self.bytes) = (Some(Start { sent_us, arrived_us }), 0);
        }
        self.bytes += u64::from(bytes);
    }

    fn add(&mut self, kbps: f64, sent_us: i64) {
        let weight = if self.latest_kbps.is_some() { WEIGHT } else { 1.0 };
        self.mean_kbps += weight * (kbps - self.mean_kbps);
        self.latest_kbps = Some(kbps);
        self.bound_kbps = -HEADROOM * self.highest.update(-self.mean_kbps, sent_us);
    }

    /// The last sample.
    pub(super) fn latest_kbps(&self) -> Option<f64> {
        self.latest_kbps
    }

    /// The mean of the last samples; 0 before the first.
    pub(super) fn mean_kbps(&self) -> f64 {
        self.mean_kbps
    }

    /// The most that an estimate may be.
    pub(super) fn bound_kbps(&self) -> Option<f64> {
        self.latest_kbps.map(|_| self.bound_kbps)
    }
}
