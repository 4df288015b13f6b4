//! The number of sessions that descriptors and local ports suffice for.

use std::fmt;

use evenkeel_config::{DriverSettings, GatewayConfig, ListenIngress, NodeConfig};
use evenkeel_process::descriptors::reserve;

/// Descriptors that do not depend on the configuration: standard streams, event loops, the API's sockets, watched files.
const BASE: u64 = 64;

/// Sockets of a node beside its trunks: probe, agent, canary or control port.
const PER_NODE: u64 = 3;

/// The kernel's default range has 28,232 ports.
const LOCAL_PORTS: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// The number of sessions that descriptors and local ports suffice for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct DescriptorCapacity {
    limit: u64,
    /// Descriptors of a gateway without sessions.
    used: u64,
    local_ports: u64,
    /// Ports of a session, with a descriptor each: for RTP, and for RTCP where a listener offers it a port.
    ports_per_session: u64,
    /// `[limits] sessions`.
    sessions_max: u64,
}

impl DescriptorCapacity {
    /// The capacity of a gateway with these settings and this limit of descriptors.
    pub(crate) fn of(settings: &GatewayConfig, limit: u64) -> DescriptorCapacity {
        let has_ports = settings.nodes.iter().any(NodeConfig::has_port_legs);
        let own_rtcp = settings.listens.iter().any(|listen| listen.sockets().count() == 2);
        DescriptorCapacity {
            limit,
            used: used(settings, settings.workers() as u64),
            local_ports: local_ports(),
            ports_per_session: u64::from(has_ports) + u64::from(has_ports && own_rtcp),
            sessions_max: settings.limits.sessions.into(),
        }
    }

    /// Without ports of their own, sessions use no descriptor.
    fn sessions(&self) -> u64 {
        let descriptors = (self.limit - reserve(self.limit)).saturating_sub(self.used);
        let ports = descriptors.min(self.local_ports);
        ports.checked_div(self.ports_per_session).unwrap_or(u64::MAX)
    }

    /// Returns true if the configured limit of sessions cannot be reached.
    pub(crate) fn is_short(&self) -> bool {
        self.sessions() < self.sessions_max
    }
}

impl fmt::Display for DescriptorCapacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DescriptorCapacity { limit, used, local_ports, ports_per_session, sessions_max } = self;
        if *ports_per_session == 0 {
            return write!(
                f,
                "no session needs descriptors of its own: descriptors={limit} used={used}"
            );
        }
        let (sessions, reserved) = (self.sessions(), reserve(*limit));
        write!(
            f,
            "{sessions} sessions fit: ports_per_session={ports_per_session} descriptors={limit} used={used} \
             reserved={reserved} local_ports={local_ports}"
        )?;
        if self.is_short() {
            write!(
                f,
                "; `[limits] sessions` is {sessions_max}: lower it, or raise `LimitNOFILE` and \
                 `net.ipv4.ip_local_port_range`"
            )?;
        }
        Ok(())
    }
}

/// At most the descriptors of a gateway without sessions.
fn used(settings: &GatewayConfig, workers: u64) -> u64 {
    let listeners = settings.listens.iter().map(|listen| match listen.ingress {
        // With a duplicate of each for an upgrade.
        ListenIngress::Udp { .. } => 2 * listen.sockets().count() as u64 * workers,
        // Socket and duplicates, event loop and waker; a ring to and from each worker.
        ListenIngress::Quic { .. } => 5 + 2 * workers,
    });
    let nodes = settings.nodes.iter().map(|node| {
        let is_trunk = matches!(node.driver, DriverSettings::Agent { .. });
        PER_NODE + if is_trunk { 2 * workers } else { 0 }
    });
    // Each worker has an event loop, a waker, and a ring from each other worker.
    BASE + workers * (workers + 1) + listeners.sum::<u64>() + nodes.sum::<u64>()
}

/// The number of ports that the kernel assigns. An unreadable range does not limit the number of sessions.
fn local_ports() -> u64 {
    let range = std::fs::read_to_string(LOCAL_PORTS).unwrap_or_default();
    let mut ends = range.split_whitespace().filter_map(|end| end.parse::<u64>().ok());
    match (ends.next(), ends.next()) {
        (Some(first), Some(last)) => (last + 1).saturating_sub(first),
        _ => u64::from(u16::MAX),
    }
}

#[cfg(test)]
mod tests;
