//! Merges two copies of a stream: the first copy of each packet passes (RFC 7198; the semantics of
//! SMPTE ST 2022-7).
//!
//! One path leads: all its packets pass, except those of which a copy has passed. Packets of the
//! other path pass once it has proved to deliver copies of the stream: same SSRC, sequence number,
//! timestamp, payload type and payload. Each stream is proved separately. If the paths differ in a
//! stream, only the leading path passes.

use crate::rtp;
use serde::{Deserialize, Serialize};

mod pair;
mod stream;

pub use pair::{HopPair, Settled};

use stream::{Alike, MergeMatch, MergedStream};

/// Packets remembered per stream: ten seconds of voice, half a second of video at 10 Mbit/s. A
/// later copy is dropped.
pub(crate) const WINDOW: u16 = 512;

/// Limit of streams, the same as in continuity. Above it the stream that has been silent longest is
/// forgotten. A stream of only the other path never replaces one of the leading path.
pub(crate) const STREAMS_MAX: usize = crate::continuity::STREAMS_MAX;

/// Number of consecutive packets of a stream from only the leading path, and of another stream of
/// that payload type from only the other path, after which both are treated as one stream under two
/// SSRCs.
const JUDGED_BY: u32 = 64;

/// One of the two paths of a merged stream.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub enum MergePath {
    /// The first hop.
    A = 0,
    /// Its twin.
    B = 1,
}

impl MergePath {
    pub(crate) fn other(self) -> MergePath {
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
pub struct Merge {
    leads: MergePath,
    /// Number of packets so far; orders streams by their last packet.
    taken: u64,
    streams: Vec<MergedStream>,
}

impl Merge {
    pub(crate) fn new(leads: MergePath) -> Merge {
        Merge { leads, taken: 0, streams: Vec::new() }
    }

    pub(crate) fn leads(&self) -> MergePath {
        self.leads
    }

    /// Returns whether the other path has proved to deliver copies of some stream.
    pub(crate) fn is_proven(&self) -> bool {
        self.streams.iter().any(|stream| stream.alike == Alike::Yes)
    }

    /// Returns payload types of streams in which the other path delivers different packets.
    pub(crate) fn differing(&self) -> impl Iterator<Item = u8> {
        let differing = self.streams.iter().filter(|stream| stream.alike == Alike::No);
        differing.map(|stream| stream.payload_type)
    }

    /// Makes the other path lead after the leading one is gone. Remembers the packets that passed.
    pub(crate) fn turn(&mut self) {
        self.leads = self.leads.other();
        self.streams.iter_mut().for_each(MergedStream::begin_judgement);
    }

    /// Replaces the path that does not lead. The new path must prove itself.
    pub(crate) fn replace(&mut self) {
        let gone = bit(self.leads.other());
        self.streams.iter_mut().for_each(|stream| stream.forget(gone));
    }

    /// Handles a packet from one of the paths.
    pub(crate) fn take(
        &mut self,
        way: MergePath,
        header: &rtp::RtpHeader,
        packet: &[u8],
    ) -> MergeOutcome {
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
                && other.ways & leads == 0
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
        let may_go = |stream: &MergedStream| leads || stream.ways & lead == 0;
        let streams = self.streams.iter_mut().enumerate().filter(|(_, stream)| may_go(stream));
        let (place, oldest) = streams.min_by_key(|(_, stream)| stream.heard)?;
        oldest.become_another(header);
        Some(place)
    }
}

fn bit(way: MergePath) -> u8 {
    1 << way as u8
}

#[cfg(test)]
mod tests;
