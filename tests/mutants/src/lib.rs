//! Mutants of the plugins' source, for the judge of rollouts.
//!
//! [`sources`] writes each plugin of `plugins/` with a switch at each point that an operator ([`operators`]) would change. One
//! build serves all mutants: [`active`] sets in its bytes the two mutations that apply. [`label`] plays mutants, and settings
//! that differ, in simulated worlds beside the plugin as it is. Plugins for judging ([`plugins`]) are not looked at
//! while a judge is built.

pub mod active;
pub mod corpus;
pub mod label;
pub mod operators;
pub mod plugins;
mod settings;
pub mod sources;
