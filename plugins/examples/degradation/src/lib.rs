//! Degradation policy: caps a session with high loss, and removes the cap afterwards.
//!
//! A complete example. Change its decisions, settings and tests.

use evenkeel_plugin_sdk::prelude::*;

/// Settings, validated against these bounds.
#[derive(Settings, Debug)]
pub struct CapOnLoss {
    /// Loss from which a session is in trouble.
    #[setting(default = 0.05, min = 0.001, max = 1)]
    loss: f64,
    /// Its cap meanwhile, within the bounds of its scenario.
    #[setting(default = 300, unit = "kbit/s", min = 24)]
    cap: u32,
    /// Consecutive ticks until it counts as in trouble, and until it has recovered.
    #[setting(default = 3, min = 1, max = 100)]
    ticks: u8,
}

/// State of a session. It survives a swap of this policy, a trap, and a move to another gateway.
/// The plugin itself has no state. If the fields change, increment the number and name a `migrate`
/// function.
#[derive(State, Clone, PartialEq, Debug)]
#[state(schema = 1)]
pub struct Memory {
    /// True if the session was in trouble at the last tick.
    trouble: bool,
    /// Number of ticks in this condition, up to the setting.
    ticks: u8,
}

/// Reasons, by name for people.
#[derive(Reason, Clone, Copy, PartialEq, Debug)]
pub enum Why {
    /// Loss was high for long enough.
    Loss = 1,
    /// Loss was low for long enough.
    Calm = 2,
}

#[degradation]
impl Degradation for CapOnLoss {
    type State = Memory;
    type Reason = Why;

    /// The gateway sends only these columns.
    const READS: &'static [Metric] = &[Metric::LossUp, Metric::Cap, Metric::Floor, Metric::Ceiling];
    /// The policy takes only these actions.
    const OPS: &'static [Op] = &[Op::Cap];

    fn tick(&self, session: &Session<'_, Memory>, out: &mut Actions<Memory>) {
        // `None` means "not measured".
        let Some(loss) = session.loss_up_ppm() else {
            return;
        };
        let trouble = f64::from(loss) / 1e6 >= self.loss;
        let before = session.state();
        let so_far = if trouble == before.trouble { before.ticks } else { 0 };
        let now = Memory { trouble, ticks: so_far.saturating_add(1).min(self.ticks) };

        let capped = session.cap_kbps().is_some_and(|kbps| kbps > 0);
        if now.ticks == self.ticks && trouble != capped {
            if trouble {
                // The gateway rejects a cap outside the bounds of the session's scenario.
                let cap = session.within_bounds(self.cap);
                out.cap(cap).because(Why::Loss).note("loss_ppm", loss.into());
            } else {
                out.lift_cap().because(Why::Calm);
            }
        }
        if now != *before {
            out.keep(&now);
        }
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_plugin_sdk::trial::{Session, Trial, World};

    use super::*;

    fn trial() -> Trial<CapOnLoss> {
        Trial::of(CapOnLoss::default(), World::around("east"))
    }

    /// A session with a cap (0: none), after this number of ticks in or out of trouble.
    fn session(trouble: bool, ticks: u8, cap: u32) -> Session<Memory> {
        let measured = vec![(Metric::Cap, cap)];
        Session { measured, state: Memory { trouble, ticks } }
    }

    fn tick(session: &mut Session<Memory>, loss: u32) -> Vec<(usize, Op, u64, u32)> {
        let mut sessions = [session.clone()];
        sessions[0].measured.push((Metric::LossUp, loss));
        let actions = trial().tick(&mut sessions);
        session.state = sessions[0].state.clone();
        actions
    }

    #[test]
    fn third_tick_of_trouble_caps() {
        let mut restless = session(false, 3, 0);
        assert_eq!(tick(&mut restless, 50_000), []);
        assert_eq!(tick(&mut restless, 50_000), []);
        assert_eq!(tick(&mut restless, 50_000), [(0, Op::Cap, 300, Why::Loss as u32)]);
    }

    #[test]
    fn tick_without_trouble_resets_the_count() {
        let mut session = session(true, 2, 0);
        assert_eq!(tick(&mut session, 49_999), []);
        assert_eq!(session.state, Memory { trouble: false, ticks: 1 });
    }

    #[test]
    fn cap_is_removed_after_recovery() {
        let mut capped = session(false, 1, 300);
        assert_eq!(tick(&mut capped, 0), []);
        assert_eq!(tick(&mut capped, 0), [(0, Op::Cap, 0, Why::Calm as u32)]);
    }

    #[test]
    fn cap_respects_the_scenarios_bounds() {
        let mut voice = session(true, 2, 0);
        voice.measured.extend([(Metric::Floor, 24), (Metric::Ceiling, 64)]);
        assert_eq!(tick(&mut voice, 90_000), [(0, Op::Cap, 64, Why::Loss as u32)]);
        let mut film = session(true, 2, 0);
        film.measured.extend([(Metric::Floor, 800), (Metric::Ceiling, 4_000)]);
        assert_eq!(tick(&mut film, 90_000), [(0, Op::Cap, 800, Why::Loss as u32)]);
    }

    #[test]
    fn unmeasured_loss_changes_nothing() {
        let mut sessions = [session(true, 2, 0)];
        assert_eq!(trial().tick(&mut sessions), []);
        assert_eq!(sessions[0].state, Memory { trouble: true, ticks: 2 });
    }
}
