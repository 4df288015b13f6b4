//! The SRTP and DTLS of a session's client.

use std::sync::Arc;
use std::time::Instant;

use evenkeel_dtls::HandshakeFailure;
use evenkeel_media::srtp::SrtpKeys;
use evenkeel_model::forward::DropReason;
use evenkeel_model::{MediaDescription, Srtp};

use super::srtp::{AnsweredMedia, SessionSrtp};
use super::{PacketContext, WorkerSession, voice};
use crate::worker::dtls::{DtlsSession, HandshakeDatagram, InputKind};
use crate::worker::egress::Egress;
use crate::worker::report::WorkerReport;
use crate::worker::sockets::{ClientPath, RtpSide, SourceKey};

impl WorkerSession {
    pub(super) fn srtp(&mut self) -> Option<&mut SessionSrtp> {
        self.state.as_deref_mut()?.srtp.contexts_mut()
    }

    pub(super) fn srtp_ref(&self) -> Option<&SessionSrtp> {
        self.state.as_deref()?.srtp.contexts()
    }

    /// Begins to send SRTP. Returns false if the session ends, since indices that another process used are unknown.
    pub(crate) fn begin_srtp(&mut self, now: Instant) -> bool {
        let begins = self.srtp().is_none_or(|srtp| srtp.begin_to_send(now));
        begins & self.state.as_deref_mut().is_none_or(|state| state.leg_srtp.begin_to_send(now))
    }

    /// Returns whether the client encrypts its packets with keys that the session has, or will have.
    pub(crate) fn has_srtp(&self) -> bool {
        self.media.srtp == Srtp::Terminated
    }

    /// Sends no SRTP before the counters of another process come, which may have sent some.
    pub(crate) fn await_srtp_counters(&mut self) {
        self.srtp().into_iter().for_each(SessionSrtp::await_counters);
    }

    /// A packet of SRTP from this address was verified. Returns whether it renewed the consent to send there.
    #[inline]
    pub(crate) fn renew_consent(&mut self, from: SourceKey, now: Instant) -> bool {
        self.address.renew_consent(from, now)
    }

    /// Verifies and decrypts a packet of the client in place. Returns the plain packet, with the numbers of the room.
    pub(crate) fn unprotect_srtp<'a>(
        &mut self,
        side: RtpSide,
        packet: &'a mut [u8],
        egress: &Egress,
    ) -> Result<&'a mut [u8], DropReason> {
        let unprotected = match self.state.as_deref_mut() {
            Some(state) => state.srtp.unprotect(side, packet),
            None => Err(DropReason::SrtpNoKeys),
        };
        if matches!(unprotected, Err(DropReason::SrtpNoKeys)) {
            self.note_media_without_keys(egress);
        }
        self.uncopied |= unprotected.is_ok();
        unprotected
    }

    /// A client that sends media has keys. If another process agreed on them, they are lost.
    #[cold]
    fn note_media_without_keys(&self, egress: &Egress) {
        if self.state.as_deref().is_some_and(|state| state.srtp.may_have_lost_keys()) {
            self.report_failure(HandshakeFailure::Lost, egress);
        }
    }

    /// Reports that the keys were awaited for too long. Called every 100 ms.
    pub(super) fn look_for_keys(&mut self, cx: &PacketContext<'_>) {
        let srtp = self.state.as_deref_mut().map(|state| &mut state.srtp);
        if srtp.is_some_and(|srtp| srtp.awaits_too_long(cx.now)) {
            self.report_failure(HandshakeFailure::Timeout, cx.egress);
        }
    }

    fn report_failure(&self, failure: HandshakeFailure, egress: &Egress) {
        egress.report(WorkerReport::Handshake { session: self.id, result: Err(failure) });
    }

    /// Sets the keys on which DTLS agreed, unless the session has some: they do not change.
    pub(crate) fn set_keys(&mut self, keys: &SrtpKeys) {
        self.state().srtp.set_keys(keys);
        self.uncopied = true;
    }

    /// Follows the answer to a later offer. Keys, numbers of packets and the path to the node remain.
    pub(crate) fn renegotiate(
        &mut self,
        media: Arc<MediaDescription>,
        answered: Arc<AnsweredMedia>,
    ) {
        let had_video = self.media.has_video();
        self.media = media;
        let media = Arc::clone(&self.media);
        let state = self.state();
        let had_media = state.srtp.may_receive();
        state.srtp.set_answered(answered);
        state.srtp.announce(&mut state.continuity);
        if state.srtp.may_receive() && !(had_media && had_video) {
            state.feedback.want_key_frame();
        }
        state.feedback.follow(&media);
        state.measurements.voice = voice(&media);
        self.uncopied = true;
    }

    /// Passes DTLS of the client to the thread of handshakes, if it comes from an address that passed a check.
    #[cold]
    pub(crate) fn handle_dtls(
        &mut self,
        path: ClientPath,
        datagram: &[u8],
        cx: &mut PacketContext<'_>,
    ) {
        let session = DtlsSession { id: self.id, home: self.home };
        let srtp = self.state.as_deref().map(|state| &state.srtp);
        let accepted = srtp.and_then(|srtp| Some((srtp, srtp.fingerprints()?)));
        let Some((srtp, fingerprints)) = accepted else {
            return cx.egress.count_drop(DropReason::Dtls);
        };
        if !self.address.checked().contains(&path.source) {
            return cx.egress.count_drop(DropReason::UnknownSource);
        }
        let Some(_place) = srtp.take_place() else {
            return cx.egress.count_drop(DropReason::RingFull);
        };
        let (is_keyed, fingerprints) = (srtp.contexts().is_some(), Arc::clone(fingerprints));
        self.count_received(path.source, datagram);
        let bytes = datagram.into();
        let datagram = HandshakeDatagram { session, path, fingerprints, is_keyed, bytes, _place };
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
    pub(crate) fn send_dtls(
        &mut self,
        to: ClientPath,
        datagram: &[u8],
        cx: &mut PacketContext<'_>,
    ) {
        // The client's media may overtake the keys, which come from control.
        self.state().srtp.note_handshake();
        if !self.address.checked().contains(&to.source) {
            return;
        }
        // DTLS leaves nothing to RTCP, which comes only after it.
        let address = self.address.unproved(to.source);
        if address.is_none_or(|address| address.may_send(RtpSide::Rtcp, datagram.len())) {
            cx.egress.queue_to_client(to, RtpSide::Rtp, 0, datagram);
        } else {
            cx.egress.count_drop(DropReason::Unvalidated);
        }
    }
}
