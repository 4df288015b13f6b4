//! The socket between a process that keeps QUIC connections and the one that serves, and the messages on it.

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bytes::{Buf, BufMut};
use quinn_proto::EcnCodepoint;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketFlags, SocketType,
    recv, sendmsg, shutdown, socketpair,
};

use super::socket::{DATAGRAM_MAX, From, SEGMENTS_MAX};
use crate::flows::{Home, scope};
use crate::ring::{PacketPriority, PathReport, RingFull, RingItem, RingMeta, SendTerms};
use crate::{address, buffers};

/// Socket buffer in bytes, as far as the system grants it: the kernel counts about a KiB for each voice packet.
const BUFFER: usize = 1_024 * 1_024;

/// Length of a message's header in bytes. Bytes that its kind does not use are 0.
const HEADER: usize = 44;

/// The longest message: datagrams of one size that quinn sends together.
pub(super) const MESSAGE_MAX: usize = HEADER + SEGMENTS_MAX * DATAGRAM_MAX;

/// The kinds of messages.
const DATAGRAM: u8 = 0;
const RTP: u8 = 1;
const RTCP: u8 = 2;
const PATH: u8 = 3;
const ATTACHED: u8 = 4;
const DETACHED: u8 = 5;

/// One end. Messages keep their boundaries and their order; the end of the other process ends them.
#[derive(Debug)]
pub(super) struct ProcessLink(OwnedFd);

/// The result of a read.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum LinkRead<'a> {
    /// Datagrams from or to a client, of this size each except the last.
    Datagram {
        client: From,
        segment: Option<usize>,
        bytes: &'a [u8],
    },
    /// An item as in the rings between the endpoint and workers.
    Item(RingMeta, &'a [u8]),
    /// A message of a later version.
    Unknown,
    Nothing,
    /// The other process sends nothing more.
    Ended,
}

impl ProcessLink {
    /// A link, and its other end for another process.
    pub(super) fn pair() -> io::Result<(ProcessLink, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (here, there) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        for end in [&here, &there] {
            buffers::set_sizes(end, BUFFER);
        }
        Ok((ProcessLink(here), there))
    }

    /// The other end of a [`pair`](ProcessLink::pair) of another process.
    pub(super) fn of(end: OwnedFd) -> ProcessLink {
        ProcessLink(end)
    }

    /// Sends nothing more. The other process reads the end, and may still send.
    pub(super) fn finish(&self) {
        // Fails only if the other process has closed its end.
        let _ = shutdown(&self.0, Shutdown::Write);
    }

    pub(super) fn try_clone(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }

    /// Sends datagrams from or to a client. Returns `false` if the socket is full.
    pub(super) fn send_datagram(&self, client: From, segment: Option<usize>, bytes: &[u8]) -> bool {
        let From { source, local, ecn } = client;
        let mut header = [0; HEADER];
        let mut out = &mut header[..];
        out.put_u8(DATAGRAM);
        out.put_u8(ecn.map_or(0, |ecn| ecn as u8));
        // Longer segments than a message do not exist.
        out.put_u16(segment.and_then(|size| u16::try_from(size).ok()).unwrap_or(0));
        put_ip(&mut out, Some(source.ip()));
        out.put_u16(source.port());
        out.put_u32(scope(&source));
        put_ip(&mut out, local);
        self.send(&header, bytes)
    }

    /// Sends an item.
    ///
    /// # Errors
    /// [`RingFull`]: the socket is full, and nothing was sent.
    pub(super) fn push(&self, meta: RingMeta, bytes: &[u8]) -> Result<(), RingFull> {
        let RingMeta { home: Home { worker, slot, generation }, kind, flow } = meta;
        let none = PathReport { rtt_us: 0, lost: 0, sent: 0 };
        let terms = match kind {
            RingItem::ToClient(terms) => Some(terms),
            _ => None,
        };
        let (kind, PathReport { rtt_us, lost, sent }) = match kind {
            // A process of an earlier version reads it without its terms.
            RingItem::Rtp | RingItem::ToClient(_) => (RTP, none),
            RingItem::Rtcp => (RTCP, none),
            RingItem::Path(report) => (PATH, report),
            RingItem::Attached => (ATTACHED, none),
            RingItem::Detached => (DETACHED, none),
            // Passes between workers only.
            RingItem::Relayed => return Ok(()),
        };
        let mut header = [0; HEADER];
        let mut out = &mut header[..];
        out.put_u8(kind);
        out.put_u16(worker);
        out.put_u32(slot);
        out.put_u32(generation);
        out.put_u64(flow);
        out.put_u32(rtt_us);
        out.put_u32(lost);
        out.put_u32(sent);
        out.put_u8(terms.map_or(0, |terms| terms.priority as u8));
        out.put_u16(terms.map_or(0, |terms| terms.latency_ms));
        if self.send(&header, bytes) { Ok(()) } else { Err(RingFull) }
    }

