//! The listeners, the addresses by which clients reach them, and the answer to a client.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use evenkeel_dataplane::quic::ShortLivedCertificates;
use evenkeel_media::continuity::AnnouncedStreams;

/// The addresses of a listener that clients are told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListenerAddresses {
    /// The preferred address for clients of other carriers than those named, and of none.
    pub default: ListenerAddress,
    /// The address of the default's other IP version, if there is one, and those of other carriers.
    pub others: Vec<ListenerAddress>,
}

/// An address of a listener that clients are told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListenerAddress {
    /// Destination of RTP, or the address of the QUIC endpoint.
    pub rtp: SocketAddr,
    /// Destination of RTCP; `None` without a socket for RTCP.
    pub rtcp: Option<SocketAddr>,
    /// The carrier of the network with the address, if it is named.
    pub carrier: Option<Arc<str>>,
}

impl ListenerAddresses {
    /// All addresses, the default first.
    pub fn iter(&self) -> impl Iterator<Item = &ListenerAddress> {
        std::iter::once(&self.default).chain(&self.others)
    }

    /// The addresses for a client of this carrier, at most one of each IP version, and then one of another carrier, if there is one.
    fn of_client(&self, carrier: Option<&str>) -> impl Iterator<Item = &ListenerAddress> {
        let own = self.iter().find(|address| address.carrier.as_deref() == carrier);
        let own = own.unwrap_or(&self.default);
        let alternate = self.iter().find(|address| address.carrier != own.carrier);
        let of_carrier = self.iter().filter(move |address| address.carrier == own.carrier);
        of_carrier.chain(alternate)
    }

    /// Destinations of RTP of a client of this carrier, best first.
    pub(crate) fn rtp_of_client(&self, carrier: Option<&str>) -> Vec<SocketAddr> {
        self.of_client(carrier).map(|address| address.rtp).collect()
    }

    /// Destinations of RTCP, in the same order.
    pub(super) fn rtcp_of_client(&self, carrier: Option<&str>) -> Vec<SocketAddr> {
        self.of_client(carrier).filter_map(|address| address.rtcp).collect()
    }
}

/// A UDP listener.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UdpListener {
    /// The addresses that clients are told.
    pub addresses: ListenerAddresses,
    /// Address to which the socket is bound.
    pub bound: SocketAddr,
    /// Clients may declare their address.
    pub declared: bool,
    /// Clients may declare their IP address only.
    pub declared_ip: bool,
    /// Clients may use ICE.
    pub stun: bool,
    /// The scenario of sessions that a first packet opens.
    pub open: Option<Arc<str>>,
}

impl UdpListener {
    /// Returns true if a client with this address can reach the listener: same family, or any with `[::]`.
    pub(super) fn hears(&self, client: IpAddr) -> bool {
        reaches(self.bound.ip(), client)
    }
}

/// Returns true if a socket bound to the first address exchanges packets with the second: same family, or any with `[::]`.
pub(super) fn reaches(bound: IpAddr, other: IpAddr) -> bool {
    bound == IpAddr::V6(Ipv6Addr::UNSPECIFIED) || bound.is_ipv4() == other.is_ipv4()
}

/// The QUIC listener.
#[derive(Clone, Debug)]
pub struct QuicListener {
    /// The addresses that clients are told.
    pub addresses: ListenerAddresses,
    /// SHA-256 of the certificate.
    pub certificate_sha256: [u8; 32],
    /// The certificates that browsers accept by their SHA-256. `None`: they accept that of the listener by its issuer.
    pub short_lived: Option<Arc<ShortLivedCertificates>>,
}

impl QuicListener {
    /// SHA-256 of the certificates that browsers accept by it, the one in use first.
    pub(super) fn short_lived_sha256(&self) -> impl Iterator<Item = [u8; 32]> {
        self.short_lived.iter().flat_map(|pair| pair.sha256())
    }
}

/// The addresses at which one client reaches the gateway.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum IngressAnswer {
    /// RTP over UDP.
    Udp {
        /// Destinations of RTP, best first: those of the client's carrier, and an alternate of another one.
        addresses: Vec<SocketAddr>,
        /// Destinations of RTCP, if they differ, in the same order.
        rtcp: Vec<SocketAddr>,
        /// `None` for clients without ICE.
        ice: Option<IceAnswer>,
    },
    /// RTP over QUIC.
    Quic {
        /// Addresses of the endpoint, in the same order.
        addresses: Vec<SocketAddr>,
        /// SHA-256 of the endpoint's certificate.
        certificate_sha256: [u8; 32],
        /// SHA-256 of the certificates that browsers accept by it, the one in use first. Empty: they accept the endpoint's by its
        /// issuer.
        short_lived_sha256: Vec<[u8; 32]>,
        /// The flow that the client sends with.
        flow_to_gateway: u64,
        /// The flow that the client receives.
        flow_from_gateway: u64,
    },
}

/// The gateway's part of ICE and DTLS.
#[derive(Clone, PartialEq, Eq)]
pub struct IceAnswer {
    /// The user fragment of the session.
    pub ufrag: Box<str>,
    /// The password of the session.
    pub password: Box<str>,
    /// SHA-256 of the gateway's DTLS certificate.
    pub certificate_sha256: [u8; 32],
    /// The streams of an answer to a later offer; `None` if it is the first.
    pub announced: Option<Arc<AnnouncedStreams>>,
}

/// Omits the password.
impl fmt::Debug for IceAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IceAnswer").field("ufrag", &self.ufrag).finish_non_exhaustive()
    }
}
