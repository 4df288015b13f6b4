//! SRTP of a client.

use std::collections::BTreeMap;

use evenkeel_media::demux::{self, DatagramKind};
use evenkeel_media::srtp::{
    OVERHEAD_MAX, SrtpError, SrtpKeys, SrtpProfile, SrtpReceiver, SrtpSender,
};

/// Indices of a source that are remembered: 80 s of voice.
const REMEMBERED_MAX: usize = 4_096;

/// Ends the SRTP of a client, and checks the indices of the gateway's packets.
pub struct SrtpEndpoint {
    sender: SrtpSender,
    receiver: SrtpReceiver,
    profile: SrtpProfile,
    sources: BTreeMap<Source, ReceivedTags>,
    /// Packets with a wrong tag, and malformed ones.
    pub(super) authentication_failures: u64,
    /// Packets with an index that was accepted before or is too old, except for `reused_indices`.
    pub(super) replayed: u64,
    /// Packets with the index of an accepted packet, but with other bytes.
    pub(super) reused_indices: u64,
}

/// A source of SRTP or SRTCP: both have indices of their own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Source {
    ssrc: u32,
    is_rtp: bool,
}

/// The tags of the last accepted packets of a source, by index.
#[derive(Default)]
struct ReceivedTags {
    tags: BTreeMap<u64, [u8; 16]>,
}

impl SrtpEndpoint {
    /// Derives the session keys.
    pub fn new(keys: &SrtpKeys) -> Self {
        Self {
            sender: SrtpSender::new(&keys.client),
            receiver: SrtpReceiver::new(&keys.gateway),
            profile: keys.gateway.profile(),
            sources: BTreeMap::new(),
            authentication_failures: 0,
            replayed: 0,
            reused_indices: 0,
        }
    }

    /// Protects an RTP packet or a compound RTCP packet.
    ///
    /// # Errors
    /// Returns the reason of the refusal.
    pub fn protect(&mut self, packet: &[u8]) -> Result<Vec<u8>, SrtpError> {
        let source = Source::of(packet)?;
        self.sender.lease(source.ssrc, u64::MAX, u64::MAX)?;
        let mut buffer = packet.to_vec();
        buffer.resize(packet.len() + OVERHEAD_MAX, 0);
        let protected = match source.is_rtp {
            true => self.sender.protect_rtp(&mut buffer, packet.len()),
            false => self.sender.protect_rtcp(&mut buffer, packet.len()),
        };
        let length = protected?.len();
        buffer.truncate(length);
        Ok(buffer)
    }

    /// Unprotects a packet of the gateway.
    ///
    /// # Errors
    /// Returns the reason of the refusal, which is counted.
    pub fn unprotect(&mut self, packet: &[u8]) -> Result<Vec<u8>, SrtpError> {
        let opened = self.open(packet);
        match opened {
            Ok(_) => {}
            Err(SrtpError::Replayed) if self.is_reused(packet) => self.reused_indices += 1,
            Err(SrtpError::Replayed) => self.replayed += 1,
            Err(_) => self.authentication_failures += 1,
        }
        opened
    }

    fn open(&mut self, packet: &[u8]) -> Result<Vec<u8>, SrtpError> {
        let source = Source::of(packet)?;
        let mut buffer = packet.to_vec();
        let opened = match source.is_rtp {
            true => self.receiver.unprotect_rtp(&mut buffer),
            false => self.receiver.unprotect_rtcp(&mut buffer),
        };
        let length = opened?.len();
        buffer.truncate(length);
        if let Some(tag) = packet.last_chunk() {
            let received = self.sources.entry(source).or_default();
            received.tags.insert(received.index(source, self.profile, packet), *tag);
            if received.tags.len() > REMEMBERED_MAX {
                received.tags.pop_first();
            }
        }
        Ok(buffer)
    }

    /// Returns true if a packet with this index was accepted, and had other bytes.
    fn is_reused(&self, packet: &[u8]) -> bool {
        let Ok(source) = Source::of(packet) else { return false };
        let Some(received) = self.sources.get(&source) else { return false };
        let known = received.tags.get(&received.index(source, self.profile, packet));
        known.is_some_and(|tag| packet.last_chunk() != Some(tag))
    }
}

impl Source {
    fn of(packet: &[u8]) -> Result<Self, SrtpError> {
        let is_rtp = demux::classify(packet) == DatagramKind::Rtp;
        let ssrc = packet.get(if is_rtp { 8 } else { 4 }..).and_then(|rest| rest.first_chunk());
        let ssrc = ssrc.ok_or(SrtpError::Short)?;
        Ok(Self { ssrc: u32::from_be_bytes(*ssrc), is_rtp })
    }
}

impl ReceivedTags {
    /// The index of a protected packet. That of SRTP is extended from the highest one as in RFC 3711, appendix A. That of SRTCP stands
    /// behind the tag under GCM (RFC 7714, section 17), else before it (RFC 3711, section 3.4).
    fn index(&self, source: Source, profile: SrtpProfile, packet: &[u8]) -> u64 {
        if source.is_rtp {
            let sequence = u16::from_be_bytes([packet[2], packet[3]]);
            let highest =
                self.tags.last_key_value().map_or(u64::from(sequence), |(index, _)| *index);
            let ahead = sequence.wrapping_sub(highest as u16).cast_signed();
            return highest.wrapping_add_signed(ahead.into());
        }
        let is_gcm = matches!(profile, SrtpProfile::AeadAes128Gcm | SrtpProfile::AeadAes256Gcm);
        let from_end = if is_gcm { size_of::<u32>() } else { profile.rtcp_overhead() };
        let word = packet.len().checked_sub(from_end).and_then(|at| packet[at..].first_chunk());
        u64::from(word.map_or(0, |word| u32::from_be_bytes(*word)) & 0x7fff_ffff)
    }
}

#[cfg(test)]
mod tests;
