//! The media of a session that carries packets: the numbers towards the client across hops, and the measurements.

use std::time::Instant;

use evenkeel_instant as instant;
use evenkeel_media::continuity::{Continuity, FILLED_WITHIN, Protection, StreamEpoch, SwitchCause};
use evenkeel_media::merge::HopPair;
use evenkeel_media::quality::Codec;
use evenkeel_media::rtp::RtpHeader;
use evenkeel_model::{
    FlowCounts, Hop, LeftHop, MediaDescription, Metric, RedundancyMode, SessionId, Srtp, StreamKind,
};
use serde::{Deserialize, Serialize};

use super::counts::SessionCounts;
use super::estimate::DownlinkEstimate;
use super::fec::ClientFec;
use super::feedback::SenderFeedback;
use super::layers::{ReceivedLayers, SentLayers};
use super::measurements::{Down, FlowTally, MediaSigns, VoiceMeasurements};
use super::policing::SenderPolicing;
use super::reachability::AddressValidation;
use super::redundancy::Redundancy;
use super::repair::{ClientRepair, KeptForm};
use super::replay::Replay;
use super::rtx::ClientRtx;
use super::srtp::SrtpEnds;
use super::thinning::Thinning;
use crate::worker::egress::PacketContext;
use crate::worker::pacing::SessionPacing;
use crate::worker::report::{MediaCounts, ShedRun, Summary, Totals};
use crate::worker::sockets::RtpSide;

/// The part of a session that is allocated once the session carries packets or has keys of SRTP.
#[derive(Debug)]
pub(super) struct RunningMedia {
    pub(super) state: MediaState,
    pub(super) srtp: SrtpEnds,
    /// Allocated with the first count. The record of the session does not contain them.
    pub(super) counts: Option<Box<SessionCounts>>,
    /// `None` if the client declared `nack` for no stream. The record of the session does not contain it.
    pub(super) repair: Option<Box<ClientRepair>>,
    /// Allocated with the client's first packet, if nodes get packets again. The record of the session does not contain it.
    pub(super) replay: Option<Box<Replay>>,
    /// Present if the client negotiated redundant audio.
    pub(super) redundancy: Option<Box<Redundancy>>,
    /// Present if packets to the client are numbered, or once it reported. The record of the session does not contain it.
    pub(super) estimate: Option<Box<DownlinkEstimate>>,
    /// Present once the client's video was thinned, or if its AV1 has descriptors. The record of the session does not contain it.
    pub(super) thinning: Option<Box<Thinning>>,
    /// Present if the client negotiated parity for its video.
    pub(super) fec: Option<Box<ClientFec>>,
    /// Present if the client negotiated retransmissions in streams of their own. The record of the session does not contain it.
    pub(super) rtx: Option<Box<ClientRtx>>,
    /// Present while the rate to a client over UDP is estimated. The record of the session does not contain it.
    pub(super) pacing: Option<Box<SessionPacing>>,
    /// Present once the client sent more than it may. The record of the session does not contain it.
    pub(super) policing: Option<Box<SenderPolicing>>,
}

/// The part of [`RunningMedia`] that a record contains: another process continues it as it is.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub(super) struct MediaState {
    pub(super) continuity: Continuity,
    pub(super) measurements: VoiceMeasurements,
    pub(super) feedback: SenderFeedback,
    pub(super) current_hop: Option<Hop>,
    /// Number of hops so far.
    pub(super) switches: u32,
    /// The two hops that the client hears in hitless mode.
    pub(super) pair: Option<Box<HopPair<Hop>>>,
    pub(super) totals: Totals,
    /// Packets between client and node since the last summary.
    pub(super) flow: FlowTally,
    /// Packets missing at switches that earlier summaries included.
    pub(super) missed_told: u32,
    /// Shed packets not reported yet, and the time of the first.
    #[serde(with = "instant::paired")]
    pub(super) shed: Option<(ShedRun, Instant)>,
    /// Present until a client at the declared address has reported. Boxed, because few sessions need it for long.
    #[serde(default)]
    pub(super) validation: Option<Box<AddressValidation>>,
    #[serde(default)]
    pub(super) signs: MediaSigns,
    /// Present once a node has sent video in layers.
    #[serde(default)]
    pub(super) layers: Option<Box<ReceivedLayers>>,
    /// Present if the client sends video in layers.
    #[serde(default)]
    pub(super) sent_layers: Option<Box<SentLayers>>,
}

/// The preferred codec of the session's first audio stream.
pub(super) fn voice(media: &MediaDescription) -> Option<Codec> {
    let voice = media.streams.iter().find(|stream| stream.kind == StreamKind::Audio)?;
    voice.payload_types.first().map(|payload| Codec::named(&payload.codec))
}

