//! State of a session.

use evenkeel_plugin_sdk::prelude::*;
use evenkeel_plugin_sdk::unpack;

use crate::climb::UpgradeAttempt;
use crate::network::QueueDelay;

/// State of a session.
#[derive(State, Clone, PartialEq, Debug)]
#[state(schema = 2, migrate = from_older)]
pub struct LadderMemory {
    /// True if the session was in an earlier tick.
    pub(crate) seen: bool,
    /// The cap of the session's admission, which limits upgrades; 0 without one. kbit/s.
    pub(crate) allowed: u32,
    /// The requested cap; 0 without one. kbit/s.
    pub(crate) cap: u32,
    /// The bit rate when the first cap was set, kbit/s. A cap above it has no effect.
    pub(crate) uncapped: u32,
    /// True if the session's video is dropped.
    pub(crate) voice_only: bool,
    /// Start of the bad period, or time of the last downgrade.
    pub(crate) bad_since: Option<Duration>,
    /// Start of the good period, or time of the last upgrade.
    pub(crate) good_since: Option<Duration>,
    /// True if the session's role gives way to others.
    pub(crate) low_priority: bool,
    /// Recent round trips of the session.
    pub(crate) queue: QueueDelay,
    /// The last upgrade, until its success is certain.
    pub(crate) climb: Option<UpgradeAttempt>,
    /// Number of consecutive failed upgrades.
    pub(crate) relapses: u8,
    /// The cap before the last failed upgrade, kbit/s; 0 if it restored video.
    pub(crate) failed_from: u32,
    /// The loss of the last tick in a bad period, ppm.
    pub(crate) loss_before: u32,
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

fn from_older(schema: u32, bytes: &[u8]) -> Option<LadderMemory> {
    if schema != 1 {
        return None;
    }
    let LadderMemoryV1 { seen, allowed, cap, uncapped, voice_only, bad_since, good_since } =
        unpack(bytes)?;
    let fresh = LadderMemory::fresh();
    Some(LadderMemory { seen, allowed, cap, uncapped, voice_only, bad_since, good_since, ..fresh })
}

#[cfg(test)]
mod tests {
    use evenkeel_plugin_sdk::trial;

    use super::*;

    #[test]
    fn state_of_the_first_revision_is_migrated() {
        let first = LadderMemoryV1 {
            seen: true,
            allowed: 300,
            cap: 150,
            uncapped: 280,
            voice_only: true,
            bad_since: Some(Duration::from_secs(7)),
            good_since: None,
        };
        let expected = LadderMemory {
            seen: true,
            allowed: 300,
            cap: 150,
            uncapped: 280,
            voice_only: true,
            bad_since: Some(Duration::from_secs(7)),
            ..LadderMemory::fresh()
        };
        assert_eq!(trial::migrate::<LadderMemory>(1, &first), Some(expected));
        assert_eq!(trial::migrate::<LadderMemory>(9, &first), None);
    }
}
