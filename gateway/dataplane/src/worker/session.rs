//! A session at its home worker, which alone writes its continuity, statistics and client address.

mod address;
mod counts;
mod install;
mod key_frames;
mod leg_protection;
mod leg_srtp;
mod media;
mod packets;
mod protection;
mod reachability;
mod sending;
mod signs;
mod slots;
mod srtp;
mod tally;
#[cfg(test)]
pub(super) mod tests;
mod to_client;
mod unproved;
mod validation;

use std::hash::RandomState;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use address::CheckReceipt;
use address::ClientAddress;
use counts::SessionCounts;
use evenkeel_media::continuity::{Continuity, Protection, StreamEpoch};
use evenkeel_media::merge::HopPair;
use evenkeel_media::quality::Codec;
use evenkeel_media::srtp::SrtpKeys;
use evenkeel_media::trunk::Tag;
use evenkeel_media::{instant, rtp, stun};
use evenkeel_model::forward::ForwardVerdict;
use evenkeel_model::{
    Board, FlowCounts, Hop, MediaDescription, PayloadType, Plan, RedundancyMode, RouteCell,
    RtcpPort, SessionId, Srtp, StreamKind, forward,
};
pub use install::{ClientAddressing, Install, SessionState};
use leg_srtp::LegSrtp;
use media::{SenderFeedback, VoiceMeasurements};
use serde::{Deserialize, Serialize};
use signs::MediaSigns;
pub(crate) use slots::SessionSlots;
use srtp::OwnSrtp;
pub use srtp::{AnsweredMedia, ClientPassword, SrtpKeying};
use tally::FlowTally;
use validation::AddressValidation;

use super::egress::Egress;
use super::report::{MediaCounts, MediaDirection, ShedRun, Summary, Totals, WorkerReport};
use super::sockets::{ClientPath, RtpSide, SessionPorts, SourceKey, reason};
use crate::flows::Home;
use crate::ring::PathReport;

/// Random bits of a tag. The 24 bits above them hold the session's slot: 16 million, more than a gateway may hold.
const RANDOM_BITS: u32 = 40;

/// Interval between reports of shed packets. Receivers of the reports need the count, not the time of each packet.
const SHED_TOLD_EVERY: Duration = Duration::from_secs(1);

pub(crate) struct WorkerSession {
    pub(crate) home: Home,
    pub(crate) id: SessionId,
    media: Arc<MediaDescription>,
    known: ClientKnowledge,
    route: Arc<RouteCell>,
    plan: Plan,
    dscp: DscpMarks,
    pub(crate) ports: Option<Box<SessionPorts>>,
    legs: Box<[(Hop, NodeLeg)]>,
    address: ClientAddress,
    /// True if bytes to the declared address are limited until a client there reports its reception.
    needs_report: bool,
    /// Allocated with the first packet, because most sessions are silent.
    state: Option<Box<MediaState>>,
    /// Allocated with the first count.
    counts: Option<Box<SessionCounts>>,
    /// Seeds SSRC, sequence numbers and CNAME.
    seed: u64,
    /// True if the session is summarised.
    pub(crate) active: bool,
    /// True if the session was used since its last summary.
    touched: bool,
    /// True if the session has changed since its last copy.
    pub(crate) uncopied: bool,
    /// True if the next packet panics.
    #[cfg(any(test, feature = "fault-injection"))]
    pub(super) panics: bool,
}

/// DSCP of packets by kind (RFC 2474).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct DscpMarks {
    /// Voice and its RTCP; 46 is EF.
    pub voice: u8,
    /// 34 is AF41.
    pub video: u8,
}

/// A session's path to a node and back.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub enum NodeLeg {
    /// The worker's trunk to the node, with this tag.
    Trunk(Tag),
    /// The session's own socket. Boxed, because most legs are trunk legs.
    Port(Box<NodePort>),
    /// The session's own socket, with SRTP.
    Srtp(Box<SrtpPort>),
}

impl NodeLeg {
    /// The node's address, if the session has a socket of its own.
    pub fn port(&self) -> Option<NodePort> {
        match self {
            NodeLeg::Trunk(_) => None,
            NodeLeg::Port(port) => Some(**port),
            NodeLeg::Srtp(leg) => Some(leg.port),
        }
    }
}

