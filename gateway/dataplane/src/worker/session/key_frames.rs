//! Requests of nodes for key frames of the client's video. However many receivers ask, each stream is asked once in a time.

use std::time::{Duration, Instant};

use evenkeel_media::instant;
use evenkeel_media::rtcp::rewrite;
use serde::{Deserialize, Serialize};

/// Limit of video streams of one client that receive key-frame requests.
pub(super) const FEEDBACK_SOURCES_MAX: usize = 8;

/// Limit of streams of which one compound packet of a client requests key frames: more than clients show at once, and few
/// enough that a packet does not become a burst at the senders.
const REQUESTS_MAX: usize = 32;

/// Minimum interval of requests for a stream. A sender needs about this time to answer, and an earlier request would cause a second
/// key frame.
pub(super) const KEY_FRAME_EVERY: Duration = Duration::from_millis(300);

/// The last requests, by stream.
#[derive(Clone, Default, Serialize, Deserialize, Debug)]
pub(super) struct KeyFrameRequests(Vec<AskedStream>);

#[derive(Clone, Copy, Serialize, Deserialize, Debug)]
struct AskedStream {
    ssrc: u32,
    #[serde(with = "instant")]
    at: Instant,
    /// A later request waits for the end of the interval.
    again: bool,
    /// A key frame has come since.
    #[serde(default)]
    answered: bool,
}

impl AskedStream {
    /// `asked_all`: the time at which the gateway asked all streams.
    fn is_recent(&self, asked_all: Option<Instant>, now: Instant) -> bool {
        let last = asked_all.map_or(self.at, |at| at.max(self.at));
        now.saturating_duration_since(last) < KEY_FRAME_EVERY
    }
}

/// Removes requests of a client for streams of which an earlier packet of the compound packet requests a key frame, and those of more
/// than [`REQUESTS_MAX`] streams: a node sends each request on in a datagram of its own. Returns the length of the compound packet.
pub(super) fn coalesce(compound: &mut [u8]) -> usize {
    let mut asked = Vec::new();
    rewrite::retain_key_frame_requests(compound, |media| {
        let is_wanted = asked.len() < REQUESTS_MAX && !asked.contains(&media);
        if is_wanted {
            asked.push(media);
        }
        is_wanted
    })
}

impl KeyFrameRequests {
    /// Removes the requests for these streams that come too early. They wait for their [turn](KeyFrameRequests::due). Returns the length
    /// of the compound packet. `asked_all`: the time at which the gateway asked all streams.
    pub(super) fn thin(
        &mut self,
        compound: &mut [u8],
        streams: &[u32],
        asked_all: Option<Instant>,
        now: Instant,
    ) -> usize {
        rewrite::retain_key_frame_requests(compound, |media| {
            !streams.contains(&media) || self.ask(media, asked_all, now)
        })
    }

    /// Returns whether the stream is to be asked now.
    fn ask(&mut self, ssrc: u32, asked_all: Option<Instant>, now: Instant) -> bool {
        let KeyFrameRequests(streams) = self;
        let index = streams.iter().position(|stream| stream.ssrc == ssrc).unwrap_or_else(|| {
            if streams.len() == FEEDBACK_SOURCES_MAX {
                streams.remove(0);
            }
            let at = now.checked_sub(KEY_FRAME_EVERY).unwrap_or(now);
            streams.push(AskedStream { ssrc, at, again: false, answered: true });
            streams.len() - 1
        });
        let stream = &mut streams[index];
        stream.again = stream.is_recent(asked_all, now);
        if !stream.again {
            (stream.at, stream.answered) = (now, false);
        }
        !stream.again
    }

    /// A key frame of the stream answers the requests that wait.
    pub(super) fn came(&mut self, ssrc: u32) {
        let streams = self.0.iter_mut().filter(|stream| stream.ssrc == ssrc);
        streams.for_each(|stream| (stream.again, stream.answered) = (false, true));
    }

    /// Returns whether a key frame of the stream was requested within the interval, and is still to come.
    pub(super) fn is_awaited(&self, ssrc: u32, now: Instant) -> bool {
        let stream = self.0.iter().find(|stream| stream.ssrc == ssrc);
        stream.is_some_and(|stream| stream.is_recent(None, now) && !stream.answered)
    }

    /// Returns the streams for which a request has waited long enough.
    pub(super) fn due(&mut self, asked_all: Option<Instant>, now: Instant) -> Vec<u32> {
        let is_due = |it: &&mut AskedStream| it.again && !it.is_recent(asked_all, now);
        let due = self.0.iter_mut().filter(is_due).map(|stream| {
            (stream.at, stream.again, stream.answered) = (now, false, false);
            stream.ssrc
        });
        due.collect()
    }
}
