//! The gateway process: sockets, clocks, threads, telemetry, admin API.

mod address;
mod allocator;
pub mod api;
pub mod cluster;
pub mod control;
mod descriptors;
mod file;
pub mod handover;
pub mod history;
mod index;
mod policy;
pub mod run;
mod sandbox;
pub mod serve;
pub mod settings;
pub mod telemetry;
pub mod terminal;
pub mod webhook;

pub use cluster::hold_addresses;
pub use policy::compile_plugin;

use std::time::SystemTime;

/// Unix time in microseconds.
fn unix_us(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros() as u64
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Serialises a value as the text that it displays.
fn as_text<T: std::fmt::Display, S: serde::Serializer>(
    value: &T,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
