//! A QUIC client: RTP and RTCP in datagrams, larger packets in streams. With WebTransport it sends no streams, as a page.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use evenkeel_media::roq::{self, FlowId, Item, StreamDecoder};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, ReadError, RecvStream, SendDatagramError,
    TransportConfig, VarInt,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, PeerIncompatible, SignatureScheme};
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::sync::oneshot;

use super::live::{LiveClient, ReusedTimer, SharedReports};
use super::talker::Persona;
use super::webtransport::{self, WebtransportSession};
use crate::clock;
use crate::datagrams::any_of;

/// Size limit of a packet from a stream: the largest UDP payload.
const PACKET_MAX: usize = 65_535;
/// The size of one stream read.
const PIECE: usize = 16 * 1_024;

/// Idle timeout; failures are detected much earlier.
const IDLE_MAX_MS: u32 = 30_000;
/// Keeps NAT bindings open during silence.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// The protocol of a QUIC client, by ALPN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QuicProtocol {
    /// RTP over QUIC (draft-ietf-avtcore-rtp-over-quic).
    Roq,
    /// The same in a session of WebTransport. The flow identifier is its token.
    Webtransport,
}

impl QuicProtocol {
    fn alpn(self) -> &'static [u8] {
        match self {
            QuicProtocol::Roq => roq::ALPN,
            QuicProtocol::Webtransport => webtransport::ALPN,
        }
    }

    /// The bytes of a datagram before its flow identifier.
    fn datagram_head(self) -> &'static [u8] {
        match self {
            QuicProtocol::Roq => &[],
            QuicProtocol::Webtransport => webtransport::DATAGRAM_HEAD,
        }
    }

    /// The bytes of a stream before its flow identifier.
    fn stream_head(self) -> &'static [u8] {
        match self {
            QuicProtocol::Roq => &[],
            QuicProtocol::Webtransport => webtransport::STREAM_HEAD,
        }
    }
}

/// A QUIC client's destination, and how it recognises the gateway.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QuicWay {
    /// Protocol of the connection.
    pub protocol: QuicProtocol,
    /// Address of the QUIC listener.
    pub gateway: SocketAddr,
    /// SHA-256 of the gateway's certificate. The client accepts no other certificate.
    pub certificate_sha256: [u8; 32],
    /// RoQ flow identifier of packets that the client sends, at most 62 bits.
    pub flow_to_gateway: u64,
    /// RoQ flow identifier of packets that it receives.
    pub flow_from_gateway: u64,
}

/// Returns when `left` is closed.
pub(super) async fn talk(
    persona: Persona,
    way: QuicWay,
    mut left: oneshot::Receiver<()>,
    reports: &SharedReports,
) -> Result<(), String> {
    let flow = |number| FlowId::new(number).ok_or("a flow identifier is more than 62 bits long");
    let (to_gateway, from_gateway) = (flow(way.flow_to_gateway)?, flow(way.flow_from_gateway)?);
    let endpoint = Endpoint::client(any_of(way.gateway)).map_err(|error| error.to_string())?;
    let config = config_for(way.certificate_sha256, way.protocol);
    let mut before = None;
    let ended = loop {
        let connecting = endpoint
            .connect_with(config.clone(), way.gateway, "evenkeel")
            .map_err(|error| error.to_string())?;
        let connection = connecting.await.map_err(|error| error.to_string())?;
        let _session = match way.protocol {
            QuicProtocol::Roq => None,
            QuicProtocol::Webtransport => {
                Some(WebtransportSession::open(&connection, way.flow_to_gateway).await?)
            }
        };
        let client = before.take().unwrap_or_else(|| LiveClient::new(persona, reports));
        let protocol = way.protocol;
        let mut call = QuicCall { client, connection, protocol, to_gateway, from_gateway };
        let ended = call.run(&mut left).await;
        // Another gateway, or another process, serves the session now.
        if matches!(ended, Err(ConnectionError::Reset)) {
            before = Some(call.client);
            continue;
        }
        call.client.tell();
        call.connection.close(VarInt::from_u32(0), b"");
        break ended;
    };
    endpoint.wait_idle().await;
    ended.map_err(|error| error.to_string())
}

struct QuicCall {
    client: LiveClient,
    connection: Connection,
    protocol: QuicProtocol,
    to_gateway: FlowId,
    from_gateway: FlowId,
}

impl QuicCall {
    async fn run(&mut self, left: &mut oneshot::Receiver<()>) -> Result<(), ConnectionError> {
        let (connection, protocol) = (self.connection.clone(), self.protocol);
        let (pieces, mut from_streams) = mpsc::unbounded_channel();
        let mut alarm = ReusedTimer::new();
        loop {
            tokio::select! {
                datagram = connection.read_datagram() => {
                    let datagram = datagram?;
                    let content = datagram.strip_prefix(protocol.datagram_head());
                    match content.map(roq::read_datagram) {
                        Some(Ok((flow, packet))) if flow == self.from_gateway => {
                            self.client.handle_packet(packet, clock::now_ns());
                        }
                        _ => self.client.talker.tally.foreign += 1,
                    }
                }
                stream = connection.accept_uni() => {
                    let (stream, pieces) = (stream?, pieces.clone());
                    let head = protocol.stream_head();
                    tokio::task::spawn_local(read_stream(stream, head, self.from_gateway, pieces));
                }
                Some(from_stream) = from_streams.recv() => match from_stream {
                    Some((packet, at_ns)) => self.client.handle_packet(&packet, at_ns),
                    None => self.client.talker.tally.foreign += 1,
                },
                _ = &mut *left => return Ok(()),
                () = alarm.ring(self.client.talker.poll_timeout()) => {
                    let send = |packet: &[u8]| send(&connection, protocol, self.to_gateway, packet);
                    self.client.send_due(send)?;
                }
            }
        }
    }
}

