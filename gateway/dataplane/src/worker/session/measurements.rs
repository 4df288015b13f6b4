//! Measurements of a session for its summaries: of the client's reception and sending, of packets between client and node, and signs
//! of impaired media. A value whose measurements have stopped is not reported.

use std::time::{Duration, Instant};

use evenkeel_instant as instant;
use evenkeel_media::loss::{Bursts, IntervalLoss, StreamLoss};
use evenkeel_media::quality::HeardLoss;
use evenkeel_media::repair::red::Spacing;
use evenkeel_media::rtcp::xr::ExtendedBlock;
use evenkeel_media::rtp::{self, ArrivalJitter, Receptions, RtpHeader};
use evenkeel_media::{key_frame, quality, rtcp};
use evenkeel_model::{FlowCounts, Hop, Measures, Metric, PayloadType, STREAM_KINDS, StreamKind};
use serde::{Deserialize, Serialize};

use crate::ring::PathReport;

/// Sequence numbers below the highest that count as recent: a second of 4,000 packets/s.
pub(super) const RECENT_MAX: u16 = 4_000;

/// Smoothing time of values measured every 100 ms, here or by QUIC. A sample after a longer gap is used unsmoothed.
const FOLLOWS_IN: Duration = Duration::from_millis(800);

/// Smoothing time of receiver reports, each of which covers a second or more. The few packets lost when a node dies
/// must not look like a bad network.
const REPORTS_FOLLOW_IN: Duration = Duration::from_secs(3);

/// Lifetime of uplink values without expected packets: the client is muted or gone.
const UP_KEPT: Duration = Duration::from_secs(2);

/// Lifetime of downlink values: three missed reports (RFC 3550, 6.2: every 5 s).
const DOWN_KEPT: Duration = Duration::from_secs(15);

/// Limit of followed streams to the client: the active speakers of a conference with their video.
const DOWN_MAX: usize = 16;

/// Time for which a report may still answer a sender report, for the round-trip time.
const REPORT_KEPT: Duration = Duration::from_secs(10);

/// A receiver without a key frame repeats its request within this time; otherwise it needs none any more.
const REPEATED_WITHIN: Duration = Duration::from_secs(2);

#[derive(Clone, Default, Serialize, Deserialize, Debug)]
pub(crate) struct VoiceMeasurements {
    pub(super) voice: Option<quality::Codec>,
    pub(super) sources: Receptions,
    #[serde(with = "instant::option")]
    pub(super) last_heard: Option<Instant>,
    /// Loss before repair.
    loss_up_ppm: Smoothed,
    jitter_up_us: u64,
    pub(super) down: Vec<Down>,
    #[serde(with = "instant::paired")]
    rtt_us: Option<(u32, Instant)>,
    /// The middle 32 bits of the last sender report's NTP timestamp, and the time it was sent.
    #[serde(with = "instant::paired")]
    reported: Option<(u32, Instant)>,
    pub(super) bytes_up: u64,
    pub(super) bytes_down: u64,
    pub(super) lost_up: u64,
    /// Start of the interval; by default the first call of `interval`.
    #[serde(with = "instant::option")]
    pub(super) since: Option<Instant>,
    /// The highest jitter of voice from the client in the last interval, and the round trip if it was measured in it.
    #[serde(default)]
    pub(super) jitter_voice_us: Option<u32>,
    #[serde(default)]
    pub(super) round_trip_us: Option<u32>,
    /// Loss after repair.
    #[serde(default)]
    left_up_ppm: Smoothed,
    /// Lost packets that were filled since the last packet was expected.
    #[serde(default)]
    filled_up: u64,
    #[serde(default)]
    bursts_up: Bursts,
    /// The middle 32 bits of the last reference time that the client got (RFC 3611, section 4.4), and the time it was sent.
    #[serde(default, with = "instant::paired")]
    reference: Option<(u32, Instant)>,
    /// Time for which the client's jitter buffer holds voice, by its metrics of VoIP, in ms.
    #[serde(default, with = "instant::paired")]
    buffer_ms: Option<(u16, Instant)>,
}

