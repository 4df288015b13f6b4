//! The transports of WebRTC sessions: one handshake each, and no packet that SRTP refuses, except a copy.

use std::collections::BTreeMap;

use evenkeel_lab::client::WebrtcTally;
use serde::Serialize;

/// The limits in words.
pub(crate) const LIMITS: &str = "1 handshake and 0 restarts of ICE per session, 0 authentication failures, 0 indices with other bytes";

/// The limits of [`Transports::figures`].
pub(crate) const ZEROS: [(&str, f64); 3] =
    [("ice_restarts", 0.0), ("authentication_failures", 0.0), ("reused_indices", 0.0)];

/// The events of all clients since they joined.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Transports {
    pub(crate) sessions: u32,
    #[serde(flatten)]
    pub(crate) tally: WebrtcTally,
}

impl Transports {
    pub(crate) fn misses(&self) -> Vec<String> {
        let Transports { sessions, tally } = self;
        let mut misses = Vec::new();
        if tally.handshakes != u64::from(*sessions) {
            misses.push(format!("{} handshakes of {sessions} sessions", tally.handshakes));
        }
        let zeros = self.figures().into_iter().filter(|(_, count)| *count > 0.0);
        misses.extend(zeros.map(|(name, count)| format!("{name} {count}, 0 is the limit")));
        misses
    }

    pub(crate) fn figures(&self) -> BTreeMap<&'static str, f64> {
        let WebrtcTally { ice_restarts, authentication_failures, reused_indices, .. } = self.tally;
        let counts = [ice_restarts, authentication_failures, reused_indices];
        let named = ZEROS.into_iter().zip(counts);
        named.map(|((name, _), count)| (name, count as f64)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_but_a_replay_is_a_miss() {
        let misses = |tally: WebrtcTally| Transports { sessions: 2, tally }.misses().len();
        let good = WebrtcTally { handshakes: 2, ..WebrtcTally::default() };
        assert_eq!(misses(good), 0);
        assert_eq!(misses(WebrtcTally { replayed: 1, ..good }), 0);
        for bad in [
            WebrtcTally { handshakes: 1, ..good },
            WebrtcTally { handshakes: 3, ..good },
            WebrtcTally { ice_restarts: 1, ..good },
            WebrtcTally { authentication_failures: 1, ..good },
            WebrtcTally { reused_indices: 1, ..good },
        ] {
            assert_eq!(misses(bad), 1, "{bad:?}");
        }
    }
}
