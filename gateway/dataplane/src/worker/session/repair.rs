//! Retransmission between the gateway and a client that declared `nack` (RFC 4585, section 6.2.1).
//!
//! **To the client**, packets are kept as they were sent, and a NACK is answered with the same bytes. SRTP that ends here is kept
//! encrypted: an index is used once, also for the same packet ([`evenkeel_media::srtp`]). A receiver drops a second copy as a
//! replay. Packets that are sent again in a stream of their own ([`super::rtx`]) are kept as they were before encryption. Numbers are those
//! that the client sees, so that a change of the hop does not matter. The node gets the rest of the NACK.
//!
//! **From the client**, the gateway asks for missing packets itself, and removes them from NACKs of nodes. A packet that was asked for
//! passes to the node under its own number. There is no timer: requests are made when a packet of the client comes, each 20 ms in
//! voice and more often in video, and every 100 ms.

use std::time::{Duration, Instant};

use evenkeel_media::repair::answers::{Answers, LastSecond};
use evenkeel_media::repair::cache::{CachedPacket, PacketCache};
use evenkeel_media::repair::missing::MissingPackets;
use evenkeel_media::repair::{KEPT_MAX, PathTiming};
use evenkeel_media::rtcp::rewrite;
use evenkeel_media::rtp;
use evenkeel_media::srtp;
use evenkeel_model::{MediaDescription, PayloadType, RepairKind, StreamKind};

use super::counts::SessionCounts;
use super::measurements::VoiceMeasurements;
use crate::worker::repair_memory::{RepairMemory, ReservedMemory};

/// Limit of the cache of a session: a second at 16 Mbit/s.
const CACHE_MAX: usize = 3 << 20;

/// Limit of streams to one client that are kept.
const STREAMS_MAX: usize = 16;

/// Limit of numbers per second for which a client's NACKs are looked up and passed to nodes. A client that loses a tenth of 4,000
/// packets/s asks for 400, a few times each.
const REQUESTED_MAX: u64 = 4_096;

/// The round trip before it is measured.
const ROUND_TRIP_UNKNOWN: Duration = Duration::from_millis(50);

/// A shorter round trip leaves out the time in which the client looks for missing packets.
const ROUND_TRIP_MIN: Duration = Duration::from_millis(10);

/// Retransmission between the gateway and one client. No record contains it: an upgrade and a takeover lose it.
#[derive(Debug)]
pub(super) struct ClientRepair {
    /// The payload types, by the room's numbers, that are kept and asked for.
    audio: u128,
    video: u128,
    latency: Duration,
    cache: PacketCache,
    reserved: ReservedMemory,
    /// `repair_memory` had no room for more.
    is_short: bool,
    streams: Vec<KeptStream>,
    /// Numbers in NACKs of the client.
    requested: LastSecond,
    pub(super) missing: MissingPackets,
}

/// A stream to the client.
#[derive(Debug)]
pub(super) struct KeptStream {
    ssrc: u32,
    pub(super) kind: StreamKind,
    pub(super) form: KeptForm,
    answers: Answers,
}

/// The form in which packets are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum KeptForm {
    /// The bytes that the client got, which are sent again.
    Sent,
    /// The packet before encryption, which is sent again in a stream of its own.
    Plain,
}

/// Returns the payload types of streams of this kind that are repaired by NACK, a bit each.
fn repaired(media: &MediaDescription, kind: StreamKind) -> u128 {
    // Retransmissions and FlexFEC have an SSRC of their own, for which no receiver asks. ULPFEC has numbers of the media.
    let has_media_ssrc = |payload: &&PayloadType| match payload.repair() {
        None => true,
        Some(RepairKind::Retransmission) => false,
        Some(RepairKind::Fec) => payload.codec.eq_ignore_ascii_case("ulpfec"),
    };
    let streams = media.streams.iter().filter(|it| it.kind == kind && it.feedback.nack);
    let payload_types = streams.flat_map(|stream| &stream.payload_types).filter(has_media_ssrc);
    payload_types.fold(0, |bits, payload| bits | 1_u128 << (payload.number & 0x7f))
}

impl ClientRepair {
    /// `None` if the client declared `nack` for no stream, or if its RTCP cannot be read.
    pub(super) fn of(media: &MediaDescription) -> Option<Box<ClientRepair>> {
        let [audio, video] = [StreamKind::Audio, StreamKind::Video].map(|it| repaired(media, it));
        let is_declared = (audio | video) != 0 && media.srtp.is_readable();
        is_declared.then(|| {
            let latency = media.latency.duration();
            let (round_trip, is_measured) = (ROUND_TRIP_UNKNOWN, false);
            let timing = PathTiming { round_trip, is_measured, latency };
            Box::new(ClientRepair {
                audio,
                video,
                latency,
                cache: PacketCache::new(CACHE_MAX, timing.kept_for()),
                reserved: ReservedMemory::default(),
                is_short: false,
                streams: Vec::new(),
                requested: LastSecond::default(),
                missing: MissingPackets::default(),
            })
        })
    }

    /// Follows a later description of the same client.
    pub(super) fn follow(repair: &mut Option<Box<ClientRepair>>, media: &MediaDescription) {
        let new = ClientRepair::of(media);
        if let (Some(repair), Some(new)) = (repair.as_deref_mut(), &new) {
            (repair.audio, repair.video, repair.latency) = (new.audio, new.video, new.latency);
            return;
        }
        *repair = new;
    }

