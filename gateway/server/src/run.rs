//! Puts the gateway together: sockets, threads, and who speaks with whom.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use evenkeel_core::{Entry, EntryKind, Gateway, Hook, PolicyName};
use evenkeel_media::trunk::message::Secret;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{broadcast, mpsc};

use crate::control::{
    self, Driver, Drivers, EVENTS_MAX, Family, Handle, Homes, ProbeWay, QuicListener, REQUESTS_MAX,
    UdpListener, WorkerLine,
};
use crate::flows::Flows;
use crate::policy::{self, Policies, Source};
use crate::settings::{self, Ingress, Plugin, Settings};
use crate::worker::{self, Bell, ListenerParts, Stamps, Worker};
use crate::{quic, ring};

/// Packets between two threads that may wait: 20 ms at 100,000 packets a second.
const RING_SLOTS: usize = 2_048;

/// Reports to control that may wait; what does not fit is told again or counts for little.
const REPORTS_MAX: usize = 16_384;

/// Answers of policies that may wait.
const WORDS_MAX: usize = 1_024;

/// Keys a session may have in the flow table: RTP, RTCP, a user fragment, addresses that passed a check.
const KEYS_PER_SESSION: usize = 8;

/// Bytes that a socket may hold for us: 20 ms of a busy port. The kernel takes less where its limit is lower.
const SOCKET_BUFFER: usize = 4 << 20;

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A listener's address cannot be used.
    #[error(
        "cannot listen on {address}: {error}; is another gateway running, or the address not of this machine?"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
    /// The QUIC endpoint did not start.
    #[error(transparent)]
    Quic(#[from] quic::Failure),
    /// A node cannot be reached from here at all.
    #[error("node {node} at {address} cannot be reached from this machine: {error}")]
    Node {
        /// Its name.
        node: Box<str>,
        /// Its address.
        address: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
    /// A node's secret is too short.
    #[error("the secret of node {node} is too short: at least 16 bytes are needed")]
    Secret {
        /// Its name.
        node: Box<str>,
    },
    /// A policy of the configuration does not run.
    #[error("policy {policy}: {reason}")]
    Policy {
        /// The policy.
        policy: PolicyName,
        /// Why.
        reason: Box<str>,
    },
    /// The system gave no thread or no descriptor.
    #[error("the system gave no thread or descriptor: {0}")]
    System(#[from] std::io::Error),
}

/// A gateway that runs.
#[derive(Debug)]
pub struct Running {
    /// Speaks with its control.
    pub handle: Handle,
    /// Where UDP clients reach it, listener by listener.
    pub udp: Vec<SocketAddr>,
    /// Where QUIC clients reach it.
    pub quic: Option<SocketAddr>,
    control: Option<std::thread::JoinHandle<()>>,
    workers: Vec<std::thread::JoinHandle<()>>,
    quic_thread: Option<quic::Thread>,
}

impl Running {
    /// Waits for the end of a gateway that was told to shut down, and ends its threads.
    pub fn join(mut self) {
        self.control.take().map(std::thread::JoinHandle::join);
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
        if let Some(quic) = self.quic_thread.take() {
            quic.shut_down();
        }
    }
}

/// Starts a gateway. It forwards as soon as this returns.
///
/// # Errors
/// Why it did not start; nothing is left running then.
pub fn start(settings: &Arc<Settings>) -> Result<Running, Failure> {
    let core = settings.core();
    let workers_count = settings.limits.workers.map_or_else(default_workers, usize::from);
    let flows = Arc::new(Flows::new(settings.limits.sessions as usize * KEYS_PER_SESSION));
    let (reports_in, reports) = mpsc::channel(REPORTS_MAX);
    let (words_in, words) = mpsc::channel(WORDS_MAX);
    let (requests_in, requests) = mpsc::channel(REQUESTS_MAX);
    let (events, _) = broadcast::channel(EVENTS_MAX);

    // What may be wrong with the configuration shows before a thread or a socket is there.
    let policies = policies(settings, &core, words_in)?;
    let (drivers, probes) = (Drivers::new(drivers(settings)?), probes(settings)?);
    let (udp, mut listeners) = listeners(settings, workers_count)?;
    let started = Instant::now();
    let gateway = Gateway::new(core, started);
    let board = gateway.board();
    let (quic_thread, mut quic_rings) = quic(settings, &flows, workers_count)?;
    let mut rings = rings_between(workers_count)?;
    let mut lines = Vec::new();
    let mut threads = Vec::new();
    for number in 0..workers_count {
        let (commands_in, commands) = crossbeam_channel::bounded(worker::COMMANDS_MAX);
        let bell = Arc::new(Bell::new()?);
        let stamps = Arc::new(Stamps::new(started, settings.nodes.len()));
        let (from_quic, to_quic) =
            quic_rings.pop().map_or((None, None), |(from, to)| (Some(from), Some(to)));
        let (from_workers, to_workers) = rings.remove(0);
        let worker = Worker::new(
            worker::Parts {
                number: number as u16,
                listeners: listeners.remove(0),
                trunks: trunks(settings)?,
                from_quic,
                to_quic,
                from_workers,
                to_workers,
                commands,
                bell: Arc::clone(&bell),
                reports: reports_in.clone(),
                stamps: Arc::clone(&stamps),
                flows: Arc::clone(&flows),
                board: Arc::clone(&board),
                misses_per_prefix: settings.limits.misses_per_prefix,
                patience: worker::Patience {
                    packets: usize::from(settings.limits.early_packets),
                    wait: settings.limits.early_for,
                },
            },
            started,
        )?;
        let thread =
            std::thread::Builder::new().name(format!("packets-{number}")).spawn(move || {
                if let Err(error) = worker.run() {
                    tracing::error!(%error, number, "a packet worker ended");
                }
            })?;
        threads.push(thread);
        lines.push(WorkerLine { commands: commands_in, bell, stamps });
    }

    let homes = Homes::new(
        udp.clone(),
        quic_thread.as_ref().map(|quic| QuicListener {
            address: advertised_quic(settings, quic.address),
            certificate_sha256: quic.certificate_sha256,
        }),
        Arc::clone(&flows),
        port_legs(settings),
        workers_count,
    );
    let parts = control::Parts {
        gateway,
        workers: lines,
        homes,
        drivers,
        probes,
        policies,
        requests,
        reports,
        words,
        events: events.clone(),
        quic_counters: quic_thread.as_ref().map(|quic| Arc::clone(&quic.counters)),
        started,
        settings: Arc::clone(settings),
    };
    let control = std::thread::Builder::new().name("control".into()).spawn(move || {
        if let Err(error) = control::run(parts) {
            tracing::error!(%error, "control ended");
        }
    })?;
    Ok(Running {
        handle: Handle { requests: requests_in, events },
        udp: udp.iter().map(|listener| listener.address).collect(),
        quic: quic_thread.as_ref().map(|quic| advertised_quic(settings, quic.address)),
        control: Some(control),
        workers: threads,
        quic_thread,
    })
}

/// One core is left to control and to the QUIC endpoint.
fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().saturating_sub(1).max(1))
}

