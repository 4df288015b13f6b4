//! The admin API: JSON over HTTP on a Unix socket and, if configured, on TCP with a token.
//!
//! It parses strictly, asks control through its [`Handle`](evenkeel_control::Handle) and serialises the answer. It runs
//! on its own thread; forwarding never waits for it and does not depend on it.

mod body;
mod context;
mod error;
mod events;
mod explanation;
mod gate;
mod gateways;
mod history;
mod index;
mod listener;
mod notice;
mod offer;
mod operations;
mod page;
mod recording;
mod refusal;
mod relay;
mod routes;
mod target;
mod tcp;
#[cfg(test)]
mod tests;
mod thread;
mod upgrade;
mod view;

pub use thread::{ApiStartError, ApiThread, BoundApi, bind, start};
