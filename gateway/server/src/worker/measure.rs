//! What is measured of a session, per 100 ms and smoothed: the numbers that policies and people read.

use std::time::{Duration, Instant};

use evenkeel_core::{Measures, Metric};
use evenkeel_media::statistics::Reception;
use evenkeel_media::{quality, rtcp, rtp};

/// Sources of one client that are followed; its oldest gives way.
const SOURCES_MAX: usize = 8;

/// A value moves by one part in this many per 100 ms: about a second to follow.
const SMOOTHING: i64 = 8;

/// A sender report is remembered for the round trip as long as answers to it may come.
const REPORT_KEPT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Measure {
    sources: Vec<(u32, Reception)>,
    last_heard: Option<Instant>,
    loss_up_ppm: Smoothed,
    loss_down_ppm: Smoothed,
    jitter_up_us: Option<u64>,
    jitter_down_us: Option<u32>,
    rtt_us: Option<u32>,
    /// The middle of the last sender report's NTP time, and when it went to the client.
    reported: Option<(u32, Instant)>,
    bytes_up: u64,
    bytes_down: u64,
    lost_up: u64,
    since: Instant,
    clock_rate: u32,
}

/// Follows what it is shown within about a second.
#[derive(Clone, Copy, Default, Debug)]
struct Smoothed(Option<i64>);

impl Smoothed {
    fn show(&mut self, sample: i64) {
        self.0 = Some(match self.0 {
            None => sample,
            Some(value) => value + (sample - value) / SMOOTHING,
        });
    }
}

impl Measure {
    pub(crate) fn new(now: Instant) -> Measure {
        Measure {
            sources: Vec::new(),
            last_heard: None,
            loss_up_ppm: Smoothed::default(),
            loss_down_ppm: Smoothed::default(),
            jitter_up_us: None,
            jitter_down_us: None,
            rtt_us: None,
            reported: None,
            bytes_up: 0,
            bytes_down: 0,
            lost_up: 0,
            since: now,
            clock_rate: 0,
        }
    }

    /// Something came from the client.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.last_heard = Some(now);
    }

    pub(crate) fn last_heard(&self) -> Option<Instant> {
        self.last_heard
    }

    pub(crate) fn lost_up(&self) -> u64 {
        self.lost_up
    }

    /// An RTP packet of the client's.
    pub(crate) fn received(
        &mut self,
        header: &rtp::Header,
        length: usize,
        clock_rate: u32,
        now: Instant,
    ) {
        self.last_heard = Some(now);
        self.bytes_up += length as u64;
        self.clock_rate = clock_rate;
        let place = match self.sources.iter().position(|(ssrc, _)| *ssrc == header.ssrc) {
            Some(place) => place,
            None => {
                if self.sources.len() == SOURCES_MAX {
                    self.sources.remove(0);
                }
                self.sources.push((header.ssrc, Reception::new(clock_rate)));
                self.sources.len() - 1
            }
        };
        self.sources[place].1.receive(header, length, now);
    }

    /// An RTP packet to the client.
    pub(crate) fn sent(&mut self, length: usize) {
        self.bytes_down += length as u64;
    }

    /// The client's reports say how what it is sent arrives (RFC 3550, 6.4.1).
    pub(crate) fn read_reports(&mut self, compound: &[u8], now: Instant) {
        for packet in rtcp::packets(compound) {
            match packet {
                Ok(rtcp::Packet::SenderReport(report)) => {
                    report.blocks().for_each(|block| self.read_block(&block, now));
                }
                Ok(rtcp::Packet::ReceiverReport(report)) => {
                    report.blocks().for_each(|block| self.read_block(&block, now));
                }
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }

    fn read_block(&mut self, block: &rtcp::ReportBlock, now: Instant) {
        self.loss_down_ppm.show(i64::from(block.fraction_lost) * 1_000_000 / 256);
        if self.clock_rate > 0 {
            let jitter = u64::from(block.jitter) * 1_000_000 / u64::from(self.clock_rate);
            self.jitter_down_us = u32::try_from(jitter).ok();
        }
        let Some((middle, at)) = self.reported else {
            return;
        };
        if block.last_sr == middle && middle != 0 {
            let held =
                Duration::from_micros(u64::from(block.delay_since_last_sr) * 1_000_000 / 65_536);
            let trip = now.saturating_duration_since(at).saturating_sub(held);
            self.rtt_us = u32::try_from(trip.as_micros()).ok();
        }
    }

    /// A sender report goes to the client: its answer will tell the round trip.
    pub(crate) fn note_sender_report(&mut self, compound: &[u8], now: Instant) {
        if self.reported.is_some_and(|(_, at)| now.saturating_duration_since(at) >= REPORT_KEPT) {
            self.reported = None;
        }
        for packet in rtcp::packets(compound).map_while(Result::ok) {
            if let rtcp::Packet::SenderReport(report) = packet {
                self.reported = Some(((report.info.ntp >> 16) as u32, now));
            }
        }
    }

    /// What QUIC knows of the path: its round trip, and packets sent and lost since it was told last.
    pub(crate) fn quic_path(&mut self, rtt_us: u32, lost: u32, sent: u32) {
        self.rtt_us = Some(rtt_us);
        if sent > 0 {
            self.loss_down_ppm.show(i64::from(lost.min(sent)) * 1_000_000 / i64::from(sent));
        }
    }

    /// Closes an interval: the numbers of it, smoothed.
    pub(crate) fn interval(&mut self, now: Instant) -> Measures {
        let (mut expected, mut lost, mut jitter) = (0, 0, 0);
        for (_, reception) in &mut self.sources {
            let interval = reception.interval();
            expected += interval.expected;
            lost += interval.lost;
            jitter = jitter.max(reception.jitter_us());
        }
        self.lost_up += lost;
        if let Some(loss) = (lost * 1_000_000).checked_div(expected) {
            self.loss_up_ppm.show(loss as i64);
            self.jitter_up_us = Some(jitter);
        }
        let elapsed = now.saturating_duration_since(self.since).as_millis().max(1) as u64;
        self.since = now;
        let mut measures = Measures::default();
        // Bits per millisecond are kilobits per second.
        measures.set(Metric::BitrateUp, std::mem::take(&mut self.bytes_up) * 8 / elapsed);
        measures.set(Metric::BitrateDown, std::mem::take(&mut self.bytes_down) * 8 / elapsed);
        let mut set = |metric, value: Option<i64>| {
            if let Some(value) = value {
                measures.set(metric, value.max(0) as u64);
            }
        };
        set(Metric::LossUp, self.loss_up_ppm.0);
        set(Metric::LossDown, self.loss_down_ppm.0);
        set(Metric::JitterUp, self.jitter_up_us.map(|us| us as i64));
        set(Metric::JitterDown, self.jitter_down_us.map(i64::from));
        set(Metric::RttClient, self.rtt_us.map(i64::from));
        let worst = self.loss_up_ppm.0.max(self.loss_down_ppm.0);
        if let Some(loss) = worst {
            let one_way = Duration::from_micros(u64::from(self.rtt_us.unwrap_or(0)) / 2);
            set(
                Metric::RFactor,
                Some(i64::from(quality::r_factor(
                    one_way,
                    loss.max(0) as u32,
                    quality::Codec::Opus,
                ))),
            );
        }
        measures
    }
}
