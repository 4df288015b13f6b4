//! Decides. A state machine without I/O, clock, async, serde or Wasm: `handle_*` is what the world told us,
//! `poll_*` is what we want done, `now` and the seed are arguments.

mod ask;
mod board;
mod event;
pub mod forward;
mod id;
mod ladder;
mod measure;
mod offer;
mod route;

pub use ask::{
    Action, AdmitVerdict, Answer, Answered, Ask, Entry, EntryKind, Fault, Hook, Labels, Move, Note,
    Op, Param, PolicyName, Question, RoomRow, SessionRow, State,
};
pub use board::{Board, Cell};
pub use event::{Cause, CloseReason, Event, Guard, Health, Outcome, Witness};
pub use id::{AskId, Incarnation, NodeId, OfferId, RegionId, RoomId, SessionId, ZoneId};
pub use ladder::{Bounds, Plan};
pub use measure::{Measures, Metric, Row, UNMEASURED};
pub use offer::{
    Accepted, Decider, Feedback, Identity, Ingress, Kind, Media, Offer, PayloadType, Refused,
    RtcpPort, Srtp, Stream,
};
pub use route::{Epoch, Grant, HOPS_MAX, Hop, Route, RouteCell};
