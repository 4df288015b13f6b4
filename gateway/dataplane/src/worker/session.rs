//! A session at its home worker, which alone writes its continuity, statistics and client address.

mod address;
mod hitless;
mod state;
#[cfg(test)]
pub(super) mod tests;
mod to_client;
mod to_node;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_core::forward::{self, Verdict};
use evenkeel_core::{Board, Flow, Hop, Kind, Media, Mode, Plan, RouteCell, SessionId, Srtp};
use evenkeel_media::continuity::{Continuity, Epoch, FILLED_WITHIN, Protection};
use evenkeel_media::merge::Pair;
use evenkeel_media::quality::Codec;
use evenkeel_media::trunk::Tag;
use evenkeel_media::{instant, rtp};
use serde::{Deserialize, Serialize};

use address::Address;
pub(crate) use address::Seen;
pub use state::SessionState;

use super::arrival::SourceKey;
use super::command::{Client, Dscp, Install, Leg, Report, ShedRun, Summary, Totals};
use super::egress::{self, Egress, Side};
use super::feedback::Feedback;
use super::measurements::Measurements;
use super::ports::Ports;
use super::stats::Way;
use crate::flows::Home;
use crate::ring::PathReport;

/// Interval between reports of shed packets. Receivers of the reports need the count, not the time of each packet.
const SHED_TOLD_EVERY: Duration = Duration::from_secs(1);

pub(crate) struct Session {
    pub(crate) home: Home,
    pub(crate) id: SessionId,
    media: Arc<Media>,
    known: Known,
    route: Arc<RouteCell>,
    plan: Plan,
    dscp: Dscp,
    pub(crate) ports: Option<Box<Ports>>,
    legs: Vec<(Hop, Leg)>,
    address: Address,
    /// Allocated with the first packet, because most sessions are silent.
    state: Option<Box<MediaState>>,
    /// Seeds SSRC, sequence numbers and CNAME.
    seed: u64,
    /// True if the session is summarised.
    active: bool,
    /// True if the session was used since its last summary.
    touched: bool,
    /// True if the session has changed since its last copy.
    uncopied: bool,
    /// True if the next packet panics.
    #[cfg(any(test, feature = "fault-injection"))]
    pub(super) panics: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Known {
    Declared,
    /// Declared, before the first packet from its addresses.
    Awaited,
    DeclaredIp,
    Stun,
    Quic {
        flow_from_gateway: u64,
    },
}

/// State of a session that has carried packets.
#[derive(Clone, Serialize, Deserialize, Debug)]
struct MediaState {
    continuity: Continuity,
    measurements: Measurements,
    feedback: Feedback,
    current_hop: Option<Hop>,
    /// Number of hops so far.
    switches: u32,
    /// The two hops that the client hears in hitless mode.
    pair: Option<Box<Pair<Hop>>>,
    totals: Totals,
    /// Packets between client and node since the last summary.
    flow: Flow,
    /// Packets missing at switches that earlier summaries included.
    missed_told: u32,
    /// Shed packets not reported yet, and the time of the first.
    #[serde(with = "instant::paired")]
    shed: Option<(ShedRun, Instant)>,
}

/// The preferred codec of the session's first audio stream.
fn voice(media: &Media) -> Option<Codec> {
    let voice = media.streams.iter().find(|stream| stream.kind == Kind::Audio)?;
    voice.payload_types.first().map(|payload| Codec::named(&payload.codec))
}

impl MediaState {
    /// Runs once per session; `#[cold]` keeps it out of the packet path.
    #[cold]
    fn new(seed: u64, media: &Media) -> Box<MediaState> {
        let protection = match media.srtp {
            Srtp::Plain => Protection::Clear,
            Srtp::Opaque => Protection::Srtp,
        };
        Box::new(MediaState {
            continuity: Continuity::new(seed, protection),
            measurements: Measurements::new(voice(media)),
            feedback: Feedback::new(seed, media),
            current_hop: None,
            switches: 0,
            pair: None,
            totals: Totals::default(),
            flow: Flow::default(),
            missed_told: 0,
            shed: None,
        })
    }
}

impl MediaState {
    /// The continuity epoch of the hop that the client hears.
    fn epoch(&self) -> Epoch {
        Epoch(u64::from(self.switches))
    }

