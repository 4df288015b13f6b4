//! The limit of bytes to a checked address whose client has not proved to receive there.

use evenkeel_media::rtcp::rewrite;
use serde::{Deserialize, Serialize};

use super::validation::FACTOR;
use crate::worker::sockets::{RtpSide, SourceKey};

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
