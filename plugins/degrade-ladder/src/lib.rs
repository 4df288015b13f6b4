//! Degradation policy: caps the direction of a session that loses, step by step, then sends it fewer frames or voice only, and recovers.
//!
//! Each direction of a session has a separate ladder. While packets are missing after repair, its round trip grows as in a queue that
//! fills up, or its packets arrive unevenly, it steps down one rung at a time. It takes the steps in the configured order, each to its
//! end and only if it helps. A cap follows what the path carries: loss takes at most a multiple of its own share from the rate, so that
//! random loss, which no cap mends, leaves most of the quality. After a calm period the direction steps back up, one rung at a time,
//! last step first. An upgrade that fails is reverted at once, and the next one is tried after twice the time, so that a session
//! settles just below the capacity of its network.

mod climb;
mod ladder;
mod memory;
mod network;
#[cfg(test)]
mod tests;

use evenkeel_plugin_sdk::prelude::*;

use crate::ladder::{Ladder, Rung};
pub use crate::memory::LadderMemory;
use crate::network::{Direction, NetworkCondition, Remedy};

/// Settings.
#[derive(Settings, Debug)]
pub struct DegradeLadder {
    /// Steps of degradation, in order.
    #[setting(default = ["cap", "voice-only"])]
    steps: Vec<LadderStep>,
    /// Loss after repair from which a direction is degraded.
    #[setting(default = 0.03, min = 0.001, max = 1)]
    down_at_loss: f64,
    /// Loss after repair from which the session is sent voice only.
    #[setting(default = 0.08, min = 0.001, max = 1)]
    voice_only_at_loss: f64,
    /// Loss after repair from which the session is sent fewer frames of video.
    #[setting(default = 0.05, min = 0.001, max = 1)]
    thin_at_loss: f64,
    /// Loss after repair, in either direction, from which the session is suspended or ended.
    #[setting(default = 0.5, min = 0.001, max = 1)]
    park_at_loss: f64,
    /// Increase of the round trip over its recent minimum from which a session is degraded, as
    /// packets queue up and will be lost. "0s": ignore the round trip.
    #[setting(default = "0s", max = "5s")]
    down_at_queue: Duration,
    /// Interarrival jitter from which a direction is capped by one rung. "0s": ignore the jitter.
    #[setting(default = "0s", max = "5s")]
    down_at_jitter: Duration,
    /// Time in a bad network before a downgrade, and before each further one.
    #[setting(default = "600ms", max = "1m")]
    down_after: Duration,
    /// Upgrades need loss and jitter below their limits by this share.
    #[setting(default = 0.5, min = 0, max = 1)]
    hysteresis: f64,
    /// Time in a good network before an upgrade, and before each further one; doubled after each
    /// upgrade that did not hold.
    #[setting(default = "8s", max = "1h")]
    up_after: Duration,
    /// Limit of that time after failed upgrades.
    #[setting(default = "2m", max = "1h")]
    max_up_after: Duration,
    /// Share of the rate that arrives, left by each rung of the step `cap`.
    #[setting(default = 0.7, min = 0.1, max = 0.95)]
    cap_factor: f64,
    /// Limit of what loss takes from the rate, as a multiple of its share: with 4, caps leave 88 % at 3 % loss, and 60 % at 10 %.
    #[setting(default = 4.0, min = 1, max = 1000)]
    cut_per_loss: f64,
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
#[derive(Settings, Pack, Clone, Copy, PartialEq, Eq, Debug)]
pub enum LadderStep {
    /// The bit rate: the sender is asked to send less.
    Cap,
    /// Video, if there is any.
    VoiceOnly,
    /// Frames of the video to the session that no other needs, then all but those of the base layer.
    Thin,
    /// All media: the session is suspended, and tried again like an upgrade.
    Park,
    /// The session, for good.
    End,
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
    /// Packets arrive unevenly.
    Jitter = 5,
}

#[degradation]
impl Degradation for DegradeLadder {
    type State = LadderMemory;
    type Reason = ActionReason;

