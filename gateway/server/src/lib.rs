//! Does: sockets, clocks, threads, telemetry, admin API.

pub mod flows;
pub mod quic;
pub mod ring;
pub mod settings;
pub mod telemetry;
