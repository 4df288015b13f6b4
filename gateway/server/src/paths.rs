//! The files that a gateway serves from: reads and checks them, for a start, a reload and `evenkeel check`.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use evenkeel_api::{ApiStartError, WebrtcCertificate, WebrtcCertificateError};
use evenkeel_config::{
    AddressPlace, Colour, Compiler, GatewayConfig, InvalidSetting, ListenIngress, ListenSettings,
    NodeConfig,
};
use evenkeel_handover::SuccessorProgram;
use evenkeel_policies::{Foundry, PluginSource};
use evenkeel_process::descriptors::{self, reserve};
use evenkeel_process::host::INTERFACES;
use evenkeel_runtime::UpgradeBuffer;
use nix::ifaddrs::getifaddrs;
use tokio::runtime::Builder;

/// Descriptors that do not depend on the configuration: standard streams, event loops, the API's sockets, watched files.
const BASE: u64 = 64;

/// Sockets of a node beside its trunks: probe, agent, canary or control port.
const PER_NODE: u64 = 3;

/// The kernel's default range has 28,232 ports.
const LOCAL_PORTS: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// The gateway did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration has these faults.
    #[error("invalid configuration")]
    Invalid(Vec<InvalidSetting>),
    /// `[index]` is configured, and the binary has no store.
    #[error(
        "[index] needs NATS, which this `evenkeel` is built without; build it with the cargo feature `nats`, or remove the table"
    )]
    NoStore,
    /// A thread or socket of the gateway failed to start.
    #[error(transparent)]
    Start(#[from] evenkeel_runtime::RunError),
    /// A thread ended.
    #[error(transparent)]
    Ended(#[from] evenkeel_runtime::EndedThread),
    /// The API cannot be served.
    #[error(transparent)]
    Api(#[from] ApiStartError),
    /// Clients refuse the certificate of WHIP and WHEP; the reason.
    #[error("[webrtc]: {0}")]
    Certificate(String),
    /// An exporter cannot be set up.
    #[error("telemetry: {0}")]
    Telemetry(String),
    /// The old process did not hand over.
    #[error("upgrade: {0}")]
    Upgrade(String),
    /// The group cannot be joined.
    #[error(transparent)]
    Group(#[from] evenkeel_group::ClusterStartError),
    /// The member ended.
    #[error("{0}")]
    Lost(evenkeel_group::MemberEnd),
    /// The exit status of the process that replaced this one.
    #[error("the process that served after an upgrade ended with status {0}")]
    Successor(i32),
    /// The system gives no event loop.
    #[error("cannot create the event loop: {0}")]
    System(#[from] std::io::Error),
}

/// The files that a gateway serves from.
#[derive(Clone, Default, Debug)]
pub struct ServePaths {
    /// The configuration file; without it the gateway listens on loopback.
    pub config: Option<PathBuf>,
    /// The folder of policy sets. Default: the folder that the configuration names, and the shipped sets.
    pub policies: Option<PathBuf>,
    /// Compiles pushed plugins; without it they are compiled in this process.
    pub compiler: Option<Compiler>,
    /// Started by an upgrade; without it the gateway cannot be upgraded.
    pub program: Option<SuccessorProgram>,
    /// Take over from the gateway at standard input.
    pub inherit: bool,
}

impl ServePaths {
    /// Reads and checks the configuration.
    pub(crate) fn load(&self) -> Result<GatewayConfig, ServeError> {
        let drivers = evenkeel_drivers::kinds(evenkeel_drivers::DRIVERS);
        let (config, policies) = (self.config.as_deref(), self.policies.as_deref());
        let settings = GatewayConfig::load(config, policies, &drivers);
        let settings = settings.map_err(ServeError::Invalid)?;
        if settings.index.is_some() && !evenkeel_index::HAS_STORE {
            return Err(ServeError::NoStore);
        }
        Ok(GatewayConfig { compiler: self.compiler.clone(), ..settings })
    }

    /// Reads and checks the configuration, and pulls plugins of registries that the cache lacks.
    pub(crate) async fn load_with_plugins(&self) -> Result<GatewayConfig, ServeError> {
        let mut settings = self.load()?;
        evenkeel_registry::pull_bindings(&mut settings).await.map_err(ServeError::Invalid)?;
        Ok(settings)
    }

    /// Reads and checks the configuration and applies each plugin's settings, without starting the gateway. Returns
    /// notes for the operator.
    pub fn check(&self) -> Result<Vec<String>, ServeError> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let settings = runtime.block_on(self.load_with_plugins())?;
        let now = SystemTime::now();
        let certificate = webrtc_certificate(&settings).transpose().map_err(ApiStartError::from)?;
        if let Some(reason) = certificate.as_ref().and_then(|it| it.refused(now)) {
            return Err(ServeError::Certificate(reason));
        }
        let foundry = Foundry::of(evenkeel_host::Engine::new(), &settings);
        let invalid: Vec<InvalidSetting> = settings
            .bindings()
            .filter_map(|(_, binding)| {
                let source = match PluginSource::read(binding) {
                    Ok(source) => source,
                    Err(invalid) => return Some(*invalid),
                };
                let tried = evenkeel_policies::try_out(&foundry, &settings, binding, &source);
                tried.err().map(|refused| binding.refused(&refused))
            })
            .collect();
        if !invalid.is_empty() {
            return Err(ServeError::Invalid(invalid));
        }
        let mut notes = settings.notes();
        notes.extend(certificate.map(|it| it.summary(now)));
        notes.extend(missing_on_this_host(&settings));
        notes.extend(unheard_addresses(&settings.listens, &addresses_of_host()));
        notes.extend(settings.zone_reserves());
        notes.push(DescriptorCapacity::of(&settings, descriptors::hard_limit()).to_string());
        notes.push(UpgradeBuffer::granted().to_string());
        Ok(notes)
    }
}

/// The certificate of WHIP and WHEP as the files have it; `None` without one.
fn webrtc_certificate(
    settings: &GatewayConfig,
) -> Option<Result<WebrtcCertificate, WebrtcCertificateError>> {
    WebrtcCertificate::of(settings.webrtc.as_ref()?)
}

/// The reason for which clients would refuse the certificate of WHIP and WHEP, or for which the gateway would not start with it.
pub(crate) fn certificate_fault(settings: &GatewayConfig) -> Option<String> {
    let fault = match webrtc_certificate(settings)? {
        Ok(certificate) => certificate.refused(SystemTime::now())?,
        Err(error) => error.to_string(),
    };
    Some(format!("[webrtc]: {fault}"))
}

/// The interfaces and folders that this host lacks. A configuration may be checked on another one.
fn missing_on_this_host(settings: &GatewayConfig) -> Vec<String> {
    let addresses = settings.cluster.iter().flat_map(|group| &group.addresses);
    let interfaces = addresses.filter_map(|moved| match &moved.place {
        AddressPlace::Interface(name) => Some(name),
        AddressPlace::Hook(_) => None,
    });
    let missing = interfaces.filter(|name| !Path::new(INTERFACES).join(name).exists());
    let mut missing: Vec<String> = missing
        .map(|name| format!("this host has no interface `{name}`, which [[cluster.address]] names"))
        .collect();
    let socket = &settings.admin.socket;
    if let Some(folder) = socket.parent().filter(|it| !it.as_os_str().is_empty() && !it.is_dir()) {
        let folder = folder.display();
        missing.push(format!("this host has no folder `{folder}` for `[admin] socket`"));
    }
    missing
}

/// The addresses of this host's interfaces.
pub(crate) fn addresses_of_host() -> Vec<IpAddr> {
    // Without them no warning is possible.
    let interfaces = getifaddrs().into_iter().flatten();
    let addresses = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|it| IpAddr::from(it.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|it| IpAddr::from(it.ip())))
    });
    addresses.collect()
}

