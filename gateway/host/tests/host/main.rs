//! The host's public interface, with plugins that fail in every known way.

#![allow(clippy::unwrap_used, reason = "tests")]

mod c;
mod calm;
mod compatibility;
mod contract;
mod data;
mod determinism;
mod faults;
mod fixtures;
mod flat;
mod grants;
mod guests;
mod hooks;
mod hostile;
mod js;
mod plugin;
mod poison;
mod reference;
mod sandbox;
mod shipped;
mod states;
mod vetting;
