//! What is measured of a session, smoothed: the numbers that policies and people read. What is not measured any more is
//! not told any more.

use std::time::{Duration, Instant};

use evenkeel_core::{Measures, Metric};
use evenkeel_media::statistics::Reception;
use evenkeel_media::{quality, rtcp, rtp};

/// Sources of one client that are followed; its oldest gives way.
const SOURCES_MAX: usize = 8;

/// What is counted here, or by QUIC, every 100 ms takes so long to be believed; a sample that comes later than that after
/// the one before is taken as it is.
const FOLLOWS_IN: Duration = Duration::from_millis(800);

/// What a receiver reports takes so long: a report tells of a second or more at once, and the few packets that a node's
/// death costs are no bad network.
const REPORTS_FOLLOW_IN: Duration = Duration::from_secs(3);

/// What the client sends says nothing any more when nothing was expected for so long: it is muted, or gone.
const UP_KEPT: Duration = Duration::from_secs(2);

/// What its receiver said says nothing any more after three reports that did not come (RFC 3550, 6.2: every 5 s).
const DOWN_KEPT: Duration = Duration::from_secs(15);

/// A sender report is remembered for the round trip as long as answers to it may come.
const REPORT_KEPT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Measure {
    voice: Option<quality::Codec>,
    sources: Vec<(u32, Reception)>,
    last_heard: Option<Instant>,
    loss_up_ppm: Smoothed,
    jitter_up_us: u64,
    down: Vec<Down>,
    rtt_us: Option<(u32, Instant)>,
    /// The middle of the last sender report's NTP time, and when it went to the client.
    reported: Option<(u32, Instant)>,
    bytes_up: u64,
    bytes_down: u64,
    lost_up: u64,
    /// When the interval began; its first packet says so where nobody did.
    since: Option<Instant>,
}

/// How what the client is sent arrives: of one stream, as its receiver reports, or of all, as QUIC sees.
#[derive(Debug)]
struct Down {
    ssrc: Option<u32>,
    loss_ppm: Smoothed,
    jitter_us: Option<u64>,
}

/// Follows what it is shown, by the time between two samples.
#[derive(Clone, Copy, Default, Debug)]
struct Smoothed(Option<(i64, Instant)>);

impl Smoothed {
    fn show(&mut self, sample: i64, follows_in: Duration, now: Instant) {
        let whole = follows_in.as_millis() as i64;
        let value = self.0.map_or(sample, |(value, at)| {
            let part = now.saturating_duration_since(at).min(follows_in).as_millis() as i64;
            value + (sample - value) * part / whole
        });
        self.0 = Some((value, now));
    }

    /// Its value, if a sample was shown within that time.
    fn fresh(&self, kept: Duration, now: Instant) -> Option<u64> {
        let (value, at) = self.0?;
        let is_fresh = now.saturating_duration_since(at) < kept;
        is_fresh.then_some(value.max(0).cast_unsigned())
    }
}

impl Measure {
    /// `voice` is the codec of the client's voice; `None` where it has none.
    pub(crate) fn new(voice: Option<quality::Codec>) -> Measure {
        Measure {
            voice,
            sources: Vec::new(),
            last_heard: None,
            loss_up_ppm: Smoothed::default(),
            jitter_up_us: 0,
            down: Vec::new(),
            rtt_us: None,
            reported: None,
            bytes_up: 0,
            bytes_down: 0,
            lost_up: 0,
            since: None,
        }
    }

    /// The interval that is under way begins now: there was nothing to count in what went before.
    pub(crate) fn begin_interval(&mut self, now: Instant) {
        self.since = Some(now);
    }

