//! The old process's steps, without I/O.

use super::message::{HandoverMessage, ProtocolVersion};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum PredecessorState {
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
    state: PredecessorState,
    version: ProtocolVersion,
    /// The layout of last states that the new process reads.
    states: Option<u32>,
}

#[derive(PartialEq, Debug)]
pub(super) enum PredecessorInput {
    Message(HandoverMessage),
    /// Nothing is decided any more.
    Suspended,
    /// The new process ended, was too slow, or something failed here.
    Failed(String),
}

#[derive(PartialEq, Eq, Debug)]
pub(super) enum PredecessorAction {
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
    pub(super) fn new(version: ProtocolVersion) -> Predecessor {
        Predecessor { state: PredecessorState::Starts, version, states: None }
    }

    pub(super) fn handle(&mut self, input: PredecessorInput) -> PredecessorAction {
        match (self.state, input) {
            (
                PredecessorState::Starts,
                PredecessorInput::Message(HandoverMessage::Ready { version, states }),
            ) => {
                if let Err(reason) = self.version.require_same(&version) {
                    return self.abandon(reason);
                }
                (self.state, self.states) = (PredecessorState::Suspends, states);
                PredecessorAction::Suspend
            }
            (PredecessorState::Suspends, PredecessorInput::Suspended) => {
                self.state = PredecessorState::Restores;
                PredecessorAction::SendState
            }
            (
                PredecessorState::Restores,
                PredecessorInput::Message(HandoverMessage::Restored { sessions }),
            ) => {
                self.state = PredecessorState::Continues { sessions };
                PredecessorAction::SendMedia { layout: self.states }
            }
            (
                PredecessorState::Continues { sessions },
                PredecessorInput::Message(HandoverMessage::Continued),
            ) => {
                self.state = PredecessorState::Gone;
                PredecessorAction::SendGo { sessions }
            }
            (
                _,
                PredecessorInput::Message(HandoverMessage::Failed { reason })
                | PredecessorInput::Failed(reason),
            ) => self.abandon(reason),
            (_, PredecessorInput::Message(other)) => {
                self.abandon(format!("the new process sent an unexpected `{}`", other.name()))
            }
            (_, PredecessorInput::Suspended) => {
                self.abandon("decisions stopped unexpectedly".to_owned())
            }
        }
    }

    fn abandon(&mut self, reason: String) -> PredecessorAction {
        let before = std::mem::replace(&mut self.state, PredecessorState::Failed);
        PredecessorAction::Abandon { reason, resume: before != PredecessorState::Starts }
    }
}

#[cfg(test)]
mod tests;
