//! The leases of a session's outbound indices, which copies for a standby renew.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::error::SrtpError;
use super::grant::GrantView;
use super::index::{IndexLease, SentIndices};
use super::key::SrtpKey;
use super::{SrtpSender, rtcp_ssrc};
use crate::rtp::RtpHeader;

/// Indices of SRTP in a lease, at least: 50 s of voice. Receivers take a jump of 3,000 for a restart (RFC 3550, appendix A.1).
const BLOCK_MIN: u64 = 2_500;

/// The longest lease of a source that sends faster. Receivers misjudge a jump of 32,767 (RFC 3711, section 3.3.1), and some
/// packets may be lost beside it.
const BLOCK_MAX: u64 = 30_000;

/// A fast source is leased the indices of this time. A standby has a new copy each second, and an owner with a silent
/// standby goes on after 2 s.
const BLOCK_TIME: Duration = Duration::from_secs(4);

/// Indices of SRTCP in a lease. They stand in the packets, so that a jump costs nothing.
const RTCP_BLOCK: u64 = 1 << 14;

/// Least time over which the rate of a source is measured.
const MEASURED_OVER: Duration = Duration::from_millis(100);

/// Copies that wait for an acknowledgement. A session that changes is copied each 5 ms, and an acknowledgement may take longer.
const COPIES_MAX: usize = 4;

/// The era of a process that continues the limits of another one.
const FIRST_ERA: u64 = 0;

/// An [`SrtpSender`] with sources that are leased in blocks.
///
/// - A session that was never copied for a standby is not limited: the standby sends nothing for it.
/// - A copy names a limit above the present index of each source. The owner sends below it once the standby has
///   acknowledged the copy; the standby begins there. A source that no acknowledged copy names sends nothing.
/// - While the owner is free, leases need no acknowledgement. [`CopyProof`](super::CopyProof) tells a standby so.
#[derive(Debug)]
pub struct LeasedSender {
    sender: SrtpSender,
    /// Copies that the standby has not acknowledged, as far as known, oldest first.
    copies: VecDeque<LimitedCopy>,
    rates: SourceRates,
    /// The era and the round of the last copy for a standby.
    era: Option<u64>,
    round: Option<u64>,
}

/// The limits in a copy for a standby, in the order of the SSRCs.
#[derive(Debug)]
struct LimitedCopy {
    number: u64,
    sources: Vec<SentIndices>,
}

/// The lengths of leases, in the order of the SSRCs.
#[derive(Default, Debug)]
struct SourceRates {
    measured: Option<Instant>,
    sources: Vec<SourceRate>,
}

#[derive(Clone, Copy, Debug)]
struct SourceRate {
    ssrc: u32,
    /// The next index when it was measured.
    next: u64,
    block: u64,
}

impl LeasedSender {
    /// Derives the session keys.
    pub fn new(key: &SrtpKey) -> Self {
        Self {
            sender: SrtpSender::new(key),
            copies: VecDeque::new(),
            rates: SourceRates::default(),
            era: None,
            round: None,
        }
    }

    /// Protects an RTP packet as [`SrtpSender::protect_rtp`] does. Returns its length.
    ///
    /// # Errors
    /// Returns the reason of the refusal. With [`SrtpError::LeaseExhausted`], the session is to be copied.
    pub fn protect_rtp(
        &mut self,
        buffer: &mut [u8],
        length: usize,
        at: GrantView<'_>,
    ) -> Result<usize, SrtpError> {
        match self.sender.protect_rtp(buffer, length) {
            Err(SrtpError::NotLeased | SrtpError::LeaseExhausted { .. }) => {}
            done => return done.map(|packet| packet.len()),
        }
        self.renew_rtp(&buffer[..length], at)?;
        self.sender.protect_rtp(buffer, length).map(|packet| packet.len())
    }

    /// Protects a compound RTCP packet as [`SrtpSender::protect_rtcp`] does. Returns its length.
    ///
    /// # Errors
    /// Returns the reason of the refusal. With [`SrtpError::LeaseExhausted`], the session is to be copied.
    pub fn protect_rtcp(
        &mut self,
        buffer: &mut [u8],
        length: usize,
        at: GrantView<'_>,
    ) -> Result<usize, SrtpError> {
        match self.sender.protect_rtcp(buffer, length) {
            Err(SrtpError::NotLeased | SrtpError::LeaseExhausted { .. }) => {}
            done => return done.map(|packet| packet.len()),
        }
        self.renew_rtcp(&buffer[..length], at)?;
        self.sender.protect_rtcp(buffer, length).map(|packet| packet.len())
    }

    #[cold]
    fn renew_rtp(&mut self, packet: &[u8], at: GrantView<'_>) -> Result<(), SrtpError> {
        let header = RtpHeader::parse_opaque(packet)?;
        self.settle(at);
        let (is_limited, sources) = (at.is_limited(self.era), &mut self.sender.sources);
        let source = sources.add(header.ssrc, sources.find(header.ssrc))?;
        let index = source.rtp.estimate(header.sequence).ok_or(SrtpError::Reused)?;
        if !is_limited {
            source.lease(index + 1 + BLOCK_MIN, 0);
        } else if index >= source.rtp_limit {
            // The limit of the next copy is above this packet.
            source.rtp.skip_to(index.max(1));
            return Err(SrtpError::LeaseExhausted { limit: source.rtp_limit });
        }
        Ok(())
    }

