use std::fmt::Debug;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A clock set by the test; only distances between its instants matter.
pub(crate) fn at(ms: u64) -> Instant {
    #[expect(clippy::disallowed_methods, reason = "an origin is needed; only distances count")]
    static ORIGIN: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    *ORIGIN + Duration::from_secs(1_000) + Duration::from_millis(ms)
}

/// Returns the state as another process reads it, which must be the same.
pub(crate) fn handed_over<T: Serialize + DeserializeOwned + Debug>(state: &T) -> T {
    #[expect(clippy::disallowed_methods, reason = "only distances count")]
    let read = evenkeel_instant::relative_to(Instant::now(), || {
        rmp_serde::from_slice(&rmp_serde::to_vec_named(state).unwrap()).unwrap()
    });
    assert_eq!(format!("{read:?}"), format!("{state:?}"));
    read
}
