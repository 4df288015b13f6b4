//! SRTP that ends at this gateway (RFC 3711). A [`SessionSrtp`] decrypts packets of the client and encrypts those to it.
//!
//! A process that continues the session goes on above the indices that were used ([`evenkeel_media::srtp`]). It sends nothing,
//! and the session ends, if it cannot know them.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use evenkeel_dtls::HANDSHAKE_LIFETIME;
use evenkeel_media::continuity::{AnnouncedStreams, Continuity};
use evenkeel_media::fingerprint::CertificateFingerprint;
use evenkeel_media::numbering::{ClientNumbers, NumberError};
use evenkeel_media::srtp::{
    GrantView, LeasedSender, OVERHEAD_MAX, ReceivedIndices, SentIndices, SrtpError, SrtpKeys,
    SrtpReceiver,
};
use evenkeel_model::forward::DropReason;
use serde::{Deserialize, Serialize};

use crate::worker::dtls::{WaitingPlace, WaitingPlaces};
use crate::worker::sockets::RtpSide;

/// The contexts of a session, derived from its keys.
#[derive(Debug)]
pub(super) struct SessionSrtp {
    receiver: SrtpReceiver,
    sender: LeasedSender,
    indices: UsedIndices,
}

/// The knowledge of this process about the indices that were used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum UsedIndices {
    /// All.
    Known,
    /// Another process may have used some. Its counters have not come.
    Awaited,
    /// All that the process of the copy has used before this time.
    KnownBefore(Instant),
    /// Some are unknown, and the session ends.
    Lost,
}

/// The counters of a session, without keys.
#[derive(Clone, Default, Serialize, Deserialize, Debug)]
pub(super) struct SrtpCounters {
    received: Vec<ReceivedIndices>,
    sent: Vec<SentIndices>,
    /// The process of this copy goes on, below the limits of `sent`.
    #[serde(default)]
    is_for_standby: bool,
    /// The process of this copy has ended, and sent below the limits of `sent`.
    #[serde(default)]
    is_limited: bool,
}

impl SessionSrtp {
    #[cold]
    pub(super) fn new(keys: &SrtpKeys) -> SessionSrtp {
        let receiver = SrtpReceiver::new(&keys.client);
        let sender = LeasedSender::new(&keys.gateway);
        SessionSrtp { receiver, sender, indices: UsedIndices::Known }
    }

    /// Sends nothing before counters come.
    pub(super) fn await_counters(&mut self) {
        self.indices = UsedIndices::Awaited;
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
        at: GrantView<'_>,
    ) -> Result<(), SrtpError> {
        if self.indices != UsedIndices::Known {
            return Err(SrtpError::NotLeased);
        }
        let length = packet.len();
        packet.resize(length + OVERHEAD_MAX, 0);
        let protected = match side {
            RtpSide::Rtp => self.sender.protect_rtp(packet, length, at),
            RtpSide::Rtcp => self.sender.protect_rtcp(packet, length, at),
        };
        packet.truncate(protected?);
        Ok(())
    }

    /// The counters, for a process that continues once this one sends no more.
    pub(super) fn counters(&self) -> SrtpCounters {
        SrtpCounters {
            received: self.receiver.counters().collect(),
            sent: self.sender.counters().collect(),
            is_for_standby: false,
            is_limited: false,
        }
    }

    /// Notes in counters whether a standby limits this process.
    pub(super) fn note_limits(&self, counters: &mut SrtpCounters, at: GrantView<'_>) {
        counters.is_limited = self.sender.is_limited(at);
    }

    /// The counters, for a standby that continues while this process may go on. `copy` is the number of the worker's copy.
    pub(super) fn copy_for_standby(&mut self, copy: u64, at: GrantView<'_>) -> SrtpCounters {
        SrtpCounters {
            received: self.receiver.counters().collect(),
            sent: self.sender.copy_for_standby(copy, at),
            is_for_standby: true,
            is_limited: false,
        }
    }

    /// Returns whether the standby is to get a copy although nothing has changed.
    pub(super) fn needs_copy(&self, at: GrantView<'_>) -> bool {
        self.sender.needs_copy(at)
    }

