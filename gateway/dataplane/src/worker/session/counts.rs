//! Counts of a session for metrics: repairs, losses behind the gateway, and pauses of media to the client. No record contains
//! them, so the process that continues a session begins anew.

use std::time::{Duration, Instant};

use evenkeel_media::rtcp::ReportBlock;
use evenkeel_model::RepairKind;

use crate::worker::report::{MediaCounts, MediaDirection};

/// Maximum followed streams to one client, of pictures and of reports.
const STREAMS_MAX: usize = 8;

/// A picture that comes later than usual by this time, and by twice the usual interval, froze the one before (W3C webrtc-stats,
/// `freezeCount`).
const FREEZE_MIN: Duration = Duration::from_millis(150);

/// After a longer pause the sender had stopped: its camera was off.
const FREEZE_MAX: Duration = Duration::from_secs(10);

/// Divisor of the weight of a new interval, and the longest interval that counts, in usual ones.
const SMOOTHING: u32 = 8;
const INTERVALS_MAX: u32 = 3;

/// Counts since the last summary, and the facts from which they follow.
#[derive(Default, Debug)]
pub(crate) struct SessionCounts {
    counts: MediaCounts,
    pictures: Vec<PictureStream>,
    reported: Vec<ReportedStream>,
    /// Packets to the client before its last report.
    sent_before: u64,
    /// Another process counted the losses up to the client's next report.
    is_continued: bool,
}

/// A stream of pictures to the client.
#[derive(Debug)]
struct PictureStream {
    ssrc: u32,
    timestamp: u32,
    /// Arrival of the first packet of the last picture.
    at: Instant,
    /// Smoothed time from picture to picture; zero before the second one.
    usual: Duration,
}

/// A stream in the client's receiver reports.
#[derive(Debug)]
struct ReportedStream {
    ssrc: u32,
    lost: i32,
}

impl SessionCounts {
    /// Another process served the session before.
    pub(super) fn continue_session(&mut self) {
        self.is_continued = true;
    }

    pub(super) fn take(&mut self) -> MediaCounts {
        std::mem::take(&mut self.counts)
    }

    pub(super) fn note_repair(&mut self, kind: RepairKind, to: MediaDirection, bytes: usize) {
        let counts = &mut self.counts.repairs[kind as usize];
        let (packets, sum) = match to {
            MediaDirection::ToNode => (&mut counts.packets_up, &mut counts.bytes_up),
            MediaDirection::ToClient => (&mut counts.packets_down, &mut counts.bytes_down),
        };
        *packets += 1;
        *sum += bytes as u64;
    }

    /// Counts packets that were sent to the client again. `bytes`: of all of them.
    pub(super) fn note_answered(&mut self, packets: u32, bytes: u64) {
        self.counts.answered = self.counts.answered.saturating_add(packets);
        let repairs = &mut self.counts.repairs[RepairKind::Retransmission as usize];
        repairs.packets_down += u64::from(packets);
        repairs.bytes_down += bytes;
    }

    /// The client was asked for so many packets.
    pub(super) fn note_requested(&mut self, packets: usize) {
        self.counts.requested = self.counts.requested.saturating_add(packets as u32);
    }

    pub(super) fn note_cache_refused(&mut self) {
        self.counts.caches_refused += 1;
    }

    /// These packets of the client were sent to another node again.
    pub(super) fn note_replayed(&mut self, packets: u32) {
        self.counts.replayed += packets;
    }

    pub(super) fn note_redundancy(&mut self, bytes: usize) {
        self.counts.redundant_bytes += bytes as u64;
    }

    /// A lost packet of the client was recovered.
    pub(super) fn note_recovered(&mut self) {
        self.counts.recovered += 1;
    }

    /// A parity packet is sent to the client.
    pub(super) fn note_parity(&mut self, bytes: usize) {
        self.counts.parity_bytes += bytes as u64;
        self.note_repair(RepairKind::Fec, MediaDirection::ToClient, bytes);
    }

    /// A lost packet of the client was recovered from parity.
    pub(super) fn note_repaired(&mut self) {
        self.counts.repaired += 1;
    }

    /// For this long the client received nothing.
    pub(super) fn note_gap(&mut self, gap: Duration) {
        self.counts.gap = self.counts.gap.max(Some(gap));
    }

    pub(super) fn note_lost(&mut self, packets: u32) {
        self.counts.lost_down = self.counts.lost_down.saturating_add(packets);
    }

    /// Counts the losses since the client's last report. `sent`: all packets to the client so far, since a report may claim more.
    pub(super) fn note_reports(&mut self, blocks: impl Iterator<Item = ReportBlock>, sent: u64) {
        let mut lost: u32 = 0;
        for ReportBlock { ssrc, lost: now, .. } in blocks {
            let known = self.reported.iter_mut().find(|stream| stream.ssrc == ssrc);
            let before = match known {
                Some(stream) => std::mem::replace(&mut stream.lost, now),
                None => {
                    if self.reported.len() == STREAMS_MAX {
                        self.reported.remove(0);
                    }
                    self.reported.push(ReportedStream { ssrc, lost: now });
                    if self.is_continued { now } else { 0 }
                }
            };
            // Duplicates lower the number.
            let newly = u32::try_from(now.saturating_sub(before)).unwrap_or(0);
            lost = lost.saturating_add(newly);
        }
        let sent_since = sent.saturating_sub(std::mem::replace(&mut self.sent_before, sent));
        self.note_lost(lost.min(sent_since.try_into().unwrap_or(u32::MAX)));
    }

    /// Handles a packet of a picture, with the numbers that the client gets.
    pub(super) fn note_picture(&mut self, ssrc: u32, timestamp: u32, now: Instant) {
        let Some(stream) = self.pictures.iter_mut().find(|stream| stream.ssrc == ssrc) else {
            if self.pictures.len() == STREAMS_MAX {
                self.pictures.remove(0);
            }
            let usual = Duration::ZERO;
            return self.pictures.push(PictureStream { ssrc, timestamp, at: now, usual });
        };
        // A packet of the same picture or, with B-frames, of an earlier one.
        if timestamp.wrapping_sub(stream.timestamp).cast_signed() <= 0 {
            return;
        }
        let since = now.saturating_duration_since(std::mem::replace(&mut stream.at, now));
        stream.timestamp = timestamp;
        let usual = stream.usual;
        if usual.is_zero() || since >= FREEZE_MAX {
            stream.usual = if since >= FREEZE_MAX { Duration::ZERO } else { since };
            return;
        }
        let is_late = since >= usual + FREEZE_MIN.max(2 * usual);
        self.counts.freezes += u32::from(is_late);
        let counted = since.min(INTERVALS_MAX * usual);
        stream.usual = (usual * (SMOOTHING - 1) + counted) / SMOOTHING;
    }
}

#[cfg(test)]
mod tests;
