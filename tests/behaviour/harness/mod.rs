//! Nodes, phones and offers around a gateway.

mod degradation_plugin;
mod gateway;
mod gateway_process;
mod group;
mod ice;
mod node;
mod offer;
mod phone;
mod process;
mod report;
mod routing_plugin;
mod webrtc;
pub(crate) mod webtransport;
pub(crate) mod whip;

pub(crate) use degradation_plugin::{Fault, capping_plugin};
pub(crate) use gateway::{Gateway, World};
pub(crate) use gateway_process::GatewayProcess;
pub(crate) use group::{
    GATEWAYS, Hosts, NODE, SHARED, await_armed, await_replica, has_replica, ids, offer_with_key,
    trace_ids, try_offer_with_key,
};
pub(crate) use ice::{Credentials, Nominate};
pub(crate) use node::{Node, SECRET};
pub(crate) use offer::{declared, offer, quic_of, udp_of};
pub(crate) use phone::{
    Heard, Phone, Track, assert_complete, assert_continuous, talk, talk_by, talk_for,
};
pub(crate) use process::{AgentFiles, Server};
pub(crate) use report::{acceptance_row, id_of_rule, limit_s, report};
pub(crate) use routing_plugin::{Behaviour, routing_plugin};
pub(crate) use webrtc::WebrtcPhone;

use std::time::{Duration, Instant};

/// The timeout of conditions; generous, because tests share the machine.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) fn wait_until(what: &str, done: impl FnMut() -> bool) {
    wait_within(TIMEOUT, what, done);
}

pub(crate) fn wait_within(timeout: Duration, what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + timeout;
    while !done() {
        assert!(Instant::now() < deadline, "timed out: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}