/// The UDP listeners as clients reach them, and each worker's sockets for them.
fn listeners(
    settings: &Settings,
    workers: usize,
) -> Result<(Vec<UdpListener>, Vec<Vec<ListenerParts>>), Failure> {
    let mut reached = Vec::new();
    let mut parts: Vec<Vec<ListenerParts>> = (0..workers).map(|_| Vec::new()).collect();
    for listen in &settings.listens {
        let Ingress::Udp { identities, open, rtcp } = &listen.ingress else {
            continue;
        };
        let mut bound = listen.address;
        let mut bound_rtcp = match rtcp {
            settings::Rtcp::Mux => None,
            settings::Rtcp::Own(port) => Some(SocketAddr::new(listen.address.ip(), *port)),
        };
        for address in std::iter::once(&bound).chain(&bound_rtcp) {
            require_free(*address)?;
        }
        for worker in &mut parts {
            let rtp = shared_socket(&mut bound)?;
            let rtcp = bound_rtcp.as_mut().map(shared_socket).transpose()?;
            worker.push(ListenerParts { rtp, rtcp, open: open.is_some() });
        }
        let takes = |identity| identities.contains(&identity);
        reached.push(UdpListener {
            address: advertised(listen.advertise, bound),
            rtcp: bound_rtcp.map(|rtcp| {
                advertised(listen.advertise.map(|at| (at.ip(), rtcp.port()).into()), rtcp)
            }),
            bound,
            declared: takes(settings::Identity::Declared),
            declared_ip: takes(settings::Identity::DeclaredIp),
            stun: takes(settings::Identity::Stun),
            open: open.clone(),
        });
    }
    Ok((reached, parts))
}

