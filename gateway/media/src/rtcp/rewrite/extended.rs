//! Extended reports (RFC 3611), rewritten in place.

use super::{PADDING, body_end, payload_type, rewrite, set_len, set_u32};
use crate::rtcp::report::read_u32;
use crate::rtcp::xr::{
    BLOCK_HEADER_LEN, BLOCKS_AT, DUPLICATE_RUNS, EXTENDED_REPORT, ExtendedBlock, LAST_REFERENCES,
    LOSS_RUNS, LOSS_RUNS_AFTER_REPAIR, RECEIPT_TIMES, STATISTICS, THINNING, VOIP_METRICS,
    block_len, read_u16,
};

/// Passes each block of an extended report to `each`, which may modify it and returns whether to keep it. Removes padding, and bytes behind
/// the last whole block. Returns the new length, 0 if no block remains.
pub(crate) fn retain_extended(packet: &mut [u8], mut each: impl FnMut(&mut [u8]) -> bool) -> usize {
    if payload_type(packet) != EXTENDED_REPORT {
        return packet.len();
    }
    let body_end = body_end(packet);
    let (mut at, mut end) = (BLOCKS_AT, BLOCKS_AT);
    while let Some(length) = packet.get(at..body_end).and_then(block_len) {
        let rest = packet.get_mut(at..body_end);
        let Some(block) = rest.and_then(|rest| rest.get_mut(..length)) else { break };
        if each(block) {
            packet.copy_within(at..at + length, end);
            end += length;
        }
        at += length;
    }
    if end == BLOCKS_AT {
        return 0;
    }
    packet[0] &= !PADDING;
    set_len(packet, end)
}

/// Removes the answers to reference times that the present node did not send. Returns the length of the compound packet, 0 if nothing is left.
pub fn retain_answers(compound: &mut [u8], mut is_known: impl FnMut(u32) -> bool) -> usize {
    let length = compound.len();
    let rewritten = rewrite(compound, |packet| {
        retain_extended(packet, |block| {
            let ExtendedBlock::LastReferences(answers) = ExtendedBlock::read(block) else {
                return true;
            };
            answers.entries().all(|answer| answer.reference == 0 || is_known(answer.reference))
        })
    });
    rewritten.unwrap_or(length)
}

/// Returns the source that a block reports on.
pub(crate) fn source(block: &[u8]) -> Option<u32> {
    match *block.first()? {
        LOSS_RUNS
        | LOSS_RUNS_AFTER_REPAIR
        | DUPLICATE_RUNS
        | RECEIPT_TIMES
        | STATISTICS
        | VOIP_METRICS => read_u32(block, 4),
        _ => None,
    }
}

/// Returns the first number that a block reports on, if its numbers can be moved: receipt times have the timestamps of the sender, too,
/// and metrics of voice no numbers.
pub(crate) fn first_number(block: &[u8]) -> Option<u16> {
    match *block.first()? {
        LOSS_RUNS | LOSS_RUNS_AFTER_REPAIR | DUPLICATE_RUNS | STATISTICS => read_u16(block, 8),
        _ => None,
    }
}

/// Names another source, and moves the numbers of a block with a [first number](first_number). Returns false if they cannot be moved by so
/// much: only each 2^n-th is reported on.
pub(crate) fn move_numbers(block: &mut [u8], ssrc: u32, shift: u16) -> bool {
    let is_thinned = matches!(block[0], LOSS_RUNS | LOSS_RUNS_AFTER_REPAIR | DUPLICATE_RUNS);
    let step = if is_thinned { 1_u16 << (block[1] & THINNING) } else { 1 };
    if shift & (step - 1) != 0 {
        return false;
    }
    set_u32(block, 4, ssrc);
    for at in [8, 10] {
        if let Some(number) = read_u16(block, at) {
            block[at..at + 2].copy_from_slice(&number.wrapping_add(shift).to_be_bytes());
        }
    }
    true
}

/// Renames the receivers of which a block answers reference times. `None` keeps the name.
pub(crate) fn rename_receivers(block: &mut [u8], mut rename: impl FnMut(u32) -> Option<u32>) {
    if block.first() != Some(&LAST_REFERENCES) {
        return;
    }
    for at in (BLOCK_HEADER_LEN..block.len()).step_by(12) {
        if let Some(name) = read_u32(block, at).and_then(&mut rename) {
            set_u32(block, at, name);
        }
    }
}
