//! Circuit breakers: their state machine, and those of regions, zones and groups of clients.

// Tests start their virtual clock at the current time.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod circuit;
mod clients;
mod domains;

pub use circuit::{Breaker, BreakerChange, BreakerEvidence, BreakerVerdict, JudgedWindow, WINDOW};
pub use clients::{ClientBreakerRecord, ClientBreakerStanding, ClientBreakers};
pub use domains::{DomainBreakers, JudgedZone};
