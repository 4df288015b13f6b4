//! Policing of a client that sends more than the scenario's ceiling, or than the cap in force.
//!
//! It is told of the ceiling by REMB or TMMBR as of a cap. If it goes on for two seconds, frames of its video are dropped before the node:
//! while bytes are owed, frames to which no other refers, and frames of the higher temporal layers; if they are not enough, all frames
//! until a key frame. The numbers of the packets that pass follow one another, so that neither node nor receivers miss any, and NACKs of
//! the node get the client's numbers. Voice is dropped only beyond twice the ceiling.
//!
//! No record contains this state: another process measures the rate anew, and passes the client's numbers.

use std::mem;
use std::time::{Duration, Instant};

use evenkeel_media::policing::{LeftOutNumbers, RateBudget, RateExcess, SenderRate};
use evenkeel_media::rtcp::rewrite;
use evenkeel_media::rtp::{self, RtpHeader, sequence_ahead};
use evenkeel_media::{frames, key_frame, retransmission};
use evenkeel_model::{
    MediaDescription, MediaLimits, PayloadType, Policing, PolicingStep, RepairKind, StreamKind,
    lower_cap,
};

use super::followed::place_or_push;
use super::thinning::{KEY_FRAMES_ALONE, NO_FRAMES, Thinning};

/// Streams of one client that are followed.
const STREAMS_MAX: usize = 16;

/// A lower cap counts as this one: Opus with headers takes about 50 kbit/s, and encoders of video need 30 or more.
const CAP_MIN_KBPS: u32 = 128;

/// The rate that voice may have whatever the ceiling: that of G.711 with headers.
const VOICE_NEED_KBPS: u32 = 80;

/// Debt from which frames of the base layer alone pass.
const BASE_LAYER_FROM: Duration = Duration::from_millis(200);

/// Debt from which no frame passes before it is paid: more than a key frame costs.
const NO_FRAMES_FROM: Duration = Duration::from_secs(1);

/// Bytes of the client, and the time in which they came.
#[derive(Clone, Copy, Debug)]
pub(super) struct SentBytes {
    pub(super) bytes: u64,
    pub(super) elapsed: Duration,
}

impl SentBytes {
    fn kbps(self) -> u32 {
        // Bits per millisecond are kilobits per second.
        let kbps = self.bytes * 8 / self.elapsed.as_millis().max(1) as u64;
        u32::try_from(kbps).unwrap_or(u32::MAX)
    }
}

/// Packets of a stream of the client that a node asks for, by the client's numbers.
#[derive(Debug)]
pub(super) struct StreamRequest {
    pub(super) ssrc: u32,
    pub(super) numbers: Vec<u16>,
}

/// The policing of one client.
#[derive(Debug)]
pub(super) struct SenderPolicing {
    rate: SenderRate,
    /// The rate of its voice beside twice the ceiling.
    voice_rate: SenderRate,
    /// The bytes of all media, and of voice, that may pass to nodes.
    budget: RateBudget,
    voice_budget: RateBudget,
    /// Since the last update.
    voice_bytes: u64,
    limits: MediaLimits,
    takes_caps: bool,
    /// The limit, as the client is told of it, is one of its video.
    limits_video: bool,
    /// Its frames are not encrypted.
    is_readable: bool,
    /// Video of a codec that the gateway reads has come, and other video.
    reads_video: bool,
    has_unknown_codec: bool,
    /// A key frame was requested since frames wait for one.
    is_asked: bool,
    thinning: Thinning,
    streams: Vec<PolicedStream>,
    buffer: Vec<u8>,
}

/// A stream of the client.
#[derive(Debug)]
struct PolicedStream {
    ssrc: u32,
    numbers: LeftOutNumbers,
    /// The timestamp of the highest number, if that was left out.
    left_out: Option<u32>,
    /// Frames were dropped to which later ones refer.
    awaits_key_frame: bool,
    is_vp8: bool,
}

/// The highest rate of the client's media, in kbit/s.
fn limit_kbps(limits: &MediaLimits) -> u32 {
    let cap = limits.send_kbps;
    let cap = if cap > 0 { cap.max(CAP_MIN_KBPS) } else { 0 };
    match lower_cap(limits.ceiling_kbps, cap) {
        0 => u32::MAX,
        kbps => kbps,
    }
}

