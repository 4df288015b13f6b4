//! Degradation policy: a session that loses too much of what it sends is capped, and let free when that is over.
//!
//! It is complete and works as it is. Change what it decides, what an operator can set, and the tests below.

use evenkeel_plugin_sdk::prelude::*;

/// What an operator can set. Checked against these bounds before it gets here.
#[derive(Settings, Debug)]
pub struct CapOnLoss {
    /// A session that loses this part of its packets, or more, is in trouble.
    #[setting(default = 0.05, min = 0.001, max = 1)]
    loss: f64,
    /// What it may send meanwhile, within the bounds of its scenario.
    #[setting(default = 300, unit = "kbit/s", min = 24)]
    cap: u32,
    /// So many ticks in a row make trouble, and so many make it good again.
    #[setting(default = 3, min = 1, max = 100)]
    ticks: u8,
}

/// What is remembered of a session. It travels with the session: over a swap of this policy, over a trap, to another
/// gateway. The plugin itself keeps nothing. When the fields change, raise the number and name a `migrate` function.
#[derive(State, Clone, PartialEq, Debug)]
#[state(schema = 1)]
pub struct Memory {
    /// Whether it was in trouble at the last tick.
    trouble: bool,
    /// For how many ticks that has been so, as far as they matter.
    ticks: u8,
}

/// Why it acts; people see the names.
#[derive(Reason, Clone, Copy, PartialEq, Debug)]
pub enum Why {
    /// It lost too much for long enough.
    Loss = 1,
    /// It has been good for long enough.
    Calm = 2,
}

#[degradation]
impl Degradation for CapOnLoss {
    type State = Memory;
    type Reason = Why;

    /// The gateway sends these columns and no others.
    const READS: &'static [Metric] = &[Metric::LossUp, Metric::Cap, Metric::Floor, Metric::Ceiling];
    /// It takes these actions and no others.
    const OPS: &'static [Op] = &[Op::Cap];

    fn tick(&self, session: &Session<'_, Memory>, out: &mut Actions<Memory>) {
        // `None` is "not measured": no news is neither good nor bad.
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
                out.cap(self.cap_of(session)).because(Why::Loss).note("loss_ppm", loss.into());
            } else {
                out.lift_cap().because(Why::Calm);
            }
        }
        if now != *before {
            out.keep(&now);
        }
    }
}

impl CapOnLoss {
    /// The gateway refuses a cap outside the bounds of the session's scenario.
    fn cap_of(&self, session: &Session<'_, Memory>) -> u32 {
        let cap = session.ceiling_kbps().map_or(self.cap, |ceiling| self.cap.min(ceiling));
        session.floor_kbps().map_or(cap, |floor| cap.max(floor))
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_plugin_sdk::trial::{Session, Trial, World};

    use super::*;

    fn trial() -> Trial<CapOnLoss> {
        Trial::of(CapOnLoss::default(), World::around("east"))
    }

    /// A session that has a cap (0: none) and was ticked so often in trouble, or without.
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
    fn the_third_tick_of_trouble_caps_a_session() {
        let mut restless = session(false, 3, 0);
        assert_eq!(tick(&mut restless, 50_000), []);
        assert_eq!(tick(&mut restless, 50_000), []);
        assert_eq!(tick(&mut restless, 50_000), [(0, Op::Cap, 300, Why::Loss as u32)]);
    }

    #[test]
    fn a_tick_without_trouble_begins_the_count_anew() {
        let mut session = session(true, 2, 0);
        assert_eq!(tick(&mut session, 49_999), []);
        assert_eq!(session.state, Memory { trouble: false, ticks: 1 });
    }

    #[test]
    fn a_capped_session_is_let_free_when_it_was_good_for_as_long() {
        let mut capped = session(false, 1, 300);
        assert_eq!(tick(&mut capped, 0), []);
        assert_eq!(tick(&mut capped, 0), [(0, Op::Cap, 0, Why::Calm as u32)]);
    }

    #[test]
    fn a_cap_keeps_within_the_bounds_of_the_scenario() {
        let mut voice = session(true, 2, 0);
        voice.measured.extend([(Metric::Floor, 24), (Metric::Ceiling, 64)]);
        assert_eq!(tick(&mut voice, 90_000), [(0, Op::Cap, 64, Why::Loss as u32)]);
        let mut film = session(true, 2, 0);
        film.measured.extend([(Metric::Floor, 800), (Metric::Ceiling, 4_000)]);
        assert_eq!(tick(&mut film, 90_000), [(0, Op::Cap, 800, Why::Loss as u32)]);
    }

    #[test]
    fn what_was_not_measured_changes_nothing() {
        let mut sessions = [session(true, 2, 0)];
        assert_eq!(trial().tick(&mut sessions), []);
        assert_eq!(sessions[0].state, Memory { trouble: true, ticks: 2 });
    }
}