/// A node's media address for one session, and the keys of SRTP there (RFC 3711). No other leg has these keys, at any time.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct SrtpPort {
    /// The node's address for RTP, and its port for RTCP.
    pub port: NodePort,
    /// The node is the client of these keys.
    pub keys: Arc<SrtpKeys>,
}

/// A node's media address for one session.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct NodePort {
    /// Address for RTP.
    #[serde(with = "crate::address")]
    pub address: SocketAddr,
    /// Port for RTCP at the same IP address; the port of RTP if both share it.
    pub rtcp_port: u16,
}

impl NodePort {
    /// Returns whether the source is this port or its RTCP port.
    pub fn is_at(&self, source: SocketAddr) -> bool {
        self.address.ip() == source.ip()
            && [self.address.port(), self.rtcp_port].contains(&source.port())
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ClientKnowledge {
    Declared,
    /// Declared, before the first packet from its addresses.
    Awaited,
    DeclaredIp,
    Stun,
    Quic,
}

/// State of a session that has carried packets or has keys of SRTP.
#[derive(Clone, Serialize, Deserialize, Debug)]
struct MediaState {
    continuity: Continuity,
    measurements: VoiceMeasurements,
    feedback: SenderFeedback,
    current_hop: Option<Hop>,
    /// Number of hops so far.
    switches: u32,
    /// The two hops that the client hears in hitless mode.
    pair: Option<Box<HopPair<Hop>>>,
    totals: Totals,
    /// Packets between client and node since the last summary.
    flow: FlowTally,
    /// Packets missing at switches that earlier summaries included.
    missed_told: u32,
    /// Shed packets not reported yet, and the time of the first.
    #[serde(with = "instant::paired")]
    shed: Option<(ShedRun, Instant)>,
    /// Present until a client at the declared address has reported. Boxed, because few sessions need it for long.
    #[serde(default)]
    validation: Option<Box<AddressValidation>>,
    #[serde(default)]
    signs: MediaSigns,
    #[serde(skip)]
    srtp: OwnSrtp,
    #[serde(skip)]
    leg_srtp: LegSrtp,
}

/// The preferred codec of the session's first audio stream.
fn voice(media: &MediaDescription) -> Option<Codec> {
    let voice = media.streams.iter().find(|stream| stream.kind == StreamKind::Audio)?;
    voice.payload_types.first().map(|payload| Codec::named(&payload.codec))
}

/// Returns the declared payload type of this number, with the kind of its stream.
fn declared(media: &MediaDescription, number: u8) -> Option<(StreamKind, &PayloadType)> {
    media.streams.iter().find_map(|stream| {
        let found = stream.payload_types.iter().find(|payload| payload.number == number)?;
        Some((stream.kind, found))
    })
}

impl MediaState {
    /// Runs once per session; `#[cold]` keeps it out of the packet path.
    #[cold]
    fn new(seed: u64, media: &MediaDescription, needs_report: bool) -> Box<MediaState> {
        let protection = match media.srtp {
            Srtp::Plain => Protection::Clear,
            Srtp::Opaque => Protection::Srtp,
            Srtp::Terminated => Protection::Terminated,
        };
        Box::new(MediaState {
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
            srtp: OwnSrtp::default(),
            leg_srtp: LegSrtp::default(),
        })
    }

    /// The continuity epoch of the hop that the client hears.
    fn epoch(&self) -> StreamEpoch {
        StreamEpoch(u64::from(self.switches))
    }

    fn totals(&self, now: Instant) -> Totals {
        Totals {
            lost_up: self.measurements.lost_up,
            lost_at_switches: self.continuity.missed_at_switches(now),
            ..self.totals
        }
    }

    /// Sets the hop and resets its counts. Returns the previous hop.
    fn set_current_hop(&mut self, hop: Hop) -> Option<Hop> {
        self.flow.forget_hop();
        self.signs.forget_hop();
        self.current_hop.replace(hop)
    }
}

/// State of the worker that a session uses while it handles a packet.
pub(crate) struct PacketContext<'a> {
    pub(crate) egress: &'a mut Egress,
    pub(crate) board: &'a Board,
    pub(crate) now: Instant,
}

impl WorkerSession {
    fn state(&mut self) -> &mut MediaState {
        let (seed, media, needs_report) = (self.seed, &*self.media, self.needs_report);
        self.state.get_or_insert_with(|| MediaState::new(seed, media, needs_report))
    }

