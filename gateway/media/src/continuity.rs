//! Hides a change of sender from the client.
//!
//! A [`Continuity`] sits between the nodes of a session and its client. It assigns the outgoing
//! numbers of every packet. Packets pass unchanged while a node continues the same stream. For
//! another stream, sequence numbers and timestamps continue those of the old sender, under the SSRC
//! that the client knows:
//!
//! - **Sequence numbers** skip the lost packets: the silence divided by the usual frame interval,
//!   times the usual packets per frame. A silence of voice (DTX) is no loss; a video frame that the
//!   old sender left unfinished is lost, unless the new one continues it within half a frame.
//! - **Timestamps** advance by the silence; voice stays on its own grid, as decoders count samples.
//! - **Make-before-break**: until [`close_previous`](Continuity::close_previous) packets of the
//!   previous hop still pass by their old mapping, into the numbers kept free for them; never
//!   twice, and never under a number in use.
//! - **Several sources** are matched by payload type, then clock rate, then recent activity. RTP
//!   does not show which of several equal streams a new one continues.
//! - **A source that restarts by itself**, without a switch, is a new stream, as it would be
//!   without a gateway; under [`Protection::Terminated`] it continues the stream, as after a switch.
//! - **RTCP** follows the same mapping in both directions ([`Continuity::rtcp_to_client`],
//!   [`Continuity::rtcp_to_node`]).
//! - **Retransmissions** contain the number of the packet that they repair, which
//!   [`Continuity::pass_retransmission`] translates.
//!
//! An [`StreamEpoch`] identifies a hop: each switch begins a new one, even back to an earlier node.

mod announced;
mod numbers;
mod pace;
mod protection;
mod stream;

use std::sync::Arc;
use std::time::{Duration, Instant};

use announced::Placement;
pub use announced::{AnnouncedSection, AnnouncedSender, AnnouncedStreams};
use evenkeel_instant as instant;
pub use numbers::{FILLED_WITHIN, WINDOW};
pub use protection::Protection;
use serde::{Deserialize, Serialize};
use stream::OutgoingStream;
pub(crate) use stream::STREAMS_MAX;
pub use stream::{OriginalNumbers, Pass, StreamEpoch};

use crate::retransmission;
use crate::rtcp::rewrite::extended;
use crate::rtcp::rewrite::{
    count, media_source, payload_type, rename_media, replace_fractions_lost, retain_blocks,
    retain_described, retain_leaving, retain_missing, rewrite, sender_info, set_sender_info,
    set_ssrc, ssrc, translate_notification,
};
use crate::rtcp::xr::EXTENDED_REPORT;
use crate::rtcp::{
    APPLICATION, BYE, NACK, PAYLOAD_FEEDBACK, RECEIVER_REPORT, RPSI, ReportBlock, RtcpError,
    SENDER_REPORT, SOURCE_DESCRIPTION, TRANSPORT_FEEDBACK,
};
use crate::rtp::{RtpHeader, sequence_ahead};

/// First sequence numbers of SRTP are below this one: a receiver that loses the first packets would
/// otherwise take those after a wrap for the same cycle (RFC 3711, section 3.3.1).
const FIRST_SEQUENCE_END: u16 = 1 << 15;

/// A stream whose last packet is older than this, measured at the session's last packet, has ended.
/// Silent voice sends a packet every 400 ms.
const ACTIVE_WITHIN: Duration = Duration::from_millis(500);

/// A stream that was silent for this time, while the node sent other packets, gives its m-line to another one. Longer than the
/// interval of silent voice.
const ENDED_AFTER: Duration = Duration::from_secs(1);

/// Reason for a change of the hop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SwitchCause {
    /// The previous hop failed; its late packets may pass but are not waited for.
    Failover,
    /// A planned move: the previous hop still delivers packets it received.
    Planned {
        /// Time by which the new path delivers sooner than the old one; 0 if later or unknown.
        /// Numbers are reserved for packets that may still arrive in that time. A value too large
        /// looks like loss.
        lead: Duration,
    },
}

/// The position of a withheld packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Withheld {
    /// The stream's SSRC towards the client.
    pub ssrc: u32,
    /// The sequence number of the last packet that passed.
    pub after: u16,
    /// Distance of the withheld packet from `after`.
    pub ahead: u32,
}

