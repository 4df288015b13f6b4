//! What threads share without a lock. `make loom` replaces it by loom's atomics and a model of arc-swap.

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(not(loom))]
pub(crate) use arc_swap::{ArcSwap, Guard};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(loom)]
pub(crate) use swap::{ArcSwap, Guard};

#[cfg(loom)]
#[path = "../tests/loom/swap.rs"]
mod swap;
