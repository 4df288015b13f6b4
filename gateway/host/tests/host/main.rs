//! The host through its front door, with plugins that fail in every way we know.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod asking;
mod faults;
mod hostile;
mod plugin;
mod registry;
mod shipped;
mod states;
mod vetting;
