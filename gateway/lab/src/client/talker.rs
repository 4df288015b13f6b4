//! A client without its socket: its timers, streams and reactions.

use evenkeel_media::demux::{self, DatagramKind};
use evenkeel_media::rtcp::{self, RtcpPacket};
use evenkeel_media::rtp;
use fastrand::Rng;
use serde::Serialize;

use super::outgoing::{
    Content, FRAMES_PER_SECOND, VIDEO_CLOCK, VIDEO_TYPE, VOICE_CLOCK, VOICE_TYPE, VideoStream,
    VoiceStream,
};
use crate::TestHeader;
use crate::ledger::{ReceivedPacket, SentPacket};
use crate::reception::RtpReception;

const REPORT_EVERY_NS: u64 = 1_000_000_000;
/// Maximum received streams with statistics. Above this the stream that has been silent longest is forgotten.
const HEARD_MAX: usize = 64;

/// A simulated client: its session, its seed and the streams that it sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Persona {
    /// The session number in the test headers of the client's packets.
    pub session: u64,
    /// Seed of its SSRCs, sequence numbers, phases and sizes.
    pub seed: u64,
    /// The client sends voice.
    pub voice: bool,
    /// The client sends video.
    pub video: bool,
}

/// A fault of a client's device; none by default.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct DeviceFault {
    /// Frames per second of its video; `None`: the usual rate.
    pub frames_per_second: Option<u64>,
    /// Its microphone is muted: the voice has no sound, and no test header.
    pub is_muted: bool,
    /// It requests a key frame of each video stream every second. Payloads of clients have no key frame of VP8.
    pub requests_key_frames: bool,
}

/// A client's totals since it joined.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
pub struct ClientTally {
    pub(crate) packets_sent: u64,
    /// Received RTP packets with a test header.
    pub packets_received: u64,
    /// Packets that are invalid or carry no test header.
    pub unreadable: u64,
    /// Datagrams from another address than the gateway's, or of an unknown flow, since the client may send.
    pub foreign: u64,
    /// RTCP sender and receiver reports.
    pub reports_received: u64,
    /// Key frames of which the last packet was received.
    pub(crate) key_frames_received: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Transmit {
    /// An RTP packet, to be recorded in the ledger.
    Rtp(SentPacket),
    /// A compound RTCP packet.
    Rtcp,
}

/// A client without its socket. After any input, drain [`poll_transmit`](Self::poll_transmit).
pub(crate) struct Talker {
    persona: Persona,
    rng: Rng,
    own_ssrc: u32,
    voice: Option<VoiceStream>,
    video: Option<VideoStream>,
    heard: Vec<ReceivedStream>,
    report_ns: u64,
    requests_key_frames: bool,
    pub(super) tally: ClientTally,
}

struct ReceivedStream {
    ssrc: u32,
    is_video: bool,
    last_ns: u64,
    reception: RtpReception,
}

impl Talker {
    /// Creates a client that sends media and a report at once. By the report, a node learns the address of a client
    /// that only listens.
    pub(crate) fn new(persona: Persona, now_ns: u64) -> Self {
        let mut rng = Rng::with_seed(persona.seed);
        let session = persona.session;
        let voice = persona.voice.then(|| VoiceStream::new(session, now_ns, &mut rng));
        let video =
            persona.video.then(|| VideoStream::new(session, persona.voice, now_ns, &mut rng));
        let tracks = [voice.as_ref().map(|it| &it.track), video.as_ref().map(|it| &it.track)];
        let own_ssrc = tracks.into_iter().flatten().map(|track| track.ssrc).next();
        Self {
            persona,
            own_ssrc: own_ssrc.unwrap_or_else(|| rng.u32(..)),
            rng,
            voice,
            video,
            heard: Vec::new(),
            report_ns: now_ns,
            requests_key_frames: false,
            tally: ClientTally::default(),
        }
    }

    /// Time of the next call of [`poll_transmit`](Self::poll_transmit): nanoseconds since the Unix epoch.
    pub(crate) fn poll_timeout(&self) -> u64 {
        let voice = self.voice.as_ref().map_or(u64::MAX, |voice| voice.next_ns);
        let video = self.video.as_ref().map_or(u64::MAX, VideoStream::next_ns);
        self.report_ns.min(voice).min(video)
    }

    /// Appends the next packet that is due to `out`, if one is.
    pub(crate) fn poll_transmit(&mut self, now_ns: u64, out: &mut Vec<u8>) -> Option<Transmit> {
        if self.report_ns <= now_ns {
            self.report_ns = now_ns + REPORT_EVERY_NS;
            self.write_report(now_ns, out);
            return Some(Transmit::Rtcp);
        }
        let voice_due = self.voice.as_mut().filter(|voice| voice.next_ns <= now_ns);
        let video_due = self.video.as_mut().filter(|video| video.next_ns() <= now_ns);
        let sent = match (voice_due, video_due) {
            (Some(voice), _) => voice.packet(now_ns, &mut self.rng, out),
            (None, Some(video)) => video.packet(now_ns, &mut self.rng, out),
            (None, None) => return None,
        };
        self.tally.packets_sent += 1;
        Some(Transmit::Rtp(sent))
    }

    /// Handles a received packet. Returns the entry for the ledger, if any.
    pub(crate) fn handle_packet(&mut self, packet: &[u8], at_ns: u64) -> Option<ReceivedPacket> {
        match demux::classify(packet) {
            DatagramKind::Rtp => self.handle_rtp(packet, at_ns),
            DatagramKind::Rtcp => {
                self.handle_rtcp(packet, at_ns);
                None
            }
            _ => {
                self.tally.unreadable += 1;
                None
            }
        }
    }

