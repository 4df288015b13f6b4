//! `thin`: the client is sent fewer frames of video, and only such as it can decode.

use std::ops::RangeInclusive;

use crate::action::{Action, ActionFacts, DegradedSession, MediaLimits};
use crate::offer::{ExtensionUri, MediaDescription, StreamKind};
use crate::registry::{Metric, Op};

/// Codecs whose payloads tell which frames others need. AV1 needs a header extension.
const CODECS: [&str; 3] = ["vp8", "vp9", "h264"];

/// The argument is 1: without the frames to which no other refers, and those of the highest temporal layer; or 2: with those of the base
/// layer alone.
pub(super) struct Thin;

impl Action for Thin {
    fn range(&self, _: &ActionFacts<'_>) -> RangeInclusive<u32> {
        1..=2
    }

    fn limit(&self, arg: u32, media: &MediaDescription, limits: &mut MediaLimits) {
        let video = media.streams.iter().filter(|stream| stream.kind == StreamKind::Video);
        let mut codecs = video.flat_map(|stream| &stream.payload_types).map(|it| &it.codec);
        let is_described = media.extension(&ExtensionUri::DependencyDescriptor).is_some();
        let is_read = |name: &str| {
            CODECS.iter().any(|codec| codec.eq_ignore_ascii_case(name))
                || is_described && name.eq_ignore_ascii_case("av1")
        };
        if media.srtp.is_readable() && codecs.any(|codec| is_read(codec)) {
            limits.thin = limits.thin.max(arg.min(2) as u8);
        }
    }

    fn metric(&self) -> Option<Metric> {
        Some(Metric::Thin)
    }

    fn raise(&self, session: &DegradedSession<'_>) -> Option<u32> {
        session.decided.of(Op::Thin).checked_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::ActionArguments;
    use crate::device::DeviceLimits;
    use crate::offer::{
        FeedbackSupport, HeaderExtension, MediaStream, PayloadType, RtcpPort, Srtp,
    };
    use crate::settings::CapBounds;
    use crate::{GuardRule, Plan};

    const BOUNDS: CapBounds = CapBounds { floor_kbps: 24, ceiling_kbps: 2_000 };

    fn media(kind: StreamKind, codec: &str, srtp: Srtp) -> MediaDescription {
        let stream = MediaStream {
            kind,
            payload_types: vec![PayloadType::new(96, codec, 90_000)],
            feedback: FeedbackSupport::default(),
            bitrate_kbps: None,
        };
        MediaDescription::new(vec![stream], RtcpPort::Mux, srtp)
    }

    #[test]
    fn thin_takes_two_steps_and_is_a_rung() {
        let (media, device) =
            (media(StreamKind::Video, "VP8", Srtp::Plain), DeviceLimits::default());
        let facts = ActionFacts { media: &media, bounds: BOUNDS, device: &device };
        for (arg, thin) in
            [(0, Ok(0)), (1, Ok(1)), (2, Ok(2)), (3, Err(GuardRule::ArgumentOutOfBounds))]
        {
            let plan = Plan::default().after(Op::Thin, arg, &facts);
            assert_eq!(plan.map(|plan| plan.limits(&facts).thin), thin);
            assert_eq!(plan.map_or(0, |plan| plan.rung()), u8::from(arg == 1 || arg == 2));
        }
    }

    #[test]
    fn video_whose_frames_cannot_be_read_is_not_thinned() {
        for (kind, codec, srtp, thins) in [
            (StreamKind::Video, "VP9", Srtp::Terminated, true),
            (StreamKind::Video, "h264", Srtp::Plain, true),
            (StreamKind::Video, "AV1", Srtp::Plain, false),
            (StreamKind::Video, "VP8", Srtp::Opaque, false),
            (StreamKind::Audio, "VP8", Srtp::Plain, false),
        ] {
            let plan = Plan::default().with(Op::Thin, 1, &media(kind, codec, srtp));
            assert_eq!(plan.arg(Op::Thin), u32::from(thins), "{codec} {srtp:?}");
        }
        let uri = ExtensionUri::DependencyDescriptor;
        for (codec, thins) in [("AV1", true), ("H265", false)] {
            let mut media = media(StreamKind::Video, codec, Srtp::Plain);
            media.extensions.push(HeaderExtension { id: 12, uri: uri.clone() });
            let plan = Plan::default().with(Op::Thin, 1, &media);
            assert_eq!(plan.arg(Op::Thin), u32::from(thins), "{codec} with descriptors");
        }
    }

    #[test]
    fn native_ladder_restores_frames_and_drops_none() {
        let (media, device) =
            (media(StreamKind::Video, "VP8", Srtp::Plain), DeviceLimits::default());
        for (arg, raise) in [(0, None), (1, Some(0)), (2, Some(1))] {
            let mut decided = ActionArguments::default();
            decided.set(Op::Thin, arg);
            let session = DegradedSession {
                facts: ActionFacts { media: &media, bounds: BOUNDS, device: &device },
                decided,
                in_force: decided,
                obeys_caps: false,
                sent_kbps: None,
            };
            assert_eq!((Thin.lower(&session), Thin.raise(&session)), (None, raise));
        }
    }
}
