//! A node that does not run until rooms need it: when its hook may be called, and the outcome.

use std::time::{Duration, Instant};

use evenkeel_model::{Health, Starts};
use serde::{Deserialize, Serialize};

use super::{HealthState, Node, NodeTransition, RELAPSES_MAX};

/// Probe interval of a cold node that is not being started: it may run nevertheless.
const COLD_PROBE_EVERY: Duration = Duration::from_secs(1);

/// Delay after a failed start; it doubles with each further failure.
const START_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Maximum of that delay.
const START_AGAIN_AFTER_MAX: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Default, PartialEq, Serialize, Deserialize, Debug)]
pub(super) struct Starting {
    /// The time at which the hook was called, while the node is awaited.
    #[serde(skip)]
    called: Option<Instant>,
    /// Attempts since the node last ran.
    attempts: u32,
    /// The earliest time of the next attempt.
    #[serde(with = "evenkeel_media::instant::option")]
    again: Option<Instant>,
}

impl Starting {
    /// The same without a call of the hook.
    pub(super) fn not_called(self) -> Starting {
        Starting { called: None, ..self }
    }
}

impl Node {
    /// A cold node that answers is running. It is trusted if the hook started it and it never died before; otherwise it
    /// is Wary like any returned node, because it may be unstable.
    pub(super) fn weigh_start(&mut self, since: Instant, now: Instant) -> Option<NodeTransition> {
        self.detector.weigh(now);
        // An agent may answer although the process does not run, and reports that.
        let answer = self.detector.last_answer().filter(|&answer| answer > since);
        answer.filter(|_| !self.detector.is_gone())?;
        self.detector.absolve();
        self.detector.forget_loss();
        let Starting { called, .. } = std::mem::take(&mut self.starting);
        let trusted = called.is_some() && self.relapses == 0;
        self.standing =
            if trusted { HealthState::Up { since: now } } else { HealthState::Wary { since: now } };
        let after = called.map(|at| now.saturating_duration_since(at));
        Some(NodeTransition::Started { to: self.health(), after })
    }

    /// Tells if the hook may be called. Right after the gateway's start it may not, because the node may be running
    /// already.
    pub fn may_start(&self, now: Instant) -> bool {
        let Starting { called, again, .. } = self.starting;
        let idle = called.is_none() && again.is_none_or(|again| again <= now);
        let absent = self.detector.has_missed() || self.detector.is_gone();
        self.health() == Health::Cold && !self.drains() && idle && absent
    }

    pub fn is_starting(&self) -> bool {
        self.starting.called.is_some()
    }

    /// Notes a call of the hook. Returns the number of this attempt and its time limit.
    pub fn start(&mut self, now: Instant) -> (u32, Duration) {
        self.starting.called = Some(now);
        self.starting.attempts = self.starting.attempts.saturating_add(1);
        let within = match self.settings.starts {
            Starts::ByItself => Duration::ZERO,
            Starts::ByHook { within } => within,
        };
        (self.starting.attempts, within)
    }

    /// Notes that the hook failed or the node did not answer in time. Returns the delay before the next attempt; `None`
    /// if the node was not being started.
    pub fn start_failed(&mut self, now: Instant) -> Option<Duration> {
        self.starting.called.take()?;
        let doublings = (self.starting.attempts - 1).min(RELAPSES_MAX);
        let again = START_AGAIN_AFTER.saturating_mul(1 << doublings).min(START_AGAIN_AFTER_MAX);
        self.starting.again = Some(now + again);
        Some(again)
    }

    pub fn probe_every(&self) -> Duration {
        match self.standing {
            HealthState::Cold { .. } if !self.is_starting() => COLD_PROBE_EVERY,
            HealthState::Up { .. }
            | HealthState::Suspect { .. }
            | HealthState::Down { .. }
            | HealthState::Wary { .. }
            | HealthState::Cold { .. } => self.detector.probe_every(),
        }
    }
}

#[cfg(test)]
mod tests;
