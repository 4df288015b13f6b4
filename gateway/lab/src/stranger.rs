//! Unauthorised traffic: packets from unknown addresses, ICE checks with a wrong password, unknown tags and flows. Its
//! test headers have the session [`SESSION`], so that the ledger shows forwarded packets. Any answer except a refusal
//! shows that a gateway learned the address.

mod quic;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use evenkeel_media::demux::{self, DatagramKind};
use evenkeel_media::rtp;
use evenkeel_media::stun::{
    self, BindingBuilder, BindingOutcome, IceRole, StunKey, Transaction, Username,
};
use evenkeel_media::trunk::message::{NodeSecret, TrunkQuestion};
use evenkeel_media::trunk::{Bundle, Tag};
use fastrand::Rng;
use serde::Serialize;

pub use quic::{QuicReport, knock_quic};

use crate::datagrams::DatagramInbox;
use crate::{TestHeader, clock};

/// The session number in a stranger's packets. No gateway assigns such a high number.
pub const SESSION: u64 = u64::MAX;
const DATAGRAM: usize = 65_535;
const BUNDLE_MAX: usize = 1_472;

/// The traffic of an unauthorised client and the answers to it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
pub struct StrangerReport {
    /// RTP packets from an unknown address.
    pub(crate) rtp: u64,
    /// STUN checks sent with a wrong password.
    pub(crate) checks: u64,
    /// Packets in bundles with unknown tags.
    pub(crate) bundled: u64,
    /// Messages sent that are signed with another secret.
    pub(crate) messages: u64,
    pub(crate) refused: u64,
    /// Accepted STUN checks: must be 0.
    pub(crate) believed: u64,
    /// Other packets received: must be 0.
    pub(crate) came: u64,
}

impl StrangerReport {
    /// All datagrams sent.
    pub fn sent(&self) -> u64 {
        self.rtp + self.checks + self.bundled + self.messages
    }

    /// The number of accepted packets and checks.
    pub fn learned(&self) -> u64 {
        self.believed + self.came
    }
}

/// An unauthorised client, with a separate address for each kind of traffic.
pub struct Stranger {
    rng: Rng,
    sockets: Vec<UdpSocket>,
    sequence: u16,
    report: StrangerReport,
}

impl Stranger {
    /// `seed` determines the invented passwords, tags and keys.
    pub fn new(seed: u64) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            sockets: Vec::new(),
            sequence: 0,
            report: StrangerReport::default(),
        }
    }

    /// Sends RTP from an unknown address.
    pub fn send_rtp(&mut self, to: SocketAddr, count: u32) -> io::Result<()> {
        let socket = self.socket(to)?;
        for _ in 0..count {
            let packet = self.packet();
            socket.send_to(&packet, to)?;
            self.report.rtp += 1;
        }
        self.sockets.push(socket);
        Ok(())
    }

    /// Sends ICE checks for a session with a wrong password, each followed by RTP.
    pub fn send_checks(&mut self, to: SocketAddr, ufrag: &str, count: u32) -> io::Result<()> {
        let socket = self.socket(to)?;
        let key = StunKey::new("not the password of anyone");
        for _ in 0..count {
            let mut id = [0; 12];
            self.rng.fill(&mut id);
            let mut check = Vec::new();
            BindingBuilder {
                transaction: Transaction(id),
                username: Some(Username { server_ufrag: ufrag, client_ufrag: "stranger" }),
                key: Some(&key),
                priority: Some(1),
                role: Some(IceRole::Controlling(self.rng.u64(..))),
                use_candidate: true,
            }
            .write(&mut check);
            socket.send_to(&check, to)?;
            socket.send_to(&self.packet(), to)?;
            self.report.checks += 1;
            self.report.rtp += 1;
        }
        self.sockets.push(socket);
        Ok(())
    }

    /// Sends packets in bundles with random tags.
    pub fn send_bundles(&mut self, to: SocketAddr, count: u32) -> io::Result<()> {
        let socket = self.socket(to)?;
        for _ in 0..count {
            let mut bundle = Bundle::new(BUNDLE_MAX);
            let packet = self.packet();
            if bundle.push(Tag(self.rng.u64(..)), &packet) {
                socket.send_to(bundle.as_bytes(), to)?;
                self.report.bundled += 1;
            }
        }
        self.sockets.push(socket);
        Ok(())
    }

    /// Sends openings signed with an unknown secret.
    pub fn send_messages(&mut self, to: SocketAddr, count: u32) -> io::Result<()> {
        let socket = self.socket(to)?;
        let secret =
            NodeSecret::new(b"a secret the stranger made up", "n").map_err(io::Error::other)?;
        for _ in 0..count {
            let tag = Tag(self.rng.u64(..));
            let mut message = Vec::new();
            let open = TrunkQuestion::Open { room: 0, session: SESSION, tag, lease_s: 60 };
            open.write(&secret, self.rng.u64(..), clock::now_ns() / 1_000, &mut message);
            socket.send_to(&message, to)?;
            self.report.messages += 1;
        }
        self.sockets.push(socket);
        Ok(())
    }

    /// Counts the answers that have arrived, and returns all figures.
    pub fn report(&mut self) -> io::Result<StrangerReport> {
        let mut inbox = DatagramInbox::new(DATAGRAM, 16);
        for socket in &self.sockets {
            loop {
                match inbox.receive(socket) {
                    Ok(0) => break,
                    Ok(_) => {
                        inbox.iter().for_each(|datagram| note(datagram.bytes, &mut self.report));
                    }
                    // A refusal by the host counts as no answer.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(self.report)
    }

    fn socket(&self, to: SocketAddr) -> io::Result<UdpSocket> {
        let socket = match to {
            SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?,
            SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?,
        };
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    fn packet(&mut self) -> Vec<u8> {
        self.sequence = self.sequence.wrapping_add(1);
        packet(self.sequence)
    }
}

/// A voice packet with the session [`SESSION`].
fn packet(sequence: u16) -> Vec<u8> {
    let mut payload = Vec::new();
    let mark = TestHeader {
        session: SESSION,
        number: sequence.into(),
        sent_ns: clock::now_ns(),
        node: 0,
        stream: 0,
    };
    mark.write(&mut payload);
    payload.resize(100, 0);
    let timestamp = u32::from(sequence) * 960;
    let fields =
        rtp::Fields { payload_type: 111, marker: false, sequence, timestamp, ssrc: 0x57a7_6e00 };
    let mut packet = Vec::new();
    rtp::write(&fields, &payload, &mut packet);
    packet
}

fn note(datagram: &[u8], report: &mut StrangerReport) {
    let answered = match demux::classify(datagram) {
        DatagramKind::Stun => {
            stun::Response::parse(datagram).ok().map(|response| response.outcome())
        }
        _ => None,
    };
    match answered {
        Some(BindingOutcome::Refused(_)) => report.refused += 1,
        Some(BindingOutcome::Mapped(_)) => report.believed += 1,
        None => report.came += 1,
    }
}

#[cfg(test)]
mod tests;
