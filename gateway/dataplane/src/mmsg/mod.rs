//! Batched datagrams: `recvmmsg`, `sendmmsg` and the error queue of a UDP socket.
//!
//! The bare relays of the bench use this module too, so that comparisons with them measure everything else.
//!
//! This is the only module of the crate with `unsafe`: no safe wrapper sends or receives batches without allocating.
#![expect(
    unsafe_code,
    reason = "the kernel's batch calls take pointers to pointers, which no library wraps without allocating"
)]

mod receive;
mod send;
#[cfg(test)]
mod tests;

pub use receive::{Family, ReceiveBatch, drain_errors, keep_errors};
pub use send::{SendBatch, SendResult};

/// Datagrams per system call. More datagrams make a call hardly cheaper per datagram.
pub const BATCH: usize = 64;

/// Longest datagram received; a longer one is truncated and rejected.
pub const DATAGRAM_MAX: usize = 2_048;