impl MediaState {
    pub(super) fn new(seed: u64, media: &MediaDescription, needs_report: bool) -> MediaState {
        let protection = match media.srtp {
            Srtp::Plain => Protection::Clear,
            Srtp::Opaque => Protection::Srtp,
            Srtp::Terminated => Protection::Terminated,
        };
        MediaState {
            continuity: Continuity::new(seed, protection),
            measurements: VoiceMeasurements::new(voice(media)),
            feedback: SenderFeedback::new(seed, media),
            current_hop: None,
            switches: 0,
            pair: None,
            totals: Totals::default(),
            flow: FlowTally::default(),
            missed_told: 0,
            shed: None,
            validation: needs_report.then(Box::default),
            signs: MediaSigns::new(media.srtp.is_readable()),
            layers: None,
            sent_layers: None,
        }
    }

    /// Returns whether layers are named in a packet to a node, or have other numbers there.
    #[inline]
    pub(super) fn has_layers(&self, side: RtpSide, kind: StreamKind) -> bool {
        match side {
            RtpSide::Rtp => kind == StreamKind::Video && self.sent_layers.is_some(),
            RtpSide::Rtcp => self.layers.is_some(),
        }
    }

    /// Returns a copy of the part that a record contains: the notes of sent packets are not copied to be dropped.
    pub(super) fn recorded(&mut self) -> MediaState {
        let down = std::mem::take(&mut self.measurements.down);
        let mut copy = self.clone();
        copy.measurements.down = down.iter().map(Down::recorded).collect();
        self.measurements.down = down;
        copy.layers.iter_mut().for_each(|layers| layers.forget_unrecorded());
        copy
    }

    /// The continuity epoch of the hop that the client hears.
    pub(super) fn epoch(&self) -> StreamEpoch {
        StreamEpoch(u64::from(self.switches))
    }

    pub(super) fn totals(&self, now: Instant) -> Totals {
        Totals {
            lost_up: self.measurements.lost_up,
            lost_at_switches: self.continuity.missed_at_switches(now),
            ..self.totals
        }
    }

    /// Sets the hop and resets its counts. Returns the previous hop.
    pub(super) fn set_current_hop(&mut self, hop: Hop) -> Option<Hop> {
        self.flow.forget_hop();
        self.signs.forget_hop();
        self.measurements.forget_hop();
        self.current_hop.replace(hop)
    }
}

impl RunningMedia {
    /// Runs once per session; `#[cold]` keeps it out of the packet path.
    #[cold]
    pub(super) fn new(
        seed: u64,
        media: &MediaDescription,
        needs_report: bool,
    ) -> Box<RunningMedia> {
        let state = MediaState::new(seed, media, needs_report);
        Box::new(RunningMedia::with(state, SrtpEnds::default(), None, media))
    }

    /// Continues this state. The caches, the redundancy and the parity of a session begin empty.
    pub(super) fn with(
        state: MediaState,
        srtp: SrtpEnds,
        counts: Option<Box<SessionCounts>>,
        media: &MediaDescription,
    ) -> RunningMedia {
        let (mut redundancy, mut estimate, mut fec) = (None, None, None);
        let (mut rtx, mut thinning) = (None, None);
        Redundancy::follow(&mut redundancy, media);
        DownlinkEstimate::follow(&mut estimate, media);
        ClientFec::follow(&mut fec, media);
        ClientRtx::follow(&mut rtx, media);
        // The session sets the level.
        Thinning::follow(&mut thinning, media, 0);
        RunningMedia {
            state,
            srtp,
            counts,
            repair: ClientRepair::of(media),
            replay: None,
            redundancy,
            estimate,
            thinning,
            fec,
            rtx,
            pacing: None,
            policing: None,
        }
    }

    /// Makes packets of this hop reach the client from now on. `left`: the hop that the room leaves as planned.
    pub(super) fn switch_to(
        &mut self,
        hop: Hop,
        mode: RedundancyMode,
        left: Option<LeftHop>,
        cx: &PacketContext<'_>,
    ) {
        self.record_recovery(hop, mode, cx);
        let state = &mut self.state;
        let before = state.set_current_hop(hop);
        if let Some(thinning) = &mut self.thinning {
            thinning.forget_hop();
        }
        if before.is_some() {
            state.totals.switches += 1;
            state.feedback.want_key_frame_after_switch();
        }
        state.switches += 1;
        let epoch = state.epoch();
        match left.filter(|left| before == Some(left.hop)) {
            Some(LeftHop { until, lead, .. }) => {
                state.continuity.switched(epoch, SwitchCause::Planned { lead });
                let since = until.checked_sub(FILLED_WITHIN).unwrap_or(until);
                state.continuity.left(since.min(cx.now), true);
            }
            None => {
                state.continuity.switched(epoch, SwitchCause::Failover);
                state.continuity.close_previous();
                // A previous hop that is still up was left by the move before the last.
                let died = before.and_then(|before| cx.board.died(before));
                state.continuity.left(died.unwrap_or(cx.now), died.is_none());
            }
        }
    }

    /// Records, when a hop replaces one that died, for how long the client received nothing. A stream that was silent
    /// before the hop died is skipped: it might have remained silent.
    pub(super) fn record_recovery(
        &mut self,
        to: Hop,
        mode: RedundancyMode,
        cx: &PacketContext<'_>,
    ) {
        let Some(before) = self.state.current_hop.filter(|before| *before != to) else { return };
        let died = cx.board.died(before);
        if let Some(last) = died.and_then(|died| self.state.continuity.fell_silent(died)) {
            let gap = cx.now.saturating_duration_since(last);
            cx.egress.stats.recovered(mode, gap);
            self.counts.get_or_insert_default().note_gap(gap);
        }
    }

