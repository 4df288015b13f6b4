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
mod tests {
    use super::*;
    use crate::action::ActionArguments;
    use crate::offer::{FeedbackSupport, MediaStream, PayloadType, RtcpPort, Srtp};
    use crate::settings::CapBounds;
    use crate::{GuardRule, Plan};

    const BOUNDS: CapBounds = CapBounds { floor_kbps: 24, ceiling_kbps: 2_000 };

    fn stream(kind: StreamKind, numbers: &[u8]) -> MediaStream {
        let payload = |&number| PayloadType::new(number, "x", 90_000);
        MediaStream {
            kind,
            payload_types: numbers.iter().map(payload).collect(),
            feedback: FeedbackSupport::default(),
            bitrate_kbps: None,
        }
    }

    fn media(video: bool) -> MediaDescription {
        let mut streams =
            vec![stream(StreamKind::Audio, &[111]), stream(StreamKind::Video, &[96, 97])];
        streams.truncate(1 + usize::from(video));
        MediaDescription::new(streams, RtcpPort::Mux, Srtp::Plain)
    }

    #[test]
    fn voice_only_withholds_video_and_never_voice() {
        let (media, device) = (media(true), DeviceLimits::default());
        let facts = ActionFacts { media: &media, bounds: BOUNDS, device: &device };
        let plan = Plan::default().after(Op::VoiceOnly, 1, &facts).unwrap();
        let withheld = [96, 97, 111].map(|number| plan.limits(&facts).withholds(number));
        assert_eq!((withheld, plan.rung()), ([true, true, false], 1));
        assert_eq!(plan.after(Op::VoiceOnly, 0, &facts), Ok(Plan::default()));
        assert_eq!(plan.after(Op::VoiceOnly, 2, &facts), Err(GuardRule::ArgumentOutOfBounds));
    }

    #[test]
    fn session_without_video_has_no_rung() {
        let (voice, device) = (media(false), DeviceLimits::default());
        let facts = ActionFacts { media: &voice, bounds: BOUNDS, device: &device };
        assert_eq!(Plan::default().after(Op::VoiceOnly, 1, &facts), Ok(Plan::default()));
        let plan = Plan::default().with(Op::VoiceOnly, 1, &media(true));
        assert_eq!(plan.on(&voice), Plan::default(), "its video ended");
    }

    #[test]
    fn device_without_a_decoder_stays_voice_only() {
        let (media, device) =
            (media(true), DeviceLimits { voice_only: true, ..DeviceLimits::default() });
        let facts = ActionFacts { media: &media, bounds: BOUNDS, device: &device };
        let plan = Plan::default().after(Op::VoiceOnly, 1, &facts).unwrap();
        assert_eq!(plan.after(Op::VoiceOnly, 0, &facts), Err(GuardRule::AboveDevice));
    }

    #[test]
    fn ladder_drops_video_once_and_restores_it() {
        for (video, decodes, taken, lower, raise, limit) in [
            (true, true, 0, Some(1), None, None),
            (true, true, 1, None, Some(0), Some(DegradationLimit::VideoDropped)),
            (true, false, 0, None, None, Some(DegradationLimit::NoVideo)),
            (false, true, 0, None, None, Some(DegradationLimit::NoVideo)),
        ] {
            let device = DeviceLimits { voice_only: !decodes, ..DeviceLimits::default() };
            let media = media(video);
            let mut decided = ActionArguments::default();
            decided.set(Op::VoiceOnly, taken);
            let session = DegradedSession {
                facts: ActionFacts { media: &media, bounds: BOUNDS, device: &device },
                decided,
                in_force: decided,
                obeys_caps: false,
                sent_kbps: None,
            };
            let steps = (VoiceOnly.lower(&session), VoiceOnly.raise(&session));
            assert_eq!((steps, VoiceOnly.exhausted(&session)), ((lower, raise), limit), "{video}");
        }
    }
}
