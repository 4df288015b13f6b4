//! Packet workers, the QUIC endpoint, batched system calls, rings and the flow table. No decisions.
//!
//! Loom checks the lease and the ring, so only these and what they need are built for it.

#![cfg_attr(loom, expect(dead_code, reason = "the rest of the crate uses it"))]

pub mod address;
#[cfg(not(loom))]
pub mod buffers;
#[cfg(not(loom))]
pub mod client_probes;
pub mod flows;
#[cfg(not(loom))]
pub mod freebind;
#[cfg(not(loom))]
pub mod handshakes;
mod lease;
#[cfg(not(loom))]
pub mod mmsg;
#[cfg(not(loom))]
pub mod panics;
#[cfg(not(loom))]
pub mod quic;
pub mod ring;
mod sync;
#[cfg_attr(loom, path = "../tests/loom/waker.rs")]
mod waker;
#[cfg(not(loom))]
pub mod worker;

pub use lease::SendLease;
pub use waker::Waker;
