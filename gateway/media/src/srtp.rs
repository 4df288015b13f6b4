//! SRTP and SRTCP under keys that this gateway holds (RFC 3711, RFC 6188, RFC 7714).
//!
//! Each direction of a session has an [`SrtpKey`]: a profile, a master key and a master salt. An [`SrtpSender`] protects
//! the packets of one direction, an [`SrtpReceiver`] unprotects those of the other. Both work in place. Protection
//! lengthens a packet by [`SrtpProfile::rtp_overhead`] or [`SrtpProfile::rtcp_overhead`] bytes, for which the buffer must
//! have room. A call allocates only for a source that is new.
//!
//! The key derivation rate is 0. Master key identifiers (MKI) are refused. Outbound SRTCP is encrypted; inbound SRTCP
//! may be authenticated only, with the E bit 0 (RFC 3711, section 3.4). Keys are wiped when dropped. Neither `Debug` nor
//! an error contains one.
//!
//! # Indices
//!
//! Key, SSRC and index determine the key stream of a packet. The index of SRTP has 48 bits: the rollover counter, which
//! both ends count, and the sequence number. That of SRTCP has 31 bits and stands in the packet.
//!
//! **No outbound index is used twice**, since that would break GCM and reveal voice under counter mode (RFC 3711,
//! section 9.1; RFC 7714, section 8.4):
//!
//! - A source sends below a limit that was leased for it ([`SrtpSender::lease`]). At the limit, protection fails with
//!   [`SrtpError::LeaseExhausted`].
//! - An index is used once, also for the same packet: bytes that were protected before may be sent again, but not
//!   protected again. An index up to 127 below the highest one may still be used, once, by a packet that was overtaken.
//! - A sequence number more than 2^15 ahead means an earlier index (RFC 3711, section 3.3.1) and is refused.
//!
//! **An inbound index is accepted once**, above the highest one or up to 127 below it (RFC 3711, section 3.3.2). A packet
//! changes state only after its tag was verified, so forged packets add no source.
//!
//! # Copies
//!
//! A process continues a session from a copy of its keys and counters. A copy that was made after the last packet is exact. A
//! standby's may be older:
//!
//! - Outbound, [`SentIndices`]: an owner leases in blocks ([`LeasedSender`]). Before a lease ends, it copies a higher limit to the
//!   standby, and leases it once the standby has acknowledged it ([`IndexGrant`]). The standby begins at the limit of its copy. So
//!   an owner that was only stopped, and continues, cannot collide with it.
//! - An owner with a standby that is silent for [`FREE_AFTER`] goes on without limits. The standby knows whether its owner can have done
//!   so ([`CopyProof`]), and then continues no session.
//! - The sequence numbers then jump over the rest of the lease. Receivers take a jump of 3,000 for a restart (RFC 3550,
//!   appendix A.1), and misjudge the index after one of 2^15: `restore` refuses such a copy.
//! - Inbound, [`ReceivedIndices`]: everything up to the copied maximum counts as received.

use crate::rtp::RtpHeader;

mod crypto;
mod error;
mod grant;
mod index;
mod key;
mod leased;
mod proof;
mod transform;

pub use crypto::{CryptoAttribute, SrtpKeys};
pub use error::SrtpError;
pub use grant::{CopyNumber, FREE_AFTER, GrantView, IndexGrant, SentBatch};
pub use index::{IndexLease, ReceivedIndices, SOURCES_MAX, SentIndices};
use index::{ReceivedSource, SentSource, Sources};
pub use key::{SrtpKey, SrtpKeyError, SrtpProfile};
pub use leased::LeasedSender;
pub use proof::CopyProof;
use transform::{PacketIndex, RTCP_HEADER_LEN, SessionKeys};

/// Length limit of a packet in bytes: a UDP datagram. The key stream of an index has 2^20 bytes.
pub const PACKET_MAX: usize = 65_535;

/// Bytes by which protection lengthens a packet at most: SRTCP under GCM.
pub const OVERHEAD_MAX: usize = 20;

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
        self.sources.add(ssrc, self.sources.find(ssrc))?.lease(rtp_limit, rtcp_limit);
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
        self.sources.iter().map(|(ssrc, source)| source.counters(ssrc))
    }

    /// Continues a source of another process that had the same key. All indices below its limits count as used, and
    /// none is leased beyond them. If the other process has ended, and so `next` is exact, pass `next` as the limit as well.
    ///
    /// # Errors
    /// Fails, and changes nothing, if receivers could misjudge the first index, or if the source is new and the session
    /// has [`SOURCES_MAX`] of them.
    pub fn restore(&mut self, counters: SentIndices) -> Result<(), SrtpError> {
        let place = self.sources.find(counters.ssrc);
        let mut source = self.sources.get(place).unwrap_or_default();
        source.restore(counters)?;
        *self.sources.add(counters.ssrc, place)? = source;
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
        self.sources.iter().map(|(ssrc, source)| source.counters(ssrc))
    }

    /// Continues a source of another process that had the same key. All indices below its highest ones count as
    /// received.
    ///
    /// # Errors
    /// Fails if the source is new and the session has [`SOURCES_MAX`] of them.
    pub fn restore(&mut self, counters: ReceivedIndices) -> Result<(), SrtpError> {
        let place = self.sources.find(counters.ssrc);
        self.sources.add(counters.ssrc, place)?.restore(counters);
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
