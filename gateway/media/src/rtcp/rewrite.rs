//! Rewrites compound packets in place: renames sources, shifts numbers, removes parts.
//!
//! The functions take one packet with the length in its header, as `rewrite` passes it. A packet
//! too short for its type remains unchanged.

pub mod extended;

use super::feedback::{COMMON_LEN, LNTF_NUMBER_AT, REMB_SSRCS_AT, is_lntf, is_remb, limit_rate};
use super::report::{BLOCK_LEN, HEADER_LEN, SENDER_INFO_LEN, chunks, read_u32};
use super::{
    APPLICATION, BYE, CONGESTION, FIR, NACK, PAYLOAD_FEEDBACK, RECEIVER_REPORT, ReportBlock,
    RtcpError, SENDER_REPORT, SOURCE_DESCRIPTION, SenderInfo, TMMBN, TMMBR, TRANSPORT_FEEDBACK,
    TRANSPORT_WIDE, packet_len, read,
};

/// Flag in the first byte: the packet ends with padding.
pub(super) const PADDING: u8 = 0x20;

/// Passes each packet of a compound packet to `each`, which modifies it and returns its new length;
/// 0 removes the packet. Closes the gaps and returns the total length. Fails if any packet is malformed, before the first
/// call of `each`.
pub(crate) fn rewrite(
    compound: &mut [u8],
    mut each: impl FnMut(&mut [u8]) -> usize,
) -> Result<usize, RtcpError> {
    for packet in super::packets(compound) {
        packet?;
    }
    let (mut at, mut end) = (0, 0);
    while at < compound.len() {
        let length = packet_len(&compound[at..])?;
        let kept = each(&mut compound[at..at + length]).min(length);
        compound.copy_within(at..at + kept, end);
        at += length;
        end += kept;
    }
    Ok(end)
}

pub(crate) fn payload_type(packet: &[u8]) -> u8 {
    packet.get(1).copied().unwrap_or_default()
}

/// Returns count or format of a packet.
pub(crate) fn count(packet: &[u8]) -> u8 {
    packet.first().map_or(0, |first| first & 0x1f)
}

/// Returns the SSRC of a packet's sender; `None` for a BYE or an empty description.
pub(crate) fn ssrc(packet: &[u8]) -> Option<u32> {
    read_u32(packet, 4)
}

pub(crate) fn set_ssrc(packet: &mut [u8], ssrc: u32) {
    set_u32(packet, 4, ssrc);
}

/// Returns the sender information of a sender report.
pub(crate) fn sender_info(packet: &[u8]) -> Option<SenderInfo> {
    match read(packet) {
        Ok(super::RtcpPacket::SenderReport(report)) => Some(report.info),
        Ok(_) | Err(_) => None,
    }
}

/// Replaces the sender information of a sender report.
pub(crate) fn set_sender_info(packet: &mut [u8], info: &SenderInfo) {
    if payload_type(packet) == SENDER_REPORT && packet.len() >= HEADER_LEN + SENDER_INFO_LEN {
        set_u32(packet, 4, info.ssrc);
        packet[8..16].copy_from_slice(&info.ntp.to_be_bytes());
        set_u32(packet, 16, info.timestamp);
        set_u32(packet, 20, info.packets);
        set_u32(packet, 24, info.octets);
    }
}

/// Moves the NTP time of each sender report in a compound packet back by `shift` units of 2^-16 s. Passes the middle 32 bits of
/// each time before and after to `moved`.
pub fn shift_sender_reports(compound: &mut [u8], shift: u32, mut moved: impl FnMut(u32, u32)) {
    let middle = |ntp: u64| (ntp >> 16) as u32;
    let _ = rewrite(compound, |packet| {
        if let Some(info) = sender_info(packet) {
            let ntp = info.ntp.wrapping_sub(u64::from(shift) << 16);
            set_sender_info(packet, &SenderInfo { ntp, ..info });
            moved(middle(info.ntp), middle(ntp));
        }
        packet.len()
    });
}

/// Passes the time of the last sender report in each report block of a compound packet to `replace`, which returns another one.
pub fn replace_last_reports(compound: &mut [u8], mut replace: impl FnMut(u32) -> u32) {
    let _ = rewrite(compound, |packet| {
        retain_blocks(packet, |block| {
            block.last_sr = replace(block.last_sr);
            true
        })
    });
}

