//! Counts of a session for metrics: repairs, losses behind the gateway, and pauses of media to the client. No record contains
//! them, so the process that continues a session begins anew.

use std::time::{Duration, Instant};

use evenkeel_media::quality::HeardLoss;
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

/// Smoothing time of the share of time in freezes: a freeze of a second is a tenth of it.
const FREEZES_FOLLOW_IN: Duration = Duration::from_secs(10);

/// Pictures after which older ones weigh half, for the mean number of their packets.
const PICTURES_MAX: u32 = 256;

/// Time from a request for a key frame to the key frame, before it is measured.
const KEY_FRAME_AFTER: Duration = Duration::from_millis(100);

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
    /// Time in freezes that ended since the last call of [`SessionCounts::frozen_ppm`], and the smoothed share of it before.
    frozen: Duration,
    frozen_share: f64,
    /// Time from the last request for a key frame to that key frame.
    key_frame_after: Option<Duration>,
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
    /// Recent pictures and their packets.
    pictures: u32,
    packets: u32,
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

    /// A packet of video was withheld.
    pub(super) fn note_thinned(&mut self) {
        self.counts.thinned += 1;
    }

    /// A packet of video waits for its turn.
    pub(super) fn note_paced(&mut self) {
        self.counts.paced += 1;
    }

    /// A packet of the client was dropped, since it sends more than it may.
    pub(super) fn note_policed(&mut self) {
        self.counts.policed += 1;
    }

    /// Bytes of the client since the last summary that repair others.
    pub(super) fn repair_bytes_up(&self) -> u64 {
        self.counts.repairs.iter().map(|repair| repair.bytes_up).sum()
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

    /// The hop sent a key frame this long after it was requested.
    pub(super) fn note_key_frame(&mut self, after: Duration) {
        self.key_frame_after = Some(after);
    }

    pub(super) fn note_given_up(&mut self, key_frames: u32) {
        self.counts.key_frames_given_up += key_frames;
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
            let stream = PictureStream { ssrc, timestamp, at: now, usual, pictures: 1, packets: 1 };
            return self.pictures.push(stream);
        };
        stream.packets += 1;
        // A packet of the same picture or, with B-frames, of an earlier one.
        if timestamp.wrapping_sub(stream.timestamp).cast_signed() <= 0 {
            return;
        }
        let since = now.saturating_duration_since(std::mem::replace(&mut stream.at, now));
        stream.timestamp = timestamp;
        stream.pictures += 1;
        if stream.pictures >= PICTURES_MAX {
            (stream.pictures, stream.packets) = (stream.pictures / 2, stream.packets / 2);
        }
        let usual = stream.usual;
        if usual.is_zero() || since >= FREEZE_MAX {
            stream.usual = if since >= FREEZE_MAX { Duration::ZERO } else { since };
            return;
        }
        let is_late = since >= usual + FREEZE_MIN.max(2 * usual);
        if is_late {
            self.counts.freezes += 1;
            self.frozen += since;
        }
        let counted = since.min(INTERVALS_MAX * usual);
        stream.usual = (usual * (SMOOTHING - 1) + counted) / SMOOTHING;
    }

    /// Returns the share of time in which the picture of the client stands still, in ppm; `None` without recent video. `elapsed`: the time since
    /// the last call. `left` returns the loss after repair of a stream.
    ///
    /// It has two parts: freezes in what was sent to the client, which ended lately; and pictures that lack a packet there, each of which
    /// stands until a key frame comes. Of several streams the worst one counts.
    pub(super) fn frozen_ppm(
        &mut self,
        elapsed: Duration,
        round_trip: Duration,
        left: impl Fn(u32) -> Option<HeardLoss>,
        now: Instant,
    ) -> Option<u64> {
        let frozen = std::mem::take(&mut self.frozen).as_secs_f64();
        let (passed, follows_in) = (elapsed.as_secs_f64(), FREEZES_FOLLOW_IN.as_secs_f64());
        let kept = 1.0 - passed.min(follows_in) / follows_in;
        self.frozen_share = self.frozen_share * kept + frozen / follows_in.max(passed);
        let stands = round_trip + self.key_frame_after.unwrap_or(KEY_FRAME_AFTER);
        let is_recent = |stream: &&PictureStream| {
            !stream.usual.is_zero() && now.saturating_duration_since(stream.at) < FREEZE_MAX
        };
        let streams = self.pictures.iter().filter(is_recent);
        let broken = streams
            .map(|stream| left(stream.ssrc).map_or(0.0, |loss| stream.broken_share(loss, stands)));
        let broken = broken.reduce(f64::max)?;
        let frozen = self.frozen_share.min(1.0);
        Some(((frozen + (1.0 - frozen) * broken) * 1e6).round() as u64)
    }
}

impl PictureStream {
    /// Returns the share of time in which a picture that lacks a packet is shown, if each stands for this time.
    fn broken_share(&self, loss: HeardLoss, stands: Duration) -> f64 {
        let packets = f64::from(self.packets) / f64::from(self.pictures.max(1));
        // Losses in a burst hit the same picture.
        let begins = f64::from(loss.ppm) / 1e6 / loss.burst_ratio.max(1.0);
        let broken = 1.0 - (1.0 - begins.min(1.0)).powf(packets);
        let lost_time = broken * stands.as_secs_f64();
        lost_time / (lost_time + self.usual.as_secs_f64())
    }
}

#[cfg(test)]
mod tests;
