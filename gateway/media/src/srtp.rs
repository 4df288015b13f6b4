//! SRTP and SRTCP under keys that this gateway holds (RFC 3711, RFC 6188, RFC 7714).
//!
//! An [`SrtpSender`] protects the packets of one direction, an [`SrtpReceiver`] unprotects those of the other. Both work
//! in place, and allocate only for a source that is new. The key derivation rate is 0, there is no MKI, and outbound
//! SRTCP is always encrypted.
//!
//! **No outbound index is used twice**, since that would break GCM and reveal voice under counter mode:
//!
//! - A source sends below a limit that was leased for it ([`SrtpSender::lease`]). A process that continues a session
//!   begins at the limit that it knows ([`SrtpSender::restore`]), so a process that was only stopped cannot collide with
//!   it.
//! - An index is used once, also for the same packet: bytes that were protected before may be sent again, but not
//!   protected again. An index up to 127 below the highest one may still be used, once, by a packet that was overtaken.
//! - A sequence number more than 2^15 ahead means an earlier index (RFC 3711, section 3.3.1) and is refused.
//!
//! **Inbound**, an index is accepted once, within 127 below the highest one. A packet changes state only after its tag
//! was verified, so forged packets add no source.
//!
//! Keys are wiped when dropped. Neither `Debug` nor an error contains one.

use crate::rtp::RtpHeader;

mod crypto;
mod error;
mod index;
mod key;
mod transform;

pub use crypto::{CryptoAttribute, SrtpKeys};
pub use error::SrtpError;
pub use index::{IndexLease, ReceivedIndices, SOURCES_MAX, SentIndices};
use index::{RTCP_INDICES, RTP_INDICES, ReceivedSource, SentSource, Sources};
pub use key::{SrtpKey, SrtpKeyError, SrtpProfile};
use transform::{PacketIndex, RTCP_HEADER_LEN, SessionKeys};

/// Length limit of a packet in bytes: a UDP datagram. The key stream of an index has 2^20 bytes.
pub const PACKET_MAX: usize = 65_535;

/// Protects the packets that a session sends under one master key.
#[derive(Debug)]
pub struct SrtpSender {
    profile: SrtpProfile,
    keys: SessionKeys,
    sources: Sources<SentSource>,
}

impl SrtpSender {
    /// Derives the session keys. No index is leased.
    pub fn new(key: &SrtpKey) -> Self {
        let sources = Sources::new();
        Self { profile: key.profile(), keys: SessionKeys::derive(key), sources }
    }

    /// Allows the indices of a source below these limits, for RTP and RTCP. A limit never falls; those above 2^48 and
    /// 2^31, the ends of the key, are lowered to them.
    ///
    /// # Errors
    /// Fails if the source is new and the session has [`SOURCES_MAX`] of them.
    pub fn lease(&mut self, ssrc: u32, rtp_limit: u64, rtcp_limit: u64) -> Result<(), SrtpError> {
        let source = self.sources.add(ssrc, self.sources.find(ssrc))?;
        source.rtp_limit = source.rtp_limit.max(rtp_limit.min(RTP_INDICES));
        source.rtcp.limit = source.rtcp.limit.max(rtcp_limit.min(RTCP_INDICES));
        Ok(())
    }

    /// Protects the RTP packet in the first `length` bytes. Returns the protected packet, which is longer by
    /// [`SrtpProfile::rtp_overhead`].
    ///
    /// # Errors
    /// Returns the reason of the refusal. The packet is unchanged then.
    pub fn protect_rtp<'a>(
        &mut self,
        buffer: &'a mut [u8],
        length: usize,
    ) -> Result<&'a mut [u8], SrtpError> {
        let buffer = with_room(buffer, length, self.profile.rtp_overhead())?;
        let header = RtpHeader::parse_opaque(&buffer[..length])?;
        let source = self.sources.get_mut(header.ssrc).ok_or(SrtpError::NotLeased)?;
        let index = source.use_rtp(header.sequence)?;
        let at = PacketIndex { ssrc: header.ssrc, index };
        self.keys.rtp.seal_rtp(buffer, header.payload_offset, at);
        Ok(buffer)
    }

    /// Protects the compound RTCP packet in the first `length` bytes, under the next index of its first SSRC. Returns
    /// the protected packet, which is longer by [`SrtpProfile::rtcp_overhead`].
    ///
    /// # Errors
    /// Returns the reason of the refusal. The packet is unchanged then.
    pub fn protect_rtcp<'a>(
        &mut self,
        buffer: &'a mut [u8],
        length: usize,
    ) -> Result<&'a mut [u8], SrtpError> {
        let buffer = with_room(buffer, length, self.profile.rtcp_overhead())?;
        let ssrc = rtcp_ssrc(&buffer[..length])?;
        let index = self.sources.get_mut(ssrc).ok_or(SrtpError::NotLeased)?.use_rtcp()?;
        self.keys.rtcp.seal_rtcp(buffer, PacketIndex { ssrc, index });
        Ok(buffer)
    }

    /// Copies the counters of all sources.
    pub fn counters(&self) -> impl Iterator<Item = SentIndices> {
        self.sources.iter().map(|(ssrc, source)| SentIndices {
            ssrc,
            rtp: IndexLease { next: source.rtp.next(), limit: source.rtp_limit },
            rtcp: source.rtcp,
        })
    }

    /// Continues a source of another process that had the same key. All indices below its limits count as used, and
    /// none is leased beyond them. If the other process has ended, and so `next` is exact, pass `next` as the limit as well.
    ///
    /// # Errors
    /// Fails if the source is new and the session has [`SOURCES_MAX`] of them.
    pub fn restore(&mut self, counters: SentIndices) -> Result<(), SrtpError> {
        let SentIndices { ssrc, rtp, rtcp } = counters;
        self.lease(ssrc, rtp.limit, rtcp.limit)?;
        let source = self.sources.add(ssrc, self.sources.find(ssrc))?;
        source.rtp.skip_to(rtp.limit.max(rtp.next).min(RTP_INDICES));
        source.rtcp.next = source.rtcp.next.max(rtcp.limit).max(rtcp.next).min(RTCP_INDICES);
        Ok(())
    }
}

