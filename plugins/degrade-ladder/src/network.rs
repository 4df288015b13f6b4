//! What a session's network is like, and which step would help.

use evenkeel_plugin_sdk::prelude::*;

use crate::{DegradeLadder, Memory, Why};

/// What counts as the usual round trip follows a longer one by so much each second: fast enough that a new way is no queue
/// for long, slow enough that a queue is not taken for a new way before it is acted upon.
const FOLLOWS_PER_SECOND: Duration = Duration::from_millis(5);

/// In a room of so many a cap on one holds down what it hears as well: that comes from the other one.
const ROOM_OF_TWO: u32 = 2;

/// What a session's network is like.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Network {
    Unknown,
    Good,
    /// Neither: it stays where it is.
    Between,
    Bad(Remedy, Why),
}

/// What helps against it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Remedy {
    /// Whether sending less does.
    pub(crate) cap: bool,
    /// Whether hearing no video does, as far as that must be.
    pub(crate) voice_only: bool,
}

impl Network {
    pub(crate) fn of(
        settings: &DegradeLadder,
        session: &Session<'_, Memory>,
        memory: &mut Memory,
    ) -> Network {
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
            return Network::Bad(Remedy { cap, voice_only: is(loss, voice_only_at) }, Why::Loss);
        }
        match (loss, queue) {
            (_, Level::High) => Network::Bad(Remedy { cap: true, voice_only: false }, Why::Queue),
            (None, _) => Network::Unknown,
            (Some(_), Level::Between) => Network::Between,
            (Some(_), Level::Low) if is(loss, down_at * (1.0 - settings.hysteresis)) => {
                Network::Between
            }
            (Some(_), Level::Low) => Network::Good,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Level {
    Low,
    Between,
    High,
}

/// How long a session's round trip was lately: what it is longer now, packets wait.
#[derive(Pack, Clone, Copy, PartialEq, Debug)]
pub(crate) struct Queue {
    /// The shortest of late, microseconds; 0 before the first.
    usual_us: u32,
    /// When that was brought up to date.
    at: Duration,
    /// The round trip that was heard last, microseconds.
    heard_us: u32,
    /// Whether something was done about it: one report of a long round trip is good for one rung.
    acted: bool,
}

impl Queue {
    fn hear(&mut self, limit: Duration, session: &Session<'_, Memory>) -> Level {
        let Some(rtt_us) = session.rtt_client_us().filter(|_| limit > Duration::ZERO) else {
            return Level::Low;
        };
        let now = session.now();
        let passed = now.saturating_sub(self.at);
        let follows = FOLLOWS_PER_SECOND.mul_f64(passed.as_secs_f64()).as_micros();
        let usual_us = self.usual_us.saturating_add(u32::try_from(follows).unwrap_or(u32::MAX));
        // Once a second is often enough: a state that stays as it is need not be kept anew.
        if self.usual_us == 0 || rtt_us < self.usual_us || passed >= Duration::from_secs(1) {
            self.usual_us = if self.usual_us == 0 { rtt_us } else { rtt_us.min(usual_us) };
            self.at = now;
        }
        if rtt_us != self.heard_us {
            (self.heard_us, self.acted) = (rtt_us, false);
        }
        let longer = Duration::from_micros(self.longer_us(Some(rtt_us)).into());
        if longer >= limit {
            if self.acted { Level::Between } else { Level::High }
        } else if longer >= limit / 2 {
            Level::Between
        } else {
            Level::Low
        }
    }

    /// By how much a round trip is longer than usual, microseconds; 0 where it is not.
    pub(crate) fn longer_us(&self, rtt_us: Option<u32>) -> u32 {
        rtt_us.map_or(0, |rtt| rtt.saturating_sub(self.usual_us))
    }

    /// A rung down was taken.
    pub(crate) fn acted(&mut self) {
        self.acted = true;
    }
}
