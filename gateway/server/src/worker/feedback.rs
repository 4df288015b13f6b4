//! RTCP that the gateway itself writes: key-frame requests both ways, and caps.

use std::time::{Duration, Instant};

use evenkeel_core::{Kind, Media, Srtp};
use evenkeel_media::rtcp;

/// A sender needs about this long to answer with a key frame; asking sooner asks for two.
const KEY_FRAME_EVERY: Duration = Duration::from_millis(300);

/// REMB is soft state; senders forget it after some seconds.
const CAP_EVERY: Duration = Duration::from_secs(1);

/// Streams of one client that are asked for key frames.
const SOURCES_MAX: usize = 8;

/// What lifts a cap: more than anybody sends.
const UNCAPPED_BPS: u64 = 1_000_000_000;

#[derive(Debug)]
pub(crate) struct Feedback {
    /// What we call ourselves in feedback.
    ssrc: u32,
    takes_pli: bool,
    takes_fir: bool,
    takes_remb: bool,
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
    capped: Option<Instant>,
}

impl Feedback {
    pub(crate) fn new(ssrc: u32, media: &Media) -> Feedback {
        let takes = |wanted: fn(&evenkeel_core::Feedback) -> bool| {
            media
                .streams
                .iter()
                .any(|stream| stream.kind == Kind::Video && wanted(&stream.feedback))
        };
        Feedback {
            ssrc,
            takes_pli: takes(|feedback| feedback.pli),
            takes_fir: takes(|feedback| feedback.fir),
            takes_remb: media.takes_remb(),
            may_write: media.srtp == Srtp::Plain,
            video: Vec::new(),
            sources: Vec::new(),
            wanted: false,
            asked_hop: Vec::new(),
            asked_client: None,
            fir_number: 0,
            capped: None,
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
        let mut packet = Vec::new();
        rtcp::write_pli(rtcp::Pli { sender: self.ssrc, media: ssrc }, &mut packet);
        Some(packet)
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
        let mut packet = Vec::new();
        if self.takes_pli {
            for &media in &self.video {
                rtcp::write_pli(rtcp::Pli { sender: self.ssrc, media }, &mut packet);
            }
        } else {
            self.fir_number = self.fir_number.wrapping_add(1);
            let number = self.fir_number;
            let entries: Vec<_> =
                self.video.iter().map(|&media| rtcp::FirEntry { media, number }).collect();
            rtcp::write_fir(self.ssrc, &entries, &mut packet);
        }
        Some(packet)
    }

    /// A receiver report and REMB behind it (RFC 3550, 6.1 wants a report first); 0 lifts the cap.
    pub(crate) fn cap(&mut self, kbps: u32) -> Option<Vec<u8>> {
        if !self.takes_remb || !self.may_write {
            return None;
        }
        let bps = if kbps == 0 { UNCAPPED_BPS } else { u64::from(kbps) * 1_000 };
        let mut packet = Vec::new();
        rtcp::write_receiver_report(self.ssrc, &[], &mut packet);
        rtcp::write_remb(self.ssrc, bps, &self.sources, &mut packet);
        Some(packet)
    }

    pub(crate) fn cap_is_due(&mut self, now: Instant) -> bool {
        let due = self.capped.is_none_or(|at| now.saturating_duration_since(at) >= CAP_EVERY);
        if due {
            self.capped = Some(now);
        }
        due
    }
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
