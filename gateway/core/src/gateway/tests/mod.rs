//! A gateway in a world that plays server, drivers, nodes and policies under virtual time.

mod agents;
mod canaries;
mod cohorts;
mod damping;
mod failover;
mod flows;
mod herd;
mod moves;
mod opening;
mod policy;
mod quality;
mod swarm;
mod uplink;
mod world;

use world::{
    A, B, C, D, World, accept, denied, ms, place, placement, settings, settings_of, state,
};
