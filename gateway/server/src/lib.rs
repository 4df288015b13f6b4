//! Does: sockets, clocks, threads, telemetry, admin API.

pub mod settings;
