//! The limit of bytes to a declared address at which no client has reported its reception.
//!
//! The source of the packet that opened the way there may be forged. As QUIC does before it has validated an address
//! (RFC 9000, 8.1), the gateway then sends at most three times what it receives. Unlike a QUIC client, an RTP client that
//! only listens cannot answer at once: it first waits for its turn to report.

use std::time::{Duration, Instant};

use evenkeel_media::instant;
use serde::{Deserialize, Serialize};

/// Time without a limit. The longest interval between two reports is 6.2 s: 5 s × 1.5 ÷ 1.21828 (RFC 3550, 6.3.1).
const REPORTED_WITHIN: Duration = Duration::from_secs(7);

/// Bytes that may be sent for each byte received.
const FACTOR: u64 = 3;

#[derive(Clone, Serialize, Deserialize, Debug)]
pub(super) struct UnconfirmedAddress {
    #[serde(with = "instant")]
    since: Instant,
    bytes_received: u64,
    /// Bytes sent under the limit.
    bytes_sent: u64,
}

impl UnconfirmedAddress {
    pub(super) fn new(now: Instant) -> UnconfirmedAddress {
        UnconfirmedAddress { since: now, bytes_received: 0, bytes_sent: 0 }
    }

    pub(super) fn receive(&mut self, packet: &[u8]) {
        self.bytes_received += packet.len() as u64;
    }

    /// Returns whether the packet may be sent, and counts it then.
    pub(super) fn may_send(&mut self, packet: &[u8], now: Instant) -> bool {
        if now.saturating_duration_since(self.since) < REPORTED_WITHIN {
            return true;
        }
        let sent = self.bytes_sent + packet.len() as u64;
        let allowed = sent <= FACTOR * self.bytes_received;
        if allowed {
            self.bytes_sent = sent;
        }
        allowed
    }
}
