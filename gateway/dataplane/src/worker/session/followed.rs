//! The streams of a client that a repair or a request follows: bounded lists by SSRC.

use std::time::{Duration, Instant};

/// Streams that are followed at one time: the speakers of a conference, or its pictures that are seen.
const STREAMS_MAX: usize = 4;

/// A stream without packets for this time gives its place to another one. Silent voice sends a packet every 400 ms.
const SILENT_FOR: Duration = Duration::from_secs(1);

/// The states of streams, by the SSRC that the client gets.
#[derive(Debug)]
pub(super) struct FollowedStreams<T> {
    streams: Vec<FollowedStream<T>>,
}

#[derive(Debug)]
struct FollowedStream<T> {
    ssrc: u32,
    last_packet_at: Instant,
    state: T,
}

impl<T> FollowedStreams<T> {
    pub(super) fn new() -> FollowedStreams<T> {
        FollowedStreams { streams: Vec::new() }
    }

    /// Returns the state of a stream that has a packet now. `None` if there is no place for it: another stream would lose its place with
    /// each packet.
    pub(super) fn follow(
        &mut self,
        ssrc: u32,
        now: Instant,
        begin: impl FnOnce() -> T,
    ) -> Option<&mut T> {
        let known = self.streams.iter().position(|stream| stream.ssrc == ssrc);
        if known.is_none() {
            if self.streams.len() == STREAMS_MAX {
                let is_silent = |stream: &FollowedStream<T>| {
                    now.saturating_duration_since(stream.last_packet_at) >= SILENT_FOR
                };
                let ended = self.streams.iter().position(is_silent)?;
                self.streams.remove(ended);
            }
            self.streams.push(FollowedStream { ssrc, last_packet_at: now, state: begin() });
        }
        let place = known.unwrap_or(self.streams.len() - 1);
        let stream = &mut self.streams[place];
        stream.last_packet_at = now;
        Some(&mut stream.state)
    }

    pub(super) fn get(&self, ssrc: u32) -> Option<&T> {
        self.iter().find(|(known, _)| *known == ssrc).map(|(_, state)| state)
    }

    pub(super) fn get_mut(&mut self, ssrc: u32) -> Option<&mut T> {
        let stream = self.streams.iter_mut().find(|stream| stream.ssrc == ssrc)?;
        Some(&mut stream.state)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.streams.iter().map(|stream| (stream.ssrc, &stream.state))
    }

    pub(super) fn states_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.streams.iter_mut().map(|stream| &mut stream.state)
    }
}

/// Returns the item that `is_it` finds in a bounded list. A new one takes the place of the oldest.
#[inline]
pub(super) fn find_or_push<T>(
    list: &mut Vec<T>,
    max: usize,
    is_it: impl FnMut(&T) -> bool,
    new: impl FnOnce() -> T,
) -> &mut T {
    let place = place_or_push(list, max, is_it, new);
    &mut list[place]
}

/// The same, for a caller that uses other fields beside the item: returns its place.
#[inline]
pub(super) fn place_or_push<T>(
    list: &mut Vec<T>,
    max: usize,
    is_it: impl FnMut(&T) -> bool,
    new: impl FnOnce() -> T,
) -> usize {
    list.iter().position(is_it).unwrap_or_else(|| {
        if list.len() == max {
            list.remove(0);
        }
        list.push(new());
        list.len() - 1
    })
}