    #[cold]
    fn renew_rtcp(&mut self, packet: &[u8], at: GrantView<'_>) -> Result<(), SrtpError> {
        let ssrc = rtcp_ssrc(packet)?;
        self.settle(at);
        let (is_limited, sources) = (at.is_limited(self.era), &mut self.sender.sources);
        // The next copy names the source.
        let source = sources.add(ssrc, sources.find(ssrc))?;
        if !is_limited {
            source.lease(0, source.rtcp.next + RTCP_BLOCK);
        }
        Ok(())
    }

    /// Leases what the standby has acknowledged.
    fn settle(&mut self, at: GrantView<'_>) {
        while let Some(copy) = self.copies.pop_front_if(|copy| at.has_acknowledged(copy.number)) {
            lease_all(&mut self.sender, &copy.sources);
        }
    }

    /// Copies the counters for a standby, with new limits. `copy` is the number of the worker's copy.
    pub fn copy_for_standby(&mut self, copy: u64, at: GrantView<'_>) -> Vec<SentIndices> {
        self.settle(at);
        self.rates.measure(&self.sender, at.now);
        let newest = self.copies.back();
        let has_room = self.copies.len() < COPIES_MAX;
        let mut sources: Vec<SentIndices> = self.sender.counters().collect();
        for source in &mut sources {
            let ssrc = source.ssrc;
            if let Some(before) = newest.and_then(|copy| find(&copy.sources, ssrc, |it| it.ssrc)) {
                source.rtp.limit = source.rtp.limit.max(before.rtp.limit);
                source.rtcp.limit = source.rtcp.limit.max(before.rtcp.limit);
            }
            let IndexLease { next, limit } = source.rtp;
            if has_room && next > 0 {
                source.rtp.limit = limit.max(next + self.rates.block(ssrc));
            }
            if has_room {
                source.rtcp.limit = source.rtcp.limit.max(source.rtcp.next + RTCP_BLOCK);
            }
        }
        if !at.is_limited(self.era) {
            // From now on these limits hold. Copies before are without worth.
            lease_all(&mut self.sender, &sources);
        }
        if has_room {
            self.copies.push_back(LimitedCopy { number: copy, sources: sources.clone() });
        }
        (self.era, self.round) = (Some(at.era()), Some(at.grant.round()));
        sources
    }

    /// Returns whether a copy for a standby is due, although nothing has changed.
    pub fn needs_copy(&self, at: GrantView<'_>) -> bool {
        self.round.is_some_and(|round| round != at.grant.round())
    }

    /// Copies the counters for a process that continues after this one has ended, with the present leases.
    pub fn counters(&self) -> impl Iterator<Item = SentIndices> {
        self.sender.counters()
    }

    /// Returns whether the standby has copies that hold.
    pub fn is_limited(&self, at: GrantView<'_>) -> bool {
        at.is_limited(self.era)
    }

    /// Continues a source from a copy for this standby, at its limits.
    ///
    /// # Errors
    /// The errors of [`SrtpSender::restore`].
    pub fn restore(&mut self, counters: SentIndices) -> Result<(), SrtpError> {
        self.sender.restore(counters)
    }

    /// Continues all sources of a process that has ended, without a jump. If it [was limited](LeasedSender::is_limited), its
    /// leases hold, and sources that it lacks have none.
    ///
    /// # Errors
    /// The errors of [`SrtpSender::restore`].
    pub fn restore_exact(
        &mut self,
        sources: &[SentIndices],
        was_limited: bool,
    ) -> Result<(), SrtpError> {
        let exact = |IndexLease { next, .. }| IndexLease { next, limit: next };
        for &SentIndices { ssrc, rtp, rtcp } in sources {
            self.sender.restore(SentIndices { ssrc, rtp: exact(rtp), rtcp: exact(rtcp) })?;
        }
        if was_limited {
            self.era = Some(FIRST_ERA);
            lease_all(&mut self.sender, sources);
        }
        Ok(())
    }
}

fn lease_all(sender: &mut SrtpSender, sources: &[SentIndices]) {
    for source in sources {
        // The sender has the source.
        let _ = sender.lease(source.ssrc, source.rtp.limit, source.rtcp.limit);
    }
}

/// Finds the element of a source in a list in the order of the SSRCs.
fn find<T: Copy>(sources: &[T], ssrc: u32, of: impl Fn(&T) -> u32) -> Option<T> {
    sources.binary_search_by_key(&ssrc, of).ok().map(|at| sources[at])
}

impl SourceRates {
    fn measure(&mut self, sender: &SrtpSender, now: Instant) {
        let elapsed = self.measured.map(|since| now.saturating_duration_since(since));
        if elapsed.is_some_and(|elapsed| elapsed < MEASURED_OVER) {
            return;
        }
        let rate = |of: SentIndices| {
            let (ssrc, next) = (of.ssrc, of.rtp.next);
            let before = find(&self.sources, ssrc, |it| it.ssrc).zip(elapsed);
            let block = before.map_or(BLOCK_MIN, |(before, elapsed)| {
                let sent = u128::from(next.saturating_sub(before.next));
                let block = sent * BLOCK_TIME.as_nanos() / elapsed.as_nanos();
                u64::try_from(block).unwrap_or(u64::MAX).clamp(BLOCK_MIN, BLOCK_MAX)
            });
            SourceRate { ssrc, next, block }
        };
        self.sources = sender.counters().map(rate).collect();
        self.measured = Some(now);
    }

    fn block(&self, ssrc: u32) -> u64 {
        find(&self.sources, ssrc, |it| it.ssrc).map_or(BLOCK_MIN, |rate| rate.block)
    }
}

#[cfg(test)]
mod tests;
