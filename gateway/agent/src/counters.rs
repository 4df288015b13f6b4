use serde::Serialize;

/// Totals since the agent started.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
pub(crate) struct AgentCounters {
    pub(crate) opened: u64,
    /// Refused openings: the agent is full or draining, or the server refused.
    pub(crate) turned_away: u64,
    pub(crate) expired: u64,
    pub(crate) probes: u64,
    /// Notices sent, retransmissions included.
    pub(crate) notices: u64,
    /// Notices that a gateway acknowledged.
    pub(crate) noted: u64,
    pub(crate) packets_to_server: u64,
    pub(crate) packets_to_gateway: u64,
    /// Bundles that were lost on the way and restored from repair datagrams.
    pub(crate) bundles_recovered: u64,
    pub(crate) unknown_tag: u64,
    /// Packets from another address than that of their session's last signed message, and encrypted bundles of a
    /// gateway that has sent no signed message yet.
    pub(crate) unknown_source: u64,
    /// Datagrams and packets of an unexpected format.
    pub(crate) malformed: u64,
    /// Packets that a socket refused, or that were too large for a datagram.
    pub(crate) dropped: u64,
    /// Signed messages refused: wrong signature, another node name or another secret.
    pub(crate) refused_forged: u64,
    /// Signed messages refused: their time differs from the local clock by more than 5 s.
    pub(crate) refused_time: u64,
    /// Signed messages and encrypted datagrams refused: replayed.
    pub(crate) refused_replayed: u64,
    /// Datagrams refused: not encrypted with this node's key, or encrypted without `encrypt`.
    pub(crate) refused_unreadable: u64,
    /// Signed messages refused: another gateway of the sender's group has become the owner.
    pub(crate) refused_superseded: u64,
}
