//! Simulated seeds, long runs and comparisons.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod comparison;
mod rows;
mod swarm;
