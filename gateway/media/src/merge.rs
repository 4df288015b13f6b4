//! Two copies of a stream become one: of what two ways deliver, the first copy of each packet passes
//! (RFC 7198; the semantics of SMPTE ST 2022-7).
//!
//! One way leads, and all it delivers for the first time passes. What the other one delivers passes as
//! well once it has proved to be a copy: the same SSRC, sequence number, timestamp, payload type and
//! payload. Two ways that deliver something else are [`Taken::Unalike`], and only the one that leads passes.

use crate::rtp::{self, sequence_ahead};

/// How many packets of a stream are remembered: ten seconds of voice, half a second of video at 10 Mbit/s.
/// A copy that comes later than that passes no more.
pub const WINDOW: u16 = 512;

/// How many streams are followed, as many as continuity does; the one that was told of first is forgotten first.
pub const STREAMS_MAX: usize = crate::continuity::STREAMS_MAX;

/// So many copies that match prove that a way delivers copies.
const PROVEN_BY: u32 = 4;

/// Ways are judged each time the one that does not lead has delivered so many packets, and the other as many.
const JUDGED_BY: u32 = 64;

/// So many packets under one number with different contents, between two judgements, are no accident.
const CONFLICTS_MAX: u32 = 4;

/// One of the two ways.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// The one.
    A = 0,
    /// The other.
    B = 1,
}

impl Way {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Way {
        match self {
            Way::A => Way::B,
            Way::B => Way::A,
        }
    }
}

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    /// It passes: no copy of it did.
    First,
    /// Its copy passed, or it came too late for us to know.
    Again,
    /// Its way has still to prove that it delivers copies.
    Unproven,
    /// Its way delivers no copies of what the other one does. Told once.
    Unalike,
}

/// Merges the streams of one receiver. Takes memory when a stream is new, never for a packet: 4 KiB of each.
#[derive(Clone, Debug)]
pub struct Merge {
    leads: Way,
    /// Whether what the other one delivers are copies.
    alike: Alike,
    /// Whether it was told that they are not.
    told: bool,
    /// Since the last judgement: packets of the way that leads, of the other, and of these those that matched and that
    /// conflicted.
    led: u32,
    followed: u32,
    matched: u32,
    conflicts: u32,
    streams: Vec<Stream>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Alike {
    Unknown,
    Yes,
    No,
}

#[derive(Clone, Debug)]
struct Stream {
    ssrc: u32,
    highest: u16,
    slots: Box<[Slot; WINDOW as usize]>,
}

/// One number of a stream, and what came under it.
#[derive(Clone, Copy, Default, Debug)]
struct Slot {
    sequence: u16,
    /// Which ways delivered it, a bit each.
    ways: u8,
    passed: bool,
    /// A trace of its contents.
    trace: u32,
}

impl Merge {
    /// Of two ways nothing was heard yet.
    #[must_use]
    pub fn new(leads: Way) -> Merge {
        let (led, followed, matched, conflicts) = (0, 0, 0, 0);
        let (alike, told) = (Alike::Unknown, false);
        Merge { leads, alike, told, led, followed, matched, conflicts, streams: Vec::new() }
    }

    /// The way that leads.
    #[must_use]
    pub fn leads(&self) -> Way {
        self.leads
    }

    /// Whether the way that does not lead has proved to deliver copies.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.alike == Alike::Yes
    }

    /// The way that leads is gone: the other one goes on in its place. What passed is remembered.
    pub fn turn(&mut self) {
        self.leads = self.leads.other();
    }

    /// The way that does not lead is another one from now on, and has everything to prove.
    pub fn replace(&mut self) {
        let gone = bit(self.leads.other());
        for slot in self.streams.iter_mut().flat_map(|stream| stream.slots.iter_mut()) {
            slot.ways &= !gone;
        }
        (self.alike, self.told) = (Alike::Unknown, false);
        self.begin_judgement();
    }

