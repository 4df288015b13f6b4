//! A QUIC client that connects and uses unknown flow identifiers.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use evenkeel_media::roq::{self, ErrorCode, FlowId};
use fastrand::Rng;
use quinn::{ApplicationClose, Connection, ConnectionError, Endpoint};
use serde::Serialize;

use super::packet;
use crate::client::client_config;

/// The time limit for an expected answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Wait for unexpected packets, long enough for a slow path.
const LINGER: Duration = Duration::from_millis(200);

/// The QUIC traffic of an unauthorised client and the answers to it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
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

impl QuicReport {
    /// All datagrams and streams sent.
    pub(crate) fn sent(&self) -> u64 {
        self.datagrams + self.streams
    }
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
    let here = match gateway {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let endpoint = Endpoint::client(SocketAddr::new(here, 0)).map_err(|error| error.to_string())?;
    let config = client_config(certificate_sha256).map_err(|error| error.to_string())?;
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
    report.came += came(&connection).await;
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
async fn came(connection: &Connection) -> u64 {
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
