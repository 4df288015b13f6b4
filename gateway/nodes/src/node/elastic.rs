//! A node that the gateway started: when it is stopped, and when it is replaced after its death.

use std::time::{Duration, Instant};

use evenkeel_model::{NodeNeed, Starts, StopPhase};

use crate::node::Node;
use crate::node::trust::{ElasticState, HealthState, NodeTrust};

/// Replacements that still double the delay; beyond them the maximum applies anyway.
const DOUBLINGS_MAX: u32 = 5;

/// Maximum delay from a death to the replacement.
const REPLACED_AFTER_MAX: Duration = Duration::from_secs(30 * 60);

/// A node that was not replaced for this long is replaced after the shortest delay. Longer than the maximum delay.
const REPLACEMENTS_FORGIVEN_AFTER: Duration = Duration::from_secs(60 * 60);

/// A stopped node is gone once it has not answered for this long: three probes of a cold node.
const SILENT_FOR: Duration = Duration::from_secs(3);

/// Time for which rooms of a node that is to be stopped may move. A node that is not empty then runs on.
const EMPTY_WITHIN: Duration = Duration::from_secs(60);

/// The use of a node, from which follows whether it is stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeUse {
    /// `None`: it is not needed.
    pub need: Option<NodeNeed>,
    /// No leg is open there.
    pub is_empty: bool,
}

/// The next step towards the stop of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopStep {
    Wait,
    /// Drain the node: it was not needed for long enough.
    Drain,
    /// End the drain: the node is needed, or does not become empty.
    Keep,
    /// Stop the node: it is drained.
    Stop,
}

impl ElasticState {
    /// The node runs, since the gateway started it or by itself: it needs no replacement any more.
    pub(super) fn note_runs(&mut self, by_hook: bool, now: Instant) {
        self.started |= by_hook;
        if self.replace_at.take().is_some() && by_hook {
            self.replacements = self.replacements.saturating_add(1);
            self.replaced_at = Some(now);
        }
    }
}

impl Node {
    /// The node takes the place of another one, which the gateway may have started.
    pub fn take_place(&mut self, before: &NodeTrust) {
        self.trust.elastic.started = before.elastic.started;
    }

    /// Returns true if the gateway is starting the node, or started it and has not stopped it since.
    pub fn is_started(&self) -> bool {
        self.trust.elastic.started || self.is_starting()
    }

    /// An earlier process of the gateway started the node.
    pub fn resume_start(&mut self) {
        self.trust.elastic.started = true;
    }

    /// Returns true if the gateway is starting the node, or started it and it runs or is being stopped.
    pub fn is_in_budget(&self) -> bool {
        let ElasticState { started, stop_called, .. } = self.trust.elastic;
        self.is_starting() || started && (self.runs() || stop_called.is_some())
    }

    /// Returns true while the node drains in order to be stopped, and until it is gone.
    pub fn is_stopping(&self) -> bool {
        self.trust.elastic.stopping || self.trust.elastic.stop_called.is_some()
    }

    /// Decides whether the node is drained and stopped. Legs need `settled_for` to close after the last room left.
    pub fn weigh_stop(&mut self, used: NodeUse, settled_for: Duration, now: Instant) -> StopStep {
        let NodeTrust { draining, removed, leaving, elastic, .. } = self.trust;
        let may_stop = elastic.started && self.runs() && !(draining || removed || leaving);
        let after = self.settings.hook.stop_after.filter(|_| may_stop);
        self.need = used.need.filter(|_| after.is_some());
        let Some(after) = after.filter(|_| used.need.is_none()) else {
            (self.quiet_since, self.empty_since) = (None, None);
            return if elastic.stopping { StopStep::Keep } else { StopStep::Wait };
        };
        let lasted = |since: Instant| now.saturating_duration_since(since);
        let quiet_for = lasted(*self.quiet_since.get_or_insert(now));
        if !elastic.stopping {
            if quiet_for < after {
                return StopStep::Wait;
            }
            self.quiet_since = Some(now);
            return StopStep::Drain;
        }
        if !used.is_empty {
            self.empty_since = None;
            if quiet_for < EMPTY_WITHIN {
                return StopStep::Wait;
            }
            self.quiet_since = None;
            return StopStep::Keep;
        }
        match lasted(*self.empty_since.get_or_insert(now)) >= settled_for {
            true => StopStep::Stop,
            false => StopStep::Wait,
        }
    }

    /// The node is empty and told to stop. Its answers are ignored until it is gone, or its time limit has passed.
    pub fn stop(&mut self, now: Instant) {
        self.detector.absolve();
        (self.quiet_since, self.empty_since) = (None, None);
        (self.trust.elastic.stopping, self.trust.elastic.stop_called) = (false, Some(now));
        self.trust.standing = HealthState::Cold { since: now };
    }

    /// Returns the end of the stop in progress, if it has ended. A node that answers after a failed stop runs again, and is
    /// stopped once it has not been needed for long enough.
    pub(crate) fn stop_ended(&mut self, now: Instant) -> Option<StopPhase> {
        let took = now.saturating_duration_since(self.trust.elastic.stop_called?);
        let answer = self.detector.last_answer();
        let is_silent =
            answer.is_none_or(|answer| now.saturating_duration_since(answer) >= SILENT_FOR);
        let within = match self.settings.starts {
            Starts::ByItself => Duration::ZERO,
            Starts::ByHook { within } => within,
        };
        let ended = if self.detector.is_gone() || is_silent && took >= SILENT_FOR {
            // It answered while it was stopping.
            self.detector.absolve();
            self.trust.standing = HealthState::Cold { since: now };
            self.trust.elastic.started = false;
            StopPhase::Done { took }
        } else if took >= within.max(SILENT_FOR) {
            StopPhase::Failed
        } else {
            return None;
        };
        self.trust.elastic.stop_called = None;
        Some(ended)
    }

    /// The node died: it is replaced unless it comes back, later with each replacement in a row.
    pub(super) fn plan_replacement(&mut self, now: Instant) {
        let is_wanted = self.trust.elastic.started && !self.is_stopping();
        let after = self.settings.hook.replace_after.filter(|_| is_wanted);
        let Some(after) = after else { return };
        let elastic = &mut self.trust.elastic;
        let is_old = |at: Instant| now.saturating_duration_since(at) >= REPLACEMENTS_FORGIVEN_AFTER;
        if elastic.replaced_at.is_some_and(is_old) {
            elastic.replacements = 0;
        }
        let delay = after.saturating_mul(1 << elastic.replacements.min(DOUBLINGS_MAX));
        elastic.replace_at = Some(now + delay.min(REPLACED_AFTER_MAX.max(after)));
    }

    /// Returns true if the node is dead for so long that it is started again.
    pub(crate) fn wants_replacement(&self, now: Instant) -> bool {
        let due = self.trust.elastic.replace_at.filter(|at| *at <= now);
        due.is_some() && self.settings.hook.replace_after.is_some() && self.may_start(now)
    }
}
