//! The gateway's decisions. A state machine without I/O, clock, async or Wasm: `handle_*` takes inputs, `poll_*`
//! returns outputs, and `now` and the seed are arguments.

// Tests start their virtual clock at the current time.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod ask;
mod capacity;
pub mod cluster;
mod cohort;
mod dataplane;
mod effects;
mod event;
mod flow;
mod gateway;
mod id;
mod interner;
mod measure;
mod mode;
mod nodes;
mod offer;
mod policy;
mod quality;
mod record;
mod registry;
mod rooms;
mod sessions;
mod settings;
mod small;
mod timer;
mod views;

pub use ask::{
    Action, AdmitVerdict, Answer, Answered, Apart, Arm, Ask, Entry, Fault, Hook, Labels, Move,
    Note, Poisoned, PolicyName, Question, Reasons, RoomRow, SessionRow, State,
};
pub use dataplane::{
    Board, Bounds, Cell, Epoch, Grant, HOPS_MAX, Hop, Plan, Route, RouteCell, forward,
};
pub use effects::{Impossible, Output};
pub use event::{
    Breach, BreakerState, Cause, CloseReason, ClosedSession, Count, Event, Figure, Guard, Health,
    ModeChange, MoveOutcome, NotStarted, Outcome, Start, Strike, Witness,
};
pub use flow::Flow;
pub use gateway::{Gateway, Records};
pub use id::{AskId, Incarnation, NodeId, OfferId, RegionId, RoomId, SessionId, ZoneId};
pub use measure::{Measures, Row, UNMEASURED};
pub use mode::{Affinity, Mode};
pub use nodes::{AgentWord, Stamp, WATCH_EVERY};
pub use offer::{
    Accepted, Decider, Feedback, Identity, Ingress, Kind, Media, Offer, PayloadType, Refused,
    RtcpPort, Srtp, Stream, Transport,
};
pub use policy::{
    AcceptedRevision, Actor, Call, CandidateCalls, CandidateStatus, Cohort, Compared, Judging,
    LastRollout, Lifecycle, PolicyStatus, Progress, Quarantine, Quarantined, Refusal, Remembered,
    Revision, Revoked, Rollout, RolloutOutcome, RolloutRequest, RolloutRules, Said, Stage, Staged,
    Strategy, Tally, Verb, Version, WallClock, is_in_cohort,
};
pub use record::{
    ChangedRecords, GatewayRecord, HopMap, LegRecord, MemoRecord, NodeRecord, NotRestored,
    RegionRecord, RoomRecord, SessionRecord,
};
pub use registry::{COMMON_REASONS_FROM, CommonReason, EntryKind, Metric, Op, Param};
pub use rooms::{
    Failback, MoveRecord, MoveUnderWay, NotOpened, is_session_room_name, requested_room_name,
};
pub use settings::{
    AdmitOnFault, Breakers, DegradeOnFault, Limits, NodeSettings, Probed, Role, Scenario, Settings,
    Starts, Timings, Zone,
};
pub use views::{
    Candidate, Explanation, Heading, Kept, NodeStanding, RegionStanding, RoomStanding,
    SessionStanding, Why,
};
