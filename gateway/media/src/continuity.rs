//! A client must not notice that its sender changed.
//!
//! One [`Continuity`] stands between the nodes of one session and its client. It gives every packet
//! its outgoing numbers. A node that goes on with the same stream passes untouched; for another
//! stream, sequence numbers and timestamps go on where the old sender left them, under the SSRC the
//! client knows:
//!
//! - **Sequence numbers** skip what was lost: the silence divided by the usual distance of frames,
//!   times the usual packets of a frame. A silence of voice (DTX) is no loss; a video frame that the
//!   old sender left unfinished is lost, unless the new one goes on within half a frame.
//! - **Timestamps** advance by the silence; voice stays on its own grid, as decoders count samples.
//! - **Make-before-break**: until [`close_previous`](Continuity::close_previous) packets of the hop
//!   before still pass by their old mapping, into the numbers kept free for them; never twice, never
//!   under a number that is taken.
//! - **Several sources** are told apart by payload type, then clock rate, and by which was active.
//!   Which of several equal ones a new stream continues cannot be seen in RTP.
//! - **A source that restarts by itself**, without a switch, is a new stream here as it would be
//!   without a gateway.
//! - **RTCP** follows the same mapping, both ways ([`Continuity::rtcp_to_client`],
//!   [`Continuity::rtcp_to_node`]).
//!
//! A hop is an [`Epoch`]: each switch begins a new one, also back to a node that was left before.

use crate::rtp;
use std::time::{Duration, Instant};

mod feedback;
mod missing;
mod pace;
mod recent;
mod stream;

pub use feedback::Dropped;

use stream::Stream;

/// How many streams of a session are followed: a conference's active speakers with their video.
/// Beyond it the one silent for longest is forgotten.
pub const STREAMS_MAX: usize = 16;

/// What is missing at a switch may come so much later: as long as a make-before-break lasts.
pub const FILLED_WITHIN: Duration = Duration::from_millis(500);

/// How far ahead of the last packet a stream may go on by itself across a switch: MAX_DROPOUT of
/// RFC 3550, appendix A.1.
pub const AHEAD_MAX: i16 = 3_000;

/// How far behind it may: MAX_MISORDER of RFC 3550, appendix A.1.
pub const BEHIND_MAX: i16 = 100;

/// A time of one hop: from one switch to the next. Only grows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Epoch(pub u64);

/// Whether packets may be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protection {
    /// Plain RTP and RTCP.
    Clear,
    /// SRTP and SRTCP whose keys are held elsewhere: any change would break their authentication,
    /// so all that passes, passes untouched.
    Srtp,
}

/// Why a hop changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Switch {
    /// The hop before fails; what it still delivers is welcome but not waited for.
    Failover,
    /// A planned move: the hop before still delivers what it was sent.
    Planned {
        /// How much sooner the new way delivers than the old one, 0 if later or unknown. Numbers
        /// are kept free for what may still come in that time; more than needed looks like loss.
        lead: Duration,
    },
}

/// What to do with a packet towards the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pass {
    /// Send it as it is.
    Untouched,
    /// Send it with these numbers.
    Rewrite {
        /// The SSRC the client knows.
        ssrc: u32,
        /// The next sequence number for the client.
        sequence: u16,
        /// The timestamp on the client's time line.
        timestamp: u32,
    },
    /// Drop it: its hop is closed, or began something after it was left.
    Stale,
    /// Drop it: it passed before, or around a switch another packet has its number.
    Duplicate,
}

/// The place of a packet that was kept from the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Withheld {
    /// The stream's SSRC towards the client.
    pub ssrc: u32,
    /// The sequence number of the last packet that was passed.
    pub after: u16,
    /// How many places behind that it had.
    pub ahead: u32,
}

/// Keeps a session's streams continuous towards its client. See the [module](self).
///
/// Takes memory when a stream is new, never for a packet.
#[derive(Clone, Debug)]
pub struct Continuity {
    protection: Protection,
    /// State of the generator of fresh SSRCs.
    random: u64,
    epoch: Epoch,
    /// The hop before, while its packets still pass.
    previous: Option<Epoch>,
    lead: Duration,
    /// Since when the hop before is silent or left, and whether that was planned.
    left: Option<(Instant, bool)>,
    /// Packets of streams that are forgotten that were missing when another hop went on.
    missed: u32,
    streams: Vec<Stream>,
}

impl Continuity {
    /// Continuity for a session that has not begun. Fresh SSRCs are drawn from `seed`.
    #[must_use]
    pub fn new(seed: u64, protection: Protection) -> Self {
        Self {
            protection,
            random: seed,
            epoch: Epoch::default(),
            previous: None,
            lead: Duration::ZERO,
            left: None,
            missed: 0,
            streams: Vec::new(),
        }
    }

