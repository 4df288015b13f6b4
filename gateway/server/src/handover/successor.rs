//! The new process's steps, without I/O.

use serde_json::Value;

use super::message::{Message, Version};
use crate::control::STATES;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
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
    state: State,
    version: Version,
}

#[derive(PartialEq, Debug)]
pub(super) enum Input {
    Message(Message),
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
pub(super) enum Action {
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
    Send(Message),
    Serve,
    /// Tell the old process the reason, and end.
    Fail(String),
}

impl Successor {
    pub(super) fn new(version: Version) -> Successor {
        Successor { state: State::New, version }
    }

    pub(super) fn handle(&mut self, input: Input) -> Action {
        match (self.state, input) {
            (State::New, Input::Message(Message::Hello { version, offer })) => {
                match version.require_same(&self.version) {
                    Ok(()) => self.go_on(State::Starts, Action::Start { offer }),
                    Err(reason) => self.go_on(State::Over, Action::Fail(reason)),
                }
            }
            (State::Starts, Input::Started) => {
                let version = self.version.clone();
                let ready = Message::Ready { version, states: Some(STATES) };
                self.go_on(State::Ready, Action::Send(ready))
            }
            (State::Ready, Input::Message(Message::Records)) => Action::Keep,
            (State::Ready, Input::Message(Message::State)) => {
                self.go_on(State::Restores, Action::Restore)
            }
            (State::Restores, Input::Restored { sessions }) => {
                self.go_on(State::Restored, Action::Send(Message::Restored { sessions }))
            }
            (State::Restored, Input::Message(Message::MediaPart)) => {
                Action::Continue { is_last: false }
            }
            (State::Restored, Input::Message(Message::Media)) => {
                self.go_on(State::Continues, Action::Continue { is_last: true })
            }
            (State::Continues, Input::Continued) => {
                self.go_on(State::Continued, Action::Send(Message::Continued))
            }
            (State::Continued, Input::Message(Message::Go)) => {
                self.go_on(State::Over, Action::Serve)
            }
            (_, Input::Failed(reason)) => self.go_on(State::Over, Action::Fail(reason)),
            (_, Input::Message(other)) => {
                let reason = format!("the running gateway sent an unexpected `{}`", other.name());
                self.go_on(State::Over, Action::Fail(reason))
            }
            (_, Input::Started | Input::Restored { .. } | Input::Continued) => {
                let reason = "the new process lost its place in the hand-over".to_owned();
                self.go_on(State::Over, Action::Fail(reason))
            }
        }
    }

    fn go_on(&mut self, state: State, action: Action) -> Action {
        self.state = state;
        action
    }
}

#[cfg(test)]
mod tests;
