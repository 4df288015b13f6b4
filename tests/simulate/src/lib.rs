//! Deterministic simulation of a gateway with its nodes, clients and links in virtual time.
//!
//! The core, the plugins, the forwarding code and the continuity code are those of the product. Links, nodes, clients,
//! drivers and faults are simulated.
//!
//! The same seed also plays a [`group`] of two or three gateways, the records of decisions that another process continues
//! ([`records`]), the indices of SRTP that these processes use ([`indices`]), and a loss that a copy of the gateway predicts
//! ([`losses`]).
//!
//! An [`Oracle`] tells the harm of a policy that decides alone in such worlds.
//!
//! A [`Script`] describes a world and its faults, drawn from a seed. A [`World`] plays it event by event. The checker
//! ([`check`]) observes it from outside and reports violated invariants.

pub mod check;
mod client;
mod comparison;
mod driver;
mod fault;
pub mod group;
pub mod indices;
pub mod losses;
mod lost_flows;
mod merge;
mod node;
mod oracle;
mod outcome;
mod packet;
pub mod phi;
mod policies;
mod queue;
pub mod records;
pub mod rows;
mod script;
mod swarm;
mod trace;
mod worker;
mod world;

pub use check::Violation;
pub use comparison::{Change, Comparison, policy_name};
pub use fault::{Episode, Fault};
pub use lost_flows::LostFlows;
pub use oracle::{Harm, Noise, Oracle, OracleRevision, OracleRun};
pub use outcome::{Digest, Listed, Outcome, Spread};
pub use policies::Library;
pub use script::{Join, NodeScript, Script};
pub use swarm::{Swarm, Totals};
pub use world::World;
