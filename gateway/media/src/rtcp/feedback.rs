//! Feedback: NACK and PLI (RFC 4585), FIR (RFC 5104), REMB (draft-alvestrand-rmcat-remb-03).

use super::report::{read_u32, write_header};

/// Payload type of transport-layer feedback (RFC 4585, 6.2).
pub const TRANSPORT_FEEDBACK: u8 = 205;
/// Payload type of payload-specific feedback (RFC 4585, 6.3).
pub(crate) const PAYLOAD_FEEDBACK: u8 = 206;

/// Format of a generic NACK, transport-layer feedback (RFC 4585, 6.2.1).
pub(crate) const NACK: u8 = 1;
/// Format of TMMBR, transport-layer feedback (RFC 5104, 4.2).
pub const TMMBR: u8 = 3;
/// Format of the arrival times of packets with transport-wide sequence numbers, transport-layer feedback.
pub(super) const TRANSPORT_WIDE: u8 = 15;
/// Format of congestion control feedback, transport-layer feedback (RFC 8888, 3.1).
pub(super) const CONGESTION: u8 = 11;
/// Format of TMMBN; see [`TMMBR`].
pub(crate) const TMMBN: u8 = 4;
/// Format of a picture loss indication, payload-specific feedback (RFC 4585, 6.3.1).
pub(crate) const PLI: u8 = 1;
/// Format of a reference picture selection, payload-specific feedback (RFC 4585, 6.3.3).
pub(crate) const RPSI: u8 = 3;
/// Format of a full intra request, payload-specific feedback (RFC 5104, 4.3.1).
pub(crate) const FIR: u8 = 4;
/// Format of application-layer feedback, which includes REMB (RFC 4585, 6.4).
pub(crate) const APPLICATION: u8 = 15;

pub(super) const COMMON_LEN: usize = 8;
const REMB_RATE_AT: usize = COMMON_LEN + 4;
pub(super) const REMB_SSRCS_AT: usize = COMMON_LEN + 8;
const REMB_MARK: [u8; 4] = *b"REMB";
const LNTF_MARK: [u8; 4] = *b"LNTF";
pub(super) const LNTF_NUMBER_AT: usize = COMMON_LEN + 4;
const LNTF_LEN: usize = COMMON_LEN + 8;
const REMB_MANTISSA_BITS: u32 = 18;
const TMMBR_OVERHEAD_BITS: u32 = 9;
const TMMBR_MANTISSA_BITS: u32 = 17;

/// Per-packet overhead in TMMBR, bytes: IPv4, UDP and RTP headers (RFC 5104, 3.5.4.1).
const TMMBR_OVERHEAD: u32 = 20 + 8 + 12;

/// Requests lost packets (RFC 4585, 6.2.1), parsed in place.
#[derive(Clone, Copy, Debug)]
pub struct Nack<'a> {
    /// SSRC of the packet sender.
    pub sender: u32,
    /// SSRC of the media source.
    pub media: u32,
    entries: &'a [[u8; 4]],
}

impl<'a> Nack<'a> {
    pub(super) fn read(body: &'a [u8]) -> Option<Self> {
        let entries = body.get(COMMON_LEN..)?.as_chunks().0;
        Some(Self { sender: read_u32(body, 0)?, media: read_u32(body, 4)?, entries })
    }

    /// The sequence numbers of the lost packets; a truncated last entry is left out.
    pub fn missing(&self) -> impl Iterator<Item = u16> + use<'a> {
        self.entries.iter().flat_map(|&[p0, p1, b0, b1]| {
            let first = u16::from_be_bytes([p0, p1]);
            let mask = u32::from(u16::from_be_bytes([b0, b1])) << 1 | 1;
            (0..17).filter(move |bit| mask >> bit & 1 == 1).map(move |bit| first.wrapping_add(bit))
        })
    }
}

/// Reports a lost picture and so requests a key frame (RFC 4585, 6.3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pli {
    /// SSRC of the packet sender.
    pub sender: u32,
    /// SSRC of the media source.
    pub media: u32,
}

impl Pli {
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        Some(Self { sender: read_u32(body, 0)?, media: read_u32(body, 4)? })
    }
}

