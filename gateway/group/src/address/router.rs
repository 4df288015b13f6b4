//! The default routers of this host (proc_pid_net(5), `route`).

use std::io;
use std::net::Ipv4Addr;

use nix::libc;

/// A host of the link that every other one reaches, if it is not cut off itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct DefaultRouter {
    pub(super) address: Ipv4Addr,
    pub(super) interface: String,
}

impl DefaultRouter {
    /// Returns the routers of the network namespace of this thread.
    pub(super) fn list() -> io::Result<Vec<DefaultRouter>> {
        Ok(parse(&std::fs::read_to_string("/proc/thread-self/net/route")?))
    }
}

/// The first line has the names of the columns.
fn parse(table: &str) -> Vec<DefaultRouter> {
    table.lines().skip(1).filter_map(router).collect()
}

fn router(line: &str) -> Option<DefaultRouter> {
    let mut columns = line.split_whitespace();
    let interface = columns.next()?.to_owned();
    let mut number = || u32::from_str_radix(columns.next()?, 16).ok();
    let (destination, address, flags) = (number()?, number()?, number()?);
    let is_used = flags & u32::from(libc::RTF_UP | libc::RTF_GATEWAY)
        == u32::from(libc::RTF_UP | libc::RTF_GATEWAY);
    // Addresses have the byte order of the network, and are printed as numbers of the host.
    let address = Ipv4Addr::from(address.to_ne_bytes());
    (is_used && destination == 0).then_some(DefaultRouter { address, interface })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn default_routers_are_those_with_a_gateway() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                     eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                     eth1\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0\n\
                     eth0\t000A0A0A\t030200C0\t0003\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
                     eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        let address = Ipv4Addr::new(192, 0, 2, 1);
        assert_eq!(parse(table), [DefaultRouter { address, interface: "eth0".to_owned() }]);
    }
}
