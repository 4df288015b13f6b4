//! Packet indices of sources: their estimation, their use once, and their lease.

use serde::{Deserialize, Serialize};

use super::error::SrtpError;

/// Sources per session and direction. A conference of eighty with voice, video and RTX has 240; the table then takes
/// 20 KiB. No source is ever forgotten: its indices would be free again under the same key.
pub const SOURCES_MAX: usize = 256;

/// Indices per source of SRTP: a rollover counter of 32 bits and a sequence number of 16 (RFC 3711, section 9.2).
pub(super) const RTP_INDICES: u64 = 1 << 48;

/// Indices per source of SRTCP (RFC 3711, section 9.2).
pub(super) const RTCP_INDICES: u64 = 1 << 31;

/// Indices at the highest one and below it that may still be used, once each.
pub(super) const WINDOW: u64 = u128::BITS as u64;

/// Half of the sequence numbers.
const SEQUENCE_MEDIAN: i32 = 1 << 15;

/// Unused indices that a receiver of the one before them can skip, at most (RFC 3711, section 3.3.1).
const SKIPPED_MAX: u64 = (1 << 15) - 2;

/// Indices with the rollover counter that a new receiver assumes.
const FIRST_INDICES: u64 = 1 << 16;

/// The used indices of a source (RFC 3711, section 3.3.2).
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct IndexWindow {
    /// The index after the highest used one; 0 if none was used.
    next: u64,
    /// Bit n is set if the index n below the highest one was used.
    used: u128,
}

impl IndexWindow {
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Counts all indices below `next` as used.
    pub(super) fn skip_to(&mut self, next: u64) {
        if next > self.next {
            *self = Self { next, used: u128::MAX };
        }
    }

    /// Returns the index of a packet by its sequence number (RFC 3711, section 3.3.1). `None` if it would be negative, or
    /// needs a rollover counter above 2^32 - 1.
    pub(super) fn estimate(&self, sequence: u16) -> Option<u64> {
        let Some(highest) = self.next.checked_sub(1) else { return Some(sequence.into()) };
        let (rollovers, last) = (highest >> 16, i32::from(highest as u16));
        let ahead = i32::from(sequence) - last;
        let rollovers = if last < SEQUENCE_MEDIAN && ahead > SEQUENCE_MEDIAN {
            rollovers.checked_sub(1)?
        } else {
            rollovers + u64::from(last >= SEQUENCE_MEDIAN && -ahead > SEQUENCE_MEDIAN)
        };
        Some(rollovers << 16 | u64::from(sequence)).filter(|index| *index < RTP_INDICES)
    }

    /// Returns whether the index is above the window, or in it and unused.
    pub(super) fn is_unused(&self, index: u64) -> bool {
        let Some(highest) = self.next.checked_sub(1) else { return true };
        match highest.checked_sub(index) {
            None => true,
            Some(behind) => behind < WINDOW && self.used >> behind & 1 == 0,
        }
    }

    /// Marks an unused index as used.
    pub(super) fn mark(&mut self, index: u64) {
        match index.checked_sub(self.next) {
            Some(above) => {
                let shift = u32::try_from(above + 1).unwrap_or(u32::MAX);
                self.used = self.used.checked_shl(shift).unwrap_or(0) | 1;
                self.next = index + 1;
            }
            None => self.used |= 1 << (self.next - 1 - index),
        }
    }
}

/// The outbound indices of a source that were used, and the end of those that may be.
///
/// The owner of a session sends below `limit`, which its standby has acknowledged; the standby begins at `limit`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
pub struct IndexLease {
    /// The index after the highest sent one; 0 if none was sent.
    pub next: u64,
    /// The first index that must not be sent.
    pub limit: u64,
}

/// Copy of the outbound counters of a source.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct SentIndices {
    /// The source, as its receiver knows it.
    pub ssrc: u32,
    /// Indices of SRTP, of 48 bits: rollover counter and sequence number.
    pub rtp: IndexLease,
    /// Indices of SRTCP, of 31 bits.
    pub rtcp: IndexLease,
}

/// Copy of the inbound counters of a source.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct ReceivedIndices {
    /// The source, as its sender knows it.
    pub ssrc: u32,
    /// The index after the highest received one of SRTP; 0 if none was received.
    pub rtp_next: u64,
    /// The index after the highest received one of SRTCP; 0 if none was received.
    pub rtcp_next: u64,
}

