//! The rate that the path to a client can carry, by the client's feedback.
//!
//! A client that negotiated transport-wide sequence numbers (draft-holmer-rmcat-transport-wide-cc-extensions-01) gets one in each packet of
//! the streams for which it did. They are consecutive over these streams, and written after all other numbers, before encryption. Feedback
//! about them ends here: nodes do not know them, and get the estimate as REMB instead, if the client declared that. A packet that is sent
//! again keeps its number, so that no feedback tells of the second copy. A client may send feedback about the numbers of its streams
//! instead (RFC 8888), which ends here, too: nodes have other ones.
//!
//! For other clients the loss in their receiver reports is the only evidence.
//!
//! No record contains this state: another process measures the path again, with numbers from 0 on.

use std::mem;
use std::time::{Duration, Instant};

use evenkeel_media::estimate::RateEstimate;
use evenkeel_media::rtcp::{self, RtcpPacket, rewrite};
use evenkeel_media::rtp::RtpHeader;
use evenkeel_media::rtp::extension::set_or_insert_u16;
use evenkeel_model::{ExtensionUri, FeedbackSupport, MediaDescription};

use super::feedback::remember;

/// Interval at which nodes get the estimate. REMB is soft state; senders forget it after some seconds.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// Feedback in a compound packet beyond this number is not read: clients send one each 50 to 250 ms.
const FEEDBACK_MAX: usize = 4;

/// Share of the estimate that nodes know, in percent, below which they get the next one at once.
const TOLD_BELOW: u64 = 97;

/// Time over which the rate to the client is measured: reports of several streams may come together.
const RATE_OVER: Duration = Duration::from_millis(200);

/// The estimate of the rate to one client.
#[derive(Debug)]
pub(super) struct DownlinkEstimate {
    rate: RateEstimate,
    /// `None` if the estimate follows from receiver reports.
    timed: Option<TimedPackets>,
    /// A packet with all numbers but the transport-wide one, and with that.
    rewritten: Vec<u8>,
    numbered: Vec<u8>,
    sent: SentRate,
    /// The estimate that nodes know, and since when.
    told_kbps: u32,
    told_at: Option<Instant>,
}

/// The packets to a client of which its feedback tells the times of arrival.
#[derive(Debug)]
struct TimedPackets {
    /// The id of the header extension for transport-wide numbers, by the room's numbers. `None`: feedback has the numbers of streams.
    extension: Option<u8>,
    /// The payload types of these packets, by the room's numbers, a bit each.
    payload_types: u128,
    takes_remb: bool,
    next: u16,
    /// The SSRCs of these packets.
    sources: Vec<u32>,
}

impl TimedPackets {
    /// `None` if the client sends no such feedback, or if the gateway cannot read it.
    fn of(media: &MediaDescription) -> Option<TimedPackets> {
        let payload_types = |has_feedback: fn(&FeedbackSupport) -> bool| {
            let streams = media.streams.iter().filter(|stream| has_feedback(&stream.feedback));
            let payload_types = streams.flat_map(|stream| &stream.payload_types);
            payload_types.fold(0, |bits, payload| bits | 1_u128 << (payload.number & 0x7f))
        };
        let extension = media.extension(&ExtensionUri::TransportWideNumber);
        let numbered = extension.map_or(0, |_| payload_types(|feedback| feedback.transport_cc));
        let (extension, payload_types) = match numbered {
            0 => (None, payload_types(|feedback| feedback.ccfb)),
            numbered => (extension, numbered),
        };
        let is_possible = payload_types != 0 && media.srtp.is_readable();
        is_possible.then(|| TimedPackets {
            extension,
            payload_types,
            takes_remb: media.takes_remb(),
            next: 0,
            sources: Vec::new(),
        })
    }
}

/// The rate to the client between its reports.
#[derive(Default, Debug)]
struct SentRate {
    /// All bytes to the client before this time.
    bytes: u64,
    since: Option<Instant>,
    kbps: Option<u32>,
}

impl SentRate {
    /// Returns the rate at a report; `None` at the first ones. `bytes`: all bytes to the client so far.
    fn update(&mut self, bytes: u64, now: Instant) -> Option<u32> {
        let elapsed = self.since.map(|since| now.saturating_duration_since(since));
        if let Some(elapsed) = elapsed.filter(|elapsed| *elapsed >= RATE_OVER) {
            // Bits per millisecond are kilobits per second.
            let kbps = bytes.saturating_sub(self.bytes) * 8 / elapsed.as_millis() as u64;
            self.kbps = Some(kbps.try_into().unwrap_or(u32::MAX));
        }
        if elapsed.is_none_or(|elapsed| elapsed >= RATE_OVER) {
            (self.bytes, self.since) = (bytes, Some(now));
        }
        self.kbps
    }
}

impl DownlinkEstimate {
    /// The estimate for a client without feedback about arrival times.
    pub(super) fn by_reports() -> Box<DownlinkEstimate> {
        DownlinkEstimate::new(None)
    }

    fn new(timed: Option<TimedPackets>) -> Box<DownlinkEstimate> {
        Box::new(DownlinkEstimate {
            rate: RateEstimate::new(),
            timed,
            rewritten: Vec::new(),
            numbered: Vec::new(),
            sent: SentRate::default(),
            told_kbps: 0,
            told_at: None,
        })
    }

    /// Follows the description of the client's media. Numbers go on, and the estimate remains, if its evidence is of the same kind.
    pub(super) fn follow(estimate: &mut Option<Box<DownlinkEstimate>>, media: &MediaDescription) {
        let Some(new) = TimedPackets::of(media) else {
            estimate.take_if(|estimate| estimate.has_arrivals());
            return;
        };
        match estimate.as_deref_mut().and_then(|estimate| estimate.timed.as_mut()) {
            Some(before) if before.extension.is_some() == new.extension.is_some() => {
                let (next, sources) = (before.next, mem::take(&mut before.sources));
                *before = TimedPackets { next, sources, ..new };
            }
            _ => *estimate = Some(DownlinkEstimate::new(Some(new))),
        }
    }

