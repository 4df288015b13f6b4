//! All QUIC clients on one thread: an endpoint each, RTP and RTCP in datagrams, larger packets in streams.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use evenkeel_media::roq::{self, FlowId, Item, StreamDecoder};
use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig};
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, ReadError, RecvStream, SendDatagramError,
    TransportConfig, VarInt,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;
use tokio::task::LocalSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::roster::{ClientReports, FleetCommand, FleetThread};
use super::talker::{ClientTally, Persona, Talker, Transmit};
use crate::clock;
use crate::datagrams::any_of;

/// Interval at which recorded packets are moved to the ledger.
const ENTER_EVERY: Duration = Duration::from_millis(5);
/// Size limit of a packet from a stream: the largest UDP payload.
const PACKET_MAX: usize = 65_535;
/// The size of one stream read.
const PIECE: usize = 16 * 1_024;

/// Idle timeout; failures are detected much earlier.
const IDLE_MAX_MS: u32 = 30_000;
/// Keeps NAT bindings open during silence.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

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

type SharedDesk = Rc<RefCell<ClientReports>>;

/// Starts the thread of all QUIC clients.
pub(super) fn start(desk: ClientReports) -> io::Result<FleetThread<QuicWay>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    FleetThread::start("clients-quic", move |orders| {
        LocalSet::new().block_on(&runtime, run(orders, Rc::new(RefCell::new(desk))));
    })
}

async fn run(mut orders: UnboundedReceiver<FleetCommand<QuicWay>>, desk: SharedDesk) {
    let mut clients = BTreeMap::new();
    let mut tasks = tokio::task::JoinSet::new();
    let mut entering = tokio::time::interval(ENTER_EVERY);
    entering.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(FleetCommand::Join(persona, way)) => {
                    let (stays, left) = oneshot::channel();
                    clients.insert(persona.session, stays);
                    tasks.spawn_local(live(persona, way, left, Rc::clone(&desk)));
                }
                Some(FleetCommand::Leave(session)) => drop(clients.remove(&session)),
                None => break,
            },
            _tick = entering.tick() => desk.borrow_mut().enter(),
            Some(_ended) = tasks.join_next() => {}
        }
    }
    drop(clients);
    while tasks.join_next().await.is_some() {}
}

async fn live(persona: Persona, way: QuicWay, left: oneshot::Receiver<()>, desk: SharedDesk) {
    if let Err(reason) = talk(persona, way, left, &desk).await {
        desk.borrow().tell(persona.session, |state| state.failed = Some(reason));
    }
}

struct QuicCall {
    session: u64,
    connection: Connection,
    to_gateway: FlowId,
    from_gateway: FlowId,
    talker: Talker,
    foreign: u64,
    desk: SharedDesk,
}

async fn talk(
    persona: Persona,
    way: QuicWay,
    mut left: oneshot::Receiver<()>,
    desk: &SharedDesk,
) -> Result<(), String> {
    let flow = |number| FlowId::new(number).ok_or("a flow identifier is more than 62 bits long");
    let (to_gateway, from_gateway) = (flow(way.flow_to_gateway)?, flow(way.flow_from_gateway)?);
    let endpoint = Endpoint::client(any_of(way.gateway)).map_err(|error| error.to_string())?;
    let config = client_config(way.certificate_sha256).map_err(|error| error.to_string())?;
    let mut before: Option<QuicCall> = None;
    let ended = loop {
        let connecting = endpoint
            .connect_with(config.clone(), way.gateway, "evenkeel")
            .map_err(|error| error.to_string())?;
        let connection = connecting.await.map_err(|error| error.to_string())?;
        let mut call = match before {
            Some(call) => QuicCall { connection, ..call },
            None => {
                let now_ns = clock::now_ns();
                desk.borrow().ready(persona.session, now_ns);
                QuicCall {
                    session: persona.session,
                    connection,
                    to_gateway,
                    from_gateway,
                    talker: Talker::new(persona, now_ns),
                    foreign: 0,
                    desk: Rc::clone(desk),
                }
            }
        };
        let ended = call.run(&mut left).await;
        // Another gateway, or another process, serves the session now.
        if matches!(ended, Err(ConnectionError::Reset)) {
            before = Some(call);
            continue;
        }
        call.tell();
        call.connection.close(VarInt::from_u32(0), b"");
        break ended;
    };
    endpoint.wait_idle().await;
    ended.map_err(|error| error.to_string())
}

impl QuicCall {
    /// Returns when `left` is closed.
    async fn run(&mut self, left: &mut oneshot::Receiver<()>) -> Result<(), ConnectionError> {
        let connection = self.connection.clone();
        let (pieces, mut from_streams) = mpsc::unbounded_channel();
        loop {
            let due = until(self.talker.poll_timeout());
            tokio::select! {
                datagram = connection.read_datagram() => {
                    self.handle_datagram(&datagram?);
                }
                stream = connection.accept_uni() => {
                    tokio::task::spawn_local(read_stream(stream?, self.from_gateway, pieces.clone()));
                }
                Some(from_stream) = from_streams.recv() => match from_stream {
                    FromStream::Packet(packet, at_ns) => self.handle_packet(&packet, at_ns),
                    FromStream::Foreign => self.foreign += 1,
                },
                _ = &mut *left => return Ok(()),
                () = tokio::time::sleep_until(due) => self.send_due()?,
            }
        }
    }

