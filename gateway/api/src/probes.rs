//! `/v1/probes`: measures a client's path before the client joins, and signs the result for one offer.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use data_encoding::HEXLOWER;
use evenkeel_contract::errors::ErrorCode;
use evenkeel_contract::probes::{ProbeAnswer, ProbeReport, ProbeRoundTrips, ProbeTrain};
use evenkeel_control::SessionUrls;
use evenkeel_dataplane::client_probes::{KEPT_FOR, PROBES_MAX, TooManyProbes};
use evenkeel_dataplane::flows::Ufrag;
use evenkeel_media::probe::{PACKETS, PacketTrain, PathMeasurement, TRAINS};
use evenkeel_process::random::fill;
use evenkeel_process::{lock, sha256, unix_us};

use super::context::ApiState;
use super::error::ApiError;

/// Labels of a session whose offer carried a result, in the order of their values in it.
pub(super) const PROBE_LABELS: [&str; 5] =
    ["probe-r", "probe-loss", "probe-rtt", "probe-rate", "probe-video"];

/// The field of an offer that carries a result.
const FIELD: &str = "probe";

/// Time in which an offer may carry a result. Paths change with the client's network.
const VALID_FOR: Duration = Duration::from_secs(60);

/// Time in which another probe may be opened, if there are too many. A third of them ends each 10 s.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// Bytes of the headers of IP and UDP.
const V4_HEADERS: u16 = 20 + 8;
const V6_HEADERS: u16 = 40 + 8;

pub(super) async fn open(
    State(shared): ApiState,
) -> Result<(StatusCode, Json<ProbeAnswer>), ApiError> {
    let addresses = shared.ask("", shared.handle.status()).await?.udp;
    if addresses.is_empty() {
        let message = "no UDP listener could answer the probe; see `udp` of [[listen]]";
        return Err(ApiError::new(ErrorCode::Conflict, message));
    }
    let (id, password) = (drawn::<8>(), drawn::<16>());
    let ufrag = Ufrag::new(id.as_bytes()).expect("it has 16 bytes");
    let opened = shared.handle.client_probes.open(ufrag, &password, Instant::now());
    opened.map_err(|TooManyProbes| {
        let message = format!("{PROBES_MAX} probes were opened within {KEPT_FOR:?}");
        ApiError::new(ErrorCode::Refused, message).retry_after(RETRY_AFTER)
    })?;
    let train = |PacketTrain { packets, interval, bytes }| {
        let interval_us = interval.as_micros() as u64;
        ProbeTrain { packets, interval_us, bytes }
    };
    let trains = TRAINS.into_iter().map(train).collect();
    let ends_ms = KEPT_FOR.as_millis() as u64;
    Ok((StatusCode::CREATED, Json(ProbeAnswer { id, password, addresses, trains, ends_ms })))
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
    let found = round_trips_us.len();
    if found > PACKETS {
        let message = format!("found {found}, at most {PACKETS} are allowed");
        return Err(ApiError::field("round_trips_us", message));
    }
    let Some(probe) = shared.handle.client_probes.find(&id, Instant::now()) else {
        let message = format!("there is no such probe, or it was opened {KEPT_FOR:?} ago: {id}");
        return Err(ApiError::new(ErrorCode::NotFound, message));
    };
    let path = PathMeasurement::new(|number| probe.has_received(number), &round_trips_us);
    let headers = if probe.is_v6() { V6_HEADERS } else { V4_HEADERS };
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
        mtu: if path.payload_max == 0 { 0 } else { path.payload_max + headers },
        refused: probe.refused(),
        signed,
        valid_ms: VALID_FOR.as_millis() as u64,
    }))
}

/// `ID.END.R.LOSS.RTT.RATE.VIDEO.CODE`, with the end as Unix time in seconds, and the values of [`PROBE_LABELS`]. The code proves that
/// a gateway of this group made it.
fn sign(urls: &SessionUrls, id: &str, path: &PathMeasurement, now: SystemTime) -> String {
    let ends = seconds(now) + VALID_FOR.as_secs();
    let r = path.r_factor() / 100;
    let loss_percent = path.loss_ppm().div_ceil(10_000);
    let (rtt_ms, rate, video) =
        (path.round_trip_us.div_ceil(1_000), path.rate_kbps, path.video_lines());
    with_code(urls, &format!("{id}.{ends}.{r}.{loss_percent}.{rtt_ms}.{rate}.{video}"))
}

fn with_code(urls: &SessionUrls, result: &str) -> String {
    format!("{result}.{}", HEXLOWER.encode(&urls.code(&[FIELD, result])))
}

fn seconds(at: SystemTime) -> u64 {
    unix_us(at) / 1_000_000
}

/// The ids of results that offers have carried, until no signature of them is valid: at most those of the probes of 90 s. An upgrade or a
/// takeover forgets them.
#[derive(Default)]
pub(super) struct UsedResults(Mutex<BTreeMap<Box<str>, u64>>);

impl UsedResults {
    /// Returns the labels of a result, once.
    ///
    /// # Errors
    /// The result was not signed by this group, has expired, or was used.
    pub(super) fn redeem(
        &self,
        urls: &SessionUrls,
        signed: &str,
        now: SystemTime,
    ) -> Result<Vec<(Box<str>, Box<str>)>, ApiError> {
        let wrong = |message: &str| ApiError::field(FIELD, message);
        let forged = || wrong("found a result that no gateway of this group has signed");
        let (result, _code) = signed.rsplit_once('.').ok_or_else(forged)?;
        // The time to compare digests reveals nothing about the code.
        if sha256(with_code(urls, result).as_bytes()) != sha256(signed.as_bytes()) {
            return Err(forged());
        }
        let mut parts = result.split('.');
        let id = parts.next().unwrap_or_default();
        let ends: u64 = parts.next().and_then(|ends| ends.parse().ok()).ok_or_else(forged)?;
        let now = seconds(now);
        if ends <= now {
            let message = format!("has expired: a result is valid for {VALID_FOR:?}");
            return Err(wrong(&message));
        }
        let mut used = lock(&self.0);
        used.retain(|_, forgotten| *forgotten > now);
        if used.contains_key(id) {
            return Err(wrong("was carried by another offer; a result is valid once"));
        }
        used.insert(id.into(), now + (VALID_FOR + KEPT_FOR).as_secs());
        let label = |(name, value): (&str, &str)| (name.into(), value.into());
        Ok(PROBE_LABELS.into_iter().zip(parts).map(label).collect())
    }
}

#[cfg(test)]
mod tests;