    /// Releases the memory of a session that is idle. Numbers go on.
    pub(super) fn release(estimate: &mut Option<Box<DownlinkEstimate>>) {
        let timed = estimate.take().and_then(|estimate| estimate.timed);
        *estimate = timed.map(|timed| DownlinkEstimate::new(Some(timed)));
    }

    /// Returns whether the client's feedback tells when packets arrived.
    #[inline]
    pub(super) fn has_arrivals(&self) -> bool {
        self.timed.is_some()
    }

    /// Returns a packet to the client as `rewrite` leaves it, with the next number if it is to have one, and notes it: RTCP has no declared
    /// payload type.
    pub(super) fn number(
        &mut self,
        packet: &[u8],
        rewrite: impl FnOnce(&mut [u8]),
        now: Instant,
    ) -> &[u8] {
        let DownlinkEstimate { rate, timed, rewritten, numbered, .. } = self;
        rewritten.clear();
        rewritten.extend_from_slice(packet);
        rewrite(rewritten);
        let Some(timed) = timed else { return rewritten };
        let TimedPackets { extension, payload_types, next, sources, .. } = timed;
        let header = RtpHeader::parse_opaque(rewritten).ok();
        let is_timed = |header: &RtpHeader| *payload_types >> (header.payload_type & 0x7f) & 1 == 1;
        let Some(header) = header.filter(is_timed) else { return rewritten };
        match *extension {
            None => rate.note_sent_in_stream(header.ssrc, header.sequence, rewritten.len(), now),
            Some(id) if set_or_insert_u16(rewritten, &header, id, *next, numbered) => {
                rate.note_sent(*next, numbered.len(), now);
                *next = next.wrapping_add(1);
                remember(sources, header.ssrc);
                return numbered;
            }
            Some(_) => return rewritten,
        }
        remember(sources, header.ssrc);
        rewritten
    }

    /// The rate that the path can carry, in kbit/s; `None` if it is unknown.
    pub(super) fn kbps(&self, now: Instant) -> Option<u32> {
        self.rate.kbps(now)
    }

    /// The growth of the one-way delay in permille, 0 if it does not grow; `None` if it is unknown.
    pub(super) fn growth_permille(&self, now: Instant) -> Option<u32> {
        let trend_us_per_s = self.rate.trend_us_per_s(now)?;
        Some(trend_us_per_s.max(0).unsigned_abs() / 1_000)
    }

    /// Returns the lower one of a limit in kbit/s, 0 for none, and the estimate by arrival times.
    pub(super) fn limit(
        estimate: Option<&DownlinkEstimate>,
        limit_kbps: u32,
        now: Instant,
    ) -> Option<u32> {
        let estimated = estimate.filter(|it| it.has_arrivals()).and_then(|it| it.kbps(now));
        [estimated, Some(limit_kbps).filter(|kbps| *kbps > 0)].into_iter().flatten().min()
    }

    /// Reads the loss before repair in reports of a client without feedback about arrivals. `bytes`: all bytes to the client so far.
    pub(super) fn note_report(
        &mut self,
        lost_ppm: u32,
        round_trip: Option<Duration>,
        bytes: u64,
        now: Instant,
    ) {
        if !self.has_arrivals()
            && let Some(kbps) = self.sent.update(bytes, now)
        {
            self.rate.note_report(lost_ppm, round_trip, kbps, now);
        }
    }

    /// Reads and removes the feedback about arrivals in a compound packet of the client. Returns whether anything is left.
    pub(super) fn read_feedback(&mut self, compound: &mut Vec<u8>, now: Instant) -> bool {
        if !self.has_arrivals() {
            return true;
        }
        let mut sender = None;
        let feedback = rtcp::packets(compound).map_while(Result::ok).filter(|packet| {
            matches!(packet, RtcpPacket::TransportFeedback(_) | RtcpPacket::CongestionFeedback(_))
        });
        for packet in feedback.take(FEEDBACK_MAX) {
            match packet {
                RtcpPacket::TransportFeedback(feedback) => {
                    self.rate.note_feedback(&feedback, now);
                    sender = Some(feedback.sender);
                }
                RtcpPacket::CongestionFeedback(feedback) => {
                    self.rate.note_congestion_feedback(&feedback, now);
                    sender = Some(feedback.sender);
                }
                _ => {}
            }
        }
        let length = rewrite::remove_arrivals(compound);
        compound.truncate(length);
        if let Some(sender) = sender {
            self.tell_nodes(sender, compound, now);
        }
        !compound.is_empty()
    }

    /// Appends the estimate, if nodes are to know it now: clients with such feedback send no REMB.
    fn tell_nodes(&mut self, sender: u32, compound: &mut Vec<u8>, now: Instant) {
        let Some(kbps) = self.kbps(now) else { return };
        let Some(timed) = self.timed.as_ref().filter(|it| it.takes_remb) else { return };
        let is_known = self.told_at.is_some_and(|at| {
            let is_recent = now.saturating_duration_since(at) < TOLD_EVERY;
            is_recent && u64::from(kbps) * 100 >= u64::from(self.told_kbps) * TOLD_BELOW
        });
        if !is_known {
            (self.told_kbps, self.told_at) = (kbps, Some(now));
            rtcp::write_remb(sender, u64::from(kbps) * 1_000, &timed.sources, compound);
        }
    }
}
