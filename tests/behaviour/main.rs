//! Tests of a complete gateway in this process, with sample nodes and clients on loopback.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod harness;

mod addresses;
mod agents;
mod alerts;
mod attacks;
mod backends;
mod calls;
mod closing;
mod conference;
mod crowd;
mod degradation;
mod drivers;
mod dscp;
mod failover;
mod forecasts;
mod history;
mod hostile;
mod identities;
mod index;
mod listing;
mod logs;
mod modes;
mod moves;
mod newcomers;
mod offers;
mod outages;
mod outcomes;
mod policies;
mod ports;
mod recordings;
mod relay;
mod revisions;
mod rollouts;
mod roq;
mod scenarios;
mod slos;
mod srtp;
mod starts;
mod takeover;
mod upgrade;
mod webrtc;
mod webtransport;
mod whip;
mod workers;
