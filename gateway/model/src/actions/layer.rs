//! `layer`: the client is sent no simulcast layer of video above this one.

use std::ops::RangeInclusive;

use crate::action::{Action, ActionFacts, DegradedSession, MediaLimits};
use crate::offer::{LAYERS_MAX, MediaDescription};
use crate::registry::Op;

const HIGHEST: u32 = LAYERS_MAX as u32;

/// The argument is the number of the highest layer, from 1 on. Senders of layers may come later, so that it is in force also while there is none.
pub(super) struct Layer;

impl Action for Layer {
    fn range(&self, _: &ActionFacts<'_>) -> RangeInclusive<u32> {
        1..=HIGHEST
    }

    fn limit(&self, arg: u32, media: &MediaDescription, limits: &mut MediaLimits) {
        if media.srtp.is_readable() && media.has_video() {
            limits.layer = arg.min(HIGHEST) as u8;
        }
    }

    fn raise(&self, session: &DegradedSession<'_>) -> Option<u32> {
        match session.decided.of(Op::Layer) {
            0 => None,
            highest @ 1..HIGHEST => Some(highest + 1),
            _ => Some(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::ActionArguments;
    use crate::device::DeviceLimits;
    use crate::offer::{FeedbackSupport, MediaStream, PayloadType, RtcpPort, Srtp, StreamKind};
    use crate::settings::CapBounds;
    use crate::{GuardRule, Plan};

    const BOUNDS: CapBounds = CapBounds { floor_kbps: 24, ceiling_kbps: 2_000 };

    fn media(kind: StreamKind, srtp: Srtp) -> MediaDescription {
        let stream = MediaStream {
            kind,
            payload_types: vec![PayloadType::new(96, "VP8", 90_000)],
            feedback: FeedbackSupport::default(),
            bitrate_kbps: None,
        };
        MediaDescription::new(vec![stream], RtcpPort::Mux, srtp)
    }

    #[test]
    fn layer_takes_four_numbers_and_is_a_rung() {
        let (media, device) = (media(StreamKind::Video, Srtp::Plain), DeviceLimits::default());
        let facts = ActionFacts { media: &media, bounds: BOUNDS, device: &device };
        for (arg, layer) in
            [(0, Ok(0)), (1, Ok(1)), (4, Ok(4)), (5, Err(GuardRule::ArgumentOutOfBounds))]
        {
            let plan = Plan::default().after(Op::Layer, arg, &facts);
            assert_eq!(plan.map(|plan| plan.limits(&facts).layer), layer);
            assert_eq!(plan.map_or(0, |plan| plan.rung()), u8::from(arg == 1 || arg == 4));
        }
    }

    #[test]
    fn session_without_readable_video_has_no_layer() {
        for (kind, srtp, has_effect) in [
            (StreamKind::Video, Srtp::Terminated, true),
            (StreamKind::Video, Srtp::Opaque, false),
            (StreamKind::Audio, Srtp::Plain, false),
        ] {
            let plan = Plan::default().with(Op::Layer, 1, &media(kind, srtp));
            assert_eq!(plan.arg(Op::Layer), u32::from(has_effect), "{kind:?} {srtp:?}");
        }
    }

    #[test]
    fn native_ladder_restores_layers_and_drops_none() {
        let (media, device) = (media(StreamKind::Video, Srtp::Plain), DeviceLimits::default());
        for (arg, raise) in [(0, None), (1, Some(2)), (3, Some(4)), (4, Some(0))] {
            let mut decided = ActionArguments::default();
            decided.set(Op::Layer, arg);
            let session = DegradedSession {
                facts: ActionFacts { media: &media, bounds: BOUNDS, device: &device },
                decided,
                in_force: decided,
                obeys_caps: false,
                sent_kbps: None,
            };
            assert_eq!((Layer.lower(&session), Layer.raise(&session)), (None, raise));
        }
    }
}
