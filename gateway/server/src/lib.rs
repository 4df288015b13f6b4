//! The gateway process: sockets, clocks, threads, telemetry, admin API.

pub mod api;
pub mod control;
mod policy;
pub mod run;
pub mod serve;
pub mod settings;
pub mod telemetry;
pub mod webhook;

pub use policy::compile_plugin;
