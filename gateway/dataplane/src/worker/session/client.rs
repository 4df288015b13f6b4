//! The client of a session: its addresses, the admission of its datagrams, and the packets to it.

use std::hash::RandomState;
use std::mem;
use std::time::Instant;

use evenkeel_media::rtcp::rewrite;
use evenkeel_media::srtp::OVERHEAD_MAX;
use evenkeel_media::stun::{self, StunKey, Username};
use evenkeel_model::{DropReason, Latency, MediaDescription, RtcpPort, Srtp, StreamKind};

use super::address::{CONSENT, CheckReceipt, CheckedAddress, ClientAddress};
use super::measurements::reports;
use super::media::RunningMedia;
use super::record::ClientAddressing;
use super::repair::KeptForm;
use super::srtp::ProtectError;
use crate::flows::{CHECKED_FOR, Home};
use crate::ring::{PacketPriority, SendTerms};
use crate::worker::egress::{DscpMarks, Egress, PacketContext};
use crate::worker::report::MediaDirection;
use crate::worker::sockets::{ClientPath, RtpSide, SourceKey};

/// A session's client.
pub(crate) struct ClientSide {
    address: ClientAddress,
    known: ClientKnowledge,
    /// True if bytes to the declared address are limited until a client there reports its reception.
    needs_report: bool,
    /// Also of packets to nodes. Beside these flags they take no memory.
    pub(super) dscp: DscpMarks,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ClientKnowledge {
    Declared,
    /// Declared, before the first packet from its addresses.
    Awaited,
    DeclaredIp,
    Stun,
    Quic,
}

/// The answer to a datagram of media from this source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Admission {
    /// The client's datagram.
    Accepted,
    /// The client's port is still unknown: a packet with a declared payload type sets it.
    Learns,
    Refused,
}

/// Returns whether reports of a client at a declared address arrive and can be read. SRTCP cannot be read without keys, and
/// behind a NAT the port of RTCP is not the one beside a learned port.
fn can_report(client: &ClientAddressing, media: &MediaDescription) -> bool {
    let arrive = match client {
        ClientAddressing::Declared { .. } => true,
        ClientAddressing::DeclaredIp { .. } => media.rtcp == RtcpPort::Mux,
        ClientAddressing::Stun | ClientAddressing::Quic { .. } => false,
    };
    arrive && media.srtp.is_readable()
}

impl ClientSide {
    /// `await_first_packet`, `await_report`: as in [`Install`](super::Install).
    pub(super) fn new(
        client: &ClientAddressing,
        media: &MediaDescription,
        dscp: DscpMarks,
        await_first_packet: bool,
        await_report: bool,
    ) -> ClientSide {
        let (known, address) = match *client {
            ClientAddressing::Declared { listener, address, rtcp } => {
                let [rtp, rtcp] = [address, rtcp].map(|address| SourceKey { listener, address });
                if await_first_packet {
                    (ClientKnowledge::Awaited, ClientAddress::awaited(rtp, rtcp))
                } else {
                    (ClientKnowledge::Declared, ClientAddress::declared(rtp, rtcp))
                }
            }
            ClientAddressing::DeclaredIp { .. } => {
                (ClientKnowledge::DeclaredIp, ClientAddress::default())
            }
            ClientAddressing::Stun => (ClientKnowledge::Stun, ClientAddress::default()),
            ClientAddressing::Quic { flow_from_gateway } => {
                (ClientKnowledge::Quic, ClientAddress::quic(flow_from_gateway))
            }
        };
        let needs_report = await_report && can_report(client, media);
        ClientSide { address, known, needs_report, dscp }
    }

    /// The addresses, for a record.
    pub(super) fn address(&self) -> &ClientAddress {
        &self.address
    }

    #[cfg(test)]
    pub(super) fn address_mut(&mut self) -> &mut ClientAddress {
        &mut self.address
    }

    pub(super) fn needs_report(&self) -> bool {
        self.needs_report
    }

