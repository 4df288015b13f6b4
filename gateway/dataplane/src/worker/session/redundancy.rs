//! Redundant audio (RFC 2198) of a client that negotiated it: packets to the client repeat earlier frames while its path loses some, and lost
//! frames of the client are found in its later packets. A client that did not negotiate it gets plain packets.
//!
//! No record contains this state: another process measures the path again.

use std::time::{Duration, Instant};

use evenkeel_media::repair::KEPT_MAX;
use evenkeel_media::repair::choice::{PathState, Repair, RepairChoice, has_lbrr};
use evenkeel_media::repair::red::{self, Frame, RedPayload, RedReader, RedWriter};
use evenkeel_media::rtp::{self, RtpHeader};
use evenkeel_media::srtp::OVERHEAD_MAX;
use evenkeel_model::{DropReason, MediaDescription, StreamKind};

use super::followed::{FollowedStreams, find_or_push};
use super::measurements::VoiceMeasurements;

/// Packets with redundancy are no longer than fits any path, encrypted.
const PACKET_BYTES_MAX: usize = 1_200 - OVERHEAD_MAX;

/// Streams of the client that are followed.
const SOURCES_MAX: usize = 4;

/// The interval of frames before it is known (RFC 7587, section 4.2).
const USUAL_FRAME: Duration = Duration::from_millis(20);

/// Opus' own redundancy is in frames of active voice alone; a speaker pauses no longer than this.
const LBRR_KEPT: Duration = Duration::from_secs(5);

/// The client's redundancy, as negotiated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct NegotiatedRed {
    /// The payload type of redundant blocks.
    payload_type: u8,
    /// The payload type of a block.
    of_block: u8,
    clock_rate: u32,
    is_opus: bool,
    takes_retransmission: bool,
    latency: Duration,
}

impl NegotiatedRed {
    fn of(media: &MediaDescription) -> Option<NegotiatedRed> {
        let audio = media.streams.iter().filter(|stream| stream.kind == StreamKind::Audio);
        let mut found = audio.filter_map(|stream| {
            let types = &stream.payload_types;
            let red = types.iter().find(|it| it.is_red() && it.repairs.is_some())?;
            let block = types.iter().find(|it| Some(it.number) == red.repairs && !it.is_red())?;
            Some(NegotiatedRed {
                payload_type: red.number,
                of_block: block.number,
                clock_rate: block.clock_rate,
                is_opus: block.codec.eq_ignore_ascii_case("opus"),
                takes_retransmission: stream.feedback.nack,
                latency: media.latency.duration(),
            })
        });
        found.next().filter(|_| media.srtp.is_readable())
    }
}

/// A stream to the client, with the numbers that the client gets.
#[derive(Debug)]
struct VoiceStream {
    sequence: u16,
    timestamp: u32,
    /// Present while packets repeat frames. Takes 8 KiB.
    writer: Option<RedWriter>,
}

/// A stream from the client.
#[derive(Debug)]
struct VoiceSource {
    ssrc: u32,
    reader: RedReader,
}

/// The redundancy of one client.
#[derive(Debug)]
pub(super) struct Redundancy {
    negotiated: NegotiatedRed,
    choice: RepairChoice,
    repair: Repair,
    /// Time for which the client's jitter buffer holds a packet.
    latency: Duration,
    frame: Duration,
    /// The last packet to the client with Opus' own redundancy.
    lbrr_at: Option<Instant>,
    streams: FollowedStreams<VoiceStream>,
    sources: Vec<VoiceSource>,
    buffer: Vec<u8>,
}

impl Redundancy {
    /// Follows the description of the client's media. The state remains if the redundancy in it does.
    pub(super) fn follow(redundancy: &mut Option<Box<Redundancy>>, media: &MediaDescription) {
        let negotiated = NegotiatedRed::of(media);
        if redundancy.as_deref().map(|it| it.negotiated) == negotiated {
            return;
        }
        *redundancy = negotiated.map(|negotiated| {
            Box::new(Redundancy {
                negotiated,
                choice: RepairChoice::default(),
                repair: Repair::default(),
                latency: negotiated.latency,
                frame: USUAL_FRAME,
                lbrr_at: None,
                streams: FollowedStreams::new(),
                sources: Vec::new(),
                buffer: Vec::new(),
            })
        });
    }

    /// Chooses the repair, and tells the measurements of it. Called every 100 ms.
    pub(super) fn choose(&mut self, measurements: &mut VoiceMeasurements, now: Instant) {
        let losses = self.streams.iter().filter_map(|(ssrc, _)| measurements.losses_of(ssrc));
        let samples = losses.filter_map(|losses| {
            Some((losses.sample(now)?, losses.bursts().mean_centi().unwrap_or(100) as u32))
        });
        let worst = samples.max_by_key(|(sample, _)| sample.ppm);
        let is_recent = |at: Instant| now.saturating_duration_since(at) < LBRR_KEPT;
        // A buffer that adapts waits for the next packet, whatever it holds now.
        let held = measurements.voice_buffer(now).map(|it| it.min(KEPT_MAX).max(2 * self.frame));
        self.latency = held.unwrap_or(self.negotiated.latency);
        let path = PathState {
            loss: worst.map(|(sample, _)| sample),
            burst_x100: worst.map_or(100, |(_, burst)| burst),
            round_trip: measurements.round_trip(now),
            latency: self.latency,
            frame: self.frame,
            takes_retransmission: self.negotiated.takes_retransmission,
            takes_redundancy: true,
            has_lbrr: self.lbrr_at.is_some_and(is_recent),
        };
        self.repair = self.choice.update(&path, now);
        let spacing = match self.repair {
            Repair::Redundancy(spacing) => Some(spacing),
            Repair::Nothing | Repair::Retransmission => None,
        };
        if spacing.is_none() {
            self.streams.states_mut().for_each(|stream| stream.writer = None);
        }
        measurements.note_redundancy(|ssrc| {
            let stream = self.streams.get(ssrc)?;
            spacing.filter(|_| stream.writer.is_some())
        });
    }

