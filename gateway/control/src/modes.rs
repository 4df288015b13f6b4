//! Cost and benefit of each mode, as measured on this gateway.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_dataplane::worker::{Distribution, Totals};
use evenkeel_drivers::DriverAction;
use evenkeel_model::{RedundancyMode, SessionId};
use serde::Serialize;

use super::thread::{Control, Reporting};

#[derive(Default)]
pub(super) struct Costs {
    /// Bytes of signalling to nodes: signed messages, NG messages and webhook bodies.
    signalling_bytes: u64,
    /// The number of legs, first hops included, added up over all summaries.
    legs: u64,
    modes: [ModeCost; RedundancyMode::ALL.len()],
}

#[derive(Clone, Copy, Default)]
struct ModeCost {
    /// Media bytes to and from first hops.
    bytes: u64,
    bytes_copied: u64,
    switches: u64,
    lost: u64,
    /// Legs at standbys, included in `legs`.
    standbys: u64,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ModeView {
    pub mode: &'static str,
    /// Scenarios in this mode now.
    pub scenarios: Vec<Arc<str>>,
    /// Sessions that continued at another hop because their node failed.
    pub recoveries: u64,
    pub recovery_ms: Option<Recovery>,
    /// Packets to clients lost at switches, including planned switches. `None` without switches.
    pub packets_lost: Option<u64>,
    /// Standby traffic (copies and signalling) as a fraction of first-hop media.
    pub bandwidth_cost: Option<f64>,
}

/// Time from the last packet of the old hop to the first of the new one, of sessions that received media.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Recovery {
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

impl Costs {
    /// Counts the bytes of signalling to a node or to its webhook.
    pub(super) fn told(&mut self, act: &DriverAction) {
        self.signalling_bytes += match act {
            DriverAction::Sign { message, of_sessions: true, .. } => message.len() as u64,
            DriverAction::Ng { datagram, .. } => datagram.len() as u64,
            DriverAction::Post { body, .. } => body.len() as u64,
            DriverAction::Sign { of_sessions: false, .. }
            | DriverAction::LimitBundles { .. }
            | DriverAction::Opened { .. }
            | DriverAction::Changed { .. }
            | DriverAction::Refused { .. }
            | DriverAction::Fenced { .. } => 0,
        };
    }

    /// Counts a session's traffic since its last summary.
    pub(super) fn carried(
        &mut self,
        mode: RedundancyMode,
        legs: usize,
        before: &Totals,
        now: &Totals,
    ) {
        let cost = &mut self.modes[mode as usize];
        cost.bytes += now.bytes_up.saturating_sub(before.bytes_up);
        cost.bytes += now.bytes_down.saturating_sub(before.bytes_down);
        cost.bytes_copied += now.bytes_copied.saturating_sub(before.bytes_copied);
        cost.switches += u64::from(now.switches.saturating_sub(before.switches));
        cost.lost += u64::from(now.lost_at_switches.saturating_sub(before.lost_at_switches));
        cost.standbys += legs.saturating_sub(1) as u64;
        self.legs += legs as u64;
    }

    /// Returns `None` without switches. Recoveries are reported before switches, so that they count as switches here.
    fn lost(&self, mode: RedundancyMode, recoveries: u64) -> Option<u64> {
        let ModeCost { switches, lost, .. } = self.modes[mode as usize];
        (switches > 0 || recoveries > 0).then_some(lost)
    }

    /// Attributes signalling evenly to all legs, first hops and standbys.
    fn bandwidth(&self, mode: RedundancyMode) -> Option<f64> {
        let cost = &self.modes[mode as usize];
        let each = self.signalling_bytes as f64 / self.legs.max(1) as f64;
        let kept = each * cost.standbys as f64;
        (cost.bytes > 0).then(|| (cost.bytes_copied as f64 + kept) / cost.bytes as f64)
    }
}

impl Control {
    pub(super) fn note_carried(&mut self, session: SessionId, totals: Totals) {
        let Some(entry) = self.registry.get_mut(session) else {
            return;
        };
        let before = entry.totals();
        entry.note_totals(totals);
        if let Some((mode, legs)) = self.gateway.views().mode_of(session) {
            self.reporting.costs.carried(mode, legs, &before, &totals);
        }
    }

    pub(super) fn mode_view(&self, mode: RedundancyMode) -> ModeView {
        let scenarios = self.gateway.scenarios().filter(|(_, scenario)| scenario.mode == mode);
        let workers = self.workers.lines.iter().map(|worker| worker.stats.recoveries(mode));
        let recoveries = Distribution::of(workers);
        let times = recoveries.within(500).zip(recoveries.within(990)).zip(recoveries.longest());
        let ms = |time: Duration| time.as_micros() as f64 / 1_000.0;
        ModeView {
            mode: mode.name(),
            scenarios: scenarios.map(|(name, _)| Arc::clone(name)).collect(),
            recoveries: recoveries.count(),
            recovery_ms: times.map(|((p50, p99), max)| Recovery {
                p50: ms(p50),
                p99: ms(p99),
                max: ms(max),
            }),
            packets_lost: self.reporting.costs.lost(mode, recoveries.count()),
            bandwidth_cost: self.reporting.costs.bandwidth(mode),
        }
    }
}

impl Reporting {
    /// `before`: the totals of the session's last summary.
    pub(super) fn note_ended(&mut self, mode: RedundancyMode, before: &Totals, totals: &Totals) {
        // The session has no legs any more.
        self.costs.carried(mode, 0, before, totals);
    }
}

#[cfg(test)]
mod tests;
