//! The interface of a degradation action.

use std::ops::RangeInclusive;

use crate::device::DeviceLimits;
use crate::offer::{MediaDescription, PayloadType};
use crate::registry::{Metric, Op};
use crate::settings::CapBounds;

/// A degradation action. It has a number and a name in the registry of the contract, and a file in `actions/`.
///
/// Policies give it an argument; 0 undoes it. Its functions are called when a decision changes, never per packet: workers
/// read the [`MediaLimits`] that follow.
pub trait Action: Sync {
    /// The valid arguments besides 0.
    fn range(&self, facts: &ActionFacts<'_>) -> RangeInclusive<u32>;

    /// Adds to the limits what workers do while the action is in force. An argument that limits none of the streams has no
    /// effect, and counts as 0.
    fn limit(&self, arg: u32, media: &MediaDescription, limits: &mut MediaLimits);

    /// The metric by which policies read the argument in force.
    fn metric(&self) -> Option<Metric> {
        None
    }

    /// The argument would send the device more than the labels of its session allow.
    fn exceeds_device(&self, arg: u64, device: &DeviceLimits) -> bool {
        let _ = (arg, device);
        false
    }

    /// The action has an effect only if an endpoint obeys caps.
    fn needs_obedience(&self) -> bool {
        false
    }

    /// A plugin may take the action only if its operator lists it.
    fn needs_grant(&self) -> bool {
        false
    }

    /// The action ends the session. Nothing undoes it.
    fn ends_session(&self) -> bool {
        false
    }

    /// The argument of the native ladder's next step down; `None` if that would save nothing.
    fn lower(&self, session: &DegradedSession<'_>) -> Option<u32> {
        let _ = session;
        None
    }

    /// The argument of the native ladder's next step up; `None` if the action is not in force.
    fn raise(&self, session: &DegradedSession<'_>) -> Option<u32> {
        let _ = session;
        None
    }

    /// The reason why the action can save nothing more.
    fn exhausted(&self, session: &DegradedSession<'_>) -> Option<DegradationLimit> {
        let _ = session;
        None
    }
}

/// The facts about a session that bound its actions.
#[derive(Clone, Copy, Debug)]
pub struct ActionFacts<'a> {
    /// The declared streams.
    pub media: &'a MediaDescription,
    /// The bounds of caps, by the session's scenario.
    pub bounds: CapBounds,
    /// The limits of the client's device.
    pub device: &'a DeviceLimits,
}

impl ActionFacts<'_> {
    /// The session carries video that its device can decode.
    pub fn has_video(&self) -> bool {
        self.media.has_video() && !self.device.voice_only
    }
}

/// A session, its degradation, and the facts on which further steps depend.
#[derive(Clone, Copy, Debug)]
pub struct DegradedSession<'a> {
    /// The facts that bound its actions.
    pub facts: ActionFacts<'a>,
    /// The actions of policies and of the native ladder.
    pub decided: ActionArguments,
    /// The actions in force: also by the session's share and the breaker of its clients.
    pub in_force: ActionArguments,
    /// An endpoint obeys caps on the session.
    pub obeys_caps: bool,
    /// The measured bit rate of the client's media.
    pub sent_kbps: Option<u32>,
}

/// The number of actions whose arguments are bit rates.
const RATES: usize = 3;

/// The argument of each action; 0: not in force. Arguments that are no bit rates are small: a gateway has very many sessions.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ActionArguments {
    rates_kbps: [u32; RATES],
    levels: [u8; Op::ALL.len() - RATES],
}

impl ActionArguments {
    /// The argument of the action.
    pub fn of(&self, op: Op) -> u32 {
        match is_rate(op) {
            true => self.rates_kbps[place(op)],
            false => self.levels[place(op)].into(),
        }
    }

    /// Sets the argument of the action.
    pub fn set(&mut self, op: Op, arg: u32) {
        match is_rate(op) {
            true => self.rates_kbps[place(op)] = arg,
            false => self.levels[place(op)] = u8::try_from(arg).unwrap_or(u8::MAX),
        }
    }

    /// The actions in force with their arguments.
    pub fn in_force(self) -> impl Iterator<Item = (Op, u32)> {
        Op::ALL.into_iter().map(move |op| (op, self.of(op))).filter(|(_, arg)| *arg > 0)
    }
}

/// The argument of the action is a bit rate.
fn is_rate(op: Op) -> bool {
    matches!(op, Op::Cap | Op::CapUp | Op::CapDown)
}

/// The place of the action among those of its kind. Numbers of actions may have gaps.
fn place(op: Op) -> usize {
    let mut alike = Op::ALL.into_iter().filter(|other| is_rate(*other) == is_rate(op));
    alike.position(|other| other == op).expect("`ALL` has each action")
}

/// The limits on a session's media that workers follow. Packed, because the alignment of `withheld` would add 16 bytes to
/// each session.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(Rust, packed(4))]
pub struct MediaLimits {
    /// Cap on the rate of the client's media in kbit/s; 0: none. Senders are told by REMB or TMMBR.
    pub send_kbps: u32,
    /// The scenario's highest rate of the client's media in kbit/s; 0: none. A sender is told of it when it exceeds it.
    pub ceiling_kbps: u32,
    /// Limit of the device on the rate to the client in kbit/s; 0: none. Follows from the labels.
    pub receive_kbps: u32,
    /// Payload types withheld from the client, as a bit set.
    pub withheld: u128,
    /// The argument of the action `thin` about video to the client; 0: all frames pass.
    pub thin: u8,
    /// Media of the client is not forwarded to nodes.
    pub parked: bool,
    /// The number of the highest simulcast layer of video to the client, from 1 on; 0: no limit.
    pub layer: u8,
}

impl MediaLimits {
    /// Packets of this payload type are not forwarded to the client.
    #[inline]
    pub fn withholds(&self, payload_type: u8) -> bool {
        self.withheld >> (payload_type & 0x7f) & 1 == 1
    }

    /// Withholds these payload types.
    pub fn withhold<'a>(&mut self, payload_types: impl IntoIterator<Item = &'a PayloadType>) {
        for payload in payload_types {
            self.withheld |= 1 << (payload.number & 0x7f);
        }
    }

    /// Lowers the cap on the client's media to this rate; 0: no further cap.
    pub fn cap(&mut self, kbps: u32) {
        self.send_kbps = lower_cap(self.send_kbps, kbps);
    }

    /// Payload types pass again that the earlier limits withheld.
    pub fn restores(&self, earlier: &MediaLimits) -> bool {
        earlier.withheld & !self.withheld != 0
    }
}

/// The lower of two caps; 0 is none.
pub fn lower_cap(one: u32, other: u32) -> u32 {
    match (one, other) {
        (0, cap) | (cap, 0) => cap,
        (one, other) => one.min(other),
    }
}

crate::named! {
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub enum DegradationLimit {
        /// The scenario binds no degradation policy.
        NoPolicy = "no-policy",
        /// No endpoint takes a cap.
        CapUnsupported = "cap-unsupported",
        /// The cap of a direction, or what the client sends, is at the scenario's floor.
        CapAtFloor = "cap-at-floor",
        /// The session has no video that could be dropped.
        NoVideo = "no-video",
        /// Its video is dropped already.
        VideoDropped = "video-dropped",
    }
}
