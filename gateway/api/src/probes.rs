//! `/v1/probes`: measures a client's path before the client joins.

use std::time::{Duration, Instant, SystemTime};

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use data_encoding::HEXLOWER;
use evenkeel_contract::errors::ErrorCode;
use evenkeel_contract::probes::{
    ProbeAnswer, ProbeIngress, ProbeReport, ProbeRequest, ProbeRoundTrips, ProbeTrain,
    ProbeWebtransport,
};
use evenkeel_control::StatusReport;
use evenkeel_dataplane::client_probes::{KEPT_FOR, PROBES_MAX, TooManyProbes};
use evenkeel_dataplane::flows::Ufrag;
use evenkeel_dataplane::quic::probe_url;
use evenkeel_media::probe::{PacketTrain, PathMeasurement, ProbeTransport};
use evenkeel_process::random::fill;

use super::context::ApiState;
use super::error::ApiError;
use super::probe_results::{VALID_FOR, sign};

/// Time after which another probe may be opened, if there are too many: a third of them has ended by then.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// Bytes of the headers of IP and UDP.
const V4_HEADERS: u16 = 20 + 8;
const V6_HEADERS: u16 = 40 + 8;
/// Bytes around the payload of a DATAGRAM of HTTP/3, at least: the short header with the connection ID and the shortest packet number
/// (RFC 9000, section 17.3), the tag of the encryption, the type of the frame, and the quarter stream ID.
const QUIC_HEADERS: u16 = 1 + 8 + 1 + 16 + 1 + 1;

pub(super) async fn open(
    State(shared): ApiState,
    body: Body,
) -> Result<(StatusCode, Json<ProbeAnswer>), ApiError> {
    let ProbeRequest { ingress } = shared.parse_if_any(body).await?;
    let StatusReport { udp, quic, short_lived_sha256, .. } =
        shared.ask("", shared.handle.status()).await?;
    let missing = |listener: &str| {
        let message = format!("no listener could answer the probe; see `{listener}` of [[listen]]");
        ApiError::new(ErrorCode::Conflict, message)
    };
    let (transport, addresses, quic) = match ingress {
        ProbeIngress::Udp if udp.is_empty() => return Err(missing("udp")),
        ProbeIngress::Udp => (ProbeTransport::Udp, udp, None),
        ProbeIngress::Webtransport => {
            let quic = quic.ok_or_else(|| missing("quic"))?;
            (ProbeTransport::WebTransport, Vec::new(), Some(quic))
        }
    };
    let (id, password) = (drawn::<8>(), drawn::<16>());
    let ufrag = Ufrag::new(id.as_bytes()).expect("it has 16 bytes");
    let opened = shared.handle.client_probes.open(ufrag, &password, transport, Instant::now());
    opened.map_err(|TooManyProbes| {
        let message = format!("{PROBES_MAX} probes were opened within {KEPT_FOR:?}");
        ApiError::new(ErrorCode::Refused, message).retry_after(RETRY_AFTER)
    })?;
    let webtransport = quic.map(|address| ProbeWebtransport {
        urls: vec![probe_url(address, &id, &password)],
        certificates_sha256: short_lived_sha256.iter().map(|it| HEXLOWER.encode(it)).collect(),
    });
    let train = |&PacketTrain { packets, interval, bytes }: &PacketTrain| {
        let interval_us = interval.as_micros() as u64;
        ProbeTrain { packets, interval_us, bytes }
    };
    let trains = transport.trains().iter().map(train).collect();
    let ends_ms = KEPT_FOR.as_millis() as u64;
    let answer = ProbeAnswer { id, password, addresses, webtransport, trains, ends_ms };
    Ok((StatusCode::CREATED, Json(answer)))
}

/// Random bytes in hexadecimal, all of which are characters of ICE (RFC 8839, section 5.4).
fn drawn<const BYTES: usize>() -> String {
    let mut bytes = [0; BYTES];
    fill(&mut bytes);
    HEXLOWER.encode(&bytes)
}

/// Measures the path from the packets that arrived and the client's round trips. A repetition gets the same answer.
pub(super) async fn measure(
    State(shared): ApiState,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<ProbeReport>, ApiError> {
    let ProbeRoundTrips { round_trips_us } = shared.parse(body).await?;
    let Some(probe) = shared.handle.client_probes.find(&id, Instant::now()) else {
        let message = format!("there is no such probe, or it was opened {KEPT_FOR:?} ago: {id}");
        return Err(ApiError::new(ErrorCode::NotFound, message));
    };
    let (found, transport) = (round_trips_us.len(), probe.transport());
    if found > transport.packets() {
        let message = format!("found {found}, at most {} are allowed", transport.packets());
        return Err(ApiError::field("round_trips_us", message));
    }
    let is_received = |number| probe.has_received(number);
    let path = PathMeasurement::new(transport, is_received, &round_trips_us);
    let headers = if probe.is_v6() { V6_HEADERS } else { V4_HEADERS };
    let quic_headers = if transport == ProbeTransport::WebTransport { QUIC_HEADERS } else { 0 };
    let signed = sign(&shared.handle.session_urls, &id, &path, SystemTime::now());
    Ok(Json(ProbeReport {
        id,
        verdict: path.verdict(),
        r_factor: path.r_factor(),
        video_lines: path.video_lines(),
        round_trip_us: path.round_trip_us,
        jitter_us: path.jitter_us,
        loss_up_ppm: path.loss_up_ppm,
        loss_down_ppm: path.loss_down_ppm,
        rate_kbps: path.rate_kbps,
        mtu: if path.payload_max == 0 { 0 } else { path.payload_max + quic_headers + headers },
        refused: probe.refused(),
        signed,
        valid_ms: VALID_FOR.as_millis() as u64,
    }))
}
