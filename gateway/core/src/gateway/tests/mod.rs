//! A gateway in a world that plays server, drivers, nodes and policies under virtual time.

mod agents;
mod failover;
mod herd;
mod modes;
mod moves;
mod opening;
mod policy;
mod quality;
mod swarm;
mod world;

use world::{
    A, B, C, D, World, accept, denied, ms, place, placement, settings, settings_of, state,
};
