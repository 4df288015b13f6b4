//! Values in messages: loads, states and results.

use super::MessageError;
use super::signature::MessageBody;

/// Added to the encoded state if `vouched` is false.
const UNVOUCHED: u8 = 0x80;

/// Load and state of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeLoad {
    /// Use of the node's capacity in thousandths; full at 1,000.
    pub permille: u16,
    /// Whether the node takes sessions.
    pub state: ServingState,
    /// Open sessions.
    pub sessions: u32,
    /// True if the media port itself answered, or was checked just before. False for an agent
    /// without a port check.
    pub vouched: bool,
}

/// State of a node. Encoded as its index in [`ServingState::ALL`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServingState {
    /// The node accepts new sessions.
    Serving,
    /// The node accepts no new sessions; open ones remain until they are moved.
    Draining,
    /// The node's process died or was not started, as reported by an agent beside it.
    Gone,
}

/// Result of opening or closing a session. Encoded as its index in [`OpenStatus::ALL`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenStatus {
    /// The session is open.
    Ok,
    /// Refused: the node is at capacity.
    Full,
    /// Refused: the node is draining.
    Draining,
    /// Refused: no session has this tag.
    UnknownTag,
    /// The server behind the agent refused.
    Failed,
    /// Refused: the node takes encrypted datagrams only.
    Unencrypted,
}

/// A fault that a drill injects or ends. Encoded as its index in [`NodeFault::ALL`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum NodeFault {
    /// SIGKILL.
    Kill,
    /// SIGSTOP.
    Hang,
    /// SIGCONT.
    Wake,
    /// Cuts the link: the agent forwards nothing and answers no probe.
    Cut,
    /// Restores the link.
    Heal,
}

/// Result of an order to start or break a node. Encoded as its index in [`OrderOutcome::ALL`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OrderOutcome {
    /// The order was executed, or is being executed.
    Done,
    /// The agent's configuration does not allow drills.
    Forbidden,
    /// The order has no target, such as no process to signal.
    Unable,
}

impl ServingState {
    /// In the order of their codes.
    pub const ALL: [ServingState; 3] =
        [ServingState::Serving, ServingState::Draining, ServingState::Gone];
}

impl OpenStatus {
    /// In the order of their codes.
    pub const ALL: [OpenStatus; 6] = [
        OpenStatus::Ok,
        OpenStatus::Full,
        OpenStatus::Draining,
        OpenStatus::UnknownTag,
        OpenStatus::Failed,
        OpenStatus::Unencrypted,
    ];

    pub(super) fn read(body: &mut MessageBody<'_>) -> Result<Self, MessageError> {
        body.one_of(&Self::ALL)
    }
}

impl NodeFault {
    /// In the order of their codes.
    pub const ALL: [NodeFault; 5] =
        [NodeFault::Kill, NodeFault::Hang, NodeFault::Wake, NodeFault::Cut, NodeFault::Heal];

    /// The fault's name in the API: `kill`.
    pub fn name(self) -> &'static str {
        match self {
            NodeFault::Kill => "kill",
            NodeFault::Hang => "hang",
            NodeFault::Wake => "wake",
            NodeFault::Cut => "cut",
            NodeFault::Heal => "heal",
        }
    }
}

impl OrderOutcome {
    /// In the order of their codes.
    pub const ALL: [OrderOutcome; 3] =
        [OrderOutcome::Done, OrderOutcome::Forbidden, OrderOutcome::Unable];
}

impl NodeLoad {
    pub(super) fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.permille.to_be_bytes());
        out.push(self.state as u8 | if self.vouched { 0 } else { UNVOUCHED });
        out.extend_from_slice(&self.sessions.to_be_bytes());
    }

    pub(super) fn read(body: &mut MessageBody<'_>) -> Result<Self, MessageError> {
        let (permille, state) = (body.u16()?, body.u8()?);
        let vouched = state & UNVOUCHED == 0;
        let state = ServingState::ALL.get(usize::from(state & !UNVOUCHED));
        let state = *state.ok_or(MessageError::Unknown)?;
        Ok(Self { permille, state, sessions: body.u32()?, vouched })
    }
}
