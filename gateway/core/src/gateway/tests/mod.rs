//! A gateway in a world that plays server, drivers, nodes and policies under virtual time.

mod admission;
mod agents;
mod breaking;
mod brown_out;
mod canaries;
mod cohorts;
mod damping;
mod failover;
mod flows;
mod herd;
mod judging;
mod listing;
mod modes;
mod moves;
mod opening;
mod outcomes;
mod policy;
mod quality;
mod returning;
mod revising;
mod starts;
mod survival;
mod swarm;
mod uplink;
mod world;

use world::{
    A, B, C, D, World, accept, denied, listed, ms, place, placement, settings, settings_of, state,
};
