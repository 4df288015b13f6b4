//! Does: sockets, clocks, threads, telemetry, admin API.

pub mod api;
mod buffers;
pub mod control;
pub mod flows;
pub mod mmsg;
mod panics;
mod policy;
pub mod quic;
pub mod ring;
pub mod run;
pub mod serve;
pub mod settings;
pub mod telemetry;
pub mod webhook;
pub mod worker;

pub use policy::compile_plugin;
