//! Merges two copies of a stream: the first copy of each packet passes (RFC 7198; the semantics of
//! SMPTE ST 2022-7).
//!
//! One path leads: all its packets pass, except those of which a copy has passed. Packets of the
//! other path pass once it has proved to deliver copies of the stream: same SSRC, sequence number,
//! timestamp, payload type and payload. Each stream is proved separately. If the paths differ in a
//! stream, only the leading path passes.

use crate::bytes;
use crate::rtp::{self, sequence_ahead};
use evenkeel_instant as instant;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::time::{Duration, Instant};

/// Packets remembered per stream: ten seconds of voice, half a second of video at 10 Mbit/s. A
/// later copy is dropped.
const WINDOW: u16 = 512;

/// Limit of streams, the same as in continuity. Above it the stream that has been silent longest is
/// forgotten. A stream of only the other path never replaces one of the leading path.
const STREAMS_MAX: usize = crate::continuity::STREAMS_MAX;

/// Number of consecutive packets of a stream from only the leading path, and of another stream of
/// that payload type from only the other path, after which both are treated as one stream under two
/// SSRCs.
const JUDGED_BY: u32 = 64;

/// Number of matching copies that prove a path.
const PROVEN_BY: u32 = 4;

/// Number of conflicting packets between two judgements that disproves a path.
const CONFLICTS_MAX: u32 = 4;

/// Repetition interval of a report that still holds, because a report may be lost.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// One of the two paths of a merged stream.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
enum MergePath {
    /// The first hop.
    A = 0,
    /// Its twin.
    B = 1,
}

impl MergePath {
    fn other(self) -> MergePath {
        match self {
            MergePath::A => MergePath::B,
            MergePath::B => MergePath::A,
        }
    }
}

/// What becomes of a packet of a merged stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MergeOutcome {
    /// The packet passes: no copy of it did.
    First,
    /// A copy has passed, or the packet is older than the window.
    Again,
    /// The packet's path has not proved to deliver copies of this stream, or delivers different
    /// packets.
    Unproven,
}

/// Merges the streams of a receiver. Allocates 4 KiB when a stream is new, for at most
/// `STREAMS_MAX`, and never per packet.
#[derive(Clone, Serialize, Deserialize, Debug)]
struct Merge {
    leads: MergePath,
    /// Number of packets so far; orders streams by their last packet.
    taken: u64,
    streams: Vec<MergedStream>,
}

impl Merge {
    fn new(leads: MergePath) -> Merge {
        Merge { leads, taken: 0, streams: Vec::new() }
    }

    /// Returns whether the other path has proved to deliver copies of some stream.
    fn is_proven(&self) -> bool {
        self.streams.iter().any(|stream| stream.alike == Alike::Yes)
    }

    /// Returns payload types of streams in which the other path delivers different packets.
    fn differing(&self) -> impl Iterator<Item = u8> {
        let differing = self.streams.iter().filter(|stream| stream.alike == Alike::No);
        differing.map(|stream| stream.payload_type)
    }

    /// Makes the other path lead after the leading one is gone. Remembers the packets that passed.
    fn turn(&mut self) {
        self.leads = self.leads.other();
        self.streams.iter_mut().for_each(MergedStream::begin_judgement);
    }

    /// Replaces the path that does not lead. The new path must prove itself.
    fn replace(&mut self) {
        let gone = bit(self.leads.other());
        self.streams.iter_mut().for_each(|stream| stream.forget(gone));
    }

    /// Handles a packet from one of the paths.
    fn take(&mut self, path: MergePath, header: &rtp::RtpHeader, packet: &[u8]) -> MergeOutcome {
        let leads = path == self.leads;
        let Some(place) = self.place(header, leads) else {
            return MergeOutcome::Unproven;
        };
        self.taken += 1;
        let stream = &mut self.streams[place];
        stream.last_position = self.taken;
        let may_pass = leads || stream.alike == Alike::Yes;
        let found = stream.take(bit(path), leads, header, packet);
        if leads && self.goes_by_another_name(place) {
            self.streams[place].alike = Alike::No;
        }
        match found {
            Some(MergeMatch::Alone { passes: true } | MergeMatch::Matches { passes: true }) => {
                MergeOutcome::First
            }
            // The leading path decides.
            Some(MergeMatch::Conflicts) if leads => MergeOutcome::First,
            _ if may_pass => MergeOutcome::Again,
            _ => MergeOutcome::Unproven,
        }
    }

    /// Returns whether the other path seems to deliver this stream under another SSRC.
    fn goes_by_another_name(&self, place: usize) -> bool {
        let (stream, leads) = (&self.streams[place], bit(self.leads));
        let same = |other: &MergedStream| {
            other.payload_type == stream.payload_type
                && other.paths & leads == 0
                && other.followed >= JUDGED_BY
        };
        stream.followed == 0 && stream.led >= JUDGED_BY && self.streams.iter().any(same)
    }

