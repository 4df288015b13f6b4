//! The outgoing streams of a client: voice at an even pace, video in frames.

use evenkeel_media::rtcp::SenderInfo;
use evenkeel_media::rtp;
use fastrand::Rng;

use crate::TestHeader;
use crate::ledger::SentPacket;
use crate::reception::ntp_of;

/// Payload type of voice: 50 packets/s, stream 0.
pub(crate) const VOICE_TYPE: u8 = 111;
const VOICE_EVERY_NS: u64 = 20_000_000;
pub(super) const VOICE_CLOCK: u32 = 48_000;
/// Opus at about 50 kbit/s, test header included.
const VOICE_BYTES: std::ops::RangeInclusive<usize> = 60..=200;
/// The share of voice in a cap: 50 packets/s of 130 bytes and their RTP header.
const VOICE_BPS: u64 = 57_000;
/// Payload type of video: 25 frames/s of several packets, stream 1.
pub(crate) const VIDEO_TYPE: u8 = 96;
pub(super) const VIDEO_CLOCK: u32 = 90_000;
/// Video bitrate without a cap.
const VIDEO_BPS: u64 = 400_000;
pub(super) const FRAMES_PER_SECOND: u64 = 25;
const SECOND_NS: u64 = 1_000_000_000;
/// The largest payload of a video packet, so that a frame has several.
const VIDEO_PACKET_BYTES: usize = 800;
/// A key frame is this many times as large as the others.
const KEY_FRAME_TIMES: u64 = 3;
/// Minimum video bitrate. A lower cap does not reduce video further.
const VIDEO_FLOOR_BPS: u64 = 30_000;
/// An Opus frame of silence.
const SILENCE: [u8; 3] = [0xf8, 0xff, 0xfe];
/// The smallest payload: the test header and one byte for the kind of content.
const PAYLOAD_MIN: usize = TestHeader::LENGTH + 1;

/// The byte after the test header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Content {
    Voice,
    Key,
    Delta,
    /// Voice without sound, and without a test header.
    Silence,
}

impl Content {
    fn byte(self) -> u8 {
        match self {
            Self::Voice => b'V',
            Self::Key => b'K',
            Self::Delta => b'D',
            Self::Silence => SILENCE[0],
        }
    }

    pub(super) fn of(payload: &[u8]) -> Option<Self> {
        [Self::Voice, Self::Key, Self::Delta]
            .into_iter()
            .find(|content| payload.get(TestHeader::LENGTH) == Some(&content.byte()))
    }
}

/// The state that a voice and a video stream have in common.
pub(super) struct OutgoingTrack {
    session: u64,
    stream: u8,
    payload_type: u8,
    clock_rate: u32,
    pub(super) ssrc: u32,
    sequence: u16,
    timestamp_first: u32,
    started_ns: u64,
    number: u64,
    octets: u32,
}

impl OutgoingTrack {
    fn timestamp_at(&self, at_ns: u64) -> u32 {
        let since = u128::from(at_ns.saturating_sub(self.started_ns));
        let units = since * u128::from(self.clock_rate) / 1_000_000_000;
        self.timestamp_first.wrapping_add(units as u32)
    }

    fn packet(
        &mut self,
        timestamp: u32,
        marker: bool,
        content: Content,
        size: usize,
        now_ns: u64,
        out: &mut Vec<u8>,
    ) -> SentPacket {
        let mark = TestHeader {
            session: self.session,
            number: self.number,
            sent_ns: now_ns,
            node: 0,
            stream: self.stream,
        };
        let mut payload = Vec::with_capacity(size);
        if content == Content::Silence {
            payload.extend_from_slice(&SILENCE);
        } else {
            mark.write(&mut payload);
            payload.push(content.byte());
            payload.resize(size.max(PAYLOAD_MIN), 0x5a);
        }
        let (payload_type, sequence, ssrc) = (self.payload_type, self.sequence, self.ssrc);
        rtp::write(&rtp::Fields { payload_type, marker, sequence, timestamp, ssrc }, &payload, out);
        self.sequence = sequence.wrapping_add(1);
        self.number += 1;
        self.octets = self.octets.wrapping_add(payload.len() as u32);
        let TestHeader { session, stream, number, sent_ns: at_ns, .. } = mark;
        SentPacket { session, stream, number, at_ns, timestamp, clock_rate: self.clock_rate }
    }

    pub(super) fn sender_info(&self, now_ns: u64) -> SenderInfo {
        SenderInfo {
            ssrc: self.ssrc,
            ntp: ntp_of(now_ns),
            timestamp: self.timestamp_at(now_ns),
            packets: self.number as u32,
            octets: self.octets,
        }
    }
}