    /// Continues at the addresses of another process. The flow of a QUIC client is that of this process.
    pub(super) fn continue_at(&mut self, address: ClientAddress) {
        if self.known == ClientKnowledge::Awaited && !address.is_awaited() {
            self.known = ClientKnowledge::Declared;
        }
        if self.known != ClientKnowledge::Quic {
            self.address = address;
        }
    }

    /// Admits a datagram of media, and follows the client to the source of one that is accepted. The source was looked up, and
    /// the client may have moved since.
    #[inline]
    pub(crate) fn admit(&mut self, from: ClientPath, datagram: &[u8]) -> Admission {
        if self.learns() {
            return Admission::Learns;
        }
        if !self.takes_from(from.source) {
            return Admission::Refused;
        }
        self.count_received(from.source, datagram);
        self.heard_from(from);
        Admission::Accepted
    }

    #[inline]
    fn learns(&self) -> bool {
        self.known == ClientKnowledge::DeclaredIp && self.address.rtp().is_none()
    }

    /// Returns whether packets from this source are the client's.
    #[inline]
    pub(crate) fn takes_from(&self, from: SourceKey) -> bool {
        let learned = matches!(self.known, ClientKnowledge::DeclaredIp | ClientKnowledge::Stun);
        !learned || self.has_checked(from)
    }

    #[inline]
    fn heard_from(&mut self, from: ClientPath) {
        if self.known == ClientKnowledge::Awaited {
            self.send_to_declared();
        } else if self.known == ClientKnowledge::Stun && !self.address.is_nominated() {
            self.address.set_rtp(from.source);
        }
        self.address.follow(from);
    }

    /// Opens the way to the declared addresses: a packet came from one of them.
    #[cold]
    fn send_to_declared(&mut self) {
        self.address.heard();
        self.known = ClientKnowledge::Declared;
    }

    /// Counts a datagram from the client.
    #[inline]
    pub(crate) fn count_received(&mut self, source: SourceKey, datagram: &[u8]) {
        if let Some(address) = self.address.unproved(source) {
            address.receive(datagram.len());
        }
    }

    /// Counts the answer to a check.
    pub(crate) fn count_answer(&mut self, to: SourceKey, answer: &[u8]) {
        if let Some(address) = self.address.unproved(to) {
            address.note_sent(answer.len());
        }
    }

    /// Sets the client's port. Behind a port of its own, RTCP has the next one.
    pub(super) fn learn(&mut self, path: ClientPath, rtcp: RtcpPort) {
        self.address.learn(path, rtcp == RtcpPort::Own);
    }

    /// Removes an address that a check has proved to belong to another session's client.
    pub(super) fn lose_address(&mut self, from: SourceKey) {
        self.address.lose(from);
    }

    /// Addresses that this session added to the flow table.
    pub(crate) fn learned(&self) -> &[SourceKey] {
        self.address.checked()
    }

    /// Returns whether a check from this address was verified.
    #[inline]
    pub(super) fn has_checked(&self, source: SourceKey) -> bool {
        self.address.checked().contains(&source)
    }

    /// Remembers a verified check and returns whether it was received before.
    pub(crate) fn remember_check(
        &mut self,
        transaction: stun::Transaction,
        source: SourceKey,
        keys: &RandomState,
        home: Home,
    ) -> CheckReceipt {
        self.address.remember_check(transaction, source, keys, home)
    }

    /// Handles a verified check.
    pub(super) fn check(
        &mut self,
        path: ClientPath,
        nominated: bool,
        now: Instant,
    ) -> CheckedAddress {
        self.address.check(path, nominated, now)
    }

    /// Returns the time until which no other session's check takes this address, if the client was heard there now.
    pub(crate) fn holds_until(&self, source: SourceKey, now: Instant) -> Instant {
        let is_proved = self.has_checked(source) && !self.address.is_unproved(source);
        now + if is_proved { CONSENT } else { CHECKED_FOR }
    }

