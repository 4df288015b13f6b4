//! A client's datagram on its way from the worker that read it to its session's home.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// What came, and from where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Arrival {
    pub(crate) listener: u8,
    pub(crate) source: SocketAddr,
    pub(crate) kind: Kind,
}

/// What it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// RTP or RTCP from a source that may send.
    Media,
    /// A connectivity check that holds.
    Check,
    /// The same, with USE-CANDIDATE.
    Nomination,
    /// Nothing of the session's: its client's address is another session's now.
    Taken,
}

/// Bytes in front of the datagram: kind, listener, address family, address, port.
const HEADER: usize = 1 + 1 + 1 + 16 + 2;

impl Arrival {
    /// Writes arrival and datagram behind each other, for a ring between workers.
    pub(crate) fn write(&self, datagram: &[u8], out: &mut Vec<u8>) {
        let (family, ip) = match self.source.ip() {
            IpAddr::V4(v4) => (4, v4.to_ipv6_mapped()),
            IpAddr::V6(v6) => (6, v6),
        };
        let kind = match self.kind {
            Kind::Media => 0,
            Kind::Check => 1,
            Kind::Nomination => 2,
            Kind::Taken => 3,
        };
        out.clear();
        out.extend_from_slice(&[kind, self.listener, family]);
        out.extend_from_slice(&ip.octets());
        out.extend_from_slice(&self.source.port().to_be_bytes());
        out.extend_from_slice(datagram);
    }

    /// Takes them apart again. `None` for what [`write`](Arrival::write) cannot have written.
    pub(crate) fn read(bytes: &[u8]) -> Option<(Arrival, &[u8])> {
        let (header, datagram) = bytes.split_at_checked(HEADER)?;
        let kind = match header[0] {
            0 => Kind::Media,
            1 => Kind::Check,
            2 => Kind::Nomination,
            3 => Kind::Taken,
            _ => return None,
        };
        let ip = Ipv6Addr::from(<[u8; 16]>::try_from(&header[3..19]).ok()?);
        let ip = match header[2] {
            4 => IpAddr::V4(ip.to_ipv4_mapped()?),
            _ => IpAddr::V6(ip),
        };
        let port = u16::from_be_bytes([header[19], header[20]]);
        let source = SocketAddr::new(ip, port);
        Some((Arrival { listener: header[1], source, kind }, datagram))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flows::Home;
    use crate::mmsg::DATAGRAM_MAX;
    use crate::ring;

    #[test]
    fn the_longest_datagram_fits_behind_its_arrival() {
        let source = "[2001:db8::1]:65535".parse().unwrap();
        let arrival = Arrival { listener: 3, source, kind: Kind::Media };
        let mut bytes = Vec::new();
        arrival.write(&[7; DATAGRAM_MAX], &mut bytes);
        let (mut sender, _receiver) = ring::channel(8).unwrap();
        let home = Home { worker: 0, slot: 0, generation: 1 };
        let meta = ring::Meta { home, kind: ring::Kind::Media, flow: 0 };
        assert_eq!(sender.push(meta, &bytes), Ok(()));
    }

    #[test]
    fn an_arrival_survives_the_ring() {
        for source in ["10.0.0.9:4000", "[2001:db8::1]:65535"] {
            for kind in [Kind::Media, Kind::Check, Kind::Nomination, Kind::Taken] {
                let arrival = Arrival { listener: 3, source: source.parse().unwrap(), kind };
                let mut bytes = vec![9; 4];
                arrival.write(b"packet", &mut bytes);
                assert_eq!(Arrival::read(&bytes), Some((arrival, b"packet".as_slice())));
                assert_eq!(Arrival::read(&bytes[..HEADER - 1]), None);
            }
        }
    }
}
