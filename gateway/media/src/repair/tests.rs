use std::time::Duration;

use super::*;
pub(super) use crate::tests::at;

pub(super) fn timing(round_trip_ms: u64, latency_ms: u64) -> PathTiming {
    let [round_trip, latency] = [round_trip_ms, latency_ms].map(Duration::from_millis);
    PathTiming { round_trip, is_measured: false, latency }
}

#[test]
fn packets_are_kept_for_a_second_at_most() {
    assert_eq!(timing(40, 120).kept_for(), Duration::from_millis(160));
    assert_eq!(timing(400, 700).kept_for(), Duration::from_secs(1));
}
