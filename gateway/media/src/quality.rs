//! Call quality: the E-model's R-factor (ITU-T G.107), from delay, loss and its bursts.
//!
//! Simplified as usual for packet networks: all inputs except delay, loss and codec have the standard's
//! defaults, so R = 93.2 − Id − Ie,eff. At least 80 is good, 70 fair, below 50 not recommended.

use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;
use std::time::Duration;

/// R without delay or loss, at the defaults of G.107.
const R_BEST: f64 = 93.2;

/// One-way delay in ms from which people interrupt each other.
const DELAY_KNEE_MS: f64 = 177.3;

/// Codecs with known impairment factors (G.113).
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub enum Codec {
    /// Opus. G.113 has no figures for it; taken as G.711 with concealment, a lower bound.
    Opus,
    /// G.711 with packet loss concealment (Ie 0, Bpl 25.1: G.113, appendix I).
    G711,
    /// G.729A with voice activity detection (Ie 11, Bpl 19.0: G.113, appendix I).
    G729,
    /// Any other codec: no impairment by itself, and no concealment (Bpl 4.3: G.113, appendix I).
    Other,
}

impl Codec {
    /// Returns the codec of an SDP encoding name, case-insensitive.
    pub fn named(name: &str) -> Self {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        if is("opus") {
            Self::Opus
        } else if is("pcmu") || is("pcma") || is("g711") {
            Self::G711
        } else if is("g729") {
            Self::G729
        } else {
            Self::Other
        }
    }

    /// Returns the impairment without loss (Ie), and the robustness to loss (Bpl).
    fn impairment(self) -> (f64, f64) {
        match self {
            Self::Opus | Self::G711 => (0.0, 25.1),
            Self::G729 => (11.0, 19.0),
            Self::Other => (0.0, 4.3),
        }
    }
}

/// The valid burst ratios (G.107, table 2). 1 is random loss.
const BURST_RATIO: RangeInclusive<f64> = 1.0..=8.0;

/// Loss as it is heard, after repair.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct HeardLoss {
    /// The share of lost packets, in parts per million.
    pub ppm: u32,
    /// The mean length of bursts of loss over that of random loss of the same share (BurstR).
    pub burst_ratio: f64,
}

impl HeardLoss {
    /// Random loss: each packet is lost independently of those before it.
    pub fn random(ppm: u32) -> HeardLoss {
        HeardLoss { ppm, burst_ratio: *BURST_RATIO.start() }
    }
}

/// Returns the R-factor in hundredths, 0–9,320.
///
/// `one_way_delay` is from mouth to ear, jitter buffer included. The codec's impairment by loss is that of G.107, clause 7.5.
pub fn r_factor(one_way_delay: Duration, loss: HeardLoss, codec: Codec) -> u32 {
    let delay_ms = one_way_delay.as_secs_f64() * 1_000.0;
    let delay = 0.024 * delay_ms + 0.11 * (delay_ms - DELAY_KNEE_MS).max(0.0);
    let percent = f64::from(loss.ppm.min(1_000_000)) / 10_000.0;
    let burst_ratio = loss.burst_ratio.clamp(*BURST_RATIO.start(), *BURST_RATIO.end());
    let (impairment, robustness) = codec.impairment();
    let codec = impairment + (95.0 - impairment) * percent / (percent / burst_ratio + robustness);
    ((R_BEST - delay - codec) * 100.0).round().clamp(0.0, 9_320.0) as u32
}

/// The longest payload of an Opus packet without sound: a code byte and two more (RFC 6716, 3.1).
const OPUS_SILENT_MAX: usize = 3;

/// Returns whether a voice packet has no sound at all, not even the noise of a microphone. `None` if the codec does not tell.
pub fn is_silent(codec: &str, payload: &[u8]) -> Option<bool> {
    let is = |name: &str| codec.eq_ignore_ascii_case(name);
    // The codes of both zeros without their sign bit (G.711).
    let zero = if is("pcmu") {
        0x7f
    } else if is("pcma") {
        0x55
    } else {
        return is("opus").then_some(payload.len() <= OPUS_SILENT_MAX);
    };
    Some(payload.iter().all(|code| code & 0x7f == zero))
}

#[cfg(test)]
mod tests;