    /// A packet that came by one of the ways.
    pub fn take(&mut self, way: Way, header: &rtp::Header, packet: &[u8]) -> Taken {
        let leads = way == self.leads;
        if self.alike == Alike::No && !leads {
            return if std::mem::replace(&mut self.told, true) {
                Taken::Unproven
            } else {
                Taken::Unalike
            };
        }
        *(if leads { &mut self.led } else { &mut self.followed }) += 1;
        let may_pass = leads || self.alike == Alike::Yes;
        let found = self
            .slot(header, leads)
            .map(|slot| slot.take(bit(way), leads, may_pass, trace(header, packet)));
        match found {
            Some(Found::Matches { .. }) => self.matched += 1,
            Some(Found::Conflicts) => self.conflicts += 1,
            Some(Found::Alone { .. }) | None => {}
        }
        self.judge();
        match found {
            Some(Found::Alone { passes: true } | Found::Matches { passes: true }) => Taken::First,
            // What the way that leads says holds.
            Some(Found::Conflicts) if leads => Taken::First,
            _ if may_pass => Taken::Again,
            _ => Taken::Unproven,
        }
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

    fn begin_judgement(&mut self) {
        (self.led, self.followed, self.matched, self.conflicts) = (0, 0, 0, 0);
    }

    /// Where this number of its stream is remembered, which is begun where it is new. None outside the window, but for the
    /// way that leads, whose source began anew; and none for one source too many that the other way alone knows of.
    fn slot(&mut self, header: &rtp::Header, leads: bool) -> Option<&mut Slot> {
        let known = self.streams.iter().position(|stream| stream.ssrc == header.ssrc);
        let place = match known {
            Some(place) => place,
            None if self.streams.len() < STREAMS_MAX => self.begin(header),
            None if leads => {
                self.streams.remove(0);
                self.begin(header)
            }
            None => return None,
        };
        self.streams[place].slot(header.sequence, leads)
    }

    fn begin(&mut self, header: &rtp::Header) -> usize {
        self.streams.push(Stream {
            ssrc: header.ssrc,
            highest: header.sequence,
            slots: Box::new([Slot::default(); WINDOW as usize]),
        });
        self.streams.len() - 1
    }
}

impl Stream {
    fn slot(&mut self, sequence: u16, leads: bool) -> Option<&mut Slot> {
        let ahead = sequence_ahead(sequence, self.highest);
        if ahead.unsigned_abs() >= WINDOW {
            if !leads {
                return None;
            }
            self.slots.fill(Slot::default());
            self.highest = sequence;
        }
        if ahead > 0 {
            self.highest = sequence;
        }
        let slot = &mut self.slots[usize::from(sequence % WINDOW)];
        if slot.sequence != sequence {
            *slot = Slot { sequence, ..Slot::default() };
        }
        Some(slot)
    }
}

/// How a packet stands to what the other way delivered under its number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Found {
    /// Nothing, so far.
    Alone { passes: bool },
    /// The same.
    Matches { passes: bool },
    /// Something else.
    Conflicts,
}

impl Slot {
    fn take(&mut self, way: u8, leads: bool, may_pass: bool, trace: u32) -> Found {
        if self.ways & way != 0 && self.trace != trace {
            // Its source began anew under a number that it used before.
            *self = Slot { sequence: self.sequence, ..Slot::default() };
        }
        let others = self.ways & !way != 0;
        if others && self.trace != trace {
            if leads {
                *self = Slot { sequence: self.sequence, ways: way, passed: true, trace };
            }
            return Found::Conflicts;
        }
        let matches = others && self.ways & way == 0;
        let passes = may_pass && !self.passed;
        self.ways |= way;
        self.trace = trace;
        self.passed |= passes;
        if matches { Found::Matches { passes } } else { Found::Alone { passes } }
    }
}

fn bit(way: Way) -> u8 {
    1 << way as u8
}

