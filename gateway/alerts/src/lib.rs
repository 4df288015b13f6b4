//! Alerts without Prometheus: the same rules, evaluated on the gateway's own metrics, and sent to receivers of `[[alert]]`. Also the
//! checks of `[[dependency]]`, and the posts of advice to `[advice]` (`advice.rs`).
//!
//! `history.rs` keeps values, `active.rs` the active alerts, `outbox.rs` what one receiver was sent, `alerts.rs` all of them. They
//! have no clock; `thread.rs` gives them the time, and posts. Before it posts, control gets the record with which the next process
//! goes on ([`Alerts::take_changed_record`]).

mod active;
mod advice;
mod alerts;
mod dependencies;
mod history;
mod outbox;
mod payload;
mod post;
mod record;
#[cfg(test)]
mod tests;
mod thread;

pub use active::AcknowledgeError;
pub use alerts::{AlertDelivery, Alerts};
pub use thread::{AlertChannels, AlertHandle, AlertRequest, AlertThread};
