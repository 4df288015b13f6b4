//! Connections that outlive the process that accepted them.
//!
//! quinn's states cannot be handed over. After an upgrade the replaced process, a *predecessor*, keeps its connections until they end: it
//! encrypts, decrypts and acknowledges. It has no socket for clients. The process that serves receives each datagram, recognises by its
//! connection ID which process issued that, and passes it on over a [`ProcessLink`]; the predecessor returns the packets in it, as for a
//! worker, and datagrams for clients, which the serving process sends under its lease. Packets to clients go the same ways back.
//!
//! A session has the same [`Home`] in all these processes. The flow table is that of the process that serves; a predecessor has a copy
//! from the time of the upgrade:
//!
//! | item | to the serving process | to a predecessor |
//! |---|---|---|
//! | `Rtp`, `Rtcp` | a client's packet; without a home if the flow is unknown there | a packet to the client |
//! | `Attached` | the session uses a connection there | the flow belongs to this session |
//! | `Detached` | its connection has ended | the session has ended, or uses another process's connection |
//! | `Path` | a report of its path | |
//!
//! The next upgrade hands the links on, so that there is one hop however many predecessors live. A predecessor ends with its last
//! connection, or once its link is closed: by the end of the process that serves, or as the oldest of more than [`PREDECESSORS_MAX`]. Its
//! clients then get stateless resets.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bytes::{Buf, BufMut};
use quinn_proto::{ConnectionId, ConnectionIdGenerator, HashedConnectionIdGenerator};

use super::connection_ids::{ConnectionIdKeys, ID_LENGTH};
use super::process_link::ProcessLink;
use crate::flows::Home;

/// A connection outlives this many upgrades. Each predecessor costs the memory of a process.
const PREDECESSORS_MAX: usize = 4;

/// The layout of [`HandedConnections::encode`]. A process that does not know it takes no connections.
const LAYOUT: u8 = 1;

/// Bytes of a session in that layout.
const SESSION: usize = 2 + 4 + 4 + 8 + 1;

/// A session and the process that keeps its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct CarriedSession {
    pub(super) home: Home,
    /// The flow identifier towards the gateway.
    pub(super) flow: u64,
    pub(super) process: u8,
}

/// Connections of this process and its predecessors, for the process that replaces it.
#[derive(Debug)]
pub struct HandedConnections {
    /// The processes' numbers, and a link to each; the latest first.
    processes: Vec<(u8, OwnedFd)>,
    sessions: Vec<CarriedSession>,
}

impl HandedConnections {
    /// `newest` is the process that is replaced. The oldest of its predecessors ends if there are too many.
    pub(super) fn new(
        newest: u8,
        link: OwnedFd,
        predecessors: &Predecessors,
        sessions: Vec<CarriedSession>,
    ) -> io::Result<HandedConnections> {
        let mut processes = vec![(newest, link)];
        for Predecessor { process, link, .. } in predecessors.all.iter().take(PREDECESSORS_MAX - 1)
        {
            processes.push((*process, link.try_clone()?));
        }
        Ok(HandedConnections { processes, sessions })
    }

    /// The links, in the order of [`decode`](HandedConnections::decode).
    pub fn links(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.processes.iter().map(|(_, link)| link.as_fd())
    }

    /// The rest, for another process.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![LAYOUT, self.processes.len() as u8];
        out.extend(self.processes.iter().map(|(process, _)| process));
        for CarriedSession { home, flow, process } in &self.sessions {
            out.put_u16(home.worker);
            out.put_u32(home.slot);
            out.put_u32(home.generation);
            out.put_u64(*flow);
            out.put_u8(*process);
        }
        out
    }

    /// Connections of another process; `None` in another layout.
    pub fn decode(bytes: &[u8], links: Vec<OwnedFd>) -> Option<HandedConnections> {
        let (&[layout, count], bytes) = bytes.split_first_chunk()?;
        let (processes, sessions) = bytes.split_at_checked(count.into())?;
        let (sessions, rest) = sessions.as_chunks::<SESSION>();
        if layout != LAYOUT || processes.len() != links.len() || !rest.is_empty() {
            return None;
        }
        let session = |mut bytes: &[u8]| {
            let (worker, slot) = (bytes.get_u16(), bytes.get_u32());
            let home = Home { worker, slot, generation: bytes.get_u32() };
            CarriedSession { home, flow: bytes.get_u64(), process: bytes.get_u8() }
        };
        Some(HandedConnections {
            processes: processes.iter().copied().zip(links).collect(),
            sessions: sessions.iter().map(|bytes| session(bytes)).collect(),
        })
    }

    /// The processes as predecessors of the one with this number, and their sessions.
    pub(super) fn adopt(
        self,
        keys: &ConnectionIdKeys,
        own: u8,
    ) -> (Predecessors, Vec<CarriedSession>) {
        let HandedConnections { processes, sessions } = self;
        let all = processes.into_iter().map(|(process, link)| Predecessor {
            process,
            ids: keys.of_process(process),
            link: ProcessLink::of(link),
        });
        (Predecessors { own: Some(keys.of_process(own)), all: all.collect() }, sessions)
    }
}

pub(super) struct Predecessor {
    pub(super) process: u8,
    ids: HashedConnectionIdGenerator,
    pub(super) link: ProcessLink,
}

/// The predecessors of this process, the latest first.
#[derive(Default)]
pub(super) struct Predecessors {
    own: Option<HashedConnectionIdGenerator>,
    pub(super) all: Vec<Predecessor>,
}

impl Predecessors {
    pub(super) fn get(&self, process: u8) -> Option<&Predecessor> {
        self.all.iter().find(|predecessor| predecessor.process == process)
    }

    /// The process that issued the datagram's connection ID, if it is not this one.
    pub(super) fn issuer(&self, datagram: &[u8]) -> Option<&Predecessor> {
        if self.all.is_empty() {
            return None;
        }
        let id = destination(datagram)?;
        if self.own.as_ref().is_some_and(|own| own.validate(&id).is_ok()) {
            return None;
        }
        self.all.iter().find(|predecessor| predecessor.ids.validate(&id).is_ok())
    }
}

/// The destination connection ID (RFC 9000, 17.2 and 17.3), if it may be that of a connection. The ID of an Initial packet with a token
/// is that of a Retry packet, which any process with this identity can continue.
fn destination(datagram: &[u8]) -> Option<ConnectionId> {
    let (first, rest) = datagram.split_first()?;
    let is_long = first & 0x80 != 0;
    let rest = if is_long { rest.get(4..)? } else { rest };
    let rest = match rest.split_first() {
        Some((&length, rest)) if is_long => (usize::from(length) == ID_LENGTH).then_some(rest)?,
        _ => rest,
    };
    let (id, rest) = rest.split_at_checked(ID_LENGTH)?;
    if is_long && first & 0x30 == 0 {
        let (&source, rest) = rest.split_first()?;
        if *rest.get(usize::from(source))? != 0 {
            return None;
        }
    }
    Some(ConnectionId::new(id))
}

#[cfg(test)]
mod tests;
