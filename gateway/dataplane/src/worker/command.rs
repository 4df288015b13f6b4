//! Commands from control to a worker, and the answers to them.

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use evenkeel_media::srtp::{CopyNumber, SrtpKeys};
use evenkeel_model::{Hop, MediaDescription, MediaLimits, NodeId};
use tokio::sync::mpsc;

use super::dtls::HandshakeFlight;
use super::egress::{TrunkSocket, TrunkState};
use super::session::{AnsweredMedia, Install, NodeLeg, SessionState};
use crate::flows::Home;

/// A command of control, run in the order of the channel.
#[derive(Debug)]
pub enum WorkerCommand {
    /// Adds a session.
    Install(Box<Install>),
    /// Adds the leg that the node of this hop opened for the session.
    Attach {
        /// Worker and slot of the session.
        home: Home,
        /// The hop of the leg.
        hop: Hop,
        /// The leg's path to the node.
        leg: NodeLeg,
    },
    /// Removes the session's leg at this hop.
    Detach {
        /// Worker and slot of the session.
        home: Home,
        /// The hop of the leg.
        hop: Hop,
    },
    /// Sets the limits of a session's media.
    Limit {
        /// Worker and slot of the session.
        home: Home,
        /// Replace the earlier ones.
        limits: MediaLimits,
    },
    /// Sets the keys on which the client's DTLS handshake agreed.
    SetKeys {
        /// Worker and slot of the session.
        home: Home,
        /// The keys of both directions.
        keys: Arc<SrtpKeys>,
    },
    /// Follows the answer to a later offer of a WebRTC client.
    Renegotiate {
        /// Worker and slot of the session.
        home: Home,
        /// The streams from now on.
        media: Arc<MediaDescription>,
        /// The direction and the numbers of the answer.
        answered: Arc<AnsweredMedia>,
    },
    /// Sends DTLS to a client.
    SendDtls(Box<HandshakeFlight>),
    /// Requests a key frame from the client for each of its video streams.
    KeyFrame(Home),
    /// Panics at the session's next packet.
    #[cfg(any(test, feature = "fault-injection"))]
    Panic(Home),
    /// Removes a session, which is reported with its totals.
    Remove(Home),
    /// Removes all sessions without a report: they go on at another gateway.
    ForgetRestored,
    /// Sends a signed message on the trunk of a node.
    SendSigned {
        /// The receiver.
        node: NodeId,
        /// The whole datagram, before encryption.
        message: Box<[u8]>,
        /// Encrypt it if the trunk is encrypted. Path probes are not: their length is what they probe.
        sealed: bool,
    },
    /// Limits the size of datagrams that packets to this node share.
    LimitBundles {
        /// The node of the trunk.
        node: NodeId,
        /// Bytes; one of [`BUNDLE_SIZES`](super::BUNDLE_SIZES).
        size_max: u16,
    },
    /// Opens or replaces the trunk to a node.
    AddTrunk {
        /// The node of the trunk.
        node: NodeId,
        /// A socket connected to the node.
        trunk: TrunkSocket,
    },
    /// Closes the node's trunk and clears its statistics. Its number may be reused afterwards.
    RemoveNode(NodeId),
    /// Copies the sessions in these slots that have sockets of their own, with duplicates of these sockets. Fails if a
    /// socket cannot be duplicated.
    Duplicate {
        /// Slots of sessions at this worker.
        slots: Range<u32>,
        /// Includes sessions without sockets.
        all: bool,
        /// The copies are for a standby, and limit the indices of SRTP.
        for_standby: bool,
        /// Receives the copies.
        done: crossbeam_channel::Sender<io::Result<SocketDuplicates>>,
    },
    /// Finishes the packets that were read, sends them, and hands out the sessions that have changed since their last
    /// copy, and the trunks. Then reads nothing and runs only commands until [`WorkerCommand::Resume`]. Sent to all workers
    /// together: each waits for the packets that others pass to it. The channel has room for all
    /// [parts](HandedOut::parts).
    Suspend(mpsc::Sender<HandedOut>),
    /// Copies sessions that have changed since their last copy: those in these slots, and those with another leg, hop
    /// or address.
    Copy {
        /// Slots of sessions at this worker.
        slots: Range<u32>,
        /// Includes sessions in these slots that have not changed.
        all: bool,
        /// The copies are for a standby, and limit the indices of SRTP.
        for_standby: bool,
        /// Receives the copies.
        done: crossbeam_channel::Sender<Copies>,
    },
    /// Continues the session in this newer state.
    Continue {
        /// The session, which is installed already.
        home: Home,
        /// Replaces the state that the session has.
        state: Box<SessionState>,
    },
    /// Continues the trunk of another process on a duplicate of its socket. The secret must be the same.
    ContinueTrunk(Box<TrunkState>),
    /// Answers when all earlier commands have run.
    Confirm(crossbeam_channel::Sender<()>),
    /// Reads again, first what has arrived meanwhile.
    Resume,
    /// Ends the thread of the worker.
    Stop,
}

/// A copy of a session that goes on.
#[derive(Debug)]
pub struct Duplicate {
    /// The state at the time of the copy.
    pub state: SessionState,
    /// Duplicates of the session's own sockets for RTP and, if it has a separate port, for RTCP.
    pub ports: Option<(OwnedFd, Option<OwnedFd>)>,
}

/// Answer to [`WorkerCommand::Duplicate`](WorkerCommand::Duplicate).
#[derive(Debug)]
pub struct SocketDuplicates {
    /// The copied sessions, by slot.
    pub sessions: Vec<Duplicate>,
    /// The number of the worker's slots.
    pub slots: u32,
}

/// The sessions of a suspended worker, in parts: another worker continues the first while this one hands out the others.
#[derive(Debug)]
pub enum HandedOut {
    /// Up to [`HandedOut::PART`] sessions that have changed since their last copy.
    Sessions(Vec<SessionState>),
    /// The last part: the trunks.
    Trunks {
        /// Number of the worker.
        worker: u16,
        /// The state of each open trunk.
        trunks: Vec<TrunkState>,
    },
}

impl HandedOut {
    /// Half a millisecond for the process that encodes them, and for the one that reads them.
    pub const PART: usize = 64;

    /// The number of parts of a worker with this number of slots, at most.
    pub fn parts(slots: usize) -> usize {
        slots.div_ceil(HandedOut::PART) + 1
    }
}

/// Copies of sessions that go on.
#[derive(Debug)]
pub struct Copies {
    /// Each with the number of its own sockets.
    pub sessions: Vec<(SessionState, u8)>,
    /// The number of the worker's slots.
    pub slots: u32,
    /// The number of this copy.
    pub number: CopyNumber,
}
