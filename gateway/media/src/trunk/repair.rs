//! Repair of a trunk leg that loses bundles.
//!
//! Bundles are numbered. The receiver reports the share that it missed, and as long as there is some, the sender adds repair datagrams
//! ([`window`](crate::repair::window)), from which the receiver restores lost bundles. Source symbols are the entries of bundles, before
//! encryption: a repair datagram is encrypted as a bundle is, so all that a recovered bundle is made of has passed the receiver's checks
//! of authenticity and replay.

use std::time::{Duration, Instant};

use super::Tag;
use super::bundle::{self, Bundle};
use crate::demux;
use crate::repair::window::{self, RepairError, WindowDecoder, WindowEncoder};

/// Bytes by which a repair datagram may be longer than the longest of the bundles that it covers. A numbered bundle is longer by
/// fewer bytes.
pub const REPAIR_EXCESS: usize = window::REPAIR_OVERHEAD - bundle::OVERHEAD;

/// Parity begins at this share of lost bundles.
const LOSS_MIN_PERMILLE: u32 = 5;
/// Parity and the copies of received bundles end after this time without loss.
const LOSS_ENDS_AFTER: Duration = Duration::from_secs(5);
/// Above this share of lost bundles every third datagram is followed by parity, instead of every fifth.
const HIGH_LOSS_PERMILLE: u32 = 80;
const EVERY: u8 = 5;
const EVERY_AT_HIGH_LOSS: u8 = 3;

/// Bundles over which the loss is averaged: those of a second of a busy leg. Older ones count half.
const AVERAGED: u32 = 2_000;

/// Interval of reports while bundles are lost.
const REPORT_EVERY: Duration = Duration::from_millis(100);
/// Interval of reports without loss. They also tell that this end reads numbered bundles.
const REPORT_EVERY_WITHOUT_LOSS: Duration = Duration::from_secs(1);
/// Mark, tag, numbers that were expected, those that were lost.
const REPORT_LEN: usize = 13;

/// A bundle that many numbers late is still expected; after that it counts as lost.
const REORDERED_MAX: u16 = u64::BITS as u16;

/// Numbers that differ more are those of a sender that began anew.
const GAP_MAX: u16 = 1_024;

/// The repair of a leg at one of its ends, in both directions.
#[derive(Debug)]
pub struct TrunkRepair {
    sender: RepairSender,
    receiver: LossReceiver,
}

impl TrunkRepair {
    /// `first_number` is random, as the first sequence number of RTP (RFC 3550, section 5.1): the plaintext of an encrypted bundle is less
    /// known, and numbers after a restart are hardly ever those that the other end takes for late ones.
    pub fn new(first_number: u16) -> TrunkRepair {
        let sender = RepairSender { next: first_number, ..RepairSender::default() };
        TrunkRepair { sender, receiver: LossReceiver::default() }
    }

    /// Sends a bundle with the next number, and the repair datagram that follows it. The bundle has to be cleared next.
    pub fn send(&mut self, bundle: &mut Bundle, mut send: impl FnMut(&[u8])) {
        let number = self.sender.next;
        self.sender.next = number.wrapping_add(1);
        send(bundle.numbered(number));
        if let Some(encoder) = &mut self.sender.encoder
            && let Some(repair) = encoder.add(number, bundle.entries())
        {
            send(repair);
        }
    }

    /// Notes a bundle. Returns false if its packets were delivered before, since the bundle was recovered.
    pub fn handle_bundle(&mut self, datagram: &[u8], now: Instant) -> bool {
        let tag = bundle::first_tag(datagram).map(|Tag(tag)| tag);
        self.receiver.last_tag = tag.or(self.receiver.last_tag);
        match (bundle::number(datagram), bundle::content(datagram)) {
            (Some(number), Some(entries)) => self.receiver.handle_bundle(number, entries, now),
            _ => true,
        }
    }

    /// Handles a repair datagram or a report of losses.
    ///
    /// # Errors
    /// Returns the fault of the datagram.
    pub fn handle_repair(&mut self, datagram: &[u8], now: Instant) -> Result<(), RepairError> {
        match datagram {
            [demux::REPAIR, ..] => self.receiver.handle_repair(datagram, now),
            _ => self.sender.handle_report(datagram, now),
        }
    }

    /// Writes a bundle, without its number, that the last datagram recovered. Returns false if there is none.
    pub fn take_recovered(&mut self, bundle: &mut Vec<u8>) -> bool {
        let decoder = self.receiver.decoder.as_mut();
        let Some((_, entries)) = decoder.and_then(|decoder| decoder.take_recovered()) else {
            return false;
        };
        bundle.clear();
        bundle.push(demux::BUNDLE);
        bundle.extend_from_slice(entries);
        true
    }

    /// Returns the report of losses to send now, if one is due, and ends repair that is no longer needed.
    pub fn poll_report(&mut self, now: Instant) -> Option<[u8; REPORT_LEN]> {
        self.sender.handle_timeout(now);
        self.receiver.poll_report(now)
    }
}

/// The numbers of sent bundles, and their parity.
#[derive(Default, Debug)]
struct RepairSender {
    next: u16,
    /// Numbers of reports, of which older ones count half.
    expected: u32,
    lost: u32,
    /// The time of the last report of a loss.
    lost_at: Option<Instant>,
    encoder: Option<Box<WindowEncoder>>,
}