    const READS: &'static [Metric] = &[
        Metric::LossUp,
        Metric::LossDown,
        Metric::LossUpAfterRepair,
        Metric::LossDownAfterRepair,
        Metric::JitterUp,
        Metric::JitterDown,
        Metric::RttClient,
        Metric::BitrateUp,
        Metric::BitrateDown,
        Metric::Rung,
        Metric::Age,
        Metric::Cap,
        Metric::CapUp,
        Metric::CapDown,
        Metric::Thin,
        Metric::Park,
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
        if !memory.seen {
            memory.seen = true;
            let new = session.age_ms().is_some_and(|ms| Duration::from_millis(ms.into()) < NEW);
            let is_of_another = !new && session.cap_kbps().is_some_and(|kbps| kbps > 0);
            memory.earlier_cap = is_of_another.then_some(0);
            memory.thin = session.thin().unwrap_or(0).min(2) as u8;
            memory.down.parked = session.park() == Some(true);
        }
        if session.park() == Some(false) {
            (memory.up.parked, memory.down.parked) = (false, false);
        }
        let is_parked = memory.up.parked || memory.down.parked;
        let queue = memory.queue.hear(self.down_at_queue, session);
        for direction in Direction::ALL {
            // The active cap may differ from the requested one, because of the scenario's floor or another policy.
            let path = memory.path_mut(direction);
            path.cap = direction.cap_kbps(session).unwrap_or(path.cap);
            let parked = path.parked;
            let condition = match NetworkCondition::of(self, session, direction, queue, &memory) {
                // Nothing is sent to a suspended session: only another attempt shows whether its path is better.
                _ if is_parked && direction == Direction::Down && parked => NetworkCondition::Good,
                _ if is_parked && direction == Direction::Down => NetworkCondition::Unknown,
                NetworkCondition::Unknown if parked => NetworkCondition::Good,
                condition => condition,
            };
            match condition {
                // Without a measurement nothing changes.
                NetworkCondition::Unknown => {}
                NetworkCondition::Between => {
                    let path = memory.path_mut(direction);
                    path.end_bad();
                    path.good_since = None;
                }
                NetworkCondition::Bad(remedy, why) => {
                    let ladder = Ladder { settings: self, session, direction };
                    self.suffer(ladder, remedy, why, &mut memory, out);
                }
                NetworkCondition::Good => {
                    let ladder = Ladder { settings: self, session, direction };
                    self.recover(ladder, &mut memory, out);
                }
            }
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
        ladder: Ladder<'_>,
        remedy: Remedy,
        why: ActionReason,
        memory: &mut LadderMemory,
        out: &mut Actions<LadderMemory>,
    ) {
        let Ladder { session, direction, .. } = ladder;
        let now = session.now();
        let loss = direction.missing_ppm(session).unwrap_or(0);
        let bears =
            self.share(memory).map_or(self.down_after, |share| self.down_after.mul_f64(share));
        let path = memory.path_mut(direction);
        path.good_since = None;
        path.rate = path.rate.max(direction.bitrate_kbps(session).unwrap_or(0));
        let lasted = now - begun(&mut path.bad_since, now);
        let before = std::mem::replace(&mut path.loss_before, loss);
        // Falling loss since the last rung needs no further rung: loss is smoothed, and reported late.
        let falls = why == ActionReason::Loss && f64::from(loss) < f64::from(before) * FALLING;
        if falls || lasted < bears {
            return;
        }
        if why == ActionReason::Loss {
            path.judge_cap(loss);
        }
        let relapsed = path.relapse(self.up_after, now);
        let back = relapsed.and_then(|held| ladder.back(memory, held, |op| out.may(op)));
        let (rung, why) = match back {
            Some(rung) => (Some(rung), ActionReason::Relapse),
            None => (ladder.down(memory, remedy, why, |op| out.may(op)), why),
        };
        if let Some(rung) = rung {
            rung.take(direction, memory, out, why);
            self.explain(session, memory, out);
            let path = memory.path_mut(direction);
            (path.bad_since, path.rate) = (Some(now), 0);
            memory.queue.acted();
        }
    }

    /// Takes an upgrade if it is due.
    fn recover(
        &self,
        ladder: Ladder<'_>,
        memory: &mut LadderMemory,
        out: &mut Actions<LadderMemory>,
    ) {
        let Ladder { session, direction, .. } = ladder;
        let now = session.now();
        let share = self.share(memory);
        let path = memory.path_mut(direction);
        path.end_bad();
        let lasted = now - begun(&mut path.good_since, now);
        path.settle(self.up_after, now);
        let wait = path.wait(self.up_after, self.max_up_after);
        let wait = share.map_or(wait, |share| wait.div_f64(share));
        if lasted >= wait
            && let Some(rung) = ladder.up(memory, |op| out.may(op))
        {
            let attempt = ladder.attempt(rung, memory);
            let path = memory.path_mut(direction);
            path.climb = attempt.or(path.climb);
            path.good_since = Some(now);
            rung.take(direction, memory, out, ActionReason::Recovered);
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
        let losses = [
            ("loss_up_ppm", session.loss_up_ppm()),
            ("loss_down_ppm", session.loss_down_ppm()),
            ("loss_up_after_repair_ppm", session.loss_up_after_repair_ppm()),
            ("loss_down_after_repair_ppm", session.loss_down_after_repair_ppm()),
        ];
        for (key, loss) in losses {
            loss.into_iter().for_each(|ppm| _ = out.note(key, ppm.into()));
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
    fn take(
        self,
        direction: Direction,
        memory: &mut LadderMemory,
        out: &mut Actions<LadderMemory>,
        why: ActionReason,
    ) {
        match self {
            Rung::Cap { kbps, of } => {
                let path = memory.path_mut(direction);
                (path.cap, path.uncapped) = (kbps, of);
                out.act(direction.cap(), kbps.into()).because(why);
            }
            Rung::LiftCap => {
                let path = memory.path_mut(direction);
                (path.cap, path.uncapped, path.helped, path.loss_then) = (0, 0, 0, 0);
                out.act(direction.cap(), 0).because(why);
            }
            Rung::EarlierCap { kbps } => {
                memory.earlier_cap = None;
                out.cap(kbps).because(why);
            }
            Rung::Thin { level } => {
                memory.thin = level;
                out.thin(level.into()).because(why);
            }
            Rung::Park => {
                memory.path_mut(direction).parked = true;
                out.park().because(why);
            }
            Rung::Resume => {
                memory.path_mut(direction).parked = false;
                out.resume().because(why);
            }
            Rung::End => _ = out.end().because(why),
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
