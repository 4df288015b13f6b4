//! `cap-up`: a cap on what the session sends, which leaves alone what it receives.

use std::ops::RangeInclusive;

use super::cap::{bounds, raised};
use crate::action::{Action, ActionFacts, DegradedSession, MediaLimits};
use crate::offer::MediaDescription;
use crate::registry::{Metric, Op};

/// The argument is the cap in kbit/s.
pub(super) struct CapUp;

impl Action for CapUp {
    fn range(&self, facts: &ActionFacts<'_>) -> RangeInclusive<u32> {
        bounds(facts)
    }

    /// Without effect on a client that is told of no cap.
    fn limit(&self, arg: u32, media: &MediaDescription, limits: &mut MediaLimits) {
        if media.takes_caps() {
            limits.cap(arg);
        }
    }

    fn metric(&self) -> Option<Metric> {
        Some(Metric::CapUp)
    }

    fn needs_obedience(&self) -> bool {
        true
    }

    fn raise(&self, session: &DegradedSession<'_>) -> Option<u32> {
        raised(Op::CapUp, session)
    }
}
