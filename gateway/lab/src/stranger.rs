//! Unauthorised traffic: packets from unknown addresses, ICE checks with a wrong password, unknown tags and flows. Its
//! test headers have the session [`SESSION`], so that the ledger shows forwarded packets. Any answer except a refusal
//! shows that a gateway learned the address.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use evenkeel_media::demux::{self, DatagramKind};
use evenkeel_media::roq::{self, ErrorCode, FlowId};
use evenkeel_media::rtp;
use evenkeel_media::stun::{self, BindingBuilder, BindingOutcome, StunKey, Transaction, Username};
use evenkeel_media::trunk::message::{NodeSecret, TrunkQuestion};
use evenkeel_media::trunk::{Bundle, Tag};
use fastrand::Rng;
use quinn::{ApplicationClose, Connection, ConnectionError, Endpoint};

use crate::client::client_config;
use crate::datagrams::{DatagramInbox, any_of};
use crate::{TestHeader, clock};

/// The session number in a stranger's packets. No gateway assigns such a high number.
pub const SESSION: u64 = u64::MAX;
const DATAGRAM: usize = 65_535;
const BUNDLE_MAX: usize = 1_472;
/// The time limit for an expected answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Wait for unexpected packets, long enough for a slow path.
const LINGER: Duration = Duration::from_millis(200);

/// The traffic of an unauthorised client and the answers to it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct StrangerReport {
    /// Packets and messages sent, those of a bundle one by one; a check that is followed by RTP counts as two.
    pub sent: u64,
    pub(crate) refused: u64,
    /// Accepted STUN checks: must be 0.
    pub(crate) believed: u64,
    /// Other packets received: must be 0.
    pub(crate) came: u64,
}

impl StrangerReport {
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
        self.repeat(to, count, |own| vec![own.packet()])
    }

    /// Sends ICE checks for a session with a wrong password, each followed by RTP.
    pub fn send_checks(&mut self, to: SocketAddr, ufrag: &str, count: u32) -> io::Result<()> {
        let key = StunKey::new("not the password of anyone");
        self.repeat(to, count, |own| {
            let mut id = [0; 12];
            own.rng.fill(&mut id);
            let mut check = Vec::new();
            BindingBuilder {
                transaction: Transaction(id),
                username: Some(Username { server_ufrag: ufrag, client_ufrag: "stranger" }),
                key: Some(&key),
                priority: Some(1),
                controlling: Some(own.rng.u64(..)),
                use_candidate: true,
            }
            .write(&mut check);
            vec![check, own.packet()]
        })
    }

    /// Sends packets in bundles with random tags.
    pub fn send_bundles(&mut self, to: SocketAddr, count: u32) -> io::Result<()> {
        self.repeat(to, count, |own| {
            let mut bundle = Bundle::new(BUNDLE_MAX);
            let packet = own.packet();
            bundle.push(Tag(own.rng.u64(..)), &packet);
            vec![bundle.as_bytes().to_vec()]
        })
    }

    /// Sends openings signed with an unknown secret.
    pub fn send_messages(&mut self, to: SocketAddr, count: u32) -> io::Result<()> {
        let secret =
            NodeSecret::new(b"a secret the stranger made up", "n").map_err(io::Error::other)?;
        self.repeat(to, count, |own| {
            let tag = Tag(own.rng.u64(..));
            let mut message = Vec::new();
            let open = TrunkQuestion::Open {
                room: 0,
                session: SESSION,
                tag,
                lease_s: 60,
                numbered: false,
            };
            open.write(&secret, own.rng.u64(..), clock::now_ns() / 1_000, &mut message);
            vec![message]
        })
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

    /// Sends datagrams this often from an address of its own, on which answers are counted later.
    fn repeat(
        &mut self,
        to: SocketAddr,
        count: u32,
        datagrams: impl Fn(&mut Self) -> Vec<Vec<u8>>,
    ) -> io::Result<()> {
        let socket = UdpSocket::bind(any_of(to))?;
        socket.set_nonblocking(true)?;
        for _ in 0..count {
            for datagram in datagrams(self) {
                socket.send_to(&datagram, to)?;
                self.report.sent += 1;
            }
        }
        self.sockets.push(socket);
        Ok(())
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
        DatagramKind::Stun => stun::Response::parse(datagram).ok().map(|response| response.outcome),
        _ => None,
    };
    match answered {
        Some(BindingOutcome::Refused(_)) => report.refused += 1,
        Some(BindingOutcome::Mapped(_)) => report.believed += 1,
        None => report.came += 1,
    }
}