/// Requests key frames (RFC 5104, 4.3.1), parsed in place.
#[derive(Clone, Copy, Debug)]
pub struct Fir<'a> {
    /// SSRC of the packet sender.
    pub sender: u32,
    entries: &'a [[u8; 8]],
}

/// A requested key frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FirEntry {
    /// SSRC of the media source.
    pub media: u32,
    /// Sequence number of requests of this sender and stream; a retransmission repeats it.
    pub number: u8,
}

impl<'a> Fir<'a> {
    pub(super) fn read(body: &'a [u8]) -> Option<Self> {
        let entries = body.get(COMMON_LEN..)?.as_chunks().0;
        Some(Self { sender: read_u32(body, 0)?, entries })
    }

    /// The entries; a truncated last one is left out.
    pub fn entries(&self) -> impl Iterator<Item = FirEntry> + use<'a> {
        self.entries.iter().map(|&[s0, s1, s2, s3, number, ..]| FirEntry {
            media: u32::from_be_bytes([s0, s1, s2, s3]),
            number,
        })
    }
}

/// The bitrate a receiver can take (draft-alvestrand-rmcat-remb-03, section 2.2), parsed in place.
#[derive(Clone, Copy, Debug)]
pub struct Remb<'a> {
    /// SSRC of the packet sender.
    pub sender: u32,
    /// Total bits per second of all streams; saturates at `u64::MAX`.
    pub bitrate_bps: u64,
    sources: &'a [[u8; 4]],
}

impl<'a> Remb<'a> {
    pub(super) fn read(body: &'a [u8]) -> Option<Self> {
        let word = read_u32(body, REMB_RATE_AT)?;
        let count = word >> 24;
        let sources = body.get(REMB_SSRCS_AT..REMB_SSRCS_AT + 4 * count as usize)?;
        let bitrate_bps = rate(word, REMB_MANTISSA_BITS);
        Some(Self { sender: read_u32(body, 0)?, bitrate_bps, sources: sources.as_chunks().0 })
    }

    /// SSRCs of the streams that share the bitrate.
    pub fn sources(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.sources.iter().map(|bytes| u32::from_be_bytes(*bytes))
    }
}

pub(super) fn is_remb(body: &[u8]) -> bool {
    body.get(COMMON_LEN..COMMON_LEN + 4) == Some(&REMB_MARK)
}

/// Returns whether this is a loss notification: `goog-lntf` of libwebrtc, application-layer feedback. It has the number of the last packet of
/// the last decoded frame, and the distance of the last received packet from it.
pub(super) fn is_lntf(body: &[u8]) -> bool {
    body.get(COMMON_LEN..COMMON_LEN + 4) == Some(&LNTF_MARK) && body.len() >= LNTF_LEN
}

fn write_common(
    (payload_type, format): (u8, u8),
    [sender, media]: [u32; 2],
    rest_len: usize,
    out: &mut Vec<u8>,
) {
    write_header(format, payload_type, COMMON_LEN + rest_len, out);
    out.extend_from_slice(&sender.to_be_bytes());
    out.extend_from_slice(&media.to_be_bytes());
}

/// Appends a NACK of these sequence numbers. Up to 17 that follow one another share four bytes.
pub fn write_nack(sender: u32, media: u32, missing: &[u16], out: &mut Vec<u8>) {
    let (mut entries, mut rest) = (Vec::new(), missing);
    while let [first, later @ ..] = rest {
        let mut mask = 0_u16;
        rest = later;
        while let [next, later @ ..] = rest
            && let ahead @ 1..=16 = next.wrapping_sub(*first)
        {
            mask |= 1 << (ahead - 1);
            rest = later;
        }
        entries.extend([first.to_be_bytes(), mask.to_be_bytes()].concat());
    }
    write_common((TRANSPORT_FEEDBACK, NACK), [sender, media], entries.len(), out);
    out.extend(entries);
}

/// Appends a PLI.
pub fn write_pli(pli: Pli, out: &mut Vec<u8>) {
    write_common((PAYLOAD_FEEDBACK, PLI), [pli.sender, pli.media], 0, out);
}

