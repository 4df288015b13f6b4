//! Whole worlds from one seed in virtual time.
//!
//! The core, the guests that answer its questions, what becomes of a packet and how a receiver is kept from noticing are
//! the ones that ship. Around them everything is played: links, nodes, clients, drivers, and whatever goes wrong.
//!
//! Read it in this order: a [`Script`] says what is in a world and what happens there, drawn from a seed; a [`World`]
//! plays it, event by event; the checker ([`check`]) looks on and knows only what can be seen from outside.

pub mod check;
mod client;
mod comparison;
mod driver;
mod fault;
mod lost_flows;
mod merge;
mod node;
mod outcome;
mod packet;
pub mod phi;
mod policies;
mod queue;
pub mod rows;
mod script;
mod swarm;
mod trace;
mod worker;
mod world;

pub use check::Violation;
pub use comparison::{Change, WhatIf, policy_name};
pub use fault::{Episode, Fault};
pub use lost_flows::LostFlows;
pub use outcome::{Digest, Listed, Outcome, Spread};
pub use policies::Library;
pub use script::{Join, NodeScript, Script};
pub use swarm::{Swarm, Totals};
pub use world::World;
