//! `cap`: a cap on the session's bit rate, which senders are told by REMB or TMMBR. It limits both directions: what the session sends
//! and, in a room of two, what it receives.

use std::ops::RangeInclusive;

use crate::action::{
    Action, ActionArguments, ActionFacts, DegradationLimit, DegradedSession, MediaLimits, lower_cap,
};
use crate::device::DeviceLimits;
use crate::offer::MediaDescription;
use crate::registry::{Metric, Op};

/// The argument is the cap in kbit/s.
pub(super) struct Cap;

/// The valid caps of the session's scenario.
pub(super) fn bounds(facts: &ActionFacts<'_>) -> RangeInclusive<u32> {
    facts.bounds.floor_kbps..=facts.bounds.ceiling_kbps
}

/// The cap is above the highest rate that the device can receive.
pub(super) fn exceeds(kbps: u64, device: &DeviceLimits) -> bool {
    device.kbps.is_some_and(|limit| kbps > u64::from(limit))
}

/// Twice the rate of this cap, up to the ceiling, where the cap ends.
pub(super) fn raised(op: Op, session: &DegradedSession<'_>) -> Option<u32> {
    let cap = session.decided.of(op);
    let to = cap.saturating_mul(2);
    let raised = if to >= session.facts.bounds.ceiling_kbps { 0 } else { to };
    (cap > 0).then_some(raised)
}

/// The caps on what the session sends and receives, each the lower of its own and that of both directions; 0: none.
fn caps(decided: &ActionArguments) -> [u32; 2] {
    [Op::CapUp, Op::CapDown].map(|op| lower_cap(decided.of(Op::Cap), decided.of(op)))
}

impl Action for Cap {
    fn range(&self, facts: &ActionFacts<'_>) -> RangeInclusive<u32> {
        bounds(facts)
    }

    fn limit(&self, arg: u32, _: &MediaDescription, limits: &mut MediaLimits) {
        limits.cap(arg);
    }

    fn metric(&self) -> Option<Metric> {
        Some(Metric::Cap)
    }

    fn exceeds_device(&self, arg: u64, device: &DeviceLimits) -> bool {
        exceeds(arg, device)
    }

    fn needs_obedience(&self) -> bool {
        true
    }

    /// Half of the rate of the direction with the higher cap, down to the floor.
    fn lower(&self, session: &DegradedSession<'_>) -> Option<u32> {
        let bounds = session.facts.bounds;
        let from = match caps(&session.decided) {
            [0, _] | [_, 0] => bounds.ceiling_kbps,
            [up, down] => up.max(down),
        };
        let to = (from / 2).max(bounds.floor_kbps);
        (session.obeys_caps && to < from).then_some(to)
    }

    fn raise(&self, session: &DegradedSession<'_>) -> Option<u32> {
        raised(Op::Cap, session)
    }