/// Warnings about advertised addresses at which no socket receives: of the other IP version, or another address of this host, which
/// no NAT translates.
pub(crate) fn unheard_addresses(listens: &[ListenSettings], of_host: &[IpAddr]) -> Vec<String> {
    let receives = |listen: &ListenSettings, ip: IpAddr| match listen.address.ip() {
        IpAddr::V4(bound) if bound.is_unspecified() => ip.is_ipv4(),
        IpAddr::V6(bound) if bound.is_unspecified() => true,
        bound => bound == ip,
    };
    let mut warnings = Vec::new();
    for listen in listens {
        let (bound, protocol) = (listen.address, listen.protocol());
        for ip in listen.advertise.iter().map(|advertised| advertised.address.ip()) {
            let mut others = listens.iter().filter(|other| other.protocol() == protocol);
            let is_not_translated = of_host.contains(&ip) || ip.is_ipv4() != bound.is_ipv4();
            if is_not_translated && !others.any(|other| receives(other, ip)) {
                let any = if bound.is_ipv4() && ip.is_ipv4() { "0.0.0.0" } else { "[::]" };
                warnings.push(format!(
                    "[[listen]] {protocol}={bound} advertises {ip}, at which it receives nothing; listen on {any}, or add a [[listen]] for {ip}"
                ));
            }
        }
    }
    warnings
}

impl ServeError {
    /// The failure with all errors of the configuration.
    pub(crate) fn explained(&self) -> String {
        match self {
            ServeError::Invalid(invalid) => {
                format!("{self}\n{}", InvalidSetting::render(invalid, Colour::Plain))
            }
            ServeError::Upgrade(reason) => reason.clone(),
            other => other.to_string(),
        }
    }
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
    let nodes = settings
        .nodes
        .iter()
        .map(|node| PER_NODE + if node.trunk().is_some() { 2 * workers } else { 0 });
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
pub(crate) mod tests;
