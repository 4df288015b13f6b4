//! The gateway process: assembles its crates, follows its configuration, and ends it.

mod counters;
mod drill;
mod forecast;
mod host;
mod host_sessions;
mod paths;
mod reload;
mod sandbox;
mod serve;
mod watch;

pub use paths::{ServeError, ServePaths};
pub use serve::{ServedAddresses, serve};