fn voice_kbps(limits: &MediaLimits) -> u32 {
    match limits.ceiling_kbps {
        0 => u32::MAX,
        ceiling => ceiling.saturating_mul(2).max(VOICE_NEED_KBPS),
    }
}

impl SenderPolicing {
    fn new(limits: MediaLimits, now: Instant) -> SenderPolicing {
        let (limit_kbps, voice_kbps) = (limit_kbps(&limits), voice_kbps(&limits));
        SenderPolicing {
            rate: SenderRate::new(limit_kbps, now),
            voice_rate: SenderRate::new(voice_kbps, now),
            budget: RateBudget::new(limit_kbps, now),
            voice_budget: RateBudget::new(voice_kbps, now),
            voice_bytes: 0,
            limits,
            takes_caps: false,
            limits_video: false,
            is_readable: false,
            reads_video: false,
            has_unknown_codec: false,
            is_asked: false,
            thinning: Thinning::default(),
            streams: Vec::new(),
            buffer: Vec::new(),
        }
    }

    /// Compares the rate of the client since the last call with its limit. The state is made with the first excess, and ends when that is over
    /// unless packets were left out: numbers go on then. `sent` excludes repairs, most of which the gateway asked for, up to
    /// half of all bytes.
    pub(super) fn follow(
        policing: &mut Option<Box<SenderPolicing>>,
        sent: SentBytes,
        limits: MediaLimits,
        media: &MediaDescription,
        now: Instant,
    ) {
        if policing.is_none() && sent.kbps() <= limit_kbps(&limits) {
            return;
        }
        let new = || Box::new(SenderPolicing::new(limits, now));
        let followed = policing.get_or_insert_with(new);
        followed.update(sent, limits, media, now);
        if followed.rate.is_settled(now) && followed.is_unchanged() {
            *policing = None;
        }
    }

    fn update(
        &mut self,
        sent: SentBytes,
        limits: MediaLimits,
        media: &MediaDescription,
        now: Instant,
    ) {
        self.limits = limits;
        self.takes_caps = media.takes_caps();
        // TMMBR names streams (RFC 5104, 3.5.4), and the gateway those of video.
        self.limits_video = self.takes_caps && !media.takes_remb();
        self.is_readable = media.srtp.is_readable();
        let voice = SentBytes { bytes: mem::take(&mut self.voice_bytes), ..sent };
        let counted = match self.limits_video {
            true => sent.kbps().saturating_sub(voice.kbps()),
            false => sent.kbps(),
        };
        let (limit_kbps, voice_kbps) = (limit_kbps(&limits), voice_kbps(&limits));
        self.rate.update(counted, limit_kbps, now);
        self.voice_rate.update(voice.kbps(), voice_kbps, now);
        self.budget.set_rate(limit_kbps);
        self.voice_budget.set_rate(voice_kbps);
    }

    /// The client is to be told of the ceiling.
    pub(super) fn tells_ceiling(&self) -> bool {
        self.takes_caps && self.rate.excess() != RateExcess::None
    }

    fn drops(&self) -> bool {
        self.is_readable && self.rate.excess() == RateExcess::Lasting
    }

    fn drops_voice(&self) -> bool {
        self.drops() && self.voice_rate.excess() == RateExcess::Lasting
    }

    fn is_unchanged(&self) -> bool {
        self.streams.iter().all(|stream| stream.numbers.is_unchanged())
    }

    /// The policing of now; `None` while the client sends no more than it may, or follows another cap.
    pub(super) fn standing(&self) -> Option<Policing> {
        let limit_kbps = self.rate.limit_kbps();
        let exceeds_ceiling = limit_kbps == self.limits.ceiling_kbps;
        let step = match self.rate.excess() {
            RateExcess::None => return None,
            _ if !self.is_readable => PolicingStep::Encrypted,
            RateExcess::Lasting if self.drops_voice() => PolicingStep::Voice,
            RateExcess::Lasting if self.reads_video => PolicingStep::Frames,
            RateExcess::Lasting if self.has_unknown_codec => PolicingStep::UnknownCodec,
            _ if self.takes_caps && exceeds_ceiling => PolicingStep::Told,
            _ => return None,
        };
        Some(Policing { step, limit_kbps, sent_kbps: self.rate.sent_kbps() })
    }