    /// Marks a session that handles a packet, so that it is summarised until it is idle.
    fn mark_active(&mut self, cx: &mut PacketContext<'_>) {
        #[cfg(any(test, feature = "fault-injection"))]
        assert!(!self.panics, "injected panic of {}", self.id);
        let was_idle = !self.active;
        let since = &mut self.state().measurements.since;
        if was_idle || since.is_none() {
            *since = Some(cx.now);
        }
        self.wake(cx);
    }

    fn wake(&mut self, cx: &mut PacketContext<'_>) {
        (self.touched, self.uncopied) = (true, true);
        if !self.active {
            self.active = true;
            cx.egress.active.push(self.home);
        }
    }

    /// Returns whether the session has nothing left to summarise. Called after each summary.
    pub(crate) fn went_idle(&mut self, now: Instant) -> bool {
        let touched = std::mem::take(&mut self.touched);
        let cap = self.plan.send_cap_kbps();
        let is_quiet = |state: &MediaState| {
            state.shed.is_none()
                && state.measurements.is_quiet(now)
                && !state.feedback.repeats(cap, now)
        };
        self.active = touched || !self.state.as_deref().map_or(cap == 0, is_quiet);
        // The summary took the last counts.
        self.uncopied |= touched || !self.active;
        !self.active
    }

    /// Handles input from the client other than media.
    pub(crate) fn handle_other_input(&mut self, cx: &mut PacketContext<'_>) {
        self.mark_active(cx);
        self.state().measurements.last_heard = Some(cx.now);
    }

    pub(crate) fn handle_quic_path(&mut self, path: PathReport, cx: &mut PacketContext<'_>) {
        self.mark_active(cx);
        self.counts.get_or_insert_default().note_lost(path.lost);
        self.state().measurements.quic_path(path, cx.now);
    }

    /// Remembers a verified check and returns whether it was received before.
    pub(crate) fn remember_check(
        &mut self,
        transaction: stun::Transaction,
        source: SourceKey,
        keys: &RandomState,
    ) -> CheckReceipt {
        let checks = &mut self.address.more.get_or_insert_default().checks;
        checks.remember(transaction, source, (keys, self.home))
    }

    /// Handles a verified check from this address. Media is sent to the last nominated address or, before any
    /// nomination, to the last checked address that sent media. When the destination's consent has expired, media goes
    /// to the next address that passes a check: the client's address may have changed unnoticed, or a check that was
    /// held back may have nominated another. Returns the address that lost its permission to send, if the list was
    /// full.
    pub(crate) fn checked(
        &mut self,
        path: ClientPath,
        nominated: bool,
        cx: &mut PacketContext<'_>,
    ) -> Option<SourceKey> {
        self.handle_other_input(cx);
        let from = path.source;
        let before = self.address.rtp();
        if nominated || before.is_none() || !self.address.has_consent(cx.now) {
            self.address.set_rtp(from);
            self.address.follow(path);
        }
        let is_destination = self.address.rtp() == Some(from);
        if is_destination && before != Some(from) {
            cx.egress.note_changed(self.home);
        }
        if is_destination && self.address.local().is_none() {
            // A process that did not know the local address continued the session.
            self.address.follow(path);
        }
        let more = self.address.more.get_or_insert_default();
        more.nominated |= nominated;
        if is_destination || !more.nominated {
            more.consent = Some(cx.now);
        }
        self.address.add_checked(from)
    }

    /// Opens the way to the declared addresses: a packet came from one of them.
    #[cold]
    fn send_to_declared(&mut self) {
        self.address.heard();
        self.known = ClientKnowledge::Declared;
    }

    /// Parses an RTP packet of this session, or an SRTP packet: its padding is encrypted. Few packets have padding, so its
    /// flag is tested first.
    #[inline]
    fn parse(&self, packet: &[u8]) -> Result<rtp::RtpHeader, rtp::RtpError> {
        let header = rtp::RtpHeader::parse_opaque(packet)?;
        if rtp::is_padded(packet) && self.media.srtp.is_readable() {
            return header.without_padding(packet);
        }
        Ok(header)
    }

