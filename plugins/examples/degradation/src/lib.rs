//! Degradation: how much quality does each session get? Here one that loses too much is told to send half of what it
//! sends, and has its freedom back after some calm ticks.

use evenkeel_plugin_sdk::prelude::*;

/// What an operator can set.
#[derive(Settings)]
pub struct Halve {
    /// From this loss on, on the way to the gateway, a session is halved.
    #[setting(default = 50_000, unit = "ppm", min = 1, max = 1_000_000)]
    loss: u32,
    /// Calm ticks in a row after which it may send as it likes.
    #[setting(default = 50, min = 1, max = 10_000)]
    calm_ticks: u32,
}

/// What is remembered of a session. It travels with it; a plugin keeps nothing.
#[derive(State, Clone, PartialEq)]
#[state(schema = 1)]
pub struct Memory {
    calm: u32,
}

/// Why it acts.
#[derive(Reason)]
pub enum Why {
    /// Too much is lost.
    Loss = 1,
    /// It has been calm for long enough.
    Calm = 2,
}

#[degradation]
impl Degradation for Halve {
    type State = Memory;
    type Reason = Why;
    const READS: &'static [Metric] =
        &[Metric::LossUp, Metric::BitrateUp, Metric::Cap, Metric::Floor];

    fn tick(&self, session: &Session<'_, Memory>, out: &mut Actions<Memory>) {
        // What was not measured is no news: leave it as it is.
        let Some(loss) = session.loss_up_ppm() else { return };
        let capped = session.cap_kbps() > Some(0);
        let calm = if loss < self.loss { session.state().calm.saturating_add(1) } else { 0 };
        if calm == 0 && !capped {
            // A cap below the scenario's floor would be refused.
            let half = session.bitrate_up_kbps().unwrap_or(0) / 2;
            out.cap(half.max(session.floor_kbps().unwrap_or(0))).because(Why::Loss);
            out.note("loss_ppm", loss.into());
        } else if calm >= self.calm_ticks && capped {
            out.lift_cap().because(Why::Calm);
        }
        out.keep(&Memory { calm });
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_plugin_sdk::trial::{self, Trial, World};

    use super::*;

    #[test]
    fn who_loses_too_much_is_halved_until_it_was_calm_for_a_while() {
        let policy = Halve::parse(r#"{"calm_ticks": 2}"#).expect("these are settings of it");
        let mut trial = Trial::of(policy, World::around("east"));
        let mut tick = |loss, cap, calm| {
            let metrics = [Metric::LossUp, Metric::BitrateUp, Metric::Cap, Metric::Floor];
            let measured = metrics.into_iter().zip([loss, 1_000, cap, 24]).collect();
            let mut session = [trial::Session { measured, state: Memory { calm } }];
            (trial.tick(&mut session), session[0].state.calm)
        };
        assert_eq!(tick(49_999, 0, 0), (vec![], 1));
        assert_eq!(tick(50_000, 0, 7), (vec![(0, Op::Cap, 500, 1)], 0));
        assert_eq!(tick(0, 500, 0), (vec![], 1));
        assert_eq!(tick(0, 500, 1), (vec![(0, Op::Cap, 0, 2)], 2));
    }
}
