//! RTCP that the gateway itself writes: key-frame requests both ways, and caps.

use std::time::{Duration, Instant};

use evenkeel_core::{Kind, Media, Srtp};
use evenkeel_media::rtcp::{self, rewrite};

/// A sender needs about this long to answer with a key frame; asking sooner asks for two.
const KEY_FRAME_EVERY: Duration = Duration::from_millis(300);

/// REMB is soft state; senders forget it after some seconds.
const CAP_EVERY: Duration = Duration::from_secs(1);

/// That a cap is lifted is told for so long: each time may be lost.
const LIFTED_FOR: Duration = Duration::from_secs(5);

/// Streams of one client that are asked for key frames.
const SOURCES_MAX: usize = 8;

/// What lifts a cap: more than anybody sends.
const UNCAPPED_BPS: u64 = 1_000_000_000;

#[derive(Debug)]
pub(crate) struct Feedback {
    /// What we call ourselves in feedback.
    ssrc: u32,
    /// Our canonical name: random, for this session only (RFC 7022, 4.2).
    name: u64,
    takes_pli: bool,
    takes_fir: bool,
    takes_remb: bool,
    takes_tmmbr: bool,
    /// Nothing is written into SRTP.
    may_write: bool,
    /// Sources of the client's video.
    video: Vec<u32>,
    sources: Vec<u32>,
    /// Requests to the hop go out with the first packets of its streams.
    wanted: bool,
    asked_hop: Vec<u32>,
    asked_client: Option<Instant>,
    fir_number: u8,
    /// When the client was last told how much it may send.
    told: Option<Instant>,
    /// Since when it may send as much as it likes, after a cap.
    lifted: Option<Instant>,
}

impl Feedback {
    /// The names are drawn from `seed`.
    pub(crate) fn new(seed: u64, media: &Media) -> Feedback {
        let takes = |wanted: fn(&evenkeel_core::Feedback) -> bool| {
            media
                .streams
                .iter()
                .any(|stream| stream.kind == Kind::Video && wanted(&stream.feedback))
        };
        Feedback {
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

    /// The client sends this source.
    pub(crate) fn heard(&mut self, ssrc: u32, kind: Kind) {
        remember(&mut self.sources, ssrc);
        if kind == Kind::Video {
            remember(&mut self.video, ssrc);
        }
    }

    /// Streams to the client need a key frame: each is asked for with its first packet.
    pub(crate) fn want_key_frame(&mut self) {
        self.wanted = true;
        self.asked_hop.clear();
    }

    /// A PLI for the hop's stream, as the hop names it, if one is wanted and was not asked for just now.
    pub(crate) fn key_frame_request(&mut self, ssrc: u32) -> Option<Vec<u8>> {
        let asked = self.asked_hop.contains(&ssrc);
        if !self.wanted || !self.may_write || asked || self.asked_hop.len() >= SOURCES_MAX {
            return None;
        }
        self.asked_hop.push(ssrc);
        let pli = rtcp::Pli { sender: self.ssrc, media: ssrc };
        Some(self.compound(|out| rtcp::write_pli(pli, out)))
    }

    /// A PLI, or where the client takes only that a FIR, for each video stream it sends.
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

    /// How much the client may send: REMB of all its streams, or where it takes only that a TMMBR of each video stream,
    /// which share it. 0 lifts the cap.
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

    /// Whether the cap is to be told again, or that there is none any more.
    pub(crate) fn cap_is_due(&self, kbps: u32, now: Instant) -> bool {
        !within(self.told, CAP_EVERY, now) && self.repeats(kbps, now)
    }

    /// Whether it goes on being told.
    pub(crate) fn repeats(&self, kbps: u32, now: Instant) -> bool {
        kbps > 0 || within(self.lifted, LIFTED_FOR, now)
    }

    /// The node's own word on how much the client may send, on its way there, goes beyond no cap; and where it says
    /// less, ours need not be said.
    pub(crate) fn limit(&mut self, compound: &mut [u8], kbps: u32, now: Instant) {
        if kbps > 0 && self.may_write && rewrite::limit_rates(compound, u64::from(kbps) * 1_000) {
            self.told = Some(now);
        }
    }

    /// A compound packet is a report, who sends it, and then what is to be said (RFC 3550, 6.1).
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

/// The newest sources, a bounded number of them.
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
