//! Degradation policy: caps a lossy session step by step, then voice only, and climbs back slowly.
//!
//! Each session has a ladder of its own. While it loses too many packets, or its round trip grows as a queue does that is
//! filling up, it goes down one rung at a time: through the steps in the order that the settings give, each as far as it
//! goes (a cap down to the scenario's floor) and where it helps, before the next begins. When the network was calm for a
//! while it climbs back the same way, one rung at a time, last step first. A rung up that does not hold is taken back at
//! once, and the next is tried after twice as long: so a session settles just below what its network carries.

mod climb;
mod ladder;
mod memory;
mod network;
#[cfg(test)]
mod tests;

use evenkeel_plugin_sdk::prelude::*;

use crate::ladder::{Ladder, Rung};
pub use crate::memory::Memory;
use crate::network::{Network, Remedy};

/// What an operator can set.
#[derive(Settings, Debug)]
pub struct DegradeLadder {
    /// What is given up, first to last.
    #[setting(default = ["cap", "voice-only"])]
    steps: Vec<Step>,
    /// A session that loses this part of its packets or more, in either direction, goes down.
    #[setting(default = 0.03, min = 0.001, max = 1)]
    down_at_loss: f64,
    /// Only one that loses this part or more gives up its video.
    #[setting(default = 0.08, min = 0.001, max = 1)]
    voice_only_at_loss: f64,
    /// One whose round trip is longer by this than it was lately goes down as well: packets queue up, and will be lost.
    /// "0s": the round trip is not looked at.
    #[setting(default = "0s", max = "5s")]
    down_at_queue: Duration,
    /// It goes down a rung when it was as bad for so long, and a further one after as long again.
    #[setting(default = "600ms", max = "1m")]
    down_after: Duration,
    /// It climbs only while it is better than what it goes down at by this part.
    #[setting(default = 0.5, min = 0, max = 1)]
    hysteresis: f64,
    /// It climbs a rung when it was well for so long, and a further one after as long again; after a rung that did not
    /// hold twice as long, each time.
    #[setting(default = "8s", max = "1h")]
    up_after: Duration,
    /// The longest that it waits with a rung up, however many did not hold.
    #[setting(default = "2m", max = "1h")]
    up_most: Duration,
    /// Each rung of the step `cap` leaves this part of the rate.
    #[setting(default = 0.7, min = 0.1, max = 0.95)]
    cap_factor: f64,
    /// Each rung up from there is so many times the cap before.
    #[setting(default = 1.5, min = 1.05, max = 10)]
    raise_factor: f64,
    /// Roles (label `role`) that give way to the others.
    #[setting(default = [])]
    gives_way: Vec<String>,
    /// They go down at this part of the loss and of the time that others do.
    #[setting(default = 0.5, min = 0.1, max = 1)]
    sooner: f64,
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

/// Loss that is less than this part of that of the tick before is falling.
const FALLING: f64 = 0.98;

/// Why a rung was taken.
#[derive(Reason, Clone, Copy, PartialEq, Debug)]
pub enum Why {
    /// Too many packets are lost.
    Loss = 1,
    /// Few enough were lost for a while.
    Recovered = 2,
    /// Its round trip grows: packets queue up.
    Queue = 3,
    /// The last rung up did not hold.
    Relapse = 4,
}

#[degradation]
impl Degradation for DegradeLadder {
    type State = Memory;
    type Reason = Why;

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

    fn open(&self, newcomer: &NewSession<'_>) -> Memory {
        let role = newcomer.labels.value(label::ROLE);
        let gives_way = role.is_some_and(|role| self.gives_way.iter().any(|one| one == role));
        Memory { gives_way, ..Memory::fresh() }
    }

    fn tick(&self, session: &Session<'_, Memory>, out: &mut Actions<Memory>) {
        let mut memory = session.state().clone();
        // The cap in force may be another than was asked for: the gateway's own ladder, or the scenario's floor.
        memory.cap = session.cap_kbps().unwrap_or(memory.cap);
        if !memory.seen {
            memory.seen = true;
            let new = session.age_ms().is_some_and(|ms| Duration::from_millis(ms.into()) < NEW);
            memory.allowed = if new { memory.cap } else { 0 };
        }
        match Network::of(self, session, &mut memory) {
            // Not measured is no news, neither good nor bad.
            Network::Unknown => {}
            Network::Between => {
                (memory.bad_since, memory.good_since, memory.loss_before) = (None, None, 0);
            }
            Network::Bad(remedy, why) => self.suffer(session, remedy, why, &mut memory, out),
            Network::Good => self.recover(session, &mut memory, out),
        }
        if memory != *session.state() {
            out.keep(&memory);
        }
    }
}

impl DegradeLadder {
    /// Takes a rung down where it is time for one.
    fn suffer(
        &self,
        session: &Session<'_, Memory>,
        remedy: Remedy,
        why: Why,
        memory: &mut Memory,
        out: &mut Actions<Memory>,
    ) {
        let now = session.now();
        memory.good_since = None;
        let lasted = now - begun(&mut memory.bad_since, now);
        let loss = session.loss_up_ppm().max(session.loss_down_ppm()).unwrap_or(0);
        let before = std::mem::replace(&mut memory.loss_before, loss);
        // What falls by itself, since the last rung was enough, needs no other: loss is smoothed, and told late.
        let falls = why == Why::Loss && f64::from(loss) < f64::from(before) * FALLING;
        let bears =
            self.share(memory).map_or(self.down_after, |share| self.down_after.mul_f64(share));
        if falls || lasted < bears {
            return;
        }
        let ladder = Ladder { settings: self, session };
        let relapsed = memory.relapse(self.up_after, now);
        let back = relapsed.and_then(|held| ladder.back(memory, held, |op| out.may(op)));
        let (rung, why) = match back {
            Some(rung) => (Some(rung), Why::Relapse),
            None => (ladder.down(memory, remedy, |op| out.may(op)), why),
        };
        if let Some(rung) = rung {
            rung.take(memory, out, why);
            self.explain(session, memory, out);
            memory.bad_since = Some(now);
            memory.queue.acted();
        }
    }

    /// Takes a rung up where it is time for one.
    fn recover(
        &self,
        session: &Session<'_, Memory>,
        memory: &mut Memory,
        out: &mut Actions<Memory>,
    ) {
        let now = session.now();
        (memory.bad_since, memory.loss_before) = (None, 0);
        let lasted = now - begun(&mut memory.good_since, now);
        memory.settle(self.up_after, now);
        let wait = memory.wait(self.up_after, self.up_most);
        let wait = self.share(memory).map_or(wait, |share| wait.div_f64(share));
        if lasted >= wait
            && let Some(rung) = (Ladder { settings: self, session }).up(memory)
        {
            memory.climbs(rung, now);
            rung.take(memory, out, Why::Recovered);
            memory.good_since = Some(now);
        }
    }

    /// The part that who gives way bears of what others do; none for those others.
    fn share(&self, memory: &Memory) -> Option<f64> {
        memory.gives_way.then_some(self.sooner)
    }

    /// The figures behind a rung down.
    fn explain(&self, session: &Session<'_, Memory>, memory: &Memory, out: &mut Actions<Memory>) {
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

/// Since when something holds, from now on if it did not. A state that came from another gateway may speak of a time that
/// this one has not seen yet.
fn begun(since: &mut Option<Duration>, now: Duration) -> Duration {
    *since.insert(since.unwrap_or(now).min(now))
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
