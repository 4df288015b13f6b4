//! The only clock of the lab: CLOCK_REALTIME, because the kernel stamps datagrams with it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, sleep};

/// Nanoseconds since the Unix epoch, now.
///
/// A clock set before 1970 reads as 0.
pub fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, nanoseconds)
}

/// A duration as nanoseconds; saturates after 584 years.
pub fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Interval of the moments at which a control run measures pauses.
const CONTROL_EVERY: Duration = Duration::from_millis(100);

/// Waits for a control run of this length, and returns the moments at which to measure pauses.
pub async fn control_moments(length: Duration) -> Vec<u64> {
    let mut moments = Vec::new();
    let until = Instant::now() + length;
    while Instant::now() < until {
        sleep(CONTROL_EVERY).await;
        moments.push(now_ns());
    }
    // Waits for the packets that are in flight at the last moment.
    sleep(CONTROL_EVERY).await;
    moments
}