fn track(
    session: u64,
    stream: u8,
    (payload_type, clock_rate): (u8, u32),
    started_ns: u64,
    rng: &mut Rng,
) -> OutgoingTrack {
    OutgoingTrack {
        session,
        stream,
        payload_type,
        clock_rate,
        ssrc: rng.u32(..),
        sequence: rng.u16(..),
        timestamp_first: rng.u32(..),
        started_ns,
        number: 0,
        octets: 0,
    }
}

pub(super) struct VoiceStream {
    pub(super) track: OutgoingTrack,
    pub(super) next_ns: u64,
    pub(super) is_muted: bool,
}

impl VoiceStream {
    pub(super) fn new(session: u64, now_ns: u64, rng: &mut Rng) -> Self {
        let track = track(session, 0, (VOICE_TYPE, VOICE_CLOCK), now_ns, rng);
        // A random phase, so that clients do not send at the same time.
        Self { track, next_ns: now_ns + rng.u64(0..VOICE_EVERY_NS), is_muted: false }
    }

    pub(super) fn packet(&mut self, now_ns: u64, rng: &mut Rng, out: &mut Vec<u8>) -> SentPacket {
        let timestamp = self.track.timestamp_at(self.next_ns);
        let first = self.track.number == 0;
        self.next_ns += VOICE_EVERY_NS;
        let content = if self.is_muted { Content::Silence } else { Content::Voice };
        self.track.packet(timestamp, first, content, rng.usize(VOICE_BYTES), now_ns, out)
    }
}

pub(super) struct VideoStream {
    pub(super) track: OutgoingTrack,
    next_ns: u64,
    /// The current frame: timestamp, content and remaining bytes.
    frame: Option<(u32, Content, usize)>,
    /// The next frame is a key frame.
    pub(super) key_asked: bool,
    /// Limit of the sum of all streams.
    pub(super) cap_bps: Option<u64>,
    shares_with_voice: bool,
    pub(super) frames_per_second: u64,
}

impl VideoStream {
    pub(super) fn new(session: u64, shares_with_voice: bool, now_ns: u64, rng: &mut Rng) -> Self {
        let track = track(session, 1, (VIDEO_TYPE, VIDEO_CLOCK), now_ns, rng);
        let next_ns = now_ns + rng.u64(0..SECOND_NS / FRAMES_PER_SECOND);
        Self {
            track,
            next_ns,
            frame: None,
            key_asked: true,
            cap_bps: None,
            shares_with_voice,
            frames_per_second: FRAMES_PER_SECOND,
        }
    }

    pub(super) fn next_ns(&self) -> u64 {
        if self.frame.is_some() { 0 } else { self.next_ns }
    }

    /// The current rate of RTP packets, in bits per second.
    fn bitrate_bps(&self) -> u64 {
        let voice = if self.shares_with_voice { VOICE_BPS } else { 0 };
        let allowed =
            self.cap_bps.map_or(u64::MAX, |cap| cap.saturating_sub(voice).max(VIDEO_FLOOR_BPS));
        VIDEO_BPS.min(allowed)
    }

    pub(super) fn packet(&mut self, now_ns: u64, rng: &mut Rng, out: &mut Vec<u8>) -> SentPacket {
        let (timestamp, content, left) = match self.frame.take() {
            Some(frame) => frame,
            None => self.next_frame(rng),
        };
        let size = left.min(VIDEO_PACKET_BYTES);
        let rest = left - size;
        if rest > 0 {
            self.frame = Some((timestamp, content, rest));
        }
        self.track.packet(timestamp, rest == 0, content, size, now_ns, out)
    }

    fn next_frame(&mut self, rng: &mut Rng) -> (u32, Content, usize) {
        let timestamp = self.track.timestamp_at(self.next_ns);
        self.next_ns += SECOND_NS / self.frames_per_second;
        let usual = self.bitrate_bps() / 8 / FRAMES_PER_SECOND;
        let content =
            if std::mem::take(&mut self.key_asked) { Content::Key } else { Content::Delta };
        let bytes = match content {
            Content::Key => usual * KEY_FRAME_TIMES,
            Content::Delta | Content::Voice | Content::Silence => usual * rng.u64(80..=120) / 100,
        };
        // RTP headers count towards the rate.
        let packets = bytes.div_ceil(VIDEO_PACKET_BYTES as u64).max(1);
        let payload = bytes.saturating_sub(packets * rtp::HEADER_LEN as u64);
        (timestamp, content, usize::try_from(payload).unwrap_or(PAYLOAD_MIN).max(PAYLOAD_MIN))
    }
}
