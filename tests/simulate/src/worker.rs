//! The gateway's packet path, with the shipped forwarding and continuity code.

use std::sync::Arc;
use std::time::Instant;

use evenkeel_media::continuity::{Continuity, Pass, Protection, StreamEpoch, SwitchCause};
use evenkeel_media::merge::HopPair;
use evenkeel_media::rtp;
use evenkeel_model::{
    Board, DropReason, Epoch as Standing, FlowCounts, ForwardVerdict, Hop, Measures, MediaLimits,
    RoomId, RouteCell, SessionId, StreamKind,
};

use crate::packet::{Numbers, Packet, clock_rate, payload_type};

/// A session in its worker.
pub(crate) struct SessionState {
    pub(crate) id: SessionId,
    pub(crate) room: RoomId,
    pub(crate) client: u32,
    pub(crate) route: Arc<RouteCell>,
    pub(crate) limits: MediaLimits,
    /// Hops where the session is open or being opened.
    pub(crate) legs: Vec<Leg>,
    pub(crate) last_heard: Option<Instant>,
    pub(crate) measures: Measures,
    /// The two hops that deliver to the client, in hitless mode.
    pub(crate) pair: Option<Box<HopPair<Hop>>>,
    /// Hops that deliver different packets, until control is informed.
    pub(crate) unalike: Option<[Hop; 2]>,
    pub(crate) hearing: Option<Hop>,
    pub(crate) switches: u32,
    continuity: Continuity,
    flow: FlowCounts,
    /// Packet loss, smoothed over a second.
    pub(crate) loss_ppm: f64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Leg {
    pub(crate) hop: Hop,
    pub(crate) tag: u32,
    /// The time since which the leg is open.
    pub(crate) since: Option<Instant>,
}

/// The destination of a client's packet.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sent {
    To {
        hop: Hop,
        standing: Option<Standing>,
        tag: Option<u32>,
        /// The second hop in hitless mode, with its tag, if the session is open there.
        copy: Option<(Hop, u32)>,
    },
    Nowhere,
}

impl SessionState {
    pub(crate) fn new(
        id: SessionId,
        room: RoomId,
        client: u32,
        route: Arc<RouteCell>,
        limits: MediaLimits,
    ) -> SessionState {
        SessionState {
            id,
            room,
            client,
            route,
            limits,
            legs: Vec::new(),
            last_heard: None,
            measures: Measures::default(),
            pair: None,
            unalike: None,
            hearing: None,
            switches: 0,
            continuity: Continuity::new(id.0, Protection::Clear),
            flow: FlowCounts::default(),
            loss_ppm: 0.0,
        }
    }

    /// Forwards a packet of the client.
    pub(crate) fn send_to_node(&mut self, kind: StreamKind, board: &Board, now: Instant) -> Sent {
        self.last_heard = Some(now);
        self.flow.sent[kind as usize] += 1;
        let (hop, other) = match self.route.forward_to_node(board) {
            ForwardVerdict::Pass { hop, .. } => (hop, None),
            ForwardVerdict::Both([hop, other]) => (hop, Some(other)),
            ForwardVerdict::Drop(_) => return Sent::Nowhere,
        };
        let standing = self.route.load().first_usable(board).map(|(_, standing)| standing);
        let leg = |hop| self.legs.iter().find(|leg| leg.hop == hop && leg.since.is_some());
        let copy = other.and_then(|other| Some((other, leg(other)?.tag)));
        Sent::To { hop, standing, tag: leg(hop).map(|leg| leg.tag), copy }
    }

    /// Forwards a packet of a hop to the client, as `dataplane/src/worker/session.rs` does; `None` if dropped.
    pub(crate) fn send_to_client(
        &mut self,
        from: Hop,
        packet: Packet,
        board: &Board,
        now: Instant,
    ) -> Option<Packet> {
        let header = packet.read()?;
        let number = payload_type(packet.kind);
        let rate = clock_rate(packet.kind);
        let leaving =
            match self.route.forward_to_client(from, Some(number), &self.limits, board, now) {
                ForwardVerdict::Pass { leaving, .. } => leaving,
                ForwardVerdict::Both([from, other]) => {
                    return self.merge(from, Some(other), &header, packet, now);
                }
                ForwardVerdict::Drop(DropReason::Shed) => {
                    if self.hearing != Some(from) {
                        if self.pair.is_some() {
                            return None;
                        }
                        self.switch_to(from);
                    }
                    self.flow.received[packet.kind as usize] += 1;
                    let epoch = StreamEpoch(u64::from(self.switches));
                    self.continuity.withhold(epoch, &header, rate, now);
                    return None;
                }
                ForwardVerdict::Drop(_) => return None,
            };
        let hears = self.hearing == Some(from);
        if self.pair.is_some() && !leaving {
            return self.merge(from, None, &header, packet, now);
        }
        if !leaving && !hears {
            self.switch_to(from);
        }
        let left = leaving && !hears;
        let epoch = StreamEpoch(u64::from(self.switches).saturating_sub(u64::from(left)));
        self.pass(from, epoch, &header, packet, now)
    }

    /// The summary since the last call.
    pub(crate) fn take_summary(&mut self) -> FlowCounts {
        let (expected, lost) = self.continuity.arrivals();
        if expected > 0 {
            let ppm = f64::from(lost) * 1e6 / f64::from(expected);
            self.loss_ppm += (ppm - self.loss_ppm) * 0.1;
        }
        FlowCounts { hears: self.hearing, expected, lost, ..std::mem::take(&mut self.flow) }
    }

    /// Counts a packet of the leading hop of a merged pair.
    pub(crate) fn note_received(&mut self, kind: StreamKind) {
        self.flow.received[kind as usize] += 1;
    }

    pub(crate) fn pass(
        &mut self,
        from: Hop,
        epoch: StreamEpoch,
        header: &rtp::RtpHeader,
        mut packet: Packet,
        now: Instant,
    ) -> Option<Packet> {
        // For a merged pair, all packets of the leading hop are counted by `note_received`.
        if self.hearing == Some(from) && self.pair.is_none() {
            self.flow.received[packet.kind as usize] += 1;
        }
        match self.continuity.pass(epoch, header, clock_rate(packet.kind), now) {
            Pass::Untouched => Some(packet),
            Pass::Rewrite { ssrc, sequence, timestamp } => {
                packet.set(Numbers { ssrc, sequence, timestamp });
                Some(packet)
            }
            Pass::Stale | Pass::Duplicate | Pass::Surplus => None,
        }
    }

    pub(crate) fn switch_to(&mut self, hop: Hop) {
        let left = self.route.load().left.as_deref().copied();
        let before = self.hearing.replace(hop);
        self.switches += 1;
        let epoch = StreamEpoch(u64::from(self.switches));
        match left.filter(|left| before == Some(left.hop)) {
            Some(left) => {
                self.continuity.switched(epoch, SwitchCause::Planned { lead: left.lead });
            }
            None => {
                self.continuity.switched(epoch, SwitchCause::Failover);
                self.continuity.close_previous();
            }
        }
    }
}
