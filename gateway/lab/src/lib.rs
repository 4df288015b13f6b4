//! Plays everyone else over sockets: clients, media nodes, bad networks, strangers, and those who listen to telemetry.
//! It decides nothing about media and knows nothing of policies; it sends, reflects, impairs and keeps the books.

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