/// Keeps a session's streams continuous towards its client. See the [module](self).
///
/// Allocates when a stream is new, never per packet.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub struct Continuity {
    protection: Protection,
    /// State of the random generator for SSRCs.
    random: u64,
    epoch: StreamEpoch,
    /// The previous hop, while its packets still pass.
    previous: Option<StreamEpoch>,
    lead: Duration,
    /// True if the previous hop was left as planned, and the time since which it has been silent or
    /// left.
    #[serde(with = "instant::paired")]
    left: Option<(bool, Instant)>,
    /// Packets missed at switches by streams that were forgotten.
    missed: u32,
    streams: Vec<OutgoingStream>,
    /// A source was new since the last [`Continuity::take_joined`].
    #[serde(default)]
    joined: bool,
    /// Comes with the session, not with a copy of its state.
    #[serde(skip)]
    announced: Option<Arc<AnnouncedStreams>>,
    /// Time of the last packet for which the client had no m-line.
    #[serde(skip)]
    surplus_at: Option<Instant>,
}

/// Reason why a compound packet is dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FeedbackDrop {
    /// The compound cannot be read.
    #[error("{0}")]
    Malformed(RtcpError),
    /// The hop of the packet is closed.
    #[error("its hop is closed")]
    Stale,
    /// All reports and feedback in it refer to another sender's numbers.
    #[error("refers to another sender only")]
    Empty,
}

impl Continuity {
    /// `seed` initialises the random generator for SSRCs.
    pub fn new(seed: u64, protection: Protection) -> Self {
        Self {
            protection,
            random: seed,
            epoch: StreamEpoch::default(),
            previous: None,
            lead: Duration::ZERO,
            left: None,
            missed: 0,
            streams: Vec::new(),
            joined: false,
            announced: None,
            surplus_at: None,
        }
    }

    /// Returns whether a packet since the last call was the first one of its source.
    #[inline]
    pub fn take_joined(&mut self) -> bool {
        std::mem::take(&mut self.joined)
    }

    /// Switches the hop. Packets of the previous hop pass until
    /// [`close_previous`](Self::close_previous); those of the hop before it are stale.
    ///
    /// An epoch that is not newer changes nothing. The first packet of a newer epoch implies a
    /// [`SwitchCause::Failover`].
    pub fn switched(&mut self, epoch: StreamEpoch, switch: SwitchCause) {
        if epoch > self.epoch {
            self.previous = Some(self.epoch);
            self.epoch = epoch;
            self.left = None;
            self.lead = match switch {
                SwitchCause::Failover => Duration::ZERO,
                SwitchCause::Planned { lead } => lead,
            };
        }
    }

    /// Notes that the previous hop failed, or was left as planned, at `since`. A source that fell
    /// silent before that, or while the hop still delivered, has paused: its silence is no loss.
    /// Valid until the next switch.
    pub fn left(&mut self, since: Instant, planned: bool) {
        self.left = Some((planned, since));
    }

    /// Notes that another hop continues with copies of the present hop's packets. A packet that
    /// neither hop has delivered by now is missing.
    pub fn switch_to_copies(&mut self) {
        self.streams.iter_mut().for_each(|stream| stream.on_copies = true);
    }

    /// Notes that this is a copy, and that another process has passed packets since it was made. No
    /// number that may have been used since is used again: a stream with the same mapping goes on
    /// above its first packet from here, and one with another mapping beyond all that its sender
    /// can have sent meanwhile.
    pub fn went_on_elsewhere(&mut self) {
        self.previous = None;
        self.streams.iter_mut().for_each(OutgoingStream::went_on_elsewhere);
    }

    /// Notes that another process may have used all numbers up to this one for the stream that the
    /// client knows by this SSRC. Its next packet follows.
    pub fn skip_to(&mut self, ssrc: u32, sequence: u16) {
        let of_client = |stream: &&mut OutgoingStream| stream.ssrc == ssrc;
        self.streams.iter_mut().filter(of_client).for_each(|stream| stream.skip_to(sequence));
    }

    /// Removes the fraction lost of the client's report blocks about an interval in which numbers were skipped: no packet was sent with
    /// them.
    pub fn excuse_skipped(&mut self, compound: &mut [u8]) {
        replace_fractions_lost(compound, |block| {
            let mut streams = self.streams.iter_mut().filter(|stream| stream.ssrc == block.ssrc);
            let is_after = |to: u16| sequence_ahead(block.sequence_max as u16, to) > 0;
            let is_excused = streams
                .any(|stream| stream.reports.skipped_to.take_if(|to| is_after(*to)).is_some());
            if is_excused { 0 } else { block.fraction_lost }
        });
    }

    /// Returns the numbers up to the highest one of the client's report with which no packet was sent to it, modulo 2^32: they were
    /// lost before, or skipped at a switch. Unlike [`Self::excuse_skipped`], it counts them exactly, if at most 64 numbers are
    /// above the highest one.
    pub fn unsent(&self, block: &ReportBlock) -> u32 {
        let stream = self.streams.iter().find(|stream| stream.ssrc == block.ssrc);
        stream.map_or(0, |stream| stream.unsent_to(block.sequence_max as u16))
    }

