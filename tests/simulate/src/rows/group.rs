//! A healthy group of two gateways.

use std::thread;
use std::time::Duration;

use super::{Row, Scale, row};
use crate::group::{GroupOutcome, endure};
use crate::policies::Library;

/// 24 hours in all, with 1 % of loss, 2 ms of jitter, and processes that run up to 8 ms late.
pub(super) fn jitter(_: &Library, scale: Scale) -> Row {
    let (worlds, hours) = scale.pick((8, 3.0), (2, 0.01));
    let lasts = Duration::from_secs_f64(hours * 3_600.0);
    let mut sum = GroupOutcome::default();
    thread::scope(|scope| {
        let plays: Vec<_> =
            (0..worlds).map(|seed| scope.spawn(move || endure(seed, lasts))).collect();
        for play in plays {
            sum.add(play.join().expect("a group does not panic"));
        }
    });
    let started = sum.takeovers.get("start").copied().unwrap_or(0);
    let false_takeovers = sum.takeovers.values().sum::<u64>() - started;
    let mut row = row("group.jitter", "", &[], "0 takeovers of a healthy owner in 24 hours");
    row.times = worlds as usize;
    row.violations = sum.violations.iter().map(ToString::to_string).collect();
    row.held = row.violations.is_empty();
    row.with("hours", sum.lasted.as_secs_f64() / 3_600.0)
        .with("false_takeovers", false_takeovers as f64)
        .with("leases_lapsed", sum.lapses as f64)
        .holds(false_takeovers == 0 && started == worlds)
}
