//! One stream on two paths, with the evidence whether both deliver the same packets.

use super::{JUDGED_BY, WINDOW};
use crate::bytes;
use crate::rtp::{self, sequence_ahead};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Number of matching copies that prove a path.
const PROVEN_BY: u32 = 4;

/// Number of conflicting packets between two judgements that disproves a path.
const CONFLICTS_MAX: u32 = 4;

/// True if the other path delivers copies of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub(super) enum Alike {
    Unknown,
    Yes,
    No,
}

#[derive(Clone, Serialize, Deserialize, Debug)]
pub(super) struct MergedStream {
    pub(super) ssrc: u32,
    /// Payload type of the stream's first packet.
    pub(super) payload_type: u8,
    /// Position of the stream's last packet among packets of all streams.
    pub(super) heard: u64,
    /// Paths that ever delivered the stream, one bit each.
    pub(super) ways: u8,
    pub(super) alike: Alike,
    /// Packets of the leading path since the last judgement. The next three fields count the same
    /// period for the other path, its matches and its conflicts. A judgement follows once both
    /// paths have delivered [`JUDGED_BY`].
    pub(super) led: u32,
    pub(super) followed: u32,
    matched: u32,
    conflicts: u32,
    highest: u16,
    #[serde(serialize_with = "write_slots", deserialize_with = "read_slots")]
    slots: Box<[MergeSlot; WINDOW as usize]>,
}

/// A sequence number of a stream, and the packets with it.
#[derive(Clone, Copy, Default, Debug)]
struct MergeSlot {
    sequence: u16,
    /// Paths that delivered the number, one bit each.
    ways: u8,
    passed: bool,
    /// Fingerprint of the packet's contents.
    fingerprint: u32,
}

/// Result of comparing a packet with the other path's packet of the same number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum MergeMatch {
    /// The other path has not delivered the number.
    Alone { passes: bool },
    /// The packets are equal.
    Matches { passes: bool },
    /// The packets differ.
    Conflicts,
}

impl MergedStream {
    pub(super) fn new(header: &rtp::RtpHeader) -> MergedStream {
        MergedStream {
            ssrc: header.ssrc,
            payload_type: header.payload_type,
            heard: 0,
            ways: 0,
            alike: Alike::Unknown,
            led: 0,
            followed: 0,
            matched: 0,
            conflicts: 0,
            highest: header.sequence,
            slots: Box::new([MergeSlot::default(); WINDOW as usize]),
        }
    }

    /// Reuses the memory for another stream.
    pub(super) fn become_another(&mut self, header: &rtp::RtpHeader) {
        self.slots.fill(MergeSlot::default());
        (self.ssrc, self.payload_type) = (header.ssrc, header.payload_type);
        (self.ways, self.alike, self.highest) = (0, Alike::Unknown, header.sequence);
        self.begin_judgement();
    }

    /// Discards the evidence about this path.
    pub(super) fn forget(&mut self, way: u8) {
        self.slots.iter_mut().for_each(|slot| slot.ways &= !way);
        self.ways &= !way;
        self.alike = Alike::Unknown;
        self.begin_judgement();
    }

    pub(super) fn begin_judgement(&mut self) {
        (self.led, self.followed, self.matched, self.conflicts) = (0, 0, 0, 0);
    }

