//! The host through its front door, with plugins that fail in every way we know.

#![allow(clippy::unwrap_used, reason = "tests")]

mod hooks;
mod c;
mod calm;
mod compatibility;
mod contract;
mod faults;
mod fixtures;
mod grants;
mod guests;
mod hostile;
mod js;
mod plugin;
mod poison;
mod reference;
mod shipped;
mod states;
mod tools;
mod determinism;
mod vetting;
