//! A client's datagram on its way from the worker that received it to its session's home worker.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::address;
use crate::flows::FlowKey;

/// The source of a client's datagrams.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Debug)]
pub(crate) struct SourceKey {
    pub(crate) listener: u8,
    #[serde(with = "address")]
    pub(crate) address: SocketAddr,
}

impl SourceKey {
    /// Returns the source's key in the flow table.
    pub(crate) fn key(self) -> FlowKey {
        FlowKey::Udp { listener: self.listener, address: self.address }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ClientArrival {
    pub(crate) source: SourceKey,
    pub(crate) kind: ArrivalKind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ArrivalKind {
    Rtp,
    Rtcp,
    /// A connectivity check with verified integrity.
    Check,
    /// A verified connectivity check with USE-CANDIDATE.
    Nomination,
    /// Carries no datagram: a check proved that the source belongs to another session now.
    AddressTaken,
}

/// Bytes in front of the datagram: kind, listener, address family, address, port.
const HEADER: usize = 1 + 1 + 1 + 16 + 2;

impl ClientArrival {
    /// Writes header and datagram for a ring between workers.
    pub(crate) fn write(&self, datagram: &[u8], out: &mut Vec<u8>) {
        let (family, ip) = match self.source.address.ip() {
            IpAddr::V4(v4) => (4, v4.to_ipv6_mapped()),
            IpAddr::V6(v6) => (6, v6),
        };
        let kind = match self.kind {
            ArrivalKind::Rtp => 0,
            ArrivalKind::Rtcp => 1,
            ArrivalKind::Check => 2,
            ArrivalKind::Nomination => 3,
            ArrivalKind::AddressTaken => 4,
        };
        out.clear();
        out.extend_from_slice(&[kind, self.source.listener, family]);
        out.extend_from_slice(&ip.octets());
        out.extend_from_slice(&self.source.address.port().to_be_bytes());
        out.extend_from_slice(datagram);
    }

    /// Splits header and datagram. Returns `None` for bytes that [`write`](ClientArrival::write) cannot have written.
    pub(crate) fn read(bytes: &[u8]) -> Option<(ClientArrival, &[u8])> {
        let (header, datagram) = bytes.split_at_checked(HEADER)?;
        let kind = match header[0] {
            0 => ArrivalKind::Rtp,
            1 => ArrivalKind::Rtcp,
            2 => ArrivalKind::Check,
            3 => ArrivalKind::Nomination,
            4 => ArrivalKind::AddressTaken,
            _ => return None,
        };
        let ip = Ipv6Addr::from(<[u8; 16]>::try_from(&header[3..19]).ok()?);
        let ip = match header[2] {
            4 => IpAddr::V4(ip.to_ipv4_mapped()?),
            _ => IpAddr::V6(ip),
        };
        let port = u16::from_be_bytes([header[19], header[20]]);
        let source = SourceKey { listener: header[1], address: SocketAddr::new(ip, port) };
        Some((ClientArrival { source, kind }, datagram))
    }
}

#[cfg(test)]
mod tests;
