use std::time::Duration;

use evenkeel_model::Breakers;

use super::check::ConfigCheck;
use super::raw;

/// Checks `[breaker]`; missing keys keep the core's defaults.
pub(super) fn check(raw: &raw::BreakerTable, check: &mut ConfigCheck) -> Breakers {
    let default = Breakers::default();
    let day = Duration::from_secs(1)..=Duration::from_secs(86_400);
    let open_for = check.duration(&raw.open_for, default.open_for, day.clone());
    let max_open_for = check.duration(&raw.max_open_for, default.open_for_max, day);
    Breakers {
        loss_ppm: check.number(&raw.loss_percent, default.loss_ppm / 10_000, 1..=100) * 10_000,
        r_factor_centi: check.number(&raw.r_factor, default.r_factor_centi / 100, 1..=100) * 100,
        share_percent: check.number(&raw.failure_percent, default.share_percent, 1..=100),
        sessions_min: check.number(&raw.min_sessions, default.sessions_min, 1..=100_000),
        open_for,
        open_for_max: max_open_for.max(open_for),
        half_open_percent: check.number(&raw.half_open_percent, default.half_open_percent, 1..=100),
    }
}
