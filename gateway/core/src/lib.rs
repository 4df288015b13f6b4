//! The gateway's decisions. A state machine without I/O, clock, async or Wasm: `handle_*` takes inputs, `poll_*`
//! returns outputs, and `now` and the seed are arguments.

// Tests start their virtual clock at the current time.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod capacity;
mod cohort;
mod effects;
mod flow;
mod gateway;
mod interner;
mod policy;
mod quality;
mod record;
mod rooms;
mod sessions;
mod small;
mod timer;
mod views;

pub use effects::GatewayEffect;
pub use evenkeel_model::Impossible;
pub use evenkeel_nodes::{AgentWord, NodeEvidence, WATCH_EVERY};
pub use gateway::{Gateway, Records};
pub use policy::{ArmStatistics, ArmTally, Said, SubjectQuarantine};
pub use record::{
    ChangedRecords, GatewayRecord, HopMap, LegRecord, MemoRecord, NodeRecord, RegionRecord,
    RestoreError, RoomRecord, SessionRecord,
};
pub use rooms::{
    Failback, MoveRecord, MoveUnderWay, NodeController, NotOpened, is_session_room_name,
    requested_room_name,
};
pub use views::{
    CandidateReason, Explanation, Heading, NodeCandidate, NodeStanding, RegionStanding,
    RoomStanding, SessionStanding, TableSizes, Views,
};