fn send(
    connection: &Connection,
    protocol: QuicProtocol,
    flow: FlowId,
    packet: &[u8],
) -> Result<(), ConnectionError> {
    let mut datagram = Vec::with_capacity(packet.len() + 9);
    datagram.extend_from_slice(protocol.datagram_head());
    roq::write_datagram(flow, packet, &mut datagram);
    match connection.send_datagram(Bytes::from(datagram)) {
        Ok(()) => Ok(()),
        // The gateway rejects streams of pages: the packet is lost.
        Err(SendDatagramError::TooLarge) if protocol == QuicProtocol::Webtransport => Ok(()),
        Err(
            SendDatagramError::TooLarge
            | SendDatagramError::UnsupportedByPeer
            | SendDatagramError::Disabled,
        ) => {
            let mut stream = Vec::with_capacity(packet.len() + 16);
            roq::write_stream_start(flow, &mut stream);
            roq::write_stream_packet(packet, &mut stream);
            tokio::task::spawn_local(send_stream(connection.clone(), stream));
            Ok(())
        }
        Err(SendDatagramError::ConnectionLost(error)) => Err(error),
    }
}

/// A packet and the time of its arrival; `None` for a stream of another flow, or an invalid one.
type FromStream = Option<(Vec<u8>, u64)>;

async fn read_stream(
    mut stream: RecvStream,
    head: &'static [u8],
    expected: FlowId,
    pieces: UnboundedSender<FromStream>,
) {
    let mut start = vec![0; head.len()];
    if stream.read_exact(&mut start).await.is_err() {
        return;
    }
    if start != head {
        // A stream of HTTP/3, such as SETTINGS. Its end would close the connection (RFC 9114, section 6.2.1).
        while let Ok::<_, ReadError>(Some(_)) = stream.read_chunk(PIECE, true).await {}
        return;
    }
    let mut decoder = StreamDecoder::new(PACKET_MAX);
    // A stream that is reset or lost still delivers the bytes that arrived before.
    while let Ok::<_, ReadError>(Some(piece)) = stream.read_chunk(PIECE, true).await {
        let mut input = &piece.bytes[..];
        loop {
            let told = match decoder.next(&mut input) {
                Ok(Some(Item::Flow(flow))) if flow == expected => Ok(()),
                Ok(Some(Item::Packet(packet))) => {
                    pieces.send(Some((packet.to_vec(), clock::now_ns())))
                }
                Ok(None) => break,
                Ok(Some(Item::Flow(_))) | Err(_) => {
                    let _told = pieces.send(None);
                    return;
                }
            };
            if told.is_err() {
                return;
            }
        }
    }
}

/// A packet that cannot be sent is lost; the ledger shows it as missing.
async fn send_stream(connection: Connection, bytes: Vec<u8>) {
    if let Ok(mut stream) = connection.open_uni().await
        && stream.write_all(&bytes).await.is_ok()
    {
        let _finished = stream.finish();
    }
}

/// The QUIC configuration for RoQ, which accepts exactly this certificate.
pub fn client_config(certificate_sha256: [u8; 32]) -> ClientConfig {
    config_for(certificate_sha256, QuicProtocol::Roq)
}

/// The QUIC configuration for a protocol, which accepts exactly this certificate.
pub fn config_for(certificate_sha256: [u8; 32], protocol: QuicProtocol) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let pinned = Arc::new(Pinned { certificate_sha256, algorithms });
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring has TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(pinned)
        .with_no_client_auth();
    tls.alpn_protocols = vec![protocol.alpn().to_vec()];
    let mut transport = TransportConfig::default();
    transport.max_idle_timeout(Some(VarInt::from_u32(IDLE_MAX_MS).into()));
    transport.keep_alive_interval(Some(KEEP_ALIVE));
    let quic = QuicClientConfig::try_from(tls).expect("ring has the initial suite of QUIC");
    let mut config = ClientConfig::new(Arc::new(quic));
    config.transport_config(Arc::new(transport));
    config
}

/// Verifies that the gateway has the certificate of this SHA-256.
#[derive(Debug)]
struct Pinned {
    certificate_sha256: [u8; 32],
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let digest = ring::digest::digest(&ring::digest::SHA256, end_entity);
        if digest.as_ref() == self.certificate_sha256 {
            return Ok(ServerCertVerified::assertion());
        }
        Err(Error::General("the certificate is not the one the offer's answer named".into()))
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
