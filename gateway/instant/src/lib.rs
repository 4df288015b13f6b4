//! Instants in records that another process reads.
//!
//! An [`Instant`] has no value outside of its process. It is written as nanoseconds from a reference
//! that writer and reader both know, set with [`relative_to`]. `#[serde(with = "evenkeel_instant")]`
//! selects this form for a field, [`option`] and [`paired`] for an optional one.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use std::cell::Cell;
use std::time::{Duration, Instant};

thread_local! {
    static REFERENCE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Runs `act`, during which this thread writes and reads instants relative to `reference`.
pub fn relative_to<T>(reference: Instant, act: impl FnOnce() -> T) -> T {
    let _outer = Outer(REFERENCE.replace(Some(reference)));
    act()
}

/// The reference of the caller, set again when this is dropped.
struct Outer(Option<Instant>);

impl Drop for Outer {
    fn drop(&mut self) {
        REFERENCE.set(self.0);
    }
}

/// # Errors
/// Fails outside of [`relative_to`], or 292 years from the reference.
pub fn serialize<S: Serializer>(at: &Instant, serializer: S) -> Result<S::Ok, S::Error> {
    nanos(*at)
        .ok_or_else(|| ser::Error::custom("instant without a reference near it"))?
        .serialize(serializer)
}

/// # Errors
/// Fails outside of [`relative_to`], or if no instant has this value.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Instant, D::Error> {
    instant(i64::deserialize(deserializer)?)
        .ok_or_else(|| de::Error::custom("instant without a reference near it"))
}

fn nanos(at: Instant) -> Option<i64> {
    let reference = REFERENCE.get()?;
    match at.checked_duration_since(reference) {
        Some(after) => i64::try_from(after.as_nanos()).ok(),
        None => i64::try_from((reference - at).as_nanos()).ok().map(|before| -before),
    }
}

fn instant(nanos: i64) -> Option<Instant> {
    let (reference, distance) = (REFERENCE.get()?, Duration::from_nanos(nanos.unsigned_abs()));
    match nanos {
        0.. => reference.checked_add(distance),
        _ => reference.checked_sub(distance),
    }
}

/// An instant beside values that serde knows.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct SerialInstant(#[serde(with = "self")] Instant);

/// `Option<Instant>`.
pub mod option {
    use super::{Deserialize, Deserializer, Instant, SerialInstant, Serialize, Serializer};

    /// # Errors
    /// As [`serialize`](super::serialize).
    pub fn serialize<S: Serializer>(
        at: &Option<Instant>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        at.map(SerialInstant).serialize(serializer)
    }

    /// # Errors
    /// As [`deserialize`](super::deserialize).
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Instant>, D::Error> {
        Ok(Option::<SerialInstant>::deserialize(deserializer)?.map(|SerialInstant(at)| at))
    }
}

/// `Option<(T, Instant)>`.
pub mod paired {
    use super::{Deserialize, Deserializer, Instant, SerialInstant, Serialize, Serializer};

    /// # Errors
    /// As [`serialize`](super::serialize).
    pub fn serialize<S: Serializer, T: Serialize>(
        pair: &Option<(T, Instant)>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        pair.as_ref().map(|(value, at)| (value, SerialInstant(*at))).serialize(serializer)
    }

    /// # Errors
    /// As [`deserialize`](super::deserialize).
    pub fn deserialize<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
        deserializer: D,
    ) -> Result<Option<(T, Instant)>, D::Error> {
        Ok(Option::<(T, SerialInstant)>::deserialize(deserializer)?
            .map(|(value, SerialInstant(at))| (value, at)))
    }
}

#[cfg(test)]
mod tests;