    /// Makes packets of the previous hop stale. Called 500 ms after a planned move, or at once if a
    /// node marked down could return with old packets.
    pub fn close_previous(&mut self) {
        self.previous = None;
    }

    /// Assigns outgoing numbers to a packet of the hop of `epoch`.
    ///
    /// `clock_rate` is the rate of its payload type in Hz; with 0 (unknown), timestamps advance by
    /// frames only.
    pub fn pass(
        &mut self,
        epoch: StreamEpoch,
        header: &RtpHeader,
        clock_rate: u32,
        now: Instant,
    ) -> Pass {
        self.pass_from(epoch, header, clock_rate, None, now)
    }

    fn pass_from(
        &mut self,
        epoch: StreamEpoch,
        header: &RtpHeader,
        clock_rate: u32,
        repaired: Option<u32>,
        now: Instant,
    ) -> Pass {
        self.switched(epoch, SwitchCause::Failover);
        if epoch != self.epoch && Some(epoch) != self.previous {
            return Pass::Stale;
        }
        let carries = |stream: &OutgoingStream| stream.carries(epoch, header.ssrc);
        let protection = self.protection;
        let pass = match self.streams.iter().position(carries) {
            Some(index) if self.is_held(index) => {
                let place = self.place(header, clock_rate, repaired, now);
                let stream = &mut self.streams[index];
                if matches!(place, Placement::Surplus) {
                    stream.withhold(header, now);
                    return Pass::Surplus;
                }
                stream.release();
                self.join(header, clock_rate, repaired, now)
            }
            Some(index) => self.streams[index].pass(epoch, header, protection, now),
            None if epoch != self.epoch => return Pass::Stale,
            None => self.join(header, clock_rate, repaired, now),
        };
        match (self.protection, pass) {
            (Protection::Srtp, Pass::Rewrite { .. }) => Pass::Untouched,
            _ => pass,
        }
    }

    /// Returns the time of the last packet of any stream, if an end of the hop at `since` explains
    /// the silence after it. `None` if all streams had fallen silent before.
    pub fn fell_silent(&self, since: Instant) -> Option<Instant> {
        let last = self.streams.iter().max_by_key(|stream| stream.last_packet_at)?;
        last.spoke_until(since).then_some(last.last_packet_at)
    }

    /// Returns the packets missed at switches so far. For a stream that continues by itself they
    /// follow from sequence numbers, otherwise from the silence and the usual packet interval. A
    /// switch is included [`FILLED_WITHIN`] after it, less the packets that arrived by then.
    pub fn missed_at_switches(&self, now: Instant) -> u32 {
        let missed = self.streams.iter().map(|stream| stream.missed(now));
        missed.fold(self.missed, u32::saturating_add)
    }

    /// Returns whether the hop of `epoch` goes on with a stream in the numbers of the hop before, and
    /// no packet between the two is missing. `node_ssrc`: the SSRC that the hop sends.
    pub fn is_whole(&self, epoch: StreamEpoch, node_ssrc: u32) -> bool {
        sent_by(&self.streams, epoch, node_ssrc).is_some_and(OutgoingStream::is_whole)
    }

    /// Returns the packets expected from nodes since the last call, by their sequence numbers, and
    /// the number of missing ones. Withheld packets are excluded from both.
    pub fn arrivals(&mut self) -> (u32, u32) {
        let arrivals = self.streams.iter_mut().map(OutgoingStream::arrivals);
        arrivals.fold((0_u32, 0_u32), |(expected, lost), (more, missing)| {
            (expected.saturating_add(more), lost.saturating_add(missing))
        })
    }

    /// Returns the clock rate in Hz of the stream that the client knows by this SSRC.
    pub fn clock_rate(&self, ssrc: u32) -> Option<u32> {
        let stream = self.streams.iter().find(|stream| stream.ssrc == ssrc);
        stream.map(|stream| stream.clock_rate)
    }

    /// Withholds a packet of the present hop. Later packets close the gap in the numbers, so that
    /// it does not look like loss. Returns `None` if the client knows no stream that the packet
    /// continues.
    pub fn withhold(
        &mut self,
        epoch: StreamEpoch,
        header: &RtpHeader,
        clock_rate: u32,
        now: Instant,
    ) -> Option<Withheld> {
        if self.protection == Protection::Srtp {
            return None;
        }
        let sends = |stream: &&mut OutgoingStream| stream.is_sent_by(epoch, header.ssrc);
        if let Some(stream) = self.streams.iter_mut().find(sends) {
            let (after, ahead) = stream.withhold(header, now)?;
            return Some(Withheld { ssrc: stream.ssrc, after, ahead });
        }
        // The hop is new: later packets continue from here.
        let _kept_back = self.pass(epoch, header, clock_rate, now);
        None
    }