/// Passes each report block of a compound packet to `replace`, which returns its fraction lost.
pub fn replace_fractions_lost(compound: &mut [u8], mut replace: impl FnMut(&ReportBlock) -> u8) {
    let _ = rewrite(compound, |packet| {
        retain_blocks(packet, |block| {
            block.fraction_lost = replace(block);
            true
        })
    });
}

/// Passes each report block of a sender or receiver report to `each`, which may modify it and
/// returns whether to keep it. Returns the new length.
pub(crate) fn retain_blocks(
    packet: &mut [u8],
    mut each: impl FnMut(&mut ReportBlock) -> bool,
) -> usize {
    let start = match payload_type(packet) {
        SENDER_REPORT => HEADER_LEN + SENDER_INFO_LEN,
        RECEIVER_REPORT => HEADER_LEN + 4,
        _ => return packet.len(),
    };
    let count = usize::from(count(packet));
    if packet.len() < start + count * BLOCK_LEN {
        return packet.len();
    }
    let (mut kept, mut end) = (0, start);
    for index in 0..count {
        let at = start + index * BLOCK_LEN;
        let Some(bytes) = packet[at..].first_chunk() else { break };
        let mut block = ReportBlock::read(bytes);
        if each(&mut block) {
            packet[end..end + BLOCK_LEN].copy_from_slice(&block.bytes());
            kept += 1;
            end += BLOCK_LEN;
        }
    }
    close_gap(packet, kept, end, start + count * BLOCK_LEN)
}

/// Passes each entry of a NACK to `each`: the first missing number, and a mask of the missing ones
/// among it and the next 16 (bit 0 is the first). The result replaces the entry; an empty mask
/// removes it. Removes padding. Returns the new length, 0 if no entry remains.
pub(crate) fn retain_missing(
    packet: &mut [u8],
    mut each: impl FnMut(u16, u32) -> (u16, u32),
) -> usize {
    if (payload_type(packet), count(packet)) != (TRANSPORT_FEEDBACK, NACK) {
        return packet.len();
    }
    let start = HEADER_LEN + COMMON_LEN;
    let mut end = start;
    for at in (start..body_end(packet)).step_by(4) {
        let Some(&[p0, p1, b0, b1]) = packet[at..].first_chunk() else { break };
        let mask = u32::from(u16::from_be_bytes([b0, b1])) << 1 | 1;
        let (first, mask) = each(u16::from_be_bytes([p0, p1]), mask & 0x1_ffff);
        if mask != 0 {
            // The entry starts at the first number still missing.
            let skipped = mask.trailing_zeros();
            let first = first.wrapping_add(skipped as u16);
            let later = (mask >> skipped >> 1) as u16;
            packet[end..end + 2].copy_from_slice(&first.to_be_bytes());
            packet[end + 2..end + 4].copy_from_slice(&later.to_be_bytes());
            end += 4;
        }
    }
    if end == start {
        return 0;
    }
    packet[0] &= !PADDING;
    set_len(packet, end)
}

/// Passes each source that feedback refers to to `rename`: the media source of NACK, PLI and
/// others, the entries of FIR, TMMBR and TMMBN, the sources of REMB. `None` keeps the source.
pub(crate) fn rename_media(packet: &mut [u8], mut rename: impl FnMut(u32) -> Option<u32>) {
    let body_end = body_end(packet);
    let mut at_each = |packet: &mut [u8], start: usize, step: usize, end: usize| {
        for at in (start..end.min(body_end)).step_by(step) {
            if let Some(name) = read_u32(packet, at).and_then(&mut rename) {
                set_u32(packet, at, name);
            }
        }
    };
    let entries_at = HEADER_LEN + COMMON_LEN;
    match (payload_type(packet), count(packet)) {
        (PAYLOAD_FEEDBACK, FIR) | (TRANSPORT_FEEDBACK, TMMBR | TMMBN) => {
            at_each(packet, entries_at, 8, body_end);
        }
        (PAYLOAD_FEEDBACK, APPLICATION) if is_remb(&packet[HEADER_LEN..]) => {
            at_each(packet, HEADER_LEN + REMB_SSRCS_AT, 4, body_end);
        }
        (PAYLOAD_FEEDBACK | TRANSPORT_FEEDBACK, _) => at_each(packet, 8, 4, 12),
        _ => {}
    }
}

