//! Parity (FlexFEC-03, [`evenkeel_media::repair::flexfec`]) of a client that negotiated it for its video: the client gets parity packets while
//! its path loses packets that retransmission does not repair in time, and lost packets of the client are recovered from parity that it sends.
//!
//! No record contains this state: another process measures the path again.
//!
//! **SRTP.** The parity of a stream has an SSRC and numbers of its own. SRTP counts the indices of this SSRC like those of any other
//! ([`evenkeel_media::srtp`]): they are leased in the same blocks, and are in the copies for other processes. So a process that continues the session
//! begins with the number behind the last index that may have been used, and SRTP refuses an index that was.

use std::mem;
use std::time::{Duration, Instant};

use evenkeel_media::repair::choice::{ParityChoice, VideoPath};
use evenkeel_media::repair::flexfec::{
    FlexfecError, Overhead, ParityPayload, ParityReader, ParityWriter,
};
use evenkeel_media::rtp::{self, RtpHeader};
use evenkeel_model::{DropReason, MediaDescription, StreamKind};

use super::counts::SessionCounts;
use super::followed::FollowedStreams;
use super::measurements::VoiceMeasurements;
use super::srtp::SrtpEnds;
use crate::worker::repair_memory::{RepairMemory, ReservedMemory};

/// Limit of the client's streams with recovery: the layers of simulcast, and a screen.
const SOURCES_MAX: usize = 4;

/// Packets of the client are kept for this time after its last parity packet.
const PARITY_AWAITED: Duration = Duration::from_secs(5);

/// The client's parity, as negotiated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct NegotiatedFec {
    payload_type: u8,
    /// The payload types that it covers, a bit each.
    covered: u128,
    takes_retransmission: bool,
    latency: Duration,
}

impl NegotiatedFec {
    fn of(media: &MediaDescription) -> Option<NegotiatedFec> {
        let video = media.streams.iter().filter(|stream| stream.kind == StreamKind::Video);
        let mut found = video.filter_map(|stream| {
            let types = &stream.payload_types;
            let parity = types.iter().find(|it| it.codec.eq_ignore_ascii_case("flexfec-03"))?;
            let covered = types.iter().filter(|it| !it.is_repair());
            Some(NegotiatedFec {
                payload_type: parity.number,
                covered: covered.fold(0, |bits, it| bits | 1_u128 << (it.number & 0x7f)),
                takes_retransmission: stream.feedback.nack,
                latency: media.latency.duration(),
            })
        });
        found.next().filter(|_| media.srtp.is_readable())
    }

    fn covers(&self, payload_type: u8) -> bool {
        self.covered >> (payload_type & 0x7f) & 1 == 1
    }
}

/// A stream to the client, with the numbers that the client gets.
#[derive(Default, Debug)]
struct CoveredStream {
    /// The number of the next parity packet. `None` before the first one of this process.
    next: Option<u16>,
    /// Present while parity is made. Takes up to 384 KiB.
    parity: Option<StreamParity>,
}

#[derive(Debug)]
struct StreamParity {
    writer: ParityWriter,
    reserved: ReservedMemory,
}

/// A stream of the client that sends parity for it.
#[derive(Debug)]
struct CoveredSource {
    ssrc: u32,
    reader: ParityReader,
    last_parity_at: Instant,
    _reserved: ReservedMemory,
}

/// The forward error correction of one client.
#[derive(Debug)]
pub(super) struct ClientFec {
    negotiated: NegotiatedFec,
    choice: ParityChoice,
    /// `None` while no parity is made.
    overhead: Option<Overhead>,
    streams: FollowedStreams<CoveredStream>,
    sources: Vec<CoveredSource>,
    /// `repair_memory` had no room for a source.
    is_short: bool,
    /// A packet as the client gets it.
    covered: Vec<u8>,
    parity: Vec<u8>,
}

