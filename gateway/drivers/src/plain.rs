//! Nodes without signalling: any media server at a known address.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use evenkeel_dataplane::worker::{NodeLeg, NodePort};
use evenkeel_model::NodeId;

use super::{DriverAction, OpenRequest};

/// Opens a session at the node's configured address, or at one that the offer names.
pub(super) fn open(standing: SocketAddr, wish: &OpenRequest<'_>) -> DriverAction {
    let &OpenRequest { session, hop, address, rtcp_apart, .. } = wish;
    let (address, rtcp) = ports(address.unwrap_or(standing), rtcp_apart);
    let leg = NodeLeg::Port(Box::new(NodePort { address, rtcp_port: rtcp.port() }));
    DriverAction::Opened { session, hop, leg }
}

pub(super) fn shared(
    nodes: impl Iterator<Item = (NodeId, SocketAddr)>,
    rtcp_apart: bool,
) -> Option<(NodeId, NodeId, SocketAddr)> {
    let mut taken = BTreeMap::new();
    for (node, address) in nodes {
        let (rtp, rtcp) = ports(address, rtcp_apart);
        for address in [rtp, rtcp] {
            let canonical = SocketAddr::new(address.ip().to_canonical(), address.port());
            let other = *taken.entry(canonical).or_insert(node);
            if other != node {
                return Some((other, node, address));
            }
        }
    }
    None
}

/// RTP and RTCP addresses of a node: one port, or RTCP on the next one.
fn ports(address: SocketAddr, rtcp_apart: bool) -> (SocketAddr, SocketAddr) {
    let next = SocketAddr::new(address.ip(), address.port().wrapping_add(1));
    (address, if rtcp_apart { next } else { address })
}