    pub(super) fn timing(&self, measurements: &VoiceMeasurements, now: Instant) -> PathTiming {
        let measured = measurements.round_trip(now);
        PathTiming {
            round_trip: measured.unwrap_or(ROUND_TRIP_UNKNOWN).max(ROUND_TRIP_MIN),
            is_measured: measured.is_some(),
            latency: self.latency,
        }
    }

    /// Returns the kind of the stream if its packets are kept and asked for.
    #[inline]
    pub(super) fn kind(&self, payload_type: u8) -> Option<StreamKind> {
        let is_in = |bits: u128| bits >> (payload_type & 0x7f) & 1 == 1;
        match (is_in(self.audio), is_in(self.video)) {
            (true, _) => Some(StreamKind::Audio),
            (_, true) => Some(StreamKind::Video),
            (false, false) => None,
        }
    }

    /// Returns the kind of a packet to the client that is to be kept, with the room's numbers, and reserves memory for it.
    #[inline(never)]
    pub(super) fn prepare(
        &mut self,
        packet: &[u8],
        counts: &mut Option<Box<SessionCounts>>,
        memory: &RepairMemory,
        now: Instant,
    ) -> Option<StreamKind> {
        let kind = self.kind(*packet.get(1)?)?;
        let growth = self.cache.growth(packet.len() + srtp::OVERHEAD_MAX, now);
        if growth > 0 {
            let was_short = self.is_short;
            self.is_short = !self.reserved.grow_to(self.cache.allocated() + growth, memory);
            if self.is_short {
                // Older packets give way instead, until the next tick.
                self.cache.set_bytes_max(self.cache.allocated());
                if !was_short {
                    counts.get_or_insert_default().note_cache_refused();
                }
            }
        }
        Some(kind)
    }

    /// Keeps a packet to the client, in this form. Memory for it was reserved by [`ClientRepair::prepare`].
    #[inline(never)]
    pub(super) fn keep(&mut self, kind: StreamKind, form: KeptForm, sent: &[u8], now: Instant) {
        let Some((ssrc, sequence)) = rtp::ssrc_and_sequence(sent) else { return };
        let place = self.streams.iter().position(|stream| stream.ssrc == ssrc);
        let place = place.unwrap_or_else(|| {
            if self.streams.len() == STREAMS_MAX && self.streams.remove(0).form == KeptForm::Plain {
                // No packet in this form is taken for one that was encrypted, should the stream return in another form.
                self.cache.clear();
            }
            self.streams.push(KeptStream { ssrc, kind, form, answers: Answers::default() });
            self.streams.len() - 1
        });
        let stream = &mut self.streams[place];
        if stream.form != form {
            // A later offer changed it.
            stream.form = form;
            self.cache.clear();
        }
        stream.answers.note_sent(sent.len(), now);
        self.cache.keep(ssrc, sequence, sent, now);
    }

    /// Answers the NACKs of a compound packet, and removes the numbers that were in the cache. A number that is not sent again, since
    /// it was within the last round trip or exceeds the limit of its stream, is removed too: the client repeats its request. Returns
    /// the length of the compound packet; 0 if it has no content any more.
    pub(super) fn answer(
        &mut self,
        compound: &mut [u8],
        timing: PathTiming,
        now: Instant,
        mut send: impl FnMut(&KeptStream, &CachedPacket<'_>, u32),
        mut refuse: impl FnMut(),
    ) -> usize {
        let before = self.requested.sum(now);
        let mut numbers = 0_u32;
        let length = rewrite::retain_requested(compound, |ssrc, sequence| {
            numbers += 1;
            if before + u64::from(numbers) > REQUESTED_MAX {
                return false;
            }
            let stream = self.streams.iter_mut().find(|stream| stream.ssrc == ssrc);
            let Some((stream, packet)) = stream.zip(self.cache.find(ssrc, sequence, now)) else {
                return true;
            };
            let copies = stream.answers.copies(&packet, timing, now);
            if copies > 0 {
                send(stream, &packet, copies);
                self.cache.note_answered(ssrc, sequence, now);
            }
            false
        });
        if before + u64::from(numbers) > REQUESTED_MAX {
            refuse();
        }
        self.requested.add(numbers, now);
        length
    }

    /// Returns the kept packet with these numbers.
    pub(super) fn find(&self, ssrc: u32, sequence: u16, now: Instant) -> Option<CachedPacket<'_>> {
        self.cache.find(ssrc, sequence, now)
    }

    /// Redundancy in a later packet of the client had the frame of this one.
    pub(super) fn note_recovered(&mut self, ssrc: u32, sequence: u16) {
        self.missing.note_recovered(ssrc, sequence);
    }

    /// Runs every 100 ms.
    pub(super) fn tick(&mut self, timing: PathTiming, now: Instant) {
        self.cache.set_kept_for(timing.kept_for());
        self.cache.set_bytes_max(CACHE_MAX);
        let is_recent = |at: Instant| now.saturating_duration_since(at) <= KEPT_MAX;
        if !self.cache.last_at().is_some_and(is_recent) {
            self.cache = PacketCache::new(CACHE_MAX, timing.kept_for());
            self.reserved = ReservedMemory::default();
        }
    }

    /// Returns whether the session is to be visited every 100 ms: packets are kept, or missing.
    pub(super) fn is_active(&self, now: Instant) -> bool {
        self.cache.allocated() > 0 || self.missing.awaits_packets(now)
    }
}
