//! Validation of a declared address: the limit of bytes to it until a client there reports its reception.
//!
//! An offer may name another host's address, and the packet that came from it may be forged. As QUIC does before it has
//! validated an address (RFC 9000, 8.1), the gateway then sends at most three times what it receives. A client that only
//! listens cannot answer at once, as one of QUIC does: it waits for its turn to report.

use std::time::{Duration, Instant};

use evenkeel_media::{demux, instant, rtcp, rtp};
use serde::{Deserialize, Serialize};

use super::media::RECENT_MAX;

/// Time without a limit, from the first packet to the address: two reports of a session with few members, of which one may
/// be lost. Between two are up to 6.2 s, 5 s × 1.5 ÷ 1.21828 (RFC 3550, 6.3.1).
const REPORTED_WITHIN: Duration = Duration::from_secs(14);

/// Bytes that may be sent for each byte received.
pub(super) const FACTOR: u64 = 3;

/// Limit of remembered streams.
const STREAMS_MAX: usize = 16;

/// The address of a client that has not reported yet.
#[derive(Clone, Default, Serialize, Deserialize, Debug)]
pub(super) struct AddressValidation {
    /// Time of the first packet to the address.
    #[serde(with = "instant::option")]
    since: Option<Instant>,
    bytes_received: u64,
    /// Bytes sent under the limit.
    bytes_sent: u64,
    /// SSRC and highest number of each stream to the address.
    #[serde(default)]
    sent: Vec<(u32, u16)>,
}

impl AddressValidation {
    pub(super) fn receive(&mut self, packet: &[u8]) {
        self.bytes_received += packet.len() as u64;
    }

    /// Returns whether the packet may be sent, and counts it then.
    pub(super) fn may_send(&mut self, packet: &[u8], now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) < REPORTED_WITHIN {
            return true;
        }
        let sent = self.bytes_sent + packet.len() as u64;
        let allowed = sent <= FACTOR * self.bytes_received;
        if allowed {
            self.bytes_sent = sent;
        }
        allowed
    }

    /// Notes a packet to the address, as the client will see it.
    pub(super) fn note_sent(&mut self, packet: &[u8]) {
        if demux::classify(packet) != demux::DatagramKind::Rtp {
            return;
        }
        let Some((ssrc, sequence)) = rtp::ssrc_and_sequence(packet) else { return };
        match self.sent.iter_mut().find(|(known, _)| *known == ssrc) {
            Some((_, highest)) if sequence.wrapping_sub(*highest) < 1 << 15 => *highest = sequence,
            Some(_) => {}
            None => {
                if self.sent.len() == STREAMS_MAX {
                    self.sent.remove(0);
                }
                self.sent.push((ssrc, sequence));
            }
        }
    }

    /// Returns whether the report names a packet that was sent to the address lately.
    pub(super) fn is_proved_by(&self, report: &rtcp::ReportBlock) -> bool {
        let behind = |highest: u16| highest.wrapping_sub(report.sequence_max as u16);
        let mut sent = self.sent.iter();
        sent.any(|(ssrc, highest)| *ssrc == report.ssrc && behind(*highest) <= RECENT_MAX)
    }
}
