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
//! | old | `go` | the new process reads; the old one ends, and closes no session. With it come links to the processes that keep QUIC connections |
//! | new | `failed` | in place of any other message: the reason |
//!
//! A process that has QUIC connections does not end before them (`dataplane/src/quic/predecessors.rs`).
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
mod upgrade;

pub use child::SuccessorProgram;
pub use inherit::Successor;
pub use notify::ready;
pub use upgrade::{
    NotUpgraded, READY_WITHIN, ReplacedGateway, RequestGate, UpgradeCommand as UpgradeRequest,
    Upgrader, Upgrades,
};

/// The argument of a process that takes over from the process at its standard input.
pub(crate) const INHERIT: &str = "--inherit";
