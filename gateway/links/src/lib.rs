//! A model of bad links: the fate of each packet from a seed, without sockets or a clock.
//!
//! Used by the relay on real datagrams, by the simulator in virtual time, and by tests of failure
//! detection ([`trace`]).

mod impairment;
pub mod trace;

pub use impairment::{Bursts, Cause, Conditions, Fate, Impairment};
