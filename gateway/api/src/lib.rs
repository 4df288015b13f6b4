//! The admin API: JSON over HTTP on a Unix socket and, if configured, on TCP with a token.
//!
//! It parses strictly, asks control through its [`Handle`](evenkeel_control::Handle) and serialises the answer. It runs
//! on its own thread; forwarding never waits for it and does not depend on it.

mod advice_feed;
mod alerts;
mod answers;
mod blast;
mod change_log;
mod changes;
mod context;
mod error;
mod event_feed;
mod events;
mod failure_log;
mod failures;
mod feedback;
mod gateway;
mod listener;
mod offer;
mod operations;
mod policies;
mod probe_results;
mod probes;
mod push;
mod recording;
mod relay;
mod request;
mod secrets;
mod sessions;
#[cfg(test)]
mod tests;
mod thread;
mod whip;

pub use context::{CredentialEnd, MetricsText};
pub use secrets::ClientSecrets;
pub use thread::{ApiStartError, ApiThread, BoundApi, bind, start};
pub use whip::tls::{WebrtcCertificate, WebrtcCertificateError};