/// Reception by the client: one stream's receiver reports, or the connection as measured by QUIC.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub(super) struct Down {
    ssrc: Option<u32>,
    /// Loss before repair.
    loss_ppm: Smoothed,
    jitter_us: Option<u64>,
    /// Loss after repair.
    #[serde(default)]
    left_ppm: Smoothed,
    #[serde(default)]
    pub(super) losses: StreamLoss,
    /// Loss before the path.
    #[serde(default)]
    before_ppm: Smoothed,
    /// The earlier frames that packets of the stream repeat.
    #[serde(skip)]
    redundancy: Option<Spacing>,
}

impl Down {
    fn new(ssrc: Option<u32>) -> Down {
        Down {
            ssrc,
            loss_ppm: Smoothed::default(),
            left_ppm: Smoothed::default(),
            jitter_us: None,
            losses: StreamLoss::default(),
            before_ppm: Smoothed::default(),
            redundancy: None,
        }
    }

    /// Returns a copy of the part that a record contains.
    pub(super) fn recorded(&self) -> Down {
        let Down { ssrc, loss_ppm, jitter_us, left_ppm, before_ppm, .. } = *self;
        let losses = self.losses.recorded();
        Down { ssrc, loss_ppm, jitter_us, left_ppm, losses, before_ppm, redundancy: None }
    }

    /// Shows the loss of an interval that ends now. Of two reports at one time the first one counts.
    fn show(&mut self, loss: IntervalLoss, now: Instant) {
        self.loss_ppm.show(loss.before_repair, REPORTS_FOLLOW_IN, now);
        self.left_ppm.show(loss.after_repair, REPORTS_FOLLOW_IN, now);
        self.before_ppm.show(loss.before_path, REPORTS_FOLLOW_IN, now);
    }

    /// The loss before repair; `None` without a recent report.
    fn loss(&self, now: Instant) -> Option<u64> {
        self.loss_ppm.fresh(DOWN_KEPT, now)
    }

    /// The loss of the path after repair. Reports count a lost packet as lost although a later one repeats its frame.
    fn left(&self, now: Instant) -> Option<HeardLoss> {
        let (loss, bursts) = (self.loss(now)? as u32, self.losses.bursts());
        let burst = bursts.mean_centi().map(|centi| centi as f64 / 100.0);
        let share_left = |spacing: Spacing| spacing.share_left(f64::from(loss) / 1e6, burst);
        let left = self.left_ppm.fresh(DOWN_KEPT, now)? as f64;
        let ppm = left * self.redundancy.map_or(1.0, share_left);
        Some(HeardLoss { ppm: ppm as u32, burst_ratio: bursts.ratio(loss) })
    }

    /// The loss that the client hears: that of its path after repair, and that before it.
    fn heard(&self, now: Instant) -> Option<HeardLoss> {
        let left = self.left(now)?;
        let before = self.before_ppm.fresh(DOWN_KEPT, now).unwrap_or(0) as u32;
        Some(HeardLoss { ppm: left.ppm + before, ..left })
    }
}

