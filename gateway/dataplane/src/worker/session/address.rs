//! Where a session's client is reached over UDP, and who may be heard as that client.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use evenkeel_core::RtcpPort;
use evenkeel_media::{demux, rtp};

use super::{Known, Loan, Session};

/// Addresses that passed a check and may send, at a time: old ones stay valid for a moment after a rebinding.
const CHECKED_MAX: usize = 4;

/// Where a UDP client is reached.
#[derive(Default)]
pub(super) struct Address {
    pub(super) rtp: Option<(u8, SocketAddr)>,
    /// What many sessions have nothing of.
    more: Option<Box<More>>,
}

#[derive(Default)]
struct More {
    /// Where its RTCP goes, if not there.
    rtcp: Option<(u8, SocketAddr)>,
    /// Whether a check ever carried USE-CANDIDATE: then only such a check moves it.
    nominated: bool,
    consent: Option<Instant>,
    /// Addresses that passed a check, the newest last.
    checked: Vec<(u8, SocketAddr)>,
}

impl Address {
    pub(super) fn declared(rtp: (u8, SocketAddr), rtcp: (u8, SocketAddr)) -> Address {
        let apart = (rtcp != rtp).then(|| Box::new(More { rtcp: Some(rtcp), ..More::default() }));
        Address { rtp: Some(rtp), more: apart }
    }

    pub(super) fn rtcp(&self) -> Option<(u8, SocketAddr)> {
        self.more.as_ref().and_then(|more| more.rtcp).or(self.rtp)
    }

    /// When the last check that holds came.
    pub(super) fn consent(&self) -> Option<Instant> {
        self.more.as_ref()?.consent
    }

    fn checked(&self) -> &[(u8, SocketAddr)] {
        self.more.as_ref().map_or(&[], |more| &more.checked)
    }
}

impl Session {
    /// A check that holds came from this address. Media goes to the last that was nominated or, if none ever was, to
    /// the last that passed and sent media. The address that may no longer send, if one gives way.
    pub(crate) fn checked(
        &mut self,
        from: (u8, SocketAddr),
        nominated: bool,
        loan: &mut Loan<'_>,
    ) -> Option<(u8, SocketAddr)> {
        self.heard(loan);
        if nominated || self.address.rtp.is_none() {
            self.address.rtp = Some(from);
        }
        let more = self.address.more.get_or_insert_default();
        more.consent = Some(loan.now);
        more.nominated |= nominated;
        more.checked.retain(|known| *known != from);
        more.checked.push(from);
        (more.checked.len() > CHECKED_MAX).then(|| more.checked.remove(0))
    }

    /// The client sent media from this address, which passed a check.
    pub(crate) fn heard_from(&mut self, from: (u8, SocketAddr)) {
        let nominated = || self.address.more.as_ref().is_some_and(|more| more.nominated);
        if self.known == Known::Stun && !nominated() {
            self.address.rtp = Some(from);
        }
    }

    /// Whether the first packet from this port fixes it as the client's: valid RTP of a declared payload type.
    pub(crate) fn learn(&mut self, from: (u8, SocketAddr), packet: &[u8]) -> bool {
        let declared = demux::classify(packet) == demux::Kind::Rtp
            && rtp::Header::parse(packet)
                .is_ok_and(|header| self.media.payload_type(header.payload_type).is_some());
        if declared {
            let (listener, address) = from;
            self.address.rtp = Some(from);
            let more = self.address.more.get_or_insert_default();
            more.checked.push(from);
            if self.media.rtcp == RtcpPort::Own {
                // RFC 3550, 11: RTCP on the next higher port.
                let port = address.port().wrapping_add(1);
                let rtcp = (listener, SocketAddr::new(address.ip(), port));
                more.rtcp = Some(rtcp);
                more.checked.push(rtcp);
            }
        }
        declared
    }

    /// Whether a packet that was looked up a moment ago may still come from there: what was learned since then counts.
    pub(crate) fn takes_from(&self, from: (u8, SocketAddr)) -> bool {
        let learned = matches!(self.known, Known::DeclaredIp | Known::Stun);
        !learned || self.address.checked().contains(&from)
    }

    /// A check proved that this address is another session's client by now: this one's is not reached there any more.
    pub(crate) fn lost(&mut self, from: (u8, SocketAddr)) {
        if let Some(more) = &mut self.address.more {
            more.checked.retain(|known| *known != from);
        }
        if self.address.rtp == Some(from) {
            self.address.rtp = self.address.checked().last().copied();
        }
    }

    /// Whether its client's port is still to be learned.
    pub(crate) fn learns(&self) -> bool {
        self.known == Known::DeclaredIp && self.address.rtp.is_none()
    }

    /// Where its client is, if it is known by an address.
    pub(crate) fn client(&self) -> Option<IpAddr> {
        self.address.rtp.map(|(_, address)| address.ip())
    }

    /// Addresses that this session taught the flow table.
    pub(crate) fn learned(&self) -> &[(u8, SocketAddr)] {
        self.address.checked()
    }
}
