//! A worker's sessions without its sockets: what our own code costs per packet, for benchmarks.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_core::{
    Board, Grant, Hop, Incarnation, Kind, Media, NodeId, PayloadType, Plan, Route, RouteCell,
    RtcpPort, SessionId, Srtp, Stream,
};
use evenkeel_media::trunk::Tag;
use tokio::sync::mpsc;

use super::arrival::Arrival;
use super::client_ingress::Ingress;
use super::command::{Client, Dscp, Install, Leg};
use super::early::Patience;
use super::egress::{Port, Side, Trunk, Ways};
use super::session::{Loan, Session};
use super::sessions::Sessions;
use super::stats::{Stamps, Way};
use crate::flows::{Entry, Flows, Home, Key};
use crate::mmsg::BATCH;

/// Sessions of voice whose clients are declared, with trunk legs to one node. What they send is queued as a worker queues
/// it, and then forgotten.
pub struct Lane {
    ingress: Ingress,
    sessions: Sessions,
    count: u32,
    ways: Ways,
    board: Board,
    start: Instant,
    packets: u32,
}

/// The only hop there is.
const HOP: Hop = Hop { node: NodeId(0), incarnation: Incarnation(1) };

/// Between two packets of a session.
const PACE: Duration = Duration::from_millis(20);

impl Lane {
    /// With so many sessions; their streams have payload type 111.
    ///
    /// # Errors
    /// The system gives no socket: some must be there, though nothing leaves by them.
    pub fn new(sessions: u32) -> io::Result<Lane> {
        let start = Instant::now();
        let socket = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
        let (reports, _) = mpsc::channel(1);
        let patience = Patience { packets: 0, wait: Duration::ZERO };
        let mut ways = Ways::new(reports, Arc::new(Stamps::new(start, 1)), patience);
        ways.listeners.push((Port::new(socket()?)?, None));
        ways.trunks.push(Some(Trunk::new(socket()?)));
        let flows = Arc::new(Flows::new(sessions as usize));
        let opus = PayloadType { number: 111, codec: "opus".into(), clock_rate: 48_000 };
        let voice = Stream {
            kind: Kind::Audio,
            payload_types: vec![opus],
            feedback: evenkeel_core::Feedback::default(),
            bitrate_kbps: None,
        };
        let media = Media { streams: vec![voice], rtcp: RtcpPort::Mux, srtp: Srtp::Plain };
        let (count, mut sessions) = (sessions, Sessions::default());
        for slot in 0..count {
            let home = Home { worker: 0, slot, generation: 1 };
            let key = Key::Udp { listener: 0, address: client(slot) };
            flows.insert(key, Entry::of(home)).map_err(io::Error::other)?;
            let mut session = Session::new(install(home, &media));
            session.attach(HOP, Leg::Trunk(Tag(u64::from(slot) + 1)));
            sessions.put(session);
        }
        let ingress = Ingress::new(flows, vec![false], u32::MAX, start);
        Ok(Lane { ingress, sessions, count, ways, board: Board::new(1), start, packets: 0 })
    }

    /// A packet comes from that session's client: judged, measured, and queued on the trunk.
    pub fn from_client(&mut self, session: u32, packet: &[u8]) {
        let now = self.next();
        let from = (0, client(session));
        let Some((home, kind)) = self.ingress.judge(from, Side::Rtp, packet, &self.ways, now)
        else {
            return;
        };
        let arrival = Arrival { listener: 0, source: from.1, kind };
        let loan = &mut Loan { ways: &mut self.ways, board: &self.board, now };
        self.sessions.lend(home, |session| self.ingress.deliver(session, arrival, packet, loan));
    }

    /// A packet for that session comes from its node: continued, and queued to the client.
    pub fn from_node(&mut self, session: u32, packet: &[u8]) {
        let now = self.next();
        let loan = &mut Loan { ways: &mut self.ways, board: &self.board, now };
        self.sessions.lend_slot(session, |session| session.handle_node_packet(HOP, packet, loan));
    }

    /// Packets that were passed on so far, either way.
    pub fn passed(&self) -> u64 {
        self.ways.stamps.packets(Way::ToNode) + self.ways.stamps.packets(Way::ToClient)
    }

    /// When the next packet comes. What a batch queued is forgotten with its end.
    fn next(&mut self) -> Instant {
        self.packets += 1;
        if self.packets.is_multiple_of(BATCH as u32) {
            self.ways.forget_queued();
        }
        self.start + PACE * (self.packets / self.count.max(1))
    }
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane").field("sessions", &self.count).finish_non_exhaustive()
    }
}

fn client(session: u32) -> SocketAddr {
    (Ipv4Addr::from_bits(0x0a00_0000 + session), 5_004).into()
}

fn install(home: Home, media: &Media) -> Install {
    let route = Route {
        mode: evenkeel_core::Mode::Hot,
        version: 1,
        hops: vec![(HOP, Grant::Admitted)],
        leaving: None,
        lead: Duration::ZERO,
    };
    let address = client(home.slot);
    Install {
        home,
        session: SessionId(home.slot.into()),
        // Each its own, as every offer brings its own.
        media: Arc::new(media.clone()),
        client: Client::Declared { listener: 0, address, rtcp: address },
        route: Arc::new(RouteCell::holding(route)),
        plan: Plan::default(),
        dscp: Dscp { voice: 46, video: 34 },
        ports: None,
        seed: home.slot.into(),
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_media::rtp;

    use super::*;

    #[test]
    fn every_packet_is_passed_on_both_ways() {
        let mut lane = Lane::new(3).unwrap();
        for number in 0..200_u16 {
            for session in 0..3 {
                let fields = rtp::Fields {
                    payload_type: 111,
                    marker: false,
                    sequence: number,
                    timestamp: u32::from(number) * 960,
                    ssrc: session,
                };
                let mut packet = Vec::new();
                rtp::write(&fields, &[7; 100], &mut packet);
                lane.from_client(session, &packet);
                lane.from_node(session, &packet);
            }
        }
        assert_eq!(lane.passed(), 200 * 3 * 2);
    }
}
