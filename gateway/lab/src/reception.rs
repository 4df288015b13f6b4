//! Reception statistics as in RFC 3550, appendix A. They are independent of the gateway's implementation, so that each
//! checks the other.

use evenkeel_media::rtcp::ReportBlock;

#[derive(Clone, Default, Debug)]
pub(crate) struct RtpReception {
    first: Option<u16>,
    /// The highest sequence number, extended by the number of wraps in the upper half.
    highest: u32,
    received: u32,
    expected_before: u32,
    received_before: u32,
    transit: Option<i64>,
    /// Jitter in timestamp units, times 16.
    jitter_16: i64,
    last_report: Option<(u32, u64)>,
}

impl RtpReception {
    pub(crate) fn packet(&mut self, sequence: u16) {
        if self.first.is_none() {
            self.first = Some(sequence);
            self.highest = u32::from(sequence);
        }
        let ahead = sequence.wrapping_sub(self.highest as u16).cast_signed();
        if ahead > 0 {
            self.highest = self.highest.wrapping_add(ahead.unsigned_abs().into());
        }
        self.received = self.received.wrapping_add(1);
    }

    /// The highest sequence number.
    pub(crate) fn highest(&self) -> u16 {
        self.highest as u16
    }

    /// Handles the arrival time and RTP timestamp of a packet (A.8).
    pub(crate) fn timing(&mut self, timestamp: u32, clock_rate: u32, at_ns: u64) {
        let arrival = u128::from(at_ns) * u128::from(clock_rate) / 1_000_000_000;
        // Both values wrap at 2^32, and so does the transit. It changes little from one packet to the next.
        let transit = i64::from((arrival as u32).wrapping_sub(timestamp));
        if let Some(before) = self.transit.replace(transit) {
            let change =
                i64::from((transit as u32).wrapping_sub(before as u32).cast_signed()).abs();
            self.jitter_16 += change - ((self.jitter_16 + 8) >> 4);
        }
    }

    pub(crate) fn sender_report(&mut self, ntp: u64, at_ns: u64) {
        self.last_report = Some(((ntp >> 16) as u32, at_ns));
    }

    /// The report block for the time since the last call (A.3).
    pub(crate) fn report(&mut self, ssrc: u32, now_ns: u64) -> ReportBlock {
        let expected =
            self.first.map_or(0, |first| self.highest.wrapping_sub(first.into()).wrapping_add(1));
        let due = expected.wrapping_sub(self.expected_before);
        let missed = i64::from(due) - i64::from(self.received.wrapping_sub(self.received_before));
        (self.expected_before, self.received_before) = (expected, self.received);
        let fraction_lost =
            if due == 0 || missed <= 0 { 0 } else { (missed << 8) / i64::from(due) };
        let lost = (i64::from(expected) - i64::from(self.received)).clamp(-0x80_0000, 0x7f_ffff);
        let since = |at_ns: u64| u128::from(now_ns.saturating_sub(at_ns)) * 65_536 / 1_000_000_000;
        let (last_sr, delay) =
            self.last_report.map_or((0, 0), |(middle, at_ns)| (middle, since(at_ns)));
        ReportBlock {
            ssrc,
            fraction_lost: u8::try_from(fraction_lost).unwrap_or(u8::MAX),
            lost: i32::try_from(lost).unwrap_or(0),
            sequence_max: self.highest,
            jitter: u32::try_from(self.jitter_16 >> 4).unwrap_or(0),
            last_sr,
            delay_since_last_sr: u32::try_from(delay).unwrap_or(u32::MAX),
        }
    }
}

/// NTP timestamp: seconds since 1900 in the upper half, the fraction in the lower half.
pub(crate) fn ntp_of(unix_ns: u64) -> u64 {
    const UNIX_IN_NTP_S: u64 = 2_208_988_800;
    let (seconds, rest) = (unix_ns / 1_000_000_000, unix_ns % 1_000_000_000);
    ((seconds + UNIX_IN_NTP_S) << 32) | ((rest << 32) / 1_000_000_000)
}

#[cfg(test)]
mod tests;
