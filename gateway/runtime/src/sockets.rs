//! Sockets of clients, and rings between threads.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;

use evenkeel_config::{AdvertisedAddress, GatewayConfig, ListenIngress};
use evenkeel_control::{
    Equipment, Inherited, ListenerAddress, ListenerAddresses, NamedSockets, SOCKET_BUFFER,
    SocketName, UdpListener, equip,
};
use evenkeel_dataplane::client_probes::ClientProbes;
use evenkeel_dataplane::flows::Flows;
use evenkeel_dataplane::worker::ListenerParts;
use evenkeel_dataplane::{SendLease, buffers, freebind, quic, ring};
use socket2::{Domain, Protocol, Socket, Type};

use super::threads::RunError;

/// Packets in a ring: 20 ms at 100,000 packets a second.
const RING_SLOTS: usize = 2_048;

/// The sockets that a gateway opens at its start. Opening them may need capabilities (ports below 1024, buffers beyond the
/// system's limit), so they are opened before a process gives these up.
pub struct Sockets {
    /// Equipment of the configured nodes, by number.
    pub(super) equipment: Vec<Equipment>,
    pub(super) udp: Vec<UdpListener>,
    /// Each worker's sockets for the UDP listeners.
    pub(super) listeners: Vec<Vec<ListenerParts>>,
    pub(super) quic: Option<quic::BoundQuicSocket>,
    pub(super) duplicates: NamedSockets,
}

impl Sockets {
    pub(crate) fn open(settings: &GatewayConfig) -> Result<Sockets, RunError> {
        Sockets::inherit(settings, &mut Inherited::default())
    }

    /// Takes the sockets of the process that this one replaces, and opens others.
    pub fn inherit(
        settings: &GatewayConfig,
        inherited: &mut Inherited,
    ) -> Result<Sockets, RunError> {
        let count = settings.workers();
        // Configuration errors show before a socket exists.
        let equipment = settings.nodes.iter().map(|node| equip(settings, node, count, inherited));
        let equipment = equipment.collect::<Result<_, _>>()?;
        let mut duplicates = NamedSockets::new();
        let (udp, listeners) = listeners(settings, count, inherited, &mut duplicates)?;
        let quic = quic_listener(settings, inherited)?;
        Ok(Sockets { equipment, udp, listeners, quic, duplicates })
    }
}

/// The addresses of the UDP listeners, and each worker's sockets for them.
fn listeners(
    settings: &GatewayConfig,
    workers: usize,
    inherited: &mut Inherited,
    duplicates: &mut NamedSockets,
) -> Result<(Vec<UdpListener>, Vec<Vec<ListenerParts>>), RunError> {
    let mut open =
        |name: SocketName, bound: &mut SocketAddr, turn| -> Result<UdpSocket, RunError> {
            let socket = match inherited.take(&name).map(UdpSocket::from) {
                Some(socket) => {
                    *bound = socket.local_addr()?;
                    socket
                }
                None => shared_socket(bound, turn, is_group_address(settings, bound.ip()))?,
            };
            duplicates.push((name, socket.as_fd().try_clone_to_owned()?));
            Ok(socket)
        };
    let mut reached = Vec::new();
    let mut parts: Vec<Vec<ListenerParts>> = (0..workers).map(|_| Vec::new()).collect();
    for listen in &settings.listens {
        let ListenIngress::Udp { identities, open: scenario, rtcp } = &listen.ingress else {
            continue;
        };
        let mut bound = listen.address;
        let rtcp = rtcp.map(|port| SocketAddr::new(listen.address.ip(), port));
        let mut bound_rtcp = rtcp;
        for (number, parts) in parts.iter_mut().enumerate() {
            let turn = if number == 0 { BindPass::First } else { BindPass::Later };
            let name = SocketName::Rtp { address: listen.address, worker: number };
            let rtp_socket = open(name, &mut bound, turn)?;
            let rtcp_socket = rtcp.zip(bound_rtcp.as_mut()).map(|(address, bound)| {
                open(SocketName::Rtcp { address, worker: number }, bound, turn)
            });
            let rtcp_socket = rtcp_socket.transpose()?;
            let open = scenario.is_some();
            parts.push(ListenerParts { rtp: rtp_socket, rtcp: rtcp_socket, open });
        }
        let takes = |identity| identities.contains(&identity);
        reached.push(UdpListener {
            addresses: advertised(&listen.advertise, bound, bound_rtcp),
            bound,
            declared: takes(evenkeel_config::ListenIdentity::Declared),
            declared_ip: takes(evenkeel_config::ListenIdentity::DeclaredIp),
            stun: takes(evenkeel_config::ListenIdentity::Stun),
            open: scenario.clone(),
        });
    }
    Ok((reached, parts))
}

/// The addresses announced to clients. Port 0 in the configuration means the port listened on.
fn advertised(
    named: &[AdvertisedAddress],
    bound: SocketAddr,
    bound_rtcp: Option<SocketAddr>,
) -> ListenerAddresses {
    let mut addresses = named.iter().map(|AdvertisedAddress { address, carrier }| {
        let at = |port| SocketAddr::new(address.ip(), port);
        ListenerAddress {
            rtp: if address.port() == 0 { at(bound.port()) } else { *address },
            rtcp: bound_rtcp.map(|rtcp| at(rtcp.port())),
            carrier: carrier.clone(),
        }
    });
    let as_bound = || ListenerAddress { rtp: bound, rtcp: bound_rtcp, carrier: None };
    ListenerAddresses {
        default: addresses.next().unwrap_or_else(as_bound),
        others: addresses.collect(),
    }
}

