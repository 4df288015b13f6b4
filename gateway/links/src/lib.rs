//! A model of bad links: the fate of each packet from a seed, without sockets or a clock.
//!
//! The relay applies it to real datagrams, the simulator in virtual time.

#![deny(missing_docs)]

mod impairment;

pub use impairment::{Bursts, Conditions, Fate, Impairment, ImpairmentCause};
