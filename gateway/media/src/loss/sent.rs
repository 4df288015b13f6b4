//! The numbers of one stream that were sent to a client, and the recent loss among them.

use std::time::{Duration, Instant};

use crate::rtcp::ReportBlock;
use crate::rtp::sequence_ahead;

/// Numbers below the highest that are remembered: 20 s of usual frames, and more than the interval of reports (RFC 3550, section 6.2).
const REMEMBERED: u16 = 1_024;

/// Packets of half a window of requested packets: 2 s of usual frames. Two of them are the loss at which repair begins, one is not.
const HALF_WINDOW: u32 = 100;

/// Evidence is void after this time: three missed reports, as for the measurements of a session.
const KEPT_FOR: Duration = Duration::from_secs(15);

/// A measured loss.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LossSample {
    /// Parts per million of the packets that were sent.
    pub ppm: u32,
    /// Time of the evidence.
    pub at: Instant,
}

/// The packets of one stream that were sent to a client, and those that are missing there. Packets that are missing before the gateway do not
/// count. Never allocates.
#[derive(Clone, Debug)]
pub(super) struct SentNumbers {
    first: u16,
    highest: u16,
    /// A bit for each number: it was sent.
    sent: [u64; REMEMBERED as usize / 64],
    /// Highest number and losses in the last report.
    reported: Option<Reported>,
    report: Option<LossSample>,
    requested_at: Option<Instant>,
    windows: [RequestWindow; 2],
}

#[derive(Clone, Copy, Debug)]
struct Reported {
    sequence: u16,
    lost: i32,
}

/// Packets that were sent, and requests for packets.
#[derive(Clone, Copy, Default, Debug)]
struct RequestWindow {
    sent: u32,
    missing: u32,
}

impl SentNumbers {
    /// Begins with the number of a packet.
    pub(super) fn new(sequence: u16) -> SentNumbers {
        let mut numbers = SentNumbers {
            first: sequence,
            highest: sequence,
            sent: [0; REMEMBERED as usize / 64],
            reported: None,
            report: None,
            requested_at: None,
            windows: Default::default(),
        };
        numbers.mark(sequence);
        numbers
    }

    /// A packet with this number was sent.
    pub(super) fn note_sent(&mut self, sequence: u16) {
        let ahead = sequence_ahead(sequence, self.highest);
        if ahead > 0 {
            // The numbers between are those of older packets now.
            for skipped in 1..ahead.unsigned_abs().min(REMEMBERED) {
                let (word, bit) = place(sequence.wrapping_sub(skipped));
                self.sent[word] &= !bit;
            }
            self.highest = sequence;
        } else if self.highest.wrapping_sub(sequence) >= REMEMBERED {
            // The stream began anew.
            *self = SentNumbers::new(sequence);
            return;
        }
        self.mark(sequence);
        let [now, before] = &mut self.windows;
        now.sent += 1;
        if now.sent >= HALF_WINDOW {
            *before = std::mem::take(now);
        }
    }

    fn mark(&mut self, sequence: u16) {
        if self.highest.wrapping_sub(sequence) < REMEMBERED {
            let (word, bit) = place(sequence);
            self.sent[word] |= bit;
        }
    }

    pub(super) fn was_sent(&self, sequence: u16) -> bool {
        let (word, bit) = place(sequence);
        self.highest.wrapping_sub(sequence) < REMEMBERED && self.sent[word] & bit != 0
    }

    /// Returns how many of these numbers were sent, of which the first is remembered. A report may have many blocks of lies, so numbers are
    /// counted by words.
    fn sent_among(&self, from: u16, numbers: u16) -> u32 {
        let remembered = self.highest.wrapping_sub(from).saturating_add(1);
        let (mut at, mut left, mut sent) = (from, numbers.min(remembered), 0);
        while left > 0 {
            let (word, bit) = place(at);
            let counted = (64 - at % 64).min(left);
            let mask = u64::MAX >> (64 - counted) << bit.trailing_zeros();
            sent += (self.sent[word] & mask).count_ones();
            (at, left) = (at.wrapping_add(counted), left - counted);
        }
        sent
    }

    /// Returns how many of so many numbers from `first` on were sent. Those that are not remembered count as sent.
    pub(super) fn sent_in(&self, first: u16, numbers: u16) -> u32 {
        match self.highest.wrapping_sub(first) < REMEMBERED {
            true => self.sent_among(first, numbers),
            false => numbers.into(),
        }
    }

    /// Reads the client's report on the stream (RFC 3550, section 6.4.1).
    pub(super) fn note_report(&mut self, block: &ReportBlock, now: Instant) {
        let sequence = block.sequence_max as u16;
        let before = self.reported.replace(Reported { sequence, lost: block.lost });
        let from = before.map_or(self.first, |before| before.sequence.wrapping_add(1));
        let numbers = sequence.wrapping_sub(from).wrapping_add(1);
        if self.highest.wrapping_sub(from) >= REMEMBERED || numbers == 0 || numbers > REMEMBERED {
            return;
        }
        let sent = self.sent_among(from, numbers);
        let missing = match before {
            Some(before) => i64::from(block.lost) - i64::from(before.lost),
            // The stream may be older than this.
            None => i64::from(numbers) * i64::from(block.fraction_lost) / 256,
        };
        // Numbers that were never sent are missing too.
        let lost = i64::from(sent) - (i64::from(numbers) - missing);
        let lost = lost.clamp(0, sent.into()).unsigned_abs();
        if let Some(ppm) = (lost * 1_000_000).checked_div(sent.into()) {
            self.report = Some(LossSample { ppm: ppm as u32, at: now });
        }
    }

    /// Reads the loss by an exact count of the client.
    pub(super) fn note_count(&mut self, ppm: u32, now: Instant) {
        self.report = Some(LossSample { ppm, at: now });
    }

    /// The client requests a packet that was sent, for the first time.
    pub(super) fn note_request(&mut self, now: Instant) {
        self.windows[0].missing += 1;
        self.requested_at = Some(now);
    }

    /// Returns the loss: the higher one by reports and by requests. `None` if neither came lately.
    pub(super) fn sample(&self, now: Instant) -> Option<LossSample> {
        let missing: u32 = self.windows.iter().map(|window| window.missing).sum();
        let sent: u32 = self.windows.iter().map(|window| window.sent).sum();
        let ppm = u64::from(missing) * 1_000_000 / u64::from(sent.max(2 * HALF_WINDOW));
        let requests = self.requested_at.map(|at| LossSample { ppm: ppm as u32, at });
        let is_fresh = |it: &LossSample| now.saturating_duration_since(it.at) < KEPT_FOR;
        let samples = [self.report, requests].into_iter().flatten().filter(is_fresh);
        samples.max_by_key(|sample| (sample.ppm, sample.at))
    }
}

/// Returns the word and the bit of a number.
fn place(sequence: u16) -> (usize, u64) {
    let index = usize::from(sequence % REMEMBERED);
    (index / 64, 1 << (index % 64))
}

#[cfg(test)]
mod tests;
