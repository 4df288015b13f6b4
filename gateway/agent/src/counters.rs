use evenkeel_media::trunk::message::MessageError;
use serde::Serialize;

/// Totals since the agent started.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
pub struct AgentCounters {
    pub opened: u64,
    /// Refused openings: the agent is full or draining, or the server refused.
    pub turned_away: u64,
    pub expired: u64,
    pub probes: u64,
    /// Notices sent, retransmissions included.
    pub notices: u64,
    /// Notices that a gateway acknowledged.
    pub noted: u64,
    pub packets_to_server: u64,
    pub packets_to_gateway: u64,
    pub unknown_tag: u64,
    /// Packets from another address than that of their session's last signed message, and encrypted bundles of a
    /// gateway that has sent no signed message yet.
    pub unknown_source: u64,
    /// Datagrams and packets of an unexpected format.
    pub malformed: u64,
    /// Packets that a socket refused, or that were too large for a datagram.
    pub dropped: u64,
    /// Signed messages refused: wrong signature, another node name or another secret.
    pub refused_forged: u64,
    /// Signed messages refused: their time differs from the local clock by more than 5 s.
    pub refused_time: u64,
    /// Signed messages and encrypted datagrams refused: replayed.
    pub refused_replayed: u64,
    /// Datagrams refused: not encrypted with this node's key, or encrypted without `encrypt`.
    pub refused_unreadable: u64,
    /// Signed messages refused: another gateway of the sender's group has become the owner.
    pub refused_superseded: u64,
}

impl AgentCounters {
    pub(crate) fn refuse(&mut self, reason: MessageError) {
        match reason {
            MessageError::Length
            | MessageError::Version(_)
            | MessageError::Unknown
            | MessageError::Direction => {
                self.malformed += 1;
            }
            MessageError::Key(_) | MessageError::Forged => self.refused_forged += 1,
            MessageError::Time { .. } => self.refused_time += 1,
            MessageError::Replayed => self.refused_replayed += 1,
        }
    }
}
