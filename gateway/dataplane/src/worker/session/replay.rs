//! Packets that a node swallowed when it died are sent to the next one, before the client's next packet.
//!
//! A node swallows the packets on the way to it when it dies, and those that are sent to it until it is marked down. It is marked down
//! within 40 ms, and a packet takes less than 20 ms to it, so these are among the packets of the last 60 ms, counted from the last one to
//! that node: the time to the client's next packet does not count.
//!
//! Receivers may have got some of them. A node that keeps the numbers of senders delivers them under the same numbers, and continuity
//! drops them as duplicates. So nothing before these 60 ms is sent again, not even video since its last key frame: receivers have it.

use std::time::{Duration, Instant};

use evenkeel_media::continuity::{FILLED_WITHIN, WINDOW};
use evenkeel_media::repair::cache::{CachedPacket, PacketCache};
use evenkeel_media::rtp::{self, sequence_ahead};
use evenkeel_model::{Board, Hop, STREAM_KINDS, StreamKind};

use super::followed::find_or_push;
use crate::worker::repair_memory::{RepairMemory, ReservedMemory};

/// Time before the last packet to a dead node in which it may have swallowed packets, and by which evidence of its death may be late.
const KEPT_FOR: Duration = Duration::from_millis(60);

/// Limit of the memory of a session by kind, two thirds of it for packets: 500 kbit/s of sound, 8 Mbit/s of video. It limits a burst to
/// a node, too.
const MEMORY_MAX: [usize; STREAM_KINDS] = [8 << 10, 96 << 10];

/// Only the last numbers of a stream are sent again. The rest of those that receivers remember is for packets out of order.
const NUMBERS_MAX: i16 = 48;
const _: () = assert!((NUMBERS_MAX as u32) < WINDOW);

/// The next node needs no other key frame of a stream up to this age of the last one.
const KEY_FRAME_YOUNG: Duration = Duration::from_secs(1);

/// Limit of a client's streams of a kind that are followed.
const STREAMS_MAX: usize = 8;

/// The last packets of a client towards its node. No record contains them.
#[derive(Default, Debug)]
pub(super) struct Replay {
    /// The hop that got the last packet.
    hop: Option<Hop>,
    /// The hop before was left as planned then, and delivers the packets before.
    moved_at: Option<Instant>,
    kept_at: Option<Instant>,
    kept: [Option<KeptPackets>; STREAM_KINDS],
    key_frames: Vec<StreamKeyFrame>,
    /// Time of the last replay.
    replayed_at: Option<Instant>,
}

/// The last packets of a kind.
#[derive(Debug)]
struct KeptPackets {
    cache: PacketCache,
    reserved: ReservedMemory,
}

/// The last key frame of a stream.
#[derive(Debug)]
struct StreamKeyFrame {
    ssrc: u32,
    at: Option<Instant>,
}

impl Replay {
    /// Notes that this hop gets the next packet. Returns the time since which it lacks packets, if the hop before died.
    pub(super) fn follow(&mut self, hop: Hop, board: &Board, now: Instant) -> Option<Instant> {
        let before = self.hop.replace(hop).filter(|before| *before != hop)?;
        let Some(died) = board.died(before) else {
            self.moved_at = Some(now);
            return None;
        };
        // Older packets are of no use to a receiver, even if the client paused.
        let is_useful = |at: &Instant| now.saturating_duration_since(*at) <= FILLED_WITHIN;
        let last = self.kept_at.filter(is_useful)?;
        let since = last.max(died).checked_sub(KEPT_FOR)?;
        Some(self.moved_at.map_or(since, |moved| moved.max(since)))
    }

    /// Keeps a packet. Returns false if the memory for repair has no room for more: older packets give way, or none is kept.
    pub(super) fn keep(
        &mut self,
        kind: StreamKind,
        header: &rtp::RtpHeader,
        packet: &[u8],
        memory: &RepairMemory,
        now: Instant,
    ) -> bool {
        let kept = self.kept[kind as usize].get_or_insert_with(|| KeptPackets {
            cache: PacketCache::new(MEMORY_MAX[kind as usize], KEPT_FOR),
            reserved: ReservedMemory::default(),
        });
        let KeptPackets { cache, reserved } = kept;
        let growth = cache.growth(packet.len(), now);
        let fits = growth == 0 || reserved.grow_to(cache.allocated() + growth, memory);
        if !fits {
            cache.set_bytes_max(cache.allocated());
        }
        cache.keep(header.ssrc, header.sequence, packet, now);
        self.kept_at = Some(now);
        fits
    }

    /// Returns the packets of this kind that came since this time, in their order: those that receivers recognise if they got them, since
    /// they are among the last numbers of their stream.
    pub(super) fn since(&self, kind: StreamKind, since: Instant) -> impl Iterator<Item = &[u8]> {
        let kept = self.kept[kind as usize].as_ref();
        let packets = move || kept.into_iter().flat_map(move |kept| kept.cache.since(since));
        let mut highest: Vec<(u32, u16)> = Vec::new();
        for packet in packets() {
            let place = highest.iter().position(|(ssrc, _)| *ssrc == packet.ssrc);
            if let Some(place) = place {
                let (_, number) = &mut highest[place];
                if sequence_ahead(packet.sequence, *number) > 0 {
                    *number = packet.sequence;
                }
            } else if highest.len() < STREAMS_MAX {
                highest.push((packet.ssrc, packet.sequence));
            }
        }
        let is_recognised = move |packet: &CachedPacket<'_>| {
            let stream = highest.iter().find(|(ssrc, _)| *ssrc == packet.ssrc);
            stream.is_some_and(|(_, number)| sequence_ahead(*number, packet.sequence) < NUMBERS_MAX)
        };
        packets().filter(is_recognised).map(|it| it.packet)
    }

    pub(super) fn note_replayed(&mut self, now: Instant) {
        self.replayed_at = Some(now);
    }

    /// No hop got the client's packet.
    pub(super) fn end(&mut self) {
        self.hop = None;
    }

    pub(super) fn note_video(&mut self, ssrc: u32, begins_key_frame: bool, now: Instant) {
        let is_it = |stream: &StreamKeyFrame| stream.ssrc == ssrc;
        let new = || StreamKeyFrame { ssrc, at: None };
        let stream = find_or_push(&mut self.key_frames, STREAMS_MAX, is_it, new);
        if begins_key_frame {
            stream.at = Some(now);
        }
    }

    /// Returns whether a node's death is no reason to ask the client for a key frame: the next node gets, or got, the packets since,
    /// and the last key frame of each stream is young.
    pub(super) fn spares_key_frames(&self, board: &Board, now: Instant) -> bool {
        let within = |at: Option<Instant>, time: Duration| {
            at.is_some_and(|at| now.saturating_duration_since(at) <= time)
        };
        let is_due = self.hop.is_some_and(|hop| board.died(hop).is_some());
        let is_young = |stream: &StreamKeyFrame| within(stream.at, KEY_FRAME_YOUNG);
        let video = self.kept[StreamKind::Video as usize].as_ref();
        (is_due || within(self.replayed_at, FILLED_WITHIN))
            && video.is_some_and(|video| video.cache.allocated() > 0)
            && !self.key_frames.is_empty()
            && self.key_frames.iter().all(is_young)
    }
}
