//! The synthetic sessions to open.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use crate::client::{Persona, Voice};
use evenkeel_client::{OfferIngress, OfferMedia, OfferPayloadType, OfferRequest, OfferStreamKind};

/// The senders of a room. All sessions receive.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Speech {
    /// One session of a room sends.
    #[default]
    OneWay,
    /// Both sessions of a room send.
    BothWays,
}

/// The protocol of a session's client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlannedTransport {
    /// RTP in UDP.
    Udp,
    /// RTP over QUIC.
    Quic,
}

/// How UDP clients are recognised.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Proof {
    /// The offer declares the client's address.
    #[default]
    Declared,
    /// The client proves itself by STUN checks.
    Stun,
}

/// A plan of voice sessions, two per room.
#[derive(Clone, Debug)]
pub struct CrowdPlan {
    /// Number of sessions; an odd one has a room of its own.
    pub sessions: u32,
    /// The senders of each room. Default: one.
    pub speech: Speech,
    /// The scenario of the offers. Default `call`.
    pub scenario: String,
    /// Prefix of the rooms' names. Default `drill`.
    pub rooms: String,
    /// Labels of every offer.
    pub labels: BTreeMap<String, String>,
    /// How UDP clients are recognised. Default: by their declared address.
    pub proof: Proof,
    /// Every other room uses QUIC.
    pub quic: bool,
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
            speech: Speech::default(),
            scenario: "call".to_owned(),
            rooms: "drill".to_owned(),
            labels: BTreeMap::new(),
            proof: Proof::default(),
            quic: false,
            natted: false,
            clients_at: Ipv4Addr::LOCALHOST.into(),
            seed: 1,
        }
    }

    /// The room of a session: 1 and 2 are in the first, 3 and 4 in the second.
    pub fn room_of(&self, session: u64) -> u64 {
        session.div_ceil(2)
    }

    /// The transport of a session, which is the same for both sessions of a room.
    pub fn transport_of(&self, session: u64) -> PlannedTransport {
        let by_quic = self.quic && self.room_of(session).is_multiple_of(2);
        if by_quic { PlannedTransport::Quic } else { PlannedTransport::Udp }
    }

    /// The session with the odd number of a room always sends.
    fn talks(&self, session: u64) -> bool {
        self.speech == Speech::BothWays || !session.is_multiple_of(2)
    }

    pub(super) fn persona(&self, session: u64) -> Persona {
        Persona {
            session,
            seed: self.seed ^ session.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            voice: self.talks(session).then(Voice::default),
            video: None,
        }
    }

    pub(super) fn offer(&self, session: u64, ingress: OfferIngress) -> OfferRequest {
        let payload_type = Voice::default().payload_type;
        let opus = OfferPayloadType { payload_type, codec: "opus".to_owned(), clock_rate: 48_000 };
        OfferRequest {
            scenario: self.scenario.clone(),
            room: format!("{}-{}", self.rooms, self.room_of(session)),
            labels: self.labels.clone(),
            ingress,
            media: vec![OfferMedia {
                kind: OfferStreamKind::Audio,
                payload_types: vec![opus],
                feedback: Vec::new(),
                bitrate: Some("64 kbit/s".to_owned()),
            }],
            rtcp: None,
            nodes: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests;
