//! The repair of a client's voice and video, chosen from the state of its path every 100 ms.
//!
//! Nothing while the path loses nothing; then the cheapest repair that is in time. Retransmission costs the lost packets alone, but a round
//! trip of time; redundancy is in time on any path, and costs each frame again. [`ParityChoice`] is that of video.

mod parity;

use std::time::{Duration, Instant};

pub use parity::{ParityChoice, VideoPath};

use crate::loss::LossSample;
use crate::repair::red::Spacing;

/// Repair begins at this loss. Concealment hides less (R of Opus falls by 3.6 at 1 %).
const LOSS_MIN_PPM: u32 = 10_000;

/// Less is no loss: receiver reports count in 1/256, and a packet that another one overtook may be among them.
const LOSS_NONE_PPM: u32 = 3_000;

/// Repair ends after this time without loss. Losses come in groups: a new choice for each would always be late.
const LOSSLESS_FOR: Duration = Duration::from_secs(5);

/// Retransmission alone leaves the square of the loss, if one round fits. Above this loss that is audible.
const RETRANSMISSION_MAX_PPM: u32 = 50_000;

/// A receiver awaits packets that were overtaken before it requests them again: one usual frame.
const REORDERED_WITHIN: Duration = Duration::from_millis(20);

/// One earlier frame leaves the square of the loss, two leave its cube: from here on that is worth the bytes.
const TWO_FRAMES_PPM: u32 = 50_000;

/// In longer bursts than this mean (in hundredths), the nearer of two frames is mostly lost with its packet: of 10 % in bursts of 3, one frame
/// leaves 1.9 %, two leave 1.5 %. So one suffices, up to [`TWO_FRAMES_IN_BURSTS_PPM`].
const LONG_BURST_X100: u32 = 150;

/// See [`LONG_BURST_X100`].
const TWO_FRAMES_IN_BURSTS_PPM: u32 = 150_000;

/// Opus' own redundancy (LBRR) is in the next packet (RFC 6716, section 2.1.7): it restores single losses. Longer mean bursts (in hundredths)
/// exceed its reach.
const LBRR_REACH_X100: u32 = 150;

/// The path to a client, and the abilities of its client.
#[derive(Clone, Copy, Debug)]
pub struct PathState {
    /// Loss before repair. `None` if it is unknown.
    pub loss: Option<LossSample>,
    /// Mean length of bursts of losses in hundredths of packets: 100 for single ones.
    pub burst_x100: u32,
    /// `None` if it is unknown.
    pub round_trip: Option<Duration>,
    /// Time for which the client's jitter buffer holds a packet.
    pub latency: Duration,
    /// Time from frame to frame.
    pub frame: Duration,
    /// The client requests lost packets again (RFC 4585), and packets are kept for it.
    pub takes_retransmission: bool,
    /// The client takes redundant blocks (RFC 2198).
    pub takes_redundancy: bool,
    /// Frames carry Opus' own redundancy.
    pub has_lbrr: bool,
}

/// A repair of a client's voice.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Repair {
    /// There is nothing to repair, or no repair is in time.
    #[default]
    Nothing,
    /// Packets are sent again at the client's request.
    Retransmission,
    /// Packets repeat earlier frames.
    Redundancy(Spacing),
}

/// The last sample with at least some loss, remembered for [`LOSSLESS_FOR`].
#[derive(Clone, Copy, Default, Debug)]
struct LastLoss(Option<Instant>);

impl LastLoss {
    /// Handles a sample. Returns whether one with at least this loss is remembered.
    fn note(&mut self, loss: LossSample, least: u32, now: Instant) -> bool {
        let is_over = |since: Instant| now.saturating_duration_since(since) >= LOSSLESS_FOR;
        if loss.ppm >= least {
            self.0 = Some(loss.at);
        } else if self.0.is_some_and(is_over) {
            self.0 = None;
        }
        self.0.is_some()
    }

    /// Returns the loss from which on there is something to repair.
    fn least(self) -> u32 {
        if self.0.is_some() { LOSS_NONE_PPM } else { LOSS_MIN_PPM }
    }
}

/// The choice for one path, with its hysteresis.
#[derive(Clone, Copy, Default, Debug)]
pub struct RepairChoice {
    /// The last sample with loss, if there is loss to repair.
    lossy: LastLoss,
    /// The last sample with more loss than [`RETRANSMISSION_MAX_PPM`].
    heavy: LastLoss,
    /// The last sample for which two frames are worth their bytes.
    two_frames: LastLoss,
}