/// Returns the source that feedback refers to (RFC 4585, section 6.1).
pub(crate) fn media_source(packet: &[u8]) -> Option<u32> {
    read_u32(packet, 8)
}

/// Passes the number of the last decoded packet in a loss notification to `translate`. Returns the new length: 0 if that returns `None`,
/// which removes the packet.
pub(crate) fn translate_notification(
    packet: &mut [u8],
    translate: impl FnOnce(u16) -> Option<u16>,
) -> usize {
    let end = body_end(packet);
    let is_notification = (payload_type(packet), count(packet)) == (PAYLOAD_FEEDBACK, APPLICATION)
        && packet.get(HEADER_LEN..end).is_some_and(is_lntf);
    let at = HEADER_LEN + LNTF_NUMBER_AT;
    let Some(&[high, low]) = packet.get(at..).and_then(<[u8]>::first_chunk) else {
        return packet.len();
    };
    if !is_notification {
        return packet.len();
    }
    let Some(number) = translate(u16::from_be_bytes([high, low])) else { return 0 };
    packet[at..at + 2].copy_from_slice(&number.to_be_bytes());
    packet.len()
}

/// Lowers the bitrates of REMB and TMMBR in a compound packet to `most_bps`. Returns whether there
/// is any.
pub fn limit_rates(compound: &mut [u8], most_bps: u64) -> bool {
    let mut found = false;
    let _ = rewrite(compound, |packet| {
        let kind = (payload_type(packet), count(packet));
        found |= limit_rate(kind, &mut packet[HEADER_LEN..], most_bps);
        packet.len()
    });
    found
}

/// Removes requests for key frames of which no stream is wanted: PLI and FIR (RFC 4585, section 6.3.1; RFC 5104, section 4.3.1).
/// Returns the length of the compound packet, 0 if only reports without a block and descriptions remain beside removed requests.
/// Without a request of an unwanted stream it remains unchanged.
pub fn retain_key_frame_requests(
    compound: &mut [u8],
    mut is_wanted: impl FnMut(u32) -> bool,
) -> usize {
    retain_content(compound, |packet| {
        let (mut has_some, mut has_wanted) = (false, false);
        let mut see = |media| {
            has_some = true;
            has_wanted |= is_wanted(media);
        };
        match read(packet) {
            Ok(super::RtcpPacket::Pli(pli)) => see(pli.media),
            Ok(super::RtcpPacket::Fir(fir)) => fir.entries().for_each(|entry| see(entry.media)),
            Ok(_) | Err(_) => {}
        }
        if has_some && !has_wanted { 0 } else { packet.len() }
    })
}

/// Removes numbers that are not wanted from the NACKs of a compound packet, by the SSRC of their stream (RFC 4585, section 6.2.1).
/// Returns the length of the compound packet, 0 if only reports without a block and descriptions remain beside removed numbers.
pub fn retain_requested(compound: &mut [u8], mut is_wanted: impl FnMut(u32, u16) -> bool) -> usize {
    retain_content(compound, |packet| {
        match (payload_type(packet), count(packet), read_u32(packet, 8)) {
            (TRANSPORT_FEEDBACK, NACK, Some(media)) => retain_missing(packet, |first, mask| {
                let is_kept =
                    |bit: &u16| mask >> bit & 1 == 1 && is_wanted(media, first.wrapping_add(*bit));
                let kept = (0..17_u16).filter(is_kept).fold(0_u32, |kept, bit| kept | 1_u32 << bit);
                (first, kept)
            }),
            _ => packet.len(),
        }
    })
}

/// Removes the report blocks of a compound packet about streams that are not kept, by their SSRC. Returns the length of the compound packet,
/// 0 if only reports without a block and descriptions remain beside removed blocks.
pub fn retain_reports(compound: &mut [u8], is_kept: impl Fn(u32) -> bool) -> usize {
    retain_content(compound, |packet| retain_blocks(packet, |block| is_kept(block.ssrc)))
}

