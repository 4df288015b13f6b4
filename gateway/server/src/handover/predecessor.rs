//! The old process's steps, without I/O.

use super::message::{Message, Version};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// The new process starts.
    Starts,
    /// Decisions are being stopped.
    Suspends,
    /// The new process restores the sessions.
    Restores,
    /// The new process takes the last states, while packets wait.
    Continues {
        sessions: usize,
    },
    /// The new process serves.
    Gone,
    Failed,
}

pub(super) struct Predecessor {
    state: State,
    version: Version,
    /// The layout of last states that the new process reads.
    states: Option<u32>,
}

#[derive(PartialEq, Debug)]
pub(super) enum Input {
    Message(Message),
    /// Nothing is decided any more.
    Suspended,
    /// The new process ended, was too slow, or something failed here.
    Failed(String),
}

#[derive(PartialEq, Eq, Debug)]
pub(super) enum Action {
    Suspend,
    SendState,
    /// Stop packets, and send the last states in this layout, if any.
    SendMedia {
        layout: Option<u32>,
    },
    SendGo {
        sessions: usize,
    },
    /// End the new process. `resume`: packets may have been stopped.
    Abandon {
        reason: String,
        resume: bool,
    },
}

impl Predecessor {
    pub(super) fn new(version: Version) -> Predecessor {
        Predecessor { state: State::Starts, version, states: None }
    }

    pub(super) fn handle(&mut self, input: Input) -> Action {
        match (self.state, input) {
            (State::Starts, Input::Message(Message::Ready { version, states })) => {
                if let Err(reason) = self.version.require_same(&version) {
                    return self.abandon(reason);
                }
                (self.state, self.states) = (State::Suspends, states);
                Action::Suspend
            }
            (State::Suspends, Input::Suspended) => {
                self.state = State::Restores;
                Action::SendState
            }
            (State::Restores, Input::Message(Message::Restored { sessions })) => {
                self.state = State::Continues { sessions };
                Action::SendMedia { layout: self.states }
            }
            (State::Continues { sessions }, Input::Message(Message::Continued)) => {
                self.state = State::Gone;
                Action::SendGo { sessions }
            }
            (_, Input::Message(Message::Failed { reason }) | Input::Failed(reason)) => {
                self.abandon(reason)
            }
            (_, Input::Message(other)) => {
                self.abandon(format!("the new process sent an unexpected `{}`", other.name()))
            }
            (_, Input::Suspended) => self.abandon("decisions stopped unexpectedly".to_owned()),
        }
    }

    fn abandon(&mut self, reason: String) -> Action {
        let before = std::mem::replace(&mut self.state, State::Failed);
        Action::Abandon { reason, resume: before != State::Starts }
    }
}

#[cfg(test)]
mod tests;