/// 32 bits that differ where packets do: no secret, two nodes do not try to look alike.
fn trace(header: &rtp::Header, packet: &[u8]) -> u32 {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet whose payload is its number, unless it is said to be another.
    fn packet(ssrc: u32, sequence: u16, payload: u8) -> Vec<u8> {
        let fields = rtp::Fields {
            payload_type: 111,
            marker: false,
            sequence,
            timestamp: u32::from(sequence) * 960,
            ssrc,
        };
        let mut bytes = Vec::new();
        rtp::write(&fields, &[payload; 21], &mut bytes);
        bytes
    }

    fn take_as(merge: &mut Merge, way: Way, ssrc: u32, sequence: u16, payload: u8) -> Taken {
        let packet = packet(ssrc, sequence, payload);
        merge.take(way, &rtp::Header::parse(&packet).unwrap(), &packet)
    }

    fn take(merge: &mut Merge, way: Way, sequence: u16) -> Taken {
        take_as(merge, way, 7, sequence, sequence as u8)
    }

    /// Two ways that deliver copies, known as such, up to this number.
    fn proven(until: u16) -> Merge {
        let mut merge = Merge::new(Way::A);
        for sequence in until - 8..=until {
            assert_eq!(take(&mut merge, Way::A, sequence), Taken::First);
            take(&mut merge, Way::B, sequence);
        }
        assert!(merge.is_proven());
        merge
    }

    #[test]
    fn of_two_copies_the_first_passes_whichever_way_it_comes() {
        let mut merge = proven(100);
        assert_eq!(take(&mut merge, Way::A, 101), Taken::First);
        assert_eq!(take(&mut merge, Way::B, 101), Taken::Again);
        assert_eq!(take(&mut merge, Way::B, 102), Taken::First);
        assert_eq!(take(&mut merge, Way::A, 102), Taken::Again);
        assert_eq!(take(&mut merge, Way::A, 102), Taken::Again, "a network that doubles packets");
    }

    #[test]
    fn what_one_way_lost_the_other_delivers() {
        let mut merge = proven(100);
        let mut passed = Vec::new();
        for sequence in 101..400 {
            if sequence % 3 != 0 {
                passed.push((sequence, take(&mut merge, Way::A, sequence)));
            }
            if sequence % 3 == 0 || sequence % 5 == 0 {
                passed.push((sequence, take(&mut merge, Way::B, sequence)));
            }
        }
        let first = passed.iter().filter(|(_, taken)| *taken == Taken::First);
        assert!(first.map(|(sequence, _)| *sequence).eq(101..400));
    }

    #[test]
    fn a_way_has_to_prove_that_it_delivers_copies_before_they_pass() {
        let mut merge = Merge::new(Way::A);
        for sequence in 1..=3 {
            // It is ahead of the one that leads, and nothing of it passes yet.
            assert_eq!(take(&mut merge, Way::B, sequence), Taken::Unproven);
            assert_eq!(take(&mut merge, Way::A, sequence), Taken::First);
        }
        assert_eq!(take(&mut merge, Way::B, 4), Taken::Unproven);
        assert_eq!(take(&mut merge, Way::A, 4), Taken::First);
        assert_eq!(take(&mut merge, Way::B, 5), Taken::First);
    }

    #[test]
    fn another_source_or_other_numbers_are_no_copies() {
        for (ssrc, ahead) in [(8, 0), (7, 5_000)] {
            let mut merge = Merge::new(Way::A);
            let mut told = 0;
            for sequence in 0..200 {
                assert_eq!(take(&mut merge, Way::A, sequence), Taken::First);
                match take_as(&mut merge, Way::B, ssrc, sequence + ahead, 1) {
                    Taken::Unalike => told += 1,
                    Taken::Unproven | Taken::Again => {}
                    Taken::First => panic!("{sequence} of a stranger passed"),
                }
            }
            assert_eq!(told, 1);
        }
    }

    #[test]
    fn another_payload_under_the_same_number_is_no_copy() {
        let mut merge = proven(100);
        let mut told = Vec::new();
        for sequence in 101..110 {
            assert_eq!(take(&mut merge, Way::A, sequence), Taken::First);
            told.push(take_as(&mut merge, Way::B, 7, sequence, 255));
        }
        assert_eq!(told.iter().filter(|taken| **taken == Taken::Unalike).count(), 1);
        assert!(!told.contains(&Taken::First));
    }

    #[test]
    fn where_the_way_that_leads_is_gone_the_other_goes_on_and_nothing_passes_twice() {
        let mut merge = proven(100);
        for sequence in 101..200 {
            assert_eq!(take(&mut merge, Way::A, sequence), Taken::First);
        }
        merge.turn();
        assert_eq!(merge.leads(), Way::B);
        for sequence in 101..200 {
            assert_eq!(take(&mut merge, Way::B, sequence), Taken::Again, "99 packets behind");
        }
        assert_eq!(take(&mut merge, Way::B, 200), Taken::First);
        merge.replace();
        assert!(!merge.is_proven());
        assert_eq!(take(&mut merge, Way::A, 201), Taken::Unproven, "another one");
    }

    #[test]
    fn a_copy_that_comes_after_the_window_passes_no_more() {
        let mut merge = proven(100);
        take(&mut merge, Way::A, 101 + WINDOW - 1);
        assert_eq!(take(&mut merge, Way::B, 101), Taken::First, "within, and missing");
        take(&mut merge, Way::A, 101 + WINDOW + 1);
        assert_eq!(take(&mut merge, Way::B, 102), Taken::Again);
    }

    #[test]
    fn a_source_that_begins_anew_passes_by_the_way_that_leads() {
        let mut merge = proven(10_000);
        assert_eq!(take(&mut merge, Way::A, 100), Taken::First);
        assert_eq!(take(&mut merge, Way::A, 101), Taken::First);
        assert_eq!(take(&mut merge, Way::B, 101), Taken::Again);
        assert_eq!(take(&mut merge, Way::B, 102), Taken::First);
        // Near the old numbers, with other contents.
        assert_eq!(take_as(&mut merge, Way::A, 7, 101, 99), Taken::First);
    }

    #[test]
    fn numbers_go_around() {
        let mut merge = proven(65_530);
        for sequence in (65_531..=65_535).chain(0..40) {
            assert_eq!(take(&mut merge, Way::A, sequence), Taken::First);
            assert_eq!(take(&mut merge, Way::B, sequence), Taken::Again);
        }
    }

    #[test]
    fn strangers_do_not_push_out_the_stream_that_leads() {
        let mut merge = proven(100);
        for ssrc in 1_000..1_040 {
            take_as(&mut merge, Way::B, ssrc, 1, 1);
        }
        take(&mut merge, Way::A, 101);
        assert_eq!(take(&mut merge, Way::B, 101), Taken::Again);
    }
}
