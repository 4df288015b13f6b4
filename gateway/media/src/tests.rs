use std::fmt::Debug;
use std::time::Instant;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Returns the state as another process reads it, which must be the same.
pub(crate) fn handed_over<T: Serialize + DeserializeOwned + Debug>(state: &T) -> T {
    #[expect(clippy::disallowed_methods, reason = "only distances count")]
    let read = evenkeel_instant::relative_to(Instant::now(), || {
        rmp_serde::from_slice(&rmp_serde::to_vec_named(state).unwrap()).unwrap()
    });
    assert_eq!(format!("{read:?}"), format!("{state:?}"));
    read
}
