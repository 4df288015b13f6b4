//! The world around a gateway: nodes, phones, offers, and patience.

mod degradation_plugin;
mod gateway;
mod ice;
mod node;
mod offer;
mod phone;
mod process;
mod routing_plugin;

pub(crate) use degradation_plugin::{Fails, thrifty};
pub(crate) use gateway::{Gateway, World};
pub(crate) use ice::{Credentials, Nominate};
pub(crate) use node::{Node, SECRET};
pub(crate) use offer::{declared, offer, quic_of, udp_of};
pub(crate) use phone::{Heard, Phone, complete, continuous, talk, talk_for};
pub(crate) use process::{Beside, Process};
pub(crate) use routing_plugin::{Manner, plugin};

use std::time::{Duration, Instant};

/// For what must happen: generous, since other things run on this machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for the thing itself.
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}