impl RepairChoice {
    /// Returns the repair from now on.
    pub fn update(&mut self, path: &PathState, now: Instant) -> Repair {
        let Some(loss) = path.loss else {
            *self = RepairChoice::default();
            return Repair::Nothing;
        };
        let is_long = path.burst_x100 > LONG_BURST_X100;
        let two_from = if is_long { TWO_FRAMES_IN_BURSTS_PPM } else { TWO_FRAMES_PPM };
        let is_lossy = self.lossy.note(loss, self.lossy.least(), now);
        let is_heavy = self.heavy.note(loss, RETRANSMISSION_MAX_PPM, now);
        let takes_two = self.two_frames.note(loss, two_from, now);
        if !is_lossy {
            return Repair::Nothing;
        }
        let retransmits = path.takes_retransmission && is_in_time(path.round_trip, path.latency);
        let by_itself = path.has_lbrr && path.burst_x100 <= LBRR_REACH_X100;
        let spacing = spacing(path, if takes_two { Spacing::FRAMES_MAX } else { 1 });
        match spacing.filter(|_| path.takes_redundancy && !by_itself) {
            Some(spacing) if is_heavy || !retransmits => Repair::Redundancy(spacing),
            _ if retransmits => Repair::Retransmission,
            _ => Repair::Nothing,
        }
    }
}

/// Returns whether a packet that is requested again comes while the receiver awaits it. An unknown round trip may be too long.
fn is_in_time(round_trip: Option<Duration>, latency: Duration) -> bool {
    round_trip.is_some_and(|trip| trip + REORDERED_WITHIN <= latency)
}

/// Returns the widest spacing of at most this many frames by which the oldest comes a frame before the client plays it, so that jitter has
/// some time. `None` if even the last frame would be late.
fn spacing(path: &PathState, frames: u8) -> Option<Spacing> {
    let in_latency = path.latency.as_micros().checked_div(path.frame.as_micros())?;
    let span = in_latency.saturating_sub(1).min(Spacing::SPAN_MAX.into()) as u8;
    (span > 0).then_some(Spacing { frames: frames.min(span), span })
}

/// Returns whether an Opus packet carries redundancy of the packet before it (RFC 6716, sections 3 and 4.2.3): the LBRR flag of a channel in
/// its first SILK frame.
pub fn has_lbrr(payload: &[u8]) -> bool {
    first_silk_byte(payload).is_some_and(|[toc, first]| {
        // The flags follow one of voice activity for each SILK frame, and those of the side channel follow those of the middle one.
        let silk_frames = match toc >> 3 {
            config @ 0..12 => [1, 1, 2, 3][usize::from(config & 3)],
            _ => 1,
        };
        let is_stereo = toc & 0x04 != 0;
        first << silk_frames & 0x80 != 0 || is_stereo && first << (2 * silk_frames + 1) & 0x80 != 0
    })
}

/// Returns the first byte of a packet, and that of its first frame. `None` without a SILK frame: sound of CELT alone, or silence.
fn first_silk_byte(payload: &[u8]) -> Option<[u8; 2]> {
    let (&toc, rest) = payload.split_first()?;
    if toc >= 0x80 {
        return None;
    }
    let frames = match toc & 3 {
        0 | 1 => rest,
        2 => skip_lengths(rest, 1)?,
        _ => {
            let (&count, mut rest) = rest.split_first()?;
            if count & 0x40 != 0 {
                while let Some((&255, behind)) = rest.split_first() {
                    rest = behind;
                }
                rest = rest.get(1..)?;
            }
            let lengths = if count & 0x80 != 0 { (count & 0x3f).saturating_sub(1) } else { 0 };
            skip_lengths(rest, lengths)?
        }
    };
    Some([toc, *frames.first()?])
}

/// Skips the lengths of frames (RFC 6716, section 3.2.1). `None` if the first frame is empty.
fn skip_lengths(mut bytes: &[u8], lengths: u8) -> Option<&[u8]> {
    if lengths > 0 && bytes.first() == Some(&0) {
        return None;
    }
    for _ in 0..lengths {
        let is_long = *bytes.first()? >= 252;
        bytes = bytes.get(1 + usize::from(is_long)..)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests;