    /// Reads a message into a buffer of [`MESSAGE_MAX`].
    pub(super) fn receive<'a>(&self, buffer: &'a mut [u8]) -> LinkRead<'a> {
        match recv(&self.0, &mut *buffer, RecvFlags::empty()) {
            Ok((0, _)) => LinkRead::Ended,
            Ok((length, _)) => read(&buffer[..length]).unwrap_or(LinkRead::Unknown),
            Err(Errno::AGAIN | Errno::INTR) => LinkRead::Nothing,
            // The other process has ended without reading all. Its messages may wait behind the error, which comes once.
            Err(Errno::CONNRESET) => LinkRead::Unknown,
            Err(_) => LinkRead::Ended,
        }
    }

    fn send(&self, header: &[u8], bytes: &[u8]) -> bool {
        let parts = [IoSlice::new(header), IoSlice::new(bytes)];
        let none = &mut SendAncillaryBuffer::default();
        // The next read tells of the end of the other process.
        !matches!(sendmsg(&self.0, &parts, none, SendFlags::NOSIGNAL), Err(Errno::AGAIN))
    }
}

impl AsFd for ProcessLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn read(message: &[u8]) -> Option<LinkRead<'_>> {
    let (mut header, bytes) = message.split_at_checked(HEADER)?;
    let kind = header.get_u8();
    if kind == DATAGRAM {
        let ecn = EcnCodepoint::from_bits(header.get_u8());
        let segment = match header.get_u16() {
            0 => None,
            size => Some(usize::from(size)),
        };
        let ip = get_ip(&mut header)?;
        let (port, scope) = (header.get_u16(), header.get_u32());
        let source = match ip {
            IpAddr::V4(_) => SocketAddr::new(ip, port),
            IpAddr::V6(v6) => SocketAddrV6::new(v6, port, 0, scope).into(),
        };
        let client = From { source, local: get_ip(&mut header), ecn };
        return Some(LinkRead::Datagram { client, segment, bytes });
    }
    let (worker, slot, generation) = (header.get_u16(), header.get_u32(), header.get_u32());
    let (home, flow) = (Home { worker, slot, generation }, header.get_u64());
    let (rtt_us, lost, sent) = (header.get_u32(), header.get_u32(), header.get_u32());
    let (priority, latency_ms) = (header.get_u8(), header.get_u16());
    let kind = match kind {
        RTP if latency_ms == 0 => RingItem::Rtp,
        RTP => {
            let priority = match priority {
                0 => PacketPriority::Voice,
                1 => PacketPriority::Video,
                _ => PacketPriority::VideoRepair,
            };
            RingItem::ToClient(SendTerms { priority, latency_ms })
        }
        RTCP => RingItem::Rtcp,
        PATH => RingItem::Path(PathReport { rtt_us, lost, sent }),
        ATTACHED => RingItem::Attached,
        DETACHED => RingItem::Detached,
        _ => return None,
    };
    Some(LinkRead::Item(RingMeta { home, kind, flow }, bytes))
}

/// Writes an address with its family: a socket of IPv6 takes and gives IPv4 addresses in their mapped form only.
fn put_ip(out: &mut impl BufMut, ip: Option<IpAddr>) {
    let family = match ip {
        None => 0,
        Some(IpAddr::V4(_)) => 4,
        Some(IpAddr::V6(_)) => 6,
    };
    out.put_u8(family);
    out.put_slice(&ip.map_or(Ipv6Addr::UNSPECIFIED, address::as_v6).octets());
}

fn get_ip(input: &mut &[u8]) -> Option<IpAddr> {
    let family = input.get_u8();
    let v6 = Ipv6Addr::from_bits(input.get_u128());
    match family {
        4 => v6.to_ipv4_mapped().map(IpAddr::V4),
        6 => Some(v6.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
