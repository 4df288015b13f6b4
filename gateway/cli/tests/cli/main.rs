//! The `evenkeel` command, run as a process.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod agent;
mod api;
mod check;
mod drill;
mod newcomer;
mod plugin;
mod policy;
mod registry;
mod signing;
mod status;