    /// Returns whether a key frame of the client is to be requested: frames wait for one, and it would pass.
    pub(super) fn wants_key_frame(&mut self, now: Instant) -> bool {
        self.budget.refill(now);
        !self.is_asked
            && self.budget.debt().is_zero()
            && self.streams.iter().any(|stream| stream.awaits_key_frame)
    }

    pub(super) fn note_key_frame_request(&mut self) {
        self.is_asked = true;
    }

    /// Decides about a packet of the client. Returns it as nodes get it; `None` if it is dropped.
    pub(super) fn admit<'a>(
        &'a mut self,
        kind: StreamKind,
        payload: &PayloadType,
        header: &RtpHeader,
        packet: &'a [u8],
        now: Instant,
    ) -> Option<&'a [u8]> {
        if !self.is_readable {
            return Some(packet);
        }
        self.budget.refill(now);
        self.voice_budget.refill(now);
        let spends = self.drops() && (kind == StreamKind::Video || !self.limits_video);
        if let Some(repair) = payload.repair() {
            let is_owed = spends && self.budget.debt() >= NO_FRAMES_FROM;
            if spends && !is_owed {
                self.budget.spend(packet.len());
            }
            return match repair {
                RepairKind::Retransmission if is_owed => None,
                RepairKind::Retransmission => self.repeat(header, packet),
                RepairKind::Fec => self.admit_parity(header, is_owed).then_some(packet),
            };
        }
        let (place, drops_voice) = (self.place(header), self.drops_voice());
        let (passes, withheld) = match kind {
            StreamKind::Audio => {
                self.voice_bytes += packet.len() as u64;
                (!drops_voice || self.voice_budget.debt().is_zero(), 0)
            }
            StreamKind::Video => self.decide(place, payload, header, packet),
        };
        let PolicedStream { numbers, left_out, is_vp8, .. } = &mut self.streams[place];
        let is_newest = sequence_ahead(header.sequence, numbers.highest()) > 0;
        if !passes {
            numbers.leave_out(header.sequence, *left_out == Some(header.timestamp));
            if is_newest {
                *left_out = Some(header.timestamp);
            }
            return None;
        }
        let sequence = numbers.pass(header.sequence)?;
        if is_newest {
            *left_out = None;
        }
        if drops_voice && kind == StreamKind::Audio {
            self.voice_budget.spend(packet.len());
        }
        if spends {
            self.budget.spend(packet.len());
        }
        if sequence == header.sequence && withheld == 0 {
            return Some(packet);
        }
        self.buffer.clear();
        self.buffer.extend_from_slice(packet);
        rtp::set_sequence(&mut self.buffer, sequence);
        if *is_vp8 {
            let payload = self.buffer.get_mut(header.payload_offset..header.payload_end);
            frames::lower_picture_number(payload.unwrap_or_default(), withheld);
        }
        Some(&self.buffer)
    }

    /// Decides about a packet of video. Returns whether it passes, and the frames that were dropped before.
    fn decide(
        &mut self,
        place: usize,
        payload: &PayloadType,
        header: &RtpHeader,
        packet: &[u8],
    ) -> (bool, u16) {
        let codec = &payload.codec;
        let begins_key_frame = key_frame::begins_key_frame(codec, header.payload(packet));
        if begins_key_frame.is_none() {
            self.has_unknown_codec = true;
            return (true, 0);
        }
        self.reads_video = true;
        let (drops, debt) = (self.drops(), self.budget.debt());
        let stream = &mut self.streams[place];
        stream.is_vp8 = codec.eq_ignore_ascii_case("vp8");
        if !drops && !stream.awaits_key_frame && stream.numbers.is_unchanged() {
            return (true, 0);
        }
        if drops && debt >= NO_FRAMES_FROM && !stream.awaits_key_frame {
            (stream.awaits_key_frame, self.is_asked) = (true, false);
        }
        let level = match stream.awaits_key_frame {
            true if debt.is_zero() => KEY_FRAMES_ALONE,
            true => NO_FRAMES,
            false if !drops || debt.is_zero() => 0,
            false if debt < BASE_LAYER_FROM => 1,
            false => 2,
        };
        self.thinning.set_level(level);
        let frame = self.thinning.decide(codec, header, packet);
        match (begins_key_frame, frame.passes) {
            (Some(true), true) => stream.awaits_key_frame = false,
            // Another one is needed once the debt is paid.
            (Some(true), false) => self.is_asked = false,
            _ => {}
        }
        (frame.passes, frame.withheld)
    }

    /// Gives a retransmission of the client the number of the packet that it contains. A retransmission of a dropped packet is dropped.
    fn repeat<'a>(&'a mut self, header: &RtpHeader, packet: &'a [u8]) -> Option<&'a [u8]> {
        let streams = self.streams.iter().map(|stream| (stream, stream.numbers.highest()));
        let Some(lost) = retransmission::original_sequence(header, packet) else {
            return Some(packet);
        };
        let Some(stream) = retransmission::repaired(lost, streams) else { return Some(packet) };
        if stream.numbers.is_unchanged() {
            return Some(packet);
        }
        let sequence = stream.numbers.passed(lost)?;
        self.buffer.clear();
        self.buffer.extend_from_slice(packet);
        retransmission::set_original_sequence(header, &mut self.buffer, sequence);
        if stream.is_vp8 {
            let frame = self.thinning.decided(stream.ssrc, header.timestamp)?;
            let payload = self.buffer.get_mut(header.payload_offset..header.payload_end);
            let original = payload.and_then(|payload| payload.get_mut(2..));
            frames::lower_picture_number(original.unwrap_or_default(), frame.withheld);
        }
        Some(&self.buffer)
    }

    /// Returns whether parity passes: it covers the client's numbers, which packets no longer have once some were left out. `is_owed`: nothing
    /// passes before the debt is paid.
    fn admit_parity(&mut self, header: &RtpHeader, is_owed: bool) -> bool {
        let passes = !is_owed && self.is_unchanged();
        // ULPFEC has numbers of the media.
        let stream = self.streams.iter_mut().find(|stream| stream.ssrc == header.ssrc);
        match stream {
            Some(stream) if passes => _ = stream.numbers.pass(header.sequence),
            Some(stream) => stream.numbers.leave_out(header.sequence, false),
            None => {}
        }
        passes
    }

    /// Returns the client's number of a packet that a node got; `None` if that is not remembered any more.
    pub(super) fn of_sender(&self, ssrc: u32, passed: u16) -> Option<u16> {
        let stream = self.streams.iter().find(|stream| stream.ssrc == ssrc);
        stream.map_or(Some(passed), |stream| stream.numbers.of_sender(passed))
    }

    /// Takes the requests for packets of streams with other numbers out of a node's compound packet. Returns its length, 0 if nothing is left.
    pub(super) fn take_requests(&self, compound: &mut [u8]) -> (usize, Vec<StreamRequest>) {
        let mut requests: Vec<StreamRequest> = Vec::new();
        let length = rewrite::retain_requested(compound, |ssrc, number| {
            let is_changed = |it: &PolicedStream| it.ssrc == ssrc && !it.numbers.is_unchanged();
            if !self.streams.iter().any(is_changed) {
                return true;
            }
            if let Some(number) = self.of_sender(ssrc, number) {
                match requests.iter_mut().find(|request| request.ssrc == ssrc) {
                    Some(request) => request.numbers.push(number),
                    None => requests.push(StreamRequest { ssrc, numbers: vec![number] }),
                }
            }
            false
        });
        (length, requests)
    }

    /// Returns the place of the packet's stream.
    fn place(&mut self, header: &RtpHeader) -> usize {
        let is_it = |stream: &PolicedStream| stream.ssrc == header.ssrc;
        let new = || PolicedStream {
            ssrc: header.ssrc,
            numbers: LeftOutNumbers::new(header.sequence),
            left_out: None,
            awaits_key_frame: false,
            is_vp8: false,
        };
        place_or_push(&mut self.streams, STREAMS_MAX, is_it, new)
    }
}
