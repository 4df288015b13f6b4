//! What a driver does at a node.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use evenkeel_config::{DriverKind, NodeConfig};
use evenkeel_http::Posted;
use evenkeel_model::{Hop, NodeId, SessionId};

use crate::fencing::Fencing;
use crate::record::DriversRecord;
use crate::session::{Clock, ContinuedSession, DriverAction, LocalSource, OpenRequest, RoomNames};

/// A driver: how it reads its keys, and how it starts at a node.
pub trait Driver: DriverKind {
    /// The driver of a node with these settings, which it has read.
    fn start(
        &self,
        node: NodeId,
        config: &NodeConfig,
        context: &DriverContext,
    ) -> Box<dyn NodeDriver>;
}

/// Drivers that `[[node]]` may name.
pub type DriverTable = &'static [&'static dyn Driver];

/// The driver of one node. It does no I/O and never blocks: what it sends is a [`DriverAction`], an answer is a
/// [`NodeInput`], and an answer that is late is a timeout of [`NodeDriver::poll`].
pub trait NodeDriver: Send {
    /// Opens a session at a hop. The result is returned at once, or comes later from `handle` or `poll`.
    fn open(
        &mut self,
        request: &OpenRequest<'_>,
        draw: &mut dyn FnMut() -> u64,
        clock: Clock,
    ) -> Option<DriverAction>;

    /// Closes a session at a hop. If the message is lost, the session's lease at the node expires.
    fn close(&mut self, session: SessionId, hop: Hop, clock: Clock) -> Option<DriverAction>;

    /// Handles what comes from the node or is known of it. A driver ignores the inputs that its nodes do not send.
    fn handle(
        &mut self,
        input: NodeInput,
        draw: &mut dyn FnMut() -> u64,
        clock: Clock,
    ) -> Option<DriverAction>;

    /// Returns the next queued message, retry or refresh that is due. Called until it returns `None`.
    fn poll(&mut self, clock: Clock) -> Option<DriverAction>;

    /// Adds these sessions at the node to the records by which another process continues them.
    fn record(&self, scope: RecordScope, record: &mut DriversRecord);

    /// Continues the sessions that another process recorded at this node.
    fn restore(
        &mut self,
        record: DriversRecord,
        known: &ContinuedSession<'_>,
        draw: &mut dyn FnMut() -> u64,
        now: Instant,
    );

    /// Refreshes all sessions at once, since another process did until now.
    fn refresh(&mut self, _now: Instant) {}

    /// The node drops packets from a source until a message of the driver came from there.
    fn announces_source(&self) -> bool {
        false
    }

    /// The address of the packets of all sessions, at a node that separates them by their source only.
    fn shared_address(&self) -> Option<SocketAddr> {
        None
    }
}

/// An input of a node's driver.
#[derive(PartialEq, Eq)]
pub enum NodeInput {
    /// A datagram from the node's address.
    Datagram(Box<[u8]>),
    /// ICMP reports that no process listens for the datagrams that begin with these bytes.
    Unreachable(Vec<Box<[u8]>>),
    /// The response to the POST of this number.
    Posted {
        /// The request's number.
        number: u64,
        /// The response, or why there is none.
        response: Posted,
    },
    /// A message that the node's agent signed.
    Signed(Box<[u8]>),
    /// The number of sessions that the node's agent reports.
    Sessions(u32),
    /// A bundle longer than the minimum size was sent to the node or received from it.
    LongBundle {
        /// The worker that carries it.
        worker: u16,
    },
    /// A stream of the session began anew, so its SRTP needs other keys.
    StreamRestarted {
        /// The session of the stream.
        session: SessionId,
        /// The hop of its leg.
        hop: Hop,
    },
}

impl fmt::Debug for NodeInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NodeInput::Datagram(datagram) => write!(f, "Datagram({} bytes)", datagram.len()),
            NodeInput::Unreachable(quotes) => write!(f, "Unreachable({} quotes)", quotes.len()),
            NodeInput::Posted { number, .. } => write!(f, "Posted({number})"),
            NodeInput::Signed(message) => write!(f, "Signed({} bytes)", message.len()),
            NodeInput::Sessions(sessions) => write!(f, "Sessions({sessions})"),
            NodeInput::LongBundle { worker } => write!(f, "LongBundle({worker})"),
            NodeInput::StreamRestarted { session, .. } => write!(f, "StreamRestarted({session})"),
        }
    }
}

/// The sessions that are recorded.
#[derive(Clone, Copy, Debug)]
pub enum RecordScope {
    /// All sessions, for the process that replaces this one.
    All,
    /// One session at one hop, for a follower of the records.
    Session {
        /// The recorded session.
        session: SessionId,
        hop: Hop,
        /// With keys of SRTP. A standby gets none, since this process may go on with them.
        with_keys: bool,
    },
}

/// The gateway, as its drivers know it.
pub struct DriverContext {
    /// The source of packets from sessions' own ports.
    pub source: LocalSource,
    /// The ownership of a group that nodes are told.
    pub fencing: Arc<Fencing>,
    pub(crate) room_names: Arc<RoomNames>,
}
