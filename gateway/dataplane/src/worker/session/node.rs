//! The paths of a session to nodes and back: a leg for each hop, and the session's own sockets.

use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;
use std::{io, mem};

use evenkeel_media::srtp::SrtpKeys;
use evenkeel_media::trunk::Tag;
use evenkeel_model::{DropReason, Hop, NodeId, SessionId, StreamKind};
use serde::{Deserialize, Serialize};

use super::srtp::{RefusedPacket, SrtpEnds};
use crate::flows::Home;
use crate::worker::egress::{DscpMarks, PacketContext};
use crate::worker::report::{MediaDirection, WorkerReport, WorkerStats};
use crate::worker::sockets::{RtpSide, SessionPorts};

/// A session's path to a node and back.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub enum NodeLeg {
    /// The worker's trunk to the node, with this tag.
    Trunk(Tag),
    /// The session's own socket. Boxed, because most legs are trunk legs.
    Port(Box<NodePort>),
    /// The session's own socket, with SRTP.
    Srtp(Box<SrtpPort>),
}

impl NodeLeg {
    /// The node's address, if the session has a socket of its own.
    pub fn port(&self) -> Option<NodePort> {
        match self {
            NodeLeg::Trunk(_) => None,
            NodeLeg::Port(port) => Some(**port),
            NodeLeg::Srtp(leg) => Some(leg.port),
        }
    }
}

/// A node's media address for one session, and the keys of SRTP there (RFC 3711). No other leg has these keys, at any time.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct SrtpPort {
    /// The node's address for RTP, and its port for RTCP.
    pub port: NodePort,
    /// The node is the client of these keys.
    pub keys: Arc<SrtpKeys>,
}

/// A node's media address for one session.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct NodePort {
    /// Address for RTP.
    #[serde(with = "crate::address")]
    pub address: SocketAddr,
    /// Port for RTCP at the same IP address; the port of RTP if both share it.
    pub rtcp_port: u16,
}

impl NodePort {
    /// Returns whether the source is this port or its RTCP port.
    pub fn is_at(&self, source: SocketAddr) -> bool {
        self.address.ip() == source.ip()
            && [self.address.port(), self.rtcp_port].contains(&source.port())
    }
}

/// A session's legs, and its sockets towards nodes.
pub(crate) struct NodeSide {
    legs: Box<[(Hop, NodeLeg)]>,
    /// Set for legs with sockets of the session.
    ports: Option<Box<SessionPorts>>,
}

impl NodeSide {
    pub(super) fn new(ports: Option<Box<SessionPorts>>) -> NodeSide {
        NodeSide { legs: Box::default(), ports }
    }

    pub(super) fn legs(&self) -> &[(Hop, NodeLeg)] {
        &self.legs
    }

    /// Replaces the legs by those of another process.
    pub(super) fn continue_with(&mut self, legs: Vec<(Hop, NodeLeg)>) {
        self.legs = legs.into();
    }

    pub(super) fn attach(&mut self, hop: Hop, leg: NodeLeg) {
        let mut legs = mem::take(&mut self.legs).into_vec();
        legs.retain(|(at, _)| *at != hop);
        legs.reserve_exact(1);
        legs.push((hop, leg));
        self.legs = legs.into();
    }

    pub(super) fn detach(&mut self, hop: Hop) {
        let mut legs = mem::take(&mut self.legs).into_vec();
        legs.retain(|(at, _)| *at != hop);
        self.legs = legs.into();
    }

    pub(crate) fn has_leg(&self, hop: Hop) -> bool {
        self.legs.iter().any(|(at, _)| *at == hop)
    }

    /// The legs with SRTP, with their keys.
    pub(super) fn srtp_legs(&self) -> impl Iterator<Item = (Hop, &Arc<SrtpKeys>)> {
        self.legs.iter().filter_map(|(hop, leg)| match leg {
            NodeLeg::Srtp(leg) => Some((*hop, &leg.keys)),
            NodeLeg::Trunk(_) | NodeLeg::Port(_) => None,
        })
    }

    pub(crate) fn hop_of(&self, tag: Tag) -> Option<Hop> {
        let is_it = |leg: &NodeLeg| matches!(leg, NodeLeg::Trunk(own) if *own == tag);
        self.legs.iter().find(|(_, leg)| is_it(leg)).map(|(hop, _)| *hop)
    }

    /// The hop of the session's socket that sends from this address. `likelier` decides between two hops there.
    pub(super) fn hop_at(
        &self,
        source: SocketAddr,
        likelier: impl Fn(Hop, Hop) -> Hop,
    ) -> Option<Hop> {
        let is_there = |leg: &NodeLeg| match leg {
            NodeLeg::Port(port) => port.is_at(source),
            NodeLeg::Srtp(leg) => leg.port.is_at(source),
            NodeLeg::Trunk(_) => false,
        };
        let there = self.legs.iter().filter(|(_, leg)| is_there(leg)).map(|(hop, _)| *hop);
        there.reduce(likelier)
    }

