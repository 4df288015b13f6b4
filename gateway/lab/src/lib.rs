//! Simulated clients, media nodes, bad networks, unauthorised traffic and telemetry receivers; the demo and the drills.
//! Packets are recorded in a ledger and evaluated afterwards.

pub mod client;
pub mod clock;
pub mod crowd;
pub mod datagrams;
pub mod demo;
pub mod drill;
mod interruption;
pub mod ledger;
pub mod machine;
mod mark;
pub mod otlp;
pub mod process;
#[cfg(test)]
mod quic_server;
mod reception;
pub mod relay;
pub mod sample_node;
#[cfg(test)]
mod small_gateway;
pub mod stranger;
pub mod watch;
pub mod wheel;

pub use mark::Mark;