/// The QUIC traffic of an unauthorised client and the answers to it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct QuicReport {
    /// Datagrams with unknown flow identifiers.
    pub datagrams: u64,
    /// Streams with unknown flow identifiers.
    pub streams: u64,
    /// Streams that were stopped with ROQ_UNKNOWN_FLOW_ID.
    pub streams_stopped: u64,
    /// The connection survived all datagrams and streams.
    pub kept: bool,
    /// A bidirectional stream closed the connection with ROQ_STREAM_CREATION_ERROR.
    pub closed_for_bidirectional: bool,
    /// Received datagrams and streams: must be 0.
    pub came: u64,
}

/// Connects and sends datagrams, streams and a bidirectional stream, in this order.
///
/// # Errors
/// Why it could not connect or send.
pub async fn knock_quic(
    gateway: SocketAddr,
    certificate_sha256: [u8; 32],
    count: u32,
    seed: u64,
) -> Result<QuicReport, String> {
    let endpoint = Endpoint::client(any_of(gateway)).map_err(|error| error.to_string())?;
    let config = client_config(certificate_sha256);
    let connecting =
        endpoint.connect_with(config, gateway, "evenkeel").map_err(|error| error.to_string())?;
    let connection = connecting.await.map_err(|error| error.to_string())?;
    let mut report = QuicReport::default();
    let mut rng = Rng::with_seed(seed);
    for number in 0..count {
        let mut datagram = Vec::new();
        roq::write_datagram(
            FlowId::from_random(rng.u64(..)),
            &packet(number as u16),
            &mut datagram,
        );
        connection.send_datagram(datagram.into()).map_err(|error| error.to_string())?;
        report.datagrams += 1;
    }
    for number in 0..count {
        let stopped =
            open_stream(&connection, FlowId::from_random(rng.u64(..)), &packet(number as u16))
                .await?;
        report.streams += 1;
        report.streams_stopped += u64::from(stopped == Some(ErrorCode::UnknownFlow.code()));
    }
    report.came += count_received(&connection).await;
    report.kept = connection.close_reason().is_none();
    report.closed_for_bidirectional = open_bidirectional(&connection, &packet(0)).await;
    connection.close(quinn::VarInt::from_u32(0), b"");
    Ok(report)
}

/// Opens a stream and returns the code with which it was stopped, if in time.
async fn open_stream(
    connection: &Connection,
    flow: FlowId,
    packet: &[u8],
) -> Result<Option<u64>, String> {
    let mut stream = connection.open_uni().await.map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    roq::write_stream_start(flow, &mut bytes);
    roq::write_stream_packet(packet, &mut bytes);
    // The stream is not finished, because a finished and read stream cannot be stopped.
    let _stopped_already = stream.write_all(&bytes).await;
    let stopped = tokio::time::timeout(PATIENCE, stream.stopped()).await;
    Ok(stopped.ok().and_then(Result::ok).flatten().map(quinn::VarInt::into_inner))
}

/// Counts received datagrams and streams for a moment.
async fn count_received(connection: &Connection) -> u64 {
    let mut count = 0;
    let listening = async {
        loop {
            let heard = tokio::select! {
                datagram = connection.read_datagram() => datagram.is_ok(),
                stream = connection.accept_uni() => stream.is_ok(),
            };
            if !heard {
                return;
            }
            count += 1;
        }
    };
    let _all_of_it = tokio::time::timeout(LINGER, listening).await;
    count
}

async fn open_bidirectional(connection: &Connection, packet: &[u8]) -> bool {
    // A peer that allows no bidirectional streams passes as well.
    let Ok(Ok((mut send, _receive))) = tokio::time::timeout(PATIENCE, connection.open_bi()).await
    else {
        return false;
    };
    let _closed_already = send.write_all(packet).await;
    let closed = tokio::time::timeout(PATIENCE, connection.closed()).await;
    matches!(closed, Ok(ConnectionError::ApplicationClosed(ApplicationClose { error_code, .. }))
        if error_code.into_inner() == ErrorCode::StreamCreation.code())
}

#[cfg(test)]
mod tests;