    /// Whether the next interval would say what the last one did, if nothing comes meanwhile.
    pub(crate) fn is_quiet(&self, now: Instant) -> bool {
        let is_kept = |at: Instant| now.saturating_duration_since(at) < DOWN_KEPT;
        self.bytes_up + self.bytes_down == 0
            && self.loss_up_ppm.fresh(UP_KEPT, now).is_none()
            && self.down.iter().all(|down| down.loss_ppm.fresh(DOWN_KEPT, now).is_none())
            && !self.rtt_us.is_some_and(|(_, at)| is_kept(at))
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

    /// The client's reports say how what it is sent arrives (RFC 3550, 6.4.1). `clock_rate` is that of a stream of that
    /// name, in Hz.
    pub(crate) fn read_reports(
        &mut self,
        compound: &[u8],
        clock_rate: impl Fn(u32) -> Option<u32>,
        now: Instant,
    ) {
        for packet in rtcp::packets(compound) {
            match packet {
                Ok(rtcp::Packet::SenderReport(report)) => {
                    report
                        .blocks()
                        .for_each(|block| self.read_block(&block, clock_rate(block.ssrc), now));
                }
                Ok(rtcp::Packet::ReceiverReport(report)) => {
                    report
                        .blocks()
                        .for_each(|block| self.read_block(&block, clock_rate(block.ssrc), now));
                }
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }

    fn read_block(&mut self, block: &rtcp::ReportBlock, clock_rate: Option<u32>, now: Instant) {
        let jitter = u64::from(block.jitter) * 1_000_000;
        let down = self.down(Some(block.ssrc));
        let loss = i64::from(block.fraction_lost) * 1_000_000 / 256;
        down.loss_ppm.show(loss, REPORTS_FOLLOW_IN, now);
        down.jitter_us = clock_rate.and_then(|rate| jitter.checked_div(rate.into()));
        let Some((middle, at)) = self.reported else {
            return;
        };
        if block.last_sr == middle && middle != 0 {
            let held =
                Duration::from_micros(u64::from(block.delay_since_last_sr) * 1_000_000 / 65_536);
            let trip = now.saturating_duration_since(at).saturating_sub(held);
            self.rtt_us = u32::try_from(trip.as_micros()).ok().map(|us| (us, now));
        }
    }

    fn down(&mut self, ssrc: Option<u32>) -> &mut Down {
        let place = self.down.iter().position(|down| down.ssrc == ssrc).unwrap_or_else(|| {
            if self.down.len() == SOURCES_MAX {
                self.down.remove(0);
            }
            self.down.push(Down { ssrc, loss_ppm: Smoothed::default(), jitter_us: None });
            self.down.len() - 1
        });
        &mut self.down[place]
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
    pub(crate) fn quic_path(&mut self, rtt_us: u32, lost: u32, sent: u32, now: Instant) {
        self.rtt_us = Some((rtt_us, now));
        if let Some(loss) = (i64::from(lost.min(sent)) * 1_000_000).checked_div(sent.into()) {
            self.down(None).loss_ppm.show(loss, FOLLOWS_IN, now);
        }
    }

    /// Closes an interval, of about 100 ms: the numbers of it, smoothed. Of several streams down the worst counts.
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
            self.loss_up_ppm.show(loss as i64, FOLLOWS_IN, now);
            self.jitter_up_us = jitter;
        }
        let since = self.since.replace(now).unwrap_or(now);
        let elapsed = now.saturating_duration_since(since).as_millis().max(1) as u64;
        let mut measures = Measures::default();
        // Bits per millisecond are kilobits per second.
        measures.set(Metric::BitrateUp, std::mem::take(&mut self.bytes_up) * 8 / elapsed);
        measures.set(Metric::BitrateDown, std::mem::take(&mut self.bytes_down) * 8 / elapsed);
        let mut set = |metric, value: Option<u64>| {
            if let Some(value) = value {
                measures.set(metric, value);
            }
        };
        let loss_up = self.loss_up_ppm.fresh(UP_KEPT, now);
        let fresh = |down: &Down| Some((down.loss_ppm.fresh(DOWN_KEPT, now)?, down.jitter_us));
        let down = || self.down.iter().filter_map(fresh);
        let loss_down = down().map(|(loss, _)| loss).max();
        let is_kept = |at: Instant| now.saturating_duration_since(at) < DOWN_KEPT;
        let rtt = self.rtt_us.filter(|(_, at)| is_kept(*at)).map(|(us, _)| us);
        set(Metric::LossUp, loss_up);
        set(Metric::LossDown, loss_down);
        set(Metric::JitterUp, loss_up.map(|_| self.jitter_up_us));
        set(Metric::JitterDown, down().filter_map(|(_, jitter)| jitter).max());
        set(Metric::RttClient, rtt.map(u64::from));
        let rate = |(codec, loss): (quality::Codec, u64)| {
            let one_way = Duration::from_micros(u64::from(rtt.unwrap_or(0)) / 2);
            quality::r_factor(one_way, loss as u32, codec).into()
        };
        set(Metric::RFactor, self.voice.zip(loss_up.max(loss_down)).map(rate));
        measures
    }
}

#[cfg(test)]
mod tests;
