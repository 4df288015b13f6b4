//! Hundreds of simulated clients. They send, receive and report, obey caps and key-frame requests, and record all
//! packets in the ledger.
//!
//! One thread runs all UDP clients, each with its own socket, by a timer wheel. Another thread runs all QUIC clients,
//! each with its own endpoint. The kernel stamps UDP arrivals, the reading thread stamps QUIC arrivals.

mod ice;
mod outgoing;
mod pinned;
mod quic;
mod talker;
mod udp;

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use evenkeel_client::OfferAnswer;
use serde::Serialize;

pub use ice::Credentials;
pub use pinned::{PinnedTlsError, client_config};
pub(crate) use talker::{Talker, Transmit};

use crate::ledger::{Books, ReceivedPacket, SentPacket};

/// The voice stream of a client: 50 packets/s of 60–200 bytes, 48 kHz clock, stream 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Voice {
    pub(crate) payload_type: u8,
}

/// The video stream of a client: frames of several packets, 90 kHz clock, stream 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Video {
    pub(crate) payload_type: u8,
    /// Bitrate without a cap, in bits per second.
    pub(crate) bitrate_bps: u64,
    pub(crate) frames_per_second: u32,
}

impl Default for Voice {
    fn default() -> Self {
        Self { payload_type: 111 }
    }
}

impl Default for Video {
    fn default() -> Self {
        Self { payload_type: 96, bitrate_bps: 400_000, frames_per_second: 25 }
    }
}

/// A simulated client: its session, its seed and the streams that it sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Persona {
    /// The session number in the test headers of the client's packets.
    pub session: u64,
    /// Seed of its SSRCs, sequence numbers, phases and sizes.
    pub seed: u64,
    /// `None` for a client that only receives.
    pub voice: Option<Voice>,
    /// `None` for a client without a camera.
    pub video: Option<Video>,
}

impl Persona {
    fn clock_rate(&self, payload_type: u8) -> Option<u32> {
        // A client that sends nothing expects the default payload types from its room.
        let voice = self.voice.unwrap_or_default().payload_type;
        let video = self.video.unwrap_or_default().payload_type;
        match payload_type {
            _ if payload_type == voice => Some(48_000),
            _ if payload_type == video => Some(90_000),
            _ => None,
        }
    }
}

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

/// A UDP client's socket and its destination.
pub struct UdpWay {
    /// The address of the socket is in the offer.
    pub socket: UdpSocket,
    /// Destination of RTP, and of RTCP if muxed.
    pub gateway: SocketAddr,
    /// The RTCP socket and its destination, if RTCP is not muxed.
    pub rtcp: Option<(UdpSocket, SocketAddr)>,
    /// ICE credentials, if the client uses STUN. It sends no media before the first answer to a check.
    pub ice: Option<Credentials>,
}

/// A QUIC client's destination, and how it recognises the gateway.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QuicWay {
    /// Address of the QUIC listener.
    pub gateway: SocketAddr,
    /// SHA-256 of the gateway's certificate. The client accepts no other certificate.
    pub certificate_sha256: [u8; 32],
    /// RoQ flow identifier of packets that the client sends, at most 62 bits.
    pub flow_to_gateway: u64,
    /// RoQ flow identifier of packets that it receives.
    pub flow_from_gateway: u64,
}

/// A client's totals since it joined.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
pub struct ClientTally {
    pub(crate) packets_sent: u64,
    /// Received RTP packets with a test header.
    pub packets_received: u64,
    /// Arrival time of the first packet: nanoseconds since the Unix epoch.
    pub(crate) first_heard_ns: Option<u64>,
    /// Packets that are invalid or carry no test header.
    pub unreadable: u64,
    /// Datagrams from another address than the gateway's, or of an unknown flow.
    pub foreign: u64,
    /// RTCP sender and receiver reports.
    pub reports_received: u64,
    /// Key frames requested by PLI or FIR.
    pub(crate) keys_asked: u64,
    /// Key frames requested for an SSRC that the client does not send.
    pub(crate) keys_asked_of_others: u64,
    /// Key frames sent; the first frame is one.
    pub(crate) key_frames_sent: u64,
    /// Key frames of which the last packet was received.
    pub(crate) key_frames_received: u64,
    /// Caps received by REMB.
    pub(crate) caps: u64,
    /// The last cap, in bits per second.
    pub(crate) cap_bps: Option<u64>,
    /// The current video bitrate in bits per second.
    pub(crate) video_bps: u64,
}

