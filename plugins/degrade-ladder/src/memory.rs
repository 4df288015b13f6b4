//! What is remembered of a session.

use evenkeel_plugin_sdk::prelude::*;
use evenkeel_plugin_sdk::unpack;

use crate::climb::Climb;
use crate::network::Queue;

/// What is remembered of a session.
#[derive(State, Clone, PartialEq, Debug)]
#[state(schema = 2, migrate = from_older)]
pub struct Memory {
    /// Whether it was in a tick before.
    pub(crate) seen: bool,
    /// The cap it was let in with, which no climb goes beyond; 0 where there is none. kbit/s.
    pub(crate) allowed: u32,
    /// The cap asked for; 0 where there is none. kbit/s.
    pub(crate) cap: u32,
    /// The rate when the first cap was set, kbit/s: above it a cap does nothing.
    pub(crate) uncapped: u32,
    /// Whether the session was asked to do without video.
    pub(crate) voice_only: bool,
    /// Since when it has been bad, or the last rung down.
    pub(crate) bad_since: Option<Duration>,
    /// Since when it has been well, or the last rung up.
    pub(crate) good_since: Option<Duration>,
    /// Whether its role gives way to others.
    pub(crate) gives_way: bool,
    /// How long its round trip was lately.
    pub(crate) queue: Queue,
    /// The last rung up, until it has held.
    pub(crate) climb: Option<Climb>,
    /// Rungs up in a row that did not hold.
    pub(crate) relapses: u8,
    /// The cap from which the last of those was taken, kbit/s; 0 where it was video that came back.
    pub(crate) failed_from: u32,
    /// The loss of the tick before, while it is bad, ppm.
    pub(crate) loss_before: u32,
}

/// As it was before rungs up could fail.
#[derive(Pack)]
struct First {
    seen: bool,
    allowed: u32,
    cap: u32,
    uncapped: u32,
    voice_only: bool,
    bad_since: Option<Duration>,
    good_since: Option<Duration>,
}

fn from_older(schema: u32, bytes: &[u8]) -> Option<Memory> {
    if schema != 1 {
        return None;
    }
    let First { seen, allowed, cap, uncapped, voice_only, bad_since, good_since } = unpack(bytes)?;
    let fresh = Memory::fresh();
    Some(Memory { seen, allowed, cap, uncapped, voice_only, bad_since, good_since, ..fresh })
}

#[cfg(test)]
mod tests {
    use evenkeel_plugin_sdk::trial;

    use super::*;

    #[test]
    fn what_the_first_revision_remembered_is_taken_over() {
        let first = First {
            seen: true,
            allowed: 300,
            cap: 150,
            uncapped: 280,
            voice_only: true,
            bad_since: Some(Duration::from_secs(7)),
            good_since: None,
        };
        let expected = Memory {
            seen: true,
            allowed: 300,
            cap: 150,
            uncapped: 280,
            voice_only: true,
            bad_since: Some(Duration::from_secs(7)),
            ..Memory::fresh()
        };
        assert_eq!(trial::migrate::<Memory>(1, &first), Some(expected));
        assert_eq!(trial::migrate::<Memory>(9, &first), None);
    }
}
