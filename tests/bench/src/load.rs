//! Load for the bench: clients that send and nodes that count, or the other way round, around a relay that is measured.
//!
//! One thread does it all, on one core: it sends the packet that is due and looks at the sinks in between. Every packet
//! is RTP and carries its session's number and when it was sent; every sink knows whose packets may come to it.

mod answers;
mod arrivals;
mod books;
mod clients;
mod nodes;
mod register;
mod rig;
mod stream;
mod trace;
mod window;

pub(crate) use books::{Delays, Tally};
pub(crate) use register::Wire;
pub(crate) use rig::{Plan, Rig};
pub(crate) use trace::{Malformed, Trace};
pub(crate) use window::{Direction, Edge, Offer, Pace, Window};
