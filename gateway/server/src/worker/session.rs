//! A session at its home worker: the one place that writes its continuity, its statistics and its way to the client.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_core::forward::{self, Reason, Verdict};
use evenkeel_core::{Board, Hop, Kind, Media, Plan, RouteCell, RtcpPort, SessionId, Srtp};
use evenkeel_media::continuity::{Continuity, Epoch, Pass, Protection, Switch, Withheld};
use evenkeel_media::{demux, rtp};

use super::command::{Client, Dscp, Install, Leg, Report, ShedRun, Summary, Totals};
use super::early::Outbound;
use super::feedback::Feedback;
use super::measure::Measure;
use super::ports::Ports;
use super::stamps::Way;
use super::ways::{Side, Ways};
use crate::flows::Home;

/// Without a connectivity check for so long, nothing is sent to the client any more (RFC 7675).
const CONSENT: Duration = Duration::from_secs(30);

/// What is shed in a row is told this often: whoever counts needs it to the number, not to the moment.
const SHED_TOLD_EVERY: Duration = Duration::from_secs(1);

/// Addresses that passed a check and may send, at a time: old ones stay valid for a moment after a rebinding.
const CHECKED_MAX: usize = 4;

pub(crate) struct Session {
    pub(crate) home: Home,
    pub(crate) id: SessionId,
    media: Arc<Media>,
    client: Client,
    route: Arc<RouteCell>,
    plan: Plan,
    dscp: Dscp,
    pub(crate) ports: Option<Ports>,
    legs: Vec<(Hop, Leg)>,
    /// Where its packets go.
    address: Address,
    continuity: Continuity,
    /// The hop whose packets reach the client, and how many there have been.
    hearing: Option<Hop>,
    switches: u32,
    pub(crate) measure: Measure,
    pub(crate) feedback: Feedback,
    pub(crate) totals: Totals,
    /// What was shed and is not yet told, and since when.
    shed: Option<(ShedRun, Instant)>,
}

/// Where a UDP client is reached.
#[derive(Default)]
struct Address {
    rtp: Option<(u8, SocketAddr)>,
    rtcp: Option<(u8, SocketAddr)>,
    /// Whether a check ever carried USE-CANDIDATE: then only such a check moves it.
    nominated: bool,
    consent: Option<Instant>,
    /// Addresses that passed a check, the newest last.
    checked: Vec<(u8, SocketAddr)>,
}

/// What a worker lends a session while it handles a packet.
pub(crate) struct Loan<'a> {
    pub(crate) ways: &'a mut Ways,
    pub(crate) board: &'a Board,
    pub(crate) now: Instant,
}

impl Session {
    pub(crate) fn new(install: Install, now: Instant) -> Session {
        let Install { home, session, media, client, route, plan, dscp, ports, seed } = install;
        let mut address = Address::default();
        if let Client::Declared { listener, address: rtp, rtcp } = client {
            address.rtp = Some((listener, rtp));
            address.rtcp = Some((listener, rtcp));
        }
        let protection = match media.srtp {
            Srtp::Plain => Protection::Clear,
            Srtp::Opaque => Protection::Srtp,
        };
        Session {
            home,
            id: session,
            client,
            route,
            plan,
            dscp,
            ports,
            legs: Vec::new(),
            address,
            continuity: Continuity::new(seed, protection),
            hearing: None,
            switches: 0,
            measure: Measure::new(now),
            feedback: Feedback::new(seed as u32, &media),
            totals: Totals::default(),
            shed: None,
            media,
        }
    }

    pub(crate) fn attach(&mut self, hop: Hop, leg: Leg) {
        self.detach(hop);
        self.legs.push((hop, leg));
    }

    /// The leg it had there, if it had one.
    pub(crate) fn detach(&mut self, hop: Hop) -> Option<Leg> {
        let place = self.legs.iter().position(|(at, _)| *at == hop)?;
        Some(self.legs.swap_remove(place).1)
    }

    pub(crate) fn legs(&self) -> &[(Hop, Leg)] {
        &self.legs
    }

    pub(crate) fn has_leg(&self, hop: Hop) -> bool {
        self.legs.iter().any(|(at, _)| *at == hop)
    }

