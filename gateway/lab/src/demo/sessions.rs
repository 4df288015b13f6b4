//! The demo's sessions: calls and streams, and their transports.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::options::DemoError;
use super::processes::{Processes, REGIONS, ZONES};
use crate::client::{ClientFleet, ClientPath, Persona, Video, Voice};
use crate::clock;
use crate::crowd::PlannedTransport;
use crate::ledger::{Books, RoomParticipant};
use crate::relay::ImpairmentRelay;
use evenkeel_client::{
    ApiClient, OfferAnswer, OfferIdentity, OfferIngress, OfferMedia, OfferPayloadType,
    OfferRequest, OfferStreamKind, QuicOffer,
};

/// The region of the UDP clients behind a lossy network.
pub(super) const LOSSY: &str = REGIONS[2];
/// One session in this many is in a live stream.
const LIVE_SHARE: u32 = 5;
/// Sessions of one live stream: a publisher and its viewers.
const AUDIENCE: u32 = 10;
/// One call in this many has video.
const VIDEO_SHARE: usize = 4;
/// Time within which all clients must be able to send.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// Wait after all clients can send, so that the first packets of every session have arrived.
const SETTLE: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DemoScenario {
    Call,
    Live,
}

/// A room, its region, and the zone in its label.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct DemoRoom {
    pub(super) number: u64,
    pub(super) scenario: DemoScenario,
    pub(super) region: &'static str,
    zone: &'static str,
}

#[derive(Clone, Debug)]
pub(super) struct PlannedSession {
    pub(super) session: u64,
    pub(super) room: u64,
    pub(super) transport: PlannedTransport,
    pub(super) video: bool,
    /// The client only listens: a viewer of a stream.
    listens_only: bool,
}

pub(super) struct SessionPlan {
    pub(super) rooms: Vec<DemoRoom>,
    pub(super) sessions: Vec<PlannedSession>,
}

pub(super) struct OpenSessions {
    pub(super) plan: SessionPlan,
    pub(super) fleet: ClientFleet,
    pub(super) books: Books,
    pub(super) relay: ImpairmentRelay,
    /// Session numbers by the id that the gateway assigned.
    pub(super) by_id: BTreeMap<String, u64>,
    /// The ICE user fragment, for unauthorised checks.
    pub(super) ufrag: Option<String>,
    /// The certificate and address of the QUIC listener.
    pub(super) quic: Option<(SocketAddr, [u8; 32])>,
    /// Start of the measurement: nanoseconds since the Unix epoch.
    pub(super) from_ns: u64,
}

impl SessionPlan {
    /// Plans the sessions. Every fourth call has video. The ends of a call use UDP, QUIC, or one each.
    pub(super) fn of(sessions: u32) -> SessionPlan {
        let live = (sessions / LIVE_SHARE / AUDIENCE).max(1) * AUDIENCE;
        let calls = (sessions.saturating_sub(live) / 2) as usize;
        let mut plan = SessionPlan { rooms: Vec::new(), sessions: Vec::new() };
        for call in 0..calls {
            // The periods of the patterns differ, so that every region has calls of every kind.
            let (region, turn) = (REGIONS[[0, 0, 1, 2][call / 4 % 4]], call / 16);
            let zone = ZONES[(call ^ call >> 2 ^ call >> 4) % 2];
            let room = plan.room(DemoScenario::Call, region, zone);
            let transports = match call % 4 {
                0 => [PlannedTransport::Udp, PlannedTransport::Udp],
                1 => [PlannedTransport::Quic, PlannedTransport::Quic],
                _ => [PlannedTransport::Udp, PlannedTransport::Quic],
            };
            let video = (call + call / 4 + turn).is_multiple_of(VIDEO_SHARE);
            transports
                .into_iter()
                .for_each(|transport| plan.add_session(room, transport, video, false));
        }
        for stream in 0..(live / AUDIENCE) as usize {
            let region = REGIONS[stream % REGIONS.len()];
            let room = plan.room(DemoScenario::Live, region, ZONES[stream % 2]);
            for seat in 0..AUDIENCE as usize {
                let transport =
                    [PlannedTransport::Udp, PlannedTransport::Quic][(seat + stream) % 2];
                plan.add_session(room, transport, true, seat > 0);
            }
        }
        plan
    }

    fn room(&mut self, scenario: DemoScenario, region: &'static str, zone: &'static str) -> u64 {
        let number = self.rooms.len() as u64 + 1;
        self.rooms.push(DemoRoom { number, scenario, region, zone });
        number
    }

    fn add_session(
        &mut self,
        room: u64,
        transport: PlannedTransport,
        video: bool,
        listens_only: bool,
    ) {
        let session = self.sessions.len() as u64 + 1;
        self.sessions.push(PlannedSession { session, room, transport, video, listens_only });
    }

    pub(super) fn room_of(&self, planned: &PlannedSession) -> &DemoRoom {
        &self.rooms[planned.room as usize - 1]
    }

    pub(super) fn count(&self, transport: PlannedTransport) -> usize {
        self.sessions.iter().filter(|planned| planned.transport == transport).count()
    }

    pub(super) fn sessions_by(&self, transport: PlannedTransport) -> BTreeSet<u64> {
        let by = self.sessions.iter().filter(|planned| planned.transport == transport);
        by.map(|planned| planned.session).collect()
    }
}

impl PlannedSession {
    fn persona(&self, seed: u64) -> Persona {
        let speaks = !self.listens_only;
        Persona {
            session: self.session,
            seed: seed ^ self.session.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            voice: speaks.then(Voice::default),
            video: (speaks && self.video).then(Video::default),
        }
    }