    /// Sets the client's port from an RTP packet. Returns whether the packet has a declared payload type.
    pub(crate) fn learn(&mut self, path: ClientPath, packet: &[u8]) -> bool {
        let from = path.source;
        let is_declared = self
            .parse(packet)
            .is_ok_and(|header| declared(&self.media, header.payload_type).is_some());
        if is_declared {
            self.address.set_rtp(from);
            self.address.follow(path);
            let more = self.address.more.get_or_insert_default();
            more.checked.push(from);
            if self.media.rtcp == RtcpPort::Own {
                // RFC 3550, 11: RTCP on the next higher port.
                let SourceKey { listener, address } = from;
                let address = SocketAddr::new(address.ip(), address.port().wrapping_add(1));
                let rtcp = SourceKey { listener, address };
                more.checked.push(rtcp);
                self.address.set_rtcp(rtcp);
            }
        }
        is_declared
    }

    /// Removes an address that a check has proved to belong to another session's client.
    pub(crate) fn lose_address(&mut self, from: SourceKey) {
        self.address.lose(from);
        self.uncopied = true;
    }

    /// Addresses that this session added to the flow table.
    pub(crate) fn learned(&self) -> &[SourceKey] {
        self.address.checked()
    }

    pub(crate) fn attach(&mut self, hop: Hop, leg: NodeLeg) {
        let mut legs = std::mem::take(&mut self.legs).into_vec();
        legs.retain(|(at, _)| *at != hop);
        legs.reserve_exact(1);
        self.set_leg_keys(hop, &leg);
        legs.push((hop, leg));
        self.legs = legs.into();
        self.uncopied = true;
    }

    pub(crate) fn detach(&mut self, hop: Hop) {
        let mut legs = std::mem::take(&mut self.legs).into_vec();
        legs.retain(|(at, _)| *at != hop);
        self.legs = legs.into();
        self.forget_leg_keys(hop);
        self.uncopied = true;
    }

    pub(crate) fn has_leg(&self, hop: Hop) -> bool {
        self.legs.iter().any(|(at, _)| *at == hop)
    }

    pub(crate) fn hop_of(&self, tag: Tag) -> Option<Hop> {
        let is_it = |leg: &NodeLeg| matches!(leg, NodeLeg::Trunk(own) if *own == tag);
        self.legs.iter().find(|(_, leg)| is_it(leg)).map(|(hop, _)| *hop)
    }

    pub(crate) fn hop_at(&self, source: SocketAddr, cx: &PacketContext<'_>) -> Option<Hop> {
        let is_there = |leg: &NodeLeg| match leg {
            NodeLeg::Port(port) => port.is_at(source),
            NodeLeg::Srtp(leg) => leg.port.is_at(source),
            NodeLeg::Trunk(_) => false,
        };
        let there = self.legs.iter().filter(|(_, leg)| is_there(leg)).map(|(hop, _)| *hop);
        there.reduce(|one, other| self.likelier_sender(one, other, cx))
    }

    /// Decides which of two hops at one address sent a packet. Two hops share an address when a new node uses the
    /// address of a node that is being removed. Prefers the room's hop, then the hop that the room is leaving, then the
    /// newest incarnation.
    #[cold]
    fn likelier_sender(&self, one: Hop, other: Hop, cx: &PacketContext<'_>) -> Hop {
        let rank = |hop: Hop| {
            let (plan, route) = (&self.plan, &self.route);
            let carries = match forward::to_client(hop, None, plan, route, cx.board, cx.now) {
                ForwardVerdict::Pass { leaving: false, .. } | ForwardVerdict::Both(_) => 2,
                ForwardVerdict::Pass { leaving: true, .. } => 1,
                ForwardVerdict::Drop(_) => 0,
            };
            (carries, hop.incarnation)
        };
        if rank(other) > rank(one) { other } else { one }
    }

    pub(crate) fn set_plan(&mut self, plan: Plan, cx: &mut PacketContext<'_>) {
        let restored = self.plan.shed & !plan.shed != 0;
        let capped = self.plan.send_cap_kbps() != plan.send_cap_kbps();
        self.plan = plan;
        self.wake(cx);
        if restored {
            self.report_shed(cx.egress);
            self.state().feedback.want_key_frame();
        }
        if capped {
            self.send_cap(cx);
        }
    }

    fn dscp_of(&self, kind: StreamKind) -> u8 {
        match kind {
            StreamKind::Audio => self.dscp.voice,
            StreamKind::Video => self.dscp.video,
        }
    }

    /// Requests a key frame for each video stream that the client sends.
    pub(crate) fn request_client_key_frame(&mut self, cx: &mut PacketContext<'_>) {
        let request = self.state.as_mut().and_then(|it| it.feedback.key_frame_of_client(cx.now));
        if let Some(request) = request {
            self.send_key_frame_request(&request, cx);
        }
    }

