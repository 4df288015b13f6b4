//! A whole gateway in this process, sample nodes and clients around it on loopback: one file per promise.

mod harness;

mod calls;
mod closing;
mod degradation;
mod failover;
mod identities;
mod moves;
mod offers;
mod outages;
mod policies;
mod ports;
mod roq;
mod strangers;
mod workers;
