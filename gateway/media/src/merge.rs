//! Two copies of a stream become one: of what two ways deliver, the first copy of each packet passes
//! (RFC 7198; the semantics of SMPTE ST 2022-7).
//!
//! One way leads, and all it delivers for the first time passes. What the other one delivers of a stream
//! passes as well once it has proved to be a copy: the same SSRC, sequence number, timestamp, payload type
//! and payload. Each stream is proved by itself; of one that is unalike only the way that leads passes.

use crate::rtp;

mod pair;
mod stream;

pub use pair::{Pair, Settled};

use stream::{Alike, Found, Stream};

/// How many packets of a stream are remembered: ten seconds of voice, half a second of video at 10 Mbit/s.
/// A copy that comes later than that passes no more.
pub const WINDOW: u16 = 512;

/// How many streams are followed, as many as continuity does. Beyond it the one silent for longest is forgotten, and a
/// stream that the other way alone delivers makes none forgotten that the way that leads does.
pub const STREAMS_MAX: usize = crate::continuity::STREAMS_MAX;

/// So many packets in a row that only the way that leads delivered, and so many of another stream of that payload type
/// that only the other one did, are no accident: they are the same stream under two names.
const JUDGED_BY: u32 = 64;

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
    /// Its way has still to prove that it delivers copies of this stream, or delivers none.
    Unproven,
}

/// Merges the streams of one receiver. Takes memory when a stream is new, never for a packet: 4 KiB of each, and none
/// beyond [`STREAMS_MAX`].
#[derive(Clone, Debug)]
pub struct Merge {
    leads: Way,
    /// Packets so far: by it the stream that was silent for longest is known.
    taken: u64,
    streams: Vec<Stream>,
}

impl Merge {
    /// Of two ways nothing was heard yet.
    #[must_use]
    pub fn new(leads: Way) -> Merge {
        Merge { leads, taken: 0, streams: Vec::new() }
    }

    /// The way that leads.
    #[must_use]
    pub fn leads(&self) -> Way {
        self.leads
    }

    /// Whether the way that does not lead has proved to deliver copies of some stream.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.streams.iter().any(|stream| stream.alike == Alike::Yes)
    }

    /// The payload types of streams of which the way that does not lead delivers no copies.
    pub fn unalike(&self) -> impl Iterator<Item = u8> {
        let unalike = self.streams.iter().filter(|stream| stream.alike == Alike::No);
        unalike.map(|stream| stream.payload_type)
    }

    /// The way that leads is gone: the other one goes on in its place. What passed is remembered.
    pub fn turn(&mut self) {
        self.leads = self.leads.other();
        self.streams.iter_mut().for_each(Stream::begin_judgement);
    }

    /// The way that does not lead is another one from now on, and has everything to prove.
    pub fn replace(&mut self) {
        let gone = bit(self.leads.other());
        self.streams.iter_mut().for_each(|stream| stream.forget(gone));
    }

    /// A packet that came by one of the ways.
    pub fn take(&mut self, way: Way, header: &rtp::Header, packet: &[u8]) -> Taken {
        let leads = way == self.leads;
        let Some(place) = self.place(header, leads) else {
            return Taken::Unproven;
        };
        self.taken += 1;
        let stream = &mut self.streams[place];
        stream.heard = self.taken;
        let may_pass = leads || stream.alike == Alike::Yes;
        let found = stream.take(bit(way), leads, header, packet);
        if leads && self.goes_by_another_name(place) {
            self.streams[place].alike = Alike::No;
        }
        match found {
            Some(Found::Alone { passes: true } | Found::Matches { passes: true }) => Taken::First,
            // What the way that leads says holds.
            Some(Found::Conflicts) if leads => Taken::First,
            _ if may_pass => Taken::Again,
            _ => Taken::Unproven,
        }
    }

    /// Whether the other way delivers, as it seems, this stream of the way that leads under another SSRC.
    fn goes_by_another_name(&self, place: usize) -> bool {
        let (stream, leads) = (&self.streams[place], bit(self.leads));
        let same = |other: &Stream| {
            other.payload_type == stream.payload_type
                && other.ways & leads == 0
                && other.followed >= JUDGED_BY
        };
        stream.followed == 0 && stream.led >= JUDGED_BY && self.streams.iter().any(same)
    }

    /// Where this stream is followed; begun where it is new. None for one too many that the other way alone delivers.
    fn place(&mut self, header: &rtp::Header, leads: bool) -> Option<usize> {
        let known = self.streams.iter().position(|stream| stream.ssrc == header.ssrc);
        if known.is_some() {
            return known;
        }
        if self.streams.len() < STREAMS_MAX {
            self.streams.push(Stream::new(header));
            return Some(self.streams.len() - 1);
        }
        let lead = bit(self.leads);
        let may_go = |stream: &Stream| leads || stream.ways & lead == 0;
        let streams = self.streams.iter_mut().enumerate().filter(|(_, stream)| may_go(stream));
        let (place, oldest) = streams.min_by_key(|(_, stream)| stream.heard)?;
        oldest.become_another(header);
        Some(place)
    }
}

fn bit(way: Way) -> u8 {
    1 << way as u8
}

#[cfg(test)]
mod tests;
