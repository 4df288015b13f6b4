//! What each mode costs, and what it gives, as measured on this gateway.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::{Mode, SessionId};

use super::thread::Control;
use crate::worker::{Distribution, Totals};

/// What was carried, by mode.
#[derive(Default)]
pub(super) struct Costs {
    /// Bytes of signed messages: what opens sessions at nodes, and keeps them open.
    signed: u64,
    /// Legs at nodes each time a session was summed up: all of them, first hops included.
    legs: u64,
    modes: [Cost; Mode::ALL.len()],
}

#[derive(Clone, Copy, Default)]
struct Cost {
    bytes_up: u64,
    bytes_copied: u64,
    switches: u64,
    lost: u64,
    /// Legs at standbys, of those above.
    standbys: u64,
}

/// One mode, as measured on this gateway.
#[derive(Clone, PartialEq, Debug)]
pub struct ModeView {
    /// The mode.
    pub mode: Mode,
    /// Scenarios that have it now.
    pub scenarios: Vec<Arc<str>>,
    /// Sessions whose client heard another hop because their node died.
    pub recoveries: u64,
    /// From the last packet by the old hop to the first by the new one: the time half of them took no longer than.
    pub recovery_p50: Option<Duration>,
    /// The time that 99 of 100 took no longer than.
    pub recovery_p99: Option<Duration>,
    /// The longest.
    pub recovery_max: Option<Duration>,
    /// Packets to clients that were missing at switches, planned ones too; none where there was no switch.
    pub packets_lost: Option<u64>,
    /// Bytes to standbys against bytes to first hops: copies, and what opens sessions there and keeps them open.
    pub bandwidth_cost: Option<f64>,
}

impl Costs {
    pub(super) fn signed(&mut self, bytes: usize) {
        self.signed += bytes as u64;
    }

    /// A session carried this since it was summed up last, in this mode and with so many legs.
    pub(super) fn carried(&mut self, mode: Mode, legs: usize, before: &Totals, now: &Totals) {
        let cost = &mut self.modes[mode as usize];
        cost.bytes_up += now.bytes_up.saturating_sub(before.bytes_up);
        cost.bytes_copied += now.bytes_copied.saturating_sub(before.bytes_copied);
        cost.switches += u64::from(now.switches.saturating_sub(before.switches));
        cost.lost += u64::from(now.lost_at_switches.saturating_sub(before.lost_at_switches));
        cost.standbys += legs.saturating_sub(1) as u64;
        self.legs += legs as u64;
    }

    /// Signed messages are shared out over the legs that they keep, first hops and standbys alike.
    fn bandwidth(&self, mode: Mode) -> Option<f64> {
        let cost = &self.modes[mode as usize];
        let each = self.signed as f64 / self.legs.max(1) as f64;
        let kept = each * cost.standbys as f64;
        (cost.bytes_up > 0).then(|| (cost.bytes_copied as f64 + kept) / cost.bytes_up as f64)
    }
}

impl Control {
    /// A worker summed the session up.
    pub(super) fn note_carried(&mut self, session: SessionId, totals: Totals) {
        let Some(resident) = self.homes.get_mut(session) else {
            return;
        };
        let before = resident.totals();
        resident.note_totals(totals);
        if let Some((mode, legs)) = self.gateway.mode_of(session) {
            self.costs.carried(mode, legs, &before, &totals);
        }
    }

    pub(super) fn mode_views(&self) -> Vec<ModeView> {
        Mode::ALL.into_iter().map(|mode| self.mode_view(mode)).collect()
    }

    fn mode_view(&self, mode: Mode) -> ModeView {
        let scenarios = self.gateway.scenarios().filter(|(_, scenario)| scenario.mode == mode);
        let workers = self.workers.iter().map(|worker| worker.stamps.recoveries(mode));
        let recoveries = Distribution::of(workers);
        let cost = &self.costs.modes[mode as usize];
        let switched = cost.switches > 0 || recoveries.count() > 0;
        ModeView {
            mode,
            scenarios: scenarios.map(|(name, _)| Arc::clone(name)).collect(),
            recoveries: recoveries.count(),
            recovery_p50: recoveries.within(500),
            recovery_p99: recoveries.within(990),
            recovery_max: recoveries.longest(),
            packets_lost: switched.then_some(cost.lost),
            bandwidth_cost: self.costs.bandwidth(mode),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_mode_costs_is_what_went_to_standbys_against_what_went_to_first_hops() {
        let mut costs = Costs::default();
        assert_eq!(costs.bandwidth(Mode::Hot), None, "nothing was carried");
        let carried =
            |bytes_up, bytes_copied| Totals { bytes_up, bytes_copied, ..Totals::default() };
        let before = carried(1_000, 1_000);
        costs.carried(Mode::Hitless, 2, &before, &carried(2_000, 2_000));
        costs.carried(Mode::Hot, 3, &before, &carried(3_000, 1_000));
        costs.carried(Mode::Cold, 1, &before, &carried(5_000, 1_000));
        assert_eq!(costs.bandwidth(Mode::Hitless), Some(1.0));
        assert_eq!(costs.bandwidth(Mode::Hot), Some(0.0));
        // Six legs, of which hot has two at standbys and hitless one.
        costs.signed(600);
        assert_eq!(costs.bandwidth(Mode::Hitless), Some(1.1));
        assert_eq!(costs.bandwidth(Mode::Hot), Some(0.1));
        assert_eq!(costs.bandwidth(Mode::Cold), Some(0.0));
        assert_eq!(costs.bandwidth(Mode::Regional), None);
    }
}
