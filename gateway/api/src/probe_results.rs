//! Signed results of clients' probes, each for the labels of one offer.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use data_encoding::HEXLOWER;
use evenkeel_control::SessionUrls;
use evenkeel_dataplane::client_probes::KEPT_FOR;
use evenkeel_media::probe::PathMeasurement;
use evenkeel_model::Labels;
use evenkeel_process::{lock, sha256, unix_us};

use super::error::ApiError;

/// The labels that a result gives to a session, in the order of their values in it.
pub(super) const PROBE_LABELS: [&str; 5] =
    ["probe-r", "probe-loss", "probe-rtt", "probe-rate", "probe-video"];

/// The field of an offer that carries a result.
pub(super) const PROBE_FIELD: &str = "probe";

/// Time in which an offer may carry a result. Paths change with the client's network.
pub(super) const VALID_FOR: Duration = Duration::from_secs(60);

/// `ID.END.R.LOSS.RTT.RATE.VIDEO.CODE`, with the end as Unix time in seconds, and the values of [`PROBE_LABELS`]. The code proves that
/// a gateway of this group made it.
pub(super) fn sign(
    urls: &SessionUrls,
    id: &str,
    path: &PathMeasurement,
    now: SystemTime,
) -> String {
    let ends = seconds(now) + VALID_FOR.as_secs();
    let r = path.r_factor() / 100;
    let loss_percent = path.loss_ppm().div_ceil(10_000);
    let (rtt_ms, rate, video) =
        (path.round_trip_us.div_ceil(1_000), path.rate_kbps, path.video_lines());
    with_code(urls, &format!("{id}.{ends}.{r}.{loss_percent}.{rtt_ms}.{rate}.{video}"))
}

fn with_code(urls: &SessionUrls, result: &str) -> String {
    format!("{result}.{}", HEXLOWER.encode(&urls.code(&[PROBE_FIELD, result])))
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
    ) -> Result<Labels, ApiError> {
        let wrong = |message: &str| ApiError::field(PROBE_FIELD, message);
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
        let labels = PROBE_LABELS.into_iter().zip(parts);
        Ok(labels.map(|(name, value)| (name.into(), value.into())).collect())
    }

    /// The offer with this redeemed result opened no session: another offer may carry the result.
    pub(super) fn release(&self, signed: &str) {
        let id = signed.split('.').next().unwrap_or_default();
        lock(&self.0).remove(id);
    }
}

#[cfg(test)]
mod tests;
