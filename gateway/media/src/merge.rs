//! Merges two copies of a stream: the first copy of each packet passes (RFC 7198; the semantics of
//! SMPTE ST 2022-7).
//!
//! One path leads, and all its packets pass unless a copy did. Packets of the other path pass once
//! it has proved to deliver copies of the stream: same SSRC, sequence number, timestamp, payload
//! type and payload. Each stream is proved separately; of a stream that differs, only the leading
//! path passes.

use crate::rtp;

mod pair;
mod stream;

pub use pair::{Pair, Settled};

use stream::{Alike, Found, Stream};

/// Packets remembered per stream: ten seconds of voice, half a second of video at 10 Mbit/s. A
/// later copy is dropped.
pub const WINDOW: u16 = 512;

/// Streams followed, as many as in continuity. Above it the stream silent longest is forgotten; a
/// stream of the other path alone never replaces one of the leading path.
pub const STREAMS_MAX: usize = crate::continuity::STREAMS_MAX;

/// So many packets in a row of a stream from the leading path alone, and of another stream of that
/// payload type from the other path alone: they are one stream under two SSRCs.
const JUDGED_BY: u32 = 64;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    A = 0,
    B = 1,
}

impl Way {
    #[must_use]
    pub fn other(self) -> Way {
        match self {
            Way::A => Way::B,
            Way::B => Way::A,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MergeOutcome {
    /// It passes: no copy of it did.
    First,
    /// A copy passed, or it is older than the window.
    Again,
    /// Its path has not proved to deliver copies of this stream, or delivers none.
    Unproven,
}

/// Merges the streams of a receiver. Allocates 4 KiB when a stream is new, for at most
/// [`STREAMS_MAX`], and never per packet.
#[derive(Clone, Debug)]
pub struct Merge {
    leads: Way,
    /// Packets so far; orders streams by when they were heard.
    taken: u64,
    streams: Vec<Stream>,
}

impl Merge {
    #[must_use]
    pub fn new(leads: Way) -> Merge {
        Merge { leads, taken: 0, streams: Vec::new() }
    }

    #[must_use]
    pub fn leads(&self) -> Way {
        self.leads
    }

    /// True if the other path has proved to deliver copies of some stream.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.streams.iter().any(|stream| stream.alike == Alike::Yes)
    }

    /// Payload types of streams of which the other path delivers no copies.
    pub fn differing(&self) -> impl Iterator<Item = u8> {
        let differing = self.streams.iter().filter(|stream| stream.alike == Alike::No);
        differing.map(|stream| stream.payload_type)
    }

    /// The leading path is gone: the other one leads. Packets that passed are remembered.
    pub fn turn(&mut self) {
        self.leads = self.leads.other();
        self.streams.iter_mut().for_each(Stream::begin_judgement);
    }

    /// The path that does not lead is replaced; the new one has to prove itself.
    pub fn replace(&mut self) {
        let gone = bit(self.leads.other());
        self.streams.iter_mut().for_each(|stream| stream.forget(gone));
    }

    /// Handles a packet from one of the paths.
    pub fn take(&mut self, way: Way, header: &rtp::Header, packet: &[u8]) -> MergeOutcome {
        let leads = way == self.leads;
        let Some(place) = self.place(header, leads) else {
            return MergeOutcome::Unproven;
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
            Some(Found::Alone { passes: true } | Found::Matches { passes: true }) => {
                MergeOutcome::First
            }
            // The leading path decides.
            Some(Found::Conflicts) if leads => MergeOutcome::First,
            _ if may_pass => MergeOutcome::Again,
            _ => MergeOutcome::Unproven,
        }
    }

    /// True if the other path seems to deliver this stream under another SSRC.
    fn goes_by_another_name(&self, place: usize) -> bool {
        let (stream, leads) = (&self.streams[place], bit(self.leads));
        let same = |other: &Stream| {
            other.payload_type == stream.payload_type
                && other.ways & leads == 0
                && other.followed >= JUDGED_BY
        };
        stream.followed == 0 && stream.led >= JUDGED_BY && self.streams.iter().any(same)
    }

    /// Index of a stream, which is added if new. None for a stream of the other path beyond the
    /// limit.
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