    /// Queues a packet on the leg of this hop; it waits if the leg is still to come. Returns whether the leg used an index of SRTP.
    #[inline]
    pub(super) fn send(
        &mut self,
        hop: Hop,
        side: RtpSide,
        kind: StreamKind,
        dscp: DscpMarks,
        packet: &[u8],
        home: Home,
        id: SessionId,
        srtp: Option<&mut SrtpEnds>,
        cx: &mut PacketContext<'_>,
    ) -> bool {
        let Some((_, leg)) = self.legs.iter().find(|(at, _)| *at == hop) else {
            if !cx.egress.early.keep_outbound(home, hop, side, kind, packet, cx.now) {
                cx.egress.count_drop(DropReason::NotOpened);
            }
            return false;
        };
        match leg {
            NodeLeg::Trunk(tag) => {
                cx.egress.stats.passed(MediaDirection::ToNode, packet.len());
                cx.egress.queue_on_trunk(hop.node, *tag, packet);
                false
            }
            NodeLeg::Port(port) => {
                let port = **port;
                self.queue(hop.node, port, side, dscp.of(kind), packet, home, cx);
                false
            }
            NodeLeg::Srtp(leg) => {
                let port = leg.port;
                self.send_protected(hop, port, side, dscp.of(kind), packet, home, id, srtp, cx);
                true
            }
        }
    }

    /// Encrypts a packet to a node and queues it there.
    fn send_protected(
        &mut self,
        hop: Hop,
        port: NodePort,
        side: RtpSide,
        dscp: u8,
        packet: &[u8],
        home: Home,
        id: SessionId,
        srtp: Option<&mut SrtpEnds>,
        cx: &mut PacketContext<'_>,
    ) {
        if cx.egress.is_handed_out {
            return cx.egress.count_drop(DropReason::SrtpIndex);
        }
        let Some(srtp) = srtp else { return cx.egress.count_drop(DropReason::SrtpNoKeys) };
        let mut protected = mem::take(&mut cx.egress.protected);
        let at = cx.egress.indices.view(cx.now);
        match srtp.protect_to_node(hop, side, packet, &mut protected, at) {
            Ok(()) => self.queue(hop.node, port, side, dscp, &protected, home, cx),
            Err(RefusedPacket { reason, is_restart }) => {
                if is_restart {
                    cx.egress.report(WorkerReport::StreamRestarted { session: id, hop });
                }
                cx.egress.count_drop(reason);
            }
        }
        cx.egress.protected = protected;
    }

    fn queue(
        &mut self,
        node: NodeId,
        port: NodePort,
        side: RtpSide,
        dscp: u8,
        packet: &[u8],
        home: Home,
        cx: &mut PacketContext<'_>,
    ) {
        cx.egress.stats.passed(MediaDirection::ToNode, packet.len());
        let to = match side {
            RtpSide::Rtp => port.address,
            RtpSide::Rtcp => SocketAddr::new(port.address.ip(), port.rtcp_port),
        };
        let Some(ports) = &mut self.ports else {
            return cx.egress.count_drop(DropReason::NoHop);
        };
        let flush = |ports: &mut SessionPorts| {
            if cx.egress.permit.may_send() {
                ports.flush(&cx.egress.stats, cx.now);
            }
        };
        if ports.queue(side, node, to, dscp, packet, flush) {
            cx.egress.ports.push(home);
        }
    }

    /// Sends the packets that are queued on the session's sockets.
    pub(crate) fn flush(&mut self, stats: &WorkerStats, now: Instant) {
        if let Some(ports) = &mut self.ports {
            ports.flush(stats, now);
        }
    }

    /// Drops the packets that are queued on the session's sockets, and returns their number.
    pub(crate) fn clear(&mut self) -> usize {
        self.ports.as_mut().map_or(0, |ports| ports.clear())
    }

    pub(crate) fn fd(&self, side: RtpSide) -> Option<BorrowedFd<'_>> {
        self.ports.as_ref()?.fd(side)
    }

    /// The number of the session's sockets.
    pub(crate) fn sockets(&self) -> u8 {
        self.ports.as_ref().map_or(0, |ports| ports.sockets())
    }

    /// Duplicates the session's sockets, if it has some.
    pub(crate) fn duplicate_sockets(&self) -> io::Result<Option<(OwnedFd, Option<OwnedFd>)>> {
        self.ports.as_ref().map(|ports| ports.try_clone()).transpose()
    }

    #[cfg(test)]
    pub(super) fn take_ports(&mut self) -> Option<Box<SessionPorts>> {
        self.ports.take()
    }

    #[cfg(test)]
    pub(super) fn set_ports(&mut self, ports: SessionPorts) {
        self.ports = Some(Box::new(ports));
    }
}

#[cfg(test)]
mod tests;
