//! File descriptors: the limit of the process, the reserve, and the number of sessions that fit.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::{fmt, io};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::run;
use crate::settings::{DriverSettings, GatewayConfig, ListenIngress, NodeConfig};

/// Descriptors that ports of sessions leave free: 256 for connections over TCP that have carried no token, 128 for those
/// that have, 32 for POSTs of webhooks, the others for operators, telemetry, reloads and compilers.
const RESERVED: u64 = 512;

/// Descriptors that do not depend on the configuration: standard streams, event loops, the API's sockets, watched files.
const BASE: u64 = 64;

/// Sockets of a node beside its trunks: probe, agent, canary or control port.
const PER_NODE: u64 = 3;

/// The kernel's default range has 28,232 ports.
const LOCAL_PORTS: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// Above the numbers of other descriptors, unless sessions have thousands of ports.
const EARLY: u64 = 16_384;

/// Raises the soft limit to the hard one, and returns the limit that holds. The soft limit is low for programs that use
/// select(2); the gateway does not.
pub(crate) fn raise_limit() -> u64 {
    let (soft, hard) = limits();
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(error) => {
            tracing::warn!(soft, hard, %error, "soft limit of descriptors not raised");
            soft
        }
    }
}

pub(crate) fn hard_limit() -> u64 {
    limits().1
}

/// The soft and the hard limit.
fn limits() -> (u64, u64) {
    getrlimit(Resource::RLIMIT_NOFILE).expect("the kernel has this limit")
}

/// Returns true if the descriptor is one that ports of sessions leave free. The kernel assigns the lowest free number,
/// so all numbers below it are in use.
pub(crate) fn is_reserved(socket: &impl AsFd) -> bool {
    let number = u64::try_from(socket.as_fd().as_raw_fd()).unwrap_or(0);
    // The limit of a running process may change (prlimit(1)).
    let (soft, _) = limits();
    number >= soft - reserve(soft)
}

/// A duplicate that the kernel closes at once if the process is killed: it closes the highest number first, and spends 10 to
/// 20 ms on one of inotify(7). Until its last duplicate is closed, a socket does not show that its process has ended.
pub(crate) fn closed_early(socket: &impl AsFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(socket, early())?)
}

/// The least number of a descriptor that is closed early.
pub(crate) fn early() -> RawFd {
    let (soft, _) = limits();
    EARLY.min(soft / 2) as RawFd
}

/// A low limit is shared equally between sessions and all else.
fn reserve(limit: u64) -> u64 {
    RESERVED.min(limit / 2)
}

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
            used: used(settings, run::workers(settings) as u64),
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
