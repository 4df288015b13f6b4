//! RTCP that the gateway generates: key-frame requests in both directions, and send caps.

use std::time::{Duration, Instant};

use evenkeel_media::instant;
use evenkeel_media::rtcp::{self, rewrite};
use evenkeel_model::{MediaDescription, Srtp, StreamKind};
use serde::{Deserialize, Serialize};

/// Minimum interval of requests. A sender needs about this time to answer, and an earlier request would cause a second
/// key frame.
const KEY_FRAME_EVERY: Duration = Duration::from_millis(300);

/// Interval at which a cap is repeated. REMB is soft state; senders forget it after some seconds.
const CAP_EVERY: Duration = Duration::from_secs(1);

/// Time for which the end of a cap is repeated, because each packet may be lost.
const LIFTED_FOR: Duration = Duration::from_secs(5);

/// Limit of video streams of one client that receive key-frame requests.
const SOURCES_MAX: usize = 8;

/// Bitrate that lifts a cap: more than any client sends.
const UNCAPPED_BPS: u64 = 1_000_000_000;

#[derive(Clone, Serialize, Deserialize, Debug)]
pub(crate) struct SenderFeedback {
    /// The sender SSRC of the generated RTCP.
    ssrc: u32,
    /// The CNAME: random, per session (RFC 7022, 4.2).
    name: u64,
    takes_pli: bool,
    takes_fir: bool,
    takes_remb: bool,
    takes_tmmbr: bool,
    /// True if the gateway may generate RTCP. False with SRTP, because the gateway has no keys.
    may_write: bool,
    /// SSRCs of the client's video.
    video: Vec<u32>,
    sources: Vec<u32>,
    /// True if the hop gets a key-frame request with the first packet of each stream.
    wanted: bool,
    asked_hop: Vec<u32>,
    #[serde(with = "instant::option")]
    asked_client: Option<Instant>,
    fir_number: u8,
    /// Time when a cap was last sent.
    #[serde(with = "instant::option")]
    told: Option<Instant>,
    /// Time when the last cap was lifted.
    #[serde(with = "instant::option")]
    lifted: Option<Instant>,
}

impl SenderFeedback {
    /// `seed` determines SSRC and CNAME.
    pub(crate) fn new(seed: u64, media: &MediaDescription) -> SenderFeedback {
        let takes = |wanted: fn(&evenkeel_model::FeedbackSupport) -> bool| {
            media
                .streams
                .iter()
                .any(|stream| stream.kind == StreamKind::Video && wanted(&stream.feedback))
        };
        SenderFeedback {
            ssrc: seed as u32,
            name: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            takes_pli: takes(|feedback| feedback.pli),
            takes_fir: takes(|feedback| feedback.fir),
            takes_remb: media.takes_remb(),
            takes_tmmbr: takes(|feedback| feedback.tmmbr),
            may_write: media.srtp == Srtp::Plain,
            video: Vec::new(),
            sources: Vec::new(),
            wanted: false,
            asked_hop: Vec::new(),
            asked_client: None,
            fir_number: 0,
            told: None,
            lifted: None,
        }
    }

    pub(crate) fn heard(&mut self, ssrc: u32, kind: StreamKind) {
        remember(&mut self.sources, ssrc);
        if kind == StreamKind::Video {
            remember(&mut self.video, ssrc);
        }
    }

    /// Requests a key frame for each stream to the client when the stream's next packet arrives.
    pub(crate) fn want_key_frame(&mut self) {
        self.wanted = true;
        self.asked_hop.clear();
    }

    /// Returns a PLI for this stream of the hop, if a key frame is wanted and the PLI was not sent yet.
    pub(crate) fn key_frame_request(&mut self, ssrc: u32) -> Option<Vec<u8>> {
        let asked = self.asked_hop.contains(&ssrc);
        if !self.wanted || !self.may_write || asked || self.asked_hop.len() >= SOURCES_MAX {
            return None;
        }
        self.asked_hop.push(ssrc);
        let pli = rtcp::Pli { sender: self.ssrc, media: ssrc };
        Some(self.compound(|out| rtcp::write_pli(pli, out)))
    }

