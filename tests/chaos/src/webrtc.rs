//! The transports of WebRTC sessions: one handshake each, and no packet that SRTP refuses, except a copy.

mod third_party;

use std::ops::Range;

use evenkeel_lab::client::WebrtcTally;
use evenkeel_lab::network::ip;
use evenkeel_testkit::capture::Capture;
use evenkeel_testkit::client_packets::{CapturedIndices, ClientPacket, RefusedPacket, frozen_ns};
use serde::Serialize;

pub(crate) use third_party::{ThirdParty, ThirdPartyClients};

/// Captures the packets of gateways to clients in the network namespace of this thread. Gateways listen at this port.
pub(crate) fn capture(port: u16) -> Result<Capture<ClientPacket>, String> {
    // On loopback, too, every datagram is a frame of its own.
    ip("link set lo gso_max_segs 1")?;
    Capture::of_received(move |datagram, packets| {
        packets.extend(ClientPacket::read(datagram, port));
    })
}

/// The payload type of video in offers of the lab.
const VIDEO: u8 = 96;

/// The time for which the video of each client of the lab stood still in this span, milliseconds.
pub(crate) fn frozen_ms(capture: &Capture<ClientPacket>, span: Range<u64>) -> Vec<u64> {
    let frozen =
        capture.read(|packets| frozen_ns(packets, |_, payload_type| payload_type == VIDEO, span));
    frozen.into_iter().map(|ns| ns / 1_000_000).collect()
}

/// The events of clients since they joined.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
pub(crate) struct TransportCounts {
    pub(crate) handshakes: u64,
    /// `None` if not all clients tell their paths.
    pub(crate) ice_restarts: Option<u64>,
    pub(crate) authentication_failures: u64,
    /// Of clients of the lab; `None` without any, since other programs do not tell indices.
    pub(crate) replayed: Option<u64>,
    pub(crate) reused_indices: Option<u64>,
}

impl TransportCounts {
    /// Adds the events of other programs.
    pub(crate) fn with(self, others: TransportCounts) -> TransportCounts {
        let restarts = self.ice_restarts.zip(others.ice_restarts);
        TransportCounts {
            handshakes: self.handshakes + others.handshakes,
            ice_restarts: restarts.map(|(own, other)| own + other),
            authentication_failures: self.authentication_failures + others.authentication_failures,
            ..self
        }
    }
}

impl From<WebrtcTally> for TransportCounts {
    fn from(tally: WebrtcTally) -> TransportCounts {
        let WebrtcTally {
            handshakes,
            ice_restarts,
            authentication_failures,
            replayed,
            reused_indices,
        } = tally;
        TransportCounts {
            handshakes,
            ice_restarts: Some(ice_restarts),
            authentication_failures,
            replayed: Some(replayed),
            reused_indices: Some(reused_indices),
        }
    }
}

/// The events of all clients since they joined.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize)]
pub(crate) struct Transports {
    pub(crate) sessions: u32,
    #[serde(flatten)]
    pub(crate) counts: TransportCounts,
    pub(crate) captured: CapturedIndices,
    /// The packets that other programs refused, and that no fault explains.
    pub(crate) refused: Vec<RefusedPacket>,
    /// The refused packets that were on their way when a fault happened.
    pub(crate) refused_on_the_way: Vec<RefusedPacket>,
}

impl Transports {
    /// Handshakes beyond one of each session.
    pub(crate) fn handshakes_again(&self) -> u64 {
        self.counts.handshakes.saturating_sub(self.sessions.into())
    }

    /// The violated checks without a number.
    pub(crate) fn misses(&self) -> Vec<String> {
        let Transports { sessions, counts, captured, refused, .. } = self;
        let mut misses = Vec::new();
        if counts.handshakes < u64::from(*sessions) {
            misses.push(format!("{} handshakes of {sessions} sessions", counts.handshakes));
        }
        if captured.clients != *sessions as usize {
            misses.push(format!("captured packets to {} of {sessions} clients", captured.clients));
        }
        if captured.frames_lost > 0 {
            misses.push(format!("the capture lost {} frames", captured.frames_lost));
        }
        misses.extend(refused.iter().map(RefusedPacket::to_string));
        misses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_session_has_a_handshake_and_is_captured() {
        let all = CapturedIndices { clients: 2, ..CapturedIndices::default() };
        let misses = |handshakes, captured| {
            let counts = TransportCounts { handshakes, ..TransportCounts::default() };
            Transports { sessions: 2, counts, captured, ..Transports::default() }.misses().len()
        };
        assert_eq!((misses(2, all), misses(1, all)), (0, 1));
        let fewer = CapturedIndices { clients: 1, ..all };
        let lost = CapturedIndices { frames_lost: 1, ..all };
        assert_eq!((misses(2, fewer), misses(2, lost)), (1, 1));
    }

    #[test]
    fn unknown_counts_stay_unknown() {
        let lab = TransportCounts::from(WebrtcTally {
            handshakes: 2,
            replayed: 1,
            ..WebrtcTally::default()
        });
        let page =
            TransportCounts { handshakes: 1, ice_restarts: Some(1), ..TransportCounts::default() };
        let both = lab.with(page);
        assert_eq!((both.handshakes, both.ice_restarts, both.replayed), (3, Some(1), Some(1)));
        let silent = TransportCounts { ice_restarts: None, ..page };
        assert_eq!(lab.with(silent).ice_restarts, None);
    }
}