    /// Withholds one packet of a stream that passes; [`withhold`](Self::withhold) is for streams that do not pass at all. Losses beside it
    /// remain visible to the client. Returns false if the packet has to pass: later ones have, or the client knows no stream that it
    /// continues.
    pub fn withhold_between(
        &mut self,
        epoch: StreamEpoch,
        header: &RtpHeader,
        now: Instant,
    ) -> bool {
        let sends = |stream: &&mut OutgoingStream| stream.is_sent_by(epoch, header.ssrc);
        self.protection != Protection::Srtp
            && self
                .streams
                .iter_mut()
                .find(sends)
                .is_some_and(|it| it.withhold_between(header, now))
    }

    /// Handles the first packet of a source of the present hop.
    fn join(
        &mut self,
        header: &RtpHeader,
        clock_rate: u32,
        repaired: Option<u32>,
        now: Instant,
    ) -> Pass {
        let (epoch, previous, protection) = (self.epoch, self.previous, self.protection);
        self.joined = true;
        if let Some(stream) = self.went_on(header, clock_rate, now) {
            stream.go_on(epoch, previous);
            // Withheld packets are not missing.
            stream.close_up(header);
            stream.note_missing_before(header, now);
            let pass = stream.pass(epoch, header, protection, now);
            stream.count_from_here();
            return pass;
        }
        let (lead, left) = (self.lead, self.left);
        let index = match self.place(header, clock_rate, repaired, now) {
            Placement::Continues(index) => index,
            Placement::Begins(ssrc) => return self.begin(ssrc, header, clock_rate, now),
            Placement::Surplus => {
                self.surplus_at = Some(now);
                return Pass::Surplus;
            }
        };
        let stream = &mut self.streams[index];
        stream.clock_rate = clock_rate;
        if stream.epoch() == epoch {
            // A source that ended has lost nothing.
            let pass = stream.take_over(epoch, header, None, now);
            stream.previous = None;
            return pass;
        }
        let paused = left.is_some_and(|(planned, since)| stream.paused(since, planned, now));
        let before = stream.highest;
        let pass = stream.take_over(epoch, header, Some(lead), now);
        if !paused {
            stream.note_skipped(before, now);
        }
        pass
    }

    /// Finds the stream that continues by itself: same SSRC, and numbers that follow those before
    /// the switch.
    fn went_on(
        &mut self,
        header: &RtpHeader,
        clock_rate: u32,
        now: Instant,
    ) -> Option<&mut OutgoingStream> {
        let (epoch, protection) = (self.epoch, self.protection);
        self.streams.iter_mut().find(|stream| {
            stream.epoch() != epoch
                && stream.is_from(header.ssrc)
                && stream.clock_rate == clock_rate
                && (protection == Protection::Srtp || stream.is_followed_by(header, now))
        })
    }

    /// Finds the stream of the previous sender that this source most likely continues.
    /// `may_continue` tells so of an SSRC towards the client.
    fn orphan(
        &self,
        header: &RtpHeader,
        clock_rate: u32,
        may_continue: impl Fn(u32) -> bool,
    ) -> Option<usize> {
        if self.protection == Protection::Srtp {
            return None;
        }
        let orphans = || {
            let streams = self.streams.iter().enumerate();
            streams.filter(|(_, stream)| stream.epoch() != self.epoch && may_continue(stream.ssrc))
        };
        let latest = orphans().map(|(_, stream)| stream.last_packet_at).max()?;
        // If some stream has this payload type, an equal clock rate alone proves nothing:
        // retransmissions share the clock of the stream they repair.
        let known = self.streams.iter().any(|stream| stream.payload_type == header.payload_type);
        orphans()
            .filter_map(|(index, stream)| {
                let same_type = stream.payload_type == header.payload_type;
                let same_clock = stream.clock_rate == clock_rate;
                let same_ssrc = same_clock && stream.is_from(header.ssrc);
                let active = latest.duration_since(stream.last_packet_at) <= ACTIVE_WITHIN;
                let earlier = std::cmp::Reverse(index);
                let fits = same_type || (same_clock && !known);
                fits.then_some((same_ssrc, same_type, active, earlier))
            })
            .max()
            .map(|(_, _, _, std::cmp::Reverse(index))| index)
    }

    fn begin(&mut self, ssrc: u32, header: &RtpHeader, clock_rate: u32, now: Instant) -> Pass {
        let sequence = match self.protection {
            Protection::Terminated => header.sequence % FIRST_SEQUENCE_END,
            Protection::Clear | Protection::Srtp => header.sequence,
        };
        let stream = OutgoingStream::begin(self.epoch, header, (ssrc, sequence), clock_rate, now);
        let pass = stream.numbers_of(header);
        // The SSRCs of announced streams are never used anew, and they are few.
        if self.streams.len() < STREAMS_MAX || self.announced.is_some() {
            // Reserves one element: most sessions have one or two streams for life.
            self.streams.reserve_exact(1);
            self.streams.push(stream);
        } else if let Some(oldest) =
            self.streams.iter_mut().min_by_key(|stream| stream.last_packet_at)
        {
            self.missed = self.missed.saturating_add(oldest.missed(now + FILLED_WITHIN));
            *oldest = stream;
        }
        pass
    }

