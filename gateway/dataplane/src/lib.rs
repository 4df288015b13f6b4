//! Packet workers, the QUIC endpoint, batched system calls, rings and the flow table. No decisions.

pub mod address;
pub mod buffers;
pub mod flows;
pub mod freebind;
mod lease;
pub mod mmsg;
pub mod panics;
pub mod quic;
pub mod ring;
pub mod worker;

pub use lease::SendLease;
