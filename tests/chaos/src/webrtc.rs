//! The transports of WebRTC sessions: one handshake each, and no packet that SRTP refuses, except a copy.

mod indices;
mod third_party;

use evenkeel_lab::client::WebrtcTally;
use evenkeel_lab::network::ip;
use evenkeel_report::RowLimits;
use serde::Serialize;

pub(crate) use indices::{CapturedIndices, ClientPacket};
pub(crate) use third_party::{ThirdParty, ThirdPartyClients};

use crate::capture::Capture;

/// At a lower rate pauses of video are no freezes: they last at least three times as long as between two frames, and 150 ms longer
/// (W3C webrtc-stats, `freezeCount`).
pub(crate) const FRAMES_PER_SECOND_MIN: f64 = 15.0;

/// Captures the packets of gateways to clients in the network namespace of this thread. Gateways listen at this port.
pub(crate) fn capture(port: u16) -> Result<Capture<ClientPacket>, String> {
    // On loopback, too, every datagram is a frame of its own.
    ip("link set lo gso_max_segs 1")?;
    Capture::open(move |datagram, packets| packets.extend(ClientPacket::read(datagram, port)))
}

/// The events of all clients since they joined.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
pub(crate) struct Transports {
    pub(crate) sessions: u32,
    #[serde(flatten)]
    pub(crate) tally: WebrtcTally,
    pub(crate) captured: CapturedIndices,
}

impl Transports {
    /// Handshakes beyond one of each session.
    pub(crate) fn handshakes_again(&self) -> u64 {
        self.tally.handshakes.saturating_sub(self.sessions.into())
    }

    pub(crate) fn misses(&self, limits: &RowLimits) -> Vec<String> {
        let Transports { sessions, tally, captured } = self;
        let mut misses = Vec::new();
        if tally.handshakes < u64::from(*sessions) {
            misses.push(format!("{} handshakes of {sessions} sessions", tally.handshakes));
        }
        if captured.clients != *sessions as usize {
            misses.push(format!("captured packets to {} of {sessions} clients", captured.clients));
        }
        if captured.frames_lost > 0 {
            misses.push(format!("the capture lost {} frames", captured.frames_lost));
        }
        let WebrtcTally { ice_restarts, authentication_failures, reused_indices, .. } = *tally;
        let counts = [
            ("handshakes_again", self.handshakes_again()),
            ("ice_restarts", ice_restarts),
            ("refused", authentication_failures),
            ("index_twice", reused_indices),
            ("index_twice", captured.reused as u64),
        ];
        let above = counts.into_iter().filter_map(|(key, count)| {
            let limit = limits.judged(key).filter(|limit| count as f64 > *limit)?;
            Some(format!("{key} {count}, {limit} is the limit"))
        });
        misses.extend(above);
        misses
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_report::LimitTable;

    use super::*;

    #[test]
    fn each_event_but_a_replay_is_a_miss() {
        let all = CapturedIndices { clients: 2, ..CapturedIndices::default() };
        let limits = LimitTable::load().unwrap().group("chaos", Some("webrtc.upgrade")).unwrap();
        let misses = |tally: WebrtcTally| {
            Transports { sessions: 2, tally, captured: all }.misses(&limits).len()
        };
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
        for bad in [
            CapturedIndices { clients: 1, ..all },
            CapturedIndices { frames_lost: 1, ..all },
            CapturedIndices { reused: 1, ..all },
        ] {
            let captured = Transports { sessions: 2, tally: good, captured: bad };
            assert_eq!(captured.misses(&limits).len(), 1, "{bad:?}");
        }
    }
}