    /// The hop changed. What the hop before still delivers passes until
    /// [`close_previous`](Self::close_previous); what the one before that delivers is stale.
    ///
    /// An epoch that is not newer changes nothing. The first packet of a newer epoch says the same
    /// as a [`Switch::Failover`].
    pub fn switched(&mut self, epoch: Epoch, switch: Switch) {
        if epoch > self.epoch {
            self.previous = Some(self.epoch);
            self.epoch = epoch;
            self.left = None;
            self.lead = match switch {
                Switch::Failover => Duration::ZERO,
                Switch::Planned { lead } => lead,
            };
        }
    }

    /// The hop before is dead, or was left as planned, since then. A source that was silent before that, or fell silent
    /// while the hop that was left still delivered, paused: its silence is no loss. Holds until the next switch.
    pub fn left(&mut self, since: Instant, planned: bool) {
        self.left = Some((since, planned));
    }

    /// Another hop goes on in the place of the present one with copies of what it sent. What neither of the two delivered
    /// by then is missing.
    pub fn turned(&mut self) {
        self.streams.iter_mut().for_each(|stream| stream.turned = true);
    }

    /// From now on packets of the hop before are stale: 500 ms after a planned move, at once when a
    /// node that was taken for dead could come back with old packets.
    pub fn close_previous(&mut self) {
        self.previous = None;
    }

    /// Gives a packet of the hop of `epoch` its outgoing numbers.
    ///
    /// `clock_rate` is that of its payload type in Hz; 0 where unknown, then timestamps advance by
    /// frames only.
    #[must_use]
    pub fn pass(
        &mut self,
        epoch: Epoch,
        header: &rtp::Header,
        clock_rate: u32,
        now: Instant,
    ) -> Pass {
        self.switched(epoch, Switch::Failover);
        if self.is_closed(epoch) {
            return Pass::Stale;
        }
        let pass = match self.stream_of(epoch, header.ssrc) {
            Some(index) => self.streams[index].pass(epoch, header, now),
            None if epoch != self.epoch => return Pass::Stale,
            None => self.join(header, clock_rate, now),
        };
        match (self.protection, pass) {
            (Protection::Srtp, Pass::Rewrite { .. }) => Pass::Untouched,
            _ => pass,
        }
    }

    /// When a packet was last passed, of whichever stream, if what came to an end `since` then explains that it was the
    /// last one. None where all had fallen silent before.
    #[must_use]
    pub fn fell_silent(&self, since: Instant) -> Option<Instant> {
        let last = self.streams.iter().max_by_key(|stream| stream.heard)?;
        last.spoke_until(since).then_some(last.heard)
    }

    /// Packets that were missing whenever another hop went on with a stream, so far: of one that goes on by itself by
    /// number, else as the silence and the usual distance of packets tell. A switch counts [`FILLED_WITHIN`] after it,
    /// without what came by then.
    #[must_use]
    pub fn missed_at_switches(&self, now: Instant) -> u32 {
        let missed = self.streams.iter().map(|stream| stream.missed(now));
        missed.fold(self.missed, u32::saturating_add)
    }

    /// Packets that nodes should have sent since this was last asked, by their own numbers, and those of them that did
    /// not come. What was kept back on purpose counts as neither.
    pub fn arrivals(&mut self) -> (u32, u32) {
        self.streams.iter_mut().map(Stream::arrivals).fold((0, 0), |(expected, lost), stream| {
            (expected.saturating_add(stream.0), lost.saturating_add(stream.1))
        })
    }

    /// The clock rate in Hz of the stream that the client knows by this SSRC.
    #[must_use]
    pub fn clock_rate(&self, ssrc: u32) -> Option<u32> {
        let stream = self.streams.iter().find(|stream| stream.ssrc == ssrc);
        stream.map(|stream| stream.clock_rate)
    }

    /// A packet of the present hop that must not reach the client. Those that pass later close up over it: what is kept
    /// back on purpose must not look like loss. `None` where the client knows no stream that it goes on with.
    pub fn withhold(
        &mut self,
        epoch: Epoch,
        header: &rtp::Header,
        clock_rate: u32,
        now: Instant,
    ) -> Option<Withheld> {
        if self.protection == Protection::Srtp {
            return None;
        }
        let sends = |stream: &&mut Stream| stream.is_sent_by(epoch, header.ssrc);
        if let Some(stream) = self.streams.iter_mut().find(sends) {
            let (after, ahead) = stream.withhold(header, now)?;
            return Some(Withheld { ssrc: stream.ssrc, after, ahead });
        }
        // Its hop is new: what passes later goes on from here.
        let _kept_back = self.pass(epoch, header, clock_rate, now);
        None
    }

