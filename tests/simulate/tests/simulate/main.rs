//! Simulated seeds, long runs and comparisons.

mod comparison;
mod group;
mod mutations;
mod oracle;
mod rows;
mod swarm;
