//! The gateway's decisions. A state machine without I/O, clock, async or Wasm: `handle_*` takes inputs, `poll_*`
//! returns outputs, and `now` and the seed are arguments.

// Tests start their virtual clock at the current time.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod admission;
mod advice;
mod capacity;
mod collections;
mod degradation;
mod diagnosis;
mod drains;
mod effects;
mod flow;
mod gateway;
mod hop_map;
mod legs;
mod policy;
mod quality;
mod record;
mod rooms;
mod sessions;
mod shares;
mod timers;

pub use effects::{GatewayEffect, InstalledSession};
pub use gateway::blast::{BlastRadius, ExpectedOutage, LoadChange, ModePrediction, RoomLoss};
pub use gateway::copy::{GatewayCopy, SessionCopy};
pub use gateway::records::Records;
pub use gateway::views::{
    AskedRevision, CandidateReason, Explanation, Heading, NodeCandidate, NodeStanding,
    RegionStanding, RoomDecisions, RoomExplanation, RoomStanding, SessionStanding, TableSizes,
    Views,
};
pub use gateway::{Gateway, NotOpened};
pub use hop_map::HopMap;
pub use policy::subjects::{ArmStatistics, ArmTally, SubjectDecision, SubjectQuarantine};
pub use record::{
    BreakersRecord, ChangedRecords, Failback, GatewayRecord, MemoRecord, NodeRecord, RegionRecord,
    RestoreError,
};
pub use rooms::room::{MoveRecord, MoveUnderWay, RoomRecord};
pub use rooms::{is_session_room_name, requested_room_name};
pub use sessions::{LegRecord, SessionRecord};