    /// Compares a packet. Returns `None` outside the window, or if nothing remains to be proved.
    pub(super) fn take(
        &mut self,
        way: u8,
        leads: bool,
        header: &rtp::RtpHeader,
        packet: &[u8],
    ) -> Option<MergeMatch> {
        if self.alike == Alike::No && !leads {
            return None;
        }
        self.ways |= way;
        let count = if leads { &mut self.led } else { &mut self.followed };
        *count = count.saturating_add(1);
        let may_pass = leads || self.alike == Alike::Yes;
        let found = self
            .slot(header.sequence, leads)
            .map(|slot| slot.take(way, leads, may_pass, fingerprint(header, packet)));
        match found {
            Some(MergeMatch::Matches { .. }) => self.matched += 1,
            Some(MergeMatch::Conflicts) => self.conflicts += 1,
            Some(MergeMatch::Alone { .. }) | None => {}
        }
        self.judge();
        found
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> *const u8 {
        self.slots.as_ptr().cast()
    }

    fn judge(&mut self) {
        let full = self.led.min(self.followed) >= JUDGED_BY;
        if self.conflicts >= CONFLICTS_MAX || full && self.matched == 0 {
            self.alike = Alike::No;
        } else if self.alike == Alike::Unknown && self.matched >= PROVEN_BY && self.conflicts == 0 {
            self.alike = Alike::Yes;
        }
        if full {
            self.begin_judgement();
        }
    }

    /// Returns the slot of a number. `None` outside the window, except for the leading path, whose
    /// source has then restarted.
    fn slot(&mut self, sequence: u16, leads: bool) -> Option<&mut MergeSlot> {
        let ahead = sequence_ahead(sequence, self.highest);
        if ahead.unsigned_abs() >= WINDOW {
            if !leads {
                return None;
            }
            self.slots.fill(MergeSlot::default());
            self.highest = sequence;
        }
        if ahead > 0 {
            self.highest = sequence;
        }
        let slot = &mut self.slots[usize::from(sequence % WINDOW)];
        if slot.sequence != sequence {
            *slot = MergeSlot { sequence, ..MergeSlot::default() };
        }
        Some(slot)
    }
}

/// Bytes of a slot in records, which hold hundreds: fingerprint, sequence number, ways, and whether it passed.
const SLOT_BYTES: usize = 8;

fn write_slots<S: Serializer>(
    slots: &[MergeSlot; WINDOW as usize],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut bytes = [0; WINDOW as usize * SLOT_BYTES];
    for (bytes, slot) in bytes.as_chunks_mut().0.iter_mut().zip(slots) {
        let ([f0, f1, f2, f3], [s0, s1]) =
            (slot.fingerprint.to_be_bytes(), slot.sequence.to_be_bytes());
        *bytes = [f0, f1, f2, f3, s0, s1, slot.ways, slot.passed.into()];
    }
    bytes::serialize(&bytes, serializer)
}

fn read_slots<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Box<[MergeSlot; WINDOW as usize]>, D::Error> {
    let bytes: [u8; WINDOW as usize * SLOT_BYTES] = bytes::deserialize(deserializer)?;
    let mut slots = Box::new([MergeSlot::default(); WINDOW as usize]);
    let read = bytes.as_chunks::<SLOT_BYTES>().0;
    for (slot, &[f0, f1, f2, f3, s0, s1, ways, passed]) in slots.iter_mut().zip(read) {
        *slot = MergeSlot {
            sequence: u16::from_be_bytes([s0, s1]),
            ways,
            passed: passed == 1,
            fingerprint: u32::from_be_bytes([f0, f1, f2, f3]),
        };
    }
    Ok(slots)
}

impl MergeSlot {
    fn take(&mut self, way: u8, leads: bool, may_pass: bool, fingerprint: u32) -> MergeMatch {
        if self.ways & way != 0 && self.fingerprint != fingerprint {
            // The source restarted under a used number.
            *self = MergeSlot { sequence: self.sequence, ..MergeSlot::default() };
        }
        let others = self.ways & !way != 0;
        if others && self.fingerprint != fingerprint {
            if leads {
                *self = MergeSlot { sequence: self.sequence, ways: way, passed: true, fingerprint };
            }
            return MergeMatch::Conflicts;
        }
        let matches = others && self.ways & way == 0;
        let passes = may_pass && !self.passed;
        self.ways |= way;
        self.fingerprint = fingerprint;
        self.passed |= passes;
        if matches { MergeMatch::Matches { passes } } else { MergeMatch::Alone { passes } }
    }
}

/// A 32-bit fingerprint; not cryptographic, as nodes do not try to collide.
fn fingerprint(header: &rtp::RtpHeader, packet: &[u8]) -> u32 {
    const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
    let payload = header.payload(packet);
    let begin = u64::from(header.timestamp) << 8 | u64::from(header.payload_type);
    let mix = |sum: u64, word: u64| (sum.rotate_left(23) ^ word).wrapping_mul(MIX);
    let (words, rest) = payload.as_chunks::<8>();
    let sum = words.iter().fold(begin, |sum, word| mix(sum, u64::from_le_bytes(*word)));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let sum = mix(mix(sum, u64::from_le_bytes(last)), payload.len() as u64);
    (sum >> 32) as u32
}