    /// Returns `wanted`, unless another stream of the client uses it.
    fn free_ssrc(&mut self, wanted: u32) -> u32 {
        let mut ssrc = wanted;
        while self.streams.iter().any(|stream| stream.ssrc == ssrc) {
            ssrc = self.draw();
        }
        ssrc
    }

    /// Draws the next number of SplitMix64. It need not be secret, only unlikely to collide.
    fn draw(&mut self) -> u32 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed >> 32) as u32
    }

    /// Rewrites RTCP of the hop of `epoch` for the client. Returns the length of the result.
    ///
    /// Sender reports follow the mapping of their stream. A report of a stream without a mapping,
    /// or with a newer one, is removed: an NTP/RTP pair of another mapping would break lip sync.
    /// The CNAME of a sender that took over a stream is removed as well. From a hop that was left,
    /// only sender reports of streams that it still delivers pass: it no longer receives the
    /// client, and its BYE does not end the stream.
    ///
    /// # Errors
    /// Fails if nothing remains.
    pub fn rtcp_to_client(
        &mut self,
        epoch: StreamEpoch,
        compound: &mut [u8],
    ) -> Result<usize, FeedbackDrop> {
        if epoch < self.epoch && Some(epoch) != self.previous {
            return Err(FeedbackDrop::Stale);
        }
        if self.protection == Protection::Srtp {
            return Ok(compound.len());
        }
        let is_left = epoch < self.epoch;
        let streams = &mut self.streams;
        let (mut left_out, mut has_content) = (false, false);
        let length = rewrite(compound, |packet| {
            let kept = match payload_type(packet) {
                SENDER_REPORT => {
                    let kept = sender_report(streams, epoch, packet);
                    left_out |= kept == 0;
                    if is_left { retain_blocks(&mut packet[..kept], |_| false) } else { kept }
                }
                SOURCE_DESCRIPTION => {
                    return retain_described(packet, |ssrc| match sent_by(streams, epoch, ssrc) {
                        Some(stream) => (!stream.present.took_over).then_some(stream.ssrc),
                        None => (!left_out && !is_left).then_some(ssrc),
                    });
                }
                _ if is_left => 0,
                BYE => retain_leaving(packet, |ssrc| {
                    sent_by(streams, epoch, ssrc).map(|stream| stream.ssrc)
                }),
                _ => {
                    let sender = ssrc(packet).and_then(|ssrc| sent_by(streams, epoch, ssrc));
                    if let Some(stream) = sender {
                        set_ssrc(packet, stream.ssrc);
                    }
                    packet.len()
                }
            };
            has_content |= kept > 0;
            kept
        });
        finish(length, has_content)
    }

    /// Rewrites the client's RTCP for the present hop. Returns the length of the result.
    ///
    /// Reports, extended ones included (RFC 3611), NACKs, loss notifications and key-frame requests are translated to that hop's streams and
    /// numbers. Feedback on an earlier sender's packets is removed, as are losses counted for that sender, and selections of its pictures
    /// (RFC 4585, section 6.3.3) until a [key frame](Self::note_key_frame) of the present one.
    ///
    /// # Errors
    /// Fails if nothing remains.
    pub fn rtcp_to_node(&mut self, compound: &mut [u8]) -> Result<usize, FeedbackDrop> {
        if self.protection == Protection::Srtp {
            return Ok(compound.len());
        }
        let epoch = self.epoch;
        let streams = &mut self.streams;
        let mut has_content = false;
        let length = rewrite(compound, |packet| {
            let kept = match (payload_type(packet), count(packet)) {
                (SENDER_REPORT | RECEIVER_REPORT, _) => {
                    retain_blocks(packet, |block| match known_as(streams, block.ssrc) {
                        Some(stream) => report_block(stream, epoch, block),
                        None => true,
                    })
                }
                (TRANSPORT_FEEDBACK, NACK) => {
                    match media_source(packet).and_then(|ssrc| known_as(streams, ssrc)) {
                        Some(stream) => missing(stream, epoch, packet),
                        None => packet.len(),
                    }
                }
                (PAYLOAD_FEEDBACK, RPSI | APPLICATION) => {
                    match media_source(packet).and_then(|ssrc| known_as(streams, ssrc)) {
                        Some(stream) => codec_feedback(stream, epoch, packet),
                        None => packet.len(),
                    }
                }
                (EXTENDED_REPORT, _) => {
                    extended::retain_extended(packet, |block| extended_block(streams, epoch, block))
                }
                (SOURCE_DESCRIPTION, _) => return packet.len(),
                _ => packet.len(),
            };
            rename_media(&mut packet[..kept], |ssrc| {
                known_as(streams, ssrc).map(|stream| stream.present.node_ssrc)
            });
            has_content |= kept > 0;
            kept
        });
        finish(length, has_content)
    }

    /// Notes that a key frame of the present hop reached the client. `node_ssrc`: the SSRC that the hop sends.
    pub fn note_key_frame(&mut self, node_ssrc: u32) {
        let epoch = self.epoch;
        let sends = |stream: &&mut OutgoingStream| stream.is_sent_by(epoch, node_ssrc);
        if let Some(stream) = self.streams.iter_mut().find(sends) {
            stream.present.awaits_key_frame = false;
        }
    }

    /// Gives sources the SSRCs that were announced, from their first packet on. A client without m-lines, now and before, gets the
    /// SSRCs of the sources.
    ///
    /// The streams of m-lines that the client turned off remain, since no number of an SSRC is used twice.
    pub fn announce(&mut self, announced: Arc<AnnouncedStreams>) {
        if announced.sections.is_empty() && self.announced.is_none() {
            return;
        }
        self.streams.retain(|stream| announced.has_announced(stream.ssrc));
        self.announced = Some(announced);
    }

    /// Returns the SSRC that was announced for the parity of this stream; `None` for a client without m-lines.
    pub fn parity_ssrc(&self, ssrc: u32) -> Option<u32> {
        let announced = self.announced.as_ref()?;
        Some(announced.parity_ssrc(announced.section(ssrc)?.index))
    }

    /// Returns whether the client turned off the m-line of the stream at this place.
    fn is_held(&self, index: usize) -> bool {
        let ssrc = self.streams[index].ssrc;
        self.announced.as_ref().is_some_and(|announced| announced.section(ssrc).is_none())
    }

    /// Finds a place for a new source, which sends retransmissions of the stream with the SSRC `repaired` if there is one.
    fn place(
        &mut self,
        header: &RtpHeader,
        clock_rate: u32,
        repaired: Option<u32>,
        now: Instant,
    ) -> Placement {
        match (self.announced.clone(), repaired) {
            (None, _) => self.place_anywhere(header, clock_rate),
            (Some(announced), Some(repaired)) => self.place_beside(repaired, &announced),
            (Some(announced), None) => self.place_on_m_line(header, clock_rate, &announced, now),
        }
    }

    fn place_anywhere(&mut self, header: &RtpHeader, clock_rate: u32) -> Placement {
        match self.orphan(header, clock_rate, |_| true) {
            Some(index) => Placement::Continues(index),
            None if self.protection == Protection::Srtp => Placement::Begins(header.ssrc),
            None => Placement::Begins(self.free_ssrc(header.ssrc)),
        }
    }

    fn place_beside(&self, repaired: u32, announced: &AnnouncedStreams) -> Placement {
        let Some(ssrc) = announced.retransmissions_of(repaired) else { return Placement::Surplus };
        self.stream_of(ssrc).map_or(Placement::Begins(ssrc), Placement::Continues)
    }

    fn place_on_m_line(
        &self,
        header: &RtpHeader,
        clock_rate: u32,
        announced: &AnnouncedStreams,
        now: Instant,
    ) -> Placement {
        let admits =
            |section: &&AnnouncedSection| section.payload_types.contains(&header.payload_type);
        let is_of_sender = |section: &&AnnouncedSection| {
            section.sender.as_ref().is_some_and(|sender| sender.ssrcs.contains(&header.ssrc))
        };
        // A node that keeps the SSRCs of senders.
        let of_sender = announced.sections().filter(admits).find(is_of_sender);
        if let Some(ssrc) = of_sender.map(|section| announced.ssrc(section.index)) {
            if let Some(index) = self.orphan(header, clock_rate, |other| other == ssrc) {
                return Placement::Continues(index);
            }
            if self.stream_of(ssrc).is_none() {
                return Placement::Begins(ssrc);
            }
        }
        let ssrcs = || announced.sections().filter(admits).map(|it| announced.ssrc(it.index));
        let is_admitting = |ssrc| ssrcs().any(|admitting| admitting == ssrc);
        if let Some(index) = self.orphan(header, clock_rate, is_admitting) {
            return Placement::Continues(index);
        }
        if let Some(ssrc) = ssrcs().find(|ssrc| self.stream_of(*ssrc).is_none()) {
            return Placement::Begins(ssrc);
        }
        let last = |index: usize| self.streams[index].last_packet_at;
        // Before this packet: if the node sent nothing at all, no source has ended.
        let newest = (0..self.streams.len()).map(last).chain(self.surplus_at).max().unwrap_or(now);
        let ended = ssrcs()
            .filter_map(|ssrc| self.stream_of(ssrc))
            .filter(|index| newest.saturating_duration_since(last(*index)) >= ENDED_AFTER);
        ended.min_by_key(|index| last(*index)).map_or(Placement::Surplus, Placement::Continues)
    }

    fn stream_of(&self, ssrc: u32) -> Option<usize> {
        self.streams.iter().position(|stream| stream.ssrc == ssrc)
    }

    /// Assigns outgoing numbers to a retransmission, as [`pass`](Self::pass) does, and to the packet that it contains. The
    /// verdict is [`Pass::Stale`] if the client got no such packet of the sender: its number is that of another packet there.
    ///
    /// `header` is that of the retransmission, which has the timestamp of the lost packet (RFC 4588, section 4), and `sequence` is the
    /// original number in its payload. The lost packet had a payload type for which `is_repaired` returns true, and the same clock rate.
    pub fn pass_retransmission(
        &mut self,
        epoch: StreamEpoch,
        header: &RtpHeader,
        sequence: u16,
        clock_rate: u32,
        is_repaired: impl Fn(u8) -> bool,
        now: Instant,
    ) -> (Pass, Option<OriginalNumbers>) {
        let original = self.original(epoch, header, sequence, clock_rate, is_repaired);
        match original {
            Some(OriginalNumbers { ssrc, .. }) => {
                let pass = self.pass_from(epoch, header, clock_rate, Some(ssrc), now);
                (pass, original)
            }
            None => {
                // The node did send it.
                let of = |stream: &&mut OutgoingStream| stream.is_sent_by(epoch, header.ssrc);
                if let Some(stream) = self.streams.iter_mut().find(of) {
                    stream.withhold(header, now);
                }
                (Pass::Stale, None)
            }
        }
    }

    /// Returns the client's numbers of the packet that a retransmission contains; the arguments are those of
    /// [`pass_retransmission`](Self::pass_retransmission). `None` if the client got no such packet of the sender.
    pub fn original(
        &self,
        epoch: StreamEpoch,
        header: &RtpHeader,
        sequence: u16,
        clock_rate: u32,
        is_repaired: impl Fn(u8) -> bool,
    ) -> Option<OriginalNumbers> {
        let lost = RtpHeader { sequence, ..*header };
        let index = self.repaired(epoch, header.ssrc, &lost, clock_rate, is_repaired)?;
        self.streams[index].original(&lost)
    }

    /// Finds the stream of a lost packet: that of the m-line on which the source of retransmissions has its place, or one with
    /// such a number and time.
    fn repaired(
        &self,
        epoch: StreamEpoch,
        source: u32,
        lost: &RtpHeader,
        clock_rate: u32,
        is_repaired: impl Fn(u8) -> bool,
    ) -> Option<usize> {
        let placed = self.streams.iter().find(|stream| stream.is_sent_by(epoch, source));
        let ssrc = placed.zip(self.announced.as_ref()).and_then(|(placed, announced)| {
            announced.section(placed.ssrc).map(|section| announced.ssrc(section.index))
        });
        let may_be = |stream: &OutgoingStream| {
            stream.is_sent_by(epoch, stream.present.node_ssrc)
                && stream.clock_rate == clock_rate
                && is_repaired(stream.payload_type)
                && ssrc.is_none_or(|ssrc| stream.ssrc == ssrc)
                && stream.is_near(stream.present.numbers(lost).1)
        };
        let streams = self.streams.iter().enumerate().filter(|(_, stream)| may_be(stream));
        let highest = |(index, stream): (usize, &OutgoingStream)| {
            (index, stream.present.node_sequence(stream.highest) as u16)
        };
        retransmission::repaired(lost.sequence, streams.map(highest))
    }
}