/// Removes feedback about arrival times (draft-holmer-rmcat-transport-wide-cc-extensions-01, and RFC 8888). Returns the length of the
/// compound packet, 0 if only reports without a block and descriptions remain beside removed feedback.
pub fn remove_arrivals(compound: &mut [u8]) -> usize {
    retain_content(compound, |packet| {
        let is_removed = payload_type(packet) == TRANSPORT_FEEDBACK
            && [TRANSPORT_WIDE, CONGESTION].contains(&count(packet));
        if is_removed { 0 } else { packet.len() }
    })
}

/// Passes each packet of a compound packet to `each`, as [`rewrite`] does. Returns the length of the compound packet, 0 if only reports
/// without a block and descriptions remain of a packet that became shorter.
fn retain_content(compound: &mut [u8], mut each: impl FnMut(&mut [u8]) -> usize) -> usize {
    let length = compound.len();
    let mut has_content = false;
    let rewritten = rewrite(compound, |packet| {
        let kept = each(packet);
        has_content |= match payload_type(packet) {
            RECEIVER_REPORT => count(packet) > 0,
            SOURCE_DESCRIPTION => false,
            _ => kept > 0,
        };
        kept
    });
    match rewritten {
        Ok(shorter) if shorter < length && !has_content => 0,
        Ok(shorter) => shorter,
        Err(_) => length,
    }
}

/// Passes each source of a BYE to `each`, which renames or removes it. Returns the new length, 0 if
/// no source remains.
pub(crate) fn retain_leaving(packet: &mut [u8], mut each: impl FnMut(u32) -> Option<u32>) -> usize {
    if payload_type(packet) != BYE {
        return packet.len();
    }
    let (mut kept, mut end) = (0, HEADER_LEN);
    let after = (HEADER_LEN + 4 * usize::from(count(packet))).min(packet.len());
    for at in (HEADER_LEN..after).step_by(4) {
        if let Some(name) = read_u32(packet, at).and_then(&mut each) {
            set_u32(packet, end, name);
            kept += 1;
            end += 4;
        }
    }
    if kept == 0 {
        return 0;
    }
    close_gap(packet, kept, end, after)
}

/// Passes each source of a description to `each`, which renames it or removes its chunk. Returns
/// the new length, 0 if no chunk remains.
pub(crate) fn retain_described(
    packet: &mut [u8],
    mut each: impl FnMut(u32) -> Option<u32>,
) -> usize {
    if payload_type(packet) != SOURCE_DESCRIPTION {
        return packet.len();
    }
    let (mut kept, mut end, mut after) = (0, HEADER_LEN, HEADER_LEN);
    for _ in 0..count(packet) {
        let Some((_, length)) = chunks(1, &packet[after..]).next() else { break };
        if let Some(name) = read_u32(packet, after).and_then(&mut each) {
            set_u32(packet, after, name);
            packet.copy_within(after..after + length, end);
            kept += 1;
            end += length;
        }
        after += length;
    }
    if kept == 0 {
        return 0;
    }
    packet[0] = packet[0] & 0xc0 | kept;
    set_len(packet, end)
}

/// Returns the end of a packet's body, before padding.
pub(super) fn body_end(packet: &[u8]) -> usize {
    match *packet {
        [first, .., padding] if first & PADDING != 0 => packet.len().saturating_sub(padding.into()),
        _ => packet.len(),
    }
}

/// Moves the bytes from `after` on to `end`, and sets count and length. Returns the new length.
fn close_gap(packet: &mut [u8], kept: u8, end: usize, after: usize) -> usize {
    let length = packet.len();
    packet.copy_within(after..length, end);
    packet[0] = packet[0] & 0xe0 | kept;
    set_len(packet, end + length - after)
}

/// Sets the length in the header to `length` bytes, a multiple of four, and returns it.
pub(super) fn set_len(packet: &mut [u8], length: usize) -> usize {
    let words = u16::try_from(length / 4 - 1).unwrap_or(u16::MAX);
    packet[2..4].copy_from_slice(&words.to_be_bytes());
    length
}

pub(super) fn set_u32(packet: &mut [u8], at: usize, value: u32) {
    if let Some(field) = packet.get_mut(at..at + 4) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}