    /// Handles a packet of voice to the client; `sent` is its header there. Returns the packet to send instead, if it is to repeat frames, in a
    /// buffer that [`Redundancy::reuse`] takes.
    pub(super) fn repeat_frames(
        &mut self,
        sent: &RtpHeader,
        packet: &[u8],
        now: Instant,
    ) -> Option<Vec<u8>> {
        let redundancy = self.redundancy.as_deref_mut()?;
        let repeating = redundancy.wrap(sent, packet, &mut self.state.measurements, now)?;
        let more = repeating.len().saturating_sub(packet.len());
        self.state.totals.bytes_down += more as u64;
        self.state.measurements.bytes_down += more as u64;
        self.counts.get_or_insert_default().note_redundancy(more);
        Some(repeating)
    }

    /// Keeps a packet to the client before encryption, if it would be sent again in a stream of its own. Returns whether it is.
    #[inline(never)]
    pub(super) fn keep_plain(&mut self, kind: StreamKind, packet: &[u8], now: Instant) -> bool {
        let RunningMedia { srtp, repair: Some(repair), rtx: Some(rtx), .. } = self else {
            return false;
        };
        let is_kept = rtx.repeats(packet, srtp);
        if is_kept {
            repair.keep(kind, KeptForm::Plain, packet, now);
        }
        is_kept
    }

    /// Follows the rate of the path by a compound packet of the client and the loss before repair in its reports. Removes feedback about
    /// arrivals. Returns whether anything is left.
    pub(super) fn follow_downlink(
        &mut self,
        lost_ppm: Option<u32>,
        compound: &mut Vec<u8>,
        now: Instant,
    ) -> bool {
        let RunningMedia { state, estimate, .. } = self;
        if let Some(lost_ppm) = lost_ppm {
            let (round_trip, bytes) = (state.measurements.round_trip(now), state.totals.bytes_down);
            let estimate = estimate.get_or_insert_with(DownlinkEstimate::by_reports);
            estimate.note_report(lost_ppm, round_trip, bytes, now);
        }
        estimate.as_deref_mut().is_none_or(|estimate| estimate.read_feedback(compound, now))
    }

    /// A parity packet of this length is sent to the client.
    pub(super) fn note_parity(&mut self, bytes: usize) {
        self.state.totals.packets_down += 1;
        self.state.totals.bytes_down += bytes as u64;
        self.state.measurements.bytes_down += bytes as u64;
        self.counts.get_or_insert_default().note_parity(bytes);
    }

    pub(super) fn take_counts(&mut self) -> MediaCounts {
        self.counts.as_deref_mut().map(SessionCounts::take).unwrap_or_default()
    }

    /// Returns the summary of the session.
    pub(super) fn summary(&mut self, session: SessionId, now: Instant) -> Summary {
        let MediaState {
            measurements,
            continuity,
            flow,
            signs,
            missed_told,
            current_hop,
            layers,
            ..
        } = &mut self.state;
        let lost_before = measurements.lost_up;
        let since = measurements.since.unwrap_or(now);
        let (mut measures, last_heard) = (measurements.interval(now), measurements.last_heard);
        if let Some(estimate) = self.estimate.as_deref() {
            if let Some(kbps) = estimate.kbps(now) {
                measures.set(Metric::AvailableDown, kbps.into());
            }
            if let Some(permille) = estimate.growth_permille(now) {
                measures.set(Metric::TrendDown, permille.into());
            }
        }
        if let Some(rank) = layers.as_deref().and_then(ReceivedLayers::rank) {
            measures.set(Metric::Layer, rank.into());
        }
        if let Some(counts) = self.counts.as_deref_mut() {
            let frozen = counts.frozen_ppm(
                now.saturating_duration_since(since),
                measurements.round_trip(now).unwrap_or_default(),
                |ssrc| measurements.left_of(ssrc, now),
                now,
            );
            if let Some(ppm) = frozen {
                measures.set(Metric::FreezeDown, ppm);
            }
        }
        let lost_up = (measurements.lost_up - lost_before) as u32;
        let (expected, lost) = continuity.arrivals();
        let missed = continuity.missed_at_switches(now);
        let missed = missed.saturating_sub(std::mem::replace(missed_told, missed));
        let flow = FlowCounts {
            hears: *current_hop,
            expected,
            lost,
            missed,
            lost_up,
            jitter_up_us: measurements.jitter_voice_us,
            round_trip_us: measurements.round_trip_us,
            policing: self.policing.as_deref().and_then(SenderPolicing::standing),
            ..signs.complete(std::mem::take(flow).into(), now)
        };
        let (totals, counts) = (self.state.totals(now), self.take_counts());
        Summary { session, measures, last_heard, flow, totals, counts }
    }
}