    fn media(&self) -> Vec<OfferMedia> {
        let stream = |kind, payload_type, codec: &str, clock_rate, bitrate: &str| OfferMedia {
            kind,
            payload_types: vec![OfferPayloadType { payload_type, codec: codec.into(), clock_rate }],
            feedback: vec!["pli".into(), "remb".into()],
            bitrate: Some(bitrate.into()),
        };
        let voice = Voice::default().payload_type;
        let video = Video::default().payload_type;
        let mut media = vec![stream(OfferStreamKind::Audio, voice, "opus", 48_000, "64 kbit/s")];
        if self.video {
            media.push(stream(OfferStreamKind::Video, video, "vp8", 90_000, "400 kbit/s"));
        }
        media
    }
}

impl OpenSessions {
    /// Opens all sessions and waits until every client can send.
    pub(super) async fn enter(
        plan: SessionPlan,
        processes: &mut Processes,
        seed: u64,
    ) -> Result<OpenSessions, DemoError> {
        let books = Books::default();
        let fleet = ClientFleet::start(&books).map_err(DemoError::system("starting clients"))?;
        let relay =
            ImpairmentRelay::start(seed).map_err(DemoError::system("starting the relay"))?;
        let mut sessions = OpenSessions {
            plan,
            fleet,
            books,
            relay,
            by_id: BTreeMap::new(),
            ufrag: None,
            quic: None,
            from_ns: u64::MAX,
        };
        let mut admin = processes.admin();
        for planned in sessions.plan.sessions.clone() {
            sessions.open(&planned, &mut admin, processes.udp, seed).await?;
        }
        sessions.wait_ready(processes).await?;
        sessions.from_ns = clock::now_ns() + clock::nanoseconds(SETTLE);
        for planned in &sessions.plan.sessions {
            let (from_ns, until_ns) = (sessions.from_ns, u64::MAX);
            let PlannedSession { session, room, .. } = *planned;
            sessions.books.open().join(RoomParticipant { session, room, from_ns, until_ns });
        }
        tokio::time::sleep(SETTLE).await;
        Ok(sessions)
    }

    async fn open(
        &mut self,
        planned: &PlannedSession,
        admin: &mut ApiClient,
        gateway: SocketAddr,
        seed: u64,
    ) -> Result<(), DemoError> {
        let what = format!("opening session {}", planned.session);
        let room = self.plan.room_of(planned).clone();
        let mut socket = None;
        let ingress = match planned.transport {
            PlannedTransport::Quic => OfferIngress::Quic(QuicOffer {}),
            PlannedTransport::Udp => {
                let bound =
                    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(DemoError::system(&what))?;
                let own = bound.local_addr().map_err(DemoError::system(&what))?;
                let ends =
                    (room.region == LOSSY).then(|| self.relay.lane(planned.session, gateway));
                let ends = ends.transpose().map_err(DemoError::system(&what))?;
                let seen = ends.map_or(own, |ends| ends.far);
                socket = Some((bound, ends.map(|ends| ends.near)));
                // Half of the clients do; the others declare their address.
                let session = planned.session;
                let uses_stun = session.is_multiple_of(2) == (session / 4).is_multiple_of(2);
                OfferIngress::Udp(if uses_stun {
                    OfferIdentity::Stun
                } else {
                    OfferIdentity::Declared { address: seen, rtcp: None }
                })
            }
        };
        let scenario = match room.scenario {
            DemoScenario::Call => "call",
            DemoScenario::Live => "live",
        };
        let labels = [("region", room.region), ("zone", room.zone)];
        let offer = OfferRequest {
            scenario: scenario.into(),
            room: format!("{scenario}-{}", room.number),
            labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            ingress,
            media: planned.media(),
            rtcp: None,
            nodes: BTreeMap::new(),
        };
        let opened = admin.open(&offer).await.map_err(DemoError::admin(&what))?;
        let Some(way) = self.way(&opened, socket) else {
            return Err(DemoError::InVain {
                what: format!("an address in the answer for {what}"),
                seconds: 0,
            });
        };
        self.by_id.insert(opened.id, planned.session);
        self.fleet.join(planned.persona(seed), way);
        Ok(())
    }

    fn way(
        &mut self,
        opened: &OfferAnswer,
        socket: Option<(UdpSocket, Option<SocketAddr>)>,
    ) -> Option<ClientPath> {
        let (socket, near) = socket.unzip();
        let mut way = ClientPath::of(opened, socket)?;
        match &mut way {
            ClientPath::Udp(way) => {
                way.gateway = near.flatten().unwrap_or(way.gateway);
                let ufrag = || way.ice.as_ref().map(|ice| ice.ufrag.clone());
                self.ufrag = self.ufrag.take().or_else(ufrag);
            }
            ClientPath::Quic(way) => self.quic = Some((way.gateway, way.certificate_sha256)),
        }
        Some(way)
    }

    async fn wait_ready(&self, processes: &mut Processes) -> Result<(), DemoError> {
        let until = Instant::now() + READY_WITHIN;
        loop {
            processes.require_gateway()?;
            let waiting = self.fleet.waiting().into_iter().map(|(session, failed)| match failed {
                Some(why) => format!("{session} ({why})"),
                None => session.to_string(),
            });
            let waiting: Vec<String> = waiting.collect();
            if waiting.is_empty() {
                return Ok(());
            }
            if Instant::now() > until {
                let what = format!("readiness of sessions {}", waiting.join(", "));
                return Err(DemoError::InVain { what, seconds: READY_WITHIN.as_secs() });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sessions behind the relay.
    pub(super) fn lossy(&self) -> BTreeSet<u64> {
        let lossy = self.plan.sessions.iter().filter(|planned| {
            planned.transport == PlannedTransport::Udp && self.plan.room_of(planned).region == LOSSY
        });
        lossy.map(|planned| planned.session).collect()
    }
}

#[cfg(test)]
mod tests;
