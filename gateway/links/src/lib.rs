//! A model of bad links: the fate of each packet from a seed, without sockets or a clock.
//!
//! The relay applies it to real datagrams, the simulator in virtual time, and tests of failure detection use it through
//! [`trace`].

mod impairment;
pub mod trace;

pub use impairment::{Bursts, Conditions, Fate, Impairment, ImpairmentCause};