/// Appends a FIR with these entries.
pub fn write_fir(sender: u32, entries: &[FirEntry], out: &mut Vec<u8>) {
    write_common((PAYLOAD_FEEDBACK, FIR), [sender, 0], 8 * entries.len(), out);
    for entry in entries {
        out.extend_from_slice(&entry.media.to_be_bytes());
        out.extend_from_slice(&[entry.number, 0, 0, 0]);
    }
}

/// Appends a REMB for all `sources` together. The bitrate is rounded down to 18 bits of mantissa.
/// Lists only the first 255 sources.
pub fn write_remb(sender: u32, bitrate_bps: u64, sources: &[u32], out: &mut Vec<u8>) {
    let sources = &sources[..sources.len().min(255)];
    write_common((PAYLOAD_FEEDBACK, APPLICATION), [sender, 0], 8 + 4 * sources.len(), out);
    let count = sources.len() as u32;
    out.extend_from_slice(&REMB_MARK);
    let word = count << 24 | rate_bits(bitrate_bps, REMB_MANTISSA_BITS);
    out.extend_from_slice(&word.to_be_bytes());
    sources.iter().for_each(|ssrc| out.extend_from_slice(&ssrc.to_be_bytes()));
}

/// Appends a TMMBR entry for each of `sources`. The bitrate includes headers (RFC 5104, 4.2.1) and
/// is rounded down to 17 bits of mantissa.
pub fn write_tmmbr(sender: u32, bitrate_bps: u64, sources: &[u32], out: &mut Vec<u8>) {
    write_common((TRANSPORT_FEEDBACK, TMMBR), [sender, 0], 8 * sources.len(), out);
    let rate = rate_bits(bitrate_bps, TMMBR_MANTISSA_BITS);
    for ssrc in sources {
        out.extend_from_slice(&ssrc.to_be_bytes());
        out.extend_from_slice(&(rate << TMMBR_OVERHEAD_BITS | TMMBR_OVERHEAD).to_be_bytes());
    }
}

/// Lowers the bitrate of a REMB or TMMBR to `most_bps`. `kind` is payload type and format of
/// `body`. Returns whether the packet has a bitrate.
pub(super) fn limit_rate(kind: (u8, u8), body: &mut [u8], most_bps: u64) -> bool {
    // The offset of the first word with a rate, the distance between such words, the shift of the
    // rate within a word, and the number of its mantissa bits.
    let (start, step, shift, mantissa_bits) = match kind {
        (PAYLOAD_FEEDBACK, APPLICATION) if is_remb(body) => {
            (REMB_RATE_AT, usize::MAX, 0, REMB_MANTISSA_BITS)
        }
        (TRANSPORT_FEEDBACK, TMMBR) => {
            (COMMON_LEN + 4, 8, TMMBR_OVERHEAD_BITS, TMMBR_MANTISSA_BITS)
        }
        _ => return false,
    };
    let bits = ((1 << (6 + mantissa_bits)) - 1) << shift;
    for at in (start..body.len()).step_by(step) {
        let Some(word) = read_u32(body, at) else { break };
        if rate((word & bits) >> shift, mantissa_bits) > most_bps {
            let word = word & !bits | rate_bits(most_bps, mantissa_bits) << shift;
            body[at..at + 4].copy_from_slice(&word.to_be_bytes());
        }
    }
    true
}

/// Decodes bits per second from six bits of exponent and a mantissa, ignoring higher bits.
/// Saturates.
fn rate(word: u32, mantissa_bits: u32) -> u64 {
    let exponent = word >> mantissa_bits & 0x3f;
    match u64::from(word & ((1 << mantissa_bits) - 1)) {
        0 => 0,
        mantissa if exponent > mantissa.leading_zeros() => u64::MAX,
        mantissa => mantissa << exponent,
    }
}

/// The inverse of [`rate`], rounded down.
fn rate_bits(bps: u64, mantissa_bits: u32) -> u32 {
    let exponent = (u64::BITS - bps.leading_zeros()).saturating_sub(mantissa_bits);
    exponent << mantissa_bits | (bps >> exponent) as u32
}
