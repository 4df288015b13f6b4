//! What threads share without a lock. `make loom` replaces it by loom's atomics and by models of rtrb and the eventfd.

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

#[cfg(not(loom))]
pub(crate) use ::rtrb;
#[cfg(loom)]
pub(crate) use flag::AtomicBool;
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};

#[cfg(loom)]
#[path = "../tests/loom/flag.rs"]
mod flag;
#[cfg(loom)]
#[path = "../tests/loom/rtrb.rs"]
pub(crate) mod rtrb;
