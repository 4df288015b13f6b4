//! Questions to policies, the state kept of their answers, and the lifecycle of their revisions.

mod notes;
mod parts;
mod policies;
mod questions;
mod subjects;

pub(crate) use notes::{FaultSubject, Noted};
pub use notes::{Said, SubjectQuarantine};
pub(crate) use parts::{BatchOutcome, PartCounts, PartOutcome};
pub(crate) use policies::{HarmfulRevision, Policies};
pub(crate) use questions::{
    AnswerDetails, PendingQuestion, QuestionSubject, QuestionsInFlight, mismatched, reasons_given,
    was_taken,
};
pub(crate) use subjects::Subjects;
pub use subjects::{ArmStatistics, ArmTally};
