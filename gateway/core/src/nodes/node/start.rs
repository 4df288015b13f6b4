//! A node that does not run until rooms need it: when its hook may be called, and what comes of it.

use std::time::{Duration, Instant};

use super::{Change, Node, RELAPSES_MAX, Standing};
use crate::{Health, Starts};

/// Interval of probes to a cold node while it is not being started: it may run after all.
const COLD_PROBE_EVERY: Duration = Duration::from_secs(1);

/// After a start that failed the next one waits so long, and twice as long after each further one.
const START_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// But no longer than this.
const START_AGAIN_AFTER_MAX: Duration = Duration::from_secs(60);

/// The start of a node by its hook.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Starting {
    /// The call of the hook, while the node is awaited.
    called: Option<Instant>,
    /// Tries since the node ran last.
    attempts: u32,
    /// Not before this.
    again: Option<Instant>,
}

impl Node {
    /// A cold node that answers runs. It is trusted where it was started and never died before; else it is Wary, as any
    /// node is that came back: it may come and go.
    pub(super) fn weigh_start(&mut self, since: Instant, now: Instant) -> Option<Change> {
        self.detector.weigh(now);
        // An agent may answer for a process that does not run, and says so.
        let answer = self.detector.last_answer().filter(|&answer| answer > since);
        answer.filter(|_| !self.detector.is_gone())?;
        self.detector.absolve();
        self.detector.forget_loss();
        let Starting { called, .. } = std::mem::take(&mut self.starting);
        let trusted = called.is_some() && self.relapses == 0;
        self.standing =
            if trusted { Standing::Up { since: now } } else { Standing::Wary { since: now } };
        let after = called.map(|at| now.saturating_duration_since(at));
        Some(Change::Started { to: self.health(), after })
    }

    /// Its hook may be called: not before it is known that the node does not run already, as it may when the gateway
    /// has just begun.
    pub(crate) fn may_start(&self, now: Instant) -> bool {
        let Starting { called, again, .. } = self.starting;
        let idle = called.is_none() && again.is_none_or(|again| again <= now);
        let absent = self.detector.has_missed() || self.detector.is_gone();
        self.health() == Health::Cold && !self.drains() && idle && absent
    }

    pub(crate) fn is_starting(&self) -> bool {
        self.starting.called.is_some()
    }

    /// Its hook is called: the how manieth time, and how long it may take.
    pub(crate) fn start(&mut self, now: Instant) -> (u32, Duration) {
        self.starting.called = Some(now);
        self.starting.attempts = self.starting.attempts.saturating_add(1);
        let within = match self.settings.starts {
            Starts::ByItself => Duration::ZERO,
            Starts::ByHook { within } => within,
        };
        (self.starting.attempts, within)
    }

    /// Its hook failed, or it did not answer in time. Returns the wait before the next try; `None` if it was not being
    /// started.
    pub(crate) fn start_failed(&mut self, now: Instant) -> Option<Duration> {
        self.starting.called.take()?;
        let doublings = (self.starting.attempts - 1).min(RELAPSES_MAX);
        let again = START_AGAIN_AFTER.saturating_mul(1 << doublings).min(START_AGAIN_AFTER_MAX);
        self.starting.again = Some(now + again);
        Some(again)
    }

    pub(crate) fn probe_every(&self) -> Duration {
        match self.standing {
            Standing::Cold { .. } if !self.is_starting() => COLD_PROBE_EVERY,
            Standing::Up { .. }
            | Standing::Suspect { .. }
            | Standing::Down { .. }
            | Standing::Wary { .. }
            | Standing::Cold { .. } => self.detector.probe_every(),
        }
    }
}

#[cfg(test)]
mod tests;