    fn is_closed(&self, epoch: Epoch) -> bool {
        epoch != self.epoch && Some(epoch) != self.previous
    }

    fn stream_of(&self, epoch: Epoch, ssrc: u32) -> Option<usize> {
        self.streams.iter().position(|stream| stream.carries(epoch, ssrc))
    }

    /// A source of the present hop is heard for the first time.
    fn join(&mut self, header: &rtp::Header, clock_rate: u32, now: Instant) -> Pass {
        let (epoch, previous) = (self.epoch, self.previous);
        if let Some(stream) = self.went_on(header, clock_rate, now) {
            stream.go_on(epoch, previous);
            stream.note_missing_before(header, now);
            let pass = stream.pass(epoch, header, now);
            stream.count_from_here();
            return pass;
        }
        let (lead, left) = (self.lead, self.left);
        if let Some(index) = self.orphan(header, clock_rate) {
            let stream = &mut self.streams[index];
            let paused = left.is_some_and(|(since, planned)| stream.paused(since, planned, now));
            let before = stream.highest;
            let pass = stream.take_over(epoch, header, lead, now);
            if !paused {
                stream.note_skipped(before, now);
            }
            return pass;
        }
        self.begin(header, clock_rate, now)
    }

    /// The stream that goes on by itself: same SSRC, numbers that follow those before the switch.
    fn went_on(
        &mut self,
        header: &rtp::Header,
        clock_rate: u32,
        now: Instant,
    ) -> Option<&mut Stream> {
        let (epoch, protection) = (self.epoch, self.protection);
        self.streams.iter_mut().find(|stream| {
            stream.epoch() != epoch
                && stream.is_from(header.ssrc)
                && stream.clock_rate == clock_rate
                && (protection == Protection::Srtp || stream.is_followed_by(header, now))
        })
    }

    /// The stream whose sender was left and that this source most likely continues.
    fn orphan(&self, header: &rtp::Header, clock_rate: u32) -> Option<usize> {
        if self.protection == Protection::Srtp {
            return None;
        }
        let orphans = || {
            let streams = self.streams.iter().enumerate();
            streams.filter(|(_, stream)| stream.epoch() != self.epoch)
        };
        let latest = orphans().map(|(_, stream)| stream.heard).max()?;
        // Where the payload type is that of some stream, the clock rate alone is no sign of kinship:
        // a stream of retransmissions has the clock of what it repeats.
        let known = self.streams.iter().any(|stream| stream.payload_type == header.payload_type);
        orphans()
            .filter_map(|(index, stream)| {
                let same_type = stream.payload_type == header.payload_type;
                let same_clock = stream.clock_rate == clock_rate;
                let same_ssrc = same_clock && stream.is_from(header.ssrc);
                let active = latest.duration_since(stream.heard) <= ACTIVE_WITHIN;
                let earlier = std::cmp::Reverse(index);
                let fits = same_type || (same_clock && !known);
                fits.then_some((same_ssrc, same_type, active, earlier))
            })
            .max()
            .map(|(_, _, _, std::cmp::Reverse(index))| index)
    }

    /// A stream nobody sent before.
    fn begin(&mut self, header: &rtp::Header, clock_rate: u32, now: Instant) -> Pass {
        let ssrc = match self.protection {
            Protection::Clear => self.free_ssrc(header.ssrc),
            Protection::Srtp => header.ssrc,
        };
        let stream = Stream::begin(self.epoch, header, ssrc, clock_rate, now);
        let pass = stream.numbers_of(header);
        if self.streams.len() < STREAMS_MAX {
            // One at a time: most sessions have one or two for life.
            self.streams.reserve_exact(1);
            self.streams.push(stream);
        } else if let Some(oldest) = self.streams.iter_mut().min_by_key(|stream| stream.heard) {
            self.missed = self.missed.saturating_add(oldest.missed(now + FILLED_WITHIN));
            *oldest = stream;
        }
        pass
    }

    /// `wanted`, unless the client knows another stream by it.
    fn free_ssrc(&mut self, wanted: u32) -> u32 {
        let mut ssrc = wanted;
        while self.streams.iter().any(|stream| stream.ssrc == ssrc) {
            ssrc = self.draw();
        }
        ssrc
    }

    /// The next number of SplitMix64: no secret, only unlikely to meet another source's.
    fn draw(&mut self) -> u32 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed >> 32) as u32
    }
}

/// A stream heard this long before the last one is taken for one that had already ended: longer than
/// the 400 ms between packets of silent voice.
const ACTIVE_WITHIN: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests;
