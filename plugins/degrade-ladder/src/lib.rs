//! Degradation policy: caps a lossy session step by step, then sends it voice only, and recovers
//! slowly.
//!
//! Each session has a separate ladder. While its loss is too high, or its round trip grows as in a queue that fills up,
//! it steps down one rung at a time. It takes the steps in the configured order, each to its end (a cap down to the
//! scenario's floor) and only if it helps. After a calm period it steps back up, one rung at a time, last step first.
//! An upgrade that fails is reverted at once, and the next one is tried after twice the time, so that a session settles
//! just below the capacity of its network.

mod climb;
mod ladder;
mod memory;
mod network;
#[cfg(test)]
mod tests;

use evenkeel_plugin_sdk::prelude::*;

use crate::ladder::{Ladder, Rung};
pub use crate::memory::LadderMemory;
use crate::network::{NetworkCondition, Remedy};

/// Settings.
#[derive(Settings, Debug)]
pub struct DegradeLadder {
    /// Steps of degradation, in order.
    #[setting(default = ["cap", "voice-only"])]
    steps: Vec<LadderStep>,
    /// Loss in either direction from which a session is degraded.
    #[setting(default = 0.03, min = 0.001, max = 1)]
    down_at_loss: f64,
    /// Loss from which it is sent voice only.
    #[setting(default = 0.08, min = 0.001, max = 1)]
    voice_only_at_loss: f64,
    /// Increase of the round trip over its recent minimum from which a session is degraded, as
    /// packets queue up and will be lost. "0s": ignore the round trip.
    #[setting(default = "0s", max = "5s")]
    down_at_queue: Duration,
    /// Time in a bad network before a downgrade, and before each further one.
    #[setting(default = "600ms", max = "1m")]
    down_after: Duration,
    /// Upgrades need loss below `down_at_loss` by this share.
    #[setting(default = 0.5, min = 0, max = 1)]
    hysteresis: f64,
    /// Time in a good network before an upgrade, and before each further one; doubled after each
    /// upgrade that did not hold.
    #[setting(default = "8s", max = "1h")]
    up_after: Duration,
    /// Limit of that time after failed upgrades.
    #[setting(default = "2m", max = "1h")]
    max_up_after: Duration,
    /// Share of the rate left by each rung of the step `cap`.
    #[setting(default = 0.7, min = 0.1, max = 0.95)]
    cap_factor: f64,
    /// Factor of the cap at each upgrade.
    #[setting(default = 1.5, min = 1.05, max = 10)]
    raise_factor: f64,
    /// Roles (label `role`) that are degraded before others.
    #[setting(default = [])]
    low_priority_roles: Vec<String>,
    /// Their share of the loss and the time at which others are degraded.
    #[setting(default = 0.5, min = 0.1, max = 1)]
    low_priority_factor: f64,
}

/// A step of degradation.
#[derive(Settings, Clone, Copy, PartialEq, Eq, Debug)]
pub enum LadderStep {
    /// The bit rate: the sender is asked to send less.
    Cap,
    /// Video, if there is any.
    VoiceOnly,
}

/// Maximum age at which an existing cap is that of the session's admission. The first tick comes well within this time.
const NEW: Duration = Duration::from_secs(5);

/// Share of the last tick's loss below which loss is falling.
const FALLING: f64 = 0.98;

/// Reasons of actions.
#[derive(Reason, Clone, Copy, PartialEq, Debug)]
pub enum ActionReason {
    /// Loss is too high.
    Loss = 1,
    /// Loss was low for a while.
    Recovered = 2,
    /// The round trip grows: packets queue up.
    Queue = 3,
    /// The last upgrade failed.
    Relapse = 4,
}

#[degradation]
impl Degradation for DegradeLadder {
    type State = LadderMemory;
    type Reason = ActionReason;