    /// A packet of SRTP from this address was verified. Returns whether it renewed the consent to send there.
    #[inline]
    pub(crate) fn renew_consent(&mut self, from: SourceKey, now: Instant) -> bool {
        self.address.renew_consent(from, now)
    }

    /// Replaces `out` by a check of the address from which a check came, unless it is proved or the limit is reached. Returns
    /// whether it did. `username` and `key` are those of the client's check: the session's password is used where the
    /// client's is unknown, and the client's error is an answer, too.
    pub(super) fn write_check(
        &mut self,
        to: SourceKey,
        Username { server_ufrag, client_ufrag }: Username<'_>,
        key: StunKey,
        password: Option<&str>,
        out: &mut Vec<u8>,
    ) -> bool {
        if !self.address.is_unproved(to) {
            return false;
        }
        let key = password.map_or(key, StunKey::new);
        let username = Username { server_ufrag: client_ufrag, client_ufrag: server_ufrag };
        let transaction = self.address.secret(to).transaction;
        out.clear();
        stun::write_check(transaction, username, &key, out);
        self.may_send(to, RtpSide::Rtcp, out.len())
    }

    /// Handles an answer to the gateway's check. Returns whether it proves the address.
    pub(super) fn handle_check_answer(
        &mut self,
        from: SourceKey,
        datagram: &[u8],
    ) -> Result<bool, DropReason> {
        let answer = stun::Response::parse(datagram).map_err(|_| DropReason::Malformed)?;
        // A retransmission, or the answer to one.
        if !self.address.is_unproved(from) {
            return Ok(false);
        }
        if answer.message.transaction() != self.address.secret(from).transaction {
            return Err(DropReason::BadIntegrity);
        }
        self.address.prove(from);
        Ok(true)
    }

    /// Reads the reports in RTCP of the client. Returns whether they prove the address.
    pub(super) fn read_reports(&mut self, from: SourceKey, packet: &[u8]) -> bool {
        let Some(address) = self.address.unproved(from) else { return false };
        let names = |last_sr: u32| address.reports.iter().any(|report| report.sent == last_sr);
        let is_proved = reports(packet).any(|block| names(block.last_sr));
        if is_proved {
            self.address.prove(from);
        }
        is_proved
    }

    /// Shifts the times of sender reports to an address that is not proved.
    pub(super) fn shift_reports(&mut self, compound: &mut [u8]) {
        let Some(to) = self.address.rtcp().filter(|to| self.address.is_unproved(*to)) else {
            return;
        };
        let shift = self.address.secret(to).shift;
        if let Some(address) = self.address.unproved(to) {
            address.shift_reports(compound, shift);
        }
    }

    /// Gives the client's reports the times of the node's sender reports.
    pub(super) fn restore_reports(&self, compound: &mut [u8]) {
        if self.address.shifted().next().is_none() {
            return;
        }
        rewrite::replace_last_reports(compound, |last_sr| {
            let mut shifted = self.address.shifted();
            shifted.find(|it| it.sent == last_sr).map_or(last_sr, |it| it.original)
        });
    }

    /// Returns whether bytes may be sent to a checked address, and counts them then.
    #[inline]
    fn may_send(&mut self, to: SourceKey, side: RtpSide, bytes: usize) -> bool {
        self.address.unproved(to).is_none_or(|address| address.may_send(side, bytes))
    }

    /// Sends DTLS to the address that it answers.
    pub(super) fn send_dtls(&mut self, to: ClientPath, datagram: &[u8], egress: &mut Egress) {
        if !self.has_checked(to.source) {
            return;
        }
        // DTLS leaves nothing to RTCP, which comes only after it.
        if self.may_send(to.source, RtpSide::Rtcp, datagram.len()) {
            egress.queue_to_client(to, RtpSide::Rtp, 0, datagram);
        } else {
            egress.count_drop(DropReason::Unvalidated);
        }
    }

