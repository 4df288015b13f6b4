//! Shares: the bit rate that a session needs, and sessions that get less while capacity is short, with their way back.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::{Duration, Instant};

use evenkeel_model::{CapBounds, MediaDescription, MediaStream, SessionId, StreamKind};

/// The whole of a session's need, in thousandths.
pub(crate) const WHOLE: u16 = 1_000;

/// Bit rate in kbit/s of a voice stream that declares none: Opus at 40, with headers.
const VOICE_KBPS: u32 = 64;

/// Steps of reduction: shares of a session's need above its scenario's floor, in thousandths.
pub(crate) const STEPS: [u16; 2] = [500, 0];

/// Minimum time before a reduced session is raised again.
const RAISED_AFTER: Duration = Duration::from_secs(8);

/// Reduced sessions checked per call, which bounds the call's duration.
const REDUCED_AT_ONCE: usize = 256;

/// The bit rate that a session of these streams needs, kbit/s.
pub(crate) fn need_kbps(media: &MediaDescription, bounds: CapBounds) -> u64 {
    let need = |stream: &MediaStream| {
        stream.bitrate_kbps.unwrap_or(match stream.kind {
            StreamKind::Audio => VOICE_KBPS,
            StreamKind::Video => bounds.ceiling_kbps,
        })
    };
    let sum: u32 = media.streams.iter().map(need).fold(0, u32::saturating_add);
    u64::from(sum.min(bounds.ceiling_kbps))
}

/// The step above this share.
pub(crate) fn raised(share: u16) -> u16 {
    STEPS.into_iter().filter(|step| *step > share).min().unwrap_or(WHOLE)
}

/// Sessions with a reduced share, with the time since when.
#[derive(Debug)]
pub(crate) struct ReducedSessions {
    since: BTreeMap<SessionId, Instant>,
    /// The last session that was checked for a raise.
    last: SessionId,
}

impl Default for ReducedSessions {
    fn default() -> Self {
        ReducedSessions { since: BTreeMap::new(), last: SessionId(0) }
    }
}

impl ReducedSessions {
    pub(crate) fn len(&self) -> usize {
        self.since.len()
    }

    pub(crate) fn since(&self, session: SessionId) -> Option<Instant> {
        self.since.get(&session).copied()
    }

    pub(crate) fn set(&mut self, session: SessionId, since: Option<Instant>) {
        match since {
            Some(since) => _ = self.since.insert(session, since),
            None => _ = self.since.remove(&session),
        }
    }

    pub(crate) fn clear(&mut self) {
        self.since.clear();
    }

    /// The next sessions that have been reduced for long enough to be raised.
    pub(crate) fn next_due(&mut self, now: Instant) -> Vec<SessionId> {
        let from = (Bound::Excluded(self.last), Bound::Unbounded);
        let turn: Vec<(SessionId, Instant)> =
            self.since.range(from).take(REDUCED_AT_ONCE).map(|(id, at)| (*id, *at)).collect();
        let goes_on = turn.last().filter(|_| turn.len() == REDUCED_AT_ONCE);
        self.last = goes_on.map_or(SessionId(0), |(id, _)| *id);
        let due = |since: Instant| now.saturating_duration_since(since) >= RAISED_AFTER;
        turn.into_iter().filter(|(_, since)| due(*since)).map(|(id, _)| id).collect()
    }
}

#[cfg(test)]
mod tests;
