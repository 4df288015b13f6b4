//! Tools that tests, bench and chaos share.

pub mod binary;
pub mod clients;
pub mod http;
pub mod namespace;
pub mod nats;
pub mod registry;

use std::time::Duration;

/// The time limit of a wait that takes a second on an idle machine.
pub const TIMEOUT: Duration = Duration::from_secs(60);
