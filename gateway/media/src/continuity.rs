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

use crate::rtp;
use evenkeel_instant as instant;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::{Duration, Instant};

mod announced;
mod feedback;
mod numbers;
mod original;
mod pace;
mod placement;
mod protection;
mod stream;
mod withheld;

use announced::Placement;
pub use announced::{AnnouncedSection, AnnouncedStreams};
pub use feedback::FeedbackDrop;
pub use numbers::FILLED_WITHIN;
pub use original::OriginalNumbers;
pub use protection::Protection;
use stream::OutgoingStream;
pub(crate) use stream::STREAMS_MAX;
pub use stream::{Pass, StreamEpoch};

/// First sequence numbers of SRTP are below this one: a receiver that loses the first packets would
/// otherwise take those after a wrap for the same cycle (RFC 3711, section 3.3.1).
const FIRST_SEQUENCE_END: u16 = 1 << 15;

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
    /// Comes with the session, not with a copy of its state.
    #[serde(skip)]
    announced: Option<Arc<AnnouncedStreams>>,
    /// Time of the last packet for which the client had no m-line.
    #[serde(skip)]
    surplus_at: Option<Instant>,
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
            announced: None,
            surplus_at: None,
        }
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
        header: &rtp::RtpHeader,
        clock_rate: u32,
        now: Instant,
    ) -> Pass {
        self.pass_from(epoch, header, clock_rate, None, now)
    }

    fn pass_from(
        &mut self,
        epoch: StreamEpoch,
        header: &rtp::RtpHeader,
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
        header: &rtp::RtpHeader,
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

    /// Handles the first packet of a source of the present hop.
    fn join(
        &mut self,
        header: &rtp::RtpHeader,
        clock_rate: u32,
        repaired: Option<u32>,
        now: Instant,
    ) -> Pass {
        let (epoch, previous, protection) = (self.epoch, self.previous, self.protection);
        if let Some(stream) = self.went_on(header, clock_rate, now) {
            stream.go_on(epoch, previous);
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
        header: &rtp::RtpHeader,
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
        header: &rtp::RtpHeader,
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

    fn begin(&mut self, ssrc: u32, header: &rtp::RtpHeader, clock_rate: u32, now: Instant) -> Pass {
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
}

/// A stream whose last packet is older than this, measured at the session's last packet, has ended.
/// Silent voice sends a packet every 400 ms.
const ACTIVE_WITHIN: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests;
