//! Datagrams in batches: `recvmmsg`, `sendmmsg` and the error queue of a UDP socket.
//!
//! What the packet workers are made of, and the bench's bare relays too, so that a comparison compares the rest.
//!
//! The one module of this crate with `unsafe`: no safe wrapper sends or receives batches without allocating.
#![expect(
    unsafe_code,
    reason = "the kernel's batch calls take pointers to pointers, which no library wraps without allocating"
)]

mod address;
mod class;
mod control;
mod errors;
mod inbox;
mod outbox;
#[cfg(test)]
mod tests;

pub use address::Family;
use control::Control;
pub use errors::{drain_errors, keep_errors};
pub use inbox::Inbox;
pub use outbox::{Outbox, Sent};

/// Datagrams per system call: past this the call itself no longer shows.
pub const BATCH: usize = 64;

/// Longest datagram taken; a longer one is cut and told as such.
pub const DATAGRAM_MAX: usize = 2_048;
