//! The packet path without sockets, for benchmarks.

use std::hash::RandomState;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_media::trunk::Tag;
use evenkeel_model::{
    Board, Hop, HopGrant, Incarnation, MediaDescription, MediaLimits, MediaStream, NodeId,
    PayloadType, Route, RouteCell, RtcpPort, SessionId, Srtp, StreamKind,
};
use tokio::sync::mpsc;

use super::client_ingress::ClientIngress;
use super::early::EarlyLimits;
use super::egress::{DscpMarks, Egress, PacketContext, Trunk, TrunkSocket};
use super::report::{MediaDirection, WorkerStats};
use super::session::{ClientAddressing, Install, NodeLeg, WorkerSession};
use super::slots::SessionSlots;
use super::sockets::{ClientArrival, ListenerPort, RtpSide, SourceKey};
use crate::flows::{FlowEntry, FlowKey, Flows, Home};
use crate::mmsg::BATCH;

/// Voice sessions of declared clients with trunk legs to one node. Packets are queued as in a worker and then
/// discarded.
pub struct PacketPath {
    ingress: ClientIngress,
    sessions: SessionSlots,
    egress: Egress,
    board: Board,
    start: Instant,
    packets: u32,
}

const HOP: Hop = Hop { node: NodeId(0), incarnation: Incarnation(1) };

/// Interval between two packets of a session.
const PACE: Duration = Duration::from_millis(20);

impl PacketPath {
    /// Creates sessions with payload type 111.
    ///
    /// # Errors
    ///
    /// The system gives no socket. Sockets must exist, although nothing is sent.
    pub fn new(sessions: u32) -> io::Result<PacketPath> {
        let start = Instant::now();
        let socket = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
        let (reports, _) = mpsc::channel(1);
        let early_limits = EarlyLimits { packets: 0, wait: Duration::ZERO };
        let mut egress = Egress::new(reports, Arc::new(WorkerStats::new(start, 1)), early_limits);
        egress.listeners.push((ListenerPort::new(socket()?)?, None));
        let trunk = TrunkSocket { socket: socket()?, seal: None, first_number: 0 };
        egress.trunks.push(Some(Trunk::new(trunk)?));
        let flows = Arc::new(Flows::new(sessions as usize));
        let opus = PayloadType::new(111, "opus", 48_000);
        let voice = MediaStream {
            kind: StreamKind::Audio,
            payload_types: vec![opus],
            feedback: evenkeel_model::FeedbackSupport::default(),
            bitrate_kbps: None,
        };
        let media = MediaDescription::new(vec![voice], RtcpPort::Mux, Srtp::Plain);
        let mut slots = SessionSlots::default();
        for slot in 0..sessions {
            let home = Home { worker: 0, slot, generation: 1 };
            let key = FlowKey::Udp { listener: 0, address: client(slot) };
            flows.insert(key, FlowEntry::of(home)).map_err(io::Error::other)?;
            let mut session = WorkerSession::new(install(home, &media));
            session.attach(HOP, NodeLeg::Trunk(Tag(u64::from(slot) + 1)));
            slots.put(session);
        }
        let keys = RandomState::new();
        let ingress = ClientIngress::new(0, flows, vec![false], u32::MAX, keys, start);
        let board = Board::new(1);
        Ok(PacketPath { ingress, sessions: slots, egress, board, start, packets: 0 })
    }

    /// Handles a packet from that session's client: identifies it, measures it and queues it on the trunk.
    pub fn from_client(&mut self, session: u32, packet: &[u8]) {
        let now = self.next();
        let source = SourceKey { listener: 0, address: client(session) };
        let found = self.ingress.identify(source, RtpSide::Rtp, packet, &self.egress, now);
        let Some((home, kind)) = found else { return };
        let cx = &mut PacketContext { egress: &mut self.egress, board: &self.board, now };
        let arrival = ClientArrival { source, local: None, kind };
        self.ingress.deliver(&mut self.sessions, home, arrival, packet, cx);
    }

    /// Handles a packet for that session from its node: continues its numbers and queues it to the client.
    pub fn from_node(&mut self, session: u32, packet: &[u8]) {
        let now = self.next();
        let cx = &mut PacketContext { egress: &mut self.egress, board: &self.board, now };
        self.sessions.with_slot(session, |session| session.handle_node_packet(HOP, packet, cx));
    }

    /// Packets forwarded so far, in both directions.
    pub fn passed(&self) -> u64 {
        self.egress.stats.packets(MediaDirection::ToNode)
            + self.egress.stats.packets(MediaDirection::ToClient)
    }

    /// Returns the time of the next packet. Each batch is a pass; its end discards the queues.
    fn next(&mut self) -> Instant {
        self.packets += 1;
        let now = self.start + PACE * (self.packets / self.sessions.slots().max(1));
        if self.packets.is_multiple_of(BATCH as u32) {
            self.egress.clear_queues();
            self.egress.stats.pass_begins(now);
        }
        now
    }
}

fn client(session: u32) -> SocketAddr {
    (Ipv4Addr::from_bits(0x0a00_0000 + session), 5_004).into()
}

fn install(home: Home, media: &MediaDescription) -> Install {
    let mode = evenkeel_model::RedundancyMode::Hot;
    let route = Route::new(1, mode, [(HOP, HopGrant::Admitted)]);
    let address = client(home.slot);
    Install {
        home,
        session: SessionId(home.slot.into()),
        // One allocation per session, as in production.
        media: Arc::new(media.clone()),
        client: ClientAddressing::Declared { listener: 0, address, rtcp: address },
        route: Arc::new(RouteCell::holding(route)),
        limits: MediaLimits::default(),
        dscp: DscpMarks { voice: 46, video: 34 },
        replay: evenkeel_model::ReplayedMedia::Off,
        srtp: None,
        ports: None,
        await_first_packet: false,
        await_report: false,
        seed: home.slot.into(),
        state: None,
    }
}

#[cfg(test)]
mod tests;