    /// Handles a packet to the client; `sent` is its header there. Returns it with earlier frames, if it is to repeat some, in a buffer that
    /// [`reuse`](Redundancy::reuse) takes.
    pub(super) fn wrap(
        &mut self,
        sent: &RtpHeader,
        packet: &[u8],
        measurements: &mut VoiceMeasurements,
        now: Instant,
    ) -> Option<Vec<u8>> {
        let NegotiatedRed { payload_type, of_block, clock_rate, is_opus, .. } = self.negotiated;
        let (sequence, timestamp) = (sent.sequence, sent.timestamp);
        let begin = || VoiceStream { sequence, timestamp, writer: None };
        let stream = self.streams.follow(sent.ssrc, now, begin)?;
        measurements.down(Some(sent.ssrc)).losses.note_sent(sequence);
        if sent.payload_type != of_block {
            return None;
        }
        let data = sent.payload(packet);
        if is_opus && has_lbrr(data) {
            self.lbrr_at = Some(now);
        }
        let ticks = timestamp.wrapping_sub(stream.timestamp);
        let follows = sequence == stream.sequence.wrapping_add(1);
        if follows && (1..=u32::from(red::OFFSET_MAX)).contains(&ticks) && clock_rate > 0 {
            self.frame =
                Duration::from_micros(u64::from(ticks) * 1_000_000 / u64::from(clock_rate));
        }
        (stream.sequence, stream.timestamp) = (sequence, timestamp);
        let Repair::Redundancy(spacing) = self.repair else { return None };
        let writer = stream.writer.get_or_insert_default();
        let frame = Frame { sequence, timestamp, data };
        let reach = self.latency.as_millis() as u32 * (clock_rate / 1_000);
        let mut out = std::mem::take(&mut self.buffer);
        begin_packet(sent, packet, payload_type, &mut out);
        let repeats = writer.write(&frame, of_block, spacing, reach, &mut out);
        writer.keep(&frame);
        if repeats && out.len() <= PACKET_BYTES_MAX {
            return Some(out);
        }
        self.buffer = out;
        None
    }

    /// Takes the buffer of a packet that was sent.
    pub(super) fn reuse(&mut self, buffer: Vec<u8>) {
        self.buffer = buffer;
    }

    /// Handles a packet of the client, and passes on plain packets with the frames of lost ones that it repeats. Fails if the packet itself is
    /// not to follow: its frame passed before, or its blocks cannot be read.
    pub(super) fn find_lost(
        &mut self,
        header: &RtpHeader,
        packet: &[u8],
        mut pass: impl FnMut(&[u8]),
    ) -> Result<(), DropReason> {
        let NegotiatedRed { payload_type, of_block, .. } = self.negotiated;
        let is_red = header.payload_type == payload_type;
        let blocks = is_red.then(|| RedPayload::parse(header.payload(packet)));
        let blocks = blocks.transpose().map_err(|_| DropReason::Malformed)?;
        let is_it = |source: &VoiceSource| source.ssrc == header.ssrc;
        let new = || VoiceSource { ssrc: header.ssrc, reader: RedReader::new(header) };
        let source = find_or_push(&mut self.sources, SOURCES_MAX, is_it, new);
        let (reader, buffer) = (&mut source.reader, &mut self.buffer);
        if !reader.receive(header) {
            return Err(DropReason::Duplicate);
        }
        let Some(blocks) = blocks else { return Ok(()) };
        reader.recover(header, &blocks, of_block, |frame| {
            let fields = rtp::Fields {
                payload_type: of_block,
                marker: false,
                sequence: frame.sequence,
                timestamp: frame.timestamp,
                ssrc: header.ssrc,
            };
            buffer.clear();
            rtp::write(&fields, frame.data, buffer);
            pass(buffer.as_slice());
        });
        Ok(())
    }
}

/// Replaces `out` by the header of a packet, with its CSRCs and extension, without padding, with another payload type.
fn begin_packet(header: &RtpHeader, packet: &[u8], payload_type: u8, out: &mut Vec<u8>) {
    rtp::copy_header(header, packet, out);
    rtp::set_payload_type(out, payload_type);
}

/// Returns the kind of the packets with redundancy that the client may not have negotiated.
pub(super) fn stripped_kind(payload_type: u8) -> Option<StreamKind> {
    (payload_type == red::ROOM_PAYLOAD_TYPE).then_some(StreamKind::Audio)
}

/// Returns the packet's own frame as a packet of its codec, in `out`, for a client that did not negotiate the payload type of the packet. `None`
/// if that is not the room's for redundant blocks, of a payload type that the client did negotiate.
pub(super) fn strip<'a>(
    media: &MediaDescription,
    header: &RtpHeader,
    packet: &[u8],
    out: &'a mut Vec<u8>,
) -> Option<&'a [u8]> {
    if header.payload_type != red::ROOM_PAYLOAD_TYPE || !media.srtp.is_readable() {
        return None;
    }
    let payload = RedPayload::parse(header.payload(packet)).ok()?;
    let own = payload.own();
    let (kind, _) = media.payload_type(own.payload_type)?;
    let is_one = payload.earlier().all(|block| block.payload_type == own.payload_type);
    if !is_one || kind != StreamKind::Audio {
        return None;
    }
    begin_packet(header, packet, own.payload_type, out);
    out.extend_from_slice(own.data);
    Some(out)
}
