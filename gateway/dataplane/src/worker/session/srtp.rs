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
use std::sync::Arc;

use evenkeel_media::fingerprint::CertificateFingerprint;
use evenkeel_model::Srtp;
use evenkeel_model::forward::DropReason;
use serde::{Deserialize, Serialize};

use super::{PacketContext, SrtpKeying, WorkerSession};
use crate::worker::dtls::{DtlsSession, HandshakeDatagram, InputKind};
use crate::worker::egress::Egress;
use crate::worker::sockets::{RtpSide, SourceKey};

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
        let receiver = SrtpReceiver::new(&keys.client);
        let sender = SrtpSender::new(&keys.gateway);
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

/// The SRTP of a session, if it ends here. It stands in the allocated state, since a silent session has no room for it. A copy
/// of the state has none: keys come with [`Install`](super::Install), and counters with [`SessionState`](super::SessionState).
#[derive(Default, Debug)]
pub(super) struct OwnSrtp(Option<Box<ClientSrtp>>);

#[derive(Default, Debug)]
struct ClientSrtp {
    /// `None` before the DTLS handshake has ended.
    contexts: Option<SessionSrtp>,
    /// The certificates of the client, if it uses DTLS.
    fingerprints: Option<Arc<[CertificateFingerprint]>>,
}

impl Clone for OwnSrtp {
    fn clone(&self) -> OwnSrtp {
        OwnSrtp(None)
    }
}

impl OwnSrtp {
    #[cold]
    pub(super) fn new(keying: SrtpKeying) -> OwnSrtp {
        let contexts = keying.keys().map(|keys| SessionSrtp::new(keys));
        let fingerprints = match keying {
            SrtpKeying::Sdes(_) => None,
            SrtpKeying::Dtls { fingerprints, .. } => Some(fingerprints),
        };
        OwnSrtp(Some(Box::new(ClientSrtp { contexts, fingerprints })))
    }

    pub(super) fn contexts(&self) -> Option<&SessionSrtp> {
        self.0.as_ref()?.contexts.as_ref()
    }

    pub(super) fn contexts_mut(&mut self) -> Option<&mut SessionSrtp> {
        self.0.as_mut()?.contexts.as_mut()
    }

    pub(super) fn is_some(&self) -> bool {
        self.0.is_some()
    }
}

impl WorkerSession {
    pub(super) fn srtp(&mut self) -> Option<&mut SessionSrtp> {
        self.state.as_deref_mut()?.srtp.contexts_mut()
    }

    /// Returns whether the client encrypts its packets with keys that the session has, or will have.
    pub(crate) fn has_srtp(&self) -> bool {
        self.media.srtp == Srtp::Terminated
    }

    /// Sends no SRTP before the counters of another process come, which may have sent some.
    pub(crate) fn await_srtp_counters(&mut self) {
        self.srtp().into_iter().for_each(SessionSrtp::await_counters);
    }

    /// Verifies and decrypts a packet of the client in place. Returns the plain packet.
    pub(crate) fn unprotect_srtp<'a>(
        &mut self,
        side: RtpSide,
        packet: &'a mut [u8],
    ) -> Result<&'a mut [u8], DropReason> {
        let unprotected = self.srtp().ok_or(DropReason::SrtpNoKeys)?.unprotect(side, packet)?;
        self.uncopied = true;
        Ok(unprotected)
    }

    /// Sets the keys on which DTLS agreed, unless the session has some: they do not change.
    pub(crate) fn set_keys(&mut self, keys: &SrtpKeys) {
        if let Some(client) = &mut self.state().srtp.0 {
            client.contexts.get_or_insert_with(|| SessionSrtp::new(keys));
            self.uncopied = true;
        }
    }

    /// Passes DTLS of the client to the thread of handshakes, if it comes from an address that passed a check.
    #[cold]
    pub(crate) fn handle_dtls(
        &mut self,
        source: SourceKey,
        datagram: &[u8],
        cx: &mut PacketContext<'_>,
    ) {
        let session = DtlsSession { id: self.id, home: self.home };
        if !self.address.checked().contains(&source) {
            return cx.egress.count_drop(DropReason::UnknownSource);
        }
        let client = self.state.as_deref().and_then(|state| state.srtp.0.as_deref());
        let Some(ClientSrtp { contexts, fingerprints: Some(fingerprints) }) = client else {
            return cx.egress.count_drop(DropReason::Dtls);
        };
        let (is_keyed, fingerprints) = (contexts.is_some(), Arc::clone(fingerprints));
        let bytes = datagram.into();
        let datagram = HandshakeDatagram { session, source, fingerprints, is_keyed, bytes };
        cx.egress.pass_to_handshakes(InputKind::Datagram(datagram));
    }

    /// Has the thread of handshakes forget the session, which ends.
    pub(crate) fn end_dtls(&self, egress: &Egress) {
        if self.media.srtp == Srtp::Terminated {
            let session = DtlsSession { id: self.id, home: self.home };
            egress.pass_to_handshakes(InputKind::Ended(session));
        }
    }

    /// Sends DTLS to the address of the client that it answers.
    #[cold]
    pub(crate) fn send_dtls(&mut self, to: SourceKey, datagram: &[u8], cx: &mut PacketContext<'_>) {
        if self.address.checked().contains(&to) {
            cx.egress.queue_to_client(to, RtpSide::Rtp, 0, datagram);
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
