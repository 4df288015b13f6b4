//! Finds discontinuities that a receiver sees when the node changes: in SSRC, sequence numbers and timestamps.

use super::{PacketLedger, ReceivedPacket, SentPacket, StreamPath};

/// Sequence numbers that a change of node may add or take beside the number of lost packets: two video frames, since an
/// estimate from elapsed time does not know where a frame ended.
const SEQUENCE_OFF: u16 = 12;
/// Milliseconds by which a timestamp may differ from elapsed time at a change of node: the delay that a loaded machine
/// adds between a packet's due time and its passing the gateway.
const TIMESTAMP_OFF_MS: u32 = 80;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ContinuityBreak {
    pub(crate) path: StreamPath,
    /// The number of the packet before.
    pub(crate) after: u64,
    /// The number of the first packet after the discontinuity.
    pub(crate) number: u64,
    pub(crate) nodes: (u32, u32),
    pub(crate) kind: BreakKind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BreakKind {
    Ssrc {
        was: u32,
        is: u32,
    },
    /// The sequence number advanced by another amount than the packets in between.
    Sequence {
        /// Advance of the sender's packet numbers.
        sent: u64,
        /// Advance of the received sequence numbers; negative for a step back.
        received: i16,
    },
    /// The timestamp advanced by another amount than the sender's timestamp.
    Timestamp {
        /// Advance of the sender's timestamp.
        sent: i32,
        /// Advance of the received timestamp.
        received: i32,
    },
}

impl PacketLedger {
    /// Every discontinuity of every stream.
    ///
    /// On one node the offset between sent and received numbers must not change, except that sequence numbers may close
    /// over missing packets. A tolerance applies at a change of node. Sequence numbers must always increase.
    pub(crate) fn continuity_breaks(&self) -> Vec<ContinuityBreak> {
        let mut breaks = Vec::new();
        for (&path, arrivals) in &self.arrivals {
            let sent = self.sent.get(&(path.sender, path.stream)).map_or(&[][..], Vec::as_slice);
            let mut in_order: Vec<&ReceivedPacket> = arrivals.iter().collect();
            in_order.sort_by_key(|arrival| arrival.number);
            in_order.dedup_by_key(|arrival| arrival.number);
            for pair in in_order.windows(2) {
                let [before, after] = [pair[0], pair[1]];
                let place = |kind| ContinuityBreak {
                    path,
                    after: before.number,
                    number: after.number,
                    nodes: (before.node, after.node),
                    kind,
                };
                breaks.extend(breaks_between(before, after, sent).map(place));
            }
        }
        breaks
    }
}

fn breaks_between(
    before: &ReceivedPacket,
    after: &ReceivedPacket,
    sent: &[SentPacket],
) -> impl Iterator<Item = BreakKind> {
    let moved = before.node != after.node;
    let ssrc =
        (before.ssrc != after.ssrc).then_some(BreakKind::Ssrc { was: before.ssrc, is: after.ssrc });
    let sequence = sequence_break(before, after, if moved { SEQUENCE_OFF } else { 0 });
    let timestamp = timestamp_break(before, after, sent, if moved { TIMESTAMP_OFF_MS } else { 0 });
    [ssrc, sequence, timestamp].into_iter().flatten()
}

fn sequence_break(
    before: &ReceivedPacket,
    after: &ReceivedPacket,
    tolerance: u16,
) -> Option<BreakKind> {
    let sent = after.number - before.number;
    let received = after.sequence.wrapping_sub(before.sequence).cast_signed();
    let most = i64::try_from(sent).unwrap_or(i64::MAX).saturating_add(i64::from(tolerance));
    // Across a change of node the numbers are an estimate; on one node they may close over missing packets.
    let least =
        if before.node == after.node { 1 } else { (most - 2 * i64::from(tolerance)).max(1) };
    let fits = (least..=most).contains(&i64::from(received));
    // A gap of more than half the number space looks like a step back. Other checks report such a silence.
    (!fits && sent < 32_768).then_some(BreakKind::Sequence { sent, received })
}

fn timestamp_break(
    before: &ReceivedPacket,
    after: &ReceivedPacket,
    sent: &[SentPacket],
    tolerance_ms: u32,
) -> Option<BreakKind> {
    let find =
        |number| sent.binary_search_by_key(&number, |packet| packet.number).ok().map(|i| &sent[i]);
    let (was, is) = (find(before.number)?, find(after.number)?);
    let sent = is.timestamp.wrapping_sub(was.timestamp).cast_signed();
    let received = after.timestamp.wrapping_sub(before.timestamp).cast_signed();
    let off = i64::from(received) - i64::from(sent);
    let tolerance = i64::from(tolerance_ms) * i64::from(is.clock_rate) / 1_000;
    (off.abs() > tolerance).then_some(BreakKind::Timestamp { sent, received })
}
