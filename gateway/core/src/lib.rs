//! Decides. A state machine without I/O, clock, async, serde or Wasm: `handle_*` is what the world told us,
//! `poll_*` is what we want done, `now` and the seed are arguments.

mod ask;
mod id;
mod measure;

pub use ask::{
    Action, AdmitVerdict, Answer, Answered, Ask, Entry, EntryKind, Fault, Hook, Labels, Move, Note,
    Op, Param, PolicyName, Question, RoomRow, SessionRow, State,
};
pub use id::{AskId, Incarnation, NodeId, RegionId, RoomId, SessionId, ZoneId};
pub use measure::{Measures, Metric, Row, UNMEASURED};
