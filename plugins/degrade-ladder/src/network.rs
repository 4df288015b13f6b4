//! The condition of a session's network, and the steps that would help.

use evenkeel_plugin_sdk::prelude::*;

use crate::{ActionReason, DegradeLadder, LadderMemory};

/// Rate at which the usual round trip follows a longer one. It is high enough that a new path is not mistaken for a
/// queue for long, and low enough that the policy reacts to a queue first.
const FOLLOWS_PER_SECOND: Duration = Duration::from_millis(5);

/// In a room of two, a cap on what one session receives is one on what the other sends.
const ROOM_OF_TWO: u32 = 2;

/// A direction of a session's media.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    /// From the session.
    Up,
    /// To the session.
    Down,
}

impl Direction {
    pub(crate) const ALL: [Direction; 2] = [Direction::Up, Direction::Down];

    fn other(self) -> Direction {
        match self {
            Direction::Up => Direction::Down,
            Direction::Down => Direction::Up,
        }
    }

    /// The action that caps this direction.
    pub(crate) fn cap(self) -> Op {
        match self {
            Direction::Up => Op::CapUp,
            Direction::Down => Op::CapDown,
        }
    }

    /// The active cap; 0 without one.
    pub(crate) fn cap_kbps(self, session: &Session<'_, LadderMemory>) -> Option<u32> {
        match self {
            Direction::Up => session.cap_up_kbps(),
            Direction::Down => session.cap_down_kbps(),
        }
    }

    /// The bit rate of packets that arrived from the session, or were sent to it.
    pub(crate) fn bitrate_kbps(self, session: &Session<'_, LadderMemory>) -> Option<u32> {
        match self {
            Direction::Up => session.bitrate_up_kbps(),
            Direction::Down => session.bitrate_down_kbps(),
        }
    }

    /// The loss before repair.
    pub(crate) fn loss_ppm(self, session: &Session<'_, LadderMemory>) -> Option<u32> {
        match self {
            Direction::Up => session.loss_up_ppm(),
            Direction::Down => session.loss_down_ppm(),
        }
    }

    /// The loss after repair. A gateway that does not measure it repairs nothing.
    pub(crate) fn missing_ppm(self, session: &Session<'_, LadderMemory>) -> Option<u32> {
        let missing = match self {
            Direction::Up => session.loss_up_after_repair_ppm(),
            Direction::Down => session.loss_down_after_repair_ppm(),
        };
        missing.or(self.loss_ppm(session))
    }

    fn jitter_us(self, session: &Session<'_, LadderMemory>) -> u32 {
        let jitter = match self {
            Direction::Up => session.jitter_up_us(),
            Direction::Down => session.jitter_down_us(),
        };
        jitter.unwrap_or(0)
    }

    /// A growing round trip may be due to a queue in this direction: the jitter of the other is not more than twice as high.
    fn may_queue(self, session: &Session<'_, LadderMemory>) -> bool {
        let other = self.other().jitter_us(session);
        self.jitter_us(session).saturating_mul(2) >= other
    }
}

/// Condition of a direction's network.
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
    /// True if fewer frames of the video sent to the session help.
    pub(crate) thin: bool,
    /// True if dropping the video sent to the session helps.
    pub(crate) voice_only: bool,
    /// True if the session is of no use, so that it is suspended or ended.
    pub(crate) park: bool,
}

impl NetworkCondition {
    pub(crate) fn of(
        settings: &DegradeLadder,
        session: &Session<'_, LadderMemory>,
        direction: Direction,
        queue: QueueLevel,
        memory: &LadderMemory,
    ) -> NetworkCondition {
        let share = settings.share(memory).unwrap_or(1.0);
        let ppm = |part: f64| part * share * 1e6;
        let down_at = ppm(settings.down_at_loss);
        let good_below = 1.0 - settings.hysteresis;
        let loss = direction.missing_ppm(session);
        let loses = |at: f64| loss.is_some_and(|loss| f64::from(loss) >= at);
        let jitter = Duration::from_micros(direction.jitter_us(session).into());
        let jitter_at = settings.down_at_jitter;
        let jitters = |share: f64| !jitter_at.is_zero() && jitter >= jitter_at.mul_f64(share);
        let queue = if direction.may_queue(session) { queue } else { QueueLevel::Low };
        let in_pair = session.sessions().is_none_or(|sessions| sessions <= ROOM_OF_TWO);
        let cap = direction == Direction::Up || in_pair;
        let is_down = direction == Direction::Down;
        if loses(down_at) {
            let remedy = Remedy {
                cap,
                thin: is_down && loses(ppm(settings.thin_at_loss)),
                voice_only: is_down && loses(ppm(settings.voice_only_at_loss)),
                park: loses(ppm(settings.park_at_loss)),
            };
            return NetworkCondition::Bad(remedy, ActionReason::Loss);
        }
        let remedy = Remedy { cap, thin: false, voice_only: false, park: false };
        if queue == QueueLevel::High {
            return NetworkCondition::Bad(Remedy { thin: is_down, ..remedy }, ActionReason::Queue);
        }
        if loss.is_none() {
            return NetworkCondition::Unknown;
        }
        if jitters(1.0) {
            return NetworkCondition::Bad(remedy, ActionReason::Jitter);
        }
        let is_calm = queue == QueueLevel::Low && !loses(down_at * good_below);
        if is_calm && !jitters(good_below) {
            NetworkCondition::Good
        } else {
            NetworkCondition::Between
        }
    }
}

/// The excess of the round trip over the usual one.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum QueueLevel {
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
    pub(crate) fn hear(
        &mut self,
        limit: Duration,
        session: &Session<'_, LadderMemory>,
    ) -> QueueLevel {
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
