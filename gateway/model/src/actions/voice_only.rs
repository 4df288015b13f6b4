//! `voice-only`: the client is sent no video.

use std::ops::RangeInclusive;

use crate::action::{Action, ActionFacts, DegradationLimit, DegradedSession, MediaLimits};
use crate::device::DeviceLimits;
use crate::offer::{MediaDescription, StreamKind};
use crate::registry::Op;

/// The argument is 1. A key frame is requested when the video returns.
pub(super) struct VoiceOnly;

impl Action for VoiceOnly {
    fn range(&self, _: &ActionFacts<'_>) -> RangeInclusive<u32> {
        1..=1
    }

    fn limit(&self, _: u32, media: &MediaDescription, limits: &mut MediaLimits) {
        let video = media.streams.iter().filter(|stream| stream.kind == StreamKind::Video);
        limits.withhold(video.flat_map(|stream| &stream.payload_types));
    }

    /// The device decodes none of the video, so none is restored.
    fn exceeds_device(&self, arg: u64, device: &DeviceLimits) -> bool {
        device.voice_only && arg == 0
    }

    fn lower(&self, session: &DegradedSession<'_>) -> Option<u32> {
        let is_watched = session.facts.has_video() && session.decided.of(Op::VoiceOnly) == 0;
        is_watched.then_some(1)
    }

    fn raise(&self, session: &DegradedSession<'_>) -> Option<u32> {
        (session.decided.of(Op::VoiceOnly) > 0).then_some(0)
    }

    fn exhausted(&self, session: &DegradedSession<'_>) -> Option<DegradationLimit> {
        if !session.facts.has_video() {
            return Some(DegradationLimit::NoVideo);
        }
        (session.in_force.of(Op::VoiceOnly) > 0).then_some(DegradationLimit::VideoDropped)
    }
}

#[cfg(test)]
mod tests;
