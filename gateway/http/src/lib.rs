//! Requests by HTTP to servers of the operator: webhooks, receivers of alerts, registries. Each has a connection of its own, an answer
//! of bounded size, and the system's root certificates.

mod client;
mod poster;
pub mod tls;

pub use client::{
    HttpAnswer, HttpClient, HttpError, HttpRequest, Posted, TraceHeaders, WebhookMessage,
};
pub use poster::{Effort, Poster};