/// Unprotects the packets that a session receives under one master key.
#[derive(Debug)]
pub struct SrtpReceiver {
    profile: SrtpProfile,
    keys: SessionKeys,
    sources: Sources<ReceivedSource>,
}

impl SrtpReceiver {
    /// Derives the session keys.
    pub fn new(key: &SrtpKey) -> Self {
        let sources = Sources::new();
        Self { profile: key.profile(), keys: SessionKeys::derive(key), sources }
    }

    /// Verifies and decrypts an SRTP packet. Returns the RTP packet.
    ///
    /// # Errors
    /// Returns the reason of the refusal. The payload is undefined then.
    pub fn unprotect_rtp<'a>(&mut self, packet: &'a mut [u8]) -> Result<&'a mut [u8], SrtpError> {
        if packet.len() > PACKET_MAX {
            return Err(SrtpError::Long);
        }
        let header = RtpHeader::parse_opaque(packet)?;
        if packet.len() < header.payload_offset + self.profile.rtp_overhead() {
            return Err(SrtpError::Short);
        }
        let ssrc = header.ssrc;
        let place = self.sources.find(ssrc);
        let window = self.sources.get(place).unwrap_or_default().rtp;
        let index = window.estimate(header.sequence).filter(|index| window.is_unused(*index));
        let index = index.ok_or(SrtpError::Replayed)?;
        let at = PacketIndex { ssrc, index };
        let length = self.keys.rtp.open_rtp(packet, header.payload_offset, at)?;
        self.sources.add(ssrc, place)?.rtp.mark(index);
        Ok(&mut packet[..length])
    }

    /// Verifies an SRTCP packet, and decrypts it if its E bit is set. Returns the compound RTCP packet.
    ///
    /// # Errors
    /// Returns the reason of the refusal. The bytes after the first eight are undefined then.
    pub fn unprotect_rtcp<'a>(&mut self, packet: &'a mut [u8]) -> Result<&'a mut [u8], SrtpError> {
        if packet.len() > PACKET_MAX {
            return Err(SrtpError::Long);
        }
        let ssrc = rtcp_ssrc(packet)?;
        let word = self.keys.rtcp.rtcp_word(packet).ok_or(SrtpError::Short)?;
        let place = self.sources.find(ssrc);
        let window = self.sources.get(place).unwrap_or_default().rtcp;
        let index = word.index();
        if !window.is_unused(index) {
            return Err(SrtpError::Replayed);
        }
        let length = self.keys.rtcp.open_rtcp(packet, word, PacketIndex { ssrc, index })?;
        self.sources.add(ssrc, place)?.rtcp.mark(index);
        Ok(&mut packet[..length])
    }

    /// Copies the counters of all sources.
    pub fn counters(&self) -> impl Iterator<Item = ReceivedIndices> {
        self.sources.iter().map(|(ssrc, source)| ReceivedIndices {
            ssrc,
            rtp_next: source.rtp.next(),
            rtcp_next: source.rtcp.next(),
        })
    }

    /// Continues a source of another process that had the same key. All indices below its highest ones count as
    /// received.
    ///
    /// # Errors
    /// Fails if the source is new and the session has [`SOURCES_MAX`] of them.
    pub fn restore(&mut self, counters: ReceivedIndices) -> Result<(), SrtpError> {
        let ReceivedIndices { ssrc, rtp_next, rtcp_next } = counters;
        let source = self.sources.add(ssrc, self.sources.find(ssrc))?;
        source.rtp.skip_to(rtp_next.min(RTP_INDICES));
        source.rtcp.skip_to(rtcp_next.min(RTCP_INDICES));
        Ok(())
    }
}

/// Returns the packet and the room behind it that protection needs.
fn with_room(buffer: &mut [u8], length: usize, overhead: usize) -> Result<&mut [u8], SrtpError> {
    if length > PACKET_MAX - overhead {
        return Err(SrtpError::Long);
    }
    let (needed, found) = (length + overhead, buffer.len());
    buffer.get_mut(..needed).ok_or(SrtpError::NoRoom { needed, found })
}

/// The SSRC of the first packet of a compound packet (RFC 3550, section 6.1).
fn rtcp_ssrc(packet: &[u8]) -> Result<u32, SrtpError> {
    match packet.first_chunk::<RTCP_HEADER_LEN>() {
        Some([flags, _, _, _, ssrc @ ..]) if flags >> 6 == 2 => Ok(u32::from_be_bytes(*ssrc)),
        _ => Err(SrtpError::Rtcp),
    }
}

#[cfg(test)]
mod tests;