    /// A packet that waited for its leg.
    pub(crate) fn send_early(&mut self, waiting: &Outbound, loan: &mut Loan<'_>) {
        self.send_to_node(waiting.hop, waiting.side, waiting.kind, &waiting.packet, loan);
    }

    /// The hop with a port leg to this address.
    pub(crate) fn hop_at(&self, source: SocketAddr) -> Option<Hop> {
        let is_there = |leg: &Leg| match *leg {
            Leg::Port { address, rtcp } => address == source || rtcp == source,
            Leg::Trunk(_) => false,
        };
        // A node that returned has the address it had; what comes now is of the newest incarnation.
        let there = self.legs.iter().filter(|(_, leg)| is_there(leg)).map(|(hop, _)| *hop);
        there.max_by_key(|hop| hop.incarnation)
    }

    pub(crate) fn set_plan(&mut self, plan: Plan, loan: &mut Loan<'_>) {
        let restored = self.plan.shed != 0 && plan.shed == 0;
        let capped = self.plan.send_cap_kbps() != plan.send_cap_kbps();
        self.plan = plan;
        if restored {
            self.tell_shed(loan.ways);
            self.feedback.want_key_frame();
        }
        if capped {
            self.send_cap(loan);
        }
    }

    /// A packet of the client's, from a source that may send.
    pub(crate) fn handle_client_packet(&mut self, packet: &[u8], loan: &mut Loan<'_>) {
        match demux::classify(packet) {
            demux::Kind::Rtp => self.rtp_from_client(packet, loan),
            demux::Kind::Rtcp => self.rtcp_from_client(packet, loan),
            _ => loan.ways.drop(Reason::Malformed),
        }
    }

    fn rtp_from_client(&mut self, packet: &[u8], loan: &mut Loan<'_>) {
        let Ok(header) = rtp::Header::parse(packet) else {
            return loan.ways.drop(Reason::Malformed);
        };
        let Some((kind, payload)) = self.media.payload_type(header.payload_type) else {
            return loan.ways.drop(Reason::UndeclaredPayload);
        };
        self.totals.packets_up += 1;
        self.totals.bytes_up += packet.len() as u64;
        self.measure.received(&header, packet.len(), payload.clock_rate, loan.now);
        self.feedback.heard(header.ssrc, kind);
        let hop = match forward::to_node(&self.route.load(), loan.board) {
            Verdict::Pass { hop, .. } => hop,
            Verdict::Drop(reason) => return loan.ways.drop(reason),
        };
        self.send_to_node(hop, Side::Rtp, kind, packet, loan);
    }

    fn rtcp_from_client(&mut self, packet: &[u8], loan: &mut Loan<'_>) {
        self.measure.heard(loan.now);
        // What is encrypted says nothing.
        if self.media.srtp == Srtp::Plain {
            self.measure.read_reports(packet, loan.now);
        }
        let hop = match forward::to_node(&self.route.load(), loan.board) {
            Verdict::Pass { hop, .. } => hop,
            Verdict::Drop(reason) => return loan.ways.drop(reason),
        };
        // Rewriting needs bytes of our own; RTCP is some packets a second.
        let mut packet = packet.to_vec();
        match self.continuity.rtcp_to_node(&mut packet) {
            Ok(length) => self.send_to_node(hop, Side::Rtcp, Kind::Audio, &packet[..length], loan),
            Err(_) => loan.ways.drop(Reason::Feedback),
        }
    }

    fn send_to_node(
        &mut self,
        hop: Hop,
        side: Side,
        kind: Kind,
        packet: &[u8],
        loan: &mut Loan<'_>,
    ) {
        let Some(&(_, leg)) = self.legs.iter().find(|(at, _)| *at == hop) else {
            let early = &mut loan.ways.early;
            if !early.keep_outbound((self.home, hop), (side, kind), packet, loan.now) {
                loan.ways.drop(Reason::NotOpened);
            }
            return;
        };
        loan.ways.stamps.passed(Way::ToNode, packet.len());
        match leg {
            Leg::Trunk(tag) => loan.ways.on_trunk(hop.node, tag, packet),
            Leg::Port { address, rtcp } => {
                let to = match side {
                    Side::Rtp => address,
                    Side::Rtcp => rtcp,
                };
                self.send_from_port(hop, side, kind, to, packet, loan);
            }
        }
    }

