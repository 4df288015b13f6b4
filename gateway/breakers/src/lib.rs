//! Circuit breakers: their state machine, and those of groups of clients. The breakers of regions are in the core.

#![deny(missing_docs)]
// Tests start their virtual clock at the current time.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod circuit;
mod clients;

pub use circuit::{Breaker, BreakerChange, BreakerEvidence, BreakerVerdict, JudgedWindow, WINDOW};
pub use clients::{ClientBreakerRecord, ClientBreakerStanding, ClientBreakers};