/// Outbound state of a source.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct SentSource {
    pub(super) rtp: IndexWindow,
    pub(super) rtp_limit: u64,
    pub(super) rtcp: IndexLease,
}

impl SentSource {
    /// Allows indices below these limits.
    pub(super) fn lease(&mut self, rtp_limit: u64, rtcp_limit: u64) {
        self.rtp_limit = self.rtp_limit.max(rtp_limit.min(RTP_INDICES));
        self.rtcp.limit = self.rtcp.limit.max(rtcp_limit.min(RTCP_INDICES));
    }

    /// Counts all indices below these counters and their limits as used.
    pub(super) fn restore(&mut self, counters: SentIndices) -> Result<(), SrtpError> {
        let SentIndices { rtp, rtcp, .. } = counters;
        let sent = self.rtp.next().max(rtp.next);
        let begin = sent.max(rtp.limit).min(RTP_INDICES);
        let skipped = begin.saturating_sub(sent);
        if skipped > SKIPPED_MAX && (sent > 0 || skipped >= FIRST_INDICES) {
            return Err(SrtpError::JumpTooFar { skipped });
        }
        self.rtp.skip_to(begin);
        self.rtcp.next = self.rtcp.next.max(rtcp.next).max(rtcp.limit).min(RTCP_INDICES);
        self.lease(begin, self.rtcp.next);
        Ok(())
    }

    pub(super) fn counters(&self, ssrc: u32) -> SentIndices {
        let rtp = IndexLease { next: self.rtp.next(), limit: self.rtp_limit };
        SentIndices { ssrc, rtp, rtcp: self.rtcp }
    }

    /// Uses the index of this sequence number.
    pub(super) fn use_rtp(&mut self, sequence: u16) -> Result<u64, SrtpError> {
        let index = self.rtp.estimate(sequence).ok_or(SrtpError::Reused)?;
        if index >= self.rtp_limit {
            return Err(SrtpError::LeaseExhausted { limit: self.rtp_limit });
        }
        if !self.rtp.is_unused(index) {
            return Err(SrtpError::Reused);
        }
        self.rtp.mark(index);
        Ok(index)
    }

    /// Uses the next index of SRTCP.
    pub(super) fn use_rtcp(&mut self) -> Result<u64, SrtpError> {
        let IndexLease { next, limit } = self.rtcp;
        if next >= limit {
            return Err(SrtpError::LeaseExhausted { limit });
        }
        self.rtcp.next += 1;
        Ok(next)
    }
}

/// Inbound state of a source.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct ReceivedSource {
    pub(super) rtp: IndexWindow,
    pub(super) rtcp: IndexWindow,
}

impl ReceivedSource {
    /// Counts all indices below these counters as received.
    pub(super) fn restore(&mut self, counters: ReceivedIndices) {
        self.rtp.skip_to(counters.rtp_next.min(RTP_INDICES));
        self.rtcp.skip_to(counters.rtcp_next.min(RTCP_INDICES));
    }

    pub(super) fn counters(&self, ssrc: u32) -> ReceivedIndices {
        ReceivedIndices { ssrc, rtp_next: self.rtp.next(), rtcp_next: self.rtcp.next() }
    }
}

/// At most [`SOURCES_MAX`] sources, in the order of their SSRCs.
#[derive(Debug)]
pub(super) struct Sources<S>(Vec<(u32, S)>);

/// The place of a source, or the place that it would take.
type Place = Result<usize, usize>;

impl<S: Copy + Default> Sources<S> {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn find(&self, ssrc: u32) -> Place {
        self.0.binary_search_by_key(&ssrc, |(of, _)| *of)
    }

    pub(super) fn get(&self, place: Place) -> Option<S> {
        place.ok().map(|at| self.0[at].1)
    }

    pub(super) fn get_mut(&mut self, ssrc: u32) -> Option<&mut S> {
        self.find(ssrc).ok().map(|at| &mut self.0[at].1)
    }

    /// Returns the source at the place that [`Sources::find`] returned for it, and adds it if it is new.
    pub(super) fn add(&mut self, ssrc: u32, place: Place) -> Result<&mut S, SrtpError> {
        let at = match place {
            Ok(at) => at,
            Err(_) if self.0.len() == SOURCES_MAX => {
                return Err(SrtpError::SourcesFull { max: SOURCES_MAX });
            }
            Err(at) => {
                self.0.insert(at, (ssrc, S::default()));
                at
            }
        };
        Ok(&mut self.0[at].1)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, S)> {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests;
