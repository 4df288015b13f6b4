//! Simulated seeds, long runs and comparisons.

mod comparison;
mod group;
mod mutations;
mod rows;
mod swarm;