    /// Goes on above these counters. `is_behind`: the process that they come from may have sent since. `holds_until`: the time
    /// before which it has not sent beyond the limits of a copy for a standby.
    pub(super) fn go_on(
        &mut self,
        counters: &SrtpCounters,
        is_behind: bool,
        holds_until: Option<Instant>,
    ) {
        // The process that they come from had as many sources at most.
        counters.received.iter().for_each(|source| _ = self.receiver.restore(*source));
        let restored = match counters.is_for_standby {
            true => counters.sent.iter().try_for_each(|source| self.sender.restore(*source)),
            false => self.sender.restore_exact(&counters.sent, counters.is_limited),
        };
        self.indices = match (restored, counters.is_for_standby, holds_until) {
            (Err(_), ..) | (Ok(()), true, None) => UsedIndices::Lost,
            (Ok(()), true, Some(until)) => UsedIndices::KnownBefore(until),
            (Ok(()), false, _) if is_behind => UsedIndices::Awaited,
            (Ok(()), false, _) => UsedIndices::Known,
        };
    }

    /// Gives the client's streams numbers above those that were used.
    pub(super) fn skip_used(&self, continuity: &mut Continuity) {
        for SentIndices { ssrc, rtp, .. } in self.sender.counters() {
            if let Some(last) = rtp.next.checked_sub(1) {
                continuity.skip_to(ssrc, last as u16);
            }
        }
    }

    /// Begins to send. Returns false if indices that were used are unknown: the session ends.
    pub(super) fn begin_to_send(&mut self, now: Instant) -> bool {
        let is_known = match self.indices {
            UsedIndices::Known => true,
            UsedIndices::KnownBefore(until) => now < until,
            UsedIndices::Awaited | UsedIndices::Lost => false,
        };
        self.indices = if is_known { UsedIndices::Known } else { UsedIndices::Lost };
        is_known
    }
}

/// The origin of the keys of a client's SRTP.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub enum SrtpKeying {
    /// Signalling carries the keys (SDES, RFC 4568).
    Sdes(Arc<SrtpKeys>),
    /// The client and the gateway agree on the keys (RFC 5764).
    Dtls {
        /// The client shows a certificate with one of these fingerprints (RFC 8122).
        fingerprints: Arc<[CertificateFingerprint]>,
        /// `None` before the handshake has ended.
        keys: Option<Arc<SrtpKeys>>,
        /// The direction and the numbers of the answer.
        answered: Arc<AnsweredMedia>,
    },
}

/// The part of an SDP answer that packets need besides the session's [`MediaDescription`](evenkeel_model::MediaDescription).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct AnsweredMedia {
    /// The client's ICE user fragment: another one in a later offer restarts ICE (RFC 8839, section 4.4.1.1.1).
    pub ufrag: Box<str>,
    /// The client may send media.
    pub may_send: bool,
    /// The client may receive media.
    pub may_receive: bool,
    /// The client's numbers, if some differ from those of the room.
    #[serde(default)]
    pub numbers: Option<ClientNumbers>,
    /// The streams to the client.
    #[serde(default)]
    pub announced: Arc<AnnouncedStreams>,
    /// The client's ICE password; empty if it is unknown.
    #[serde(default)]
    pub password: ClientPassword,
}

/// The ICE password of a client (RFC 8839, section 5.4). `Debug` omits it, to keep it out of logs.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClientPassword(pub Box<str>);

impl fmt::Debug for ClientPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientPassword(…)")
    }
}

