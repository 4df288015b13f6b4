//! Addresses, networks and URLs that come from outside: offers, answers of media servers, configuration.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;

/// The expected address, for errors.
pub const ADDRESS_AND_PORT: &str = "the address and port of one host such as `192.0.2.1:4000`";
/// The expected address without a port, for errors.
pub const ADDRESS_ALONE: &str = "the address of one host without a port such as `192.0.2.1`";

/// The reason why no packet is sent to an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidHostAddress {
    /// `0.0.0.0` or `::`.
    #[error("the unspecified address")]
    Unspecified,
    /// RFC 5771, RFC 4291.
    #[error("a multicast address")]
    Multicast,
    /// `255.255.255.255`.
    #[error("the broadcast address")]
    Broadcast,
    /// Port 0.
    #[error("with port 0")]
    NoPort,
    /// A link-local address without a scope (RFC 4007, section 6).
    #[error("a link-local address without the index of an interface")]
    NoScope,
}

/// Checks that an address can belong to one host. IPv4-mapped addresses are checked as IPv4, because that is where the
/// system sends their packets.
pub fn check_ip(ip: IpAddr) -> Result<(), InvalidHostAddress> {
    let ip = ip.to_canonical();
    if ip.is_unspecified() {
        Err(InvalidHostAddress::Unspecified)
    } else if ip.is_multicast() {
        Err(InvalidHostAddress::Multicast)
    } else if ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
        Err(InvalidHostAddress::Broadcast)
    } else {
        Ok(())
    }
}

/// Checks that an address and port can belong to one host.
pub(crate) fn check(address: SocketAddr) -> Result<(), InvalidHostAddress> {
    check_ip(address.ip())?;
    let lacks_scope = |address: SocketAddr| match address {
        SocketAddr::V6(v6) => v6.ip().is_unicast_link_local() && v6.scope_id() == 0,
        SocketAddr::V4(_) => false,
    };
    if address.port() == 0 {
        Err(InvalidHostAddress::NoPort)
    } else if lacks_scope(address) {
        Err(InvalidHostAddress::NoScope)
    } else {
        Ok(())
    }
}

/// Checks that packets can be sent to the address. The error says what was found and what is expected.
pub fn checked(address: SocketAddr) -> Result<SocketAddr, String> {
    check(address)
        .map_err(|reason| format!("found `{address}`, {reason}; expected {ADDRESS_AND_PORT}"))?;
    Ok(address)
}

/// A network such as `10.0.0.0/8`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NetworkPrefix(IpNet);

impl NetworkPrefix {
    /// Private networks (RFC 1918, RFC 6598, RFC 4193).
    pub(crate) fn private() -> Vec<NetworkPrefix> {
        let private =
            ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"];
        private.map(|network| network.parse().expect("a network")).to_vec()
    }

    /// IPv4-mapped addresses are in the networks of IPv4.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.contains(&ip.to_canonical())
    }
}

/// The text is no network in CIDR notation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InvalidNetwork;

impl FromStr for NetworkPrefix {
    type Err = InvalidNetwork;

    /// Reads an address and a prefix length. Bits behind the prefix are zero, so that a typing error is noticed.
    /// IPv4-mapped networks are refused: they would contain no address.
    fn from_str(text: &str) -> Result<NetworkPrefix, InvalidNetwork> {
        let network: IpNet = text.parse().map_err(|_| InvalidNetwork)?;
        let is_mapped = network.addr() != network.addr().to_canonical();
        (network == network.trunc() && !is_mapped)
            .then_some(NetworkPrefix(network))
            .ok_or(InvalidNetwork)
    }
}

impl fmt::Display for NetworkPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `http://host:port/path`; the default port is 80 or 443.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    https: bool,
    /// Host and port as written.
    authority: Box<str>,
    /// IPv6 addresses are stored without brackets.
    host: Box<str>,
    port: u16,
    path: Box<str>,
}

/// The text is no URL with `http` or `https` and a host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InvalidUrl;

impl FromStr for Url {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Url, InvalidUrl> {
        let (scheme, rest) = text.split_once("://").ok_or(InvalidUrl)?;
        let https = match scheme {
            "http" => false,
            "https" => true,
            _ => return Err(InvalidUrl),
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let is_plain = |c: char| c.is_ascii_graphic() && !"\"<>\\^`{|}#@".contains(c);
        if !rest.chars().all(is_plain) {
            return Err(InvalidUrl);
        }
        let standard = if https { 443 } else { 80 };
        let (host, port) = match authority.strip_prefix('[') {
            Some(v6) => {
                let (host, rest) = v6.split_once(']').ok_or(InvalidUrl)?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| InvalidUrl)?;
                (host, rest.strip_prefix(':').or(rest.is_empty().then_some("")).ok_or(InvalidUrl)?)
            }
            None => authority.split_once(':').unwrap_or((authority, "")),
        };
        let port = if port.is_empty() { standard } else { port.parse().map_err(|_| InvalidUrl)? };
        if host.is_empty() || port == 0 || authority.ends_with(':') {
            return Err(InvalidUrl);
        }
        let path = if path.starts_with('/') { path.into() } else { format!("/{path}") };
        Ok(Url { https, authority: authority.into(), host: host.into(), port, path: path.into() })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.path)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Url {
    /// Requests leave this host without TLS.
    pub(crate) fn crosses_in_clear_text(&self) -> bool {
        !self.https && !self.is_local()
    }

    /// The host is on loopback.
    pub fn is_local(&self) -> bool {
        let is_loopback = |ip: IpAddr| ip.to_canonical().is_loopback();
        &*self.host == "localhost" || self.host.parse().is_ok_and(is_loopback)
    }

    /// True for `https`.
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// Host and port as written: `example.org:8080`.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The host, without the brackets of an IPv6 address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; by default 80, or 443 for `https`.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Path and query, at least `/`.
    pub fn path(&self) -> &str {
        &self.path
    }
}

#[cfg(test)]
mod tests;
