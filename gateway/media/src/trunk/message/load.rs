//! Values in messages: loads, states and results.

use super::Refused;
use super::signature::Body;

/// Added to the encoded state if `vouched` is false.
const UNVOUCHED: u8 = 0x80;

/// Load and state of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Load {
    /// Use of the node's capacity in thousandths; full at 1,000.
    pub permille: u16,
    pub state: State,
    pub sessions: u32,
    /// True if the media port itself answered, or was checked just before. False for an agent
    /// without a port check.
    pub vouched: bool,
}

/// State of a node. Encoded as its index in [`State::ALL`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// The node accepts new sessions.
    Serving,
    /// The node accepts no new sessions; open ones remain until they are moved.
    Draining,
    /// The node's process died or was not started, as reported by an agent beside it.
    Gone,
}

/// Result of opening or closing a session. Encoded as its index in [`Status::ALL`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
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

/// A fault that a drill injects or ends. Encoded as its index in [`Break::ALL`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Break {
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

/// Result of an order to start or break a node. Encoded as its index in [`Outcome::ALL`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The order was executed, or is being executed.
    Done,
    /// The agent's configuration does not allow drills.
    Forbidden,
    /// The order has no target, such as no process to signal.
    Unable,
}

impl State {
    pub const ALL: [State; 3] = [State::Serving, State::Draining, State::Gone];
}

impl Status {
    pub const ALL: [Status; 6] = [
        Status::Ok,
        Status::Full,
        Status::Draining,
        Status::UnknownTag,
        Status::Failed,
        Status::Unencrypted,
    ];

    pub(super) fn read(body: &mut Body<'_>) -> Result<Self, Refused> {
        body.one_of(&Self::ALL)
    }
}

impl Break {
    pub const ALL: [Break; 5] = [Break::Kill, Break::Hang, Break::Wake, Break::Cut, Break::Heal];

    /// The fault's name in the API: `kill`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Break::Kill => "kill",
            Break::Hang => "hang",
            Break::Wake => "wake",
            Break::Cut => "cut",
            Break::Heal => "heal",
        }
    }
}

impl Outcome {
    pub const ALL: [Outcome; 3] = [Outcome::Done, Outcome::Forbidden, Outcome::Unable];
}

impl Load {
    pub(super) fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.permille.to_be_bytes());
        out.push(self.state as u8 | if self.vouched { 0 } else { UNVOUCHED });
        out.extend_from_slice(&self.sessions.to_be_bytes());
    }

    pub(super) fn read(body: &mut Body<'_>) -> Result<Self, Refused> {
        let (permille, state) = (body.u16()?, body.u8()?);
        let vouched = state & UNVOUCHED == 0;
        let state = State::ALL.get(usize::from(state & !UNVOUCHED));
        let state = *state.ok_or(Refused::Unknown)?;
        Ok(Self { permille, state, sessions: body.u32()?, vouched })
    }
}