    fn send_from_port(
        &mut self,
        hop: Hop,
        side: Side,
        kind: Kind,
        to: SocketAddr,
        packet: &[u8],
        loan: &mut Loan<'_>,
    ) {
        let dscp = self.dscp_of(kind);
        let Some(ports) = &mut self.ports else {
            return loan.ways.drop(Reason::NoHop);
        };
        match ports.send(side, to, dscp, packet) {
            Ok(()) => loan.ways.stamps.sent(hop.node, loan.now),
            Err(error) => loan.ways.drop(super::ways::reason(error.kind())),
        }
    }

    /// A packet that a hop sent for the client.
    pub(crate) fn handle_node_packet(&mut self, from: Hop, packet: &[u8], loan: &mut Loan<'_>) {
        let kind = demux::classify(packet);
        let header = match kind {
            demux::Kind::Rtp => match rtp::Header::parse(packet) {
                Ok(header) => Some(header),
                Err(_) => return loan.ways.drop(Reason::Malformed),
            },
            demux::Kind::Rtcp => None,
            _ => return loan.ways.drop(Reason::Malformed),
        };
        let payload_type = header.as_ref().map(|header| header.payload_type);
        let verdict = {
            let route = self.route.load();
            forward::to_client(from, payload_type, &self.plan, &route, loan.board, loan.now)
        };
        let leaving = match verdict {
            Verdict::Pass { leaving, .. } => leaving,
            Verdict::Drop(reason) => {
                if let (Reason::Shed, Some(header)) = (reason, &header) {
                    self.totals.shed += 1;
                    self.note_shed(from, header, loan);
                }
                return loan.ways.drop(reason);
            }
        };
        if !leaving && self.hearing != Some(from) {
            self.hear(from);
        }
        // What the hop that was left still delivers belongs to the epoch before.
        let left = leaving && self.hearing != Some(from);
        let epoch = Epoch(u64::from(self.switches).saturating_sub(u64::from(left)));
        match header {
            Some(header) => self.rtp_to_client(from, epoch, &header, packet, loan),
            None => self.rtcp_to_client(epoch, packet, loan),
        }
    }

    /// What is shed is told by number, so that nobody takes it for loss, and leaves no gap in the client's numbers.
    fn note_shed(&mut self, from: Hop, header: &rtp::Header, loan: &mut Loan<'_>) {
        if self.hearing != Some(from) {
            self.hear(from);
        }
        let epoch = Epoch(u64::from(self.switches));
        let rate =
            self.media.payload_type(header.payload_type).map(|(_, payload)| payload.clock_rate);
        let Some(Withheld { ssrc, after, ahead }) =
            rate.and_then(|rate| self.continuity.withhold(epoch, header, rate, loan.now))
        else {
            return;
        };
        if let Some((run, _)) = &mut self.shed
            && (run.ssrc, run.after) == (ssrc, after)
            && run.first + run.packets == ahead
        {
            run.packets += 1;
            return;
        }
        self.tell_shed(loan.ways);
        self.shed = Some((ShedRun { ssrc, after, first: ahead, packets: 1 }, loan.now));
    }

    pub(crate) fn tell_shed(&mut self, ways: &Ways) {
        if let Some((run, _)) = self.shed.take() {
            ways.report(Report::Shed { session: self.id, run });
        }
    }

    /// From here on this hop's packets reach the client.
    fn hear(&mut self, hop: Hop) {
        let before = self.hearing.replace(hop);
        if before.is_some() {
            self.totals.switches += 1;
            self.feedback.want_key_frame();
        }
        self.switches += 1;
        let leaving = self.route.load().leaving.map(|(left, _)| left);
        let epoch = Epoch(u64::from(self.switches));
        if before.is_some() && leaving == before {
            self.continuity.switched(epoch, Switch::Planned { lead: Duration::ZERO });
        } else {
            self.continuity.switched(epoch, Switch::Failover);
            self.continuity.close_previous();
        }
    }

