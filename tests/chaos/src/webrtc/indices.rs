//! SRTP indices in captured packets. An index that is used twice with one key reveals both packets (RFC 3711, section 9.1).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;

use evenkeel_media::demux::{self, DatagramKind};
use evenkeel_testkit::capture::CapturedDatagram;
use serde::Serialize;

/// The last bytes of a protected packet: the authentication tag and, in SRTCP, the index.
type PacketEnd = [u8; 16];

/// The flag of an encrypted packet, beside the index of SRTCP.
const ENCRYPTED: u32 = 1 << 31;
/// SRTCP indices are below this: they begin at 0, and each takeover skips at most 2^14.
const SRTCP_INDEX_END: u32 = 1 << 24;
/// The index of a source's first packet is at least this, so that an earlier packet has one.
const FIRST_INDEX: u64 = 1 << 16;

/// A datagram from a gateway to a WebRTC client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ClientPacket {
    /// Nanoseconds since the Unix epoch.
    pub(crate) at_ns: u64,
    pub(crate) client: SocketAddrV4,
    pub(crate) content: ClientContent,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ClientContent {
    Dtls,
    Srtp { ssrc: u32, payload_type: u8, sequence: u16, end: PacketEnd },
    Srtcp { ssrc: u32, end: PacketEnd },
}

impl ClientPacket {
    /// Reads a datagram from this port of a gateway; `None` for another one, and for STUN.
    pub(crate) fn read(datagram: &CapturedDatagram<'_>, port: u16) -> Option<Self> {
        let CapturedDatagram { source, destination: client, payload, at_ns } = *datagram;
        let word = |at: usize| Some(u32::from_be_bytes(*payload.get(at..)?.first_chunk()?));
        let end = || payload.last_chunk().copied();
        let content = match demux::classify(payload) {
            _ if source.port() != port => return None,
            DatagramKind::Dtls => ClientContent::Dtls,
            DatagramKind::Rtp => {
                // The lower half of the first word is the sequence number.
                let first = word(0)?;
                let (payload_type, sequence) = ((first >> 16) as u8 & 0x7f, first as u16);
                ClientContent::Srtp { ssrc: word(8)?, payload_type, sequence, end: end()? }
            }
            DatagramKind::Rtcp => ClientContent::Srtcp { ssrc: word(4)?, end: end()? },
            _ => return None,
        };
        Some(ClientPacket { at_ns, client, content })
    }
}

/// The indices of all captured packets to clients.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
pub(crate) struct CapturedIndices {
    /// Addresses to which protected packets were sent.
    pub(crate) clients: usize,
    pub(crate) packets: usize,
    /// Indices of a source at an address that were used with different bytes.
    pub(crate) reused: usize,
    /// Frames that the capture lost.
    pub(crate) frames_lost: u32,
}

impl CapturedIndices {
    pub(crate) fn of(packets: &[ClientPacket], frames_lost: u32) -> Self {
        let gcm = clients_with_gcm(packets);
        let mut sources: BTreeMap<Source, UsedIndices> = BTreeMap::new();
        let mut found = CapturedIndices { frames_lost, ..CapturedIndices::default() };
        for ClientPacket { client, content, .. } in packets {
            let (client, is_rtp) = (*client, matches!(content, ClientContent::Srtp { .. }));
            let (ssrc, end) = match *content {
                ClientContent::Dtls => continue,
                ClientContent::Srtp { ssrc, end, .. } | ClientContent::Srtcp { ssrc, end } => {
                    (ssrc, end)
                }
            };
            let used = sources.entry(Source { client, ssrc, is_rtp }).or_default();
            let index = match content {
                ClientContent::Srtp { sequence, .. } => used.estimate(*sequence),
                _ => (srtcp_word(&end, gcm.contains(&client)) & !ENCRYPTED).into(),
            };
            found.packets += 1;
            if *used.ends.entry(index).or_insert(end) != end {
                used.reused.insert(index);
            }
        }
        let clients: BTreeSet<SocketAddrV4> = sources.keys().map(|source| source.client).collect();
        found.clients = clients.len();
        found.reused = sources.values().map(|used| used.reused.len()).sum();
        found
    }
}

/// A sender towards a client. SRTP and SRTCP have indices of their own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Source {
    client: SocketAddrV4,
    ssrc: u32,
    is_rtp: bool,
}

#[derive(Default)]
struct UsedIndices {
    /// The end of the first packet with each index.
    ends: BTreeMap<u64, PacketEnd>,
    reused: BTreeSet<u64>,
}

impl UsedIndices {
    /// The index of SRTP, extended from the highest one (RFC 3711, section 3.3.1). The roll-over counter begins at a number of its own.
    fn estimate(&self, sequence: u16) -> u64 {
        let Some((highest, _)) = self.ends.last_key_value() else {
            return FIRST_INDEX + u64::from(sequence);
        };
        let ahead = sequence.wrapping_sub(*highest as u16).cast_signed();
        highest.saturating_add_signed(ahead.into())
    }
}

/// The flag and the index of SRTCP: behind the tag under GCM (RFC 7714, section 17), else before a tag of 80 bits (RFC 3711,
/// section 3.4).
fn srtcp_word(end: &PacketEnd, is_gcm: bool) -> u32 {
    let [.., a, b, c, d] = *end;
    let [_, _, e, f, g, h, ..] = *end;
    u32::from_be_bytes(if is_gcm { [a, b, c, d] } else { [e, f, g, h] })
}

