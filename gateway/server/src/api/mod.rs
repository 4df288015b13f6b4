//! The admin API: JSON over HTTP on a Unix socket and, where configured, on TCP with a token.
//!
//! It parses strictly, asks control through a [`Handle`] and words the answer. It decides nothing, and nothing that
//! forwards packets waits for it: it has a thread of its own, and its end is noticed by nobody else.

mod error;
mod events;
mod handle;
mod idempotency;
mod listener;
mod notice;
mod offer;
mod refusal;
mod routes;
#[cfg(test)]
mod tests;
mod thread;
mod trace;
pub mod view;

pub use error::{Code, Error};
pub use handle::{Drain, Handle, Reply, Request};
pub use notice::{Accusation, Notice};
pub use offer::Wanted;
pub use refusal::Refusal;
pub use thread::{Failure, Settings, Tcp, Thread, start};
pub use trace::Traceparent;