    const READS: &'static [Metric] = &[
        Metric::LossUp,
        Metric::LossDown,
        Metric::RttClient,
        Metric::BitrateUp,
        Metric::Rung,
        Metric::Age,
        Metric::Cap,
        Metric::Video,
        Metric::Sessions,
        Metric::Floor,
        Metric::Ceiling,
    ];

    fn open(&self, newcomer: &NewSession<'_>) -> LadderMemory {
        let role = newcomer.labels.value(label::ROLE);
        let low_priority =
            role.is_some_and(|role| self.low_priority_roles.iter().any(|one| one == role));
        LadderMemory { low_priority, ..LadderMemory::fresh() }
    }

    fn tick(&self, session: &Session<'_, LadderMemory>, out: &mut Actions<LadderMemory>) {
        let mut memory = session.state().clone();
        // The active cap may differ from the requested one, because of the gateway's own ladder or the scenario's
        // floor.
        memory.cap = session.cap_kbps().unwrap_or(memory.cap);
        if !memory.seen {
            memory.seen = true;
            let new = session.age_ms().is_some_and(|ms| Duration::from_millis(ms.into()) < NEW);
            memory.allowed = if new { memory.cap } else { 0 };
        }
        match NetworkCondition::of(self, session, &mut memory) {
            // Without a measurement nothing changes.
            NetworkCondition::Unknown => {}
            NetworkCondition::Between => {
                (memory.bad_since, memory.good_since, memory.loss_before) = (None, None, 0);
            }
            NetworkCondition::Bad(remedy, why) => {
                self.suffer(session, remedy, why, &mut memory, out);
            }
            NetworkCondition::Good => self.recover(session, &mut memory, out),
        }
        if memory != *session.state() {
            out.keep(&memory);
        }
    }
}

impl DegradeLadder {
    /// Takes a downgrade if it is due.
    fn suffer(
        &self,
        session: &Session<'_, LadderMemory>,
        remedy: Remedy,
        why: ActionReason,
        memory: &mut LadderMemory,
        out: &mut Actions<LadderMemory>,
    ) {
        let now = session.now();
        memory.good_since = None;
        let lasted = now - begun(&mut memory.bad_since, now);
        let loss = session.loss_up_ppm().max(session.loss_down_ppm()).unwrap_or(0);
        let before = std::mem::replace(&mut memory.loss_before, loss);
        // Falling loss since the last rung needs no further rung: loss is smoothed, and reported late.
        let falls = why == ActionReason::Loss && f64::from(loss) < f64::from(before) * FALLING;
        let bears =
            self.share(memory).map_or(self.down_after, |share| self.down_after.mul_f64(share));
        if falls || lasted < bears {
            return;
        }
        let ladder = Ladder { settings: self, session };
        let relapsed = memory.relapse(self.up_after, now);
        let back = relapsed.and_then(|held| ladder.back(memory, held, |op| out.may(op)));
        let (rung, why) = match back {
            Some(rung) => (Some(rung), ActionReason::Relapse),
            None => (ladder.down(memory, remedy, |op| out.may(op)), why),
        };
        if let Some(rung) = rung {
            rung.take(memory, out, why);
            self.explain(session, memory, out);
            memory.bad_since = Some(now);
            memory.queue.acted();
        }
    }

    /// Takes an upgrade if it is due.
    fn recover(
        &self,
        session: &Session<'_, LadderMemory>,
        memory: &mut LadderMemory,
        out: &mut Actions<LadderMemory>,
    ) {
        let now = session.now();
        (memory.bad_since, memory.loss_before) = (None, 0);
        let lasted = now - begun(&mut memory.good_since, now);
        memory.settle(self.up_after, now);
        let wait = memory.wait(self.up_after, self.max_up_after);
        let wait = self.share(memory).map_or(wait, |share| wait.div_f64(share));
        if lasted >= wait
            && let Some(rung) = (Ladder { settings: self, session }).up(memory)
        {
            memory.climbs(rung, now);
            rung.take(memory, out, ActionReason::Recovered);
            memory.good_since = Some(now);
        }
    }

    /// Returns the factor for a low-priority role; `None` for others.
    fn share(&self, memory: &LadderMemory) -> Option<f64> {
        memory.low_priority.then_some(self.low_priority_factor)
    }

    /// Adds the values that led to a downgrade as notes.
    fn explain(
        &self,
        session: &Session<'_, LadderMemory>,
        memory: &LadderMemory,
        out: &mut Actions<LadderMemory>,
    ) {
        if let Some(loss) = session.loss_up_ppm() {
            out.note("loss_up_ppm", loss.into());
        }
        if let Some(loss) = session.loss_down_ppm() {
            out.note("loss_down_ppm", loss.into());
        }
        if self.down_at_queue > Duration::ZERO {
            out.note("queue_us", memory.queue.longer_us(session.rtt_client_us()).into());
        }
    }
}

/// Returns the start of a condition, and sets it to `now` if it was unset. A state of another gateway may contain a
/// time in the future.
fn begun(since: &mut Option<Duration>, now: Duration) -> Duration {
    *since.insert(since.unwrap_or(now).min(now))
}

impl Rung {
    fn take(self, memory: &mut LadderMemory, out: &mut Actions<LadderMemory>, why: ActionReason) {
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
