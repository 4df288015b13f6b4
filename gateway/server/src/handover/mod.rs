//! Hands a running gateway over to a new process, with its sockets and sessions. Packets wait in the sockets' buffers
//! meanwhile.
//!
//! The old process starts the new one with `--inherit`, and with a Unix socket as its standard input.
//!
//! | from | message | meaning |
//! |---|---|---|
//! | old | `hello` | duplicates of all sockets |
//! | new | `ready` | configuration, plugins and threads are there; no packet and no request is read |
//! | old | `records` | sessions as they are, while the old process serves them; sent several times |
//! | old | `state` | the last changes of sessions, and their own ports; the old process decides nothing from here on |
//! | new | `restored` | all sessions are there |
//! | old | `media-part` | last states of sessions with media; the old process reads nothing from here on |
//! | old | `media` | the rest of them |
//! | new | `continued` | all sessions are in these states |
//! | old | `go` | the new process reads; the old one ends, and closes no session |
//! | new | `failed` | in place of any other message: the reason |
//!
//! `ready` names the layout of last states that the new process reads besides MessagePack (`control::STATES`).
//!
//! Until `go` the old process can continue, and does after any failure. A new process that must end, for example by a
//! signal, first closes the channel for reading: either `go` has arrived by then, and it serves and ends in order, or `go`
//! cannot be sent any more. The old process kills the new one before packets are read again.

mod channel;
mod child;
mod inherit;
mod init;
mod message;
mod notify;
mod predecessor;
mod successor;
mod upgrade;

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;

use evenkeel_dataplane::quic;

pub use child::SuccessorProgram;
pub(crate) use inherit::Heir;
pub(crate) use message::SocketName;
pub(crate) use notify::ready;
pub(crate) use upgrade::{
    NotUpgraded, READY_WITHIN, ReplacedGateway, UpgradeCommand as UpgradeRequest, UpgradeResult,
    Upgrader, Upgrades,
};

/// The argument of a process that takes over from the process at its standard input.
pub const INHERIT: &str = "--inherit";

/// Duplicates of a gateway's sockets, for the process that replaces it.
pub(crate) type NamedSockets = Vec<(SocketName, OwnedFd)>;

/// Descriptors from the process that this one replaces; none for a process that replaces no other.
#[derive(Default, Debug)]
pub(crate) struct Inherited {
    sockets: BTreeMap<SocketName, VecDeque<OwnedFd>>,
    quic: Option<quic::EndpointIdentity>,
}

impl Inherited {
    pub(crate) fn of(
        sockets: impl IntoIterator<Item = (SocketName, OwnedFd)>,
        quic: Option<quic::EndpointIdentity>,
    ) -> Inherited {
        let mut inherited = Inherited { sockets: BTreeMap::new(), quic };
        for (name, socket) in sockets {
            inherited.sockets.entry(name).or_default().push_back(socket);
        }
        inherited
    }

    /// The certificate and the keys of the QUIC endpoint.
    pub(crate) fn take_quic_identity(&mut self) -> Option<quic::EndpointIdentity> {
        self.quic.take()
    }

    /// Takes a descriptor of this use. Listeners with port 0 may have the same name, and keep their order.
    pub(crate) fn take(&mut self, name: &SocketName) -> Option<OwnedFd> {
        self.sockets.get_mut(name)?.pop_front()
    }

    /// The descriptors that were not taken.
    pub(crate) fn remaining(&self) -> impl Iterator<Item = &SocketName> {
        self.sockets.iter().filter(|(_, sockets)| !sockets.is_empty()).map(|(name, _)| name)
    }
}
