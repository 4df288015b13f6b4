//! `[forecast]`: warnings of what is expected.

use std::time::Duration;

use evenkeel_process::setting_text::DurationText;
use serde::Deserialize;
use toml::Spanned;

use super::check::ConfigCheck;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct ForecastConfig {
    enabled: Option<bool>,
    horizon: Option<Spanned<DurationText>>,
    early_start: Option<bool>,
}

/// `[forecast]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ForecastSettings {
    /// Samples are taken, and forecasts made. Default true.
    pub enabled: bool,
    /// Exhausted capacity is forecast so far ahead. Default 30 min.
    pub horizon: Duration,
    /// Nodes are started before the capacity of their region is exhausted, and if it refuses an offer of any mode. Default true.
    pub early_start: bool,
}

impl ForecastSettings {
    pub(super) fn check(raw: &ForecastConfig, check: &mut ConfigCheck) -> ForecastSettings {
        let minute = Duration::from_secs(60);
        ForecastSettings {
            enabled: raw.enabled.unwrap_or(true),
            horizon: check.duration(&raw.horizon, 30 * minute, 5 * minute..=120 * minute),
            early_start: raw.early_start.unwrap_or(true),
        }
    }
}