    /// Sends a packet to the client's address or QUIC flow, encrypted if the client's SRTP ends here.
    #[inline]
    pub(super) fn send(
        &mut self,
        side: RtpSide,
        dscp: u8,
        packet: &[u8],
        media: &MediaDescription,
        home: Home,
        running: Option<&mut RunningMedia>,
        cx: &mut PacketContext<'_>,
        rewrite: impl FnOnce(&mut [u8]),
    ) {
        let mut running = running;
        let kept = match running.as_deref_mut() {
            Some(RunningMedia { repair: Some(repair), counts, .. }) if side == RtpSide::Rtp => {
                repair.prepare(packet, counts, &cx.egress.repair_memory, cx.now)
            }
            _ => None,
        };
        if let Some(flow_from_gateway) = self.address.flow() {
            // The ring copies the bytes, so the header is rewritten first.
            let mut bytes = [0; crate::mmsg::DATAGRAM_MAX];
            let Some(bytes) = bytes.get_mut(..packet.len()) else {
                return cx.egress.count_drop(DropReason::Oversize);
            };
            bytes.copy_from_slice(packet);
            rewrite(bytes);
            keep(running, kept, bytes, cx.now);
            let terms = terms_of(side, kind_of(packet, media), media.latency);
            cx.egress.queue_to_quic(home, flow_from_gateway, terms, bytes);
            cx.egress.stats.passed(MediaDirection::ToClient, packet.len());
            return;
        }
        let is_terminated = media.srtp == Srtp::Terminated;
        let overhead = if is_terminated { OVERHEAD_MAX } else { 0 };
        let Some(source) = self.destination(side, packet.len() + overhead, cx) else { return };
        // The listener's RTCP port is used only for clients that do not multiplex RTCP.
        let (content, side) = match media.rtcp {
            RtcpPort::Mux => (side, RtpSide::Rtp),
            RtcpPort::Own => (side, side),
        };
        let mut validation = running.as_deref_mut().and_then(|it| it.state.validation.as_mut());
        if validation.as_mut().is_some_and(|validation| !validation.may_send(packet, cx.now)) {
            return cx.egress.count_drop(DropReason::Unvalidated);
        }
        if is_terminated {
            let path = ClientPath { source, local: self.address.local() };
            return send_protected(
                path, content, side, dscp, packet, home, running, kept, cx, rewrite,
            );
        }
        let local = || self.address.local();
        match cx.egress.queue_to_source(source, local, side, dscp, packet) {
            Some(bytes) => {
                rewrite(bytes);
                if let Some(validation) = validation {
                    validation.note_sent(bytes);
                }
                keep(running, kept, bytes, cx.now);
                cx.egress.stats.passed(MediaDirection::ToClient, packet.len());
            }
            None => cx.egress.count_drop(DropReason::NoAddress),
        }
    }

    /// Returns the address to which so many bytes may be sent now. Without one the packet counts as dropped.
    #[inline(always)]
    fn destination(
        &mut self,
        side: RtpSide,
        bytes: usize,
        cx: &PacketContext<'_>,
    ) -> Option<SourceKey> {
        let address = match side {
            RtpSide::Rtp => self.address.rtp(),
            RtpSide::Rtcp => self.address.rtcp(),
        };
        let is_checked = self.known == ClientKnowledge::Stun;
        let consent = !is_checked || self.address.has_consent(cx.now);
        let Some(source) = address.filter(|_| consent) else {
            cx.egress.count_drop(DropReason::NoAddress);
            return None;
        };
        if is_checked && !self.may_send(source, side, bytes) {
            cx.egress.count_drop(DropReason::Unvalidated);
            return None;
        }
        Some(source)
    }

