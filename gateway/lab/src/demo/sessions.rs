//! The demo's sessions: calls and streams, and their transports.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::pin::pin;

use super::processes::{Processes, REGIONS, ZONES};
use crate::client::Persona;
use crate::crowd::{
    OpenSessions, PlannedIdentity, PlannedSession, PlannedTransport, newcomer, video_media,
    voice_media,
};
use crate::error::LabError;
use evenkeel_contract::offers::{OfferFeedback, OfferIngress, OfferMedia, OfferRequest};

/// The region of the UDP clients behind a lossy network.
const LOSSY: &str = REGIONS[2];
/// One session in this many is in a live stream.
const LIVE_SHARE: u32 = 5;
/// Sessions of one live stream: a publisher and its viewers.
const AUDIENCE: u32 = 10;
/// One call in this many has video.
const VIDEO_SHARE: usize = 4;

/// Plans the sessions. Every fourth call has video. The ends of a call use UDP, QUIC, or one each.
pub(super) fn plan(sessions: u32, seed: u64) -> Vec<PlannedSession> {
    let live = (sessions / LIVE_SHARE / AUDIENCE).max(1) * AUDIENCE;
    let calls = (sessions.saturating_sub(live) / 2) as usize;
    let mut plan = Vec::new();
    for call in 0..calls {
        // The periods of the patterns differ, so that every region has calls of every kind.
        let (region, turn) = (REGIONS[[0, 0, 1, 2][call / 4 % 4]], call / 16);
        let zone = ZONES[(call ^ call >> 2 ^ call >> 4) % 2];
        let room = DemoRoom { number: call as u64 + 1, scenario: "call", region, zone };
        let transports = match call % 4 {
            0 => [PlannedTransport::Udp, PlannedTransport::Udp],
            1 => [PlannedTransport::Quic, PlannedTransport::Quic],
            _ => [PlannedTransport::Udp, PlannedTransport::Quic],
        };
        let has_video = (call + call / 4 + turn).is_multiple_of(VIDEO_SHARE);
        for transport in transports {
            plan.push(room.session(plan.len() as u64 + 1, transport, has_video, seed));
        }
    }
    for stream in 0..(live / AUDIENCE) as usize {
        let number = (calls + stream) as u64 + 1;
        let (region, zone) = (REGIONS[stream % REGIONS.len()], ZONES[stream % 2]);
        let room = DemoRoom { number, scenario: "live", region, zone };
        for seat in 0..AUDIENCE as usize {
            let transport = [PlannedTransport::Udp, PlannedTransport::Quic][(seat + stream) % 2];
            let mut session = room.session(plan.len() as u64 + 1, transport, true, seed);
            if seat > 0 {
                (session.persona.voice, session.persona.video) = (false, false);
            }
            plan.push(session);
        }
    }
    plan
}

pub(super) fn sessions_by(plan: &[PlannedSession], transport: PlannedTransport) -> BTreeSet<u64> {
    let by = plan.iter().filter(|planned| planned.transport == transport);
    by.map(|planned| planned.persona.session).collect()
}

pub(super) fn rooms_of(plan: &[PlannedSession], scenario: &str) -> BTreeSet<u64> {
    let of = plan.iter().filter(|planned| planned.offer.scenario == scenario);
    of.map(|planned| planned.room).collect()
}

/// A room, its region, and the zone in its label.
struct DemoRoom {
    number: u64,
    scenario: &'static str,
    region: &'static str,
    zone: &'static str,
}

impl DemoRoom {
    fn session(
        &self,
        session: u64,
        transport: PlannedTransport,
        has_video: bool,
        seed: u64,
    ) -> PlannedSession {
        let feedback = || vec![OfferFeedback::Pli, OfferFeedback::Remb];
        let mut media = vec![OfferMedia { feedback: feedback(), ..voice_media() }];
        if has_video {
            media.push(OfferMedia { feedback: feedback(), ..video_media() });
        }
        let labels = [("region", self.region), ("zone", self.zone)];
        let is_relayed = transport == PlannedTransport::Udp && self.region == LOSSY;
        // Half of the other clients use STUN; the rest declare their address.
        let is_half = session.is_multiple_of(2) == (session / 4).is_multiple_of(2);
        PlannedSession {
            persona: Persona {
                session,
                seed: seed ^ session.wrapping_mul(0x9e37_79b9_7f4a_7c15),
                voice: true,
                video: has_video,
            },
            room: self.number,
            offer: OfferRequest {
                scenario: self.scenario.into(),
                room: format!("{}-{}", self.scenario, self.number),
                labels: labels.into_iter().collect(),
                ingress: Some(OfferIngress::quic()),
                media: Some(media),
                ..OfferRequest::default()
            },
            transport,
            identity: match is_relayed || is_half {
                true => PlannedIdentity::Stun,
                false => PlannedIdentity::Declared,
            },
            is_relayed,
        }
    }
}

pub(super) async fn open(
    plan: &[PlannedSession],
    processes: &mut Processes,
    seed: u64,
) -> Result<OpenSessions, LabError> {
    let mut sessions = OpenSessions::start(seed)?;
    let newcomers =
        plan.iter().map(|planned| newcomer(planned.clone(), Ipv4Addr::LOCALHOST.into()));
    let newcomers = newcomers.collect::<Result<_, _>>()?;
    let go = pin!(std::future::pending());
    let opened = sessions.open(newcomers, || processes.admin(), go).await;
    let ready = match opened {
        Ok(()) => sessions.wait_ready().await,
        failed => failed,
    };
    processes.require_gateway()?;
    ready.map(|()| sessions)
}

#[cfg(test)]
mod tests;