    fn send_key_frame_request(&mut self, request: &[u8], cx: &mut PacketContext<'_>) {
        self.state().signs.note_key_frame_request(cx.now);
        cx.egress.stats.asked_key_frame(MediaDirection::ToClient);
        self.send_to_client(RtpSide::Rtcp, StreamKind::Video, request, cx, |_| {});
    }

    /// Sends the current send cap, or the end of the last one.
    pub(crate) fn send_cap(&mut self, cx: &mut PacketContext<'_>) {
        if self.state.is_none() && !SenderFeedback::takes_caps(&self.media) {
            return;
        }
        let kbps = self.plan.send_cap_kbps();
        if let Some(cap) = self.state().feedback.cap(kbps, cx.now) {
            self.send_to_client(RtpSide::Rtcp, StreamKind::Video, &cap, cx, |_| {});
        }
    }

    /// Runs every 100 ms: repeats the cap when due and reports shed packets.
    pub(crate) fn tick(&mut self, cx: &mut PacketContext<'_>) {
        let kbps = self.plan.send_cap_kbps();
        let is_due = |state: &MediaState| state.feedback.cap_is_due(kbps, cx.now);
        if self.state.as_deref().map_or(kbps > 0, is_due) {
            self.send_cap(cx);
        }
        let due = |since: Instant| cx.now.saturating_duration_since(since) >= SHED_TOLD_EVERY;
        let shed = self.state.as_deref().and_then(|state| state.shed);
        if shed.is_some_and(|(_, since)| due(since)) {
            self.report_shed(cx.egress);
        }
        let due = self.state.as_mut().and_then(|it| it.feedback.due_key_frame_of_client(cx.now));
        if let Some(request) = due {
            self.send_key_frame_request(&request, cx);
        }
        if self.has_srtp() {
            self.look_for_keys(cx);
        }
    }

    /// Returns the session's summary; `None` before its first packet.
    pub(crate) fn summary(&mut self, now: Instant) -> Option<Summary> {
        let MediaState { measurements, continuity, flow, signs, missed_told, current_hop, .. } =
            self.state.as_deref_mut()?;
        let lost_before = measurements.lost_up;
        let (measures, last_heard) = (measurements.interval(now), measurements.last_heard);
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
            ..signs.complete(std::mem::take(flow).into(), now)
        };
        let (totals, counts) = (self.totals(now), self.take_counts());
        Some(Summary { session: self.id, measures, last_heard, flow, totals, counts })
    }

    /// Returns the counts since the last call.
    pub(crate) fn take_counts(&mut self) -> MediaCounts {
        self.counts.as_deref_mut().map(SessionCounts::take).unwrap_or_default()
    }

    pub(crate) fn mode(&self) -> RedundancyMode {
        self.route.load().mode
    }

    pub(crate) fn totals(&self, now: Instant) -> Totals {
        self.state.as_deref().map_or(Totals::default(), |state| state.totals(now))
    }

    /// Handles an error from the error queue of a session's port. `ConnectionRefused` is evidence against the node if
    /// it quotes RTP that the session forwarded lately; otherwise the error may be forged. Path errors are no evidence.
    pub(crate) fn send_failed(
        &self,
        address: SocketAddr,
        error: &io::Error,
        quoted: &[u8],
        cx: &PacketContext<'_>,
    ) {
        if error.kind() != io::ErrorKind::ConnectionRefused {
            return cx.egress.count_drop(reason(error));
        }
        if self.has_forwarded(quoted)
            && let Some(hop) = self.hop_at(address, cx)
        {
            cx.egress.report(WorkerReport::PortClosed { session: self.id, hop });
        }
    }

    /// Returns whether these are the first bytes of an RTP packet of the client, which reached the node unchanged.
    fn has_forwarded(&self, start: &[u8]) -> bool {
        rtp::ssrc_and_sequence(start)
            .zip(self.state.as_deref())
            .is_some_and(|((ssrc, sequence), state)| state.measurements.is_recent(ssrc, sequence))
    }
}

/// The tag of a trunk leg: the slot for a fast lookup, and random bits that make it a secret.
pub fn tag(slot: u32, random: u64) -> Tag {
    Tag(u64::from(slot) << RANDOM_BITS | random & ((1 << RANDOM_BITS) - 1))
}
