//! SRTP that ends at this gateway (RFC 3711), towards the client and towards nodes. On the rest of the path packets are plain RTP.
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
use evenkeel_media::{demux, rtp};
use evenkeel_model::{DropReason, Hop, StreamKind};
use serde::{Deserialize, Serialize};

use crate::worker::dtls::{WaitingPlace, WaitingPlaces};
use crate::worker::sockets::RtpSide;

/// Refused packets in sequence that are a restart of their stream: 160 ms of voice. Packets that a client sends twice come among
/// new ones.
pub(super) const RESTART_PACKETS: u8 = 8;

/// Streams of a client that may restart together: voice, and video with the layers of simulcast and their repairs.
pub(super) const RUNS_MAX: usize = 8;

/// The contexts of one end, derived from its keys.
#[derive(Debug)]
pub(super) struct SrtpContexts {
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

impl SrtpContexts {
    #[cold]
    fn new(keys: &SrtpKeys) -> SrtpContexts {
        let receiver = SrtpReceiver::new(&keys.client);
        let sender = LeasedSender::new(&keys.gateway);
        SrtpContexts { receiver, sender, indices: UsedIndices::Known }
    }

    /// Sends nothing before counters come.
    pub(super) fn await_counters(&mut self) {
        self.indices = UsedIndices::Awaited;
    }

    /// Verifies and decrypts a packet in place. Returns the plain packet.
    fn unprotect<'a>(
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

    /// Encrypts a packet in place and appends its tag.
    fn protect(
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
    /// The streams that the client sends.
    #[serde(default)]
    pub sends: Vec<ClientStream>,
}

/// The stream that a client sends on an m-line.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct ClientStream {
    pub kind: StreamKind,
    /// Its SSRCs, as far as the offer announced them.
    pub ssrcs: Vec<u32>,
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

/// The ends of SRTP at this gateway: towards the client, and on the session's legs to nodes. Records have the counters only: the
/// keys of the client come with [`Install`](super::Install), those of a leg with the leg.
#[derive(Default, Debug)]
pub(super) struct SrtpEnds {
    /// `None` if the client's packets are plain RTP, or if SRTP passes through.
    client: Option<Box<ClientSrtp>>,
    legs: Vec<LegContexts>,
}

#[derive(Default, Debug)]
struct ClientSrtp {
    /// `None` before the DTLS handshake has ended.
    contexts: Option<SrtpContexts>,
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

/// A datagram of DTLS that a client may send.
pub(super) struct AcceptedDtls {
    pub(super) fingerprints: Arc<[CertificateFingerprint]>,
    pub(super) place: WaitingPlace,
    /// The handshake has ended.
    pub(super) is_keyed: bool,
}

/// A packet that a leg did not encrypt.
pub(super) struct RefusedPacket {
    pub(super) reason: DropReason,
    /// The packet completes a restart of its stream: the leg needs another key.
    pub(super) is_restart: bool,
}

impl SrtpEnds {
    /// Ends the client's SRTP here.
    #[cold]
    pub(super) fn set_client(&mut self, keying: SrtpKeying) {
        let contexts = keying.keys().map(|keys| SrtpContexts::new(keys));
        let (fingerprints, answered) = match keying {
            SrtpKeying::Sdes(_) => (None, None),
            SrtpKeying::Dtls { fingerprints, answered, .. } => (Some(fingerprints), Some(answered)),
        };
        let client = ClientSrtp { contexts, fingerprints, answered, ..ClientSrtp::default() };
        self.client = Some(Box::new(client));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.client.is_none() && self.legs.is_empty()
    }

    fn client_contexts(&self) -> Option<&SrtpContexts> {
        self.client.as_ref()?.contexts.as_ref()
    }

    pub(super) fn client_contexts_mut(&mut self) -> Option<&mut SrtpContexts> {
        self.client.as_mut()?.contexts.as_mut()
    }

    fn answered(&self) -> Option<&Arc<AnsweredMedia>> {
        self.client.as_ref()?.answered.as_ref()
    }

    /// Returns whether DTLS may come from the client.
    pub(super) fn expects_dtls(&self) -> bool {
        self.client.as_ref().is_some_and(|client| client.fingerprints.is_some())
    }

    /// Accepts a datagram of the client's DTLS. `None` if too many wait.
    pub(super) fn accept_dtls(&self) -> Option<AcceptedDtls> {
        let client = self.client.as_ref()?;
        let fingerprints = Arc::clone(client.fingerprints.as_ref()?);
        let place = client.waiting.take()?;
        Some(AcceptedDtls { fingerprints, place, is_keyed: client.contexts.is_some() })
    }