impl ClientFec {
    /// Follows the description of the client's media. The state remains if the parity in it does.
    pub(super) fn follow(fec: &mut Option<Box<ClientFec>>, media: &MediaDescription) {
        let negotiated = NegotiatedFec::of(media);
        if fec.as_deref().map(|it| it.negotiated) == negotiated {
            return;
        }
        *fec = negotiated.map(|negotiated| {
            Box::new(ClientFec {
                negotiated,
                choice: ParityChoice::default(),
                overhead: None,
                streams: FollowedStreams::new(),
                sources: Vec::new(),
                is_short: false,
                covered: Vec::new(),
                parity: Vec::new(),
            })
        });
    }

    /// Chooses the share of parity, and releases what is no longer needed. Called every 100 ms.
    pub(super) fn choose(&mut self, measurements: &VoiceMeasurements, now: Instant) {
        let samples = self
            .streams
            .iter()
            .filter_map(|(ssrc, _)| Some((ssrc, measurements.losses_of(ssrc)?.sample(now)?)));
        let worst = samples.max_by_key(|(_, sample)| sample.ppm);
        let ssrc = worst.map(|(ssrc, _)| ssrc);
        let bursts = ssrc.and_then(|ssrc| measurements.losses_of(ssrc)?.bursts().mean_centi());
        let path = VideoPath {
            loss: worst.map(|(_, sample)| sample),
            left_ppm: ssrc.and_then(|ssrc| Some(measurements.left_of(ssrc, now)?.ppm)),
            burst_x100: bursts.unwrap_or(100) as u32,
            round_trip: measurements.round_trip(now),
            latency: self.negotiated.latency,
            takes_retransmission: self.negotiated.takes_retransmission,
        };
        self.overhead = self.choice.update(&path, now);
        if self.overhead.is_none() {
            self.streams.states_mut().for_each(|stream| stream.parity = None);
        }
        let is_awaited = |at: Instant| now.saturating_duration_since(at) < PARITY_AWAITED;
        self.sources.retain(|source| is_awaited(source.last_parity_at));
    }

    /// Releases the kept packets of a session that is silent.
    pub(super) fn release(&mut self) {
        self.streams.states_mut().for_each(|stream| stream.parity = None);
        self.sources.clear();
    }

    /// Handles a packet to the client; `sent` is its header there. Returns an empty buffer for the packet as the client gets it, if parity is to
    /// cover it.
    pub(super) fn note_sent(
        &mut self,
        sent: &RtpHeader,
        measurements: &mut VoiceMeasurements,
        now: Instant,
    ) -> Option<Vec<u8>> {
        if !self.negotiated.covers(sent.payload_type) {
            return None;
        }
        self.streams.follow(sent.ssrc, now, CoveredStream::default)?;
        measurements.down(Some(sent.ssrc)).losses.note_sent(sent.sequence);
        self.overhead?;
        let mut covered = mem::take(&mut self.covered);
        covered.clear();
        Some(covered)
    }

    /// Keeps a packet as the client gets it, decrypted, for parity. Returns false if memory for it is refused.
    pub(super) fn keep(
        &mut self,
        sent: &RtpHeader,
        packet: Vec<u8>,
        memory: &RepairMemory,
        now: Instant,
    ) -> bool {
        let (overhead, latency) = (self.overhead, self.negotiated.latency);
        let stream = self.streams.get_mut(sent.ssrc);
        let Some((stream, overhead)) = stream.zip(overhead) else { return true };
        let StreamParity { writer, reserved } = stream.parity.get_or_insert_with(|| StreamParity {
            writer: ParityWriter::new(sent.ssrc, latency),
            reserved: ReservedMemory::default(),
        });
        let growth = writer.growth(packet.len(), now);
        let has_memory = growth == 0 || reserved.grow_to(writer.allocated() + growth, memory);
        if !has_memory {
            writer.stop_growth();
        }
        writer.keep(sent, &packet, overhead, now);
        self.covered = packet;
        has_memory
    }

