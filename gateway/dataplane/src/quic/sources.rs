//! Connections by source, so that one host does not hold them all.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// A client's IPv4 address or IPv6 /56: a site usually has a /56 (RFC 6177), and each host any number of addresses.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct ClientNetwork(IpAddr);

impl ClientNetwork {
    pub(super) fn of(address: SocketAddr) -> ClientNetwork {
        ClientNetwork(match address.ip().to_canonical() {
            IpAddr::V4(v4) => IpAddr::V4(v4),
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & u128::MAX << 72)),
        })
    }
}

/// The connections of a source.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct SourceConnections {
    /// All connections, including handshakes and those that are closed but not forgotten.
    pub(super) connections: usize,
    /// Connections that were never open.
    pub(super) handshakes: usize,
}

/// Only sources with connections are kept, so the limit of connections bounds the table.
#[derive(Default)]
pub(super) struct Sources(HashMap<ClientNetwork, SourceConnections>);

impl Sources {
    pub(super) fn held(&self, source: ClientNetwork) -> SourceConnections {
        self.0.get(&source).copied().unwrap_or_default()
    }

    /// Counts a connection that begins its handshake.
    pub(super) fn begin(&mut self, source: ClientNetwork) {
        let held = self.0.entry(source).or_default();
        held.connections += 1;
        held.handshakes += 1;
    }

    /// Counts the end of a handshake, by success or with its connection.
    pub(super) fn end_handshake(&mut self, source: ClientNetwork) {
        if let Some(held) = self.0.get_mut(&source) {
            held.handshakes -= 1;
        }
    }

    /// Counts the end of a connection, after [`end_handshake`](Sources::end_handshake).
    pub(super) fn end(&mut self, source: ClientNetwork) {
        if let Entry::Occupied(mut held) = self.0.entry(source) {
            held.get_mut().connections -= 1;
            if held.get().connections == 0 {
                held.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests;
