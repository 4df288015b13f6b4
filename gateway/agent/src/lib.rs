//! Stands beside a media server. It holds on to the server's process and tells gateways of its death unasked, says how
//! loaded it is, ends trunk legs for a server that knows none, starts it when asked to, and breaks it in drills where its
//! configuration allows them.
//!
//! One thread, one loop ([`run`]); what it decides is in `agent`, which has no socket and no clock. Commands of the
//! configuration run on threads of their own.

mod agent;
mod check;
mod commands;
pub mod config;
mod counters;
mod load;
mod notices;
mod process;
mod serve;
mod sessions;

pub use config::Config;
pub use counters::Counters;
pub use serve::{Failed, Words, run};
