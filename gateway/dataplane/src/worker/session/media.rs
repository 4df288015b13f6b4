//! Measurements of a session for policies and operators, and the RTCP that the gateway generates: key-frame requests in both
//! directions, and send caps. A value whose measurements have stopped is not reported.

use std::time::{Duration, Instant};

use evenkeel_media::rtcp::{self, rewrite};
use evenkeel_media::rtp::Receptions;
use evenkeel_media::{instant, quality};
use evenkeel_model::{Measures, MediaDescription, MediaStream, Metric, StreamKind};
use serde::{Deserialize, Serialize};

use super::key_frames::{FEEDBACK_SOURCES_MAX, KEY_FRAME_EVERY, KeyFrameRequests};
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

/// Time for which a report may still answer a sender report, for the round-trip time.
const REPORT_KEPT: Duration = Duration::from_secs(10);

#[derive(Clone, Default, Serialize, Deserialize, Debug)]
pub(crate) struct VoiceMeasurements {
    pub(super) voice: Option<quality::Codec>,
    pub(super) sources: Receptions,
    #[serde(with = "instant::option")]
    pub(super) last_heard: Option<Instant>,
    loss_up_ppm: Smoothed,
    jitter_up_us: u64,
    down: Vec<Down>,
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
}

/// Reception by the client: one stream's receiver reports, or the connection as measured by QUIC.
#[derive(Clone, Serialize, Deserialize, Debug)]
struct Down {
    ssrc: Option<u32>,
    loss_ppm: Smoothed,
    jitter_us: Option<u64>,
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

    /// Returns whether the client sent RTP with these numbers lately.
    pub(crate) fn is_recent(&self, ssrc: u32, sequence: u16) -> bool {
        self.sources.is_recent(ssrc, sequence, RECENT_MAX)
    }

    /// Reads the client's receiver reports (RFC 3550, 6.4.1). `clock_rate` returns the clock rate of an SSRC in Hz.
    pub(crate) fn read_reports(
        &mut self,
        compound: &[u8],
        clock_rate: impl Fn(u32) -> Option<u32>,
        now: Instant,
    ) {
        let packets = rtcp::packets(compound).map_while(Result::ok);
        for block in packets.flat_map(|packet| packet.blocks()) {
            self.read_block(&block, clock_rate(block.ssrc), now);
        }
    }

    fn read_block(&mut self, block: &rtcp::ReportBlock, clock_rate: Option<u32>, now: Instant) {
        let jitter = u64::from(block.jitter) * 1_000_000;
        let down = self.down(Some(block.ssrc));
        let loss = i64::from(block.fraction_lost) * 1_000_000 / 256;
        down.loss_ppm.show(loss, REPORTS_FOLLOW_IN, now);
        down.jitter_us = clock_rate.and_then(|rate| jitter.checked_div(rate.into()));
        let Some((middle, at)) = self.reported else { return };
        if block.last_sr == middle && middle != 0 {
            let held =
                Duration::from_micros(u64::from(block.delay_since_last_sr) * 1_000_000 / 65_536);
            let trip = now.saturating_duration_since(at).saturating_sub(held);
            self.rtt_us = u32::try_from(trip.as_micros()).ok().map(|us| (us, now));
        }
    }

    fn down(&mut self, ssrc: Option<u32>) -> &mut Down {
        let place = self.down.iter().position(|down| down.ssrc == ssrc).unwrap_or_else(|| {
            if self.down.len() == Receptions::MAX {
                self.down.remove(0);
            }
            self.down.push(Down { ssrc, loss_ppm: Smoothed::default(), jitter_us: None });
            self.down.len() - 1
        });
        &mut self.down[place]
    }

    /// Notes a sender report to the client. The client's answer gives the round-trip time.
    pub(crate) fn note_sender_report(&mut self, compound: &[u8], now: Instant) {
        if self.reported.is_some_and(|(_, at)| now.saturating_duration_since(at) >= REPORT_KEPT) {
            self.reported = None;
        }
        for packet in rtcp::packets(compound).map_while(Result::ok) {
            if let rtcp::RtcpPacket::SenderReport(report) = packet {
                self.reported = Some(((report.info.ntp >> 16) as u32, now));
            }
        }
    }

