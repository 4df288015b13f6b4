//! Simulated seeds, long runs and comparisons.

mod comparison;
mod mutations;
mod rows;
mod swarm;
