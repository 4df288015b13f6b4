//! Sends packets to the client's address or QUIC flow. Encrypts them if the client's SRTP ends here.

use evenkeel_media::srtp::{OVERHEAD_MAX, SrtpError};
use evenkeel_model::forward::DropReason;
use evenkeel_model::{RtcpPort, Srtp, StreamKind};

use super::srtp::drop_reason;
use super::{ClientKnowledge, PacketContext, WorkerSession};
use crate::worker::report::MediaDirection;
use crate::worker::sockets::{ClientPath, RtpSide, SourceKey};

/// The path to a client, the listener's port towards it, and the mark of the packet.
struct ClientDestination {
    path: ClientPath,
    side: RtpSide,
    dscp: u8,
}

impl WorkerSession {
    pub(super) fn send_to_client(
        &mut self,
        side: RtpSide,
        kind: StreamKind,
        packet: &[u8],
        cx: &mut PacketContext<'_>,
        rewrite: impl FnOnce(&mut [u8]),
    ) {
        if let Some(flow_from_gateway) = self.address.flow() {
            // The ring copies the bytes, so the header is rewritten first.
            let mut bytes = [0; crate::mmsg::DATAGRAM_MAX];
            let Some(bytes) = bytes.get_mut(..packet.len()) else {
                return cx.egress.count_drop(DropReason::Oversize);
            };
            bytes.copy_from_slice(packet);
            rewrite(bytes);
            cx.egress.queue_to_quic(self.home, flow_from_gateway, side, bytes);
            cx.egress.stats.passed(MediaDirection::ToClient, packet.len());
            return;
        }
        let address = match side {
            RtpSide::Rtp => self.address.rtp(),
            RtpSide::Rtcp => self.address.rtcp(),
        };
        let is_checked = self.known == ClientKnowledge::Stun;
        let consent = !is_checked || self.address.has_consent(cx.now);
        let Some(source) = address.filter(|_| consent) else {
            return cx.egress.count_drop(DropReason::NoAddress);
        };
        if is_checked && !self.may_send(source, side, packet.len()) {
            return cx.egress.count_drop(DropReason::Unvalidated);
        }
        let (content, side, dscp) = (side, self.side(side), self.dscp_of(kind));
        let mut validation = self.state.as_deref_mut().and_then(|state| state.validation.as_mut());
        if validation.as_mut().is_some_and(|validation| !validation.may_send(packet, cx.now)) {
            return cx.egress.count_drop(DropReason::Unvalidated);
        }
        if self.media.srtp == Srtp::Terminated {
            let path = ClientPath { source, local: self.address.local() };
            let to = ClientDestination { path, side, dscp };
            return self.protect_to_client(content, to, packet, cx, rewrite);
        }
        let local = || self.address.local();
        match cx.egress.queue_to_source(source, local, side, dscp, packet) {
            Some(bytes) => {
                rewrite(bytes);
                if let Some(validation) = validation {
                    validation.note_sent(bytes);
                }
                cx.egress.stats.passed(MediaDirection::ToClient, packet.len());
            }
            None => cx.egress.count_drop(DropReason::NoAddress),
        }
    }

    /// Returns whether a packet of this length may be sent to a checked address, and counts it then.
    #[inline]
    fn may_send(&mut self, to: SourceKey, side: RtpSide, length: usize) -> bool {
        let overhead = if self.media.srtp == Srtp::Terminated { OVERHEAD_MAX } else { 0 };
        let address = self.address.unproved(to);
        address.is_none_or(|address| address.may_send(side, length + overhead))
    }

    /// Encrypts a packet to the client and queues it there.
    fn protect_to_client(
        &mut self,
        content: RtpSide,
        ClientDestination { path, side, dscp }: ClientDestination,
        packet: &[u8],
        cx: &mut PacketContext<'_>,
        rewrite: impl FnOnce(&mut [u8]),
    ) {
        if cx.egress.is_handed_out {
            return cx.egress.count_drop(DropReason::SrtpIndex);
        }
        // The next copy must have the counters.
        self.uncopied = true;
        let mut protected = std::mem::take(&mut cx.egress.protected);
        protected.clear();
        protected.extend_from_slice(packet);
        rewrite(&mut protected);
        let done = self.protect(content, &mut protected, cx);
        let queued = done.and_then(|()| {
            let queued = cx.egress.queue_to_client(path, side, dscp, &protected);
            queued.map(|_| ()).ok_or(DropReason::NoAddress)
        });
        match queued {
            Ok(()) => {
                let state = self.state.as_deref_mut();
                if let Some(validation) = state.and_then(|it| it.validation.as_mut()) {
                    // Protection leaves the header as it is.
                    validation.note_sent(&protected);
                }
                cx.egress.stats.passed(MediaDirection::ToClient, protected.len());
            }
            Err(reason) => cx.egress.count_drop(reason),
        }
        cx.egress.protected = protected;
    }

    /// Gives a packet to the client the client's numbers, and encrypts it in place.
    fn protect(
        &mut self,
        content: RtpSide,
        packet: &mut Vec<u8>,
        cx: &PacketContext<'_>,
    ) -> Result<(), DropReason> {
        let state = self.state.as_deref_mut().ok_or(DropReason::SrtpNoKeys)?;
        state.srtp.map_to_client(content, packet)?;
        let contexts = state.srtp.contexts_mut().ok_or(DropReason::SrtpNoKeys)?;
        let done = contexts.protect(content, packet, cx.egress.indices.view(cx.now));
        if matches!(done, Err(SrtpError::LeaseExhausted { .. })) {
            // The copy names a higher limit.
            cx.egress.note_changed(self.home);
        }
        done.map_err(drop_reason)
    }

    /// The listener's RTCP port is used only for clients that do not multiplex RTCP.
    fn side(&self, side: RtpSide) -> RtpSide {
        match self.media.rtcp {
            RtcpPort::Mux => RtpSide::Rtp,
            RtcpPort::Own => side,
        }
    }
}