    fn totals(&self, now: Instant) -> Totals {
        Totals {
            lost_up: self.measurements.lost_up(),
            lost_at_switches: self.continuity.missed_at_switches(now),
            ..self.totals
        }
    }

    /// Sets the hop and resets its counts. Returns the previous hop.
    fn set_current_hop(&mut self, hop: Hop) -> Option<Hop> {
        self.flow = Flow { sent: self.flow.sent, ..Flow::default() };
        self.current_hop.replace(hop)
    }
}

/// State of the worker that a session uses while it handles a packet.
pub(crate) struct PacketContext<'a> {
    pub(crate) egress: &'a mut Egress,
    pub(crate) board: &'a Board,
    pub(crate) now: Instant,
}

impl Session {
    pub(crate) fn new(install: Install) -> Session {
        let Install {
            home,
            session,
            media,
            client,
            route,
            plan,
            dscp,
            ports,
            await_first_packet,
            seed,
            state,
        } = install;
        let address = match client {
            Client::Declared { listener, address, rtcp } => {
                let [rtp, rtcp] = [address, rtcp].map(|address| SourceKey { listener, address });
                let declared =
                    if await_first_packet { Address::awaited } else { Address::declared };
                declared(rtp, rtcp)
            }
            Client::DeclaredIp { .. } | Client::Stun | Client::Quic { .. } => Address::default(),
        };
        let known = match client {
            Client::Declared { .. } if await_first_packet => Known::Awaited,
            Client::Declared { .. } => Known::Declared,
            Client::DeclaredIp { .. } => Known::DeclaredIp,
            Client::Stun => Known::Stun,
            Client::Quic { flow_from_gateway } => Known::Quic { flow_from_gateway },
        };
        let mut session = Session {
            home,
            id: session,
            known,
            route,
            plan,
            dscp,
            ports,
            legs: Vec::new(),
            address,
            state: None,
            seed,
            // The cap is sent before the client's first packet.
            active: plan.send_cap_kbps() > 0,
            touched: false,
            uncopied: true,
            #[cfg(any(test, feature = "fault-injection"))]
            panics: false,
            media,
        };
        if let Some(state) = state {
            session.go_on(*state);
        }
        session
    }

    fn state(&mut self) -> &mut MediaState {
        let (seed, media) = (self.seed, &*self.media);
        self.state.get_or_insert_with(|| MediaState::new(seed, media))
    }

    /// Marks a session that handles a packet, so that it is summarised until it is idle.
    fn mark_active(&mut self, cx: &mut PacketContext<'_>) {
        #[cfg(any(test, feature = "fault-injection"))]
        assert!(!self.panics, "injected panic of {}", self.id);
        if !self.active || self.state.is_none() {
            self.state().measurements.begin_interval(cx.now);
        }
        self.wake(cx);
    }

    fn wake(&mut self, cx: &mut PacketContext<'_>) {
        (self.touched, self.uncopied) = (true, true);
        if !self.active {
            self.active = true;
            cx.egress.active.add(self.home);
        }
    }

