//! The new process's steps, without I/O.

use evenkeel_control::STATES;
use serde_json::Value;

use super::message::{HandoverMessage, ProtocolVersion};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum SuccessorState {
    /// Nothing was received.
    New,
    Starts,
    /// Sessions come next.
    Ready,
    Restores,
    /// All sessions are there.
    Restored,
    /// The sessions take their last states.
    Continues,
    Continued,
    /// This process serves, or ends.
    Over,
}

pub(super) struct Successor {
    state: SuccessorState,
    version: ProtocolVersion,
}

#[derive(PartialEq, Debug)]
pub(super) enum SuccessorInput {
    Message(HandoverMessage),
    /// Everything is there but packets and sessions.
    Started,
    Restored {
        sessions: usize,
    },
    /// The sessions have their last states.
    Continued,
    Failed(String),
}

#[derive(PartialEq, Debug)]
pub(super) enum SuccessorAction {
    Start {
        offer: Value,
    },
    /// Keep the records until the sessions come.
    Keep,
    Restore,
    /// Continue sessions in these states.
    Continue {
        is_last: bool,
    },
    Send(HandoverMessage),
    Serve,
    /// Tell the old process the reason, and end.
    Fail(String),
}

impl Successor {
    pub(super) fn new(version: ProtocolVersion) -> Successor {
        Successor { state: SuccessorState::New, version }
    }

    pub(super) fn handle(&mut self, input: SuccessorInput) -> SuccessorAction {
        match (self.state, input) {
            (
                SuccessorState::New,
                SuccessorInput::Message(HandoverMessage::Hello { version, offer }),
            ) => match version.require_same(&self.version) {
                Ok(()) => self.go_on(SuccessorState::Starts, SuccessorAction::Start { offer }),
                Err(reason) => self.go_on(SuccessorState::Over, SuccessorAction::Fail(reason)),
            },
            (SuccessorState::Starts, SuccessorInput::Started) => {
                let version = self.version.clone();
                let ready = HandoverMessage::Ready { version, states: Some(STATES) };
                self.go_on(SuccessorState::Ready, SuccessorAction::Send(ready))
            }
            (SuccessorState::Ready, SuccessorInput::Message(HandoverMessage::Records)) => {
                SuccessorAction::Keep
            }
            (SuccessorState::Ready, SuccessorInput::Message(HandoverMessage::State)) => {
                self.go_on(SuccessorState::Restores, SuccessorAction::Restore)
            }
            (SuccessorState::Restores, SuccessorInput::Restored { sessions }) => self.go_on(
                SuccessorState::Restored,
                SuccessorAction::Send(HandoverMessage::Restored { sessions }),
            ),
            (SuccessorState::Restored, SuccessorInput::Message(HandoverMessage::MediaPart)) => {
                SuccessorAction::Continue { is_last: false }
            }
            (SuccessorState::Restored, SuccessorInput::Message(HandoverMessage::Media)) => {
                self.go_on(SuccessorState::Continues, SuccessorAction::Continue { is_last: true })
            }
            (SuccessorState::Continues, SuccessorInput::Continued) => self.go_on(
                SuccessorState::Continued,
                SuccessorAction::Send(HandoverMessage::Continued),
            ),
            (SuccessorState::Continued, SuccessorInput::Message(HandoverMessage::Go)) => {
                self.go_on(SuccessorState::Over, SuccessorAction::Serve)
            }
            (_, SuccessorInput::Failed(reason)) => {
                self.go_on(SuccessorState::Over, SuccessorAction::Fail(reason))
            }
            (_, SuccessorInput::Message(other)) => {
                let reason = format!("the running gateway sent an unexpected `{}`", other.name());
                self.go_on(SuccessorState::Over, SuccessorAction::Fail(reason))
            }
            (
                _,
                SuccessorInput::Started
                | SuccessorInput::Restored { .. }
                | SuccessorInput::Continued,
            ) => {
                let reason = "the new process lost its place in the hand-over".to_owned();
                self.go_on(SuccessorState::Over, SuccessorAction::Fail(reason))
            }
        }
    }

    fn go_on(&mut self, state: SuccessorState, action: SuccessorAction) -> SuccessorAction {
        self.state = state;
        action
    }
}

#[cfg(test)]
mod tests;
