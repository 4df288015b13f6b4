//! The synthetic sessions to open.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use crate::client::{Persona, VIDEO_TYPE, VOICE_TYPE};
use evenkeel_contract::offers::{
    OfferFeedback, OfferIngress, OfferMedia, OfferPayloadType, OfferRequest, OfferStreamKind,
};

/// The protocol of a session's client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlannedTransport {
    /// RTP in UDP.
    Udp,
    /// RTP over QUIC, or WebTransport.
    Quic,
}

/// A plan of voice sessions, two per room by default.
#[derive(Clone, Debug)]
pub struct CrowdPlan {
    /// Number of sessions; the last room has those that are left.
    pub sessions: u32,
    /// Number of sessions in a room. Default 2.
    pub room_size: u32,
    /// All sessions of a room send; otherwise the first. All sessions receive.
    pub both_ways: bool,
    /// Nodes return each session's packets to itself, and the others of its room do not get them.
    pub echoes: bool,
    /// No session sends, since another client does.
    pub silent: bool,
    /// Offers name the RTCP feedback that clients obey: requests of key frames and bit rates.
    pub feedback: bool,
    /// Senders send video as well.
    pub video: bool,
    /// The scenario of the offers. Default `call`.
    pub scenario: String,
    /// Prefix of the rooms' names. Default `drill`.
    pub rooms: String,
    /// Labels of every offer.
    pub labels: BTreeMap<String, String>,
    /// UDP clients prove themselves by STUN checks; otherwise the offer declares their address.
    pub stun: bool,
    /// UDP clients are WebRTC clients: ICE, DTLS and SRTP.
    pub webrtc: bool,
    /// Every other room uses QUIC.
    pub quic: bool,
    /// All rooms use WebTransport.
    pub webtransport: bool,
    /// The clients are behind a simulated NAT, which may change their addresses; UDP clients then use STUN.
    pub natted: bool,
    /// The source address of UDP clients.
    pub clients_at: IpAddr,
    /// Seed of all clients. Default 1.
    pub seed: u64,
}

impl CrowdPlan {
    /// Plans sessions on loopback by UDP, with one sender per room.
    pub fn new(sessions: u32) -> CrowdPlan {
        CrowdPlan {
            sessions,
            room_size: 2,
            both_ways: false,
            echoes: false,
            silent: false,
            feedback: false,
            video: false,
            scenario: "call".to_owned(),
            rooms: "drill".to_owned(),
            labels: BTreeMap::new(),
            stun: false,
            webrtc: false,
            quic: false,
            webtransport: false,
            natted: false,
            clients_at: Ipv4Addr::LOCALHOST.into(),
            seed: 1,
        }
    }

    /// The room of a session: of rooms of two, 1 and 2 are in the first, 3 and 4 in the second.
    pub fn room_of(&self, session: u64) -> u64 {
        session.div_ceil(self.room_size.max(1).into())
    }

    /// The transport of a session, which is the same for all sessions of a room.
    pub fn transport_of(&self, session: u64) -> PlannedTransport {
        let by_quic = self.webtransport || self.quic && self.room_of(session).is_multiple_of(2);
        if by_quic { PlannedTransport::Quic } else { PlannedTransport::Udp }
    }

    fn talks(&self, session: u64) -> bool {
        let is_first = self.room_of(session) != self.room_of(session.saturating_sub(1));
        !self.silent && (self.both_ways || is_first)
    }

    pub(super) fn persona(&self, session: u64) -> Persona {
        Persona {
            session,
            seed: self.seed ^ session.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            voice: self.talks(session),
            video: self.video && self.talks(session),
        }
    }

    pub(super) fn planned(&self, session: u64) -> PlannedSession {
        let room = self.room_of(session);
        let video = self.video.then(video_media);
        let mut media: Vec<OfferMedia> = [voice_media()].into_iter().chain(video).collect();
        if self.feedback {
            let feedback = [OfferFeedback::Pli, OfferFeedback::Remb];
            media.iter_mut().for_each(|stream| stream.feedback = feedback.to_vec());
        }
        PlannedSession {
            persona: self.persona(session),
            room,
            offer: OfferRequest {
                scenario: self.scenario.clone(),
                room: format!("{}-{room}", self.rooms),
                labels: self.labels.iter().collect(),
                ingress: Some(match self.webtransport {
                    true => OfferIngress::webtransport(),
                    false => OfferIngress::quic(),
                }),
                media: Some(media),
                ..OfferRequest::default()
            },
            transport: self.transport_of(session),
            identity: match (self.webrtc, self.stun || self.natted) {
                (true, _) => PlannedIdentity::Webrtc,
                (false, true) => PlannedIdentity::Stun,
                (false, false) => PlannedIdentity::Declared,
            },
            is_relayed: self.natted,
        }
    }
}

/// The way in which a UDP client proves itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PlannedIdentity {
    /// The offer declares its address.
    Declared,
    /// STUN checks.
    Stun,
    /// STUN checks and a DTLS handshake.
    Webrtc,
}

#[derive(Clone, Debug)]
pub(crate) struct PlannedSession {
    pub(crate) persona: Persona,
    /// The number of the room in the ledger.
    pub(crate) room: u64,
    /// The offer of a QUIC client. The ingress of a UDP client is known once its socket is bound.
    pub(crate) offer: OfferRequest,
    pub(crate) transport: PlannedTransport,
    pub(crate) identity: PlannedIdentity,
    /// The client's packets pass the relay.
    pub(crate) is_relayed: bool,
}

/// The media of a session that sends or receives voice.
pub(crate) fn voice_media() -> OfferMedia {
    let opus = OfferPayloadType::new(VOICE_TYPE, "opus", 48_000);
    OfferMedia {
        kind: OfferStreamKind::Audio,
        payload_types: vec![opus],
        feedback: Vec::new(),
        bitrate: Some("64 kbit/s".to_owned()),
    }
}

/// The media of a session that sends or receives video.
pub(crate) fn video_media() -> OfferMedia {
    let vp8 = OfferPayloadType::new(VIDEO_TYPE, "vp8", 90_000);
    OfferMedia {
        kind: OfferStreamKind::Video,
        payload_types: vec![vp8],
        feedback: Vec::new(),
        bitrate: Some("400 kbit/s".to_owned()),
    }
}

#[cfg(test)]
mod tests;