    /// Sends the bytes of an RTP packet again, as they were sent before. Returns false if it was dropped.
    pub(super) fn send_again(
        &mut self,
        kind: StreamKind,
        dscp: u8,
        sent: &[u8],
        latency: Latency,
        home: Home,
        cx: &mut PacketContext<'_>,
    ) -> bool {
        if let Some(flow_from_gateway) = self.address.flow() {
            let mut terms = terms_of(RtpSide::Rtp, kind, latency);
            if kind == StreamKind::Video {
                terms.priority = PacketPriority::VideoRepair;
            }
            cx.egress.queue_to_quic(home, flow_from_gateway, terms, sent);
        } else {
            let Some(source) = self.destination(RtpSide::Rtp, sent.len(), cx) else { return false };
            let local = || self.address.local();
            let queued = cx.egress.queue_to_source(source, local, RtpSide::Rtp, dscp, sent);
            if queued.is_none() {
                cx.egress.count_drop(DropReason::NoAddress);
                return false;
            }
        }
        cx.egress.stats.passed(MediaDirection::ToClient, sent.len());
        true
    }
}

/// Returns the kind of a packet's stream; RTCP is of any.
fn kind_of(packet: &[u8], media: &MediaDescription) -> StreamKind {
    let declared = packet.get(1).and_then(|number| media.payload_type(number & 0x7f));
    declared.map_or(StreamKind::Audio, |(kind, _)| kind)
}

/// Sound waits as long as the jitter buffer of its client does.
fn terms_of(side: RtpSide, kind: StreamKind, latency: Latency) -> SendTerms {
    match (side, kind) {
        (RtpSide::Rtp, StreamKind::Audio) => {
            SendTerms { priority: PacketPriority::Voice, latency_ms: latency.0.max(1) }
        }
        (RtpSide::Rtp, StreamKind::Video) => {
            let latency_ms = SendTerms::LATENCY_MS_MAX;
            SendTerms { priority: PacketPriority::Video, latency_ms }
        }
        (RtpSide::Rtcp, _) => {
            let latency_ms = SendTerms::LATENCY_MS_MAX;
            SendTerms { priority: PacketPriority::Voice, latency_ms }
        }
    }
}

/// Keeps a packet as it was sent to the client, if it has a kind.
#[inline]
fn keep(running: Option<&mut RunningMedia>, kind: Option<StreamKind>, sent: &[u8], now: Instant) {
    if let Some(kind) = kind
        && let Some(repair) = running.and_then(|running| running.repair.as_deref_mut())
    {
        repair.keep(kind, KeptForm::Sent, sent, now);
    }
}

/// Encrypts a packet to the client and queues it there. `content`: whether it is RTP or RTCP; `side`: the port of the listener;
/// `kept`: its kind, if it is to be kept.
fn send_protected(
    path: ClientPath,
    content: RtpSide,
    side: RtpSide,
    dscp: u8,
    packet: &[u8],
    home: Home,
    running: Option<&mut RunningMedia>,
    kept: Option<StreamKind>,
    cx: &mut PacketContext<'_>,
    rewrite: impl FnOnce(&mut [u8]),
) {
    if cx.egress.is_handed_out {
        return cx.egress.count_drop(DropReason::SrtpIndex);
    }
    let Some(running) = running else { return cx.egress.count_drop(DropReason::SrtpNoKeys) };
    let mut protected = mem::take(&mut cx.egress.protected);
    protected.clear();
    protected.extend_from_slice(packet);
    rewrite(&mut protected);
    let kept =
        kept.filter(|kind| running.rtx.is_none() || !running.keep_plain(*kind, &protected, cx.now));
    let indices = cx.egress.indices.view(cx.now);
    match running.srtp.protect_to_client(content, &mut protected, indices) {
        Ok(()) if cx.egress.queue_to_client(path, side, dscp, &protected).is_some() => {
            if let Some(validation) = &mut running.state.validation {
                // Protection leaves the header as it is.
                validation.note_sent(&protected);
            }
            keep(Some(running), kept, &protected, cx.now);
            cx.egress.stats.passed(MediaDirection::ToClient, protected.len());
        }
        Ok(()) => cx.egress.count_drop(DropReason::NoAddress),
        Err(error) => {
            if error == ProtectError::LeaseExhausted {
                // The copy names a higher limit.
                cx.egress.note_changed(home);
            }
            cx.egress.count_drop(error.reason());
        }
    }
    cx.egress.protected = protected;
}

#[cfg(test)]
mod tests;
