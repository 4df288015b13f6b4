//! What a worker needs to know of a session: its client, its route and its legs.

use std::net::SocketAddr;
use std::sync::Arc;

use evenkeel_media::trunk::Tag;
use evenkeel_model::{MediaDescription, Plan, RouteCell, SessionId};
use serde::{Deserialize, Serialize};

use super::SessionState;
use crate::address;
use crate::flows::Home;
use crate::worker::ports::SessionPorts;

#[derive(Debug)]
pub struct Install {
    pub home: Home,
    pub session: SessionId,
    pub media: Arc<MediaDescription>,
    pub client: ClientAddressing,
    pub route: Arc<RouteCell>,
    pub plan: Plan,
    pub dscp: DscpMarks,
    /// The session's own sockets towards nodes; set for port legs.
    pub ports: Option<Box<SessionPorts>>,
    /// Nothing is sent to declared addresses before a packet came from one of them.
    pub await_first_packet: bool,
    /// Seeds SSRC, sequence numbers and CNAME of the session.
    pub seed: u64,
    /// The state in which another worker left the session. It returns the learned addresses to the flow table; before
    /// any worker reads, [`WorkerCommand::Confirm`](crate::worker::WorkerCommand::Confirm) tells that they are all there.
    pub state: Option<Box<SessionState>>,
}

/// DSCP of packets by kind (RFC 2474).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct DscpMarks {
    /// Voice and its RTCP; 46 is EF.
    pub voice: u8,
    /// 34 is AF41.
    pub video: u8,
}

/// Identification and addresses of a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientAddressing {
    /// The client uses these addresses only.
    Declared { listener: u8, address: SocketAddr, rtcp: SocketAddr },
    /// The client uses the first port of the declared IP address that sends valid RTP.
    DeclaredIp { listener: u8 },
    /// The client uses the source address of its connectivity checks.
    Stun,
    /// The client uses the QUIC connection that carries its flow.
    Quic { flow_from_gateway: u64 },
}

/// A session's path to a node and back.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub enum NodeLeg {
    /// The worker's trunk to the node, with this tag.
    Trunk(Tag),
    /// The session's own socket. Boxed, because most legs are trunk legs.
    Port(Box<NodePort>),
}

/// A node's media address for one session.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct NodePort {
    #[serde(with = "address")]
    pub address: SocketAddr,
    pub rtcp_port: u16,
}

impl NodePort {
    /// Returns whether the source is this port or its RTCP port.
    pub fn is_at(&self, source: SocketAddr) -> bool {
        self.address.ip() == source.ip()
            && [self.address.port(), self.rtcp_port].contains(&source.port())
    }
}