    /// Returns the next parity packet that is due after this packet to the client. `ssrc`: that of the parity.
    pub(super) fn next_parity(
        &mut self,
        sent: &RtpHeader,
        ssrc: u32,
        srtp: &SrtpEnds,
        now: Instant,
    ) -> Option<&[u8]> {
        let stream = self.streams.get_mut(sent.ssrc)?;
        let writer = &mut stream.parity.as_mut()?.writer;
        let sequence = *stream.next.get_or_insert_with(|| srtp.next_number(ssrc));
        let fields = rtp::Fields {
            payload_type: self.negotiated.payload_type,
            marker: false,
            sequence,
            timestamp: sent.timestamp,
            ssrc,
        };
        self.parity.clear();
        rtp::write(&fields, &[], &mut self.parity);
        let is_due = writer.write_next(now, &mut self.parity);
        if is_due {
            stream.next = Some(sequence.wrapping_add(1));
        }
        is_due.then_some(self.parity.as_slice())
    }

    /// Handles a packet of the client. Packets that it helps to recover come from [`next_recovered`](ClientFec::next_recovered). Fails if the packet
    /// itself is not to follow: it was recovered before, or its parity is wrong.
    pub(super) fn receive(
        &mut self,
        header: &RtpHeader,
        packet: &[u8],
        counts: &mut Option<Box<SessionCounts>>,
        memory: &RepairMemory,
        now: Instant,
    ) -> Result<(), DropReason> {
        if self.negotiated.covers(header.payload_type) {
            let mut sources = self.sources.iter_mut();
            let source = sources.find(|source| source.ssrc == header.ssrc);
            let is_new = source.is_none_or(|source| source.reader.receive(header.sequence, packet));
            return if is_new { Ok(()) } else { Err(DropReason::Duplicate) };
        }
        if header.payload_type != self.negotiated.payload_type {
            return Ok(());
        }
        let payload = match ParityPayload::parse(header.payload(packet)) {
            Ok(payload) => payload,
            // A node may have use for it.
            Err(FlexfecError::Form) => return Ok(()),
            Err(_) => return Err(DropReason::Malformed),
        };
        let Some(source) = self.source(&payload, counts, memory, now) else { return Ok(()) };
        source.last_parity_at = now;
        source.reader.receive_parity(&payload).map_err(|_| DropReason::Malformed)
    }

    /// Returns the source that this parity covers. `None` if there are too many, or if memory is refused.
    fn source(
        &mut self,
        parity: &ParityPayload<'_>,
        counts: &mut Option<Box<SessionCounts>>,
        memory: &RepairMemory,
        now: Instant,
    ) -> Option<&mut CoveredSource> {
        let known = self.sources.iter().position(|source| source.ssrc == parity.ssrc);
        if let Some(index) = known {
            return Some(&mut self.sources[index]);
        }
        if self.sources.len() == SOURCES_MAX {
            return None;
        }
        let mut reserved = ReservedMemory::default();
        let was_short = self.is_short;
        self.is_short = !reserved.grow_to(ParityReader::BYTES, memory);
        if self.is_short {
            if !was_short {
                counts.get_or_insert_default().note_cache_refused();
            }
            return None;
        }
        self.sources.push(CoveredSource {
            ssrc: parity.ssrc,
            reader: ParityReader::new(parity.ssrc),
            last_parity_at: now,
            _reserved: reserved,
        });
        self.sources.last_mut()
    }

    /// Returns the next packet of the client that was recovered, as the client sent it. Fails if parity gave none.
    pub(super) fn next_recovered(&mut self) -> Option<Result<&[u8], FlexfecError>> {
        let negotiated = self.negotiated;
        let found = self.sources.iter_mut().find_map(|source| source.reader.recover())?;
        Some(found.and_then(|packet| match RtpHeader::parse(packet) {
            Ok(header) if negotiated.covers(header.payload_type) => Ok(packet),
            _ => Err(FlexfecError::Packet),
        }))
    }
}

/// Returns the SSRC of the parity of a stream, for a client to which none was announced: the same at each process.
pub(super) fn parity_ssrc(seed: u64, ssrc: u32) -> u32 {
    let mixed = (seed ^ u64::from(ssrc)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed ^ mixed >> 32).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32) as u32
}
