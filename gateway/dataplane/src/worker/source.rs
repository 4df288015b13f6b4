//! Event sources of a worker: its sockets, its rings and the waker for commands.

use std::io;
use std::os::fd::AsFd;

use evenkeel_model::NodeId;
use rustix::event::epoll;

use super::ports::RtpSide;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PacketSource {
    Listener(u8, RtpSide),
    Trunk(NodeId),
    Port(u32, RtpSide),
    Worker(u16),
    Quic,
    Commands,
}

impl PacketSource {
    pub(super) fn token(self) -> u64 {
        let (kind, number) = match self {
            PacketSource::Listener(number, RtpSide::Rtp) => (0, u32::from(number)),
            PacketSource::Listener(number, RtpSide::Rtcp) => (1, u32::from(number)),
            PacketSource::Trunk(node) => (2, node.0),
            PacketSource::Port(slot, RtpSide::Rtp) => (3, slot),
            PacketSource::Port(slot, RtpSide::Rtcp) => (4, slot),
            PacketSource::Worker(number) => (5, u32::from(number)),
            PacketSource::Quic => (6, 0),
            PacketSource::Commands => (7, 0),
        };
        kind << 32 | u64::from(number)
    }

    pub(super) fn from_token(token: u64) -> PacketSource {
        let number = token as u32;
        match token >> 32 {
            0 => PacketSource::Listener(number as u8, RtpSide::Rtp),
            1 => PacketSource::Listener(number as u8, RtpSide::Rtcp),
            2 => PacketSource::Trunk(NodeId(number)),
            3 => PacketSource::Port(number, RtpSide::Rtp),
            4 => PacketSource::Port(number, RtpSide::Rtcp),
            5 => PacketSource::Worker(number as u16),
            6 => PacketSource::Quic,
            _ => PacketSource::Commands,
        }
    }
}

/// Registers a descriptor. Ports of sessions are edge-triggered: a worker may have thousands, and `epoll_wait` would
/// report each unread one again.
pub(super) fn watch(epoll: impl AsFd, fd: impl AsFd, source: PacketSource) -> io::Result<()> {
    let data = epoll::EventData::new_u64(source.token());
    let flags = match source {
        PacketSource::Port(..) => epoll::EventFlags::IN | epoll::EventFlags::ET,
        PacketSource::Listener(..)
        | PacketSource::Trunk(_)
        | PacketSource::Worker(_)
        | PacketSource::Quic
        | PacketSource::Commands => epoll::EventFlags::IN,
    };
    Ok(epoll::add(epoll, fd, data, flags)?)
}
