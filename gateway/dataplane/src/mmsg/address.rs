//! Socket addresses as the kernel reads and writes them.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// The address family of a socket. An IPv6 socket reaches IPv4 addresses as mapped ones (RFC 4291, 2.5.5.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    V4,
    /// IPv6, and IPv4 as mapped addresses.
    V6,
}

impl Family {
    pub fn of(local: SocketAddr) -> Family {
        if local.is_ipv6() { Family::V6 } else { Family::V4 }
    }
}

pub(super) fn mapped(to: SocketAddr, family: Family) -> SocketAddr {
    match (to, family) {
        (SocketAddr::V4(v4), Family::V6) => {
            SocketAddr::V6(SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0))
        }
        (to, _) => to,
    }
}

pub(super) fn write_address(address: SocketAddr, name: &mut libc::sockaddr_storage) -> u32 {
    match address {
        SocketAddr::V4(v4) => {
            let raw = libc::sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: a sockaddr_storage is large and aligned enough for every kind of address.
            unsafe { std::ptr::write(std::ptr::from_mut(name).cast(), raw) };
            size_of::<libc::sockaddr_in>() as u32
        }
        SocketAddr::V6(v6) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as u16,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: as above.
            unsafe { std::ptr::write(std::ptr::from_mut(name).cast(), raw) };
            size_of::<libc::sockaddr_in6>() as u32
        }
    }
}

/// Converts an address from the kernel. A mapped address becomes IPv4.
pub(super) fn address(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that the kernel wrote a sockaddr_in.
            let raw: libc::sockaddr_in = unsafe { std::ptr::read(std::ptr::from_ref(name).cast()) };
            let ip = Ipv4Addr::from(raw.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddr::V4(SocketAddrV4::new(ip, u16::from_be(raw.sin_port))))
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that the kernel wrote a sockaddr_in6.
            let raw: libc::sockaddr_in6 =
                unsafe { std::ptr::read(std::ptr::from_ref(name).cast()) };
            let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
            let port = u16::from_be(raw.sin6_port);
            Some(match ip.to_ipv4_mapped() {
                Some(v4) => SocketAddr::V4(SocketAddrV4::new(v4, port)),
                None => SocketAddr::V6(SocketAddrV6::new(
                    ip,
                    port,
                    raw.sin6_flowinfo,
                    raw.sin6_scope_id,
                )),
            })
        }
        _ => None,
    }
}
