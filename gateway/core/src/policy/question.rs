//! The subject of a question to a policy, and what an answer contains beside the decision.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_model::{
    Apart, DecisionNote, Hook, HookAnswer, PluginFault, Reasons, RevisionAnswer, RoomId, SessionId,
};

use crate::rooms::RoomTable;
use crate::sessions::SessionTable;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum FaultSubject {
    Session(SessionId),
    Room(RoomId),
}

impl FaultSubject {
    pub(crate) fn exists(self, sessions: &SessionTable, rooms: &RoomTable) -> bool {
        match self {
            FaultSubject::Session(session) => sessions.contains_key(&session),
            FaultSubject::Room(room) => rooms.contains_key(&room),
        }
    }
}

/// The subject of a question, with its version at that time.
#[derive(Debug)]
pub(crate) enum QuestionSubject {
    Resolve(SessionId),
    Admit(SessionId),
    Place(RoomId),
    /// Rooms with the versions of their routes, sorted by id.
    Reroute(Vec<(RoomId, u64)>),
    /// Sessions with the versions of their plans, sorted by id.
    Tick(Vec<(SessionId, u32)>),
}

#[derive(Default, Debug)]
pub(crate) struct AnswerDetails {
    pub(crate) notes: Vec<DecisionNote>,
    pub(crate) apart: Option<Box<Apart>>,
    pub(crate) reasons: Option<Reasons>,
    pub(crate) ungranted: u32,
    pub(crate) took: Duration,
}

impl AnswerDetails {
    /// The revision that answered, its answer, and the rest.
    pub(crate) fn split(
        result: Result<RevisionAnswer, PluginFault>,
    ) -> (Option<Arc<str>>, Result<HookAnswer, PluginFault>, AnswerDetails) {
        match result {
            Ok(RevisionAnswer { answer, revision, notes, took, apart, reasons, ungranted }) => {
                let reasons = Some(reasons);
                let beside = AnswerDetails { notes, apart, reasons, ungranted, took };
                (Some(revision), Ok(answer), beside)
            }
            Err(fault) => (None, Err(fault), AnswerDetails::default()),
        }
    }
}

impl QuestionSubject {
    pub(crate) fn rows(&self) -> u32 {
        match self {
            QuestionSubject::Resolve(_) | QuestionSubject::Admit(_) | QuestionSubject::Place(_) => {
                1
            }
            QuestionSubject::Reroute(rooms) => rooms.len() as u32,
            QuestionSubject::Tick(sessions) => sessions.len() as u32,
        }
    }

    /// The session and the room of a question about one of them.
    pub(crate) fn one(&self, sessions: &SessionTable) -> (Option<SessionId>, Option<RoomId>) {
        match *self {
            QuestionSubject::Resolve(session) | QuestionSubject::Admit(session) => {
                (Some(session), sessions.get(&session).map(|session| session.room))
            }
            QuestionSubject::Place(room) => (None, Some(room)),
            QuestionSubject::Reroute(_) | QuestionSubject::Tick(_) => (None, None),
        }
    }

    /// True if a client waits for the answer.
    pub(crate) fn is_of_offer(&self) -> bool {
        matches!(
            self,
            QuestionSubject::Resolve(_) | QuestionSubject::Admit(_) | QuestionSubject::Place(_)
        )
    }

    pub(crate) fn subject(&self, row: u32) -> Option<FaultSubject> {
        match self {
            QuestionSubject::Resolve(session) | QuestionSubject::Admit(session) => {
                (row == 0).then_some(FaultSubject::Session(*session))
            }
            QuestionSubject::Place(room) => (row == 0).then_some(FaultSubject::Room(*room)),
            QuestionSubject::Reroute(rooms) => {
                rooms.get(row as usize).map(|(room, _)| FaultSubject::Room(*room))
            }
            QuestionSubject::Tick(sessions) => {
                sessions.get(row as usize).map(|(session, _)| FaultSubject::Session(*session))
            }
        }
    }

    /// The row of a batch that is about this subject.
    pub(crate) fn row_of(&self, subject: FaultSubject) -> Option<u32> {
        let row = match (self, subject) {
            (QuestionSubject::Reroute(rooms), FaultSubject::Room(room)) => {
                rooms.binary_search_by_key(&room, |(room, _)| *room)
            }
            (QuestionSubject::Tick(sessions), FaultSubject::Session(session)) => {
                sessions.binary_search_by_key(&session, |(session, _)| *session)
            }
            _ => return None,
        };
        row.ok().map(|row| row as u32)
    }

    pub(crate) fn hook(&self) -> Hook {
        match self {
            QuestionSubject::Resolve(_) => Hook::Scenario,
            QuestionSubject::Admit(_) => Hook::Admission,
            QuestionSubject::Place(_) | QuestionSubject::Reroute(_) => Hook::Routing,
            QuestionSubject::Tick(_) => Hook::Degradation,
        }
    }
}
