//! The admin API: JSON over HTTP on a Unix socket and, where configured, on TCP with a token.
//!
//! It parses strictly, asks control through its [`Handle`](crate::control::Handle) and words the answer. It decides
//! nothing, and nothing that forwards packets waits for it: it has a thread of its own, and its end is noticed by
//! nobody else.

mod error;
mod events;
mod explained;
mod idempotency;
mod listener;
mod notice;
mod offer;
mod operating;
mod recording;
mod refusal;
mod routes;
#[cfg(test)]
mod tests;
mod thread;
mod view;

pub use thread::{Failure, Thread, start};
