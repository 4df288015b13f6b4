//! Simulated clients, media nodes, bad networks and unauthorised traffic; the demo, the drills and test calls.
//! Packets are recorded in a ledger and evaluated afterwards.

pub mod call;
pub mod client;
pub mod clock;
pub mod crowd;
pub mod datagrams;
pub mod demo;
pub mod drill;
mod error;
mod interruption;
pub mod ledger;
pub mod links;
pub mod machine;
mod mark;
pub mod network;
pub mod probe;
pub mod process;
mod reception;
pub mod relay;
pub mod sample_node;
pub mod stranger;
pub mod watch;
mod wheel;

#[cfg(test)]
mod tests;

pub use error::LabError;
pub use mark::TestHeader;