    fn rtp_to_client(
        &mut self,
        from: Hop,
        epoch: Epoch,
        header: &rtp::Header,
        packet: &[u8],
        loan: &mut Loan<'_>,
    ) {
        let Some((kind, payload)) = self.media.payload_type(header.payload_type) else {
            return loan.ways.drop(Reason::UndeclaredPayload);
        };
        let pass = self.continuity.pass(epoch, header, payload.clock_rate, loan.now);
        let rewrite = match pass {
            Pass::Untouched => None,
            Pass::Rewrite { ssrc, sequence, timestamp } => Some((ssrc, sequence, timestamp)),
            Pass::Stale | Pass::Duplicate => return loan.ways.drop(Reason::Stale),
        };
        if kind == Kind::Video
            && let Some(request) = self.feedback.key_frame_request(header.ssrc)
        {
            loan.ways.stamps.asked_key_frame(Way::ToNode);
            self.send_to_node(from, Side::Rtcp, Kind::Video, &request, loan);
        }
        self.totals.packets_down += 1;
        self.totals.bytes_down += packet.len() as u64;
        self.measure.sent(packet.len());
        self.send_to_client(Side::Rtp, kind, packet, loan, |bytes| {
            if let Some((ssrc, sequence, timestamp)) = rewrite {
                rtp::set_ssrc(bytes, ssrc);
                rtp::set_sequence(bytes, sequence);
                rtp::set_timestamp(bytes, timestamp);
            }
        });
    }

    fn rtcp_to_client(&mut self, epoch: Epoch, packet: &[u8], loan: &mut Loan<'_>) {
        let mut packet = packet.to_vec();
        let Ok(length) = self.continuity.rtcp_to_client(epoch, &mut packet) else {
            return loan.ways.drop(Reason::Feedback);
        };
        packet.truncate(length);
        if self.media.srtp == Srtp::Plain {
            self.measure.note_sender_report(&packet, loan.now);
        }
        self.send_to_client(Side::Rtcp, Kind::Audio, &packet, loan, |_| {});
    }

    fn send_to_client(
        &mut self,
        side: Side,
        kind: Kind,
        packet: &[u8],
        loan: &mut Loan<'_>,
        rewrite: impl FnOnce(&mut [u8]),
    ) {
        if let Client::Quic { flow_from_gateway } = self.client {
            // The ring takes bytes as they are, so they are rewritten on the way.
            let mut bytes = [0; crate::mmsg::DATAGRAM_MAX];
            let Some(bytes) = bytes.get_mut(..packet.len()) else {
                return loan.ways.drop(Reason::Oversize);
            };
            bytes.copy_from_slice(packet);
            rewrite(bytes);
            loan.ways.queue_to_quic(self.home, flow_from_gateway, bytes);
            loan.ways.stamps.passed(Way::ToClient, packet.len());
            return;
        }
        let address = match side {
            Side::Rtp => self.address.rtp,
            Side::Rtcp => self.address.rtcp.or(self.address.rtp),
        };
        let consent = self.client != Client::Stun
            || self
                .address
                .consent
                .is_some_and(|at| loan.now.saturating_duration_since(at) < CONSENT);
        let Some((listener, address)) = address.filter(|_| consent) else {
            return loan.ways.drop(Reason::NoAddress);
        };
        match loan.ways.queue_to_client(
            (listener, self.side(side)),
            address,
            self.dscp_of(kind),
            packet,
        ) {
            Some(bytes) => {
                rewrite(bytes);
                loan.ways.stamps.passed(Way::ToClient, packet.len());
            }
            None => loan.ways.drop(Reason::NoAddress),
        }
    }

    /// The listener's own RTCP port only for clients that keep RTCP apart.
    fn side(&self, side: Side) -> Side {
        match self.media.rtcp {
            RtcpPort::Mux => Side::Rtp,
            RtcpPort::Own => side,
        }
    }

    fn dscp_of(&self, kind: Kind) -> u8 {
        match kind {
            Kind::Audio => self.dscp.voice,
            Kind::Video => self.dscp.video,
        }
    }

