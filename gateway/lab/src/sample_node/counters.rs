//! The counters of a sample node.

use evenkeel_media::rtcp;
use evenkeel_media::trunk::message::MessageError;
use serde::{Deserialize, Serialize};

/// Totals since the node started, printed at its end.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct SampleNodeCounters {
    pub(crate) sessions: u32,
    pub(crate) opened: u64,
    pub(crate) kept: u64,
    /// Sessions closed by a message.
    pub closed: u64,
    /// Sessions that ended by lease or silence.
    pub(crate) expired: u64,
    /// Openings refused because the node was full or draining.
    pub(crate) turned_away: u64,
    pub(crate) bundles_in: u64,
    /// Repair datagrams received on trunk legs.
    pub repairs_in: u64,
    /// Bundles that were lost on the way and restored from repair datagrams.
    pub bundles_recovered: u64,
    /// Packets received of open sessions.
    pub packets_in: u64,
    pub(crate) packets_out: u64,
    pub(crate) unknown_tag: u64,
    /// Packets from another address than that of their session's last signed message, and encrypted bundles of a
    /// gateway that has sent no signed message yet.
    pub(crate) unknown_source: u64,
    /// Invalid datagrams and packets.
    pub(crate) malformed: u64,
    /// Packets too large for a datagram.
    pub(crate) oversize: u64,
    /// Answered probes by signed message.
    pub(crate) probes: u64,
    /// Unsigned datagrams echoed on the media port.
    pub echoes: u64,
    /// Answered STUN binding requests.
    pub stun: u64,
    /// Picture loss indications received.
    pub pli: u64,
    /// Full intra requests received.
    pub(crate) fir: u64,
    /// Requests for lost packets received.
    pub nack: u64,
    pub(crate) remb: u64,
    pub(crate) transport_wide: u64,
    pub(crate) sender_reports: u64,
    pub(crate) receiver_reports: u64,
    /// Datagrams and parts of RTCP that the node read and did nothing with, by reason.
    pub ignored: IgnoredCounters,
    /// Messages refused, by reason.
    pub refused: RefusalCounters,
}

/// Ignored datagrams and parts of RTCP by reason. A node that leaves packets untouched ignores no RTCP.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct IgnoredCounters {
    /// Reports and feedback on streams that the node does not send.
    pub unknown_stream: u64,
    /// Transport-wide feedback to several senders, whose numbers are not one sequence.
    pub(crate) transport_wide: u64,
    /// Source descriptions: the node describes its streams itself.
    pub(crate) description: u64,
    /// Ends of streams: a stream ends with its session.
    pub(crate) bye: u64,
    /// Other RTCP: caps, which only the gateway sets, and extended reports among them.
    pub(crate) other: u64,
    /// Datagrams while the link was cut.
    pub(crate) cut: u64,
    /// Signed messages to which a sample node has no answer.
    pub(crate) unanswered: u64,
}

impl IgnoredCounters {
    pub(super) fn count_rtcp(&mut self, payload_type: u8) {
        match payload_type {
            rtcp::SOURCE_DESCRIPTION => self.description += 1,
            rtcp::BYE => self.bye += 1,
            _ => self.other += 1,
        }
    }
}

/// Refused signed messages by reason.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct RefusalCounters {
    /// Wrong version, kind, direction or length.
    pub(crate) malformed: u64,
    /// Signed with another secret, or no secret is configured.
    pub(crate) key: u64,
    /// The signature was wrong, or the message is for a node of another name.
    pub(crate) forged: u64,
    /// Signed too long ago, or in the future.
    pub(crate) time: u64,
    /// Signed messages and encrypted datagrams that came again.
    pub replayed: u64,
    /// Not encrypted with the key of this node, or encrypted without a key.
    pub unreadable: u64,
}

impl RefusalCounters {
    pub(super) fn count(&mut self, reason: MessageError) {
        match reason {
            MessageError::Length
            | MessageError::Version(_)
            | MessageError::Unknown
            | MessageError::Direction => {
                self.malformed += 1;
            }
            MessageError::Key(_) => self.key += 1,
            MessageError::Forged => self.forged += 1,
            MessageError::Time { .. } => self.time += 1,
            MessageError::Replayed => self.replayed += 1,
        }
    }
}