    /// Notes the state of the path as measured by QUIC.
    pub(crate) fn quic_path(&mut self, path: PathReport, now: Instant) {
        let PathReport { rtt_us, lost, sent } = path;
        self.rtt_us = Some((rtt_us, now));
        if let Some(loss) = (i64::from(lost.min(sent)) * 1_000_000).checked_div(sent.into()) {
            self.down(None).loss_ppm.show(loss, FOLLOWS_IN, now);
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
            jitter = jitter.max(reception.jitter_us());
            if interval.expected > 0 && !reception.is_video() {
                of_voice = of_voice.max(Some(reception.jitter_us()));
            }
        }
        self.jitter_voice_us = of_voice.map(|us| us.try_into().unwrap_or(u32::MAX));
        self.lost_up += lost;
        if let Some(loss) = (lost * 1_000_000).checked_div(expected) {
            self.loss_up_ppm.show(loss as i64, FOLLOWS_IN, now);
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

/// Interval at which a cap is repeated. REMB is soft state; senders forget it after some seconds.
const CAP_EVERY: Duration = Duration::from_secs(1);

/// Time for which the end of a cap is repeated, because each packet may be lost.
const LIFTED_FOR: Duration = Duration::from_secs(5);

/// Bitrate that lifts a cap: more than any client sends.
const UNCAPPED_BPS: u64 = 1_000_000_000;

#[derive(Clone, Default, Serialize, Deserialize, Debug)]
pub(crate) struct SenderFeedback {
    /// The sender SSRC of the generated RTCP.
    ssrc: u32,
    /// The CNAME: random, per session (RFC 7022, 4.2).
    name: u64,
    takes_pli: bool,
    takes_fir: bool,
    takes_remb: bool,
    takes_tmmbr: bool,
    /// True if the gateway may generate RTCP. False with SRTP, because the gateway has no keys.
    may_write: bool,
    /// SSRCs of the client's video.
    pub(super) video: Vec<u32>,
    pub(super) sources: Vec<u32>,
    /// True if the hop gets a key-frame request with the first packet of each stream.
    wanted: bool,
    asked_hop: Vec<u32>,
    #[serde(with = "instant::option")]
    asked_client: Option<Instant>,
    fir_number: u8,
    /// Time when a cap was last sent.
    #[serde(with = "instant::option")]
    cap_sent: Option<Instant>,
    /// Time when the last cap was lifted.
    #[serde(with = "instant::option")]
    lifted: Option<Instant>,
    /// Requests of nodes.
    #[serde(default)]
    key_frames: KeyFrameRequests,
}

impl SenderFeedback {
    /// `seed` determines SSRC and CNAME.
    pub(crate) fn new(seed: u64, media: &MediaDescription) -> SenderFeedback {
        let mut feedback = SenderFeedback {
            ssrc: seed as u32,
            name: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            may_write: media.srtp.is_readable(),
            ..SenderFeedback::default()
        };
        feedback.follow(media);
        feedback
    }

    /// Sends the feedback that the client takes by this description.
    pub(crate) fn follow(&mut self, media: &MediaDescription) {
        let takes = |wanted: fn(&evenkeel_model::FeedbackSupport) -> bool| {
            let mut streams = media.streams.iter();
            streams.any(|stream| stream.kind == StreamKind::Video && wanted(&stream.feedback))
        };
        self.takes_pli = takes(|feedback| feedback.pli);
        self.takes_fir = takes(|feedback| feedback.fir);
        self.takes_remb = media.takes_remb();
        self.takes_tmmbr = takes(|feedback| feedback.tmmbr);
    }

    /// The client may obey a REMB or TMMBR.
    pub(crate) fn takes_caps(media: &MediaDescription) -> bool {
        let tmmbr =
            |stream: &MediaStream| stream.kind == StreamKind::Video && stream.feedback.tmmbr;
        media.takes_remb() || media.srtp.is_readable() && media.streams.iter().any(tmmbr)
    }

    /// Requests a key frame for each stream to the client when the stream's next packet arrives.
    pub(crate) fn want_key_frame(&mut self) {
        self.wanted = true;
        self.asked_hop.clear();
    }

    /// Requests a key frame for this stream of the hop when a packet of it passes: the client lacks those before.
    pub(crate) fn want_key_frame_of(&mut self, ssrc: u32) {
        self.wanted = true;
        self.asked_hop.retain(|asked| *asked != ssrc);
    }

    /// Returns a PLI for this stream of the hop, if a key frame is wanted and the PLI was not sent yet.
    pub(crate) fn key_frame_request(&mut self, ssrc: u32) -> Option<Vec<u8>> {
        let asked = self.asked_hop.contains(&ssrc) || self.asked_hop.len() >= FEEDBACK_SOURCES_MAX;
        if !self.wanted || !self.may_write || asked {
            return None;
        }
        self.asked_hop.push(ssrc);
        let pli = rtcp::Pli { sender: self.ssrc, media: ssrc };
        Some(self.compound(|out| rtcp::write_pli(pli, out)))
    }

    /// Returns a PLI for each video stream of the client, or a FIR if the client does not support PLI. `None` if key frames of all are
    /// still to come.
    pub(crate) fn key_frame_of_client(&mut self, now: Instant) -> Option<Vec<u8>> {
        let recently = within(self.asked_client, KEY_FRAME_EVERY, now);
        let is_awaited = |ssrc: &u32| self.key_frames.is_awaited(*ssrc, now);
        if recently || self.video.iter().all(is_awaited) {
            return None;
        }
        let streams = self.video.clone();
        let request = self.ask_client(&streams)?;
        self.asked_client = Some(now);
        Some(request)
    }

    /// The client sent a key frame of this stream.
    pub(crate) fn key_frame_came(&mut self, ssrc: u32) {
        self.key_frames.came(ssrc);
    }

    /// Returns a request for the streams for which one of a node came too soon after another, and no key frame since.
    pub(crate) fn due_key_frame_of_client(&mut self, now: Instant) -> Option<Vec<u8>> {
        let streams = self.key_frames.due(self.asked_client, now);
        self.ask_client(&streams)
    }

    fn ask_client(&mut self, streams: &[u32]) -> Option<Vec<u8>> {
        let can_ask = self.may_write && (self.takes_pli || self.takes_fir);
        if !can_ask || streams.is_empty() {
            return None;
        }
        if self.takes_pli {
            let sender = self.ssrc;
            let plis = streams.iter().map(|&media| rtcp::Pli { sender, media });
            return Some(self.compound(|out| plis.for_each(|pli| rtcp::write_pli(pli, out))));
        }
        self.fir_number = self.fir_number.wrapping_add(1);
        let number = self.fir_number;
        let entries: Vec<_> =
            streams.iter().map(|&media| rtcp::FirEntry { media, number }).collect();
        Some(self.compound(|out| rtcp::write_fir(self.ssrc, &entries, out)))
    }

    /// Removes requests of a node for key frames that come too soon after another. Returns the length of the compound packet.
    pub(crate) fn thin_requests(&mut self, compound: &mut [u8], now: Instant) -> usize {
        if !self.takes_pli && !self.takes_fir {
            // The gateway could not repeat them.
            return compound.len();
        }
        self.key_frames.thin(compound, &self.video, self.asked_client, now)
    }

    /// Returns a REMB over all streams, or a TMMBR with an equal share for each video stream. 0 lifts the cap.
    pub(crate) fn cap(&mut self, kbps: u32, now: Instant) -> Option<Vec<u8>> {
        self.cap_sent = Some(now);
        self.lifted = if kbps == 0 { self.lifted.or(Some(now)) } else { None };
        let bps = if kbps == 0 { UNCAPPED_BPS } else { u64::from(kbps) * 1_000 };
        if !self.may_write {
            None
        } else if self.takes_remb {
            Some(self.compound(|out| rtcp::write_remb(self.ssrc, bps, &self.sources, out)))
        } else if self.takes_tmmbr && !self.video.is_empty() {
            let each = bps / self.video.len() as u64;
            Some(self.compound(|out| rtcp::write_tmmbr(self.ssrc, each, &self.video, out)))
        } else {
            None
        }
    }

    /// Returns whether the cap, or its end, must be sent again now.
    pub(crate) fn cap_is_due(&self, kbps: u32, now: Instant) -> bool {
        !within(self.cap_sent, CAP_EVERY, now) && self.repeats(kbps, now)
    }

    /// Returns whether the cap, or its end, is still being repeated.
    pub(crate) fn repeats(&self, kbps: u32, now: Instant) -> bool {
        kbps > 0 || within(self.lifted, LIFTED_FOR, now)
    }

    /// Lowers the node's rate limits to the cap. A packet with such a limit carries the cap, which postpones the
    /// gateway's next one.
    pub(crate) fn limit(&mut self, compound: &mut [u8], kbps: u32, now: Instant) {
        if kbps > 0 && self.may_write && rewrite::limit_rates(compound, u64::from(kbps) * 1_000) {
            self.cap_sent = Some(now);
        }
    }

    /// Builds a compound packet: receiver report, CNAME, then the message (RFC 3550, 6.1).
    fn compound(&self, say: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut packet = Vec::new();
        rtcp::write_receiver_report(self.ssrc, &[], &mut packet);
        rtcp::write_cname(self.ssrc, format!("{:016x}", self.name).as_bytes(), &mut packet);
        say(&mut packet);
        packet
    }
}

fn within(at: Option<Instant>, time: Duration, now: Instant) -> bool {
    at.is_some_and(|at| now.saturating_duration_since(at) < time)
}

#[cfg(test)]
mod tests;
