//! Addresses in records. Serde itself leaves out the scope of a link-local address (RFC 4007).

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::flows;

#[derive(Serialize, Deserialize)]
struct AddressRecord {
    ip: IpAddr,
    port: u16,
    #[serde(default)]
    scope: u32,
}

/// # Errors
/// As the serializer.
pub fn serialize<S: Serializer>(address: &SocketAddr, serializer: S) -> Result<S::Ok, S::Error> {
    let (ip, port) = (address.ip(), address.port());
    AddressRecord { ip, port, scope: flows::scope(address) }.serialize(serializer)
}

/// # Errors
/// As the deserializer.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let AddressRecord { ip, port, scope } = AddressRecord::deserialize(deserializer)?;
    Ok(match ip {
        IpAddr::V4(v4) => (v4, port).into(),
        IpAddr::V6(v6) => SocketAddrV6::new(v6, port, 0, scope).into(),
    })
}

/// The IPv6 form of an address: mapped, if it is IPv4 (RFC 4291, 2.5.5.2).
pub(crate) fn as_v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

#[cfg(test)]
mod tests;
