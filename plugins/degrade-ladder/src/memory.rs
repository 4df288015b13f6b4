//! State of a session.

use evenkeel_plugin_sdk::prelude::*;
use evenkeel_plugin_sdk::unpack;

use crate::climb::UpgradeAttempt;
use crate::network::{Direction, QueueDelay};

/// State of a session.
#[derive(State, Clone, PartialEq, Debug)]
#[state(schema = 4, migrate = from_older)]
pub struct LadderMemory {
    /// True if the session was in an earlier tick.
    pub(crate) seen: bool,
    /// The cap that follows one of an earlier policy on both directions: that of the session's admission, 0 for none. kbit/s.
    pub(crate) earlier_cap: Option<u32>,
    /// True if the session's video is dropped.
    pub(crate) voice_only: bool,
    /// True if the session's role gives way to others.
    pub(crate) low_priority: bool,
    /// Recent round trips of the session.
    pub(crate) queue: QueueDelay,
    /// The direction from the session.
    pub(crate) up: PathMemory,
    /// The direction to the session.
    pub(crate) down: PathMemory,
    /// The requested level of `thin`.
    pub(crate) thin: u8,
}

impl LadderMemory {
    pub(crate) fn path(&self, direction: Direction) -> &PathMemory {
        match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        }
    }

    pub(crate) fn path_mut(&mut self, direction: Direction) -> &mut PathMemory {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }
}

/// State of a direction.
#[derive(Pack, Clone, PartialEq, Debug)]
pub(crate) struct PathMemory {
    /// The requested cap; 0 without one. kbit/s.
    pub(crate) cap: u32,
    /// The bit rate when the first cap was set, kbit/s. A cap above it has no effect.
    pub(crate) uncapped: u32,
    /// The last cap that at least halved the loss, from which further loss takes its share; 0 for the rate without a cap. kbit/s.
    pub(crate) helped: u32,
    /// The loss at that cap, ppm.
    pub(crate) loss_then: u32,
    /// The highest measured bit rate of the bad period, kbit/s: rates of 100 ms vary with the frames.
    pub(crate) rate: u32,
    /// Start of the bad period, or time of the last downgrade.
    pub(crate) bad_since: Option<Duration>,
    /// Start of the good period, or time of the last upgrade.
    pub(crate) good_since: Option<Duration>,
    /// The last upgrade, until its success is certain.
    pub(crate) climb: Option<UpgradeAttempt>,
    /// Number of consecutive failed upgrades.
    pub(crate) relapses: u8,
    /// The height of the last failed upgrade.
    pub(crate) failed_height: u32,
    /// The loss of the last tick in a bad period, ppm.
    pub(crate) loss_before: u32,
    /// True if the session is suspended for this direction.
    pub(crate) parked: bool,
}

impl PathMemory {
    /// A rung is due at this loss. A cap that helped showed that the path was full; random loss stays as it is.
    pub(crate) fn judge_cap(&mut self, loss: u32) {
        if self.cap == 0 {
            (self.helped, self.loss_then) = (0, loss);
        } else if loss <= self.loss_then / 2 {
            (self.helped, self.loss_then) = (self.cap, loss);
        }
    }

    /// The bad period is over.
    pub(crate) fn end_bad(&mut self) {
        (self.bad_since, self.loss_before, self.rate) = (None, 0, 0);
    }
}

/// The first schema.
#[derive(Pack)]
struct LadderMemoryV1 {
    seen: bool,
    allowed: u32,
    cap: u32,
    uncapped: u32,
    voice_only: bool,
    bad_since: Option<Duration>,
    good_since: Option<Duration>,
}

/// The second schema, with one cap for both directions.
#[derive(Pack)]
struct LadderMemoryV2 {
    seen: bool,
    allowed: u32,
    cap: u32,
    uncapped: u32,
    voice_only: bool,
    bad_since: Option<Duration>,
    good_since: Option<Duration>,
    low_priority: bool,
    queue: QueueDelay,
    climb: Option<UpgradeAttemptV3>,
    relapses: u8,
    failed_from: u32,
    loss_before: u32,
}

/// An upgrade of the second and the third schema.
#[derive(Pack)]
struct UpgradeAttemptV3 {
    at: Duration,
    from: u32,
}

/// The third schema, with two steps.
#[derive(Pack)]
struct LadderMemoryV3 {
    seen: bool,
    earlier_cap: Option<u32>,
    voice_only: bool,
    low_priority: bool,
    queue: QueueDelay,
    up: PathMemoryV3,
    down: PathMemoryV3,
}

