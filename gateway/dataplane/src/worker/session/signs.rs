//! Signs of impaired media besides loss: jitter of the voice from the hop, key frames that were requested and did not come,
//! and voice that never had any sound.

use std::time::{Duration, Instant};

use evenkeel_media::rtp::{ArrivalJitter, RtpHeader};
use evenkeel_media::{instant, key_frame, quality};
use evenkeel_model::{FlowCounts, PayloadType, StreamKind};
use serde::{Deserialize, Serialize};

/// A receiver without a key frame repeats its request within this time; otherwise it needs none any more.
const REPEATED_WITHIN: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Default, Serialize, Deserialize, Debug)]
pub(super) struct MediaSigns {
    /// In the time of this worker: a copy begins anew.
    jitter: ArrivalJitter,
    /// The first request for a key frame of the client since its last one.
    #[serde(with = "instant::option")]
    first_request: Option<Instant>,
    /// The last such request.
    #[serde(with = "instant::option")]
    last_request: Option<Instant>,
    /// The last video packet of the client since the first request.
    #[serde(with = "instant::option")]
    last_video: Option<Instant>,
    /// Voice packets of the client so far. `None` once one of them has sound, or if that is unknown.
    silent_voice: Option<u32>,
}

impl MediaSigns {
    /// Signs of a new session. `is_readable`: its payload is not encrypted.
    pub(super) fn new(is_readable: bool) -> MediaSigns {
        MediaSigns { silent_voice: is_readable.then_some(0), ..MediaSigns::default() }
    }

    /// The client hears another hop from now on.
    pub(super) fn forget_hop(&mut self) {
        self.jitter = ArrivalJitter::default();
    }

    /// Handles a packet of voice from the hop that the client hears, read in the pass that began at `now_us`.
    #[inline]
    pub(super) fn receive_voice(&mut self, header: &RtpHeader, clock_rate: u32, now_us: i64) {
        self.jitter.receive(header, clock_rate, now_us);
    }

    /// A key frame of the client was requested.
    pub(super) fn note_key_frame_request(&mut self, now: Instant) {
        if self.first_request.is_none() || !self.is_repeated(now) {
            (self.first_request, self.last_video) = (Some(now), None);
        }
        self.last_request = Some(now);
    }

    /// The next packet of this kind from the client is inspected.
    #[inline]
    pub(super) fn inspects(&self, kind: StreamKind) -> bool {
        match kind {
            StreamKind::Audio => self.silent_voice.is_some(),
            StreamKind::Video => self.first_request.is_some(),
        }
    }

    /// Looks for sound, or a key frame. Packets of an unknown codec may have them. Returns whether the packet begins a key frame.
    pub(super) fn inspect(
        &mut self,
        kind: StreamKind,
        payload_type: &PayloadType,
        payload: &[u8],
        now: Instant,
    ) -> bool {
        let codec = &payload_type.codec;
        if payload_type.repairs() {
            return false;
        }
        if kind == StreamKind::Audio {
            let is_silent = quality::is_silent(codec, payload) == Some(true);
            let silent = self.silent_voice.filter(|_| is_silent);
            self.silent_voice = silent.map(|packets| packets.saturating_add(1));
            return false;
        }
        let begins = key_frame::begins_key_frame(codec, payload);
        if begins == Some(false) && self.is_repeated(now) {
            self.last_video = Some(now);
        } else {
            self.first_request = None;
        }
        begins == Some(true)
    }

    fn is_repeated(&self, now: Instant) -> bool {
        let within = |last: Instant| now.saturating_duration_since(last) <= REPEATED_WITHIN;
        self.last_request.is_some_and(within)
    }

    /// Time for which requests and video without a key frame went on.
    fn key_frame_missing(&self, now: Instant) -> Option<Duration> {
        let last = self.last_video?.min(self.last_request?);
        let missing = last.saturating_duration_since(self.first_request?);
        self.is_repeated(now).then_some(missing)
    }

    /// Adds these signs to the counts since the last summary.
    pub(super) fn complete(&self, flow: FlowCounts, now: Instant) -> FlowCounts {
        let jitter_us = (flow.received[0] > 0).then(|| self.jitter.us());
        let missing = self.key_frame_missing(now).unwrap_or_default();
        FlowCounts {
            jitter_us: jitter_us.map(|us| us.try_into().unwrap_or(u32::MAX)),
            key_frame_missing_ms: missing.as_millis() as u32,
            silent_voice: self.silent_voice.unwrap_or(0),
            ..flow
        }
    }
}
