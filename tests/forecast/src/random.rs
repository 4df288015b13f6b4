//! Random numbers of the generated days.

use fastrand::Rng;

/// Uniform from `low` to `high`.
pub(crate) fn uniform(rng: &mut Rng, low: f64, high: f64) -> f64 {
    low + (high - low) * rng.f64()
}

/// Normal with mean 0 and deviation 1, by the sum of twelve uniform numbers.
pub(crate) fn normal(rng: &mut Rng) -> f64 {
    (0..12).map(|_| rng.f64()).sum::<f64>() - 6.0
}

/// Exponential with this mean.
pub(crate) fn exponential(rng: &mut Rng, mean: f64) -> f64 {
    -mean * (1.0 - rng.f64()).ln()
}

/// True with this probability.
pub(crate) fn chance(rng: &mut Rng, probability: f64) -> bool {
    rng.f64() < probability
}

/// A bump of height 1 around `centre` on a clock of 24 h.
pub(crate) fn bump(hour: f64, centre: f64, width: f64) -> f64 {
    let distance = (hour - centre + 36.0).rem_euclid(24.0) - 12.0;
    (-distance * distance / (2.0 * width * width)).exp()
}
