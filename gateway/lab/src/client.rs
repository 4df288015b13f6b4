//! Hundreds of simulated clients. They send, receive and report, obey caps and key-frame requests, and record all
//! packets in the ledger.
//!
//! One thread runs all UDP clients, each with its own socket, by a timer wheel. Another thread runs all QUIC clients,
//! each with its own endpoint. The kernel stamps UDP arrivals, the reading thread stamps QUIC arrivals.

mod outgoing;
mod quic;
mod roster;
mod talker;
mod udp;

use std::collections::BTreeMap;
use std::io;
use std::net::UdpSocket;

use evenkeel_client::OfferAnswer;

pub use outgoing::{Video, Voice};
pub use quic::{PinnedTlsError, QuicWay, client_config};
pub use roster::ClientState;
use roster::{ClientReports, FleetCommand, FleetThread, Roster, lock};
pub use talker::{ClientTally, Persona};
pub use udp::{Credentials, UdpWay};

use crate::ledger::Books;

/// The way of a client's packets to the gateway.
pub enum ClientPath {
    /// RTP and RTCP in datagrams.
    Udp(UdpWay),
    /// RTP over QUIC (RoQ).
    Quic(QuicWay),
}

impl ClientPath {
    /// The path from the gateway's answer: UDP if there is a socket, else QUIC.
    pub(crate) fn of(opened: &OfferAnswer, socket: Option<UdpSocket>) -> Option<ClientPath> {
        if let Some(socket) = socket {
            let answer = opened.udp.as_ref()?;
            let ice = answer.ufrag.clone().zip(answer.password.clone());
            let ice = ice.map(|(ufrag, password)| Credentials { ufrag, password });
            let gateway = *answer.addresses.first()?;
            return Some(ClientPath::Udp(UdpWay { socket, gateway, rtcp: None, ice }));
        }
        let answer = opened.quic.as_ref()?;
        Some(ClientPath::Quic(QuicWay {
            gateway: *answer.addresses.first()?,
            certificate_sha256: answer.certificate()?,
            flow_to_gateway: answer.flow_to_gateway.parse().ok()?,
            flow_from_gateway: answer.flow_from_gateway.parse().ok()?,
        }))
    }
}

/// Clients of this process. Dropping it ends all of them.
pub struct ClientFleet {
    udp: FleetThread<UdpWay>,
    quic: FleetThread<QuicWay>,
    roster: Roster,
}

impl ClientFleet {
    /// Starts the two threads without clients.
    pub fn start(books: &Books) -> io::Result<Self> {
        let roster = Roster::default();
        Ok(Self {
            udp: udp::start(ClientReports::new(books, &roster))?,
            quic: quic::start(ClientReports::new(books, &roster))?,
            roster,
        })
    }

    /// Adds a client, which sends media as soon as it can.
    pub fn join(&self, persona: Persona, way: ClientPath) {
        lock(&self.roster).insert(persona.session, ClientState::default());
        match way {
            ClientPath::Udp(way) => self.udp.command(FleetCommand::Join(persona, way)),
            ClientPath::Quic(way) => self.quic.command(FleetCommand::Join(persona, way)),
        }
    }

    /// Ends a client without a message to the gateway.
    pub(crate) fn leave(&self, session: u64) {
        self.udp.command(FleetCommand::Leave(session));
        self.quic.command(FleetCommand::Leave(session));
    }

    /// Clients that cannot send yet, by session, each with the reason if it never can.
    pub(crate) fn waiting(&self) -> BTreeMap<u64, Option<String>> {
        let states = lock(&self.roster);
        let waiting = states.iter().filter(|(_, state)| state.ready_ns.is_none());
        waiting.map(|(session, state)| (*session, state.failed.clone())).collect()
    }

    /// The states of all clients, including clients that have left.
    pub(crate) fn states(&self) -> BTreeMap<u64, ClientState> {
        lock(&self.roster).clone()
    }

    /// Returns `None` for a client that has not joined.
    pub fn state(&self, session: u64) -> Option<ClientState> {
        lock(&self.roster).get(&session).cloned()
    }
}

#[cfg(test)]
mod tests;
