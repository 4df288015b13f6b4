//! Event sources of a worker: its sockets and rings, and the waker for commands.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use evenkeel_core::NodeId;
use rustix::event::epoll;

use super::egress::Side;

/// Wakes a thread that waits in epoll.
#[derive(Debug)]
pub struct Waker(OwnedFd);

impl Waker {
    pub fn new() -> io::Result<Waker> {
        let flags = rustix::event::EventfdFlags::NONBLOCK | rustix::event::EventfdFlags::CLOEXEC;
        Ok(Waker(rustix::event::eventfd(0, flags)?))
    }

    pub fn wake(&self) {
        // A full counter means that the thread is being woken already.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    pub fn clear(&self) {
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    Listener(u8, Side),
    Trunk(NodeId),
    Port(u32, Side),
    Worker(u16),
    Quic,
    Commands,
}

impl Source {
    pub(super) fn token(self) -> u64 {
        let (kind, number) = match self {
            Source::Listener(number, Side::Rtp) => (0, u32::from(number)),
            Source::Listener(number, Side::Rtcp) => (1, u32::from(number)),
            Source::Trunk(node) => (2, node.0),
            Source::Port(slot, Side::Rtp) => (3, slot),
            Source::Port(slot, Side::Rtcp) => (4, slot),
            Source::Worker(number) => (5, u32::from(number)),
            Source::Quic => (6, 0),
            Source::Commands => (7, 0),
        };
        kind << 32 | u64::from(number)
    }

    pub(super) fn from_token(token: u64) -> Source {
        let number = token as u32;
        match token >> 32 {
            0 => Source::Listener(number as u8, Side::Rtp),
            1 => Source::Listener(number as u8, Side::Rtcp),
            2 => Source::Trunk(NodeId(number)),
            3 => Source::Port(number, Side::Rtp),
            4 => Source::Port(number, Side::Rtcp),
            5 => Source::Worker(number as u16),
            6 => Source::Quic,
            _ => Source::Commands,
        }
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Registers a descriptor. Ports of sessions are edge-triggered: a worker may have thousands, and `epoll_wait` would
/// report each unread one again.
pub(super) fn watch(epoll: impl AsFd, fd: impl AsFd, source: Source) -> io::Result<()> {
    let data = epoll::EventData::new_u64(source.token());
    let flags = match source {
        Source::Port(..) => epoll::EventFlags::IN | epoll::EventFlags::ET,
        Source::Listener(..)
        | Source::Trunk(_)
        | Source::Worker(_)
        | Source::Quic
        | Source::Commands => epoll::EventFlags::IN,
    };
    Ok(epoll::add(epoll, fd, data, flags)?)
}