#[derive(Pack)]
struct PathMemoryV3 {
    cap: u32,
    uncapped: u32,
    helped: u32,
    loss_then: u32,
    rate: u32,
    bad_since: Option<Duration>,
    good_since: Option<Duration>,
    climb: Option<UpgradeAttemptV3>,
    relapses: u8,
    failed_from: u32,
    loss_before: u32,
}

impl PathMemoryV3 {
    fn migrate(self) -> PathMemory {
        PathMemory {
            cap: self.cap,
            uncapped: self.uncapped,
            helped: self.helped,
            loss_then: self.loss_then,
            rate: self.rate,
            bad_since: self.bad_since,
            good_since: self.good_since,
            climb: None,
            relapses: self.relapses,
            failed_height: 0,
            loss_before: self.loss_before,
            parked: false,
        }
    }
}

fn from_older(schema: u32, bytes: &[u8]) -> Option<LadderMemory> {
    let fresh = LadderMemory::fresh();
    let earlier = |cap: u32, allowed: u32| (cap > 0 && cap != allowed).then_some(allowed);
    match schema {
        1 => {
            let LadderMemoryV1 { seen, allowed, cap, voice_only, .. } = unpack(bytes)?;
            Some(LadderMemory { seen, earlier_cap: earlier(cap, allowed), voice_only, ..fresh })
        }
        2 => {
            let LadderMemoryV2 { seen, allowed, cap, voice_only, low_priority, queue, .. } =
                unpack(bytes)?;
            let earlier_cap = earlier(cap, allowed);
            Some(LadderMemory { seen, earlier_cap, voice_only, low_priority, queue, ..fresh })
        }
        3 => {
            let LadderMemoryV3 { seen, earlier_cap, voice_only, low_priority, queue, up, down } =
                unpack(bytes)?;
            let (up, down) = (up.migrate(), down.migrate());
            Some(LadderMemory {
                seen,
                earlier_cap,
                voice_only,
                low_priority,
                queue,
                up,
                down,
                thin: 0,
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_plugin_sdk::trial;

    use super::*;

    #[test]
    fn caps_of_the_third_schema_go_on() {
        let path = |cap| PathMemoryV3 {
            cap,
            uncapped: 900,
            helped: 700,
            loss_then: 30_000,
            rate: 800,
            bad_since: None,
            good_since: Some(Duration::from_secs(7)),
            climb: Some(UpgradeAttemptV3 { at: Duration::from_secs(6), from: 300 }),
            relapses: 2,
            failed_from: 300,
            loss_before: 5,
        };
        let third = LadderMemoryV3 {
            seen: true,
            earlier_cap: Some(400),
            voice_only: true,
            low_priority: true,
            queue: QueueDelay::fresh(),
            up: path(500),
            down: path(600),
        };
        let migrated = trial::migrate::<LadderMemory>(3, &third).unwrap();
        assert_eq!((migrated.up.cap, migrated.down.cap, migrated.down.relapses), (500, 600, 2));
        assert_eq!((migrated.earlier_cap, migrated.voice_only), (Some(400), true));
        assert_eq!(migrated.down.good_since, Some(Duration::from_secs(7)));
        assert_eq!((migrated.down.climb, migrated.thin, migrated.down.parked), (None, 0, false));
    }

    #[test]
    fn state_of_earlier_revisions_is_migrated() {
        let seven = Some(Duration::from_secs(7));
        for (allowed, cap, earlier_cap) in [(300, 150, Some(300)), (300, 300, None), (0, 0, None)] {
            let first = LadderMemoryV1 {
                seen: true,
                allowed,
                cap,
                uncapped: 280,
                voice_only: true,
                bad_since: seven,
                good_since: None,
            };
            let second = LadderMemoryV2 {
                seen: true,
                allowed,
                cap,
                uncapped: 280,
                voice_only: true,
                bad_since: seven,
                good_since: None,
                low_priority: true,
                queue: QueueDelay::fresh(),
                climb: None,
                relapses: 3,
                failed_from: 100,
                loss_before: 50_000,
            };
            let fresh = LadderMemory::fresh();
            let expected = LadderMemory { seen: true, earlier_cap, voice_only: true, ..fresh };
            assert_eq!(trial::migrate::<LadderMemory>(1, &first), Some(expected.clone()));
            let expected = LadderMemory { low_priority: true, ..expected };
            assert_eq!(trial::migrate::<LadderMemory>(2, &second), Some(expected));
            assert_eq!(trial::migrate::<LadderMemory>(9, &first), None);
        }
    }
}