    fn handle_rtp(&mut self, packet: &[u8], at_ns: u64) -> Option<ReceivedPacket> {
        let Some((header, mark)) = marked(packet) else {
            self.tally.unreadable += 1;
            return None;
        };
        self.tally.packets_received += 1;
        if Content::of(header.payload(packet)) == Some(Content::Key) && header.marker {
            self.tally.key_frames_received += 1;
        }
        let heard = self.stream_of(header.ssrc, at_ns);
        heard.reception.packet(header.sequence);
        heard.is_video = header.payload_type == VIDEO_TYPE;
        match header.payload_type {
            VOICE_TYPE => heard.reception.timing(header.timestamp, VOICE_CLOCK, at_ns),
            VIDEO_TYPE => heard.reception.timing(header.timestamp, VIDEO_CLOCK, at_ns),
            _ => {}
        }
        Some(ReceivedPacket {
            receiver: self.persona.session,
            sender: mark.session,
            stream: mark.stream,
            number: mark.number,
            node: mark.node,
            sent_ns: mark.sent_ns,
            at_ns,
            ssrc: header.ssrc,
            sequence: header.sequence,
            timestamp: header.timestamp,
        })
    }

    fn handle_rtcp(&mut self, compound: &[u8], at_ns: u64) {
        for packet in rtcp::packets(compound) {
            match packet {
                Ok(RtcpPacket::Pli(pli)) => self.asked_for_key(pli.media),
                Ok(RtcpPacket::Fir(fir)) => {
                    fir.entries().for_each(|entry| self.asked_for_key(entry.media));
                }
                Ok(RtcpPacket::Remb(remb)) => {
                    if let Some(video) = &mut self.video {
                        video.cap_bps = Some(remb.bitrate_bps);
                    }
                }
                Ok(RtcpPacket::SenderReport(report)) => {
                    self.tally.reports_received += 1;
                    self.stream_of(report.info.ssrc, at_ns)
                        .reception
                        .sender_report(report.info.ntp, at_ns);
                }
                Ok(RtcpPacket::ReceiverReport(_)) => self.tally.reports_received += 1,
                Ok(
                    RtcpPacket::Nack(_)
                    | RtcpPacket::TransportWide(_)
                    | RtcpPacket::Extended(_)
                    | RtcpPacket::Other { .. },
                ) => {}
                Err(_) => self.tally.unreadable += 1,
            }
        }
    }

    pub(super) fn set_device_fault(&mut self, fault: DeviceFault) {
        if let Some(video) = &mut self.video {
            video.frames_per_second = fault.frames_per_second.unwrap_or(FRAMES_PER_SECOND);
        }
        if let Some(voice) = &mut self.voice {
            voice.is_muted = fault.is_muted;
        }
        self.requests_key_frames = fault.requests_key_frames;
    }

    /// Ignores requests for an unknown SSRC.
    fn asked_for_key(&mut self, media: u32) {
        if let Some(video) = self.video.as_mut().filter(|video| video.track.ssrc == media) {
            video.key_asked = true;
        }
    }

    fn stream_of(&mut self, ssrc: u32, at_ns: u64) -> &mut ReceivedStream {
        let index = match self.heard.iter().position(|heard| heard.ssrc == ssrc) {
            Some(index) => index,
            None => {
                if self.heard.len() == HEARD_MAX
                    && let Some(silent) = (0..HEARD_MAX).min_by_key(|&i| self.heard[i].last_ns)
                {
                    self.heard.swap_remove(silent);
                }
                self.heard.push(ReceivedStream {
                    ssrc,
                    is_video: false,
                    last_ns: at_ns,
                    reception: RtpReception::default(),
                });
                self.heard.len() - 1
            }
        };
        let heard = &mut self.heard[index];
        heard.last_ns = at_ns;
        heard
    }

    /// Writes a sender report for each stream, or else a receiver report, with report blocks and SDES.
    fn write_report(&mut self, now_ns: u64, out: &mut Vec<u8>) {
        let blocks: Vec<_> =
            self.heard.iter_mut().map(|heard| heard.reception.report(heard.ssrc, now_ns)).collect();
        let voice = self.voice.as_ref().map(|voice| voice.track.sender_info(now_ns));
        let video = self.video.as_ref().map(|video| video.track.sender_info(now_ns));
        let mut infos = voice.into_iter().chain(video).filter(|info| info.packets > 0).peekable();
        if infos.peek().is_none() {
            rtcp::write_receiver_report(self.own_ssrc, &blocks, out);
        }
        for (place, info) in infos.enumerate() {
            rtcp::write_sender_report(&info, if place == 0 { &blocks } else { &[] }, out);
        }
        rtcp::write_cname(
            self.own_ssrc,
            format!("session-{}", self.persona.session).as_bytes(),
            out,
        );
        let wanted = self.heard.iter().filter(|heard| self.requests_key_frames && heard.is_video);
        wanted.for_each(|heard| {
            rtcp::write_pli(rtcp::Pli { sender: self.own_ssrc, media: heard.ssrc }, out);
        });
    }
}

fn marked(packet: &[u8]) -> Option<(rtp::RtpHeader, TestHeader)> {
    let header = rtp::RtpHeader::parse(packet).ok()?;
    let mark = TestHeader::read(header.payload(packet))?;
    Some((header, mark))
}

#[cfg(test)]
mod tests;