    /// The ICE password of the client, if its offer had one.
    pub(super) fn client_password(&self) -> Option<&str> {
        let ClientPassword(password) = &self.answered()?.password;
        (!password.is_empty()).then_some(password)
    }

    /// Sets the keys on which DTLS agreed, unless the session has some: they do not change.
    pub(super) fn set_keys(&mut self, keys: &SrtpKeys) {
        if let Some(client) = &mut self.client {
            client.contexts.get_or_insert_with(|| SrtpContexts::new(keys));
        }
    }

    /// Sends no packet to the client before the counters of another process come, which may have sent some.
    pub(super) fn await_client_counters(&mut self) {
        self.client_contexts_mut().into_iter().for_each(SrtpContexts::await_counters);
    }

    /// Begins to send. Returns false if indices that were used are unknown: the session ends.
    pub(super) fn begin_to_send(&mut self, now: Instant) -> bool {
        let begins = self.client_contexts_mut().is_none_or(|contexts| contexts.begin_to_send(now));
        begins & self.legs.iter_mut().all(|leg| leg.contexts.begin_to_send(now))
    }

    /// Verifies and decrypts a packet of the client in place. Returns the plain packet, with the numbers of the room.
    pub(super) fn unprotect_from_client<'a>(
        &mut self,
        side: RtpSide,
        packet: &'a mut [u8],
    ) -> Result<&'a mut [u8], DropReason> {
        let client = self.client.as_deref_mut().ok_or(DropReason::SrtpNoKeys)?;
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
        self.answered().is_none_or(|answered| answered.may_receive)
    }

    /// Gives a packet to the client the client's numbers, encrypts it in place and appends its tag.
    pub(super) fn protect_to_client(
        &mut self,
        side: RtpSide,
        packet: &mut Vec<u8>,
        at: GrantView<'_>,
    ) -> Result<(), ProtectError> {
        if side == RtpSide::Rtp {
            self.map_to_client(packet)?;
        }
        let client = self.client.as_deref_mut().ok_or(ProtectError::NO_KEYS)?;
        let contexts = client.contexts.as_mut().ok_or(ProtectError::NO_KEYS)?;
        contexts.protect(side, packet, at).map_err(|error| match error {
            SrtpError::LeaseExhausted { .. } => ProtectError::LeaseExhausted,
            error => ProtectError::Dropped(drop_reason(error)),
        })
    }

    /// The numbers of the client that differ from those of its room.
    fn own_numbers(&self) -> Option<&ClientNumbers> {
        self.answered()?.numbers.as_ref()
    }

    /// Returns whether some numbers of the client differ from those of its room.
    pub(super) fn has_own_numbers(&self) -> bool {
        self.own_numbers().is_some()
    }

    /// Gives a packet to the client the client's numbers.
    pub(super) fn map_to_client(&self, packet: &mut [u8]) -> Result<(), ProtectError> {
        let Some(numbers) = self.own_numbers() else { return Ok(()) };
        numbers.map_to_client(packet).map_err(|error| ProtectError::Dropped(unmapped(error)))
    }

    /// Returns the number of the next packet to the client with this SSRC, which the gateway alone sends: the one behind the last that may have
    /// been sent, here or at another process. The first one if none was, or if the client's SRTP does not end here.
    pub(super) fn next_number(&self, ssrc: u32) -> u16 {
        let mut sources = self.client_contexts().into_iter().flat_map(|it| it.sender.counters());
        match sources.find(|source| source.ssrc == ssrc) {
            Some(SentIndices { rtp, .. }) if rtp.next > 0 => rtp.next as u16,
            // A first number below 2^15 leaves no doubt about the rollover counter (RFC 3711, section 3.3.1).
            _ => ssrc as u16 >> 1,
        }
    }

    /// Returns the SSRC of retransmissions to the client of the stream with this SSRC, if the answer announced one.
    pub(super) fn retransmissions_of(&self, ssrc: u32) -> Option<u32> {
        self.answered()?.announced.retransmissions_of(ssrc)
    }

    /// Returns whether the answer announced this SSRC for retransmissions.
    pub(super) fn is_of_retransmissions(&self, ssrc: u32) -> bool {
        self.answered().is_some_and(|answered| answered.announced.is_of_retransmissions(ssrc))
    }

    /// Returns whether the answer announced any SSRC of retransmissions.
    pub(super) fn has_retransmissions(&self) -> bool {
        self.answered().is_some_and(|answered| answered.announced.has_retransmissions())
    }

    /// Gives the client's streams the SSRCs that the answer announced.
    pub(super) fn announce(&self, continuity: &mut Continuity) {
        if let Some(answered) = self.answered() {
            continuity.announce(Arc::clone(&answered.announced));
        }
    }

