//! The native ladder, for sessions whose degradation policy fails, or fails over them.

use std::time::{Duration, Instant};

use super::Gateway;
use super::asking::Beside;
use super::noting::Subject;
use crate::ladder::{Climb, Look};
use crate::session::Phase;
use crate::{Decider, DegradeOnFault, Hook, Metric, PolicyName, SessionId};

/// A policy that fails for less has a bad moment: sessions keep what they have.
const FAILING_FOR: Duration = Duration::from_secs(2);

impl Gateway {
    /// The policy failed over these: after a while the native ladder has them, where their set says so.
    pub(super) fn climb_natively(
        &mut self,
        policy: &PolicyName,
        sessions: &[(SessionId, u32)],
        now: Instant,
    ) {
        let since = self.policy.failing.get(policy);
        if since.is_some_and(|since| now.saturating_duration_since(*since) >= FAILING_FOR) {
            for (session, _) in sessions {
                self.climb_one(*session, now);
            }
        }
    }

    /// The policy was not asked about some of these. The others are its own again.
    pub(super) fn climb_left_out(
        &mut self,
        sessions: &[(SessionId, u32)],
        beside: &Beside,
        now: Instant,
    ) {
        if beside.apart.is_none() && self.quality.climbs.is_empty() {
            return;
        }
        for (row, (session, _)) in (0..).zip(sessions) {
            if !beside.apart.as_ref().is_some_and(|apart| apart.leaves_out(row)) {
                self.quality.climbs.remove(session);
                continue;
            }
            let held = self.policy.noted.held.get(&(Subject::Session(*session), Hook::Degradation));
            let since = held.map(|held| held.since);
            if since.is_some_and(|since| now.saturating_duration_since(since) >= FAILING_FOR) {
                self.climb_one(*session, now);
            }
        }
    }

    fn climb_one(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get(&id).filter(|session| session.phase == Phase::Live)
        else {
            return;
        };
        let scenario = self.settings.scenarios.get(&session.wanted.scenario);
        if scenario.is_none_or(|s| s.on_degradation_fault != DegradeOnFault::NativeLadder) {
            return;
        }
        let measured = |metric| session.measures.as_ref()?.measured(metric);
        let loss_ppm = measured(Metric::LossDown).max(measured(Metric::LossUp));
        let look = Look {
            plan: session.plan,
            loss_ppm,
            bounds: session.bounds,
            caps: self.obeys_caps(session),
            video: session.wanted.media.has_video(),
        };
        let climb = self.quality.climbs.entry(id).or_insert_with(|| Climb::begin(now));
        if let Some((op, arg)) = climb.step(look, now) {
            // It keeps to the bounds, and to what is obeyed; what it does not, changes nothing.
            let _ = self.act(id, op as u32, arg, &Decider::Native);
        }
    }
}
