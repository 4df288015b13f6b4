//! Parity packets of video in the format that libwebrtc has (FlexFEC-03: draft-ietf-payload-flexible-fec-scheme-03, section 4.2).
//!
//! A parity packet has an SSRC and numbers of its own. Its payload names the packets that it covers, by the SSRC of their stream, a base number and
//! a mask, and contains their sum modulo 2: one of them that is lost is the sum of the parity and the others. [`ParityPayload`] reads and writes
//! a payload, a [`ParityWriter`] makes those of a stream, and a [`ParityReader`] recovers packets.
//!
//! Only what libwebrtc has is supported: a mask of any packets, of one stream.

mod reader;
mod writer;

pub use reader::ParityReader;
pub use writer::{Overhead, ParityWriter};

use crate::rtp::HEADER_LEN;

/// The longest packet that is recovered: that of Ethernet.
pub const PACKET_BYTES_MAX: usize = 1_500;

/// Packets that the longest mask can name, from the base on.
pub const SPAN_MAX: u16 = 109;

/// Bytes before the mask.
const FIXED_LEN: usize = 18;

/// Packets that a mask of one, two or three parts can name, and the bytes of the header with it.
const MASKS: [(u32, usize); 3] = [(15, 20), (46, 24), (SPAN_MAX as u32, 32)];

/// The bit before a part of a mask: no other part follows.
const IS_LAST: u8 = 0x80;

/// The reason why a parity packet cannot be read or written, or does not give a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FlexfecError {
    /// The payload ends within its header.
    #[error("the parity ends within its header")]
    Header,
    /// It is a retransmission, has a fixed mask, or covers several streams: libwebrtc has none of these.
    #[error("the parity is not that of a mask of one stream")]
    Form,
    /// The mask names no packet, or more than its parts can.
    #[error("the mask names no packet, or does not end")]
    Mask,
    /// The packets that it covers are far from those of the stream.
    #[error("the parity covers packets that are far from the last ones")]
    Base,
    /// The parity, or the packet that it gives, is too long, or the parity is shorter than a packet that it covers.
    #[error("the length of the parity does not fit the packets that it covers")]
    Length,
    /// The sum is no RTP packet.
    #[error("the recovered bytes are not an RTP packet")]
    Packet,
}

/// The payload of a parity packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ParityPayload<'a> {
    /// The stream that it covers.
    pub ssrc: u32,
    /// The number from which the mask counts.
    pub base: u16,
    /// Bit n is set if the packet with the number `base + n` is covered.
    pub mask: u128,
    /// The sum of the headers, see [`add()`].
    fields: [u8; 8],
    /// The sum of the bytes after the fixed headers.
    data: &'a [u8],
}

impl<'a> ParityPayload<'a> {
    /// Reads a payload.
    ///
    /// # Errors
    /// Fails if the header is malformed, or of a form that libwebrtc lacks.
    pub fn parse(payload: &'a [u8]) -> Result<ParityPayload<'a>, FlexfecError> {
        let (fixed, rest) = payload.split_first_chunk::<FIXED_LEN>().ok_or(FlexfecError::Header)?;
        let [f0, f1, f2, f3, f4, f5, f6, f7, sources, _, _, _, s0, s1, s2, s3, b0, b1] = *fixed;
        // The first bits tell of a retransmission and of a fixed mask.
        if f0 & 0xc0 != 0 || sources != 1 {
            return Err(FlexfecError::Form);
        }
        let (first, mut data) = rest.split_first_chunk().ok_or(FlexfecError::Header)?;
        // The shift removes the bit before the part, and the first packet is the highest bit.
        let mut mask = u128::from((u16::from_be_bytes(*first) << 1).reverse_bits());
        if first[0] & IS_LAST == 0 {
            let (second, behind) = data.split_first_chunk().ok_or(FlexfecError::Header)?;
            data = behind;
            mask |= u128::from((u32::from_be_bytes(*second) << 1).reverse_bits()) << MASKS[0].0;
            if second[0] & IS_LAST == 0 {
                let (third, behind) = data.split_first_chunk().ok_or(FlexfecError::Header)?;
                data = behind;
                mask |= u128::from((u64::from_be_bytes(*third) << 1).reverse_bits()) << MASKS[1].0;
                if third[0] & IS_LAST == 0 {
                    return Err(FlexfecError::Mask);
                }
            }
        }
        if mask == 0 {
            return Err(FlexfecError::Mask);
        }
        Ok(ParityPayload {
            ssrc: u32::from_be_bytes([s0, s1, s2, s3]),
            base: u16::from_be_bytes([b0, b1]),
            mask,
            fields: [f0, f1, f2, f3, f4, f5, f6, f7],
            data,
        })
    }

    /// Appends the payload, with the shortest mask.
    ///
    /// # Errors
    /// Fails if the mask names no packet, or exceeds [`SPAN_MAX`]; `out` is unchanged then.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), FlexfecError> {
        let ParityPayload { ssrc, base, mask, fields, data } = self;
        let packets = u128::BITS - mask.leading_zeros();
        let parts = MASKS.iter().position(|(most, _)| packets <= *most);
        let Some(parts) = parts.filter(|_| packets > 0) else { return Err(FlexfecError::Mask) };
        let start = out.len();
        out.extend_from_slice(&[fields[0] & 0x3f]);
        out.extend_from_slice(&fields[1..]);
        out.extend_from_slice(&[1, 0, 0, 0]);
        out.extend_from_slice(&ssrc.to_be_bytes());
        out.extend_from_slice(&base.to_be_bytes());
        let first = (*mask as u16).reverse_bits() >> 1;
        let second = ((mask >> MASKS[0].0) as u32).reverse_bits() >> 1;
        let third = ((mask >> MASKS[1].0) as u64).reverse_bits() >> 1;
        out.extend_from_slice(&first.to_be_bytes());
        out.extend_from_slice(&second.to_be_bytes());
        out.extend_from_slice(&third.to_be_bytes());
        let last_part = [FIXED_LEN, MASKS[0].1, MASKS[1].1][parts];
        out[start + last_part] |= IS_LAST;
        out.truncate(start + MASKS[parts].1);
        out.extend_from_slice(data);
        Ok(())
    }

    /// The number of the last packet that it covers.
    fn last(&self) -> u16 {
        self.base.wrapping_add(127 - self.mask.leading_zeros() as u16)
    }
}

/// Returns the places of the packets in a mask.
fn places(mask: u128) -> impl Iterator<Item = u16> {
    (0..SPAN_MAX).filter(move |place| mask >> place & 1 == 1)
}

/// Adds a packet to a sum modulo 2. `fields`: the first eight bytes of headers, with the length after the fixed header in place of the number;
/// `data`: the bytes after it, as many as the longest packet has.
///
/// # Errors
/// Fails if the packet is longer than the sum, or has no header.
fn add(packet: &[u8], fields: &mut [u8; 8], data: &mut [u8]) -> Result<(), FlexfecError> {
    let (header, rest) = packet.split_first_chunk::<HEADER_LEN>().ok_or(FlexfecError::Length)?;
    let sum = data.get_mut(..rest.len()).ok_or(FlexfecError::Length)?;
    let [l0, l1] = (rest.len() as u16).to_be_bytes();
    let [h0, h1, _, _, t0, t1, t2, t3, ..] = *header;
    let added = [h0, h1, l0, l1, t0, t1, t2, t3];
    fields.iter_mut().zip(added).for_each(|(sum, byte)| *sum ^= byte);
    sum.iter_mut().zip(rest).for_each(|(sum, byte)| *sum ^= byte);
    Ok(())
}

#[cfg(test)]
mod tests;
