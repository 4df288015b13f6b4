//! An agent beside a media server. It watches the server's process and port, notifies gateways of its death, reports
//! its load, terminates trunk legs for it, starts it on request, and injects faults in drills if the configuration
//! allows them. An agent beside a gateway of a group tells the other gateway that its process has ended.
//!
//! One thread runs one loop ([`run`]); `agent` is its state machine. Configured commands run on separate threads.

mod agent;
mod check;
mod commands;
pub mod config;
mod counters;
mod gateway_port;
mod load;
mod notices;
mod process;
mod serve;
mod sessions;

pub use config::Config;
pub(crate) use counters::AgentCounters;
pub use serve::{ServeAgentError, run};
