//! Demultiplexing of datagrams by their first bytes (RFC 7983 with RFC 9443, RFC 5761).

/// The kind of a datagram, by its first byte (RFC 7983, section 7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DatagramKind {
    /// First byte 0–3: STUN (RFC 8489).
    Stun,
    /// First byte 20–63: DTLS (RFC 6347, RFC 9147).
    Dtls,
    /// First byte 128–191 and not RTCP: RTP or SRTP (RFC 3550, RFC 3711).
    Rtp,
    /// First byte 128–191, second byte 192–223: RTCP or SRTCP (RFC 5761, section 4).
    Rtcp,
    /// First byte 64–127 or 192–255 except 0xE0–0xE6: QUIC (RFC 9443).
    Quic,
    /// First byte 0xE0, or 0xE4 with a number: packets bundled on a trunk leg ([`crate::trunk::Bundle`]).
    Bundle,
    /// First byte 0xE1: a signed message of a trunk leg ([`crate::trunk::message`]).
    Signed,
    /// First byte 0xE2: a probe that the peer echoes.
    Echo,
    /// First byte 0xE3: an encrypted datagram of a trunk leg ([`crate::trunk::seal`]).
    Sealed,
    /// First byte 0xE5 or 0xE6: a repair datagram of a trunk leg, or a report of losses ([`crate::trunk::TrunkRepair`]).
    TrunkRepair,
    /// Empty, ZRTP, or an unassigned first byte.
    Unknown,
}

/// First byte of a bundle on a trunk leg.
pub const BUNDLE: u8 = 0xE0;
/// First byte of a signed message on a trunk leg.
pub(crate) const SIGNED: u8 = 0xE1;
/// First byte of an echo probe.
pub const ECHO: u8 = 0xE2;
/// First byte of an encrypted datagram on a trunk leg.
pub(crate) const SEALED: u8 = 0xE3;
/// First byte of a bundle with a number on a trunk leg.
pub(crate) const NUMBERED_BUNDLE: u8 = 0xE4;
/// First byte of a repair datagram on a trunk leg.
pub(crate) const REPAIR: u8 = 0xE5;
/// First byte of a report of lost bundles on a trunk leg.
pub(crate) const LOSS_REPORT: u8 = 0xE6;

/// Classifies a datagram.
///
/// The first bytes 0xE0–0xE6 of trunk legs are in QUIC's range. They are free on a media port,
/// because QUIC has a separate port. An RTP first byte without a second byte is [`DatagramKind::Unknown`].
pub fn classify(datagram: &[u8]) -> DatagramKind {
    let Some(&first) = datagram.first() else { return DatagramKind::Unknown };
    match first {
        0..=3 => DatagramKind::Stun,
        20..=63 => DatagramKind::Dtls,
        128..=191 => match datagram.get(1) {
            Some(192..=223) => DatagramKind::Rtcp,
            Some(_) => DatagramKind::Rtp,
            None => DatagramKind::Unknown,
        },
        BUNDLE | NUMBERED_BUNDLE => DatagramKind::Bundle,
        SIGNED => DatagramKind::Signed,
        ECHO => DatagramKind::Echo,
        SEALED => DatagramKind::Sealed,
        REPAIR | LOSS_REPORT => DatagramKind::TrunkRepair,
        64..=127 | 192..=255 => DatagramKind::Quic,
        4..=19 => DatagramKind::Unknown,
    }
}

#[cfg(test)]
mod tests;
