//! Does: sockets, clocks, threads, telemetry, admin API.

pub mod control;
pub mod flows;
mod mmsg;
pub mod quic;
pub mod ring;
pub mod worker;
pub mod settings;
pub mod telemetry;
