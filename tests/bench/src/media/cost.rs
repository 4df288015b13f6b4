//! Processor time and allocations of repair for a packet, without sockets.

use std::hint::black_box;
use std::time::Instant;

use evenkeel_media::repair::cache::PacketCache;
use evenkeel_media::repair::flexfec::{Overhead, ParityWriter};
use evenkeel_media::repair::red::{Frame, RedWriter, Spacing};
use evenkeel_media::rtp::{self, RtpHeader};
use evenkeel_report::{AcceptanceRow, RowLimits};

use super::row::{LATENCY, Medium, ROUND_TRIP, set_figure};
use crate::allocations;
use crate::rounds::median;

/// Packets of a timing.
const BATCH: u32 = 120;
/// Timings of a round, of which the median counts.
const TIMINGS: usize = 201;
pub(super) const ROUNDS: usize = 15;
/// Packets until buffers have their lengths.
const WARM_UP: u32 = 2_000;
/// The limit of the cache of a session.
const CACHE_MAX: usize = 3 << 20;

/// A row, and the work for its next packet.
pub(super) struct CostRow {
    pub(super) id: &'static str,
    work: fn() -> Box<dyn FnMut(u32)>,
}

pub(super) static ROWS: [CostRow; 3] = [
    CostRow { id: "cost.red", work: repeat_frames },
    CostRow { id: "cost.cache", work: keep_packets },
    CostRow { id: "cost.parity", work: make_parity },
];

pub(super) fn measure(row: &CostRow, limits: &RowLimits, round_count: usize) -> AcceptanceRow {
    let mut work = (row.work)();
    let mut numbers = 0..;
    let mut batch = |packets: u32| numbers.by_ref().take(packets as usize).for_each(&mut work);
    batch(WARM_UP);
    let mut timings = Vec::with_capacity(TIMINGS);
    let mut rounds = Vec::with_capacity(round_count);
    let before = allocations::so_far();
    for _ in 0..round_count {
        timings.clear();
        for _ in 0..TIMINGS {
            let began = Instant::now();
            batch(BATCH);
            timings.push(began.elapsed());
        }
        timings.sort_unstable();
        rounds.push(timings[TIMINGS / 2].as_nanos() as f64 / f64::from(BATCH));
    }
    let allocated = allocations::so_far() - before;
    let packets = f64::from(BATCH) * (round_count * TIMINGS) as f64;
    let mut measured = AcceptanceRow::new(row.id);
    set_figure(&mut measured, "ns", median(rounds.iter().copied()), &rounds);
    measured.set_figure("allocations", Some(allocated as f64 / packets));
    ["ns", "allocations"].iter().for_each(|name| measured.limit_by(name, limits, name));
    measured.judge();
    measured
}

/// RED: each packet of voice repeats two earlier frames, and is kept.
fn repeat_frames() -> Box<dyn FnMut(u32)> {
    let (mut writer, mut out) = (RedWriter::default(), Vec::with_capacity(rtp::HEADER_LEN));
    let (spacing, ticks) = (Spacing { frames: 2, span: 5 }, Medium::Voice.ticks_per_frame());
    let data = vec![0x5a; Medium::Voice.payload_length()];
    Box::new(move |number: u32| {
        let (sequence, timestamp) = (number as u16, number.wrapping_mul(ticks));
        let frame = Frame { sequence, timestamp, data: black_box(data.as_slice()) };
        out.clear();
        let reach = u32::from(spacing.span) * ticks;
        let payload_type = Medium::Voice.payload_type();
        black_box(writer.write(&frame, payload_type, spacing, reach, &mut out));
        writer.keep(&frame);
    })
}

/// The cache for retransmission: each packet of video is kept.
fn keep_packets() -> Box<dyn FnMut(u32)> {
    let mut cache = PacketCache::new(CACHE_MAX, LATENCY + ROUND_TRIP);
    let mut video = VideoPackets::new();
    Box::new(move |number: u32| {
        let now = video.advance(number);
        black_box(cache.growth(video.packet.len(), now));
        cache.keep(VideoPackets::SSRC, number as u16, black_box(video.packet.as_slice()), now);
    })
}

/// Parity of a third: each packet of video is kept and covered.
fn make_parity() -> Box<dyn FnMut(u32)> {
    let mut writer = ParityWriter::new(VideoPackets::SSRC, LATENCY);
    let (mut video, mut out) = (VideoPackets::new(), Vec::new());
    Box::new(move |number: u32| {
        let now = video.advance(number);
        let header = RtpHeader::parse(&video.packet).expect("a packet has a header");
        black_box(writer.growth(video.packet.len(), now));
        writer.keep(&header, black_box(video.packet.as_slice()), Overhead::Third, now);
        out.clear();
        while writer.write_next(now, &mut out) {
            black_box(&out);
            out.clear();
        }
    })
}

/// The packets of a stream of video, one at a time.
struct VideoPackets {
    begins: Instant,
    packet: Vec<u8>,
}

impl VideoPackets {
    const SSRC: u32 = 7;

    fn new() -> VideoPackets {
        let fields = rtp::Fields {
            payload_type: Medium::Video.payload_type(),
            marker: false,
            sequence: 0,
            timestamp: 0,
            ssrc: VideoPackets::SSRC,
        };
        let mut packet = Vec::new();
        rtp::write(&fields, &vec![0x5a; Medium::Video.payload_length()], &mut packet);
        VideoPackets { begins: Instant::now(), packet }
    }

    /// Makes the packet with this number. Returns its time.
    fn advance(&mut self, number: u32) -> Instant {
        let per_frame = Medium::Video.packets_per_frame() as u32;
        let frame = number / per_frame;
        let marker = u8::from(number % per_frame == per_frame - 1) << 7;
        self.packet[1] = marker | Medium::Video.payload_type();
        self.packet[2..4].copy_from_slice(&(number as u16).to_be_bytes());
        let timestamp = frame.wrapping_mul(Medium::Video.ticks_per_frame());
        self.packet[4..8].copy_from_slice(&timestamp.to_be_bytes());
        self.begins + Medium::Video.since_first(frame as usize)
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_report::LimitTable;

    use super::*;

    #[test]
    fn packets_of_video_end_their_frames() {
        let mut video = VideoPackets::new();
        let times = [11, 12].map(|number| {
            let at = video.advance(number);
            let header = RtpHeader::parse(&video.packet).unwrap();
            (at, header.marker, header.sequence, header.timestamp)
        });
        assert_eq!((times[0].1, times[0].2, times[0].3), (true, 11, 0));
        assert_eq!((times[1].1, times[1].2, times[1].3), (false, 12, 3_000));
        assert_eq!(times[1].0 - times[0].0, Medium::Video.since_first(1));
    }

    #[test]
    fn cost_has_time_and_allocations() {
        let ids = super::super::ids();
        let limits = LimitTable::load().unwrap().rows_of("media", &ids).unwrap();
        for row in &ROWS {
            let measured = measure(row, &limits.of(row.id), 1);
            assert!(measured.figure("ns").is_some_and(|ns| ns > 0.0), "{}", row.id);
            assert!(measured.figure("allocations").is_some() && measured.held.is_some());
        }
    }
}
