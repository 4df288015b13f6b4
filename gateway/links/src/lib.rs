//! Says what a bad link does to a packet: from a seed, without sockets or a clock.
//!
//! One model for the relay, which does it to datagrams, for the simulator, which does it in virtual time, and for tests
//! of whoever judges a node by what comes from it ([`trace`]).

mod impairment;
pub mod trace;

pub use impairment::{Bursts, Cause, Conditions, Fate, Impairment};
