//! Signs of impaired media besides loss: jitter of the voice from the hop, and key frames that the client owes.

use std::time::{Duration, Instant};

use evenkeel_media::rtp::{ArrivalJitter, RtpHeader};
use evenkeel_media::{instant, key_frame};
use evenkeel_model::{FlowCounts, PayloadType};
use serde::{Deserialize, Serialize};

/// A receiver without a key frame repeats its request within this time; otherwise it needs none any more.
const REPEATED_WITHIN: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Default, Serialize, Deserialize, Debug)]
pub(super) struct MediaSigns {
    jitter: ArrivalJitter,
    /// The first request for a key frame of the client since its last one.
    #[serde(with = "instant::option")]
    first_request: Option<Instant>,
    /// The last one.
    #[serde(with = "instant::option")]
    last_request: Option<Instant>,
}

impl MediaSigns {
    /// The client hears another hop from now on.
    pub(super) fn forget_hop(&mut self) {
        self.jitter = ArrivalJitter::default();
    }

    /// Handles a packet of voice from the hop that the client hears.
    pub(super) fn receive_voice(&mut self, header: &RtpHeader, clock_rate: u32, now: Instant) {
        self.jitter.receive(header, clock_rate, now);
    }

    /// A key frame of the client was requested.
    pub(super) fn note_key_frame_request(&mut self, now: Instant) {
        self.first_request = self.first_request.filter(|_| self.is_repeated(now)).or(Some(now));
        self.last_request = Some(now);
    }

    /// The client owes a key frame.
    pub(super) fn wants_key_frame(&self) -> bool {
        self.first_request.is_some()
    }

    /// Handles a video packet of the client while it owes a key frame. Those of an unknown codec prove nothing.
    pub(super) fn receive_video(&mut self, payload_type: &PayloadType, payload: &[u8]) {
        let begins = key_frame::begins_key_frame(&payload_type.codec, payload);
        if !payload_type.repairs() && begins != Some(false) {
            self.first_request = None;
        }
    }

    fn is_repeated(&self, now: Instant) -> bool {
        let within = |last: Instant| now.saturating_duration_since(last) <= REPEATED_WITHIN;
        self.last_request.is_some_and(within)
    }

    /// Adds these signs to the counts since the last summary.
    pub(super) fn complete(&self, flow: FlowCounts, now: Instant) -> FlowCounts {
        let last = self.last_request.filter(|_| self.is_repeated(now));
        let missing = self.first_request.zip(last);
        let missing = missing.map(|(first, last)| last.saturating_duration_since(first));
        let jitter_us = (flow.received[0] > 0).then(|| self.jitter.us());
        FlowCounts {
            jitter_us: jitter_us.map(|us| us.try_into().unwrap_or(u32::MAX)),
            key_frame_missing_ms: missing.unwrap_or_default().as_millis() as u32,
            ..flow
        }
    }
}