    fn handle_datagram(&mut self, datagram: &[u8]) {
        match roq::read_datagram(datagram) {
            Ok((flow, packet)) if flow == self.from_gateway => {
                self.handle_packet(packet, clock::now_ns());
            }
            Ok(_) | Err(_) => self.foreign += 1,
        }
    }

    fn handle_packet(&mut self, packet: &[u8], at_ns: u64) {
        let arrival = self.talker.handle_packet(packet, at_ns);
        self.desk.borrow_mut().arrived.extend(arrival);
    }

    fn send_due(&mut self) -> Result<(), ConnectionError> {
        let mut packet = Vec::with_capacity(1_500);
        let mut reported = false;
        while let Some(transmit) = self.talker.poll_transmit(clock::now_ns(), &mut packet) {
            match transmit {
                Transmit::Rtp(sent) => self.desk.borrow_mut().sent.push(sent),
                Transmit::Rtcp => reported = true,
            }
            self.send(&packet)?;
            packet.clear();
        }
        if reported {
            self.tell();
        }
        Ok(())
    }

    fn send(&self, packet: &[u8]) -> Result<(), ConnectionError> {
        let mut datagram = Vec::with_capacity(packet.len() + 8);
        roq::write_datagram(self.to_gateway, packet, &mut datagram);
        match self.connection.send_datagram(Bytes::from(datagram)) {
            Ok(()) => Ok(()),
            Err(
                SendDatagramError::TooLarge
                | SendDatagramError::UnsupportedByPeer
                | SendDatagramError::Disabled,
            ) => {
                let mut stream = Vec::with_capacity(packet.len() + 16);
                roq::write_stream_start(self.to_gateway, &mut stream);
                roq::write_stream_packet(packet, &mut stream);
                tokio::task::spawn_local(send_stream(self.connection.clone(), stream));
                Ok(())
            }
            Err(SendDatagramError::ConnectionLost(error)) => Err(error),
        }
    }

    fn tell(&self) {
        let tally = ClientTally { foreign: self.foreign, ..self.talker.tally() };
        self.desk.borrow().counted(self.session, tally);
    }
}

enum FromStream {
    Packet(Vec<u8>, u64),
    Foreign,
}

async fn read_stream(
    mut stream: RecvStream,
    expected: FlowId,
    pieces: UnboundedSender<FromStream>,
) {
    let mut decoder = StreamDecoder::new(PACKET_MAX);
    // A stream that is reset or lost still delivers the bytes that arrived before.
    while let Ok::<_, ReadError>(Some(piece)) = stream.read_chunk(PIECE, true).await {
        let mut input = &piece.bytes[..];
        loop {
            let told = match decoder.next(&mut input) {
                Ok(Some(Item::Flow(flow))) if flow == expected => Ok(()),
                Ok(Some(Item::Packet(packet))) => {
                    pieces.send(FromStream::Packet(packet.to_vec(), clock::now_ns()))
                }
                Ok(None) => break,
                Ok(Some(Item::Flow(_))) | Err(_) => {
                    let _told = pieces.send(FromStream::Foreign);
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

fn until(at_ns: u64) -> Instant {
    Instant::now() + Duration::from_nanos(at_ns.saturating_sub(clock::now_ns()))
}

/// The QUIC configuration for RoQ, which accepts exactly this certificate.
///
/// # Errors
/// The provider has no TLS 1.3, or lacks the initial cipher suite of QUIC.
pub fn client_config(certificate_sha256: [u8; 32]) -> Result<ClientConfig, PinnedTlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let pinned = Arc::new(Pinned { certificate_sha256, provider: Arc::clone(&provider) });
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(pinned)
        .with_no_client_auth();
    tls.alpn_protocols = vec![roq::ALPN.to_vec()];
    let mut transport = TransportConfig::default();
    transport.max_idle_timeout(Some(VarInt::from_u32(IDLE_MAX_MS).into()));
    transport.keep_alive_interval(Some(KEEP_ALIVE));
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// The TLS library lacks what QUIC needs.
#[derive(Debug, thiserror::Error)]
pub enum PinnedTlsError {
    /// No TLS 1.3.
    #[error(transparent)]
    Tls(#[from] Error),
    /// No initial cipher suite of QUIC (RFC 9001, section 5.2).
    #[error(transparent)]
    Suite(#[from] NoInitialCipherSuite),
}

/// Verifies that the gateway has the certificate of this SHA-256.
#[derive(Debug)]
struct Pinned {
    certificate_sha256: [u8; 32],
    provider: Arc<CryptoProvider>,
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
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
