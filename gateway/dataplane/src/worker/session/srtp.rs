//! SRTP that ends at this gateway (RFC 3711). A [`SessionSrtp`] decrypts packets of the client and encrypts those to it.
//!
//! This process alone uses the indices of the gateway's key, so a source may use all of them. A process that continues the
//! session goes on above those that were used. It sends nothing if the copy of the counters is older than the last packet, since
//! it would use an index twice.

use evenkeel_media::rtp;
use evenkeel_media::srtp::{
    IndexLease, OVERHEAD_MAX, ReceivedIndices, SentIndices, SrtpError, SrtpKeys, SrtpReceiver,
    SrtpSender,
};
use evenkeel_model::forward::DropReason;
use serde::{Deserialize, Serialize};

use crate::worker::sockets::RtpSide;

/// The contexts of a session, derived from its keys.
#[derive(Debug)]
pub(super) struct SessionSrtp {
    receiver: SrtpReceiver,
    sender: SrtpSender,
    /// Another process may have used indices above the counters.
    is_behind: bool,
}

/// The counters of a session, without keys.
#[derive(Clone, Default, Serialize, Deserialize, Debug)]
pub(super) struct SrtpCounters {
    received: Vec<ReceivedIndices>,
    sent: Vec<SentIndices>,
}

impl SessionSrtp {
    #[cold]
    pub(super) fn new(keys: &SrtpKeys) -> SessionSrtp {
        let receiver = SrtpReceiver::new(&keys.client.key);
        let sender = SrtpSender::new(&keys.gateway.key);
        SessionSrtp { receiver, sender, is_behind: false }
    }

    /// Sends nothing before counters come.
    pub(super) fn await_counters(&mut self) {
        self.is_behind = true;
    }

    /// Verifies and decrypts a packet of the client in place. Returns the plain packet.
    pub(super) fn unprotect<'a>(
        &mut self,
        side: RtpSide,
        packet: &'a mut [u8],
    ) -> Result<&'a mut [u8], DropReason> {
        let unprotected = match side {
            RtpSide::Rtp => self.receiver.unprotect_rtp(packet),
            RtpSide::Rtcp => self.receiver.unprotect_rtcp(packet),
        };
        unprotected.map_err(drop_reason)
    }

    /// Encrypts a packet to the client in place and appends its tag.
    pub(super) fn protect(
        &mut self,
        side: RtpSide,
        packet: &mut Vec<u8>,
    ) -> Result<(), DropReason> {
        if self.is_behind {
            return Err(DropReason::SrtpIndex);
        }
        let length = packet.len();
        packet.resize(length + OVERHEAD_MAX, 0);
        let mut protected = self.try_protect(side, packet, length);
        if protected == Err(SrtpError::NotLeased) {
            let ssrc = match side {
                RtpSide::Rtp => rtp::ssrc_and_sequence(packet).map(|(ssrc, _)| ssrc),
                RtpSide::Rtcp => packet[4..].first_chunk().map(|ssrc| u32::from_be_bytes(*ssrc)),
            };
            let ssrc = ssrc.ok_or(DropReason::Malformed)?;
            self.sender.lease(ssrc, u64::MAX, u64::MAX).map_err(drop_reason)?;
            protected = self.try_protect(side, packet, length);
        }
        packet.truncate(protected.map_err(drop_reason)?);
        Ok(())
    }

    /// Returns the length of the protected packet.
    fn try_protect(
        &mut self,
        side: RtpSide,
        packet: &mut [u8],
        length: usize,
    ) -> Result<usize, SrtpError> {
        let protected = match side {
            RtpSide::Rtp => self.sender.protect_rtp(packet, length),
            RtpSide::Rtcp => self.sender.protect_rtcp(packet, length),
        };
        protected.map(|protected| protected.len())
    }

    pub(super) fn counters(&self) -> SrtpCounters {
        let exact = |IndexLease { next, .. }| IndexLease { next, limit: next };
        let exact = |SentIndices { ssrc, rtp, rtcp }| SentIndices {
            ssrc,
            rtp: exact(rtp),
            rtcp: exact(rtcp),
        };
        SrtpCounters {
            received: self.receiver.counters().collect(),
            sent: self.sender.counters().map(exact).collect(),
        }
    }

    /// Goes on above these counters. The session sends nothing if the process that they come from has sent since
    /// (`is_behind`), or if a source is refused, since its indices would begin again.
    pub(super) fn go_on(&mut self, counters: &SrtpCounters, is_behind: bool) {
        self.is_behind = is_behind;
        // The process that they come from had as many sources at most.
        counters.received.iter().for_each(|source| _ = self.receiver.restore(*source));
        for &source in &counters.sent {
            let restored = self.sender.restore(source);
            let leased = restored.and_then(|()| self.sender.lease(source.ssrc, u64::MAX, u64::MAX));
            self.is_behind |= leased.is_err();
        }
    }
}

#[cold]
fn drop_reason(error: SrtpError) -> DropReason {
    match error {
        SrtpError::Rtp(_) | SrtpError::Rtcp | SrtpError::Short => DropReason::Malformed,
        SrtpError::Long | SrtpError::NoRoom { .. } => DropReason::Oversize,
        SrtpError::Forged => DropReason::SrtpForged,
        SrtpError::Replayed => DropReason::SrtpReplayed,
        SrtpError::Reused
        | SrtpError::NotLeased
        | SrtpError::LeaseExhausted { .. }
        | SrtpError::JumpTooFar { .. }
        | SrtpError::SourcesFull { .. } => DropReason::SrtpIndex,
    }
}
