//! The counters of a sample node.

use evenkeel_media::trunk::message::Refused;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Counters {
    pub sessions: u32,
    pub opened: u64,
    pub kept: u64,
    /// Sessions closed by a message.
    pub closed: u64,
    /// Sessions that ended by lease or silence.
    pub expired: u64,
    /// Openings refused because it was full or draining.
    pub turned_away: u64,
    pub bundles_in: u64,
    /// RTP and RTCP packets read.
    pub packets_in: u64,
    /// RTP and RTCP packets written.
    pub packets_out: u64,
    pub unknown_tag: u64,
    /// Datagrams and packets that could not be read.
    pub malformed: u64,
    /// Packets too large for a datagram.
    pub oversize: u64,
    /// Probes by signed message answered.
    pub probes: u64,
    pub echoes: u64,
    /// STUN binding requests answered.
    pub stun: u64,
    /// Picture loss indications received.
    pub pli: u64,
    /// Full intra requests received.
    pub fir: u64,
    pub sender_reports: u64,
    pub receiver_reports: u64,
    /// Signed messages not believed.
    pub refused: Refusals,
}

/// Signed messages not believed, by reason.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Refusals {
    /// No message of this version, kind or direction, or not of its length.
    pub malformed: u64,
    /// Signed with another secret, or no secret is configured.
    pub key: u64,
    /// The signature was wrong.
    pub forged: u64,
    /// Signed too long ago, or in the future.
    pub time: u64,
    pub replayed: u64,
}

impl Refusals {
    pub(super) fn count(&mut self, reason: Refused) {
        match reason {
            Refused::Length | Refused::Version(_) | Refused::Unknown | Refused::Direction => {
                self.malformed += 1;
            }
            Refused::Key(_) => self.key += 1,
            Refused::Forged => self.forged += 1,
            Refused::Time { .. } => self.time += 1,
            Refused::Replayed => self.replayed += 1,
        }
    }
}