/// What clients are told: what the configuration names, port 0 being the one listened on.
fn advertised(named: Option<SocketAddr>, bound: SocketAddr) -> SocketAddr {
    match named {
        Some(named) if named.port() == 0 => SocketAddr::new(named.ip(), bound.port()),
        Some(named) => named,
        None => bound,
    }
}

fn advertised_quic(settings: &Settings, bound: SocketAddr) -> SocketAddr {
    let named =
        settings.listens.iter().find(|listen| matches!(listen.ingress, Ingress::Quic { .. }));
    advertised(named.and_then(|listen| listen.advertise), bound)
}

/// Sockets that share a port share it with another gateway of the same user as well, and each would get a part of
/// everybody's packets: one that does not share finds out.
fn require_free(address: SocketAddr) -> Result<(), Failure> {
    let listen = |error| Failure::Listen { address, error };
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))
        .map_err(listen)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false).map_err(listen)?;
    }
    socket.bind(&address.into()).map_err(listen)
}

/// A socket that shares its port with those of other workers. The first settles a port that was left open.
fn shared_socket(address: &mut SocketAddr) -> Result<UdpSocket, Failure> {
    let listen = |error| Failure::Listen { address: *address, error };
    let socket = Socket::new(Domain::for_address(*address), Type::DGRAM, Some(Protocol::UDP))
        .map_err(listen)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false).map_err(listen)?;
    }
    socket.set_reuse_port(true).map_err(listen)?;
    socket.set_nonblocking(true).map_err(listen)?;
    // More is better, and less is no reason not to run.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.bind(&(*address).into()).map_err(listen)?;
    let socket = UdpSocket::from(socket);
    *address = socket.local_addr()?;
    Ok(socket)
}

type QuicRings = Vec<(ring::Receiver, ring::Sender)>;

