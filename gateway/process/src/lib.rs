//! The process and its operating system: files, signals, descriptors, sandbox, allocator, terminal.

#![deny(missing_docs)]

pub mod allocator;
pub mod descriptors;
pub mod file;
pub mod random;
pub mod sandbox;
pub mod signals;
pub mod terminal;

use std::time::SystemTime;

/// Unix time in microseconds; 0 before 1970.
pub fn unix_us(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros() as u64
}

/// The SHA-256 digest (FIPS 180-4).
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Serialises a value as the text that it displays.
pub fn as_text<T: std::fmt::Display, S: serde::Serializer>(
    value: &T,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
