//! Degradation policy: caps a lossy session step by step, then voice only, and climbs back slowly.
//!
//! Each session has a ladder of its own. While it loses too many packets it goes down one rung at a time: through the
//! steps in the order that the settings give, each as far as it goes (a cap down to the scenario's floor), before the
//! next begins. When loss has stayed low for a while it climbs back the same way, one rung at a time, last step first.

mod ladder;
#[cfg(test)]
mod tests;

use evenkeel_plugin_sdk::prelude::*;

use crate::ladder::{Ladder, Rung};

/// What an operator can set.
#[derive(Settings, Debug)]
pub struct DegradeLadder {
    /// What is given up, first to last.
    #[setting(default = ["cap", "voice-only"])]
    steps: Vec<Step>,
    /// A session that loses this part of its packets or more, in either direction, goes down.
    #[setting(default = 0.03, min = 0.001, max = 1)]
    down_at_loss: f64,
    /// It goes down a rung when it has lost as much for so long, and a further one after as long again.
    #[setting(default = "600ms", max = "1m")]
    down_after: Duration,
    /// It climbs only while its loss is below `down_at_loss` by this part.
    #[setting(default = 0.5, min = 0, max = 1)]
    hysteresis: f64,
    /// It climbs a rung when its loss was low for so long, and a further one after as long again.
    #[setting(default = "8s", max = "1h")]
    up_after: Duration,
    /// Each rung of the step `cap` leaves this part of the rate.
    #[setting(default = 0.7, min = 0.1, max = 0.95)]
    cap_factor: f64,
}

/// What can be given up.
#[derive(Settings, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Rate: the session is told to send less.
    Cap,
    /// Video, where there is any.
    VoiceOnly,
}

/// A cap in force on a session younger than this is the one it was let in with. Ticks come well within it.
const NEW: Duration = Duration::from_secs(5);

/// What is remembered of a session.
#[derive(State, Clone, PartialEq, Debug)]
#[state(schema = 1)]
pub struct Memory {
    /// Whether it was in a tick before.
    seen: bool,
    /// The cap it was let in with, which no climb goes beyond; 0 where there is none. kbit/s.
    allowed: u32,
    /// The cap asked for; 0 where there is none. kbit/s.
    cap: u32,
    /// The rate when the first cap was set, kbit/s: above it a cap does nothing.
    uncapped: u32,
    /// Whether the session was asked to do without video.
    voice_only: bool,
    /// Since when loss has been too high, or the last rung down.
    bad_since: Option<Duration>,
    /// Since when loss has been low, or the last rung up.
    good_since: Option<Duration>,
}

/// Why a rung was taken.
#[derive(Reason, Clone, Copy, PartialEq, Debug)]
pub enum Why {
    /// Too many packets are lost.
    Loss = 1,
    /// Few enough were lost for a while.
    Recovered = 2,
}

#[degradation]
impl Degradation for DegradeLadder {
    type State = Memory;
    type Reason = Why;

    const READS: &'static [Metric] = &[
        Metric::LossUp,
        Metric::LossDown,
        Metric::BitrateUp,
        Metric::Rung,
        Metric::Age,
        Metric::Cap,
        Metric::Video,
        Metric::Floor,
        Metric::Ceiling,
    ];

    fn tick(&self, session: &Session<'_, Memory>, out: &mut Actions<Memory>) {
        let mut memory = session.state().clone();
        // The cap in force may be another than was asked for: the gateway's own ladder, or the scenario's floor.
        memory.cap = session.cap_kbps().unwrap_or(memory.cap);
        if !memory.seen {
            memory.seen = true;
            let new = session.age_ms().is_some_and(|ms| Duration::from_millis(ms.into()) < NEW);
            memory.allowed = if new { memory.cap } else { 0 };
        }
        // Not measured is no news, neither good nor bad.
        if let Some(loss) = session.loss_up_ppm().max(session.loss_down_ppm()) {
            self.step(session, loss, &mut memory, out);
        }
        if memory != *session.state() {
            out.keep(&memory);
        }
    }
}

impl DegradeLadder {
    /// Takes a rung down or up where it is time for one.
    fn step(
        &self,
        session: &Session<'_, Memory>,
        loss_ppm: u32,
        memory: &mut Memory,
        out: &mut Actions<Memory>,
    ) {
        let loss = f64::from(loss_ppm) / 1e6;
        let now = session.now();
        let bad = loss >= self.down_at_loss;
        let good = loss < self.down_at_loss * (1.0 - self.hysteresis);
        // A state that came from another gateway may speak of a time that this one has not seen yet.
        let begun = |since: &mut Option<Duration>| *since.insert(since.unwrap_or(now).min(now));
        let bad_since = begun(&mut memory.bad_since);
        let good_since = begun(&mut memory.good_since);
        let ladder = Ladder { settings: self, session };
        if bad {
            memory.good_since = None;
            if now - bad_since >= self.down_after
                && let Some(rung) = ladder.down(memory, |op| out.may(op))
            {
                rung.take(memory, out, Why::Loss);
                out.note("loss_ppm", loss_ppm.into());
                memory.bad_since = Some(now);
            }
        } else if good {
            memory.bad_since = None;
            if now - good_since >= self.up_after
                && let Some(rung) = ladder.up(memory)
            {
                rung.take(memory, out, Why::Recovered);
                memory.good_since = Some(now);
            }
        } else {
            (memory.bad_since, memory.good_since) = (None, None);
        }
    }
}

impl Rung {
    fn take(self, memory: &mut Memory, out: &mut Actions<Memory>, why: Why) {
        match self {
            Rung::Cap { kbps, of } => {
                (memory.cap, memory.uncapped) = (kbps, of);
                out.cap(kbps).because(why);
            }
            Rung::LiftCap => {
                (memory.cap, memory.uncapped) = (0, 0);
                out.lift_cap().because(why);
            }
            Rung::VoiceOnly => {
                memory.voice_only = true;
                out.voice_only().because(why);
            }
            Rung::RestoreVideo => {
                memory.voice_only = false;
                out.restore_video().because(why);
            }
        }
    }
}
