//! What stands in answers: loads, and how things went.

use super::Refused;
use super::signature::Body;

/// Set in the state where nobody vouches for it.
const UNVOUCHED: u8 = 0x80;

/// How a node fares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Load {
    /// Use of its capacity in thousandths; 1,000 and more is full.
    pub permille: u16,
    /// Whether it serves.
    pub state: State,
    /// Sessions open at it.
    pub sessions: u32,
    /// Whether the media port itself says so, or was found to answer just now. An agent that checks no port cannot say.
    pub vouched: bool,
}

/// Whether a node serves. On the wire its place in [`State::ALL`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// It takes new sessions.
    Serving,
    /// Not any more; those open stay until they are moved away.
    Draining,
    /// Its process died, or was not started: nothing is forwarded there. What an agent says that answers beside it.
    Gone,
}

/// How an opening or closing went. On the wire its place in [`Status::ALL`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// Done.
    Ok,
    /// Refused: no room for it.
    Full,
    /// Refused: the node is draining.
    Draining,
    /// Refused: no session has this tag.
    UnknownTag,
    /// Not done: what stands behind the agent did not take it.
    Failed,
}

/// What a drill breaks, and what mends it. On the wire its place in [`Break::ALL`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Break {
    /// Its process is killed (SIGKILL).
    Kill,
    /// Its process stands still (SIGSTOP).
    Hang,
    /// It goes on (SIGCONT).
    Wake,
    /// The way to it is cut: nothing is forwarded, no probe is answered.
    Cut,
    /// The way is whole again.
    Heal,
}

/// What became of an order to start or to break a node. On the wire its place in [`Outcome::ALL`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It is done, or under way.
    Done,
    /// The agent's configuration does not allow drills.
    Forbidden,
    /// There is nothing there that it could be done to.
    Unable,
}

impl State {
    /// All of them, by their codes.
    pub const ALL: [State; 3] = [State::Serving, State::Draining, State::Gone];
}

impl Status {
    /// All of them, by their codes.
    pub const ALL: [Status; 5] =
        [Status::Ok, Status::Full, Status::Draining, Status::UnknownTag, Status::Failed];

    pub(super) fn read(body: &mut Body<'_>) -> Result<Self, Refused> {
        body.one_of(&Self::ALL)
    }
}

impl Break {
    /// All of them, by their codes.
    pub const ALL: [Break; 5] = [Break::Kill, Break::Hang, Break::Wake, Break::Cut, Break::Heal];

    /// The word for it: `kill`.
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
    /// All of them, by their codes.
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