/// The QUIC endpoint, if one is configured, and for each worker a ring from it and one to it.
fn quic(
    settings: &Settings,
    flows: &Arc<Flows>,
    workers: usize,
) -> Result<(Option<quic::Thread>, QuicRings), Failure> {
    let listen = settings.listens.iter().find_map(|listen| match &listen.ingress {
        Ingress::Quic { certificate } => Some((listen.address, certificate)),
        Ingress::Udp { .. } => None,
    });
    let Some((address, certificate)) = listen else {
        return Ok((None, Vec::new()));
    };
    let mut quic_settings = quic::Settings::at(address);
    if let Some(files) = certificate {
        quic_settings.certificate =
            quic::Certificate::Files { chain: files.chain.clone(), key: files.key.clone() };
    }
    let (mut to_workers, mut from_workers, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..workers {
        let (to_worker, from_quic) = ring::channel(RING_SLOTS)?;
        let (to_quic, from_worker) = ring::channel(RING_SLOTS)?;
        to_workers.push(to_worker);
        from_workers.push(from_worker);
        ends.push((from_quic, to_quic));
    }
    // Workers take theirs from the end.
    ends.reverse();
    let thread = quic::start(quic_settings, Arc::clone(flows), to_workers, from_workers)?;
    Ok((Some(thread), ends))
}

type WorkerRings = Vec<(Vec<ring::Receiver>, Vec<Option<ring::Sender>>)>;

/// For each worker: rings from all others, and to each other by its number.
fn rings_between(workers: usize) -> Result<WorkerRings, Failure> {
    let mut ends: WorkerRings =
        (0..workers).map(|_| (Vec::new(), (0..workers).map(|_| None).collect())).collect();
    for from in 0..workers {
        for to in (0..workers).filter(|to| *to != from) {
            let (sender, receiver) = ring::channel(RING_SLOTS)?;
            ends[from].1[to] = Some(sender);
            ends[to].0.push(receiver);
        }
    }
    Ok(ends)
}

/// One connected socket per node with trunk legs.
fn trunks(settings: &Settings) -> Result<Vec<Option<UdpSocket>>, Failure> {
    // A bundle carries packets of every kind; it travels as the most urgent of them does.
    let scenarios = settings.sets.iter().flat_map(|set| &set.scenarios);
    let dscp =
        scenarios.map(|scenario| scenario.dscp.voice.max(scenario.dscp.video)).max().unwrap_or(0);
    settings.nodes.iter().map(|node| trunk(node, dscp)).collect()
}

fn trunk(node: &settings::Node, dscp: u8) -> Result<Option<UdpSocket>, Failure> {
    if matches!(node.driver, settings::Driver::Plain { .. }) {
        return Ok(None);
    }
    let connect = || -> std::io::Result<UdpSocket> {
        let socket =
            Socket::new(Domain::for_address(node.address), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
        let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
        // The traffic class holds the code point in its upper six bits (RFC 2474, 3).
        let class = u32::from(dscp) << 2;
        if node.address.is_ipv4() {
            socket.set_tos_v4(class)?;
        } else {
            socket.set_tclass_v6(class)?;
        }
        socket.connect(&node.address.into())?;
        Ok(socket.into())
    };
    let unreachable =
        |error| Failure::Node { node: (*node.name).into(), address: node.address, error };
    connect().map(Some).map_err(unreachable)
}

/// The kind of addresses of nodes with port legs.
fn port_legs(settings: &Settings) -> Option<Family> {
    let plain = |node: &&settings::Node| matches!(node.driver, settings::Driver::Plain { .. });
    let mut addresses = settings.nodes.iter().filter(plain).map(|node| node.address);
    let first = addresses.next()?;
    let v6 = first.is_ipv6() || addresses.any(|address| address.is_ipv6());
    Some(if v6 { Family::V6 } else { Family::V4 })
}

fn secret(node: &settings::Node, secret: &settings::Secret) -> Result<Secret, Failure> {
    Secret::new(secret.bytes()).map_err(|_| Failure::Secret { node: (*node.name).into() })
}

fn drivers(settings: &Settings) -> Result<Vec<Driver>, Failure> {
    let driver = |node: &settings::Node| match &node.driver {
        settings::Driver::Plain { .. } => Ok(Driver::Plain(node.address)),
        settings::Driver::Agent { secret: shared } => Ok(Driver::Agent(secret(node, shared)?)),
    };
    settings.nodes.iter().map(driver).collect()
}

fn probes(settings: &Settings) -> Result<Vec<Option<(SocketAddr, ProbeWay)>>, Failure> {
    let way = |node: &settings::Node| {
        Ok(match &node.driver {
            settings::Driver::Plain { probe: settings::Probe::None } => None,
            settings::Driver::Plain { probe: settings::Probe::Stun } => {
                Some((node.address, ProbeWay::Stun))
            }
            settings::Driver::Plain { probe: settings::Probe::Echo } => {
                Some((node.address, ProbeWay::Echo))
            }
            settings::Driver::Agent { secret: shared } => {
                Some((node.address, ProbeWay::Signed(secret(node, shared)?)))
            }
        })
    };
    settings.nodes.iter().map(way).collect()
}

/// Starts every policy of the configuration and puts its first revision in force: a gateway does not start with a
/// policy that does not run.
fn policies(
    settings: &Settings,
    core: &evenkeel_core::Settings,
    words: mpsc::Sender<policy::Word>,
) -> Result<Policies, Failure> {
    let mut policies = Policies::new(catalog(core), words);
    for set in &settings.sets {
        for hook in Hook::ALL {
            let Some(binding) = set.binding(hook) else {
                continue;
            };
            let policy = PolicyName { set: set.name.clone(), hook };
            let failed =
                |reason: String| Failure::Policy { policy: policy.clone(), reason: reason.into() };
            let source = source(&binding.plugin, binding.settings.clone()).map_err(failed)?;
            policies.start(policy.clone())?;
            let workshop =
                policies.workshop(&policy).ok_or_else(|| failed("it was not started".into()))?;
            let rollout = policy::prepare(&workshop, source);
            if let Some(reason) = rollout.reason {
                return Err(Failure::Policy { policy: policy.clone(), reason });
            }
        }
    }
    Ok(policies)
}

/// Has a binding's plugin take its settings; what is wrong, at its place in the file.
pub(crate) fn try_binding(
    engine: &evenkeel_host::Engine,
    settings: &Settings,
    binding: &settings::Binding,
) -> Result<(), Box<settings::Invalid>> {
    use evenkeel_host::Refused;
    let at_plugin =
        |found: String| Box::new(binding.invalid("plugin", found, "a plugin that runs"));
    let source = source(&binding.plugin, binding.settings.clone()).map_err(at_plugin)?;
    let component = evenkeel_host::Component::vet(engine, &source.bytes)
        .map_err(|refused| at_plugin(refused.to_string()))?;
    let catalog = catalog(&settings.core());
    evenkeel_host::Policy::install(
        engine,
        &component,
        binding.hook,
        source.settings,
        catalog,
        source.seed,
    )
    .map(drop)
    .map_err(|refused| match refused {
        Refused::Setting { path, expected, found } => {
            Box::new(binding.invalid(path.trim_start_matches("$."), found, expected))
        }
        refused => at_plugin(refused.to_string()),
    })
}

/// A plugin's bytes, from the binary or from its file.
pub(crate) fn source(plugin: &Plugin, settings: serde_json::Value) -> Result<Source, String> {
    let (bytes, origin) = match plugin {
        Plugin::Shipped(name) => {
            let shipped = evenkeel_host::shipped().iter().find(|shipped| shipped.name == *name);
            let shipped = shipped.ok_or_else(|| format!("no plugin {name} is in this binary"))?;
            (shipped.bytes.to_vec(), "embedded".to_owned())
        }
        Plugin::File(path) => {
            let bytes = std::fs::read(path)
                .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
            (bytes, path.display().to_string())
        }
    };
    Ok(Source { bytes, settings, origin: origin.into(), seed: fastrand::u64(..) })
}

/// Everything that questions speak of by number, with its name.
fn catalog(core: &evenkeel_core::Settings) -> Vec<Entry> {
    let entry = |kind, id: usize, parent: u32, name: &str| Entry {
        kind,
        id: id as u64,
        parent: u64::from(parent),
        name: name.into(),
        labels: Vec::new(),
    };
    let regions =
        core.regions.iter().enumerate().map(|(id, name)| entry(EntryKind::Region, id, 0, name));
    let zones = core
        .zones
        .iter()
        .enumerate()
        .map(|(id, zone)| entry(EntryKind::Zone, id, zone.region.0, &zone.name));
    let nodes = core
        .nodes
        .iter()
        .enumerate()
        .map(|(id, node)| entry(EntryKind::Node, id, node.zone.0, &node.name));
    let home = &core.regions[core.home.0 as usize];
    regions
        .chain(zones)
        .chain(nodes)
        .chain([entry(EntryKind::Home, 0, core.home.0, home)])
        .collect()
}

/// Whether anything but policy sets differs: that needs a restart.
pub(crate) fn differs_beyond_policies(old: &Settings, new: &Settings) -> bool {
    let scenarios = |settings: &Settings| settings.core().scenarios;
    old.gateway != new.gateway
        || old.listens != new.listens
        || old.regions != new.regions
        || old.nodes != new.nodes
        || old.admin != new.admin
        || old.telemetry != new.telemetry
        || old.limits != new.limits
        || old.detector != new.detector
        || scenarios(old) != scenarios(new)
}

/// The bindings that differ between two settings, or whose plugin's file changed: what a reload rolls out.
pub(crate) fn changed_bindings(
    old: &Settings,
    new: &Settings,
    changed: &BTreeSet<PathBuf>,
) -> BTreeMap<PolicyName, settings::Binding> {
    let bindings = |settings: &Settings| -> BTreeMap<PolicyName, settings::Binding> {
        let of_set = |set: &settings::PolicySet| {
            let name = set.name.clone();
            set.bindings
                .clone()
                .into_iter()
                .map(move |binding| (PolicyName { set: name.clone(), hook: binding.hook }, binding))
        };
        settings.sets.iter().flat_map(of_set).collect()
    };
    let standing = bindings(old);
    bindings(new)
        .into_iter()
        .filter(|(name, binding)| {
            let rebuilt = matches!(&binding.plugin, Plugin::File(path) if changed.contains(path));
            let differs = |old: &settings::Binding| {
                old.plugin != binding.plugin || old.settings != binding.settings
            };
            rebuilt || standing.get(name).is_none_or(differs)
        })
        .collect()
}