/// The clients of which each SRTCP packet ends with an index. A tag does not look like one for long.
fn clients_with_gcm(packets: &[ClientPacket]) -> BTreeSet<SocketAddrV4> {
    let (mut with, mut without) = (BTreeSet::new(), BTreeSet::new());
    for packet in packets {
        if let ClientContent::Srtcp { end, .. } = &packet.content {
            let index = srtcp_word(end, true) ^ ENCRYPTED;
            let clients = if index < SRTCP_INDEX_END { &mut with } else { &mut without };
            clients.insert(packet.client);
        }
    }
    with.retain(|client| !without.contains(client));
    with
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: u16 = 7_000;
    const ONE: SocketAddrV4 = SocketAddrV4::new(std::net::Ipv4Addr::new(10, 0, 0, 1), 4_000);
    const OTHER: SocketAddrV4 = SocketAddrV4::new(*ONE.ip(), 4_001);

    /// Captures datagrams of a gateway, each with its destination.
    fn capture(datagrams: &[(SocketAddrV4, Vec<u8>)]) -> CapturedIndices {
        let source = SocketAddrV4::new([10, 0, 0, 100].into(), PORT);
        let packets = datagrams.iter().map(|(destination, payload)| {
            let datagram =
                CapturedDatagram { source, destination: *destination, payload, at_ns: 0 };
            ClientPacket::read(&datagram, PORT).expect("a packet for a client")
        });
        CapturedIndices::of(&packets.collect::<Vec<_>>(), 0)
    }

    /// SRTP with a body that differs by `body`.
    fn srtp(ssrc: u32, sequence: u16, body: u8) -> Vec<u8> {
        let mut packet = vec![0x80, 111];
        packet.extend(sequence.to_be_bytes());
        packet.extend([0; 4]);
        packet.extend(ssrc.to_be_bytes());
        packet.extend([body; 30]);
        packet
    }

    /// SRTCP by AES-GCM, or with a tag of 80 bits.
    fn srtcp(index: u32, body: u8, is_gcm: bool) -> Vec<u8> {
        let mut packet = vec![0x80, 201, 0, 1, 0, 0, 0, 7];
        let word = (index | ENCRYPTED).to_be_bytes();
        let tag = |length| vec![body; length];
        packet
            .extend(if is_gcm { [tag(16), word.into()] } else { [word.into(), tag(10)] }.concat());
        packet
    }

    #[test]
    fn index_with_other_bytes_is_reused() {
        let reused = |datagrams: &[(SocketAddrV4, Vec<u8>)]| capture(datagrams).reused;
        let first = (ONE, srtp(7, 10, 1));
        assert_eq!(reused(&[first.clone(), (ONE, srtp(7, 10, 2))]), 1);
        assert_eq!(reused(&[first.clone(), first.clone()]), 0, "a copy of the network");
        assert_eq!(reused(&[first.clone(), (ONE, srtp(7, 11, 2))]), 0);
        assert_eq!(reused(&[first.clone(), (ONE, srtp(8, 10, 2))]), 0, "another source");
        assert_eq!(reused(&[first, (OTHER, srtp(7, 10, 2))]), 0, "another client");
    }

    #[test]
    fn late_packet_of_a_former_owner_is_found() {
        let mut datagrams: Vec<_> = (65_000..=65_535).map(|at| (ONE, srtp(7, at, 1))).collect();
        datagrams.extend((0..200).map(|at| (ONE, srtp(7, at, 1))));
        assert_eq!(capture(&datagrams).reused, 0);
        datagrams.extend([65_535, 3, 3].map(|at| (ONE, srtp(7, at, 2))));
        let found = capture(&datagrams);
        assert_eq!((found.reused, found.packets, found.clients), (2, 739, 1));
    }

    #[test]
    fn equal_sequence_of_the_next_cycle_is_another_index() {
        let steps = [0u16, 20_000, 40_000, 60_000, 14_000, 34_000, 54_000, 0];
        let datagrams: Vec<_> =
            (1..).zip(steps).map(|(body, at)| (ONE, srtp(7, at, body))).collect();
        assert_eq!(capture(&datagrams).reused, 0);
    }

    #[test]
    fn srtcp_index_is_read_by_either_profile() {
        for is_gcm in [true, false] {
            let reused = |indices: [u32; 3]| {
                let packets = (0x11..).zip(indices);
                let packets = packets.map(|(body, index)| (ONE, srtcp(index, body, is_gcm)));
                capture(&packets.collect::<Vec<_>>()).reused
            };
            assert_eq!((reused([0, 1, 16_384]), reused([0, 1, 0])), (0, 1), "GCM: {is_gcm}");
        }
    }

    #[test]
    fn packets_of_another_port_and_stun_are_ignored() {
        let read = |port, payload: &[u8]| {
            let source = SocketAddrV4::new([10, 0, 0, 100].into(), port);
            let datagram = CapturedDatagram { source, destination: ONE, payload, at_ns: 5 };
            ClientPacket::read(&datagram, PORT).map(|packet| packet.content)
        };
        assert_eq!(read(PORT + 1, &srtp(7, 1, 1)), None);
        assert_eq!(read(PORT, &[0; 40]), None, "STUN");
        assert_eq!(read(PORT, &[22; 40]), Some(ClientContent::Dtls));
        let end = [1; 16];
        assert_eq!(
            read(PORT, &srtp(7, 258, 1)),
            Some(ClientContent::Srtp { ssrc: 7, payload_type: 111, sequence: 258, end })
        );
    }
}