/// Exponential smoothing over irregular samples.
#[derive(Clone, Copy, Default, Serialize, Deserialize, Debug)]
struct Smoothed(#[serde(with = "instant::paired")] Option<(i64, Instant)>);

impl Smoothed {
    fn show(&mut self, sample: i64, follows_in: Duration, now: Instant) {
        let whole = follows_in.as_millis() as i64;
        let value = self.0.map_or(sample, |(value, at)| {
            let part = now.saturating_duration_since(at).min(follows_in).as_millis() as i64;
            value + (sample - value) * part / whole
        });
        self.0 = Some((value, now));
    }

    /// Returns the value, unless its last sample is older than `kept`.
    fn fresh(&self, kept: Duration, now: Instant) -> Option<u64> {
        let (value, at) = self.0?;
        let is_fresh = now.saturating_duration_since(at) < kept;
        is_fresh.then_some(value.max(0).cast_unsigned())
    }
}

impl VoiceMeasurements {
    /// `voice` is the codec of the client's audio stream, if any.
    pub(crate) fn new(voice: Option<quality::Codec>) -> VoiceMeasurements {
        VoiceMeasurements { voice, ..VoiceMeasurements::default() }
    }

    /// Returns whether the next interval would equal the last one if no packet arrived.
    pub(crate) fn is_quiet(&self, now: Instant) -> bool {
        let is_kept = |at: Instant| now.saturating_duration_since(at) < DOWN_KEPT;
        self.bytes_up + self.bytes_down == 0
            && self.loss_up_ppm.fresh(UP_KEPT, now).is_none()
            && self.down.iter().all(|down| down.loss_ppm.fresh(DOWN_KEPT, now).is_none())
            && !self.rtt_us.is_some_and(|(_, at)| is_kept(at))
    }

    /// The round trip to the client, unless it was last measured too long ago.
    pub(super) fn round_trip(&self, now: Instant) -> Option<Duration> {
        let is_kept = |at: Instant| now.saturating_duration_since(at) < DOWN_KEPT;
        let (us, _) = self.rtt_us.filter(|(_, at)| is_kept(*at))?;
        Some(Duration::from_micros(us.into()))
    }

    /// Returns whether the client sent RTP with these numbers lately.
    pub(crate) fn is_recent(&self, ssrc: u32, sequence: u16) -> bool {
        self.sources.is_recent(ssrc, sequence, RECENT_MAX)
    }

    /// Reads the client's receiver reports (RFC 3550, 6.4.1) and NACKs (RFC 4585, 6.2.1). `clock_rate` returns the clock rate of an
    /// SSRC in Hz, `unsent` the numbers up to the highest one of a report that were not sent, modulo 2^32. Returns the highest loss before
    /// repair that these reports tell of, ppm.
    pub(crate) fn read_reports(
        &mut self,
        compound: &[u8],
        clock_rate: impl Fn(u32) -> Option<u32>,
        unsent: impl Fn(&rtcp::ReportBlock) -> u32,
        now: Instant,
    ) -> Option<u32> {
        let mut highest = None;
        // Exact counts first: they are about the interval of the report beside them.
        for packet in rtcp::packets(compound).map_while(Result::ok) {
            if let rtcp::RtcpPacket::Extended(report) = packet {
                report.blocks().for_each(|block| self.read_after_repair(block));
                report.blocks().for_each(|block| self.read_extended(block, &unsent, now));
            }
        }
        for packet in rtcp::packets(compound).map_while(Result::ok) {
            if let rtcp::RtcpPacket::Nack(nack) = packet {
                self.down(Some(nack.media)).losses.note_missing(nack.missing(), now);
            }
            for block in packet.blocks() {
                let lost = self.read_block(&block, clock_rate(block.ssrc), unsent(&block), now);
                highest = highest.max(Some(lost));
            }
        }
        highest
    }

    fn read_block(
        &mut self,
        block: &rtcp::ReportBlock,
        clock_rate: Option<u32>,
        unsent: u32,
        now: Instant,
    ) -> u32 {
        let jitter = u64::from(block.jitter) * 1_000_000;
        let down = self.down(Some(block.ssrc));
        let loss = down.losses.read(block, unsent, now);
        down.show(loss, now);
        down.jitter_us = clock_rate.and_then(|rate| jitter.checked_div(rate.into()));
        let lost_ppm = u32::try_from(loss.before_repair).unwrap_or(0);
        let sent = self.reported.filter(|(middle, _)| *middle == block.last_sr);
        self.read_answer(sent, block.delay_since_last_sr, now);
        lost_ppm
    }

    /// Reads the client's answer to a time that was sent to it. `delay`: the time for which the client held it, in 1/65,536 s.
    fn read_answer(&mut self, sent: Option<(u32, Instant)>, delay: u32, now: Instant) {
        let Some((_, at)) = sent.filter(|(middle, _)| *middle != 0) else { return };
        let held = Duration::from_micros(u64::from(delay) * 1_000_000 / 65_536);
        let trip = now.saturating_duration_since(at).saturating_sub(held);
        self.rtt_us = u32::try_from(trip.as_micros()).ok().map(|us| (us, now));
    }

    /// Reads which packets the client has after repair. The repair by redundancy is computed instead.
    fn read_after_repair(&mut self, block: ExtendedBlock<'_>) {
        if let ExtendedBlock::LossRunsAfterRepair(runs) = block {
            let down = self.down(Some(runs.ssrc));
            if down.redundancy.is_none() {
                down.losses.read_runs_after_repair(&runs);
            }
        }
    }

    /// Reads a block of the client's extended report (RFC 3611). `unsent` is that of [`Self::read_reports`].
    fn read_extended(
        &mut self,
        block: ExtendedBlock<'_>,
        unsent: &impl Fn(&rtcp::ReportBlock) -> u32,
        now: Instant,
    ) {
        let unsent_before = |ssrc, end: u16| {
            let sequence_max = end.wrapping_sub(1).into();
            unsent(&rtcp::ReportBlock { ssrc, sequence_max, ..rtcp::ReportBlock::default() })
        };
        match block {
            ExtendedBlock::LossRuns(runs) => {
                let unsent = unsent_before(runs.ssrc, runs.end);
                let down = self.down(Some(runs.ssrc));
                if let Some(loss) = down.losses.read_runs(&runs, unsent, now) {
                    down.show(loss, now);
                }
            }
            ExtendedBlock::Statistics(summary) => {
                let unsent = unsent_before(summary.ssrc, summary.end);
                let down = self.down(Some(summary.ssrc));
                if let Some(loss) = down.losses.read_statistics(&summary, unsent, now) {
                    down.show(loss, now);
                }
            }
            ExtendedBlock::Voip(metrics) => {
                self.down(Some(metrics.ssrc)).losses.read_voip(&metrics);
                self.buffer_ms = Some((metrics.buffer_ms, now)).filter(|(ms, _)| *ms > 0);
            }
            ExtendedBlock::LastReferences(answers) => {
                for answer in answers.entries() {
                    let sent = self.reference.filter(|(middle, _)| *middle == answer.reference);
                    self.read_answer(sent, answer.delay, now);
                }
            }
            ExtendedBlock::LossRunsAfterRepair(_)
            | ExtendedBlock::ReferenceTime(_)
            | ExtendedBlock::Other => {}
        }
    }

    /// The time for which the client's jitter buffer holds voice, unless the client told it too long ago.
    pub(super) fn voice_buffer(&self, now: Instant) -> Option<Duration> {
        let is_kept = |at: Instant| now.saturating_duration_since(at) < DOWN_KEPT;
        let (ms, _) = self.buffer_ms.filter(|(_, at)| is_kept(*at))?;
        Some(Duration::from_millis(ms.into()))
    }

    /// The losses of the stream with this SSRC to the client.
    pub(super) fn losses_of(&self, ssrc: u32) -> Option<&StreamLoss> {
        self.down.iter().find(|down| down.ssrc == Some(ssrc)).map(|down| &down.losses)
    }

    /// The loss after repair of the stream with this SSRC to the client, or of its QUIC connection.
    pub(super) fn left_of(&self, ssrc: u32, now: Instant) -> Option<HeardLoss> {
        let of = |ssrc: Option<u32>| {
            self.down.iter().find(|down| down.ssrc == ssrc).and_then(|down| down.left(now))
        };
        of(Some(ssrc)).or_else(|| of(None))
    }

    /// Returns whether the present node asked the client for an answer to this reference time.
    pub(super) fn has_sent_reference(&self, reference: u32) -> bool {
        self.reference.is_some_and(|(middle, _)| middle == reference)
    }

    /// The client hears another hop from now on.
    pub(super) fn forget_hop(&mut self) {
        self.reference = None;
    }

    /// Notes the earlier frames that packets of each stream repeat from now on, by its SSRC.
    pub(super) fn note_redundancy(&mut self, spacing: impl Fn(u32) -> Option<Spacing>) {
        for down in &mut self.down {
            down.redundancy = down.ssrc.and_then(&spacing);
        }
    }

    /// The client's reception of the stream with this SSRC, or of the QUIC connection.
    pub(super) fn down(&mut self, ssrc: Option<u32>) -> &mut Down {
        let place = self.down.iter().position(|down| down.ssrc == ssrc).unwrap_or_else(|| {
            if self.down.len() == DOWN_MAX {
                let is_idle = |down: &Down| !down.losses.notes_packets();
                self.down.remove(self.down.iter().position(is_idle).unwrap_or(0));
            }
            self.down.push(Down::new(ssrc));
            self.down.len() - 1
        });
        &mut self.down[place]
    }

    /// Notes a sender report, or a reference time (RFC 3611, section 4.4), to the client. The client's answer gives the round-trip time.
    pub(crate) fn note_sender_report(&mut self, compound: &[u8], now: Instant) {
        if self.reported.is_some_and(|(_, at)| now.saturating_duration_since(at) >= REPORT_KEPT) {
            self.reported = None;
        }
        for packet in rtcp::packets(compound).map_while(Result::ok) {
            let middle = |ntp: u64| (ntp >> 16) as u32;
            match packet {
                rtcp::RtcpPacket::SenderReport(report) => {
                    self.reported = Some((middle(report.info.ntp), now));
                }
                rtcp::RtcpPacket::Extended(report) => {
                    for block in report.blocks() {
                        if let ExtendedBlock::ReferenceTime(ntp) = block {
                            self.reference = Some((middle(ntp), now));
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// Notes the state of the path as measured by QUIC.
    pub(crate) fn quic_path(&mut self, path: PathReport, now: Instant) {
        let PathReport { rtt_us, lost, sent } = path;
        self.rtt_us = Some((rtt_us, now));
        if let Some(loss) = (i64::from(lost.min(sent)) * 1_000_000).checked_div(sent.into()) {
            let down = self.down(None);
            down.loss_ppm.show(loss, FOLLOWS_IN, now);
            down.left_ppm.show(loss, FOLLOWS_IN, now);
        }
    }

    /// Ends an interval of about 100 ms and returns its smoothed values. For several streams to the client, the values
    /// of the worst one are returned.
    pub(crate) fn interval(&mut self, now: Instant) -> Measures {
        let (mut expected, mut lost, mut jitter, mut of_voice) = (0, 0, 0, None);
        for reception in self.sources.iter_mut() {
            let interval = reception.interval();
            expected += interval.expected;
            lost += interval.lost;
            self.filled_up += interval.filled();
            self.bursts_up.add(interval.lost, interval.bursts);
            jitter = jitter.max(reception.jitter_us());
            if interval.expected > 0 && !reception.is_video() {
                of_voice = of_voice.max(Some(reception.jitter_us()));
            }
        }
        self.jitter_voice_us = of_voice.map(|us| us.try_into().unwrap_or(u32::MAX));
        self.lost_up += lost;
        if let Some(loss) = (lost * 1_000_000).checked_div(expected) {
            self.loss_up_ppm.show(loss as i64, FOLLOWS_IN, now);
            let filled = std::mem::take(&mut self.filled_up) * 1_000_000 / expected;
            self.left_up_ppm.show(loss as i64 - filled as i64, FOLLOWS_IN, now);
            self.jitter_up_us = jitter;
        }
        let since = self.since.replace(now).unwrap_or(now);
        let is_new = |(_, at): &(u32, Instant)| *at > since;
        self.round_trip_us = self.rtt_us.filter(is_new).map(|(us, _)| us);
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
        let is_fresh = |down: &&Down| down.loss(now).is_some();
        let down = || self.down.iter().filter(is_fresh);
        let is_lossy = |down: &&Down| down.loss(now) > Some(0);
        let bursts_down = down().filter(is_lossy).map(|down| down.losses.bursts());
        let bursts_up = Some(self.bursts_up).filter(|_| loss_up > Some(0));
        let heard_up = loss_up.zip(self.left_up_ppm.fresh(UP_KEPT, now)).map(|(loss, left)| {
            HeardLoss { ppm: left as u32, burst_ratio: self.bursts_up.ratio(loss as u32) }
        });
        let heard_down = down().filter_map(|down| down.heard(now)).max_by_key(|heard| heard.ppm);
        let is_kept = |at: Instant| now.saturating_duration_since(at) < DOWN_KEPT;
        let rtt = self.rtt_us.filter(|(_, at)| is_kept(*at)).map(|(us, _)| us);
        set(Metric::LossUp, loss_up);
        set(Metric::LossDown, down().filter_map(|down| down.loss(now)).max());
        set(Metric::LossUpAfterRepair, heard_up.map(|heard| heard.ppm.into()));
        let left_down = down().filter_map(|down| down.left(now)).map(|left| left.ppm).max();
        set(Metric::LossDownAfterRepair, left_down.map(u64::from));
        set(Metric::LossHeard, heard_down.map(|heard| heard.ppm.into()));
        set(Metric::BurstUp, bursts_up.and_then(|bursts| bursts.mean_centi()));
        set(Metric::BurstDown, bursts_down.filter_map(|bursts| bursts.mean_centi()).max());
        set(Metric::JitterUp, loss_up.map(|_| self.jitter_up_us));
        set(Metric::JitterDown, down().filter_map(|down| down.jitter_us).max());
        set(Metric::RttClient, rtt.map(u64::from));
        let heard = [heard_up, heard_down].into_iter().flatten().max_by_key(|heard| heard.ppm);
        let one_way = Duration::from_micros(u64::from(rtt.unwrap_or(0)) / 2);
        let voice = self.voice.zip(heard);
        let rated = voice.map(|(codec, heard)| quality::r_factor(one_way, heard, codec));
        set(Metric::RFactor, rated.map(u64::from));
        measures
    }
}

/// The counts of [`FlowCounts`] that packets change.
#[derive(Clone, Copy, Default, Serialize, Deserialize, Debug)]
#[serde(from = "FlowRecord", into = "FlowRecord")]
pub(super) struct FlowTally {
    pub(super) sent: [u32; STREAM_KINDS],
    pub(super) received: [u32; STREAM_KINDS],
    pub(super) reported_ppm: Option<u32>,
    pub(super) client_ppm: Option<u32>,
    pub(super) frames: u32,
    pub(super) client_jitter_us: Option<u32>,
}

/// The layout of records: that of earlier versions, and what they lacked.
#[derive(Default, Serialize, Deserialize)]
struct FlowRecord {
    sent: [u32; STREAM_KINDS],
    received: [u32; STREAM_KINDS],
    hears: Option<Hop>,
    expected: u32,
    lost: u32,
    missed: u32,
    reported_ppm: Option<u32>,
    #[serde(default)]
    client_ppm: Option<u32>,
    #[serde(default)]
    frames: u32,
    #[serde(default)]
    client_jitter_us: Option<u32>,
}

impl FlowTally {
    /// The client hears another hop from now on.
    pub(super) fn forget_hop(&mut self) {
        (self.received, self.reported_ppm) = Default::default();
        (self.client_ppm, self.client_jitter_us) = Default::default();
    }
}

impl From<FlowTally> for FlowCounts {
    fn from(tally: FlowTally) -> FlowCounts {
        let FlowTally { sent, received, reported_ppm, client_ppm, frames, client_jitter_us } =
            tally;
        FlowCounts {
            sent,
            received,
            reported_ppm,
            client_ppm,
            frames,
            client_jitter_us,
            ..FlowCounts::default()
        }
    }
}

impl From<FlowTally> for FlowRecord {
    fn from(tally: FlowTally) -> FlowRecord {
        let FlowTally { sent, received, reported_ppm, client_ppm, frames, client_jitter_us } =
            tally;
        FlowRecord {
            sent,
            received,
            reported_ppm,
            client_ppm,
            frames,
            client_jitter_us,
            ..FlowRecord::default()
        }
    }
}

impl From<FlowRecord> for FlowTally {
    fn from(record: FlowRecord) -> FlowTally {
        let FlowRecord {
            sent, received, reported_ppm, client_ppm, frames, client_jitter_us, ..
        } = record;
        FlowTally { sent, received, reported_ppm, client_ppm, frames, client_jitter_us }
    }
}

/// Signs of impaired media besides loss: jitter of the voice from the hop, key frames that were requested and did not come, and voice
/// that never had any sound.
#[derive(Clone, Copy, Default, Serialize, Deserialize, Debug)]
pub(super) struct MediaSigns {
    /// In the time of this worker: a copy begins anew.
    jitter: ArrivalJitter,
    /// The first request for a key frame of the client since its last one.
    #[serde(with = "instant::option")]
    first_request: Option<Instant>,
    /// The last such request.
    #[serde(with = "instant::option")]
    last_request: Option<Instant>,
    /// The last video packet of the client since the first request.
    #[serde(with = "instant::option")]
    last_video: Option<Instant>,
    /// Voice packets of the client so far. `None` once one of them has sound, or if that is unknown.
    silent_voice: Option<u32>,
    /// Video packets of the client are inspected: a key frame was requested.
    #[serde(default)]
    inspects_video: bool,
}

impl MediaSigns {
    /// Signs of a new session. `is_readable`: its payload is not encrypted.
    pub(super) fn new(is_readable: bool) -> MediaSigns {
        MediaSigns { silent_voice: is_readable.then_some(0), ..MediaSigns::default() }
    }

    /// The client hears another hop from now on.
    pub(super) fn forget_hop(&mut self) {
        self.jitter = ArrivalJitter::default();
    }

    /// Handles a packet of voice from the hop that the client hears, read in the pass that began at `now_us`.
    #[inline]
    pub(super) fn receive_voice(&mut self, header: &RtpHeader, clock_rate: u32, now_us: i64) {
        self.jitter.receive(header, clock_rate, now_us);
    }

    /// A key frame of the client was requested.
    pub(super) fn note_key_frame_request(&mut self, now: Instant) {
        if self.first_request.is_none() || !self.is_repeated(now) {
            (self.first_request, self.last_video) = (Some(now), None);
        }
        self.last_request = Some(now);
        self.inspects_video = true;
    }

    /// The next packet of video is inspected, too: a key frame of another stream is still to come, or was requested too long ago to be a sign.
    pub(super) fn go_on_inspecting(&mut self) {
        self.inspects_video = true;
    }

    /// The next packet of this kind from the client is inspected.
    #[inline]
    pub(super) fn inspects(&self, kind: StreamKind) -> bool {
        match kind {
            StreamKind::Audio => self.silent_voice.is_some(),
            StreamKind::Video => self.inspects_video,
        }
    }

    /// Looks for sound, or a key frame. Packets of an unknown codec may have them. Returns whether the packet begins a key frame; `None` if
    /// that is unknown.
    pub(super) fn inspect(
        &mut self,
        kind: StreamKind,
        payload_type: &PayloadType,
        payload: &[u8],
        now: Instant,
    ) -> Option<bool> {
        let codec = &payload_type.codec;
        if payload_type.is_repair() {
            return Some(false);
        }
        if kind == StreamKind::Audio {
            let is_silent = quality::is_silent(codec, payload) == Some(true);
            let silent = self.silent_voice.filter(|_| is_silent);
            self.silent_voice = silent.map(|packets| packets.saturating_add(1));
            return Some(false);
        }
        let begins = key_frame::begins_key_frame(codec, payload);
        if begins == Some(false) && self.is_repeated(now) {
            self.last_video = Some(now);
        } else {
            self.first_request = None;
        }
        self.inspects_video = self.first_request.is_some();
        begins
    }

    fn is_repeated(&self, now: Instant) -> bool {
        let within = |last: Instant| now.saturating_duration_since(last) <= REPEATED_WITHIN;
        self.last_request.is_some_and(within)
    }

    /// Time for which requests and video without a key frame went on.
    fn key_frame_missing(&self, now: Instant) -> Option<Duration> {
        let last = self.last_video?.min(self.last_request?);
        let missing = last.saturating_duration_since(self.first_request?);
        self.is_repeated(now).then_some(missing)
    }

    /// Adds these signs to the counts since the last summary.
    pub(super) fn complete(&self, flow: FlowCounts, now: Instant) -> FlowCounts {
        let jitter_us = (flow.received[0] > 0).then(|| self.jitter.us());
        let missing = self.key_frame_missing(now).unwrap_or_default();
        FlowCounts {
            jitter_us: jitter_us.map(|us| us.try_into().unwrap_or(u32::MAX)),
            key_frame_missing_ms: missing.as_millis() as u32,
            silent_voice: self.silent_voice.unwrap_or(0),
            ..flow
        }
    }
}

/// Returns the highest fraction lost that a node or client reports for its received streams, in ppm.
pub(super) fn reported_loss(compound: &[u8]) -> Option<u32> {
    reports(compound).map(|block| u32::from(block.fraction_lost) * 1_000_000 / 256).max()
}

/// Returns the highest jitter that a client reports for its received voice, in microseconds.
pub(super) fn voice_jitter(
    compound: &[u8],
    clock_rate: impl Fn(u32) -> Option<u32>,
) -> Option<u32> {
    let jitter = |block: rtcp::ReportBlock| {
        let rate = clock_rate(block.ssrc).filter(|rate| *rate != rtp::VIDEO_CLOCK_HZ)?;
        (u64::from(block.jitter) * 1_000_000).checked_div(rate.into())
    };
    let jitter = reports(compound).filter_map(jitter).max()?;
    Some(jitter.try_into().unwrap_or(u32::MAX))
}

pub(super) fn reports(compound: &[u8]) -> impl Iterator<Item = rtcp::ReportBlock> {
    rtcp::packets(compound).map_while(Result::ok).flat_map(|packet| packet.blocks())
}

#[cfg(test)]
mod tests;