impl SrtpKeying {
    /// The keys, if they are known.
    pub fn keys(&self) -> Option<&Arc<SrtpKeys>> {
        match self {
            SrtpKeying::Sdes(keys) => Some(keys),
            SrtpKeying::Dtls { keys, .. } => keys.as_ref(),
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
    /// Places of its DTLS datagrams in the queue.
    waiting: WaitingPlaces,
    /// Keys are awaited from then on.
    awaited_since: Option<Instant>,
    /// Another process may have completed the handshake.
    is_restored: bool,
    answered: Option<Arc<AnsweredMedia>>,
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
        let (fingerprints, answered) = match keying {
            SrtpKeying::Sdes(_) => (None, None),
            SrtpKeying::Dtls { fingerprints, answered, .. } => (Some(fingerprints), Some(answered)),
        };
        let client = ClientSrtp { contexts, fingerprints, answered, ..ClientSrtp::default() };
        OwnSrtp(Some(Box::new(client)))
    }

    pub(super) fn contexts(&self) -> Option<&SessionSrtp> {
        self.0.as_ref()?.contexts.as_ref()
    }

    pub(super) fn contexts_mut(&mut self) -> Option<&mut SessionSrtp> {
        self.0.as_mut()?.contexts.as_mut()
    }

    /// The certificates of the client, if it uses DTLS.
    pub(super) fn fingerprints(&self) -> Option<&Arc<[CertificateFingerprint]>> {
        self.0.as_ref()?.fingerprints.as_ref()
    }

    /// A place for a datagram of the client's DTLS. `None` if too many wait.
    pub(super) fn take_place(&self) -> Option<WaitingPlace> {
        self.0.as_ref()?.waiting.take()
    }

    /// The ICE password of the client, if its offer had one.
    pub(super) fn client_password(&self) -> Option<&str> {
        let ClientPassword(password) = &self.0.as_ref()?.answered.as_ref()?.password;
        (!password.is_empty()).then_some(password)
    }

    /// Sets the keys on which DTLS agreed, unless the session has some: they do not change.
    pub(super) fn set_keys(&mut self, keys: &SrtpKeys) {
        if let Some(client) = &mut self.0 {
            client.contexts.get_or_insert_with(|| SessionSrtp::new(keys));
        }
    }

    /// Verifies and decrypts a packet of the client in place. Returns the plain packet, with the numbers of the room.
    pub(super) fn unprotect<'a>(
        &mut self,
        side: RtpSide,
        packet: &'a mut [u8],
    ) -> Result<&'a mut [u8], DropReason> {
        let client = self.0.as_deref_mut().ok_or(DropReason::SrtpNoKeys)?;
        let contexts = client.contexts.as_mut().ok_or(DropReason::SrtpNoKeys)?;
        if side == RtpSide::Rtcp {
            return contexts.unprotect(side, packet);
        }
        let answered = client.answered.as_deref();
        if answered.is_some_and(|answered| !answered.may_send) {
            return Err(DropReason::UndeclaredPayload);
        }
        let packet = contexts.unprotect(side, packet)?;
        if let Some(numbers) = answered.and_then(|answered| answered.numbers.as_ref()) {
            numbers.map_to_room(packet).map_err(unmapped)?;
        }
        Ok(packet)
    }

    /// The client may receive media.
    pub(super) fn may_receive(&self) -> bool {
        let answered = self.0.as_ref().and_then(|client| client.answered.as_ref());
        answered.is_none_or(|answered| answered.may_receive)
    }

    /// Gives a packet to the client the client's numbers.
    pub(super) fn map_to_client(&self, side: RtpSide, packet: &mut [u8]) -> Result<(), DropReason> {
        let answered = self.0.as_ref().and_then(|client| client.answered.as_deref());
        match answered.filter(|_| side == RtpSide::Rtp) {
            Some(AnsweredMedia { numbers: Some(numbers), .. }) => {
                numbers.map_to_client(packet).map_err(unmapped)
            }
            _ => Ok(()),
        }
    }

    /// Gives the client's streams the SSRCs that the answer announced.
    pub(super) fn announce(&self, continuity: &mut Continuity) {
        if let Some(answered) = self.0.as_ref().and_then(|client| client.answered.as_ref()) {
            continuity.announce(Arc::clone(&answered.announced));
        }
    }

    /// Follows the answer to a later offer.
    pub(super) fn set_answered(&mut self, answered: Arc<AnsweredMedia>) {
        if let Some(client) = &mut self.0 {
            client.answered = Some(answered);
        }
    }

    /// The session comes from another process.
    pub(super) fn note_restored(&mut self) {
        self.0.iter_mut().for_each(|client| client.is_restored = true);
    }

    /// This process has the handshake of the client, so no other one has its keys.
    pub(super) fn note_handshake(&mut self) {
        self.0.iter_mut().for_each(|client| client.is_restored = false);
    }

    /// Returns whether another process may have agreed with the client on keys that this one lacks.
    pub(super) fn may_have_lost_keys(&self) -> bool {
        self.0.as_ref().is_some_and(|client| client.contexts.is_none() && client.is_restored)
    }

    /// Returns whether keys have been awaited for the time of a handshake.
    pub(super) fn awaits_too_long(&mut self, now: Instant) -> bool {
        let Some(client) = self.0.as_mut().filter(|client| client.contexts.is_none()) else {
            return false;
        };
        let since = *client.awaited_since.get_or_insert(now);
        let is_due = now.saturating_duration_since(since) >= HANDSHAKE_LIFETIME;
        if is_due {
            // The report may get lost.
            client.awaited_since = Some(now);
        }
        is_due
    }

    pub(super) fn is_some(&self) -> bool {
        self.0.is_some()
    }
}

#[cold]
fn unmapped(error: NumberError) -> DropReason {
    match error {
        NumberError::Rtp(_) | NumberError::Blocks => DropReason::Malformed,
        NumberError::PayloadType(_) => DropReason::UndeclaredPayload,
    }
}

#[cold]
pub(super) fn drop_reason(error: SrtpError) -> DropReason {
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
