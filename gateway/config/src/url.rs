//! An `http` or `https` URL (RFC 3986).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

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
pub struct NoUrl;

impl FromStr for Url {
    type Err = NoUrl;

    fn from_str(text: &str) -> Result<Url, NoUrl> {
        let (scheme, rest) = text.split_once("://").ok_or(NoUrl)?;
        let https = match scheme {
            "http" => false,
            "https" => true,
            _ => return Err(NoUrl),
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let is_plain = |c: char| c.is_ascii_graphic() && !"\"<>\\^`{|}#@".contains(c);
        if !rest.chars().all(is_plain) {
            return Err(NoUrl);
        }
        let standard = if https { 443 } else { 80 };
        let (host, port) = match authority.strip_prefix('[') {
            Some(v6) => {
                let (host, rest) = v6.split_once(']').ok_or(NoUrl)?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| NoUrl)?;
                (host, rest.strip_prefix(':').or(rest.is_empty().then_some("")).ok_or(NoUrl)?)
            }
            None => authority.split_once(':').unwrap_or((authority, "")),
        };
        let port = if port.is_empty() { standard } else { port.parse().map_err(|_| NoUrl)? };
        if host.is_empty() || port == 0 || authority.ends_with(':') {
            return Err(NoUrl);
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
        let is_loopback = |ip: IpAddr| ip.to_canonical().is_loopback();
        let is_local = &*self.host == "localhost" || self.host.parse().is_ok_and(is_loopback);
        !self.https && !is_local
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
