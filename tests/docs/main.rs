//! The documentation against the code: every key, endpoint, metric, span and event is listed, and every example is taken.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod api;
mod architecture;
mod circles;
mod commands;
mod configuration;
mod dashboards;
mod examples;
mod gateway;
mod limits;
mod links;
mod page;
mod paths;
mod scenarios;
mod schema;
mod structure;
mod telemetry;
mod webrtc;