impl RepairSender {
    fn handle_report(&mut self, report: &[u8], now: Instant) -> Result<(), RepairError> {
        let report: &[u8; REPORT_LEN] = report.try_into().map_err(|_| RepairError::Length)?;
        let [.., e0, e1, l0, l1] = *report;
        let [expected, lost] = [[e0, e1], [l0, l1]].map(|it| u32::from(u16::from_be_bytes(it)));
        if lost > expected {
            return Err(RepairError::Length);
        }
        if self.expected >= AVERAGED {
            (self.expected, self.lost) = (self.expected / 2, self.lost / 2);
        }
        (self.expected, self.lost) = (self.expected + expected, self.lost + lost);
        if lost == 0 {
            return Ok(());
        }
        self.lost_at = Some(now);
        let permille = self.lost * 1_000 / self.expected;
        let every = if permille > HIGH_LOSS_PERMILLE { EVERY_AT_HIGH_LOSS } else { EVERY };
        if self.encoder.is_some() || permille >= LOSS_MIN_PERMILLE {
            let kept = self.encoder.take().filter(|encoder| encoder.every() == every);
            self.encoder =
                kept.or_else(|| Some(Box::new(WindowEncoder::new(demux::REPAIR, every))));
        }
        Ok(())
    }

    fn handle_timeout(&mut self, now: Instant) {
        let is_over = |at: Instant| now.saturating_duration_since(at) >= LOSS_ENDS_AFTER;
        if self.lost_at.is_some_and(is_over) {
            (self.lost_at, self.encoder) = (None, None);
        }
    }
}

/// The numbers of received bundles. Their copies are kept only while some are lost.
#[derive(Default, Debug)]
struct LossReceiver {
    /// The number after the highest one.
    next: Option<u16>,
    /// The last 64 numbers below `next` that came, the highest in bit 0.
    came: u64,
    /// Numbers since the last report.
    expected: u32,
    lost: u32,
    /// The first tag of the last bundle: it proves in a report that this end reads them.
    last_tag: Option<u64>,
    reported_at: Option<Instant>,
    /// The time of the last gap or repair datagram.
    lost_at: Option<Instant>,
    decoder: Option<Box<WindowDecoder>>,
}

impl LossReceiver {
    fn handle_bundle(&mut self, number: u16, entries: &[u8], now: Instant) -> bool {
        let next = self.next.unwrap_or(number);
        let (ahead, behind) = (number.wrapping_sub(next), next.wrapping_sub(number));
        if self.next.is_none() || (ahead >= GAP_MAX && behind > GAP_MAX) {
            // The numbers before the first one count as received.
            (self.next, self.came) = (Some(number), u64::MAX);
            self.decoder = None;
            self.count(1);
        } else if ahead < GAP_MAX {
            if ahead > 0 {
                self.lost_at = Some(now);
                self.decoder.get_or_insert_with(|| Box::new(WindowDecoder::new(next)));
            }
            self.count(ahead + 1);
        } else if behind <= REORDERED_MAX {
            self.came |= 1 << (behind - 1);
        }
        let decoder = self.decoder.as_mut();
        decoder.is_none_or(|decoder| decoder.note_source(number, entries, now))
    }

    /// Advances by this number of bundles, at least one. The last one came; those that leave the window without having come are lost.
    fn count(&mut self, bundles: u16) {
        let stay = REORDERED_MAX.saturating_sub(bundles);
        let beyond = bundles.saturating_sub(REORDERED_MAX);
        self.lost += (!self.came >> stay).count_ones() + u32::from(beyond);
        self.came = self.came.checked_shl(bundles.into()).unwrap_or(0) | 1;
        self.expected += u32::from(bundles);
        self.next = self.next.map(|next| next.wrapping_add(bundles));
    }

    fn handle_repair(&mut self, datagram: &[u8], now: Instant) -> Result<(), RepairError> {
        let Some(next) = self.next else { return Ok(()) };
        self.lost_at = Some(now);
        let decoder = self.decoder.get_or_insert_with(|| Box::new(WindowDecoder::new(next)));
        decoder.note_repair(datagram, now)
    }

    fn poll_report(&mut self, now: Instant) -> Option<[u8; REPORT_LEN]> {
        let since = |at: Option<Instant>| at.map(|at| now.saturating_duration_since(at));
        if since(self.lost_at).is_some_and(|since| since >= LOSS_ENDS_AFTER) {
            (self.lost_at, self.decoder) = (None, None);
        }
        let every = if self.lost > 0 { REPORT_EVERY } else { REPORT_EVERY_WITHOUT_LOSS };
        if since(self.reported_at).is_some_and(|since| since < every) {
            return None;
        }
        let tag = self.last_tag.take()?;
        self.reported_at = Some(now);
        let number = |count: u32| u16::try_from(count).unwrap_or(u16::MAX).to_be_bytes();
        let [expected, lost] = [&mut self.expected, &mut self.lost].map(std::mem::take);
        let mut report = [demux::LOSS_REPORT; REPORT_LEN];
        report[1..9].copy_from_slice(&tag.to_be_bytes());
        report[9..11].copy_from_slice(&number(expected));
        report[11..].copy_from_slice(&number(lost.min(expected)));
        Some(report)
    }
}

#[cfg(test)]
mod tests;