/// A client as its thread last reported it.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize)]
pub struct ClientState {
    /// Time from which the client could send, nanoseconds since the Unix epoch: at once with a declared address, after
    /// the first answered check with STUN, after the handshake with QUIC.
    pub(crate) ready_ns: Option<u64>,
    /// The reason why the client cannot send any more.
    pub(crate) failed: Option<String>,
    /// Counters, updated every second, and exact once the client has stopped sending.
    pub tally: ClientTally,
}

/// States of all clients that have joined, by session. Clients that left stay in it.
type Roster = Arc<Mutex<BTreeMap<u64, ClientState>>>;

/// Clients of this process. Dropping it ends all of them.
pub struct ClientFleet {
    udp: udp::UdpFleet,
    quic: quic::QuicFleet,
    roster: Roster,
}

impl ClientFleet {
    /// Starts the two threads without clients.
    pub fn start(books: &Books) -> io::Result<Self> {
        let roster = Roster::default();
        Ok(Self {
            udp: udp::UdpFleet::start(ClientReports::new(books, &roster))?,
            quic: quic::QuicFleet::start(ClientReports::new(books, &roster))?,
            roster,
        })
    }

    /// Adds a client, which sends media as soon as it can.
    pub fn join(&self, persona: Persona, way: ClientPath) {
        lock(&self.roster).insert(persona.session, ClientState::default());
        match way {
            ClientPath::Udp(way) => {
                self.udp.command(udp::UdpFleetCommand::Join(persona, Box::new(way)));
            }
            ClientPath::Quic(way) => self.quic.join(persona, way),
        }
    }

    /// Ends a client without a message to the gateway.
    pub(crate) fn leave(&self, session: u64) {
        self.udp.command(udp::UdpFleetCommand::Leave(session));
        self.quic.leave(session);
    }

    /// The states of all clients, including clients that have left.
    pub(crate) fn states(&self) -> BTreeMap<u64, ClientState> {
        lock(&self.roster).clone()
    }

    /// Returns `None` for a client that has not joined.
    pub fn state(&self, session: u64) -> Option<ClientState> {
        lock(&self.roster).get(&session).cloned()
    }

    /// Ends all clients, and returns once all their records are in the ledger.
    pub(crate) fn finish(self) {
        drop(self);
    }
}

/// The channel on which a client thread reports.
struct ClientReports {
    books: Books,
    roster: Roster,
    sent: Vec<SentPacket>,
    arrived: Vec<ReceivedPacket>,
}

impl ClientReports {
    fn new(books: &Books, roster: &Roster) -> Self {
        Self {
            books: books.clone(),
            roster: Arc::clone(roster),
            sent: Vec::new(),
            arrived: Vec::new(),
        }
    }

    fn enter(&mut self) {
        self.books.note(&mut self.sent, &mut self.arrived);
    }

    fn ready(&self, session: u64, at_ns: u64) {
        self.tell(session, |state| state.ready_ns = Some(at_ns));
    }

    fn counted(&self, session: u64, tally: ClientTally) {
        self.tell(session, |state| state.tally = tally);
    }

    fn tell(&self, session: u64, change: impl FnOnce(&mut ClientState)) {
        change(lock(&self.roster).entry(session).or_default());
    }
}

impl Drop for ClientReports {
    fn drop(&mut self) {
        self.enter();
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
