//! Questions to policies, the state kept of their answers, and the lifecycle of their revisions.

mod notes;
mod parts;
mod policies;
mod question;
mod questions;
mod subjects;

pub(crate) use notes::Noted;
pub use notes::{Said, SubjectQuarantine};
pub(crate) use parts::{BatchOutcome, PartCounts, PartOutcome};
pub(crate) use policies::{HarmfulRevision, Policies};
pub(crate) use question::{AnswerDetails, FaultSubject, QuestionSubject};
pub(crate) use questions::{
    PendingQuestion, QuestionsInFlight, mismatched, reasons_given, turns_away, was_taken,
};
pub(crate) use subjects::Subjects;
pub use subjects::{ArmStatistics, ArmTally};