    /// Returns the index of a stream and adds it if it is new. `None` for a stream of the other
    /// path beyond the limit.
    fn place(&mut self, header: &rtp::RtpHeader, leads: bool) -> Option<usize> {
        let known = self.streams.iter().position(|stream| stream.ssrc == header.ssrc);
        if known.is_some() {
            return known;
        }
        if self.streams.len() < STREAMS_MAX {
            self.streams.push(MergedStream::new(header));
            return Some(self.streams.len() - 1);
        }
        let lead = bit(self.leads);
        let may_go = |stream: &MergedStream| leads || stream.paths & lead == 0;
        let streams = self.streams.iter_mut().enumerate().filter(|(_, stream)| may_go(stream));
        let (place, oldest) = streams.min_by_key(|(_, stream)| stream.last_position)?;
        oldest.become_another(header);
        Some(place)
    }
}

fn bit(path: MergePath) -> u8 {
    1 << path as u8
}

/// True if the other path delivers copies of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
enum Alike {
    Unknown,
    Yes,
    No,
}

#[derive(Clone, Serialize, Deserialize, Debug)]
struct MergedStream {
    ssrc: u32,
    /// Payload type of the stream's first packet.
    payload_type: u8,
    /// Position of the stream's last packet among packets of all streams.
    last_position: u64,
    /// Paths that ever delivered the stream, one bit each.
    paths: u8,
    alike: Alike,
    /// Packets of the leading path since the last judgement. The next three fields count the same
    /// period for the other path, its matches and its conflicts. A judgement follows once both
    /// paths have delivered [`JUDGED_BY`].
    led: u32,
    followed: u32,
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
    paths: u8,
    passed: bool,
    /// Fingerprint of the packet's contents.
    fingerprint: u32,
}

/// Result of comparing a packet with the other path's packet of the same number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum MergeMatch {
    /// The other path has not delivered the number.
    Alone { passes: bool },
    /// The packets are equal.
    Matches { passes: bool },
    /// The packets differ.
    Conflicts,
}

