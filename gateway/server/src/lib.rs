//! Does: sockets, clocks, threads, telemetry, admin API.

pub mod api;
pub mod flows;
pub mod quic;
pub mod ring;
