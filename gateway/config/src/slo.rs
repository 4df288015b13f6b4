//! `[scenario.NAME.slo]`: the service level objective of a scenario.

use std::time::Duration;

use evenkeel_model::{FAST_BURN, ServiceObjective};
use evenkeel_process::setting_text::DurationText;
use serde::Deserialize;
use toml::Spanned;

use super::check::ConfigCheck;

/// Objectives that the sessions of a window can tell apart from 0 and 1.
const OBJECTIVES: std::ops::RangeInclusive<f64> = 0.5..=0.9999;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct SloConfig {
    objective: Option<Spanned<f64>>,
    refusals: Option<bool>,
    set_up: Option<Spanned<DurationText>>,
    gap: Option<Spanned<DurationText>>,
    r_factor: Option<Spanned<i64>>,
}

impl SloConfig {
    pub(super) fn check(raw: &Spanned<SloConfig>, check: &mut ConfigCheck) -> ServiceObjective {
        let (span, raw) = (raw.span(), raw.get_ref());
        let minute = Duration::from_secs(60);
        let mut limit = |raw: &Option<Spanned<DurationText>>, least: Duration| {
            raw.is_some().then(|| check.duration(raw, minute, least..=minute))
        };
        let set_up = limit(&raw.set_up, Duration::from_millis(1));
        let gap = limit(&raw.gap, Duration::from_millis(10));
        let r_factor = raw.r_factor.is_some().then(|| check.number(&raw.r_factor, 1, 1..=100));
        let objective = raw.objective.as_ref().map_or(0.99, |objective| {
            let value = *objective.get_ref();
            if !OBJECTIVES.contains(&value) {
                let expected = format!("{} to {}", OBJECTIVES.start(), OBJECTIVES.end());
                check.refuse(objective.span(), value.to_string(), expected);
            }
            value
        });
        let slo = ServiceObjective {
            objective,
            refusals: raw.refusals.unwrap_or(true),
            set_up,
            gap,
            r_factor_centi: r_factor.map(|r: u32| r * 100),
        };
        if !slo.refusals && set_up.is_none() && gap.is_none() && r_factor.is_none() {
            let expected = "at least one of `refusals`, `set_up`, `gap` and `r_factor`";
            check.refuse(span, "`slo` without a limit", expected);
        }
        slo
    }
}

/// Returns the share of a canary's sessions that burns the largest error budget of these objectives fast if it misses
/// the limits, in ppm.
pub(super) fn fast_burn_ppm(slos: impl Iterator<Item = ServiceObjective>) -> Option<u32> {
    let budget = slos.map(|slo| slo.error_budget()).max_by(f64::total_cmp)?;
    Some(((budget * FAST_BURN).min(1.0) * 1e6).round() as u32)
}

#[cfg(test)]
mod tests;
