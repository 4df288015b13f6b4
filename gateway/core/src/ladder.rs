//! Degradation: what a session gets now, and what each rung sheds.

use std::time::{Duration, Instant};

use crate::{Kind, Media, Op};

/// The native ladder goes down where so much is lost, ppm: 5 %, where speech begins to suffer.
const DOWN_AT_PPM: u32 = 50_000;

/// It climbs where no more than this is lost, ppm. What lies between changes nothing, so that one who is helped by a rung
/// stays on it.
const UP_BELOW_PPM: u32 = 20_000;

/// Between two rungs down: a cap is obeyed, and what is lost then is measured, within it.
const DOWN_EVERY: Duration = Duration::from_secs(1);

/// Calm before a rung up, each time: a climb that was too early costs as much as it gains.
const UP_AFTER: Duration = Duration::from_secs(10);

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

/// What the native ladder looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    pub(crate) plan: Plan,
    /// The worse of both directions; `None`: nobody measured it.
    pub(crate) loss_ppm: Option<u32>,
    pub(crate) bounds: Bounds,
    /// Whether a cap would hold anybody down.
    pub(crate) caps: bool,
    /// Whether it has video to do without.
    pub(crate) video: bool,
}

/// A session on the native ladder: it loses half of its rate with each rung down to the floor, then its video; and gets
/// them back the other way round, slowly.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Climb {
    /// No rung down before.
    down_from: Instant,
    /// Since when little is lost, and nothing changed.
    calm_since: Option<Instant>,
}

impl Climb {
    pub(crate) fn begin(now: Instant) -> Climb {
        Climb { down_from: now, calm_since: None }
    }

    /// What to do now, if anything.
    pub(crate) fn step(&mut self, look: Look, now: Instant) -> Option<(Op, u64)> {
        let loss_ppm = look.loss_ppm?;
        if loss_ppm > UP_BELOW_PPM {
            self.calm_since = None;
            if loss_ppm < DOWN_AT_PPM || now < self.down_from {
                return None;
            }
            self.down_from = now + DOWN_EVERY;
            return look.down();
        }
        let calm_since = *self.calm_since.get_or_insert(now);
        if now.saturating_duration_since(calm_since) < UP_AFTER {
            return None;
        }
        self.calm_since = Some(now);
        look.up()
    }
}

impl Look {
    fn down(self) -> Option<(Op, u64)> {
        let Bounds { floor_kbps, ceiling_kbps } = self.bounds;
        let from = if self.plan.cap_kbps == 0 { ceiling_kbps } else { self.plan.cap_kbps };
        let to = (from / 2).max(floor_kbps);
        if self.caps && to < from {
            return Some((Op::Cap, u64::from(to)));
        }
        (self.video && self.plan.shed == 0).then_some((Op::VoiceOnly, 1))
    }

    fn up(self) -> Option<(Op, u64)> {
        if self.plan.shed != 0 {
            return Some((Op::VoiceOnly, 0));
        }
        let to = u64::from(self.plan.cap_kbps) * 2;
        let lifted = if to >= u64::from(self.bounds.ceiling_kbps) { 0 } else { to };
        (self.plan.cap_kbps > 0).then_some((Op::Cap, lifted))
    }
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

    fn look(plan: Plan, loss_ppm: u32) -> Look {
        Look { plan, loss_ppm: Some(loss_ppm), bounds: BOUNDS, caps: true, video: true }
    }

    /// What the ladder makes of a session that loses so much for so many looks, 200 ms apart.
    fn climbed(plan: &mut Plan, climb: &mut Climb, loss_ppm: u32, from: &mut Instant, looks: u32) {
        for _ in 0..looks {
            if let Some((op, arg)) = climb.step(look(*plan, loss_ppm), *from) {
                *plan = plan.after(op, arg, &media(), BOUNDS).unwrap();
            }
            *from += Duration::from_millis(200);
        }
    }

    #[test]
    fn lossy_session_steps_down_and_recovers() {
        let (mut plan, mut now) = (Plan::default(), Instant::now());
        let mut climb = Climb::begin(now);
        climbed(&mut plan, &mut climb, DOWN_AT_PPM, &mut now, 1);
        assert_eq!(plan.cap_kbps, 1_000);
        climbed(&mut plan, &mut climb, DOWN_AT_PPM, &mut now, 4);
        assert_eq!(plan.cap_kbps, 1_000, "a second must pass before the next rung");
        climbed(&mut plan, &mut climb, DOWN_AT_PPM, &mut now, 30);
        assert_eq!((plan.cap_kbps, plan.shed != 0), (24, false));
        climbed(&mut plan, &mut climb, DOWN_AT_PPM, &mut now, 5);
        assert_eq!((plan.cap_kbps, plan.sheds(96), plan.sheds(111)), (24, true, false));

        climbed(&mut plan, &mut climb, UP_BELOW_PPM, &mut now, 50);
        assert!(plan.sheds(96), "ten seconds of calm are not over");
        climbed(&mut plan, &mut climb, UP_BELOW_PPM, &mut now, 1);
        assert_eq!((plan.cap_kbps, plan.shed), (24, 0));
        climbed(&mut plan, &mut climb, UP_BELOW_PPM, &mut now, 50);
        assert_eq!(plan.cap_kbps, 48);
        climbed(&mut plan, &mut climb, UP_BELOW_PPM, &mut now, 6 * 50);
        assert_eq!(plan, Plan::default());
    }

    #[test]
    fn between_thresholds_nothing_changes() {
        let (mut plan, mut now) = (Plan { cap_kbps: 500, ..Plan::default() }, Instant::now());
        let mut climb = Climb::begin(now);
        for loss_ppm in [DOWN_AT_PPM - 1, UP_BELOW_PPM + 1] {
            climbed(&mut plan, &mut climb, loss_ppm, &mut now, 200);
            assert_eq!(plan.cap_kbps, 500);
        }
        climbed(&mut plan, &mut climb, 0, &mut now, 50);
        climbed(&mut plan, &mut climb, UP_BELOW_PPM + 1, &mut now, 1);
        climbed(&mut plan, &mut climb, 0, &mut now, 50);
        assert_eq!(plan.cap_kbps, 500, "each calm was too short");
        climbed(&mut plan, &mut climb, 0, &mut now, 1);
        assert_eq!(plan.cap_kbps, 1_000);
    }

    #[test]
    fn unsupported_cap_is_no_rung() {
        let now = Instant::now();
        let of = |caps, video, loss_ppm| {
            let plan = Plan::default();
            Climb::begin(now).step(Look { plan, loss_ppm, bounds: BOUNDS, caps, video }, now)
        };
        assert_eq!(of(false, true, Some(1_000_000)), Some((Op::VoiceOnly, 1)));
        assert_eq!(of(false, false, Some(1_000_000)), None);
        assert_eq!(of(true, true, None), None);
    }

    #[test]
    fn lower_of_two_caps_applies() {
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
