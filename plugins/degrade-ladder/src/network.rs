//! The condition of a session's network, and the steps that would help.

use evenkeel_plugin_sdk::prelude::*;

use crate::{ActionReason, DegradeLadder, LadderMemory};

/// Rate at which the usual round trip follows a longer one. It is high enough that a new path is not mistaken for a
/// queue for long, and low enough that the policy reacts to a queue first.
const FOLLOWS_PER_SECOND: Duration = Duration::from_millis(5);

/// In a room of two, a cap on one session also lowers the rate received by the other.
const ROOM_OF_TWO: u32 = 2;

/// Condition of a session's network.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum NetworkCondition {
    Unknown,
    Good,
    /// The network is neither good nor bad: no change.
    Between,
    Bad(Remedy, ActionReason),
}

/// The steps that would help.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Remedy {
    /// True if a cap on the session helps.
    pub(crate) cap: bool,
    /// True if dropping the video sent to the session helps, as the last resort.
    pub(crate) voice_only: bool,
}

impl NetworkCondition {
    pub(crate) fn of(
        settings: &DegradeLadder,
        session: &Session<'_, LadderMemory>,
        memory: &mut LadderMemory,
    ) -> NetworkCondition {
        let share = settings.share(memory).unwrap_or(1.0);
        let ppm = |part: f64| part * share * 1e6;
        let down_at = ppm(settings.down_at_loss);
        let voice_only_at = ppm(settings.voice_only_at_loss);
        let (up, down) = (session.loss_up_ppm(), session.loss_down_ppm());
        let is = |loss: Option<u32>, at: f64| loss.is_some_and(|loss| f64::from(loss) >= at);
        let queue = memory.queue.hear(settings.down_at_queue, session);
        let loss = up.max(down);
        if is(loss, down_at) {
            let in_pair = session.sessions().is_none_or(|sessions| sessions <= ROOM_OF_TWO);
            let cap = in_pair || is(up, down_at);
            return NetworkCondition::Bad(
                Remedy { cap, voice_only: is(loss, voice_only_at) },
                ActionReason::Loss,
            );
        }
        match (loss, queue) {
            (_, QueueLevel::High) => {
                NetworkCondition::Bad(Remedy { cap: true, voice_only: false }, ActionReason::Queue)
            }
            (None, _) => NetworkCondition::Unknown,
            (Some(_), QueueLevel::Between) => NetworkCondition::Between,
            (Some(_), QueueLevel::Low) if is(loss, down_at * (1.0 - settings.hysteresis)) => {
                NetworkCondition::Between
            }
            (Some(_), QueueLevel::Low) => NetworkCondition::Good,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum QueueLevel {
    Low,
    Between,
    High,
}

/// Recent round trips of a session. The excess over the usual one is queueing delay.
#[derive(Pack, Clone, Copy, PartialEq, Debug)]
pub(crate) struct QueueDelay {
    /// The recent minimum, microseconds; 0 before the first report.
    usual_us: u32,
    /// Time when the minimum was last updated.
    at: Duration,
    /// The last reported round trip, microseconds.
    heard_us: u32,
    /// True if the policy has acted on the last report: each report justifies one rung.
    acted: bool,
}

impl QueueDelay {
    fn hear(&mut self, limit: Duration, session: &Session<'_, LadderMemory>) -> QueueLevel {
        let Some(rtt_us) = session.rtt_client_us().filter(|_| limit > Duration::ZERO) else {
            return QueueLevel::Low;
        };
        let now = session.now();
        let passed = now.saturating_sub(self.at);
        let follows = FOLLOWS_PER_SECOND.mul_f64(passed.as_secs_f64()).as_micros();
        let usual_us = self.usual_us.saturating_add(u32::try_from(follows).unwrap_or(u32::MAX));
        // At most once per second, because an unchanged state need not be written.
        if self.usual_us == 0 || rtt_us < self.usual_us || passed >= Duration::from_secs(1) {
            self.usual_us = if self.usual_us == 0 { rtt_us } else { rtt_us.min(usual_us) };
            self.at = now;
        }
        if rtt_us != self.heard_us {
            (self.heard_us, self.acted) = (rtt_us, false);
        }
        let longer = Duration::from_micros(self.longer_us(Some(rtt_us)).into());
        if longer >= limit {
            if self.acted { QueueLevel::Between } else { QueueLevel::High }
        } else if longer >= limit / 2 {
            QueueLevel::Between
        } else {
            QueueLevel::Low
        }
    }

    /// Returns the excess of a round trip over the usual one, microseconds; 0 if there is none.
    pub(crate) fn longer_us(&self, rtt_us: Option<u32>) -> u32 {
        rtt_us.map_or(0, |rtt| rtt.saturating_sub(self.usual_us))
    }

    /// Records a downgrade.
    pub(crate) fn acted(&mut self) {
        self.acted = true;
    }
}
