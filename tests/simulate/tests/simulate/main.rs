//! Simulated seeds, long runs and comparisons.

mod comparison;
mod rows;
mod swarm;
