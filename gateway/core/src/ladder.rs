//! Degradation: what a session gets now, and what each rung sheds.

use crate::{Kind, Media, Op};

/// What an accepted decision became for one session.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Plan {
    /// Cap on its rate, kbit/s; 0: none.
    pub cap_kbps: u32,
    /// The cap of the other one in a room of two, who hears nobody else: what it sends is held to that as well. 0: none.
    pub peer_cap_kbps: u32,
    /// Payload types that are not sent to it, by bit.
    pub shed: u128,
}

impl Plan {
    /// Whether packets of this payload type are dropped on the way to the session.
    pub fn sheds(&self, payload_type: u8) -> bool {
        self.shed >> (payload_type & 0x7f) & 1 == 1
    }

    /// What it may send, kbit/s: the lower of both caps; 0: as much as it likes.
    pub fn send_cap_kbps(&self) -> u32 {
        match (self.cap_kbps, self.peer_cap_kbps) {
            (0, cap) | (cap, 0) => cap,
            (own, peer) => own.min(peer),
        }
    }

    /// How far down the ladder it is: a cap is one rung, voice only another; 0 is undegraded.
    pub fn rung(&self) -> u8 {
        u8::from(self.cap_kbps > 0) + u8::from(self.shed != 0)
    }

    /// The plan after an action, or `None` where its argument is out of bounds.
    ///
    /// A cap lies within `bounds` (kbit/s) or is 0 to lift it; voice only is 1 or 0.
    #[must_use]
    pub fn after(&self, op: Op, arg: u64, media: &Media, bounds: Bounds) -> Option<Plan> {
        match op {
            Op::Cap => {
                let cap_kbps = u32::try_from(arg).ok()?;
                let fits =
                    cap_kbps == 0 || (bounds.floor_kbps..=bounds.ceiling_kbps).contains(&cap_kbps);
                fits.then_some(Plan { cap_kbps, ..*self })
            }
            Op::VoiceOnly => match arg {
                0 => Some(Plan { shed: 0, ..*self }),
                1 => Some(Plan { shed: video_payload_types(media), ..*self }),
                _ => None,
            },
        }
    }
}

/// Within which a scenario lets policies cap its sessions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Lowest cap, kbit/s.
    pub floor_kbps: u32,
    /// Highest rate, kbit/s.
    pub ceiling_kbps: u32,
}

/// Every payload type of every video stream, by bit.
fn video_payload_types(media: &Media) -> u128 {
    media
        .streams
        .iter()
        .filter(|stream| stream.kind == Kind::Video)
        .flat_map(|stream| &stream.payload_types)
        .fold(0, |bits, payload| bits | 1 << (payload.number & 0x7f))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Feedback, PayloadType, RtcpPort, Srtp, Stream};

    const BOUNDS: Bounds = Bounds { floor_kbps: 24, ceiling_kbps: 2_000 };

    fn media() -> Media {
        let stream = |kind, number| Stream {
            kind,
            payload_types: vec![PayloadType { number, codec: "x".into(), clock_rate: 90_000 }],
            feedback: Feedback::default(),
            bitrate_kbps: None,
        };
        Media {
            streams: vec![stream(Kind::Audio, 111), stream(Kind::Video, 96)],
            rtcp: RtcpPort::Mux,
            srtp: Srtp::Plain,
        }
    }

    #[test]
    fn voice_only_sheds_video_and_never_voice() {
        let plan = Plan::default().after(Op::VoiceOnly, 1, &media(), BOUNDS).unwrap();
        assert!(plan.sheds(96));
        assert!(!plan.sheds(111));
        assert_eq!(plan.rung(), 1);
        let restored = plan.after(Op::VoiceOnly, 0, &media(), BOUNDS).unwrap();
        assert!(!restored.sheds(96));
        assert_eq!(plan.after(Op::VoiceOnly, 2, &media(), BOUNDS), None);
    }

    #[test]
    fn the_lower_of_two_caps_holds_and_none_is_no_cap() {
        let cap = |cap_kbps, peer_cap_kbps| {
            Plan { cap_kbps, peer_cap_kbps, ..Plan::default() }.send_cap_kbps()
        };
        assert_eq!([cap(0, 0), cap(300, 0), cap(0, 200), cap(300, 200)], [0, 300, 200, 200]);
    }

    #[test]
    fn a_cap_stays_within_the_scenarios_bounds() {
        let cap = |arg| Plan::default().after(Op::Cap, arg, &media(), BOUNDS);
        assert_eq!(cap(23), None);
        assert_eq!(cap(24).map(|plan| plan.cap_kbps), Some(24));
        assert_eq!(cap(2_000).map(|plan| plan.cap_kbps), Some(2_000));
        assert_eq!(cap(2_001), None);
        assert_eq!(cap(u64::MAX), None);
        assert_eq!(cap(0).map(|plan| plan.rung()), Some(0));
    }
}