    /// Returns a PLI for each video stream of the client, or a FIR if the client does not support PLI.
    pub(crate) fn key_frame_of_client(&mut self, now: Instant) -> Option<Vec<u8>> {
        let recently =
            self.asked_client.is_some_and(|at| now.saturating_duration_since(at) < KEY_FRAME_EVERY);
        if recently
            || !self.may_write
            || self.video.is_empty()
            || !(self.takes_pli || self.takes_fir)
        {
            return None;
        }
        self.asked_client = Some(now);
        if self.takes_pli {
            let sender = self.ssrc;
            let plis = self.video.iter().map(|&media| rtcp::Pli { sender, media });
            return Some(self.compound(|out| plis.for_each(|pli| rtcp::write_pli(pli, out))));
        }
        self.fir_number = self.fir_number.wrapping_add(1);
        let number = self.fir_number;
        let entries: Vec<_> =
            self.video.iter().map(|&media| rtcp::FirEntry { media, number }).collect();
        Some(self.compound(|out| rtcp::write_fir(self.ssrc, &entries, out)))
    }

    /// Returns a REMB over all streams, or a TMMBR with an equal share for each video stream. 0 lifts the cap.
    pub(crate) fn cap(&mut self, kbps: u32, now: Instant) -> Option<Vec<u8>> {
        self.told = Some(now);
        self.lifted = if kbps == 0 { self.lifted.or(Some(now)) } else { None };
        let bps = if kbps == 0 { UNCAPPED_BPS } else { u64::from(kbps) * 1_000 };
        if !self.may_write {
            None
        } else if self.takes_remb {
            Some(self.compound(|out| rtcp::write_remb(self.ssrc, bps, &self.sources, out)))
        } else if self.takes_tmmbr && !self.video.is_empty() {
            let each = bps / self.video.len() as u64;
            Some(self.compound(|out| rtcp::write_tmmbr(self.ssrc, each, &self.video, out)))
        } else {
            None
        }
    }

    /// Returns whether the cap, or its end, must be sent again now.
    pub(crate) fn cap_is_due(&self, kbps: u32, now: Instant) -> bool {
        !within(self.told, CAP_EVERY, now) && self.repeats(kbps, now)
    }

    /// Returns whether the cap, or its end, is still being repeated.
    pub(crate) fn repeats(&self, kbps: u32, now: Instant) -> bool {
        kbps > 0 || within(self.lifted, LIFTED_FOR, now)
    }

    /// Lowers the node's rate limits to the cap. A packet with such a limit carries the cap, which postpones the
    /// gateway's next one.
    pub(crate) fn limit(&mut self, compound: &mut [u8], kbps: u32, now: Instant) {
        if kbps > 0 && self.may_write && rewrite::limit_rates(compound, u64::from(kbps) * 1_000) {
            self.told = Some(now);
        }
    }

    /// Builds a compound packet: receiver report, CNAME, then the message (RFC 3550, 6.1).
    fn compound(&self, say: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut packet = Vec::new();
        rtcp::write_receiver_report(self.ssrc, &[], &mut packet);
        rtcp::write_cname(self.ssrc, format!("{:016x}", self.name).as_bytes(), &mut packet);
        say(&mut packet);
        packet
    }
}

fn within(at: Option<Instant>, time: Duration, now: Instant) -> bool {
    at.is_some_and(|at| now.saturating_duration_since(at) < time)
}

/// Adds a source to a bounded list, newest last.
fn remember(sources: &mut Vec<u32>, ssrc: u32) {
    if !sources.contains(&ssrc) {
        if sources.len() == SOURCES_MAX {
            sources.remove(0);
        }
        sources.push(ssrc);
    }
}

#[cfg(test)]
mod tests;