/// Fails for a compound packet with only a source description, which carries no information.
fn finish(length: Result<usize, RtcpError>, has_content: bool) -> Result<usize, FeedbackDrop> {
    match length {
        Ok(length) if has_content => Ok(length),
        Ok(_) => Err(FeedbackDrop::Empty),
        Err(reason) => Err(FeedbackDrop::Malformed(reason)),
    }
}

fn sent_by(
    streams: &[OutgoingStream],
    epoch: StreamEpoch,
    node_ssrc: u32,
) -> Option<&OutgoingStream> {
    streams.iter().find(|stream| stream.is_sent_by(epoch, node_ssrc))
}

fn known_as(streams: &mut [OutgoingStream], ssrc: u32) -> Option<&mut OutgoingStream> {
    streams.iter_mut().find(|stream| stream.ssrc == ssrc)
}

/// Rewrites a sender report for the client; returns 0 to remove it.
fn sender_report(streams: &mut [OutgoingStream], epoch: StreamEpoch, packet: &mut [u8]) -> usize {
    let Some(mut info) = sender_info(packet) else { return 0 };
    let sender = streams.iter_mut().find(|stream| stream.is_sent_by(epoch, info.ssrc));
    let Some(stream) = sender else { return 0 };
    let reports = &mut stream.reports;
    if stream.present.took_over {
        // The node counts packets since its start, the client since the start of the stream.
        info.packets = reports.packets.wrapping_add(reports.packets_before);
        info.octets = reports.octets.wrapping_add(reports.octets_before);
    } else {
        reports.packets_before = info.packets.wrapping_sub(reports.packets);
        reports.octets_before = info.octets.wrapping_sub(reports.octets);
    }
    reports.times.rotate_right(1);
    reports.times[0] = (info.ntp >> 16) as u32;
    info.ssrc = stream.ssrc;
    info.timestamp = info.timestamp.wrapping_add(stream.present.timestamp);
    set_sender_info(packet, &info);
    packet.len()
}