pub(super) fn advertised_quic(settings: &GatewayConfig, bound: SocketAddr) -> ListenerAddresses {
    let quic =
        settings.listens.iter().find(|listen| matches!(listen.ingress, ListenIngress::Quic { .. }));
    advertised(quic.map_or(&[][..], |listen| &listen.advertise[..]), bound, None)
}

/// True if the address is of the group: its owner may be the other member.
fn is_group_address(settings: &GatewayConfig, address: IpAddr) -> bool {
    let mut group = settings.cluster.iter().flat_map(|cluster| &cluster.addresses);
    group.any(|of_group| of_group.address == address)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum BindPass {
    /// The worker that binds first and chooses a port left open.
    First,
    /// A worker that shares the port.
    Later,
}

/// Binds a socket that shares its port with other workers, but not with another gateway.
///
/// The kernel lets all sockets of a user share a port if each allows it when it is bound, even a port that the kernel
/// chose: another gateway would then receive a part of the packets. So the first socket is bound exclusively, which
/// proves the port free, and allows sharing afterwards.
///
/// `moves`: the address may be another host's.
fn shared_socket(
    address: &mut SocketAddr,
    turn: BindPass,
    moves: bool,
) -> Result<UdpSocket, RunError> {
    let listen = |error| RunError::Listen { address: *address, error };
    let socket = Socket::new(Domain::for_address(*address), Type::DGRAM, Some(Protocol::UDP))
        .map_err(listen)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false).map_err(listen)?;
    }
    if moves {
        freebind::allow(&socket, *address).map_err(listen)?;
    }
    socket.set_reuse_port(turn == BindPass::Later).map_err(listen)?;
    socket.set_nonblocking(true).map_err(listen)?;
    buffers::set_sizes(&socket, SOCKET_BUFFER);
    socket.bind(&(*address).into()).map_err(listen)?;
    socket.set_reuse_port(true).map_err(listen)?;
    let socket = UdpSocket::from(socket);
    *address = socket.local_addr()?;
    Ok(socket)
}

pub(super) type QuicRings = Vec<(ring::Receiver, ring::RingSender)>;

fn quic_listen(
    settings: &GatewayConfig,
) -> Option<(SocketAddr, &Option<evenkeel_config::CertificateFiles>)> {
    settings.listens.iter().find_map(|listen| match &listen.ingress {
        ListenIngress::Quic { certificate } => Some((listen.address, certificate)),
        ListenIngress::Udp { .. } => None,
    })
}

pub(super) fn quic_address(settings: &GatewayConfig) -> Option<SocketAddr> {
    quic_listen(settings).map(|(address, _)| address)
}

fn quic_listener(
    settings: &GatewayConfig,
    inherited: &mut Inherited,
) -> Result<Option<quic::BoundQuicSocket>, quic::QuicStartError> {
    let Some((address, certificate)) = quic_listen(settings) else {
        return Ok(None);
    };
    let mut quic_settings = quic::QuicSettings::at(address);
    quic_settings.moves = is_group_address(settings, address.ip());
    quic_settings.gather = settings.limits.batch_delay;
    quic_settings.connections_max = settings.limits.connections_max as usize;
    quic_settings.connections_per_source = settings.limits.connections_per_source as usize;
    if let Some(files) = certificate {
        quic_settings.certificate =
            quic::CertificateSource::Files { chain: files.chain.clone(), key: files.key.clone() };
    }
    let name = SocketName::Quic { address };
    let (socket, identity) = inherited.take(&name).zip(inherited.take_quic_identity()).unzip();
    let of_group = || {
        let cluster = settings.cluster.as_ref()?;
        Some(quic::EndpointIdentity::of_secret(cluster.secrets[0].bytes()))
    };
    let identity = identity.or_else(of_group);
    quic::listen(quic_settings, socket.map(Into::into), identity).map(Some)
}

/// True if the QUIC listener makes its certificates itself.
pub(super) fn is_self_made(settings: &GatewayConfig) -> bool {
    matches!(quic_listen(settings), Some((_, None)))
}

/// The QUIC endpoint, if it has a socket, and each worker's rings to and from it. A suspended endpoint reads nothing.
pub(super) fn quic(
    listener: Option<quic::BoundQuicSocket>,
    short_lived: Option<Arc<quic::ShortLivedCertificates>>,
    flows: &Arc<Flows>,
    probes: &Arc<ClientProbes>,
    workers: usize,
    suspended: bool,
    lease: &Arc<SendLease>,
) -> Result<(Option<quic::QuicThread>, QuicRings), RunError> {
    let Some(listener) = listener else {
        return Ok((None, Vec::new()));
    };
    let (mut to_workers, mut from_workers, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..workers {
        let (to_worker, from_quic) = ring::channel(RING_SLOTS)?;
        let (to_quic, from_worker) = ring::channel(RING_SLOTS)?;
        to_workers.push(to_worker);
        from_workers.push(from_worker);
        ends.push((from_quic, to_quic));
    }
    // Workers take their rings from the end of the list.
    ends.reverse();
    let thread = quic::start(
        listener,
        Arc::clone(flows),
        Arc::clone(probes),
        to_workers,
        from_workers,
        Arc::clone(lease),
        short_lived,
        suspended,
    )?;
    Ok((Some(thread), ends))
}

pub(super) type WorkerRings = Vec<(Vec<ring::Receiver>, Vec<Option<ring::RingSender>>)>;

/// For each worker: rings from all others, and rings to the others by their number.
pub(super) fn rings_between(workers: usize) -> Result<WorkerRings, RunError> {
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

#[cfg(test)]
mod tests;
