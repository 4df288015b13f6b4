//! What control tells a worker, and what a worker tells control.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Instant;

use evenkeel_core::{Flow, Hop, Measures, Media, Mode, NodeId, Plan, RouteCell, SessionId};
use evenkeel_media::trunk::Tag;

use super::ports::Ports;
use crate::flows::Home;

/// What control tells a worker.
#[derive(Debug)]
pub enum Command {
    /// A session has its home here from now on.
    Install(Box<Install>),
    /// The session is open at this hop, by this leg.
    Attach { home: Home, hop: Hop, leg: Leg },
    /// It is open there no longer.
    Detach { home: Home, hop: Hop },
    /// It gets something else from now on.
    Plan { home: Home, plan: Plan },
    /// Ask it for a key frame of each video stream it sends.
    KeyFrame { home: Home },
    /// Panic over its next packet.
    #[cfg(any(test, feature = "fault-injection"))]
    Panic { home: Home },
    /// Forget it.
    Remove { home: Home },
    /// Send this signed message on the node's trunk.
    Sign { node: NodeId, message: Box<[u8]> },
    /// Packets share datagrams to this node up to this size from now on.
    LimitBundles { node: NodeId, size_max: u16 },
    /// A node is there from now on, reached by this trunk.
    Reach { node: NodeId, trunk: UdpSocket },
    /// Nothing leads to the node any more: its trunk ends, and what was seen of it is forgotten.
    Forget { node: NodeId },
    /// End the thread.
    Stop,
}

/// A session that gets its home at a worker.
#[derive(Debug)]
pub struct Install {
    pub home: Home,
    pub session: SessionId,
    pub media: Arc<Media>,
    pub client: Client,
    pub route: Arc<RouteCell>,
    pub plan: Plan,
    pub dscp: Dscp,
    /// For port legs: the session's own socket towards nodes, and one for RTCP where it has a port of its own.
    pub ports: Option<Box<Ports>>,
    pub seed: u64,
}

/// Traffic classes of what is sent (RFC 2474, the upper six bits).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Dscp {
    /// Of voice and its RTCP; 46 is EF.
    pub voice: u8,
    /// Of video; 34 is AF41.
    pub video: u8,
}

/// How the client is reached, and how it is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Client {
    /// At these addresses, and no others.
    Declared { listener: u8, address: SocketAddr, rtcp: SocketAddr },
    /// At the first port of its address from which valid RTP comes.
    DeclaredIp { listener: u8 },
    /// Where its connectivity checks come from.
    Stun,
    /// By the QUIC connection that carries its flow.
    Quic { flow_from_gateway: u64 },
}

/// The way to a node and back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Leg {
    /// On the worker's trunk to the node, behind this tag.
    Trunk(Tag),
    /// From the session's own socket. Elsewhere, since there are many sessions and trunk legs take less room.
    Port(Box<NodePort>),
}

/// Where a node takes a session's packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodePort {
    pub address: SocketAddr,
    pub rtcp_port: u16,
}

impl NodePort {
    /// Whether that is what sends from there.
    pub fn is_at(&self, source: SocketAddr) -> bool {
        self.address.ip() == source.ip()
            && [self.address.port(), self.rtcp_port].contains(&source.port())
    }
}

/// What a worker tells control.
#[derive(Debug)]
pub enum Report {
    /// The kernel says that nobody listens at the node's media port.
    Refused { node: NodeId },
    /// The kernel says that nobody listens at the port that this session uses at the hop.
    PortClosed { session: SessionId, hop: Hop },
    /// What these hops deliver to the session are no copies of each other. The first is the one that its client hears.
    Unalike { session: SessionId, hops: [Hop; 2] },
    /// A signed message came on the node's trunk.
    Signed { node: NodeId, message: Box<[u8]> },
    /// A packet from nobody known came to an open listener.
    Knock { listener: u8, source: SocketAddr, payload_type: u8 },
    /// What was measured of the sessions here.
    Summaries(Vec<Summary>),
    /// The rung in force kept these from a client.
    Shed { session: SessionId, run: ShedRun },
    /// A session was forgotten; this is what it carried, in the end in this mode.
    Removed { session: SessionId, mode: Mode, totals: Totals },
    /// A session was dropped: handling one of its packets ended in a panic.
    Panicked { session: SessionId },
}

/// Packets in a row that a rung kept from a client, by their places behind the last packet it got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShedRun {
    /// The stream, as the client knows it.
    pub ssrc: u32,
    /// The sequence number of the last packet that it got.
    pub after: u16,
    /// The place of the first one behind that, from 1.
    pub first: u32,
    /// How many, place by place.
    pub packets: u32,
}

/// What was measured of a session.
#[derive(Debug)]
pub struct Summary {
    pub session: SessionId,
    pub measures: Measures,
    pub last_heard: Option<Instant>,
    pub flow: Flow,
    pub totals: Totals,
}

/// What a session carried.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Totals {
    /// RTP packets from the client.
    pub packets_up: u64,
    /// Bytes of them.
    pub bytes_up: u64,
    /// RTP packets to the client.
    pub packets_down: u64,
    /// Bytes of them.
    pub bytes_down: u64,
    /// RTP packets to the client that the rung in force shed.
    pub shed: u64,
    /// Packets of the client lost on its way to us.
    pub lost_up: u64,
    /// Switches from one hop to another.
    pub switches: u32,
    /// Packets to the client that were missing when another hop went on.
    pub lost_at_switches: u32,
    /// In hitless mode: bytes from the client that went to the twin of its hop as well, and those that came from it.
    pub bytes_copied: u64,
}