/// Rewrites a report block about `stream` for the node; returns false to remove it.
fn report_block(stream: &mut OutgoingStream, epoch: StreamEpoch, block: &mut ReportBlock) -> bool {
    stream.reports.lost = block.lost;
    if stream.is_untouched() {
        return true;
    }
    let Some(sequence_max) = node_number(stream, epoch, block.sequence_max as u16) else {
        return false;
    };
    block.ssrc = stream.present.node_ssrc;
    block.sequence_max = sequence_max;
    block.lost = block.lost.saturating_sub(stream.reports.lost_before);
    if !stream.reports.times.contains(&block.last_sr) {
        (block.last_sr, block.delay_since_last_sr) = (0, 0);
    }
    true
}

/// Returns the number that the node gave to this packet of the client's; `None` if another hop, or an earlier sender, sent it.
fn node_number(stream: &OutgoingStream, epoch: StreamEpoch, sequence: u16) -> Option<u32> {
    let behind = (stream.highest as u16).wrapping_sub(sequence).cast_signed();
    let number = stream.highest.wrapping_sub_signed(behind.into());
    let is_own = number.wrapping_sub(stream.present.first).cast_signed() >= 0;
    (stream.epoch() == epoch && is_own).then(|| stream.present.node_sequence(number))
}

/// Rewrites a selection of a picture or a loss notification about `stream` for the node; returns 0 to remove it.
fn codec_feedback(stream: &OutgoingStream, epoch: StreamEpoch, packet: &mut [u8]) -> usize {
    if stream.is_untouched() {
        return packet.len();
    }
    if count(packet) == RPSI {
        let is_known = stream.epoch() == epoch && !stream.present.awaits_key_frame;
        return if is_known { packet.len() } else { 0 };
    }
    translate_notification(packet, |decoded| {
        node_number(stream, epoch, decoded).map(|number| number as u16)
    })
}