    fn exhausted(&self, session: &DegradedSession<'_>) -> Option<DegradationLimit> {
        let [up, down] = caps(&session.decided);
        let kbps = match lower_cap(up, down) {
            0 => session.sent_kbps,
            cap => Some(cap),
        };
        let floor_kbps = session.facts.bounds.floor_kbps;
        let is_at_floor = kbps.is_some_and(|kbps| kbps > 0 && kbps <= floor_kbps);
        if !session.obeys_caps {
            return Some(DegradationLimit::CapUnsupported);
        }
        is_at_floor.then_some(DegradationLimit::CapAtFloor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offer::{RtcpPort, Srtp};
    use crate::settings::CapBounds;
    use crate::{GuardRule, Plan};

    const BOUNDS: CapBounds = CapBounds { floor_kbps: 24, ceiling_kbps: 2_000 };

    fn media() -> MediaDescription {
        MediaDescription::new(Vec::new(), RtcpPort::Mux, Srtp::Plain)
    }

    /// Asks about a session with a cap, of which an endpoint obeys caps.
    fn at<T>(cap: u32, ask: impl Fn(DegradedSession<'_>) -> T) -> T {
        let (media, device) = (media(), DeviceLimits::default());
        let mut decided = ActionArguments::default();
        decided.set(Op::Cap, cap);
        let facts = ActionFacts { media: &media, bounds: BOUNDS, device: &device };
        let session = DegradedSession {
            facts,
            decided,
            in_force: decided,
            obeys_caps: true,
            sent_kbps: None,
        };
        ask(session)
    }

    fn after(arg: u64, device_kbps: Option<u32>) -> Result<u32, GuardRule> {
        let (media, device) =
            (media(), DeviceLimits { kbps: device_kbps, ..DeviceLimits::default() });
        let facts = ActionFacts { media: &media, bounds: BOUNDS, device: &device };
        let plan = Plan::default().after(Op::Cap, arg, &facts)?;
        assert_eq!(plan.rung(), u8::from(arg > 0));
        Ok(plan.limits(&facts).send_kbps)
    }

    #[test]
    fn cap_stays_within_bounds_and_zero_lifts_it() {
        for (arg, kbps) in [(0, Some(0)), (23, None), (24, Some(24)), (2_000, Some(2_000))] {
            assert_eq!(after(arg, None).ok(), kbps, "{arg}");
        }
        assert_eq!(after(2_001, None), Err(GuardRule::ArgumentOutOfBounds));
        assert_eq!(after(1 << 32 | 300, None), Err(GuardRule::ArgumentOutOfBounds));
    }

    #[test]
    fn cap_above_the_device_is_refused() {
        assert_eq!(after(700, Some(700)), Ok(700));
        assert_eq!(after(701, Some(700)), Err(GuardRule::AboveDevice));
        assert_eq!(after(0, Some(700)), Ok(0));
    }

    #[test]
    fn ladder_halves_to_floor_and_doubles_to_ceiling() {
        for (cap, lower, raise) in [
            (0, Some(1_000), None),
            (1_000, Some(500), Some(0)),
            (999, Some(499), Some(1_998)),
            (49, Some(24), Some(98)),
            (47, Some(24), Some(94)),
            (24, None, Some(48)),
        ] {
            assert_eq!(at(cap, |session| Cap.lower(&session)), lower, "{cap}");
            assert_eq!(at(cap, |session| Cap.raise(&session)), raise, "{cap}");
        }
        assert_eq!(
            at(0, |session| Cap.lower(&DegradedSession { obeys_caps: false, ..session })),
            None
        );
    }

    #[test]
    fn ladder_lifts_caps_of_one_direction_and_sets_none() {
        for op in [Op::CapUp, Op::CapDown] {
            for (cap, raise) in [(0, None), (500, Some(1_000)), (1_000, Some(0))] {
                let steps = at(0, |session| {
                    let mut decided = session.decided;
                    decided.set(op, cap);
                    let session = DegradedSession { decided, ..session };
                    (crate::actions::of(op).lower(&session), crate::actions::of(op).raise(&session))
                });
                assert_eq!(steps, (None, raise), "{op:?} {cap}");
            }
        }
    }

    /// Asks about a session with caps on what it sends and receives.
    fn with_caps<T>([up, down]: [u32; 2], ask: impl Fn(DegradedSession<'_>) -> T) -> T {
        at(0, |session| {
            let mut decided = session.decided;
            decided.set(Op::CapUp, up);
            decided.set(Op::CapDown, down);
            ask(DegradedSession { decided, ..session })
        })
    }

    #[test]
    fn ladder_begins_at_the_caps_of_both_directions() {
        for (caps, lower) in [
            ([300, 0], Some(1_000)),
            ([0, 300], Some(1_000)),
            ([300, 400], Some(200)),
            ([24, 24], None),
        ] {
            assert_eq!(with_caps(caps, |session| Cap.lower(&session)), lower, "{caps:?}");
        }
    }

    #[test]
    fn direction_at_the_floor_limits_the_degradation() {
        for (caps, is_at_floor) in [([24, 0], true), ([0, 24], true), ([25, 25], false)] {
            let limit = with_caps(caps, |session| Cap.exhausted(&session));
            assert_eq!(limit == Some(DegradationLimit::CapAtFloor), is_at_floor, "{caps:?}");
        }
    }

    #[test]
    fn only_a_cap_on_receiving_can_exceed_the_device() {
        let device = DeviceLimits { kbps: Some(700), ..DeviceLimits::default() };
        let exceeds = |op| crate::actions::of(op).exceeds_device(701, &device);
        assert_eq!([Op::CapUp, Op::CapDown].map(exceeds), [false, true]);
    }

    #[test]
    fn cap_saves_nothing_at_the_floor() {
        let limit = |cap, obeys_caps, sent_kbps| {
            at(cap, |session| Cap.exhausted(&DegradedSession { obeys_caps, sent_kbps, ..session }))
        };
        assert_eq!(limit(24, true, None), Some(DegradationLimit::CapAtFloor));
        assert_eq!(limit(25, true, Some(24)), None);
        for (sent, exhausted) in
            [(None, false), (Some(0), false), (Some(24), true), (Some(25), false)]
        {
            assert_eq!(limit(0, true, sent).is_some(), exhausted, "{sent:?}");
        }
        assert_eq!(limit(24, false, None), Some(DegradationLimit::CapUnsupported));
    }
}
