//! What an agent counts.

use evenkeel_media::trunk::message::Refused;
use serde::Serialize;

/// Everything counted since the start.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
pub struct Counters {
    /// Sessions ever opened.
    pub opened: u64,
    /// Openings refused: full, draining, or the server did not take them.
    pub turned_away: u64,
    /// Sessions whose lease ended.
    pub expired: u64,
    /// Probes answered.
    pub probes: u64,
    /// Notices sent, each time counted.
    pub notices: u64,
    /// Notices that a gateway noted.
    pub noted: u64,
    /// Packets handed to the server.
    pub packets_to_server: u64,
    /// Packets handed to gateways.
    pub packets_to_gateway: u64,
    /// Packets with a tag that nobody has.
    pub unknown_tag: u64,
    /// Datagrams and packets that are not what belongs there.
    pub malformed: u64,
    /// Packets that a socket did not take, or too large for a datagram.
    pub dropped: u64,
    /// Signed messages not believed: wrong or no signature, another secret.
    pub refused_forged: u64,
    /// Signed messages not believed: signed more than 5 s ago, or in the future.
    pub refused_time: u64,
    /// Signed messages not believed: they came before.
    pub refused_replayed: u64,
}

impl Counters {
    pub(crate) fn refuse(&mut self, reason: Refused) {
        match reason {
            Refused::Length | Refused::Version(_) | Refused::Unknown | Refused::Direction => {
                self.malformed += 1;
            }
            Refused::Key(_) | Refused::Forged => self.refused_forged += 1,
            Refused::Time { .. } => self.refused_time += 1,
            Refused::Replayed => self.refused_replayed += 1,
        }
    }
}