    pub(crate) fn is_active(&self) -> bool {
        self.active
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
    pub(crate) fn heard(&mut self, cx: &mut PacketContext<'_>) {
        self.mark_active(cx);
        self.state().measurements.heard(cx.now);
    }

    pub(crate) fn handle_quic_path(&mut self, path: PathReport, cx: &mut PacketContext<'_>) {
        self.mark_active(cx);
        self.state().measurements.quic_path(path, cx.now);
    }

    pub(crate) fn attach(&mut self, hop: Hop, leg: Leg) {
        self.detach(hop);
        // Reserves one element: sessions are many and each has few legs.
        self.legs.reserve_exact(1);
        self.legs.push((hop, leg));
        self.uncopied = true;
    }

    pub(crate) fn detach(&mut self, hop: Hop) {
        self.legs.retain(|(at, _)| *at != hop);
        self.uncopied = true;
    }

    pub(crate) fn has_leg(&self, hop: Hop) -> bool {
        self.legs.iter().any(|(at, _)| *at == hop)
    }

    pub(crate) fn hop_of(&self, tag: Tag) -> Option<Hop> {
        let is_it = |leg: &Leg| matches!(leg, Leg::Trunk(own) if *own == tag);
        self.legs.iter().find(|(_, leg)| is_it(leg)).map(|(hop, _)| *hop)
    }

    pub(crate) fn hop_at(&self, source: SocketAddr, cx: &PacketContext<'_>) -> Option<Hop> {
        let is_there = |leg: &Leg| match leg {
            Leg::Port(port) => port.is_at(source),
            Leg::Trunk(_) => false,
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
                Verdict::Pass { leaving: false, .. } | Verdict::Both(_) => 2,
                Verdict::Pass { leaving: true, .. } => 1,
                Verdict::Drop(_) => 0,
            };
            (carries, hop.incarnation)
        };
        if rank(other) > rank(one) { other } else { one }
    }

    pub(crate) fn set_plan(&mut self, plan: Plan, cx: &mut PacketContext<'_>) {
        let restored = self.plan.shed != 0 && plan.shed == 0;
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

    fn dscp_of(&self, kind: Kind) -> u8 {
        match kind {
            Kind::Audio => self.dscp.voice,
            Kind::Video => self.dscp.video,
        }
    }

    /// Requests a key frame for each video stream that the client sends.
    pub(crate) fn request_client_key_frame(&mut self, cx: &mut PacketContext<'_>) {
        if let Some(state) = &mut self.state
            && let Some(request) = state.feedback.key_frame_of_client(cx.now)
        {
            cx.egress.stats.asked_key_frame(Way::ToClient);
            self.send_to_client(Side::Rtcp, Kind::Video, &request, cx, |_| {});
        }
    }

    /// Sends the current send cap, or the end of the last one.
    pub(crate) fn send_cap(&mut self, cx: &mut PacketContext<'_>) {
        let kbps = self.plan.send_cap_kbps();
        if let Some(cap) = self.state().feedback.cap(kbps, cx.now) {
            self.send_to_client(Side::Rtcp, Kind::Video, &cap, cx, |_| {});
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
    }

    /// Returns the session's summary; `None` before its first packet.
    pub(crate) fn summary(&mut self, now: Instant) -> Option<Summary> {
        let MediaState { measurements, continuity, flow, missed_told, current_hop, .. } =
            self.state.as_deref_mut()?;
        let (measures, last_heard) = (measurements.interval(now), measurements.last_heard());
        let (expected, lost) = continuity.arrivals();
        let missed = continuity.missed_at_switches(now);
        let missed = missed.saturating_sub(std::mem::replace(missed_told, missed));
        let flow = Flow { hears: *current_hop, expected, lost, missed, ..std::mem::take(flow) };
        let totals = self.totals(now);
        Some(Summary { session: self.id, measures, last_heard, flow, totals })
    }

    pub(crate) fn mode(&self) -> Mode {
        self.route.load().mode
    }

    /// Returns the totals of a session that ends now. Packets still missing count as lost.
    pub(crate) fn final_totals(&self, now: Instant) -> Totals {
        self.totals(now + FILLED_WITHIN)
    }

    fn totals(&self, now: Instant) -> Totals {
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
            return cx.egress.count_drop(egress::reason(error));
        }
        if self.has_forwarded(quoted)
            && let Some(hop) = self.hop_at(address, cx)
        {
            cx.egress.report(Report::PortClosed { session: self.id, hop });
        }
    }

    /// Returns whether these are the first bytes of an RTP packet of the client, which reached the node unchanged.
    fn has_forwarded(&self, start: &[u8]) -> bool {
        let numbers = rtp::ssrc_and_sequence(start).zip(self.state.as_deref());
        numbers
            .is_some_and(|((ssrc, sequence), state)| state.measurements.is_recent(ssrc, sequence))
    }
}