    /// Follows the answer to a later offer.
    pub(super) fn set_answered(&mut self, answered: Arc<AnsweredMedia>) {
        if let Some(client) = &mut self.client {
            client.answered = Some(answered);
        }
    }

    /// This process has the handshake of the client, so no other one has its keys.
    pub(super) fn note_handshake(&mut self) {
        self.client.iter_mut().for_each(|client| client.is_restored = false);
    }

    /// Returns whether another process may have agreed with the client on keys that this one lacks.
    pub(super) fn may_have_lost_keys(&self) -> bool {
        self.client.as_ref().is_some_and(|client| client.contexts.is_none() && client.is_restored)
    }

    /// Returns whether keys have been awaited for the time of a handshake.
    pub(super) fn awaits_too_long(&mut self, now: Instant) -> bool {
        let Some(client) = self.client.as_mut().filter(|client| client.contexts.is_none()) else {
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

    /// Sets the keys of a leg. Contexts that exist go on: under one key no index is used twice.
    #[cold]
    pub(super) fn set_leg(&mut self, hop: Hop, keys: &Arc<SrtpKeys>) {
        if !self.legs.iter().any(|leg| leg.hop == hop && leg.keys == *keys) {
            self.forget_leg(hop);
            self.legs.push(LegContexts::new(hop, keys));
        }
    }

    pub(super) fn forget_leg(&mut self, hop: Hop) {
        self.legs.retain(|leg| leg.hop != hop);
    }

    fn leg(&mut self, hop: Hop) -> Result<&mut LegContexts, DropReason> {
        self.legs.iter_mut().find(|leg| leg.hop == hop).ok_or(DropReason::SrtpNoKeys)
    }

    /// Verifies and decrypts a packet of a node in place. Returns the plain packet.
    pub(super) fn unprotect_from_node<'a>(
        &mut self,
        hop: Hop,
        packet: &'a mut [u8],
    ) -> Result<&'a mut [u8], DropReason> {
        let side = match demux::classify(packet) {
            demux::DatagramKind::Rtp => RtpSide::Rtp,
            demux::DatagramKind::Rtcp => RtpSide::Rtcp,
            _ => return Err(DropReason::Malformed),
        };
        self.leg(hop)?.contexts.unprotect(side, packet)
    }

    /// Replaces `protected` by the packet, encrypted for a node.
    pub(super) fn protect_to_node(
        &mut self,
        hop: Hop,
        side: RtpSide,
        packet: &[u8],
        protected: &mut Vec<u8>,
        at: GrantView<'_>,
    ) -> Result<(), RefusedPacket> {
        let refused = |reason| RefusedPacket { reason, is_restart: false };
        let leg = self.leg(hop).map_err(refused)?;
        protected.clear();
        protected.extend_from_slice(packet);
        match leg.contexts.protect(side, protected, at) {
            Ok(()) => {
                if side == RtpSide::Rtp {
                    leg.reused.end(packet);
                }
                Ok(())
            }
            // A client of plain RTP may send a packet twice, restart a stream, and have any number of streams in turn.
            Err(error @ (SrtpError::Reused | SrtpError::SourcesFull { .. })) => {
                let is_restart = side == RtpSide::Rtp && leg.reused.add(packet);
                let is_reused = error == SrtpError::Reused;
                let reason = if is_reused { DropReason::Stale } else { drop_reason(error) };
                Err(RefusedPacket { reason, is_restart })
            }
            Err(error) => Err(refused(drop_reason(error))),
        }
    }

    /// The counters towards the client, for a process that continues once this one sends no more.
    pub(super) fn client_counters(&self) -> Option<SrtpCounters> {
        self.client_contexts().map(SrtpContexts::counters)
    }

    /// The counters of the legs, for a process that continues once this one sends no more.
    pub(super) fn leg_counters(&self) -> Vec<(Hop, SrtpCounters)> {
        self.legs.iter().map(|leg| (leg.hop, leg.contexts.counters())).collect()
    }

    /// Notes in counters whether a standby limits this process.
    pub(super) fn note_limits(&self, counters: &mut SrtpCounters, at: GrantView<'_>) {
        if let Some(contexts) = self.client_contexts() {
            counters.is_limited = contexts.sender.is_limited(at);
        }
    }

    /// The counters towards the client, for a standby that continues while this process may go on. `copy` is the number of the
    /// worker's copy.
    pub(super) fn copy_for_standby(
        &mut self,
        copy: u64,
        at: GrantView<'_>,
    ) -> Option<SrtpCounters> {
        let contexts = self.client_contexts_mut()?;
        Some(SrtpCounters {
            received: contexts.receiver.counters().collect(),
            sent: contexts.sender.copy_for_standby(copy, at),
            is_for_standby: true,
            is_limited: false,
        })
    }

