//! Limits of bytes to addresses at which the client has not proved to receive.
//!
//! As QUIC does before it has validated an address (RFC 9000, section 8.1), the gateway sends there at most three times what it
//! receives from there.
//!
//! **A checked address.** A check proves that its sender knows the session's password. It does not prove that the sender is at the
//! source address, since a client can forge the source of its own checks and aim its session's media at another host. The client
//! proves that it receives at the address by one of these:
//!
//! - An answer to the gateway's check. Every agent answers checks (RFC 8445, section 7.3), also with an error (RFC 8489, section
//!   9.1.3). Only a receiver at the address can know the transaction.
//! - A report that names a sender report to the address. A participant of the room may know the time in the node's report, so
//!   reports to the address have a time that is shifted by a secret; other receivers of a stream do not learn it.
//!
//! **A declared address.** An offer may name another host's address, and the packet that came from it may be forged. A client that
//! only listens cannot answer at once, as one of QUIC does: the limit begins after the time in which it has its turn to report.

use std::time::{Duration, Instant};

use evenkeel_instant as instant;
use evenkeel_media::rtcp::rewrite;
use evenkeel_media::{demux, rtcp, rtp};
use serde::{Deserialize, Serialize};

use super::measurements::RECENT_MAX;
use crate::worker::sockets::{RtpSide, SourceKey};

/// Bytes that may be sent for each byte received.
const FACTOR: u64 = 3;

/// Bytes that RTP leaves to RTCP: a sender report, whose answer ends the limit.
const REPORT_BYTES: u64 = 200;

/// Limit of remembered reports: those of two intervals with eight streams.
const REPORTS_MAX: usize = 16;

/// A checked address whose client has not proved to receive there.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub(super) struct UnprovedAddress {
    pub(super) source: SourceKey,
    bytes_received: u64,
    bytes_sent: u64,
    /// Sender reports to the address, oldest first.
    pub(super) reports: Vec<ShiftedReport>,
}

/// The middle 32 bits of the NTP time of a sender report.
#[derive(Clone, Copy, Serialize, Deserialize, Debug)]
pub(super) struct ShiftedReport {
    /// As the node sent it.
    pub(super) original: u32,
    /// As the client gets it.
    pub(super) sent: u32,
}

impl UnprovedAddress {
    pub(super) fn new(source: SourceKey) -> UnprovedAddress {
        UnprovedAddress { source, bytes_received: 0, bytes_sent: 0, reports: Vec::new() }
    }

    pub(super) fn receive(&mut self, bytes: usize) {
        self.bytes_received += bytes as u64;
    }

    /// Counts bytes that the limit does not hold back.
    pub(super) fn note_sent(&mut self, bytes: usize) {
        self.bytes_sent += bytes as u64;
    }

    /// Returns whether a packet of this length may be sent, and counts it then.
    pub(super) fn may_send(&mut self, side: RtpSide, bytes: usize) -> bool {
        let reserved = match side {
            RtpSide::Rtp => REPORT_BYTES,
            RtpSide::Rtcp => 0,
        };
        let sent = self.bytes_sent + bytes as u64;
        let allowed = sent + reserved <= FACTOR * self.bytes_received;
        if allowed {
            self.bytes_sent = sent;
        }
        allowed
    }

    /// Shifts the times of sender reports in a compound packet to the address.
    pub(super) fn shift_reports(&mut self, compound: &mut [u8], shift: u32) {
        let reports = &mut self.reports;
        rewrite::shift_sender_reports(compound, shift, |original, sent| {
            if reports.len() == REPORTS_MAX {
                reports.remove(0);
            }
            reports.push(ShiftedReport { original, sent });
        });
    }
}

/// Time without a limit, from the first packet to the address: two reports of a session with few members, of which one may
/// be lost. Between two are up to 6.2 s, 5 s × 1.5 ÷ 1.21828 (RFC 3550, 6.3.1).
const REPORTED_WITHIN: Duration = Duration::from_secs(14);

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