    /// A check that holds came from this address. Media goes to the last that was nominated or, if none ever was, to
    /// the last that passed and sent media. The address that may no longer send, if one gives way.
    pub(crate) fn checked(
        &mut self,
        from: (u8, SocketAddr),
        nominated: bool,
        now: Instant,
    ) -> Option<(u8, SocketAddr)> {
        self.measure.heard(now);
        self.address.consent = Some(now);
        self.address.nominated |= nominated;
        if nominated || self.address.rtp.is_none() {
            self.address.rtp = Some(from);
        }
        self.address.checked.retain(|known| *known != from);
        self.address.checked.push(from);
        (self.address.checked.len() > CHECKED_MAX).then(|| self.address.checked.remove(0))
    }

    /// The client sent media from this address, which passed a check.
    pub(crate) fn heard_from(&mut self, from: (u8, SocketAddr)) {
        if self.client == Client::Stun && !self.address.nominated {
            self.address.rtp = Some(from);
        }
    }

    /// Whether the first packet from this port fixes it as the client's: valid RTP of a declared payload type.
    pub(crate) fn learn(&mut self, from: (u8, SocketAddr), packet: &[u8]) -> bool {
        let declared = demux::classify(packet) == demux::Kind::Rtp
            && rtp::Header::parse(packet)
                .is_ok_and(|header| self.media.payload_type(header.payload_type).is_some());
        if declared {
            let (listener, address) = from;
            self.address.rtp = Some(from);
            self.address.checked.push(from);
            if self.media.rtcp == RtcpPort::Own {
                // RFC 3550, 11: RTCP on the next higher port.
                let port = address.port().wrapping_add(1);
                let rtcp = (listener, SocketAddr::new(address.ip(), port));
                self.address.rtcp = Some(rtcp);
                self.address.checked.push(rtcp);
            }
        }
        declared
    }

    /// Whether a packet that was looked up a moment ago may still come from there: what was learned since then counts.
    pub(crate) fn takes_from(&self, from: (u8, SocketAddr)) -> bool {
        !matches!(self.client, Client::DeclaredIp { .. }) || self.address.checked.contains(&from)
    }

    /// Whether its client's port is still to be learned.
    pub(crate) fn learns(&self) -> bool {
        matches!(self.client, Client::DeclaredIp { .. }) && self.address.rtp.is_none()
    }

    /// Addresses that this session taught the flow table.
    pub(crate) fn learned(&self) -> &[(u8, SocketAddr)] {
        &self.address.checked
    }

    /// Asks the client for a key frame of each video stream it sends.
    pub(crate) fn ask_key_frame(&mut self, loan: &mut Loan<'_>) {
        if let Some(request) = self.feedback.key_frame_of_client(loan.now) {
            loan.ways.stamps.asked_key_frame(Way::ToClient);
            self.send_to_client(Side::Rtcp, Kind::Video, &request, loan, |_| {});
        }
    }

    /// Tells the client how much it may send, if there is a cap or one was lifted.
    pub(crate) fn send_cap(&mut self, loan: &mut Loan<'_>) {
        if let Some(cap) = self.feedback.cap(self.plan.send_cap_kbps()) {
            self.send_to_client(Side::Rtcp, Kind::Video, &cap, loan, |_| {});
        }
    }

    /// Every 100 ms: repeats the cap when it is due, and tells what was shed.
    pub(crate) fn tick(&mut self, loan: &mut Loan<'_>) {
        if self.plan.send_cap_kbps() > 0 && self.feedback.cap_is_due(loan.now) {
            self.send_cap(loan);
        }
        let due = |since: Instant| loan.now.saturating_duration_since(since) >= SHED_TOLD_EVERY;
        if self.shed.is_some_and(|(_, since)| due(since)) {
            self.tell_shed(loan.ways);
        }
    }

    /// What workers tell control of it every 100 ms.
    pub(crate) fn summary(&mut self, now: Instant) -> Summary {
        self.totals.lost_up = self.measure.lost_up();
        Summary {
            session: self.id,
            measures: self.measure.interval(now),
            last_heard: self.measure.last_heard(),
            totals: self.totals,
        }
    }

    pub(crate) fn final_totals(&self) -> Totals {
        Totals { lost_up: self.measure.lost_up(), ..self.totals }
    }

    /// The error queue of its port accuses this address.
    pub(crate) fn accused(&self, address: SocketAddr, ways: &Ways) {
        if let Some(hop) = self.hop_at(address) {
            ways.report(Report::PortClosed { session: self.id, hop });
        }
    }
}

#[cfg(test)]
mod tests;
