use std::time::Duration;

use evenkeel_model::Timings;

use super::check::ConfigCheck;
use super::{raw, unit};

const MS: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Checks `[detector]`; missing keys keep the core's defaults.
pub(super) fn check(raw: &raw::DetectorTable, check: &mut ConfigCheck) -> Timings {
    let default = Timings::default();
    let (near, far) = (&raw.in_region, &raw.cross_region);
    let every = 2 * MS..=10_000 * MS;
    let alone = 10 * MS..=MINUTE;
    let short = MS..=1_000 * MS;
    let long = Duration::ZERO..=60 * MINUTE;
    let mut time = |raw: &Option<_>, default, allowed| check.duration(raw, default, allowed);
    let ejection = time(&raw.base_ejection_time, default.ejection, long.clone());
    let ejection_max =
        time(&raw.max_ejection_time, default.ejection_max, Duration::ZERO..=24 * 60 * MINUTE);
    let timings = Timings {
        probe_every_near: time(&near.probe_interval, default.probe_every_near, every.clone()),
        probe_every_far: time(&far.probe_interval, default.probe_every_far, every),
        probe_slack: time(&raw.probe_slack, default.probe_slack, short.clone()),
        silence_min: time(&raw.silence, default.silence_min, short.clone()),
        down_after_near: time(&near.down_after, default.down_after_near, alone.clone()),
        down_after_far: time(&far.down_after, default.down_after_far, alone),
        own_stall: time(&raw.stall_threshold, default.own_stall, short),
        ejection,
        ejection_max: ejection_max.max(ejection),
        wary_for: time(&raw.wary_for, default.wary_for, long),
        panic_for: time(&raw.panic_for, default.panic_for, 100 * MS..=MINUTE),
        panic_percent: check.number(&raw.panic_percent, default.panic_percent, 1..=100),
        silence_arrivals: check.number(&raw.silence_arrivals, default.silence_arrivals, 1..=1_000),
    };
    let alone = [("in_region", timings.down_after_near), ("cross_region", timings.down_after_far)];
    let shortest = alone.into_iter().min_by_key(|(_, after)| *after);
    if let (Some(silence), Some((reach, after))) = (&raw.silence, shortest)
        && timings.silence_min > after
    {
        let most = unit::spell(after);
        let expected = format!("at most {most}, the `down_after` of [detector.{reach}]");
        check.refuse(silence.span(), format!("`{}`", silence.get_ref()), expected).help =
            Some("silence has to be evidence before it can mark a node down alone".to_owned());
    }
    timings
}
