//! Times of alerts in the record that another process continues.

use std::time::{Duration, Instant, SystemTime};

use evenkeel_process::unix_us;
use evenkeel_telemetry::Moment;

/// A time of this process as Unix time in microseconds.
pub(crate) fn time_us(at: Instant, present: Moment) -> u64 {
    let age = present.now.saturating_duration_since(at);
    unix_us(present.wall.checked_sub(age).unwrap_or(present.wall))
}

/// A recorded time on the clock of this process. The clock may have been set back since: no time is later than the present.
pub(crate) fn moment_at(us: u64, present: Moment) -> Moment {
    let wall = SystemTime::UNIX_EPOCH + Duration::from_micros(us);
    let age = present.wall.duration_since(wall).unwrap_or_default();
    Moment { now: present.now.checked_sub(age).unwrap_or(present.now), wall }
}
