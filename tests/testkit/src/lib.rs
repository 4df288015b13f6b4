//! Tools that tests, bench and chaos share.

pub mod binary;
pub mod capture;
pub mod client_packets;
pub mod clients;
pub mod http;
mod measured;
pub mod namespace;
pub mod nats;
pub mod need;
pub mod registry;
mod required;
pub mod udp;

/// Marks a test by what it needs.
pub use evenkeel_testkit_macros::required;
pub use measured::{client, figure, not_measured};
pub use required::required;

use std::time::Duration;

/// The time limit of a wait that takes a second on an idle machine.
pub const TIMEOUT: Duration = Duration::from_secs(60);