/// Rewrites a block of an extended report for the node; returns false to remove it.
fn extended_block(streams: &mut [OutgoingStream], epoch: StreamEpoch, block: &mut [u8]) -> bool {
    let Some(source) = extended::source(block) else {
        extended::rename_receivers(block, |ssrc| {
            known_as(streams, ssrc).map(|stream| stream.present.node_ssrc)
        });
        return true;
    };
    let Some(stream) = known_as(streams, source).filter(|stream| !stream.is_untouched()) else {
        return true;
    };
    // Other blocks have times of the stream, or are about the senders before, too.
    let Some(first) = extended::first_number(block) else { return false };
    node_number(stream, epoch, first).is_some_and(|number| {
        extended::move_numbers(block, stream.present.node_ssrc, (number as u16).wrapping_sub(first))
    })
}

/// Rewrites a NACK about `stream` for the node; returns 0 if it lists no packet that the node sent.
fn missing(stream: &OutgoingStream, epoch: StreamEpoch, packet: &mut [u8]) -> usize {
    if stream.is_untouched() {
        return packet.len();
    }
    if stream.epoch() != epoch {
        return 0;
    }
    let since_oldest = stream.highest.wrapping_sub(stream.present.oldest()).cast_signed();
    retain_missing(packet, |first, mask| {
        let behind = (stream.highest as u16).wrapping_sub(first).cast_signed();
        // The number of packets, of the 17 from `first`, that precede the sender's first packet, or the last gap that was closed.
        let before = (i32::from(behind) - since_oldest).clamp(0, 17);
        let number = stream.highest.wrapping_sub_signed(behind.into());
        (stream.present.node_sequence(number) as u16, mask >> before << before)
    })
}

#[cfg(test)]
mod tests;
