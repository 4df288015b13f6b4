//! UDP addresses of a session's client: the destination of packets to it, and its accepted sources.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use evenkeel_core::RtcpPort;
use evenkeel_media::rtp;

use super::{Known, PacketContext, Session};
use crate::worker::arrival::SourceKey;

/// Limit of checked addresses that may send: after a NAT rebinding the old address remains valid for a moment.
const CHECKED_MAX: usize = 4;

#[derive(Default)]
pub(super) struct Address {
    pub(super) rtp: Option<SourceKey>,
    /// Boxed, because many sessions need none of these fields.
    more: Option<Box<More>>,
}

#[derive(Default)]
struct More {
    /// Destination of RTCP if it differs from that of RTP.
    rtcp: Option<SourceKey>,
    /// True if a check carried USE-CANDIDATE. From then on only such checks change the destination.
    nominated: bool,
    /// Time of the last verified check.
    consent: Option<Instant>,
    /// Addresses that passed a check, newest last.
    checked: Vec<SourceKey>,
}

impl Address {
    pub(super) fn declared(rtp: SourceKey, rtcp: SourceKey) -> Address {
        let separate =
            (rtcp != rtp).then(|| Box::new(More { rtcp: Some(rtcp), ..More::default() }));
        Address { rtp: Some(rtp), more: separate }
    }

    pub(super) fn rtcp(&self) -> Option<SourceKey> {
        self.more.as_ref().and_then(|more| more.rtcp).or(self.rtp)
    }

    /// Time of the last verified check.
    pub(super) fn consent(&self) -> Option<Instant> {
        self.more.as_ref()?.consent
    }

    fn checked(&self) -> &[SourceKey] {
        self.more.as_ref().map_or(&[], |more| &more.checked)
    }
}

impl Session {
    /// Handles a verified check from this address. Media is sent to the last nominated address or, before any
    /// nomination, to the last checked address that sent media. Returns the address that lost its permission to send,
    /// if the list was full.
    pub(crate) fn checked(
        &mut self,
        from: SourceKey,
        nominated: bool,
        cx: &mut PacketContext<'_>,
    ) -> Option<SourceKey> {
        self.heard(cx);
        if nominated || self.address.rtp.is_none() {
            self.address.rtp = Some(from);
        }
        let more = self.address.more.get_or_insert_default();
        more.consent = Some(cx.now);
        more.nominated |= nominated;
        more.checked.retain(|known| *known != from);
        more.checked.push(from);
        (more.checked.len() > CHECKED_MAX).then(|| more.checked.remove(0))
    }

    /// Handles media from this address, which is an accepted source.
    pub(crate) fn heard_from(&mut self, from: SourceKey) {
        let nominated = || self.address.more.as_ref().is_some_and(|more| more.nominated);
        if self.known == Known::Stun && !nominated() {
            self.address.rtp = Some(from);
        }
    }

    /// Sets the client's port from an RTP packet. Returns whether the packet has a declared payload type.
    pub(crate) fn learn(&mut self, from: SourceKey, packet: &[u8]) -> bool {
        let declared = rtp::Header::parse(packet)
            .is_ok_and(|header| self.media.payload_type(header.payload_type).is_some());
        if declared {
            self.address.rtp = Some(from);
            let more = self.address.more.get_or_insert_default();
            more.checked.push(from);
            if self.media.rtcp == RtcpPort::Own {
                // RFC 3550, 11: RTCP on the next higher port.
                let SourceKey { listener, address } = from;
                let address = SocketAddr::new(address.ip(), address.port().wrapping_add(1));
                let rtcp = SourceKey { listener, address };
                more.rtcp = Some(rtcp);
                more.checked.push(rtcp);
            }
        }
        declared
    }

    /// Returns whether packets from a cached source are still accepted: the client may have moved since the lookup.
    pub(crate) fn takes_from(&self, from: SourceKey) -> bool {
        let learned = matches!(self.known, Known::DeclaredIp | Known::Stun);
        !learned || self.address.checked().contains(&from)
    }

    /// Removes an address that a check has proved to belong to another session's client.
    pub(crate) fn lose_address(&mut self, from: SourceKey) {
        if let Some(more) = &mut self.address.more {
            more.checked.retain(|known| *known != from);
        }
        if self.address.rtp == Some(from) {
            self.address.rtp = self.address.checked().last().copied();
        }
    }

    /// Returns whether the client's port is still unknown.
    pub(crate) fn learns(&self) -> bool {
        self.known == Known::DeclaredIp && self.address.rtp.is_none()
    }

    pub(crate) fn client(&self) -> Option<IpAddr> {
        self.address.rtp.map(|source| source.address.ip())
    }

    /// Addresses that this session added to the flow table.
    pub(crate) fn learned(&self) -> &[SourceKey] {
        self.address.checked()
    }
}
