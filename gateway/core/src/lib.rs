//! Decides. A state machine without I/O, clock, async, serde or Wasm: `handle_*` is what the world told us,
//! `poll_*` is what we want done, `now` and the seed are arguments.

// Tests start their virtual clock at whatever time it is.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod alike;
mod ask;
mod board;
mod breaker;
mod capacity;
mod cohort;
mod detector;
mod effects;
mod event;
mod few;
mod flow;
pub mod forward;
mod gateway;
mod gauge;
mod id;
mod judge;
mod ladder;
mod ledger;
mod measure;
mod mode;
mod node;
mod nodes;
mod offer;
mod pace;
mod place;
mod policy;
mod quality;
mod registry;
mod rollout;
mod room;
mod rooms;
mod route;
mod session;
mod sessions;
mod settings;
mod timer;
mod walk;

pub use ask::{
    Action, AdmitVerdict, Answer, Answered, Apart, Ask, Entry, Fault, Hook, Labels, Move, Note,
    Poisoned, PolicyName, Question, Reasons, RoomRow, SessionRow, State,
};
pub use board::{Board, Cell};
pub use breaker::BreakerState;
pub use detector::Stamp;
pub use event::{
    Cause, CloseReason, Event, Guard, Health, ModeChange, NotStarted, Outcome, Start, Strike,
    Witness,
};
pub use flow::Flow;
pub use gateway::{
    AgentWord, Candidate, Cohort, Explanation, FailBack, Gateway, HIDDEN_MAX, Heading, Impossible,
    Kept, MoveOutcome, MoveRecord, MoveUnderWay, NodeStanding, NotOpened, Output, Quarantine,
    RegionStanding, RoomStanding, Said, SessionStanding, WATCH_EVERY, Why, names_one_apart,
};
pub use id::{AskId, Incarnation, NodeId, OfferId, RegionId, RoomId, SessionId, ZoneId};
pub use judge::{Breach, Count, Figure, Judging};
pub use ladder::{Bounds, Plan};
pub use measure::{Measures, Row, UNMEASURED};
pub use mode::{Affinity, Mode};
pub use offer::{
    Accepted, Decider, Feedback, Identity, Ingress, Kind, Media, Offer, PayloadType, Refused,
    RtcpPort, Srtp, Stream, Transport,
};
pub use registry::{COMMON_REASONS_FROM, CommonReason, EntryKind, Metric, Op, Param};
pub use rollout::{Arm, Canary, Revision, Revisions};
pub use route::{Epoch, Grant, HOPS_MAX, Hop, Route, RouteCell};
pub use settings::{
    AdmitOnFault, Breakers, DegradeOnFault, Limits, NodeSettings, Probed, Role, Scenario, Settings,
    Starts, Timings, Zone,
};
pub use walk::{Heard, Pace, Stage, Turn, Walk};