impl MergedStream {
    fn new(header: &rtp::RtpHeader) -> MergedStream {
        MergedStream {
            ssrc: header.ssrc,
            payload_type: header.payload_type,
            last_position: 0,
            paths: 0,
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
    fn become_another(&mut self, header: &rtp::RtpHeader) {
        self.slots.fill(MergeSlot::default());
        (self.ssrc, self.payload_type) = (header.ssrc, header.payload_type);
        (self.paths, self.alike, self.highest) = (0, Alike::Unknown, header.sequence);
        self.begin_judgement();
    }

    /// Discards the evidence about this path.
    fn forget(&mut self, path_bit: u8) {
        self.slots.iter_mut().for_each(|slot| slot.paths &= !path_bit);
        self.paths &= !path_bit;
        self.alike = Alike::Unknown;
        self.begin_judgement();
    }

    fn begin_judgement(&mut self) {
        (self.led, self.followed, self.matched, self.conflicts) = (0, 0, 0, 0);
    }

    /// Compares a packet. Returns `None` outside the window, or if nothing remains to be proved.
    fn take(
        &mut self,
        path_bit: u8,
        leads: bool,
        header: &rtp::RtpHeader,
        packet: &[u8],
    ) -> Option<MergeMatch> {
        if self.alike == Alike::No && !leads {
            return None;
        }
        self.paths |= path_bit;
        let count = if leads { &mut self.led } else { &mut self.followed };
        *count = count.saturating_add(1);
        let may_pass = leads || self.alike == Alike::Yes;
        let found = self
            .slot(header.sequence, leads)
            .map(|slot| slot.take(path_bit, leads, may_pass, fingerprint(header, packet)));
        match found {
            Some(MergeMatch::Matches { .. }) => self.matched += 1,
            Some(MergeMatch::Conflicts) => self.conflicts += 1,
            Some(MergeMatch::Alone { .. }) | None => {}
        }
        self.judge();
        found
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

/// Bytes of a slot in records, which hold hundreds: fingerprint, sequence number, paths, and whether it passed.
const SLOT_BYTES: usize = 8;

fn write_slots<S: Serializer>(
    slots: &[MergeSlot; WINDOW as usize],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut bytes = [0; WINDOW as usize * SLOT_BYTES];
    for (bytes, slot) in bytes.as_chunks_mut().0.iter_mut().zip(slots) {
        let ([f0, f1, f2, f3], [s0, s1]) =
            (slot.fingerprint.to_be_bytes(), slot.sequence.to_be_bytes());
        *bytes = [f0, f1, f2, f3, s0, s1, slot.paths, slot.passed.into()];
    }
    bytes::serialize(&bytes, serializer)
}

fn read_slots<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Box<[MergeSlot; WINDOW as usize]>, D::Error> {
    let bytes: [u8; WINDOW as usize * SLOT_BYTES] = bytes::deserialize(deserializer)?;
    let mut slots = Box::new([MergeSlot::default(); WINDOW as usize]);
    let read = bytes.as_chunks::<SLOT_BYTES>().0;
    for (slot, &[f0, f1, f2, f3, s0, s1, paths, passed]) in slots.iter_mut().zip(read) {
        *slot = MergeSlot {
            sequence: u16::from_be_bytes([s0, s1]),
            paths,
            passed: passed == 1,
            fingerprint: u32::from_be_bytes([f0, f1, f2, f3]),
        };
    }
    Ok(slots)
}

impl MergeSlot {
    fn take(&mut self, path_bit: u8, leads: bool, may_pass: bool, fingerprint: u32) -> MergeMatch {
        if self.paths & path_bit != 0 && self.fingerprint != fingerprint {
            // The source restarted under a used number.
            *self = MergeSlot { sequence: self.sequence, ..MergeSlot::default() };
        }
        let others = self.paths & !path_bit != 0;
        if others && self.fingerprint != fingerprint {
            if leads {
                *self = MergeSlot {
                    sequence: self.sequence,
                    paths: path_bit,
                    passed: true,
                    fingerprint,
                };
            }
            return MergeMatch::Conflicts;
        }
        let matches = others && self.paths & path_bit == 0;
        let passes = may_pass && !self.passed;
        self.paths |= path_bit;
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

/// The leading hop, its twin, and the merge of their packets.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub struct HopPair<H> {
    /// The two hops, by path.
    hops: [H; 2],
    merge: Merge,
    #[serde(with = "instant::option")]
    reported: Option<Instant>,
}

/// The change of leader that a packet caused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Settled<H> {
    /// The leading hop stays.
    Same,
    /// The leading hop is gone; its twin, which delivers copies, now leads.
    Turned(H),
    /// The leading hop is gone, and the hop that sent the packet starts anew.
    Begins,
}

impl<H: Copy + Eq> HopPair<H> {
    fn new(leads: H, twin: H) -> HopPair<H> {
        HopPair { hops: [leads, twin], merge: Merge::new(MergePath::A), reported: None }
    }

    /// Returns the leading hop, which the client hears.
    fn leads(&self) -> H {
        self.hops[self.merge.leads as usize]
    }

    fn twin(&self) -> H {
        self.hops[self.merge.leads.other() as usize]
    }

    /// Returns both hops, the leading one first.
    pub fn hops(&self) -> [H; 2] {
        [self.leads(), self.twin()]
    }

    /// Returns the same pair with the hops' names at another process; `None` if one has none.
    pub fn map<T>(self, mut name: impl FnMut(H) -> Option<T>) -> Option<HopPair<T>> {
        let HopPair { hops: [a, b], merge, reported: told } = self;
        Some(HopPair { hops: [name(a)?, name(b)?], merge, reported: told })
    }

    /// Handles a packet of one of the hops.
    pub fn take(&mut self, from: H, header: &rtp::RtpHeader, packet: &[u8]) -> MergeOutcome {
        let path =
            if self.hops[MergePath::A as usize] == from { MergePath::A } else { MergePath::B };
        self.merge.take(path, header, packet)
    }

    /// Returns payload types of streams in which the twin delivers different packets.
    pub fn differing(&self) -> impl Iterator<Item = u8> {
        self.merge.differing()
    }

    /// Returns whether a report of differing streams is due now.
    pub fn tells(&mut self, now: Instant) -> bool {
        let recently = |at: Instant| now.saturating_duration_since(at) < REPORT_EVERY;
        let tells = !self.reported.is_some_and(recently);
        if tells {
            self.reported = Some(now);
        }
        tells
    }

    /// Sets the twin. A new twin must prove itself.
    fn set_twin(&mut self, twin: H) {
        if self.twin() != twin {
            self.hops[self.merge.leads.other() as usize] = twin;
            self.merge.replace();
            self.reported = None;
        }
    }

    /// Updates the leader and the twin for a packet from the hop `from`; `other` is the other hop
    /// that carries the session, if any. `heard` is the hop that the client hears. There is a pair
    /// only while two hops carry the session (`hitless`).
    pub fn settle(
        pair: &mut Option<Box<HopPair<H>>>,
        heard: Option<H>,
        (from, other): (H, Option<H>),
        hitless: bool,
    ) -> Settled<H> {
        let carries = |hop: &H| *hop == from || Some(*hop) == other;
        let proven = pair.as_deref_mut().filter(|pair| pair.merge.is_proven());
        let (leads, settled) = match (heard.filter(carries), proven) {
            (Some(heard), _) => (heard, Settled::Same),
            (None, Some(pair)) if carries(&pair.twin()) => {
                pair.merge.turn();
                (pair.leads(), Settled::Turned(pair.leads()))
            }
            (None, _) => (from, Settled::Begins),
        };
        let twin = if leads == from { other } else { Some(from) };
        match (&mut *pair, twin) {
            _ if !hitless => *pair = None,
            (Some(pair), twin) if pair.leads() == leads => {
                twin.into_iter().for_each(|twin| pair.set_twin(twin));
            }
            (_, twin) => *pair = twin.map(|twin| Box::new(HopPair::new(leads, twin))),
        }
        settled
    }
}

#[cfg(test)]
mod tests;
