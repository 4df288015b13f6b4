//! Load generator of the bench: clients and nodes around the measured relay. One side sends, and the other side counts.
//!
//! One thread on one core sends due packets and reads the sinks in between. Every packet is RTP and carries its
//! session's number and send time; every sink knows which packets belong to it.

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

pub(crate) use register::Wire;
pub(crate) use rig::{Plan, Rig};
pub(crate) use trace::Trace;
pub(crate) use window::{Direction, Edge, Offer, Pace, Window};
