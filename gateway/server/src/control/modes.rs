//! Cost and benefit of each mode, as measured on this gateway.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::{Mode, SessionId};
use evenkeel_dataplane::worker::{Distribution, Totals};

use super::driver::Act;
use super::thread::Control;

/// Traffic by mode.
#[derive(Default)]
pub(super) struct Costs {
    /// Bytes of signalling that opens sessions at nodes and refreshes them: signed messages, NG messages, webhook
    /// bodies.
    told: u64,
    /// Legs per summary, first hops included.
    legs: u64,
    modes: [Cost; Mode::ALL.len()],
}

#[derive(Clone, Copy, Default)]
struct Cost {
    /// Media bytes to and from first hops.
    bytes: u64,
    bytes_copied: u64,
    switches: u64,
    lost: u64,
    /// Legs at standbys, included in `legs`.
    standbys: u64,
}

#[derive(Clone, PartialEq, Debug)]
pub struct ModeView {
    pub mode: Mode,
    /// Scenarios in this mode now.
    pub scenarios: Vec<Arc<str>>,
    /// Sessions that heard another hop after their node died.
    pub recoveries: u64,
    /// Median time from the last packet of the old hop to the first of the new one.
    pub recovery_p50: Option<Duration>,
    /// The 99th percentile.
    pub recovery_p99: Option<Duration>,
    /// The maximum.
    pub recovery_max: Option<Duration>,
    /// Packets to clients lost at switches, planned ones included; `None` without switches.
    pub packets_lost: Option<u64>,
    /// Standby traffic (copies and signalling) as a fraction of first-hop media.
    pub bandwidth_cost: Option<f64>,
}

impl Costs {
    /// Signalling to a node, or to its webhook.
    pub(super) fn told(&mut self, act: &Act) {
        self.told += match act {
            Act::Sign { message, of_sessions: true, .. } => message.len() as u64,
            Act::Ng { datagram, .. } => datagram.len() as u64,
            Act::Post { body, .. } => body.len() as u64,
            Act::Sign { of_sessions: false, .. }
            | Act::LimitBundles { .. }
            | Act::Opened { .. }
            | Act::Changed { .. }
            | Act::Refused { .. } => 0,
        };
    }

    /// Traffic of a session since its last summary, in this mode and with this number of legs.
    pub(super) fn carried(&mut self, mode: Mode, legs: usize, before: &Totals, now: &Totals) {
        let cost = &mut self.modes[mode as usize];
        cost.bytes += now.bytes_up.saturating_sub(before.bytes_up);
        cost.bytes += now.bytes_down.saturating_sub(before.bytes_down);
        cost.bytes_copied += now.bytes_copied.saturating_sub(before.bytes_copied);
        cost.switches += u64::from(now.switches.saturating_sub(before.switches));
        cost.lost += u64::from(now.lost_at_switches.saturating_sub(before.lost_at_switches));
        cost.standbys += legs.saturating_sub(1) as u64;
        self.legs += legs as u64;
    }

    /// `None` without switches. Recoveries are reported sooner than switches.
    fn lost(&self, mode: Mode, recoveries: u64) -> Option<u64> {
        let Cost { switches, lost, .. } = self.modes[mode as usize];
        (switches > 0 || recoveries > 0).then_some(lost)
    }

    /// Signalling is attributed evenly to all legs, first hops and standbys.
    fn bandwidth(&self, mode: Mode) -> Option<f64> {
        let cost = &self.modes[mode as usize];
        let each = self.told as f64 / self.legs.max(1) as f64;
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
        if let Some((mode, legs)) = self.gateway.mode_of(session) {
            self.costs.carried(mode, legs, &before, &totals);
        }
    }

    /// The final totals and mode of a session; its last summary had `before`.
    pub(super) fn note_ended(&mut self, mode: Mode, before: &Totals, totals: &Totals) {
        // The session has no legs left.
        self.costs.carried(mode, 0, before, totals);
    }

    pub(super) fn mode_views(&self) -> Vec<ModeView> {
        Mode::ALL.into_iter().map(|mode| self.mode_view(mode)).collect()
    }

    fn mode_view(&self, mode: Mode) -> ModeView {
        let scenarios = self.gateway.scenarios().filter(|(_, scenario)| scenario.mode == mode);
        let workers = self.workers.iter().map(|worker| worker.stats.recoveries(mode));
        let recoveries = Distribution::of(workers);
        ModeView {
            mode,
            scenarios: scenarios.map(|(name, _)| Arc::clone(name)).collect(),
            recoveries: recoveries.count(),
            recovery_p50: recoveries.within(500),
            recovery_p99: recoveries.within(990),
            recovery_max: recoveries.longest(),
            packets_lost: self.costs.lost(mode, recoveries.count()),
            bandwidth_cost: self.costs.bandwidth(mode),
        }
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_core::NodeId;

    use super::*;
    use crate::webhook::Hook;

    #[test]
    fn bandwidth_cost_compares_standbys_with_first_hops() {
        let mut costs = Costs::default();
        assert_eq!(costs.bandwidth(Mode::Hot), None, "nothing was carried");
        let carried = |bytes: u64, bytes_copied| {
            let (bytes_up, bytes_down) = (bytes / 4, bytes - bytes / 4);
            Totals { bytes_up, bytes_down, bytes_copied, ..Totals::default() }
        };
        let before = carried(1_000, 1_000);
        costs.carried(Mode::Hitless, 2, &before, &carried(2_000, 2_000));
        costs.carried(Mode::Hot, 3, &before, &carried(3_000, 1_000));
        costs.carried(Mode::Cold, 1, &before, &carried(5_000, 1_000));
        assert_eq!(costs.bandwidth(Mode::Hitless), Some(1.0));
        assert_eq!(costs.bandwidth(Mode::Hot), Some(0.0));
        // Six legs: hot has two at standbys, hitless one.
        let node = NodeId(0);
        for of_sessions in [true, false] {
            costs.told(&Act::Sign { worker: 0, node, message: [0; 100].into(), of_sessions });
        }
        costs.told(&Act::Ng { node, datagram: [0; 200].into() });
        let hook = Arc::new(Hook { url: "http://10.0.0.9/".parse().unwrap(), token: None });
        let (body, within) = (vec![0; 300].into(), Duration::ZERO);
        costs.told(&Act::Post { node, number: 1, hook, body, within });
        assert_eq!(costs.bandwidth(Mode::Hitless), Some(1.1));
        assert_eq!(costs.bandwidth(Mode::Hot), Some(0.1));
        assert_eq!(costs.bandwidth(Mode::Cold), Some(0.0));
        assert_eq!(costs.bandwidth(Mode::Regional), None);
    }

    #[test]
    fn loss_is_known_after_a_switch_only() {
        let mut costs = Costs::default();
        let switched =
            |switches, lost_at_switches| Totals { switches, lost_at_switches, ..Totals::default() };
        assert_eq!(costs.lost(Mode::Hot, 0), None);
        assert_eq!(costs.lost(Mode::Hot, 1), Some(0), "a recovery that was not summed up yet");
        costs.carried(Mode::Hot, 2, &Totals::default(), &switched(1, 0));
        assert_eq!(costs.lost(Mode::Hot, 0), Some(0), "a planned move");
        costs.carried(Mode::Hot, 0, &switched(1, 0), &switched(2, 5));
        assert_eq!((costs.lost(Mode::Hot, 1), costs.lost(Mode::Cold, 0)), (Some(5), None));
    }
}
