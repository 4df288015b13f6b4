//! A gateway in a world that plays server, drivers, nodes and policies under virtual time.

mod admission;
mod agents;
mod blast;
mod breaking;
mod brown_out;
mod canaries;
mod clients;
mod cohorts;
mod damping;
mod devices;
mod elastic;
mod failover;
mod flows;
mod impairments;
mod judging;
mod large_failover;
mod listing;
mod modes;
mod moves;
mod opening;
mod outcomes;
mod policy;
mod quality;
mod reserves;
mod restoring;
mod returning;
mod revising;
mod slo;
mod starts;
mod streams;
mod survival;
mod swarm;
mod uplink;
pub(crate) mod world;

pub(crate) use world::{A, listed, ms, settings};
use world::{B, C, D, World, accept, denied, place, placement, settings_of, state};