    /// Returns whether a standby is to get a copy although nothing has changed.
    pub(super) fn needs_copy(&self, at: GrantView<'_>) -> bool {
        self.client_contexts().is_some_and(|contexts| contexts.sender.needs_copy(at))
    }

    /// Continues the SRTP of the client above the counters of another process, and gives the client's streams numbers above those
    /// that were used. `is_behind` and `holds_until` as for [`SrtpContexts::go_on`].
    pub(super) fn continue_client(
        &mut self,
        counters: Option<&SrtpCounters>,
        is_behind: bool,
        holds_until: Option<Instant>,
        continuity: &mut Continuity,
    ) {
        let Some(client) = &mut self.client else { return };
        if let Some(contexts) = &mut client.contexts {
            match counters {
                Some(counters) => contexts.go_on(counters, is_behind, holds_until),
                None => contexts.await_counters(),
            }
            contexts.skip_used(continuity);
        }
        client.is_restored = true;
        self.announce(continuity);
    }

    /// Replaces the legs by these, which go on above the counters of another process. `is_behind`: that process may have sent
    /// since.
    pub(super) fn continue_legs<'a>(
        &mut self,
        legs: impl Iterator<Item = (Hop, &'a Arc<SrtpKeys>)>,
        counters: &[(Hop, SrtpCounters)],
        is_behind: bool,
    ) {
        let continued = legs.map(|(hop, keys)| {
            let mut leg = LegContexts::new(hop, keys);
            match counters.iter().find(|(of, _)| *of == hop) {
                Some((_, counters)) => leg.contexts.go_on(counters, is_behind, None),
                None => leg.contexts.await_counters(),
            }
            leg
        });
        self.legs = continued.collect();
    }
}

/// The reason for which a packet to the client was not encrypted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ProtectError {
    Dropped(DropReason),
    /// A standby must acknowledge a copy with a higher limit first.
    LeaseExhausted,
}

impl ProtectError {
    const NO_KEYS: ProtectError = ProtectError::Dropped(DropReason::SrtpNoKeys);

    pub(super) fn reason(&self) -> DropReason {
        match self {
            ProtectError::Dropped(reason) => *reason,
            ProtectError::LeaseExhausted => DropReason::SrtpIndex,
        }
    }
}

/// The contexts of a leg. Numbers of packets to a node are those of the client, so a standby could not go on above them. The keys
/// of a leg belong to one process and the one that an upgrade starts: copies for a standby lack such legs, and after a takeover they
/// are opened again, with other keys.
#[derive(Debug)]
struct LegContexts {
    hop: Hop,
    keys: Arc<SrtpKeys>,
    contexts: SrtpContexts,
    reused: ReusedRuns,
}

impl LegContexts {
    fn new(hop: Hop, keys: &Arc<SrtpKeys>) -> LegContexts {
        let contexts = SrtpContexts::new(keys);
        LegContexts { hop, keys: Arc::clone(keys), contexts, reused: ReusedRuns::default() }
    }
}

/// The runs of a client's streams, by SSRC.
#[derive(Default, Debug)]
struct ReusedRuns {
    runs: [ReusedRun; RUNS_MAX],
    /// The run that a new one replaces.
    oldest: usize,
}

/// Packets of a stream, in sequence, with used indices.
#[derive(Clone, Copy, Default, Debug)]
struct ReusedRun {
    ssrc: u32,
    /// Sequence number of the last packet.
    last: u16,
    /// 0: there is no run.
    length: u8,
}

impl ReusedRuns {
    /// Adds a packet. Returns whether its stream has restarted.
    #[cold]
    fn add(&mut self, packet: &[u8]) -> bool {
        let Some((ssrc, sequence)) = rtp::ssrc_and_sequence(packet) else { return false };
        let known = self.runs.iter().position(|run| run.length > 0 && run.ssrc == ssrc);
        let place = known.unwrap_or_else(|| {
            let place = self.oldest;
            self.oldest = (place + 1) % RUNS_MAX;
            place
        });
        let ReusedRun { last, length, .. } = self.runs[place];
        let follows = known.is_some() && last == sequence.wrapping_sub(1);
        let length = if follows { length % RESTART_PACKETS + 1 } else { 1 };
        self.runs[place] = ReusedRun { ssrc, last: sequence, length };
        length == RESTART_PACKETS
    }

    /// Ends the run of the stream of this packet, which was accepted.
    fn end(&mut self, packet: &[u8]) {
        let Some((ssrc, _)) = rtp::ssrc_and_sequence(packet) else { return };
        let runs = self.runs.iter_mut().filter(|run| run.ssrc == ssrc);
        runs.for_each(|run| run.length = 0);
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

#[cfg(test)]
mod tests;
